from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from orchestrator.conductor import Conductor
from orchestrator.journal import Journal, read_journal
from orchestrator.plan import Plan
from orchestrator.progress import Progress, format_duration
from search_spaces import load_space


def point(epoch: int, accuracy: float) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "train_loss": 1.0,
        "val_accuracy": accuracy,
        "test_accuracy": None,
        "train_s": 2.0,
        "diverged": False,
    }


@pytest.fixture
def conductor(tiny: dict[str, Any], tmp_path: Path) -> Iterator[Conductor]:
    journal = Journal(tmp_path / "journal.jsonl")
    yield Conductor(Plan("tiny", load_space(tiny), "cpu"), journal, [])
    journal.close()


def test_counts_best_and_time_left(conductor: Conductor) -> None:
    """4 of 24 trials of 2 s ended in 4 s, two at a time: 20 are left, 20 s."""
    now = [0.0]
    progress = Progress(conductor, clock=lambda: now[0])
    conductor.listeners.append(progress.hear)
    assert progress.eta_s is None
    assert progress.line == "0 of 24 trials; time left unknown"
    for accuracy in (0.5, 0.7, 0.6, 0.4):
        assert progress.eta_s is None or accuracy in (0.6, 0.4), "one trial says nothing: it loaded torch"
        assignment = conductor.next_trial()
        assert assignment is not None
        conductor.start(assignment)
        conductor.finish(assignment, [point(8, accuracy)])
    now[0] = 4.0
    assert progress.eta_s == pytest.approx(20)
    assert progress.line == "4 of 24 trials (4 finished); about 20 s left"
    console = Console(width=80, record=True, file=io.StringIO())
    with Live(progress, console=console, auto_refresh=False):
        pass
    shown = console.export_text()
    assert "best validation" in shown
    assert "70.0%" in shown


def test_it_begins_with_what_earlier_processes_did(conductor: Conductor, tmp_path: Path) -> None:
    for _ in range(5):
        assignment = conductor.next_trial()
        assert assignment is not None
        conductor.finish(assignment, [point(8, 0.5)])
    journal = Journal(tmp_path / "other")
    again = Conductor(conductor.plan, journal, read_journal(tmp_path / "journal.jsonl"))
    journal.close()
    assert Progress(again).line.startswith("5 of 24 trials (5 finished)")


def test_after_force_only_trials_of_the_new_plan_are_counted(
    conductor: Conductor, tiny: dict[str, Any], tmp_path: Path
) -> None:
    """24 trials ended; the new plan has one of the three losses."""
    while assignment := conductor.next_trial():
        conductor.start(assignment)
        conductor.finish(assignment, [point(8, 0.5)])
    smaller = Plan("tiny", load_space(tiny, ["scientific.loss=[ce]"]), "cpu")
    journal = Journal(tmp_path / "other")
    again = Progress(Conductor(smaller, journal, read_journal(tmp_path / "journal.jsonl")))
    journal.close()
    assert again.line.startswith("6 of 6 trials (6 finished)")


def test_shared_draws_never_make_more_trials_ended_than_there_are(tiny: dict[str, Any], tmp_path: Path) -> None:
    """Draw 0 is best for ce, draw 1 for the others: the shared draw adds trials that the plan could not count."""
    journal = Journal(tmp_path / "journal.jsonl")
    plan = Plan("tiny", load_space(tiny, ["confirm=[best,shared]", "scientific.loss=[ce,kl]"]), "cpu")
    conductor = Conductor(plan, journal, [])
    progress = Progress(conductor)
    conductor.listeners.append(progress.hear)
    while assignment := conductor.next_trial():
        conductor.start(assignment)
        best = 0 if assignment.cell.loss == "ce" else 1
        conductor.finish(assignment, [point(8, 0.9 if assignment.draw == best else 0.5)])
    journal.close()
    ended, planned = map(int, progress.line.split(" trials")[0].split(" of "))
    assert ended > sum(plan.trial_counts.values())
    assert ended == planned


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (100, "2 min"), (5 * 3600 + 61, "5 h 1 min")])
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
