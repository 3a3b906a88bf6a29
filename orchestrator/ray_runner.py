"""Run a sweep on Ray Tune: thin adapters between Tune's searcher, scheduler and callback and the conductor."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from orchestrator.conductor import Conductor
from orchestrator.search import Assignment
from search_spaces import ConfigError
from trainables.adapter import Hosts, StudentTrainable

# Tune logs, checkpoints and prints per trial by default, which costs more than a short trial.
_TUNE_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "TUNE_WARN_THRESHOLD_S": "5",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True, slots=True)
class Slots:
    """What a trial occupies and how many may run at once."""

    cpus: int
    gpus: float
    max_concurrent: int | None

    def of_trial(self, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """A trial's resources: `share` slots, as far as the largest node has them."""
        cpus = min(self.cpus * config["share"], max(node["Resources"].get("CPU", 0) for node in ray.nodes()))
        gpus = min(1.0, self.gpus * config["share"]) if self.gpus < 1 else self.gpus
        return tune.PlacementGroupFactory([{"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}])


def run_on_ray(
    conductor: Conductor,
    data: Mapping[str, Mapping[str, np.ndarray]],
    *,
    slots: Slots,
    storage: Path,
    trainable: type[tune.Trainable] = StudentTrainable,
) -> None:
    """Run every trial that the conductor has on the connected Ray cluster.

    Args:
        conductor: Decides; told of everything.
        data: Prepared arrays by data key; they enter the object store once.
        slots: Resources per trial.
        storage: Folder for Tune's own files, which nothing reads.
        trainable: What trains; another one is a benchmark's.
    """
    if ray.cluster_resources().get("CPU", 0) < slots.cpus:
        raise ConfigError(f"resources.cpus: no node has {slots.cpus} CPUs; the cluster has {ray.cluster_resources()}.")
    os.environ.update(_TUNE_ENVIRONMENT)
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(_concurrency(slots) + 2)
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    bridge = _Bridge(conductor)
    parameters: dict[str, Any] = {"data": dict(data)}
    if any(cell.settings.fixed.engine == "grouped" for cell in conductor.plan.cells):
        parameters["hosts"] = ray.remote(Hosts).options(num_cpus=0).remote([ray.put(dict(data))])
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, **parameters), slots.of_trial),
        tune_config=tune.TuneConfig(
            search_alg=_Search(bridge),
            scheduler=_Scheduler(bridge),
            num_samples=-1,
            max_concurrent_trials=slots.max_concurrent,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[_Callback(bridge)],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),
        ),
    )
    tuner.fit()


def _concurrency(slots: Slots) -> int:
    """Trials that fit on the cluster at once."""
    total = ray.cluster_resources()
    fits = total.get("CPU", 1) / slots.cpus
    if slots.gpus:
        fits = min(fits, total.get("GPU", 0) / slots.gpus)
    return max(1, min(int(fits), slots.max_concurrent or int(fits)))


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.trial_id}"


class _Bridge:
    """Which Tune trial is which assignment, shared by the adapters; Tune's own snapshots leave it out."""

    def __init__(self, conductor: Conductor) -> None:
        self.conductor = conductor
        self.running: dict[str, Assignment] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()


class _Search(Searcher):
    """Asks the conductor for trials; everything it knows is in the journal, so Tune has nothing to save."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__(metric="epoch", mode="max")
        self._bridge = bridge

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        conductor = self._bridge.conductor
        assignment = conductor.next_trial()
        if assignment is None:
            return Searcher.FINISHED if conductor.search.finished else None
        self._bridge.running[trial_id] = assignment
        share, orders = conductor.share(assignment), conductor.orders(assignment)
        return {"trial": assignment.config.as_dict(), "orders": orders, "share": share}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback hears of ends."""

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is rebuilt from its journal, never from Tune's files.")


class _Scheduler(FIFOScheduler):
    """Passes reports to the conductor, which decides."""

    def __init__(self, bridge: _Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        assignment = self._bridge.running[trial.trial_id]
        if self._bridge.conductor.report(assignment, result["points"]):
            del self._bridge.running[trial.trial_id]
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)


class _Callback(tune.Callback):
    """Tells the conductor of starts, natural ends and errors."""

    def __init__(self, bridge: _Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._bridge.running:
            self._bridge.conductor.start(self._bridge.running[trial.trial_id])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        points, checkpoint = result.pop("points", []), result.pop("checkpoint", None)  # or Tune would keep them all
        if trial.trial_id not in self._bridge.running:
            return
        if result.get("done"):
            self._bridge.conductor.finish(self._bridge.running.pop(trial.trial_id), points)
        elif checkpoint is not None:
            self._bridge.conductor.keep_checkpoint(self._bridge.running[trial.trial_id], checkpoint)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if trial.trial_id in self._bridge.running:
            self._bridge.conductor.die(self._bridge.running.pop(trial.trial_id), _error_text(trial))


def _error_text(trial: Trial) -> str:
    """What the trial's process said, its last lines last."""
    with contextlib.suppress(OSError, TypeError):
        return Path(trial.error_file).read_text()[-4000:]
    return "the trial's process died without a message"
