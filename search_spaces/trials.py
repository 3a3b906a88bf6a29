"""A trial's configuration from outside (a tracker, a journal), checked as the settings of a space are."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import cache
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, Field, ValidationError, create_model

from search_spaces.checks import describe
from search_spaces.errors import ConfigError
from search_spaces.settings import Fixed, Positive, PositiveInt, Settings
from trainables.config import KNOBS, LOSS_KNOBS, TrialConfig
from trainables.names import ENGINES

#: Seeds beyond any space's.
MOST_REPLICATES: Final = 1_000_000
#: What a trial's configuration has that `fixed` does not have, or not in this form.
_OWN: Final[Mapping[str, Any]] = {
    "stage": Literal["tune", "confirm"],
    "replicate": Annotated[int, Field(ge=-MOST_REPLICATES, le=MOST_REPLICATES)],
    "loss": Literal[tuple(LOSS_KNOBS)],
    "lr": Positive,
    "knobs": dict[str, Any],
    "precision": Literal["fp32", "bf16"],
    "engine": Literal[ENGINES],
    "threads": PositiveInt,
    "device": Literal["cpu", "cuda"],
    "data": Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")],
    "versions": dict[Annotated[str, Field(pattern=r"^[a-z0-9_/]{1,40}$")], PositiveInt],
}
#: Hard labels are refinement 1, which no space can ask for.
_REFINEMENT: Final = Annotated[float, Field(ge=0, le=1)]


def check_trial(content: object, where: str) -> TrialConfig:
    """A trial's configuration from outside.

    Args:
        content: What was read; nothing is assumed of it.
        where: What messages begin with.

    Raises:
        ConfigError: With every key that is missing, unknown or has an impossible value.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{where}: a trial's configuration is a mapping, got {type(content).__name__}.")
    checked = _validated(_model(), content, f"{where}: ")
    values = {name: getattr(checked, name) for name in type(checked).model_fields}
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in values["knobs"].items()}
    _validated(_knobs_model(values["loss"]), whole, f"{where}: knobs.")
    return TrialConfig(**values)


def _validated(model: type[BaseModel], content: Mapping[str, Any], prefix: str) -> BaseModel:
    """The content as a model, or every problem with it."""
    try:
        return model.model_validate(dict(content))
    except ValidationError as err:
        raise ConfigError([f"{prefix}{problem}" for problem in describe(err, model)]) from err


@cache
def _model() -> type[BaseModel]:
    """Every field of TrialConfig with the bounds that `fixed` gives it."""
    hints = typing.get_type_hints(TrialConfig)
    made: dict[str, Any] = {}
    for field in fields(TrialConfig):
        default = field.default if field.default is not MISSING else ... if field.default_factory is MISSING else {}
        made[field.name] = (_bounded(field.name, hints[field.name]), default)
    return create_model("Trial", __base__=Settings, **made)


@cache
def _knobs_model(loss: str) -> type[BaseModel]:
    """The knobs that a loss has; canonical form leaves out those without effect."""
    made: dict[str, Any] = {knob: (_bounded(knob, float), None) for knob in KNOBS if knob in LOSS_KNOBS[loss]}
    if "refinement" in made:
        made["refinement"] = (_REFINEMENT, None)
    return create_model("Knobs", __base__=Settings, **made)


def _bounded(name: str, hint: Any) -> Any:
    """The type of a field with its bounds; None is allowed where TrialConfig allows it."""
    allows_none = isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint)
    bounded = _OWN.get(name, hint)
    if name not in _OWN and (info := Fixed.model_fields.get(name)):
        bounded = Annotated[(info.annotation, *info.metadata)] if info.metadata else info.annotation
    return bounded | None if allows_none else bounded
