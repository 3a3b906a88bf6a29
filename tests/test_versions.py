"""Every part of the code that results depend on gives the numbers of its version."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import trainables
from orchestrator.plan import Plan, difference
from search_spaces import load_space
from tests.conftest import TINY
from tests.golden import PARTS, stored
from trainables.versions import OF_CHECKPOINTS, OF_DATA, OF_TEACHERS, OF_TRIALS, VERSIONS, changed, of_data, of_trial

HOW = "raise its version in trainables/versions.py, then run `python -m tests.golden` (CONTRIBUTING.md)"
#: Trainings add up rounding; formulas do not.
TOLERANCE = {"loop": 1e-3, "teachers": 1e-2, "labels": 1e-2, "readings": 1e-2}
#: Modules of `trainables` by the part that they belong to: whose numbers they are run for.
FORMATS = "flax_files folders found kinds numpy_files pixels positions read recognise stores tensors topk"
MODULES = {
    "real": "archives data.decode data.named data.real data.survey data.whitening prepare.real splits trees",
    "distilled": "data.distilled data.rded prepare.bank prepare.distilled "
    + " ".join(f"formats.{name}" for name in FORMATS.split()),
    "augmentation": "augment",
    "labels": "data.labels data.projector drafts prepare.entry prepare.projector",
    "teachers": "data.teacher",
    "readings": "data.reading data.spaces experts models prepare.teacher",
    "networks": "cifar_resnet networks plain",
    "loop": "engine evaluate grouped seeding trial",
    "targets": "edits targets",
    "optimizers": "optim",
    "loss/kl": "divergences losses",
}
#: Modules that no number depends on: what is found out and refused, where and how things are run, kept, named and identified.
WITHOUT_NUMBERS = """
    adapter arrays checkpoint config content data.classes data.repeats documents findings formats.inspect isolated metrics names
    paths prepare.__main__ prepare.fetch prepare.files prepare.findings probe rerun sidecar stepping students unpickling versions
"""


def watched(make: Callable[[], list[float]]) -> tuple[list[float], set[str]]:
    """Numbers, and the modules of `trainables` whose functions were called for them."""
    called = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            called.add(str(frame.f_globals.get("__name__")).removeprefix("trainables."))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        return make(), called
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("part", VERSIONS)
def test_the_numbers_of_a_part_are_those_of_its_version(part: str) -> None:
    known = stored()[part]
    assert known["version"] == VERSIONS[part], f"{part} has a new version: run `python -m tests.golden`"
    tolerance = TOLERANCE.get(part, 1e-4)
    numbers, called = watched(PARTS[part])
    assert numbers == pytest.approx(known["numbers"], rel=tolerance, abs=tolerance / 10), f"{part}: {HOW}"
    assert set(MODULES.get(part, "").split()) <= called, f"{part}: its numbers do not depend on all of its modules"


def test_every_module_belongs_to_a_part_or_changes_no_numbers() -> None:
    root = Path(trainables.__file__).parent
    files = (path.relative_to(root).with_suffix("") for path in root.rglob("*.py") if path.name != "__init__.py")
    listed = " ".join([*MODULES.values(), WITHOUT_NUMBERS]).split()
    assert len(listed) == len(set(listed))
    assert {".".join(path.parts) for path in files} == set(listed)
    assert set(MODULES) <= set(VERSIONS)


def test_every_part_has_numbers_and_belongs_to_data_or_trials() -> None:
    assert set(stored()) == set(PARTS) == set(VERSIONS)
    rest = {part for part in VERSIONS if "/" not in part}
    assert rest == {*OF_DATA, *OF_TEACHERS, *OF_CHECKPOINTS, *OF_TRIALS}


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


def test_data_rest_on_how_checkpoints_are_read_where_there_are_any(tmp_path: Path) -> None:
    assert set(of_data({"weights": [], "model": "x"})) == {*OF_DATA, "readings", "networks"}
    assert set(of_data({"train": {}})) == {*OF_DATA, *OF_TEACHERS}
    assert set(of_data({"train": {}}, {"weights": {}, "rank": 8})) == {*OF_DATA, *OF_TEACHERS, "readings"}
    assert set(of_data(None)) == set(OF_DATA)
    (tmp_path / "net.pt").write_bytes(b"x")
    space: dict[str, Any] = {**TINY, "teacher": {"weights": [str(tmp_path / "net.pt")]}}
    (made,) = Plan("tiny", load_space(space), "cpu").recipes.values()
    assert made["versions"]["readings"] == VERSIONS["readings"]


def test_a_sweep_that_no_part_is_known_of_is_told_which() -> None:
    new = Plan("tiny", load_space(TINY), "cpu").signature()
    old = {**new, "cells": dict.fromkeys("abcd", "kl"), "versions": dict(new["versions"])}
    del old["versions"]["networks"]
    assert "networks unknown -> 1" in difference(old, new)[0]
