"""A bare pool of processes that train students, with neither Ray nor MLflow: what orchestration is measured against."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trainables.config import TrialConfig

if TYPE_CHECKING:
    from trainables.trial import TrialData

_data: dict[str, TrialData] = {}


def _load(cache: str, config: TrialConfig) -> None:
    """Make a process ready: torch loaded, data mapped, one epoch trained."""
    from dataclasses import replace

    from trainables.arrays import load_arrays
    from trainables.trial import TrialData, train_student

    _data[config.data] = TrialData.from_arrays(load_arrays(config.data, Path(cache)), config.device)
    list(train_student(replace(config, epochs=1), _data[config.data]))


def _train(config: TrialConfig) -> float:
    from trainables.trial import train_student

    return list(train_student(config, _data[config.data]))[-1].val_accuracy


class Pool:
    """Warm processes that all map one prepared recipe."""

    def __init__(self, cache: Path, config: TrialConfig, *, processes: int) -> None:
        """Start them, each with the data of `config`."""
        self._executor = ProcessPoolExecutor(processes, get_context("spawn"), _load, (str(cache), config))
        self.run([config] * processes)

    def run(self, configs: Sequence[TrialConfig]) -> tuple[float, list[float]]:
        """Seconds that the pool needs for some trials, and their validation accuracies."""
        started = time.monotonic()
        accuracies = list(self._executor.map(_train, configs))
        return time.monotonic() - started, accuracies

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._executor.shutdown()
