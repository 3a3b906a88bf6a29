"""CITATION.cff is what the Citation File Format asks for, and says what the project says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import yaml

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TEXT = {"type": "string", "minLength": 1}
AUTHOR = {
    "oneOf": [
        {
            "properties": {"family-names": TEXT, "given-names": TEXT},
            "required": ["family-names"],
            "additionalProperties": False,
        },
        {"properties": {"name": TEXT}, "required": ["name"], "additionalProperties": False},
    ]
}
AUTHORS = {"type": "array", "minItems": 1, "uniqueItems": True, "items": AUTHOR}
REFERENCE = {
    "properties": {
        "type": {"enum": ["article", "conference-paper"]},
        "title": TEXT,
        "authors": AUTHORS,
        "year": {"type": "integer"},
        "journal": TEXT,
        "conference": {"properties": {"name": TEXT}, "required": ["name"], "additionalProperties": False},
        "url": {"type": "string", "pattern": "^https://"},
    },
    "required": ["type", "title", "authors"],
    "additionalProperties": False,
}
#: Of version 1.2.0 the keys that are used here; a key that is not among them is a spelling mistake, or is to be added.
SCHEMA: dict[str, Any] = {
    "properties": {
        "cff-version": {"const": "1.2.0"},
        "message": TEXT,
        "type": {"const": "software"},
        "title": TEXT,
        "abstract": TEXT,
        "version": TEXT,
        "license": TEXT,
        "authors": AUTHORS,
        "keywords": {"type": "array", "items": TEXT},
        "references": {"type": "array", "items": REFERENCE},
    },
    "required": ["cff-version", "message", "title", "authors"],
    "additionalProperties": False,
}


def test_the_citation_file_is_valid() -> None:
    jsonschema.validate(CITATION, SCHEMA)


def test_the_citation_agrees_with_the_project() -> None:
    assert (CITATION["version"], CITATION["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_papers_of_the_readme_are_cited() -> None:
    text = (ROOT / "README.md").read_text().split("## Cite")[1]
    cited = [url.rsplit("/", 1)[1] for url in (reference["url"] for reference in CITATION["references"])]
    assert sorted(re.findall(r"arXiv:([\d.]+\d)", text)) == sorted(cited)
