from __future__ import annotations

from pathlib import Path

from search_spaces.document import SECTIONS, document


def test_docs_space_md_is_what_the_settings_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "space.md"
    assert page.read_text() == document(), "run `python -m search_spaces.document > docs/space.md`"


def test_every_setting_is_documented_and_has_one_place() -> None:
    keys = [prefix + (f.alias or n) for prefix, model in SECTIONS.values() for n, f in model.model_fields.items()]
    assert len(keys) == len(set(keys))
    for prefix, model in SECTIONS.values():
        for name, field in model.model_fields.items():
            assert field.description, prefix + name
