"""The only Ray file here: a student training as a Ray Tune trainable whose actor is reused from trial to trial.

Trials of engine "grouped" train in a host, an actor per device, and their trainables only wait for it.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.config import TrialConfig
from trainables.metrics import EpochMetrics
from trainables.names import HOST_LOST
from trainables.stepping import Stepper

if TYPE_CHECKING:
    from trainables.trial import TrialData, TrialState


class StudentTrainable(tune.Trainable):
    """Iterates `train_student`; Tune hears of a trial at its rungs and at its end.

    The configuration holds `trial` (a TrialConfig as a dictionary) and `orders` (arguments of `Stepper`); `data` (arrays by name
    for each data key) and `hosts` (an actor of class Hosts) arrive by reference, through `tune.with_parameters`.
    """

    def setup(
        self, config: dict[str, Any], data: Mapping[str, Mapping[str, np.ndarray]] | None = None, hosts: Any = None
    ) -> None:
        """Keep the shared arrays. Fast on purpose: the rest waits for the first step.

        While an actor is being set up, Tune gives its trial to any other actor that becomes free and cancels the new
        one. With a slow set-up and short trials, all trials would run on the first actor that was ready.
        """
        self._arrays, self._hosts = data or {}, hosts
        self._is_warm = False
        self._on_device: dict[tuple[str, str], TrialData] = {}
        self._host: Any = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make ready for another trial in the same process."""
        self._leave_host()
        self._trial = TrialConfig(**new_config["trial"])
        self._orders = new_config["orders"]
        self._attempt, self._has_begun = uuid.uuid4().hex, False
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
        lost = None
        for _ in range(2):  # a host that died while this one was idle is replaced without a word
            node, visible = ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "")
            self._host = ray.get(self._hosts.find.remote(node, visible, lost))
            try:
                asked = self._host.step.remote(self._trial.as_dict(), self._orders, self._attempt)
                found: dict[str, Any] = ray.get(asked)
            except ray.exceptions.RayActorError as err:
                if self._has_begun:
                    raise RuntimeError(HOST_LOST) from err
                lost = self._host._actor_id.binary()
            else:
                self._has_begun = True
                return found
        raise RuntimeError(HOST_LOST)

    def _leave_host(self) -> None:
        """A trial that was stopped is not to be advanced any more."""
        if self._host is not None:
            self._host.forget.remote(self._trial.trial_id, self._attempt)

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


class Hosts:
    """Makes the hosts of a sweep; an actor of the driver, so that they live as long as that, whoever asked for them."""

    def __init__(self, data: list[ray.ObjectRef[Any]]) -> None:
        """Keep the reference to the prepared arrays, in a list, or Ray would hand over the arrays."""
        self._data = data
        self._known: dict[tuple[str, str], Any] = {}

    def find(self, node_id: str, visible: str, lost: bytes | None) -> Any:
        """The host of a device; a new one if there is none, or if the known one is the one that was lost."""
        place = (node_id, visible)
        if place not in self._known or self._known[place]._actor_id.binary() == lost:
            here = NodeAffinitySchedulingStrategy(node_id, soft=False)
            options = {"num_cpus": 0, "max_concurrency": 1000, "scheduling_strategy": here}
            self._known[place] = ray.remote(GroupHost).options(**options).remote(*self._data, visible)
        return self._known[place]


class GroupHost:
    """Trains all trials of a device in one process; each of its calls has a thread."""

    def __init__(self, arrays: Mapping[str, Mapping[str, np.ndarray]], visible: str) -> None:
        """Take over the device of the trials; Ray gives an actor without a share of a GPU none."""
        os.environ["CUDA_VISIBLE_DEVICES"] = visible
        from trainables.grouped import Group

        self._arrays = arrays
        self._group = Group()
        self._current: dict[str, tuple[str, Stepper]] = {}
        self._on_device: dict[tuple[str, str], TrialData] = {}
        self._lock = Lock()

    def step(self, trial: dict[str, Any], orders: dict[str, Any], attempt: str) -> dict[str, Any]:
        """As `StudentTrainable.step`; a trial whose trainable died comes again as another attempt, and begins anew."""
        config = TrialConfig(**trial)
        data = self._ready_data(config)
        known = self._current.get(config.trial_id)
        if known is None or known[0] != attempt:
            stepper = Stepper(config, **orders, train=partial(self._train, attempt))
            self._current[config.trial_id] = (attempt, stepper)
        stepper = self._current[config.trial_id][1]
        points, checkpoint = stepper.step(data)
        if stepper.ended:
            self.forget(config.trial_id, attempt)
        return {"points": points, "checkpoint": checkpoint, "done": stepper.ended}

    def forget(self, trial_id: str, attempt: str) -> None:
        """Its student is not needed any more."""
        if self._is_current(trial_id, attempt):
            del self._current[trial_id]

    def _is_current(self, trial_id: str, attempt: str) -> bool:
        return self._current.get(trial_id, ("", None))[0] == attempt

    def _train(self, attempt: str, config: TrialConfig, data: TrialData, state: TrialState) -> Iterator[EpochMetrics]:
        """Train in the group until the trial ends, or another attempt has taken its place."""
        for point in self._group.train(config, data, state):
            if not self._is_current(config.trial_id, attempt):
                raise RuntimeError(f"another attempt of trial {config.trial_id} has taken over.")
            yield point

    def _ready_data(self, config: TrialConfig) -> TrialData:
        """A recipe's data on the device, once for all."""
        from trainables.trial import TrialData

        place = (config.data, config.device)
        with self._lock:
            if place not in self._on_device:
                self._on_device[place] = TrialData.from_arrays(self._arrays[config.data], config.device)
        return self._on_device[place]
