"""Locks are complete and agree with each other and with pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from orchestrator.extras import RUN

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
RUNS, DEVELOPS = "requirements.lock", "requirements-dev.lock"


def _blocks(lock: str) -> list[str]:
    """One text per pin: the requirement, its hashes and what asked for it."""
    lines = [line for line in (ROOT / lock).read_text().splitlines() if not line.startswith("#")]
    return re.split(r"\n(?=\S)", "\n".join(lines))


def _pins(lock: str) -> dict[str, set[str]]:
    """Versions by name; there are several where a marker chooses between them."""
    pins: dict[str, set[str]] = {}
    for block in _blocks(lock):
        requirement = Requirement(block.split(" \\")[0])
        (pin,) = requirement.specifier
        assert pin.operator == "=="
        pins.setdefault(canonicalize_name(requirement.name), set()).add(pin.version)
    return pins


def _unmet(requirements: list[str], pins: dict[str, set[str]]) -> list[str]:
    """Those of the requirements that no pin, or not every pin, fulfils."""
    wanted = [Requirement(text) for text in requirements]
    found = {str(one): pins.get(canonicalize_name(one.name), set()) for one in wanted}
    return [str(one) for one in wanted if not found[str(one)] or not all(map(one.specifier.contains, found[str(one)]))]


@pytest.mark.parametrize("lock", [RUNS, DEVELOPS])
def test_every_pin_has_hashes(lock: str) -> None:
    assert [block for block in _blocks(lock) if "--hash=sha256:" not in block] == []


def test_the_locks_agree_where_they_overlap() -> None:
    runs, develops = _pins(RUNS), _pins(DEVELOPS)
    assert {name for name in runs.keys() & develops.keys() if runs[name] != develops[name]} == set()


def test_the_locks_hold_what_the_project_asks_for() -> None:
    assert _unmet(PROJECT["project"]["dependencies"], _pins(RUNS)) == []
    assert _unmet(PROJECT["dependency-groups"]["dev"], _pins(DEVELOPS)) == []


def test_what_reading_and_what_running_need_are_the_dependencies() -> None:
    """Modules of `extras.RUN` are named as their packages, but for scikit-learn."""
    needed = {"scikit-learn" if name == "sklearn" else name for name in RUN}
    dependencies = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert needed | set(PROJECT["dependency-groups"]["read"]) == dependencies


def test_the_project_can_be_built_from_what_running_needs() -> None:
    """It is installed with --no-build-isolation right after the lock."""
    assert _unmet(PROJECT["build-system"]["requires"], _pins(RUNS)) == []


def test_running_needs_no_developer_tool() -> None:
    tools = {"pytest", "mypy", "ruff", "coverage", "hypothesis", "import-linter", "ipykernel", "zensical"}
    assert tools & _pins(RUNS).keys() == set()
