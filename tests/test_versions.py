"""Every part of the code that results depend on gives the numbers of its version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from tests.golden import PARTS, stored
from trainables.versions import OF_DATA, OF_TEACHERS, OF_TRIALS, VERSIONS, changed, of_trial

HOW = "raise its version in trainables/versions.py, then run `python -m tests.golden` (CONTRIBUTING.md)"
#: Trainings add up rounding; formulas do not.
TOLERANCE = {"loop": 1e-3, "teachers": 1e-2, "labels": 1e-3}


@pytest.mark.parametrize("part", VERSIONS)
def test_the_numbers_of_a_part_are_those_of_its_version(part: str) -> None:
    known = stored()[part]
    assert known["version"] == VERSIONS[part], f"{part} has a new version: run `python -m tests.golden`"
    tolerance = TOLERANCE.get(part, 1e-4)
    assert PARTS[part]() == pytest.approx(known["numbers"], rel=tolerance, abs=tolerance / 10), f"{part}: {HOW}"


def test_every_part_has_numbers_and_belongs_to_data_or_trials() -> None:
    assert set(stored()) == set(PARTS) == set(VERSIONS)
    rest = {part for part in VERSIONS if "/" not in part}
    assert rest == {*OF_DATA, *OF_TEACHERS, *OF_TRIALS}


def test_a_changed_formula_changes_the_ids_of_its_trials_and_of_no_others() -> None:
    plan = Plan("tiny", load_space(TINY), "cpu")
    newer = replace(plan, stored_versions=dict(VERSIONS) | {"loss/kl": VERSIONS["loss/kl"] + 1})
    ids = [{c.label: p.trial(c, 0, 1, "confirm").trial_id for c in p.cells} for p in (plan, newer)]
    differ = {label for label in ids[0] if ids[0][label] != ids[1][label]}
    assert differ == {cell.label for cell in plan.cells if cell.loss == "kl"} != set(ids[0])


def test_trials_from_before_there_were_versions_keep_their_ids() -> None:
    plan = Plan("tiny", load_space(TINY), "cpu", stored_versions={})
    config = plan.trial(plan.cells[0], 0, 1, "confirm")
    assert config.versions == {}
    assert "versions" not in config.identity()
    assert changed({}, of_trial("ce", "constant"))[0] == "loop unknown -> 1"
