"""Train one trial outside a sweep and keep its student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.trial import TrialData, start_trial, train_student


def train_again(config: TrialConfig, cache: Path, *, epochs: int, save: Path | None) -> dict[str, Any]:
    """Train a trial up to `epochs` (fewer than its own if it was stopped); its last metrics.

    Args:
        config: Of the trial.
        cache: Where its data were prepared.
        epochs: How far.
        save: Where to write {"config", "epoch", "model"}, loadable with `torch.load(..., weights_only=True)`.
    """
    data = TrialData.from_arrays(load_arrays(config.data, cache), config.device)
    state = start_trial(config, data)
    last: dict[str, Any] = {}
    for point in train_student(config, data, state):
        last = point.as_dict()
        if point.epoch >= epochs:
            break
    if save:
        torch.save({"config": config.as_dict(), "epoch": state.epoch, "model": state.student.state_dict()}, save)
    return last
