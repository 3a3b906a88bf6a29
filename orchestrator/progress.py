"""What a person sees of a running sweep: counts, best per arm, time left."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from rich.console import Group
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.conductor import Conductor
from orchestrator.search import Assignment, TrialResult

ENDED = ("finished", "stopped", "failed")


class Progress:
    """Counts a sweep's events; a listener of the conductor."""

    def __init__(self, conductor: Conductor, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with what earlier processes did."""
        self._clock = clock
        self._search = conductor.search
        self._started: float | None = None
        self._planned = sum(conductor.plan.trial_counts.values())
        self._counts: Counter[str] = Counter()
        self._arms: dict[str, Counter[str]] = {arm.name: Counter() for arm in conductor.plan.space.arms}
        self._best: dict[str, float] = {}
        self._seconds = {"tune": [0.0, 0], "confirm": [0.0, 0]}
        self._left = dict(conductor.plan.trial_counts)
        self._note_earlier(conductor)

    def _note_earlier(self, conductor: Conductor) -> None:
        """Count results of earlier processes that this plan asks for; after --force there may be others."""
        plan, search = conductor.plan, conductor.search
        seen: set[str] = set()
        confirm = (
            (cell, plan.trial(cell, draw, replicate, "confirm"))
            for cell in plan.cells
            for draw in search.selection(cell)
            for replicate in plan.confirm_replicates
        )
        for cell, config in itertools.chain(((cell, config) for cell, _, config in plan.tune_trials()), confirm):
            result = search.results.get(config.trial_id)
            if result is None:
                continue
            self._count(cell.arms, result)
            if config.trial_id not in seen:
                seen.add(config.trial_id)
                self._counts[result.status] += 1
                self._left[config.stage] -= 1

    def hear(self, event: str, assignment: Assignment, detail: Any) -> None:
        """Take note of a start, a report or an end."""
        if event == "start":
            self._started = self._clock() if self._started is None else self._started
            self._counts["running"] += 1
        elif event == "death":
            self._counts["running"] -= 1
        elif event == "end":
            self._counts["running"] -= 1
            self._counts[detail.status] += 1
            self._left[assignment.config.stage] -= 1
            self._count(assignment.cell.arms, detail)
            if detail.curve:
                total = self._seconds[assignment.config.stage]
                total[0] += detail.curve[-1]["train_s"]
                total[1] += 1

    @property
    def line(self) -> str:
        """One plain line, for a log."""
        counts = ", ".join(f"{self._counts[name]} {name}" for name in (*ENDED, "running") if self._counts[name])
        return f"{self._done} of {self._total} trials{f' ({counts})' if counts else ''}; {self._eta_text}"

    def __rich__(self) -> Group:
        """The live table."""
        table = Table(box=None, pad_edge=False)
        for title in ("arm", "ended", "stopped", "best validation"):
            table.add_column(title, justify="left" if title == "arm" else "right")
        for arm, counts in self._arms.items():
            best = f"{self._best[arm]:.1%}" if arm in self._best else "-"
            table.add_row(arm, str(sum(counts.values())), str(counts["stopped"]), best)
        bar = Padding(ProgressBar(total=self._total, completed=self._done), 0)  # a bare bar swallows the next line
        return Group(Text(self.line), bar, table)

    @property
    def _total(self) -> int:
        """Trials of the sweep; `confirm: shared` may add some that are not known before."""
        return max(self._planned, self._done + self._counts["running"])

    @property
    def _done(self) -> int:
        return sum(self._counts[name] for name in ENDED)

    @property
    def _eta_text(self) -> str:
        left = self.eta_s
        return "time left unknown" if left is None else f"about {format_duration(left)} left"

    @property
    def eta_s(self) -> float | None:
        """Seconds left, from the mean seconds per stage and the observed concurrency; None while too few have ended."""
        worked = sum(seconds for seconds, _ in self._seconds.values())
        ended = sum(count for _, count in self._seconds.values())
        if not worked or self._started is None or ended < min(10, self._total / 20):  # the first ones load torch
            return None
        concurrency = worked / max(self._clock() - self._started, 1e-9)
        means = {s: total / count if count else worked / ended for s, (total, count) in self._seconds.items()}
        return sum(max(0, self._left[s]) * means[s] for s in means) / concurrency

    def _count(self, arms: tuple[str, ...], result: TrialResult) -> None:
        for arm in arms:
            self._arms[arm][result.status] += 1
            if result.usable:
                self._best[arm] = max(self._best.get(arm, 0.0), result.last_validation)


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min, 2 h 5 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
