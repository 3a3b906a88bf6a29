"""A sweep's figures for Prometheus, through Ray: what `deploy/grafana/lossatlas.json` draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ray.util.metrics import Counter, Gauge

from orchestrator.search import Assignment

#: Name (Ray puts `ray_` before it), what it is, and what it is divided by.
METRICS: Final = {
    "lossatlas_trials": ("Trials that started, died, or ended as finished, stopped or failed.", ("sweep", "state")),
    "lossatlas_stopped": ("Trials that early stopping ended, by rung.", ("sweep", "rung")),
    "lossatlas_epochs": ("Epochs trained and reported.", ("sweep",)),
    "lossatlas_best_validation": ("Best validation accuracy of an arm so far.", ("sweep", "arm")),
    "lossatlas_tracker_backlog": ("Trials that MLflow does not know all of yet.", ("sweep",)),
}


class SweepMetrics:
    """A listener of the conductor that counts into Ray's metrics."""

    def __init__(self, sweep: str, backlog: Callable[[], int]) -> None:
        """Ray must be connected.

        Args:
            sweep: Its name, a label of every figure.
            backlog: Trials that the tracker does not know all of yet.
        """
        self._sweep = {"sweep": sweep}
        self._backlog = backlog
        self._seen: dict[str, int] = {}
        self._best: dict[str, float] = {}
        self._trials, self._stopped, self._epochs = (
            Counter(name, description=METRICS[name][0], tag_keys=METRICS[name][1]) for name in list(METRICS)[:3]
        )
        self._best_gauge, self._backlog_gauge = (
            Gauge(name, description=METRICS[name][0], tag_keys=METRICS[name][1]) for name in list(METRICS)[3:]
        )

    def hear(self, event: str, assignment: Assignment, detail: Any) -> None:
        """Count an event; see `Conductor`."""
        if event == "start":
            self._count("started")
        elif event == "report":
            self._report(assignment, detail)
        elif event == "death":
            self._count("died")
            self._seen.pop(assignment.trial_id, None)
        else:
            self._end(assignment, detail)

    def _count(self, state: str) -> None:
        self._trials.inc(1, self._sweep | {"state": state})

    def _report(self, assignment: Assignment, points: list[dict[str, Any]]) -> None:
        if not points:
            return
        before, now = self._seen.get(assignment.trial_id, 0), points[-1]["epoch"]
        self._seen[assignment.trial_id] = now
        if now > before:
            self._epochs.inc(now - before, self._sweep)

    def _end(self, assignment: Assignment, result: Any) -> None:
        self._seen.pop(assignment.trial_id, None)
        self._count(result.status)
        if result.stopped_by:
            self._stopped.inc(1, self._sweep | {"rung": result.stopped_by})
        for arm in assignment.cell.arms if result.usable else ():
            if result.last_validation > self._best.get(arm, -1.0):
                self._best[arm] = result.last_validation
                self._best_gauge.set(result.last_validation, self._sweep | {"arm": arm})
        self._backlog_gauge.set(self._backlog(), self._sweep)
