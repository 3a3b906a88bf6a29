"""Run a sweep in this process, one trial at a time, without Ray."""

from __future__ import annotations

import traceback
from pathlib import Path

from orchestrator.conductor import Conductor
from orchestrator.search import Assignment


def run_local(conductor: Conductor, cache: Path) -> None:
    """Run every trial that the conductor has; the same plan gives the same table as under Ray."""
    while (assignment := conductor.next_trial()) is not None:
        conductor.start(assignment)
        try:
            _run_trial(conductor, assignment, cache)
        except Exception:  # noqa: BLE001 (whatever a trial's code raises fails this trial alone)
            conductor.fail(assignment, traceback.format_exc())


def _run_trial(conductor: Conductor, assignment: Assignment, cache: Path) -> None:
    from trainables.arrays import load_arrays
    from trainables.trial import TrialData, train_student

    config = assignment.config
    data = TrialData.from_arrays(load_arrays(config.data, cache), config.device)
    for point in train_student(config, data):
        if point.epoch == config.epochs or point.diverged:
            conductor.finish(assignment, [point.as_dict()])
        elif conductor.report(assignment, [point.as_dict()]):
            return
