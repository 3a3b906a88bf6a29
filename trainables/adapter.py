"""The only Ray file here: a student training as a Ray Tune trainable whose actor is reused from trial to trial.

Trials of engine "grouped" train in a host, an actor per device, and their trainables only wait for it.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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
        self._host: Any = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial in the same process."""
        self._leave_host()
        self._trial = TrialConfig(**new_config["trial"])
        self._orders = new_config["orders"]
        self._attempt = uuid.uuid4().hex
        self._stepper = Stepper(self._trial, **self._orders)
        return True

    def step(self) -> dict[str, Any]:
        """Train up to the next rung or checkpoint, or to the end; the points of the curve since the last call."""
        if self._trial.engine == "grouped":
            return self._step_in_host()
        points, checkpoint = self._stepper.step(self._ready_data())
        return {"points": points, "checkpoint": checkpoint, "done": self._stepper.ended}

    def cleanup(self) -> None:
        """Free device memory before the actor goes."""
        self._leave_host()
        self._on_device.clear()
        gc.collect()

    def _step_in_host(self) -> dict[str, Any]:
        """As `step`, in the actor that trains all trials of this device."""
        if self._host is None:
            self._host = find_host(self._arrays)
        found: dict[str, Any] = ray.get(self._host.step.remote(self._trial.as_dict(), self._orders, self._attempt))
        return found

    def _leave_host(self) -> None:
        """A trial that was stopped is not to be advanced any more."""
        if self._host is not None:
            self._host.forget.remote(self._attempt)

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


def find_host(arrays: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """The host of this process's device, made now if there is none."""
    context, visible = ray.get_runtime_context(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
    here = NodeAffinitySchedulingStrategy(context.get_node_id(), soft=False)
    name = f"lossatlas-{context.get_job_id()}-{context.get_node_id()}-{visible}"
    options = {"name": name, "get_if_exists": True, "num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": here}
    return ray.remote(GroupHost).options(**options).remote(ray.put(arrays), visible)


class GroupHost:
    """Trains all trials of a device in one process; each of its calls has a thread."""

    def __init__(self, arrays: Mapping[str, Mapping[str, np.ndarray]], visible: str) -> None:
        """Take over the device of the trials; Ray gives an actor without a share of a GPU none."""
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
        from trainables.grouped import Group

        self._arrays = arrays
        self._group = Group()
        self._steppers: dict[str, Stepper] = {}
        self._on_device: dict[tuple[str, str], TrialData] = {}

    def step(self, trial: dict[str, Any], orders: dict[str, Any], attempt: str) -> dict[str, Any]:
        """As `StudentTrainable.step`, for a trial by its configuration; one whose trainable died begins anew."""
        from trainables.trial import TrialData

        config = TrialConfig(**trial)
        place = (config.data, config.device)
        if place not in self._on_device:
            self._on_device[place] = TrialData.from_arrays(self._arrays[config.data], config.device)
        if attempt not in self._steppers:
            self._steppers[attempt] = Stepper(config, **orders, train=self._group.train)
        stepper = self._steppers[attempt]
        points, checkpoint = stepper.step(self._on_device[place])
        if stepper.ended:
            self.forget(attempt)
        return {"points": points, "checkpoint": checkpoint, "done": stepper.ended}

    def forget(self, attempt: str) -> None:
        """Its student is not needed any more."""
        self._steppers.pop(attempt, None)
