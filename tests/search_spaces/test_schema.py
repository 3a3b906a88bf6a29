"""The JSON schema of space files: current, accepts what the loader accepts, refuses misspelt keys and wrong types."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from search_spaces import ConfigError, load_space, shipped_spaces
from search_spaces.document import SECTIONS
from search_spaces.schema import schema_text, space_schema
from search_spaces.space import put
from tests.conftest import TINY
from tests.integration.test_bad_input import documents, mutate

FOLDER = Path(__file__).parents[2] / "search_spaces"
MUTATIONS = 400


@pytest.fixture(scope="module")
def schema() -> Draft202012Validator:
    Draft202012Validator.check_schema(space_schema())
    return Draft202012Validator(space_schema())


def as_json(value: Any) -> Any:
    """Keys of JSON are text."""
    if isinstance(value, dict):
        return {str(key): as_json(item) for key, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list) else value


def test_the_shipped_schema_is_current() -> None:
    text = (FOLDER / "space.schema.json").read_text()
    assert text == schema_text(), "run `python -m search_spaces.schema > search_spaces/space.schema.json`"


@pytest.mark.parametrize("name", shipped_spaces())
def test_shipped_spaces_name_the_schema_and_are_valid(name: str, schema: Draft202012Validator) -> None:
    text = shipped_spaces()[name].read_text()
    assert text.startswith("# yaml-language-server: $schema=space.schema.json\n")
    assert not [error.message for error in schema.iter_errors(yaml.safe_load(text))]


def test_what_the_loader_accepts_the_schema_accepts(schema: Draft202012Validator) -> None:
    chance, accepted, refused = random.Random(20261125), 0, 0
    for _ in range(MUTATIONS):
        _, document = chance.choice(list(documents().items()))
        changed = copy.deepcopy(document)
        mutate(changed, chance)
        errors = [error.message for error in schema.iter_errors(as_json(changed))]
        try:
            load_space(changed, check_files=False)
        except ConfigError:
            refused += bool(errors)
        else:
            accepted += 1
            assert not errors, changed
    assert accepted > 20
    assert refused > MUTATIONS / 2, "most mistakes are seen by the schema alone"


@pytest.mark.parametrize(
    "other",
    [
        {"teacher": "net.pth"},
        {"teacher": ["a.pth", "b.pth"]},
        {"data": {"real": "digits", "distilled": "set.pt"}, "fixed": {"labels": "hard"}, "teacher": None},
        {"data": {"a": TINY["data"], "b": TINY["data"]}, "teacher": {"a": TINY["teacher"], "b": "net.pth"}},
        {
            "scientific": {
                "loss": ["kl", {"warm": {"loss": "kl", "temperature": [4, 20]}}],
                "data": {"distilled": {"ipc": [1]}},
            }
        },
        {"variants": {"full": {"views": 100}, "few": {"views": 10, "data.distilled.ipc": 3}}},
        {"nuisance": {"lr": {"by": "loss", "ce": [0.1], "kl": {"loguniform": ["1/10", 1]}, "cosine": [1]}, "draws": 2}},
        {"fixed": {"lr": "1e-3", "epochs": "1e2"}, "nuisance": {"width": [8, 16]}},
        {"nuisance": {"lr": [0.001, 0.005, 0.01, 0.05, 0.1], "draws": 5}},
        {"fixed": {"schedule_milestones": [0.5, "3/4"], "schedule_gamma": 0.3, "betas": [0.9, 0.95]}},
    ],
)
def test_every_form_that_docs_space_md_describes_is_valid(other: dict[str, Any], schema: Draft202012Validator) -> None:
    assert not [error.message for error in schema.iter_errors({**TINY, **other})]


def places() -> list[tuple[str, ...]]:
    """Every key of the settings that a document may have, but those with keys of their own."""
    keys = [
        (*filter(None, prefix.split(".")), f.alias or n)
        for prefix, m in SECTIONS.values()
        for n, f in m.model_fields.items()
    ]
    return [key for key in keys if key != ("variants",)]


@pytest.mark.parametrize("place", places(), ids=".".join)
def test_misspelt_keys_and_wrong_types_are_refused(place: tuple[str, ...], schema: Draft202012Validator) -> None:
    for path, value in (((*place[:-1], f"{place[-1]}x"), 1), (place, {"x": [None]})):
        document = copy.deepcopy(TINY)
        put(document, path, value)
        assert list(schema.iter_errors(document)), path
        with pytest.raises(ConfigError):
            load_space(document, check_files=False)
