"""A corpus of damaged spaces, data files and checkpoints: a valid plan, or one clear error, and never a traceback."""

from __future__ import annotations

import copy
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.inspect import inspect_file
from orchestrator.plan import Plan
from search_spaces import ConfigError, load_space, shipped_spaces
from tests.conftest import TINY
from tests.trainables.formats.builders import SETS
from trainables.networks import ModelShape, make_model

SEED = 20261121
#: What people write by mistake, and what a program would write by mistake.
WRONG: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "1/0",
    "../../etc/passwd",
    "<script>",
    "\u0000",
    "a" * 5000,
    [],
    [[]],
    [None],
    {},
    {"x": 1},
    {"uniform": [1, 0]},
    {"loguniform": [0, 1]},
    [1, 1],
)
MUTATED_SPACES = 300


def documents() -> dict[str, dict[str, Any]]:
    """Shipped spaces and the tests' own, as they are written, with data that are there."""
    spaces = {name: yaml.safe_load(path.read_text()) for name, path in shipped_spaces().items()}
    return {name: {**document, "data": TINY["data"]} for name, document in spaces.items()} | {"tiny": TINY}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything in a document."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def mutate(document: dict[str, Any], chance: random.Random) -> None:
    """Change one thing in place: another value, a key gone, a key misspelt, a value one level deeper."""
    path = chance.choice(list(places(document)))
    parent = document
    for key in path[:-1]:
        parent = parent[key]
    kind = chance.randrange(4) if isinstance(parent, dict) else 0
    if kind == 0:
        parent[path[-1]] = copy.deepcopy(chance.choice(WRONG))
    elif kind == 1:
        del parent[path[-1]]
    elif kind == 2:
        parent[f"{path[-1]}s"] = parent.pop(path[-1])
    else:
        parent[path[-1]] = {path[-1]: parent[path[-1]]}


def plan_or_message(path: Path) -> str | None:
    """None for a plan; else the message, which must name the file and a key in each line."""
    problems: list[str] = []
    try:
        plan = Plan("x", load_space(path), "cpu")
        assert plan.cells
        assert list(plan.tune_trials()) or plan.confirm_replicates
    except ConfigError as error:
        problems = error.problems
    for problem in problems:
        assert problem.startswith(path.name) or str(path) in problem, problem
        assert "\n" not in problem.strip(), problem
        assert len(problem) <= 1000, problem
    return "\n".join(problems) or None


@pytest.mark.slow
def test_mutated_spaces_give_a_plan_or_a_message_that_names_file_and_key(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    messages = []
    for number in range(MUTATED_SPACES):
        name, document = chance.choice(list(documents().items()))
        changed = copy.deepcopy(document)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            mutate(changed, chance)
            if not changed:
                break
        path = tmp_path / f"{name}-{number}.yaml"
        path.write_text(yaml.safe_dump(changed, allow_unicode=True))
        messages.append(plan_or_message(path))
    refused = [message for message in messages if message]
    assert len(refused) > MUTATED_SPACES / 2, "most changes are mistakes"
    assert any(message is None for message in messages), "some are harmless"
    named = [message for message in refused if re.search(r"[a-z_]+(\.[a-z_]+)*:|key|\x60", message)]
    assert len(named) == len(refused)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["name", "data", "teacher", "scientific", "nuisance", "fixed", "replicates", "early_stopping", "resources"]


@pytest.mark.slow
@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3))
def test_whatever_stands_under_a_key_it_is_a_plan_or_a_message(changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump({**TINY, **changes}, allow_unicode=True))
    plan_or_message(path)


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())


def harm(path: Path, chance: random.Random) -> None:
    """Cut a file, flip bytes of it, blank a part of it, append to it, empty it, or lose it."""
    victim = chance.choice(files_of(path))
    content = bytearray(victim.read_bytes())
    kind = chance.randrange(6)
    where = chance.randrange(max(1, len(content)))
    if kind == 0:
        content = content[:where]
    elif kind == 1:
        for _ in range(chance.choice((1, 10, 100))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif kind == 2:
        content[where : where + 64] = bytes(len(content[where : where + 64]))
    elif kind == 3:
        content += chance.randbytes(100)
    elif kind == 4:
        content = bytearray()
    else:
        victim.unlink()
        return
    victim.write_bytes(content)


def facts_or_message(path: Path) -> bool:
    """True for facts; a message must name the path."""
    message, facts = "", {}
    try:
        facts = inspect_file(path, full=True, stated=[])
    except ConfigError as error:
        message = str(error)
    assert path.name in message or facts["kind"] in ("distilled", "labels", "checkpoint")
    return not message


@pytest.mark.parametrize("name", SETS)
def test_damaged_sets_give_facts_or_a_message(name: str, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED}/{name}")
    _, build, _ = SETS[name]
    whole = tmp_path / "whole"
    whole.mkdir()
    built = build(whole, None).relative_to(whole)
    for number in range(10):
        copied = tmp_path / f"copy{number}"
        shutil.copytree(whole, copied)
        harm(copied / built, chance)
        facts_or_message(copied / built)


def test_damaged_checkpoints_give_facts_or_a_message(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    model = make_model("convnet3", ModelShape(3, 10, 32), width=8, norm="instance")
    torch.save(model.state_dict(), tmp_path / "whole.pth")
    assert facts_or_message(tmp_path / "whole.pth")
    told = []
    for number in range(60):
        path = tmp_path / f"net{number}.pth"
        shutil.copy(tmp_path / "whole.pth", path)
        harm(path, chance)
        told.append(facts_or_message(path))
    assert not all(told)
