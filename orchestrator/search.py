"""The two-stage search: tune every draw of a cell, then confirm the best one on fresh replicates. Pure Python."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.cells import Cell
from orchestrator.plan import Plan
from trainables.config import TrialConfig

FINISHED, STOPPED, FAILED, SKIPPED = "finished", "stopped", "failed", "skipped"


@dataclass(frozen=True, slots=True)
class Assignment:
    """A trial and its place in the plan."""

    cell: Cell
    draw: int
    config: TrialConfig

    @property
    def trial_id(self) -> str:
        """Of the trial's configuration."""
        return self.config.trial_id


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended; the body of a journal record of kind "result".

    Attributes:
        trial_id: Of its configuration.
        status: "finished" (also if diverged), "stopped" by early stopping, or "failed".
        curve: EpochMetrics as dictionaries, in order.
        stopped_by: Why it was stopped, such as "asha@25".
        audited: A stop was decided and, for the audit, not executed.
        error: What went wrong in a failed trial.
        ended_at: Unix time in seconds.
    """

    trial_id: str
    status: str
    curve: list[dict[str, Any]] = field(default_factory=list)
    stopped_by: str | None = None
    audited: bool = False
    error: str | None = None
    ended_at: float | None = None

    @property
    def diverged(self) -> bool:
        """The loss became NaN or infinite."""
        return bool(self.curve) and bool(self.curve[-1]["diverged"])

    @property
    def usable(self) -> bool:
        """It has a finite validation accuracy."""
        return bool(self.curve) and not self.diverged and self.status != FAILED

    @property
    def epochs(self) -> int:
        """Epochs trained."""
        return int(self.curve[-1]["epoch"]) if self.curve else 0

    @property
    def last_validation(self) -> float:
        """Validation accuracy at the last evaluation."""
        return float(self.curve[-1]["val_accuracy"])

    @property
    def late_validation(self) -> float:
        """Mean validation accuracy over the last three evaluations."""
        last = [point["val_accuracy"] for point in self.curve[-3:]]
        return float(sum(last) / len(last))


class TwoStageSearch:
    """Which trial to run next, given what has ended.

    A cell enters `confirm` as soon as its own draws have ended; no cell waits for another, but for the shared draw,
    which is chosen once all `tune` trials of an optimizer have ended. Confirm trials go first, so cells complete early.
    """

    def __init__(
        self, plan: Plan, results: Mapping[str, TrialResult] | None = None, *, retry_failed: bool = True
    ) -> None:
        """Start from results of earlier processes.

        Args:
            plan: Of the sweep.
            results: By trial id.
            retry_failed: Forget failed trials, so that they are tried again; a reader of the outcome keeps them.
        """
        self.plan = plan
        self.results = {i: r for i, r in (results or {}).items() if not (retry_failed and r.status == FAILED)}
        self._best: dict[str, int | None] = {}
        self._shared: dict[str, int | None] = {}
        self._open: dict[str, set[str]] = defaultdict(set)
        self._tune: dict[tuple[str, int], list[str]] = defaultdict(list)
        self._queues: dict[str, deque[Assignment]] = {"confirm": deque(), "tune": deque()}
        self._queued: set[str] = set()  # ever, for `confirm`
        self._running: dict[str, Assignment] = {}
        self._waiting: dict[str, list[Cell]] = defaultdict(list)  # cells by the `tune` trials that they need
        for cell, draw, config in plan.tune_trials():
            self._tune[cell.label, draw].append(config.trial_id)
            if config.trial_id not in self.results:
                self._open[cell.label].add(config.trial_id)
                if config.trial_id not in self._waiting:  # cells may come to the same training
                    self._queues["tune"].append(Assignment(cell, draw, config))
                self._waiting[config.trial_id].append(cell)
        for cell in plan.cells:
            self._maybe_choose(cell)

    @property
    def finished(self) -> bool:
        """Nothing is left to run or to wait for."""
        return not self._running and not any(self._queues.values())

    def next_trial(self) -> Assignment | None:
        """A trial to run now, or None where one must wait for running trials (or all is done)."""
        queue = self._queues["confirm"] or self._queues["tune"]
        if not queue:
            return None
        assignment = queue.popleft()
        self._running[assignment.trial_id] = assignment
        return assignment

    def complete(self, result: TrialResult) -> None:
        """Take note that a running trial has ended."""
        assignment = self._running.pop(result.trial_id)
        self.results[result.trial_id] = result
        if assignment.config.stage == "tune":
            for cell in self._waiting.pop(result.trial_id):
                self._open[cell.label].discard(result.trial_id)
                self._maybe_choose(cell)

    def again(self, assignment: Assignment) -> None:
        """Take note that a running trial died and is to be run once more, before others."""
        self._queues[self._running.pop(assignment.trial_id).config.stage].appendleft(assignment)

    def selection(self, cell: Cell) -> dict[int, str]:
        """Confirmed draws of a cell and why each was selected: "best", "shared" or "best|shared"."""
        chosen: dict[int, list[str]] = defaultdict(list)
        if "best" in self.plan.space.settings.confirm and (best := self._best.get(cell.label)) is not None:
            chosen[best].append("best")
        if self._best.get(cell.label) is not None and (draw := self._shared.get(_group(cell))) is not None:
            chosen[draw].append("shared")
        return {draw: "|".join(names) for draw, names in chosen.items()}

    def skipped(self, cell: Cell) -> bool:
        """All draws of the cell have ended and none is usable."""
        return cell.label in self._best and self._best[cell.label] is None

    def furthest_only(self, cell: Cell) -> bool:
        """The chosen draw never reached full budget in `tune`: worth a flag."""
        best = self._best.get(cell.label)
        return best is not None and self.plan.has_tune_stage and self._rank(cell, best)[0] == 0

    def _maybe_choose(self, cell: Cell) -> None:
        """Choose draws that can be chosen now, and queue their confirm trials."""
        if self._open[cell.label] or cell.label in self._best:
            return
        draws = self._usable_draws(cell) if self.plan.has_tune_stage else [0]
        best = max(draws, key=lambda d: self._rank(cell, d)) if len(draws) > 1 else next(iter(draws), None)
        self._best[cell.label] = best
        if best is not None and "best" in self.plan.space.settings.confirm:
            self._queue_confirm(cell, best)
        if "shared" in self.plan.space.settings.confirm:
            self._maybe_choose_shared(_group(cell))

    def _maybe_choose_shared(self, group: str) -> None:
        cells = [cell for cell in self.plan.cells if _group(cell) == group]
        if any(self._open[cell.label] or cell.label not in self._best for cell in cells):
            return
        usable = [cell for cell in cells if self._best[cell.label] is not None]
        means = {d: self._mean_last_validation(usable, d) for d in range(self.plan.space.draws)}
        self._shared[group] = max(means, key=lambda d: means[d]) if usable else None
        for cell in usable:
            self._queue_confirm(cell, self._shared[group] or 0)

    def _mean_last_validation(self, cells: list[Cell], draw: int) -> float:
        """Mean over cells; stopped draws enter with their last value, unusable ones with 0."""
        if not self.plan.has_tune_stage:
            return 0.0
        values = [
            result.last_validation if result.usable else 0.0
            for cell in cells
            for result in self._tune_results(cell, draw)
        ]
        return sum(values) / len(values)

    def _queue_confirm(self, cell: Cell, draw: int) -> None:
        for replicate in self.plan.confirm_replicates:
            assignment = Assignment(cell, draw, self.plan.trial(cell, draw, replicate, "confirm"))
            if assignment.trial_id not in self._queued and assignment.trial_id not in self.results:
                self._queued.add(assignment.trial_id)
                self._queues["confirm"].append(assignment)

    def _tune_results(self, cell: Cell, draw: int) -> list[TrialResult]:
        return [self.results[i] for i in self._tune[cell.label, draw] if i in self.results]

    def _usable_draws(self, cell: Cell) -> list[int]:
        return [d for d in range(self.plan.space.draws) if any(r.usable for r in self._tune_results(cell, d))]

    def _rank(self, cell: Cell, draw: int) -> tuple[int, int, float, float, int]:
        """Better draws have larger ranks: replicates at full budget, epochs if none, accuracy, ties, lower index."""
        results = [r for r in self._tune_results(cell, draw) if r.usable]
        full = [r for r in results if r.epochs == cell.settings.fixed.epochs]
        furthest = 0 if full else max(r.epochs for r in results)
        judged = full or results
        mean = sum(r.last_validation for r in judged) / len(judged)
        late = sum(r.late_validation for r in judged) / len(judged)
        return len(full), furthest, mean, late, -draw


def _group(cell: Cell) -> str:
    """Cells among which one draw is shared: those of an optimizer."""
    return cell.settings.fixed.optimizer
