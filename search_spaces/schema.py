"""JSON schema of space files, from the settings: `python -m search_spaces.schema > search_spaces/space.schema.json`.

Editors complete and underline with it. It refuses misspelt keys and wrong types; whatever the loader accepts, it accepts.
What depends on two settings at once, on files, or on the number of classes is for `lossatlas plan` to say.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from search_spaces.checks import MAX_DRAWS, TUNABLE
from search_spaces.domains import WORDS
from search_spaces.settings import SpaceSettings
from trainables.config import LOSS_KNOBS

#: Fractions and numbers with an exponent, which YAML 1.1 reads as text.
NUMBER_TEXT: Final = r"^\s*(-?\d+(\.\d+)?\s*/\s*\d+(\.\d+)?|[-+]?\d+(\.\d*)?[eE][-+]?\d+)\s*$"
#: Keys of an axis that are no key of `fixed`: dotted, or nested mappings.
DOTTED: Final = r"^(data|teacher|validation|projector)(\.|$)"
Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Numbers may be written as text."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """A number, or 1/11."""
        return {"anyOf": [super().float_schema(schema), {"type": "string", "pattern": NUMBER_TEXT}]}

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """A whole number, or 1e3."""
        return {"anyOf": [super().int_schema(schema), {"type": "string", "pattern": NUMBER_TEXT}]}


def space_schema() -> Schema:
    """The schema, JSON Schema draft 2020-12."""
    schema = SpaceSettings.model_json_schema(by_alias=True, schema_generator=_Generator)
    models, keys = schema["$defs"], schema["properties"]
    fixed = {key: {"$ref": f"#/$defs/Fixed/properties/{key}"} for key in models["Fixed"]["properties"]}
    models["Validation"]["properties"]["source"] = models["Validation"]["properties"]["from"]
    distilled = models["Data"]["properties"]["distilled"]
    models["Data"]["properties"]["distilled"] = _described(distilled, [_ref("Distilled"), {"type": "string"}])
    models["TeacherForms"] = {
        "anyOf": [_ref("Teacher"), {"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}]
    }
    models["Domain"] = _domain()
    keys["data"] = _described(keys["data"], [_ref("Data"), _mapping(_ref("Data"))])
    keys["teacher"] = _described(keys["teacher"], [_ref("TeacherForms"), _mapping(_ref("TeacherForms"))])
    keys["scientific"] |= _axes(fixed)
    keys["nuisance"] |= _nuisance()
    keys["variants"]["additionalProperties"] = _variant(fixed)
    one_dataset = {"properties": {"data": {"required": ["real"]}}}
    schema["allOf"] = [{"if": one_dataset, "then": {"properties": {"teacher": _ref("TeacherForms")}}}]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_without_noise(schema),
        "title": "LossAtlas space",
    }


def schema_text() -> str:
    """The schema as it is written to search_spaces/space.schema.json."""
    return json.dumps(space_schema(), indent=1) + "\n"


def _axes(fixed: Mapping[str, Schema]) -> Schema:
    """`scientific`: lists of values under keys of `fixed`, dotted keys, and the losses."""
    axes = {key: _array(value) for key, value in fixed.items() if key != "epochs"}
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    losses = {"type": "array", "minItems": 1, "items": {"anyOf": [_loss(), _mapping(_arm(fixed))]}}
    losses["description"] = (
        "Losses that are compared (`lossatlas losses`); an entry may be a mapping {NAME: {loss: LOSS, KNOB: VALUE}}."
    )
    special = {"loss": losses, "dataset": names, "variant": names}
    return {
        "properties": special | axes,
        "patternProperties": {DOTTED: {}},
        "additionalProperties": False,
        "required": ["loss"],
    }


def _loss() -> Schema:
    return {"enum": list(LOSS_KNOBS)}


def _arm(fixed: Mapping[str, Schema]) -> Schema:
    """An entry of the loss list that has knobs of its own."""
    knobs = dict.fromkeys(knob for owned in LOSS_KNOBS.values() for knob in owned)
    own = {knob: {"anyOf": [fixed[knob], _array(fixed[knob])]} for knob in knobs}
    return {
        "type": "object",
        "properties": {"loss": _loss()} | own,
        "additionalProperties": False,
        "required": ["loss"],
    }


def _nuisance() -> Schema:
    """Domains of tuned settings; or a mapping of them by the level of a factor."""
    by_level = {
        "type": "object",
        "required": ["by"],
        "properties": {"by": {"type": "string"}},
        "additionalProperties": _ref("Domain"),
    }
    factors: Schema = {key: {"anyOf": [_ref("Domain"), by_level]} for key in TUNABLE}
    draws = {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_DRAWS,
        "description": "Values tried for each cell: a power of two, or as many as lists have combinations.",
    }
    return {"properties": {"draws": draws} | factors, "additionalProperties": False}


def _domain() -> Schema:
    number = {"anyOf": [{"type": "number"}, {"type": "string", "pattern": NUMBER_TEXT}]}
    ranges = {
        word: {"type": "array", "items": number, "minItems": count, "maxItems": count} for word, count in WORDS.items()
    }
    one = {
        "type": "object",
        "properties": ranges,
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [{"type": "array", "minItems": 1}, one]}


def _variant(fixed: Mapping[str, Schema]) -> Schema:
    settings = {key: value for key, value in fixed.items() if key != "epochs"}
    return {"type": "object", "properties": settings, "patternProperties": {DOTTED: {}}, "additionalProperties": False}


def _described(schema: Schema, forms: Iterable[Schema]) -> Schema:
    """Other forms of a key, under its description."""
    return {"description": schema.get("description", ""), "anyOf": list(forms)}


def _ref(model: str) -> Schema:
    return {"$ref": f"#/$defs/{model}"}


def _array(items: Schema) -> Schema:
    return {"type": "array", "minItems": 1, "items": items}


def _mapping(values: Schema) -> Schema:
    """Anything by name."""
    return {"type": "object", "minProperties": 1, "additionalProperties": values}


def _without_noise(value: Any) -> Any:
    """Pydantic's titles repeat the key, and defaults of whole sections fill pages."""
    if isinstance(value, list):
        return [_without_noise(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {
        key: _without_noise(item)
        for key, item in value.items()
        if not (key == "title" and isinstance(item, str)) and not (key == "default" and isinstance(item, dict))
    }
    return kept


if __name__ == "__main__":
    sys.stdout.write(schema_text())
