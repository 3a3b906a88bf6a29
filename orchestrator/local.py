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
            conductor.die(assignment, traceback.format_exc())


def _run_trial(conductor: Conductor, assignment: Assignment, cache: Path) -> None:
    from trainables.arrays import load_arrays
    from trainables.stepping import Stepper
    from trainables.trial import TrialData

    stepper = Stepper(assignment.config, **conductor.orders(assignment))
    data = TrialData.from_arrays(load_arrays(assignment.config.data, cache), assignment.config.device)
    while not stepper.ended:
        points, checkpoint = stepper.step(data)
        if checkpoint is not None:
            conductor.keep_checkpoint(assignment, checkpoint)
        if stepper.ended:
            conductor.finish(assignment, points)
        elif conductor.report(assignment, points):
            return
