"""Another early-stopping rule on the recorded curves of a sweep, with a virtual clock: what it would save, and lose."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.conductor import results_of, stratum_of
from orchestrator.plan import Plan, rungs
from orchestrator.schedulers import STOP, StratifiedAsha
from orchestrator.search import FAILED
from search_spaces import ConfigError
from search_spaces.settings import EarlyStopping


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tune trial as it was recorded.

    Attributes:
        trial_id, cell, stratum: Which one, and whom it competes with.
        epochs: Of a full training.
        curve: Points (epoch, validation accuracy, seconds since its start).
        complete: It trained to the end, or diverged.
    """

    trial_id: str
    cell: str
    stratum: str
    epochs: int
    curve: Sequence[tuple[int, float, float]]
    complete: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a rule would have done.

    Attributes:
        trials: Tune trials.
        stopped: Of these, stopped by the rule.
        epochs_full, epochs_recorded, epochs_replayed: Without stopping, as recorded, under the rule.
        cells: Cells with complete curves to judge by.
        cells_lost: Of these, cells whose best draw the rule stops.
        points_lost: Validation accuracy that each of those loses, best draw against best one left, in [0, 1].
        by_rung: (rung, arrived, stopped).
    """

    trials: int
    stopped: int
    epochs_full: int
    epochs_recorded: int
    epochs_replayed: int
    cells: int
    cells_lost: int
    points_lost: list[float]
    by_rung: list[tuple[int, int, int]]


def recorded_trials(plan: Plan, records: Sequence[Mapping[str, Any]], stopping: EarlyStopping) -> list[Recorded]:
    """Tune trials of a sweep that ended, in the order in which they are started."""
    results = results_of(records)
    found = []
    for cell, _, config in plan.tune_trials():
        result = results.get(config.trial_id)
        if result is None or result.status == FAILED or not result.curve:
            continue
        curve = [(p["epoch"], p["val_accuracy"], p["train_s"]) for p in result.curve]
        complete = result.epochs == config.epochs or result.diverged
        stratum = stratum_of(stopping, cell, config.replicate)
        found.append(Recorded(config.trial_id, cell.label, stratum, config.epochs, curve, complete))
    return found


def replay(trials: Sequence[Recorded], stopping: EarlyStopping | None, *, slots: int, seed: int = 0) -> Outcome:
    """Run trials on `slots` workers with a virtual clock, under a rule.

    Audits are left out: what the rule decides is done. A trial takes the seconds that it took.

    Args:
        trials: In the order in which they are started.
        stopping: The rule; None stops nothing.
        slots: Trials at once; the order of arrival depends on it, and so does what is stopped.
        seed: Of the audits, unused by a rule without them.

    Raises:
        ConfigError: If the rule lets a trial go on beyond where its curve ends: it is milder than the recorded one.
    """
    asha = StratifiedAsha(stopping.model_copy(update={"audit_frac": 0.0}), seed=seed) if stopping else None
    arrivals: dict[int, list[int]] = {}
    ends: dict[str, int] = {}
    unknown = 0
    for trial, rung, point, is_last in _arrivals(trials, stopping, slots, ends):
        if asha is not None and rung is not None:
            decision = asha.judge(trial.trial_id, stratum=trial.stratum, rung_epochs=rung, value=point[1])
            counts = arrivals.setdefault(rung, [0, 0])
            counts[0] += 1
            if decision.action == STOP:
                counts[1] += 1
                ends[trial.trial_id] = point[0]
                continue
        if is_last:
            unknown += not trial.complete
            ends[trial.trial_id] = point[0]
    if unknown:
        raise ConfigError(
            f"{unknown} trials were stopped when the sweep was run, and this rule lets them go on: their curves end there. Give "
            "a stricter rule, or run the space once more with --no-early-stopping and a --name of its own to have complete curves."
        )
    return _outcome(trials, ends, arrivals)


def _arrivals(
    trials: Sequence[Recorded], stopping: EarlyStopping | None, slots: int, ends: Mapping[str, int]
) -> Iterator[tuple[Recorded, int | None, tuple[int, float, float], bool]]:
    """What happens, in the order of the virtual clock: arrivals at rungs, and ends. A trial in `ends` frees its slot."""
    waiting = iter(range(len(trials)))
    clock: list[tuple[float, int, int]] = []  # when, trial, how many of its events were seen
    begun = [0.0] * len(trials)
    events = {}

    def begin(now: float) -> None:
        number = next(waiting, None)
        if number is not None:
            begun[number] = now
            events[number] = _events(trials[number], stopping)
            heapq.heappush(clock, (now + events[number][0][1][2], number, 0))

    for _ in range(slots):
        begin(0.0)
    while clock:
        now, number, seen = heapq.heappop(clock)
        trial, mine = trials[number], events[number]
        rung, point = mine[seen]
        is_last = seen == len(mine) - 1
        yield trial, rung, point, is_last
        if is_last or trial.trial_id in ends:
            del events[number]
            begin(now)
        else:
            heapq.heappush(clock, (begun[number] + mine[seen + 1][1][2], number, seen + 1))


def _events(trial: Recorded, stopping: EarlyStopping | None) -> list[tuple[int | None, tuple[int, float, float]]]:
    """Rungs that a trial arrives at, each with its first point there, and its end."""
    levels = rungs(stopping.grace_period_epochs, stopping.reduction_factor, trial.epochs) if stopping else []
    found: list[tuple[int | None, tuple[int, float, float]]] = []
    for level in levels:
        point = next((p for p in trial.curve if p[0] >= level), None)
        if point is not None and point[0] < trial.epochs:
            found.append((level, point))
    return [*found, (None, trial.curve[-1])]


def _outcome(trials: Sequence[Recorded], ends: Mapping[str, int], arrivals: Mapping[int, Sequence[int]]) -> Outcome:
    by_cell: dict[str, list[Recorded]] = {}
    for trial in trials:
        by_cell.setdefault(trial.cell, []).append(trial)
    judged = {cell: [t for t in mine if t.complete] for cell, mine in by_cell.items()}
    judged = {cell: mine for cell, mine in judged.items() if mine}
    lost = []
    for mine in judged.values():
        best = max(t.curve[-1][1] for t in mine)
        left = [t.curve[-1][1] for t in mine if ends[t.trial_id] == t.curve[-1][0]]
        if max(left, default=0.0) < best:
            lost.append(best - max(left, default=0.0))
    return Outcome(
        trials=len(trials),
        stopped=sum(ends[t.trial_id] < t.curve[-1][0] or not t.complete for t in trials),
        epochs_full=sum(t.epochs for t in trials),
        epochs_recorded=sum(t.curve[-1][0] for t in trials),
        epochs_replayed=sum(ends.values()),
        cells=len(judged),
        cells_lost=len(lost),
        points_lost=lost,
        by_rung=[(rung, counts[0], counts[1]) for rung, counts in sorted(arrivals.items())],
    )
