"""The only Ray file here: a student training as a Ray Tune trainable whose actor is reused from trial to trial."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import tune

from trainables.config import TrialConfig
from trainables.stepping import Stepper

if TYPE_CHECKING:
    from trainables.trial import TrialData


class StudentTrainable(tune.Trainable):
    """Iterates `train_student`; Tune hears of a trial at its rungs and at its end.

    The configuration holds `trial` (a TrialConfig as a dictionary) and `orders` (arguments of `Stepper`); `data` arrives by
    reference, arrays by name for each data key, through `tune.with_parameters`.
    """

    def setup(self, config: dict[str, Any], data: Mapping[str, Mapping[str, np.ndarray]] | None = None) -> None:
        """Keep the shared arrays. Fast on purpose: the rest waits for the first step.

        While an actor is being set up, Tune gives its trial to any other actor that becomes free and cancels the new
        one. With a slow set-up and short trials, all trials would run on the first actor that was ready.
        """
        self._arrays = data or {}
        self._is_warm = False
        self._on_device: dict[tuple[str, str], TrialData] = {}
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial in the same process."""
        self._trial = TrialConfig(**new_config["trial"])
        self._stepper = Stepper(self._trial, **new_config["orders"])
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next rung or checkpoint, or to the end; the points of the curve since the last call."""
        points, checkpoint = self._stepper.step(self._ready_data())
        return {"points": points, "checkpoint": checkpoint, "done": self._stepper.ended}

    def cleanup(self) -> None:
        """Free device memory before the actor goes."""
        self._on_device.clear()
        gc.collect()

    def _ready_data(self) -> TrialData:
        """The trial's data. The first time, train one epoch that is thrown away: torch loads much at first use."""
        data = self._data(self._trial.data, self._trial.device)
        if not self._is_warm:
            from trainables.trial import train_student  # here, so that a driver that names this class needs no torch

            list(train_student(replace(self._trial, epochs=1), data))
            self._is_warm = True
        return data

    def _data(self, key: str, device: str) -> TrialData:
        """The shared arrays as tensors, once per actor and device."""
        from trainables.trial import TrialData

        if (key, device) not in self._on_device:
            self._on_device[key, device] = TrialData.from_arrays(self._arrays[key], device)
        return self._on_device[key, device]
