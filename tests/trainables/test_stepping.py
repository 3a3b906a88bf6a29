"""A training in steps, kept as bytes and continued by somebody else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.stepping import Stepper
from trainables.trial import TrialData, train_student


@pytest.fixture(scope="module")
def ready(prepared_cache: Path) -> tuple[TrialConfig, TrialData]:
    """A confirm trial of 8 epochs that is evaluated every 2, with a running mean of its weights."""
    plan = Plan("tiny", load_space(TINY), "cpu")
    config = replace(plan.trial(plan.cells[0], 1, 1, "confirm"), ema_decay=0.9, optimizer="adamw")
    return config, TrialData.from_arrays(load_arrays(config.data, prepared_cache), "cpu")


def without_seconds(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in point.items() if key != "train_s"} for point in points]


def steps(stepper: Stepper, data: TrialData) -> Iterator[tuple[list[dict[str, Any]], bytes | None]]:
    while not stepper.ended:
        yield stepper.step(data)


def test_steps_end_at_rungs_and_give_the_curve_in_pieces(ready: tuple[TrialConfig, TrialData]) -> None:
    config, data = ready
    pieces = [[p["epoch"] for p in points] for points, _ in steps(Stepper(config, rung_epochs=[3, 4]), data)]
    assert pieces == [[2, 4], [6, 8]]
    whole = [point.as_dict() for point in train_student(config, data)]
    got = [point for points, _ in steps(Stepper(config), data) for point in points]
    assert without_seconds(got) == without_seconds(whole)


def test_a_training_continued_from_its_checkpoint_equals_one_that_was_not_interrupted(
    ready: tuple[TrialConfig, TrialData],
) -> None:
    """Checkpoints are due at 3 and 6, taken at the evaluations after 4 and 6 epochs."""
    config, data = ready
    whole = [point for points, _ in steps(Stepper(config), data) for point in points]
    taken = [(points[-1]["epoch"], kept) for points, kept in steps(Stepper(config, checkpoint_every_epochs=3), data)]
    assert [(epoch, kept is not None) for epoch, kept in taken] == [(4, True), (6, True), (8, False)]
    for epoch, kept in taken[:2]:
        later = Stepper(config, checkpoint=kept, rung_epochs=[2, 6])
        pieces = [points for points, _ in steps(later, data)]
        assert without_seconds([point for points in pieces for point in points]) == without_seconds(whole)
        assert pieces[0][-1]["epoch"] == (6 if epoch == 4 else 8), "rungs that were passed are not stopped at again"
        seconds = [point["train_s"] for points in pieces for point in points]
        assert seconds == sorted(seconds), "time goes on from the checkpoint"


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_checkpoint_begins_anew(ready: tuple[TrialConfig, TrialData], damage: bytes | None) -> None:
    config, data = ready
    if damage is None:
        (_, kept), *_ = steps(Stepper(config, checkpoint_every_epochs=2), data)
        assert kept is not None
        damage = kept[: len(kept) // 2]
    got = [point for points, _ in steps(Stepper(config, checkpoint=damage), data) for point in points]
    assert [point["epoch"] for point in got] == [2, 4, 6, 8]
