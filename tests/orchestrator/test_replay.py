"""Rules replayed on recorded curves, by hand and against what the scheduler really did."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.conductor import Conductor
from orchestrator.journal import Journal, read_journal
from orchestrator.plan import Plan
from orchestrator.replay import Recorded, recorded_trials, replay
from search_spaces import ConfigError, load_space
from search_spaces.settings import EarlyStopping

RULE = EarlyStopping(grace_period_epochs=2, reduction_factor=2, min_rung_population=2, audit_frac=0.0)


def trial(name: str, values: Sequence[float], *, cell: str = "a", seconds: float = 1.0, epochs: int = 4) -> Recorded:
    """Evaluated after every epoch."""
    curve = [(n, v, seconds * n) for n, v in enumerate(values, 1)]
    return Recorded(name, cell, cell, epochs, curve, complete=len(values) == epochs)


def test_a_rule_by_hand() -> None:
    """At epoch 2: 0.5 alone goes on; 0.3 < 0.5 stops; 0.6 goes on. The last was best: nothing is lost, 2 of 12 epochs saved."""
    trials = [trial("x", [0.1, 0.5, 0.5, 0.6]), trial("y", [0.1, 0.3, 0.5, 0.65]), trial("z", [0.1, 0.6, 0.6, 0.7])]
    found = replay(trials, RULE, slots=1)
    assert (found.trials, found.stopped, found.epochs_full, found.epochs_replayed) == (3, 1, 12, 10)
    assert found.by_rung == [(2, 3, 1)]
    assert (found.cells, found.cells_lost) == (1, 0)


def test_what_is_lost_is_the_best_draw_that_the_rule_stops() -> None:
    """y is slow and best: stopped at 0.3, it would have had 0.9; x with 0.6 is left."""
    found = replay([trial("x", [0.1, 0.5, 0.5, 0.6]), trial("y", [0.1, 0.3, 0.5, 0.9])], RULE, slots=1)
    assert (found.cells_lost, found.points_lost) == (1, [pytest.approx(0.3)])
    none = replay([trial("x", [0.1, 0.5, 0.5, 0.6]), trial("y", [0.1, 0.3, 0.5, 0.9])], None, slots=1)
    assert (none.stopped, none.epochs_replayed, none.cells_lost) == (0, 8, 0)


def test_who_arrives_first_depends_on_seconds_and_slots() -> None:
    """Side by side the fast one arrives first and is judged alone; one after the other it is judged against the slow one."""
    trials = [trial("slow", [0.1, 0.5, 0.5, 0.5], seconds=5), trial("fast", [0.1, 0.4, 0.4, 0.4])]
    assert replay(trials, RULE, slots=2).stopped == 0
    assert replay(trials, RULE, slots=1).stopped == 1


def test_a_rule_that_needs_more_of_a_curve_than_there_is_is_refused() -> None:
    trials = [trial("x", [0.1, 0.5, 0.5, 0.6]), trial("y", [0.1, 0.3])]
    assert replay(trials, RULE, slots=1).stopped == 1
    with pytest.raises(ConfigError, match=r"1 trials were stopped .* lets them go on"):
        replay(trials, RULE.model_copy(update={"min_rung_population": 3}), slots=1)


@pytest.mark.parametrize("seed", range(10))
def test_the_recorded_rule_replayed_does_what_was_recorded(seed: int, tiny: dict[str, Any], tmp_path: Path) -> None:
    """One trial at a time, so that the order of arrival is that of the plan."""
    tiny["nuisance"]["draws"] = 16
    rule = {"grace_period_epochs": 2, "reduction_factor": 2, "min_rung_population": 2, "audit_frac": 0}
    plan = Plan("tiny", load_space({**tiny, "early_stopping": rule}), "cpu")
    chance, path = random.Random(seed), tmp_path / "journal.jsonl"
    journal = Journal(path)
    conductor = Conductor(plan, journal, [])
    while (assignment := conductor.next_trial()) is not None:
        conductor.start(assignment)
        for epoch in (2, 4, 6, 8):
            point = {"epoch": epoch, "val_accuracy": chance.random(), "train_s": epoch / 10, "diverged": False}
            point |= {"train_loss": 1.0, "test_accuracy": None}
            if epoch == 8:
                conductor.finish(assignment, [point])
            elif conductor.report(assignment, [point]):
                break
    journal.close()
    stopping = plan.space.settings.early_stopping
    assert stopping is not None
    trials = recorded_trials(plan, list(read_journal(path)), stopping)
    found = replay(trials, stopping, slots=1)
    assert found.trials == 64
    assert found.stopped == sum(not t.complete for t in trials) > 0
    assert found.epochs_replayed == found.epochs_recorded
