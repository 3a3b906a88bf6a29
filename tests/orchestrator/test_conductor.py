"""The conductor with trials that die, on tabulated curves, without torch and Ray."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.checkpoints import Checkpoints
from orchestrator.conductor import Conductor
from orchestrator.journal import Journal, read_journal
from orchestrator.plan import Plan
from orchestrator.records import read_records
from orchestrator.schedulers import StratifiedAsha
from orchestrator.search import Assignment
from search_spaces import load_space

STOPPING = {"grace_period_epochs": 2, "reduction_factor": 2, "min_rung_population": 2, "audit_frac": 0.3}


@pytest.fixture
def plan(tiny: dict[str, Any]) -> Plan:
    tiny["nuisance"]["draws"] = 8
    return Plan("tiny", load_space({**tiny, "early_stopping": STOPPING}), "cpu")


def curve(assignment: Assignment) -> list[dict[str, Any]]:
    """A function of the trial alone, as a training is."""
    chance = random.Random(assignment.trial_id)
    end = 0.95 * chance.random()
    return [
        {
            "epoch": epoch,
            "train_loss": 1.0,
            "val_accuracy": end * epoch / 8 + chance.random() / 20,
            "test_accuracy": end if epoch == 8 and assignment.config.stage == "confirm" else None,
            "train_s": float(epoch),
            "diverged": False,
        }
        for epoch in (2, 4, 6, 8)
    ]


def run(conductor: Conductor, chance: random.Random, *, deaths: float = 0.0, most: int | None = None) -> None:
    """Two trials at once, point by point; trials die now and then, and the driver after `most` reports."""
    running: dict[str, tuple[Assignment, list[dict[str, Any]]]] = {}
    reports = 0
    while True:
        while len(running) < 2 and (assignment := conductor.next_trial()):
            conductor.start(assignment)
            running[assignment.trial_id] = (assignment, curve(assignment))
        if not running or reports == most:
            return
        assignment, points = running[chance.choice(sorted(running))]
        reports += 1
        if chance.random() < deaths:
            conductor.die(assignment, "ray.exceptions.ActorDiedError: gone")
            del running[assignment.trial_id]
        elif len(points) == 1:
            conductor.finish(assignment, points)
            del running[assignment.trial_id]
        elif conductor.report(assignment, [points.pop(0)]):
            del running[assignment.trial_id]


@contextmanager
def begin(plan: Plan, path: Path) -> Iterator[Conductor]:
    """A conductor of a new process, which reads what earlier ones wrote."""
    journal = Journal(path)
    yield Conductor(plan, journal, list(read_journal(path)), Checkpoints(path.parent / "checkpoints"))
    journal.close()


def run_lives(plan: Plan, path: Path, chance: random.Random, *, deaths: float, most: Callable[[], int]) -> None:
    """One process after the other until nothing is left."""
    finished = False
    while not finished:
        with begin(plan, path) as conductor:
            run(conductor, chance, deaths=deaths, most=most())
            finished = conductor.search.finished


def outcomes(path: Path) -> dict[str, tuple[str, float]]:
    results = [r for r in read_journal(path) if r["kind"] == "result"]
    assert len({r["trial_id"] for r in results}) == len(results), "no trial twice"
    return {r["trial_id"]: (r["status"], r["curve"][-1]["val_accuracy"]) for r in results}


@pytest.mark.parametrize("seed", range(20))
def test_with_early_stopping_and_deaths_every_decision_equals_a_replay_of_the_journal(
    seed: int, plan: Plan, tmp_path: Path
) -> None:
    path, chance = tmp_path / "journal.jsonl", random.Random(seed)
    run_lives(plan, path, chance, deaths=0.05, most=lambda: chance.randrange(5, 60))
    records = list(read_journal(path))
    assert {r["status"] for r in records if r["kind"] == "result"} <= {"finished", "stopped", "failed"}
    decisions = [r for r in records if r["kind"] == "decision"]
    assert max(Counter((r["trial_id"], r["rung_epochs"]) for r in decisions).values()) == 1, "decided once"
    stopping = plan.space.settings.early_stopping
    assert stopping is not None
    again = StratifiedAsha(stopping, seed=plan.space.settings.seed)
    for r in decisions:
        made = again.judge(r["trial_id"], stratum=r["stratum"], rung_epochs=r["rung_epochs"], value=r["value"])
        assert (made.action, made.cutoff, made.population) == (r["action"], r["cutoff"], r["population"])
    stopped = {r["trial_id"] for r in decisions if r["action"] == "stop"}
    ended = outcomes(path)
    assert {trial for trial, (status, _) in ended.items() if status == "stopped"} == stopped & set(ended)


def test_every_record_that_is_written_is_one_that_is_read(plan: Plan, tmp_path: Path) -> None:
    """Audited trials among them, which at later rungs meet a population of 0."""
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    run(Conductor(plan, journal, []), random.Random(1), deaths=0.1)
    journal.close()
    written = list(read_journal(path))
    assert any(record.get("population") == 0 for record in written)
    assert read_records(path) == written


def test_without_early_stopping_deaths_leave_no_trace_in_the_results(tiny: dict[str, Any], tmp_path: Path) -> None:
    plan = Plan("tiny", load_space(tiny), "cpu")
    with begin(plan, tmp_path / "calm.jsonl") as conductor:
        run(conductor, random.Random(0))
    run_lives(plan, tmp_path / "chaos.jsonl", random.Random(1), deaths=0.05, most=lambda: 17)
    assert outcomes(tmp_path / "chaos.jsonl") == outcomes(tmp_path / "calm.jsonl")


def test_a_trial_that_ran_out_of_memory_gets_twice_the_share_and_then_fails(plan: Plan, tmp_path: Path) -> None:
    heard: list[str] = []
    with begin(plan, tmp_path / "journal.jsonl") as conductor:
        conductor.listeners.append(lambda event, assignment, detail: heard.append(event))
        first = conductor.next_trial()
        assert first is not None
        conductor.start(first)
        conductor.die(first, "torch.OutOfMemoryError: CUDA out of memory.")
        assert conductor.next_trial() == first, "it is tried again before others"
        assert conductor.share(first) == 2
        conductor.start(first)
        conductor.die(first, "torch.OutOfMemoryError: CUDA out of memory.")
        assert conductor.search.results[first.trial_id].status == "failed"
    assert heard == ["start", "death", "start", "end"]


def test_a_checkpoint_is_kept_until_its_trial_has_ended(plan: Plan, tmp_path: Path) -> None:
    with begin(plan, tmp_path / "journal.jsonl") as conductor:
        first = conductor.next_trial()
        assert first is not None
        assert conductor.orders(first)["checkpoint"] is None
        conductor.keep_checkpoint(first, b"one")
        conductor.keep_checkpoint(first, b"two")
        assert conductor.orders(first)["checkpoint"] == b"two"
        conductor.finish(first, curve(first)[-1:])
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_damaged_checkpoint_is_no_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Any flipped bit: without a checksum, one in a weight would change a result without a word."""
    checkpoints = Checkpoints(tmp_path)
    content = random.Random(0).randbytes(1000)
    checkpoints.write("a", content)
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert checkpoints.read("a") == content
    for where in range(0, len(written), 97):
        damaged = bytearray(written)
        damaged[where] ^= 1
        path.write_bytes(damaged)
        assert checkpoints.read("a") is None
    assert "is damaged; its trial begins anew" in caplog.text
