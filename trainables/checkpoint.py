"""A training in progress as bytes: written by a worker, kept by the driver, continued by any worker."""

from __future__ import annotations

import io
import pickle
from collections.abc import Sequence
from typing import Any

import torch

from trainables.config import TrialConfig
from trainables.trial import TrialData, TrialState, start_trial


def pack(state: TrialState, points: Sequence[dict[str, Any]]) -> bytes:
    """A training and its curve so far, readable without running code (`torch.load(..., weights_only=True)`)."""
    buffer = io.BytesIO()
    torch.save({"state": state.state_dict(), "points": list(points)}, buffer)
    return buffer.getvalue()


def unpack(checkpoint: bytes | None, config: TrialConfig, data: TrialData) -> tuple[TrialState, list[dict[str, Any]]]:
    """A training to continue and its curve so far; from nothing where there is no checkpoint, or a damaged one."""
    state = start_trial(config, data)
    if checkpoint is None:
        return state, []
    try:
        saved = torch.load(io.BytesIO(checkpoint), weights_only=True, map_location=config.device)
        state.load_state_dict(saved["state"])
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError):
        return start_trial(config, data), []
    return state, list(saved["points"])
