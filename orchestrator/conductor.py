"""The conductor: asks the search what to run, judges reports, writes the journal. Ray and the local runner call it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from orchestrator.cells import Cell, format_value
from orchestrator.checkpoints import Checkpoints
from orchestrator.deaths import Deaths, cause_of
from orchestrator.journal import Journal
from orchestrator.plan import Plan
from orchestrator.schedulers import AUDIT, STOP, Decision, StratifiedAsha
from orchestrator.search import FAILED, FINISHED, STOPPED, Assignment, TrialResult, TwoStageSearch
from search_spaces.settings import EarlyStopping
from trainables.findings import Findings

#: Characters of an error that are kept, its last ones.
MOST_ERROR = 4000

Listener = Callable[[str, Assignment, Any], None]


class Conductor:
    """Advances one sweep. Not thread-safe: one loop calls it.

    Listeners hear ("start", assignment, when), ("report", assignment, new points), ("death", assignment, error) of a
    trial that will be tried again, and ("end", assignment, result), after the journal has it. They must return at once.
    """

    def __init__(
        self,
        plan: Plan,
        journal: Journal,
        records: Iterable[Mapping[str, Any]],
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Rebuild searcher and scheduler from the journal's records.

        Args:
            plan: Of the sweep.
            journal: Open for appending.
            records: What it had.
            checkpoints: Of trials in progress; None keeps none.
        """
        records = list(records)
        self.plan = plan
        self.search = TwoStageSearch(plan, results_of(records))
        self.listeners: list[Listener] = []
        self._journal = journal
        self._deaths = Deaths(records)
        self._checkpoints = checkpoints
        self._asha = self._make_asha(records)
        self._curves: dict[str, list[dict[str, Any]]] = {}
        self._audited: set[str] = set()
        self._stated = {record["data"] for record in records if record["kind"] == "stated"}

    def next_trial(self) -> Assignment | None:
        """A trial to run now, or None; see `TwoStageSearch.next_trial`."""
        assignment = self.search.next_trial()
        if assignment is not None:
            self._curves[assignment.trial_id] = []
            self._audited.discard(assignment.trial_id)
        return assignment

    def note_stated(self, data: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what was stated of each distilled set, in the space or beside it, in the journal."""
        for key, about in data.items():
            stated = dict(Findings.of(about).stated)
            if stated and key not in self._stated:
                self._stated.add(key)
                self._journal.append("stated", data=key, stated=stated)

    def start(self, assignment: Assignment) -> None:
        """A trial has a process and begins to train."""
        started_at = time.time()
        self._journal.append("start", trial_id=assignment.trial_id, started_at=started_at)
        self._tell("start", assignment, started_at)

    def rung_epochs(self, assignment: Assignment) -> list[int]:
        """Epochs at which a trial must report; none for `confirm`."""
        if self._asha is None or assignment.config.stage != "tune":
            return []
        return self.plan.rung_epochs(assignment.cell)

    def report(self, assignment: Assignment, points: Sequence[dict[str, Any]]) -> bool:
        """Take new points of a trial's curve; True if it must stop now (and then it has ended)."""
        curve = self._curves[assignment.trial_id]
        first_new = curve[-1]["epoch"] + 1 if curve else 1
        curve.extend(points)
        self._tell("report", assignment, points)
        for rung in self.rung_epochs(assignment):
            if first_new <= rung <= curve[-1]["epoch"] and self._judge(assignment, rung):
                self._end(assignment, STOPPED, stopped_by=f"asha@{rung}")
                return True
        return False

    def finish(self, assignment: Assignment, points: Sequence[dict[str, Any]]) -> None:
        """A trial has ended by itself; `points` are the last of its curve."""
        if points and self.report(assignment, points):
            return
        self._end(assignment, FINISHED)

    def die(self, assignment: Assignment, error: str) -> None:
        """A trial's own code raised, or its process was lost: it is tried again, or has failed; see `Deaths`."""
        cause, error = cause_of(error), error[-MOST_ERROR:]
        self._journal.append("death", trial_id=assignment.trial_id, cause=cause, error=error)
        if self._deaths.note(assignment.trial_id, cause, error):
            self._end(assignment, FAILED, error=error)
            return
        self._curves.pop(assignment.trial_id)
        self.search.again(assignment)
        self._tell("death", assignment, error)

    def share(self, assignment: Assignment) -> int:
        """Slots that a trial gets; see `Deaths.share`."""
        return self._deaths.share(assignment.trial_id)

    def orders(self, assignment: Assignment) -> dict[str, Any]:
        """When a trial must report, and where one that died goes on; arguments of `trainables.stepping.Stepper`."""
        return {
            "rung_epochs": self.rung_epochs(assignment),
            "checkpoint_every_epochs": self.plan.space.settings.checkpoint_every_epochs,
            "checkpoint": self._checkpoints.read(assignment.trial_id) if self._checkpoints else None,
        }

    def keep_checkpoint(self, assignment: Assignment, checkpoint: bytes) -> None:
        """Keep where a trial has got to; it replaces the one before."""
        if self._checkpoints:
            self._checkpoints.write(assignment.trial_id, checkpoint)

    def _make_asha(self, records: Iterable[Mapping[str, Any]]) -> StratifiedAsha | None:
        settings = self.plan.space.settings
        if settings.early_stopping is None:
            return None
        asha = StratifiedAsha(settings.early_stopping, seed=settings.seed)
        asha.replay(r for r in records if r["kind"] == "decision")
        return asha

    def _judge(self, assignment: Assignment, rung: int) -> bool:
        """Decide at a rung, on the first evaluation at or after it."""
        assert self._asha is not None
        stopping = self.plan.space.settings.early_stopping
        assert stopping is not None
        curve = self._curves[assignment.trial_id]
        point = next(point for point in curve if point["epoch"] >= rung)
        if point["diverged"] or point["epoch"] == assignment.config.epochs:
            return False  # it has ended by itself
        decision = self._asha.judge(
            assignment.trial_id,
            stratum=stratum_of(stopping, assignment.cell, assignment.config.replicate),
            rung_epochs=rung,
            value=point["val_accuracy"],
        )
        if decision.is_new:
            self._journal.append("decision", **_plain(decision))
        if decision.action == AUDIT:
            self._audited.add(assignment.trial_id)
        return decision.action == STOP

    def _end(self, assignment: Assignment, status: str, **details: Any) -> None:
        trial_id = assignment.trial_id
        result = TrialResult(
            trial_id,
            status,
            curve=self._curves.pop(trial_id),
            audited=trial_id in self._audited,
            ended_at=time.time(),
            **details,
        )
        place = {"cell": assignment.cell.label, "draw": assignment.draw, "config": assignment.config.as_dict()}
        self._journal.append("result", **place, **asdict(result))
        self._deaths.forget(trial_id)
        if self._checkpoints:
            self._checkpoints.drop(trial_id)
        self.search.complete(result)
        self._tell("end", assignment, result)

    def _tell(self, event: str, assignment: Assignment, detail: Any) -> None:
        for listener in self.listeners:
            listener(event, assignment, detail)


def results_of(records: Iterable[Mapping[str, Any]]) -> dict[str, TrialResult]:
    """The last result of every trial that ended."""
    fields = TrialResult.__dataclass_fields__
    return {
        record["trial_id"]: TrialResult(**{key: record[key] for key in fields if key in record})
        for record in records
        if record["kind"] == "result"
    }


def stratum_of(stopping: EarlyStopping, cell: Cell, replicate: int) -> str:
    """Who a tune trial competes with: its cell, or all cells alike in the given factors; always one replicate."""
    factors = {**cell.settings.fixed.model_dump(), **cell.factors}
    if stopping.stratify == "cell":
        name = cell.label
    else:
        data = {"dataset": cell.settings.data.real}
        names = {**data, **{factor: factors.get(factor) for factor in stopping.stratify}}
        name = ",".join(f"{key}={format_value(value)}" for key, value in names.items())
    return f"{name}#{replicate}"


def _plain(decision: Decision) -> dict[str, Any]:
    """JSON has no infinity."""
    fields = asdict(decision)
    del fields["is_new"]
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}
