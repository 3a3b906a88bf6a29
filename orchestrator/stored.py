"""What plan.json may hold: a colleague's or a tracker's is checked before anything in it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from search_spaces.types import OneOf
from trainables.names import ENGINES

_Key = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Accuracy = Annotated[float, Field(ge=0, le=1)] | None
_Count = Annotated[int, Field(ge=1)]


class _Stored(BaseModel):
    """Of known keys types and ranges are checked; others may be there."""

    model_config = ConfigDict(strict=True, extra="allow")


class _About(_Stored):
    """Of prepared data."""

    n_test: _Count
    n_validation: _Count
    n_distilled: _Count
    classes: Annotated[int, Field(ge=2)]
    views: _Count
    teacher_test_accuracy: _Accuracy = None
    teacher_validation_accuracy: _Accuracy = None
    teacher_distilled_accuracy: _Accuracy = None


class _Facts(_Stored):
    sweep_id: Annotated[str, Field(pattern=r"^[0-9a-f]*$")] = ""
    tracking_uri: str | None = None
    dashboard: Annotated[str, Field(pattern=r"^[\w.:\[\]-]*$")] | None = None
    wall_s: _Seconds = 0.0
    tracking_cpu_s: _Seconds = 0.0
    data: dict[_Key, _About] = {}
    costs: dict[str, dict[str, _Finite]] = {}


class _Signature(_Stored):
    cells: dict[str, str]
    draws: list[list[_Finite]]
    replicates: _Count
    tune_replicates: _Count
    confirm: list[str]
    early_stopping: dict[str, Any] | None


class _Resolved(_Stored):
    precision: Literal["fp32", "bf16"] = "fp32"
    engine: Annotated[str, OneOf(ENGINES)] = "eager"
    threads: _Count = 1


class _Plan(_Stored):
    space: dict[str, Any]
    device: Literal["cpu", "cuda"]
    signature: _Signature
    facts: _Facts
    keys: dict[str, _Key] = {}
    rates: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    resolved: _Resolved | None = None


def problem_of_plan(content: Mapping[str, Any]) -> str | None:
    """The first thing that is missing or impossible in a plan.json; None if nothing is. The space is checked as one."""
    try:
        _Plan.model_validate(content)
    except ValidationError as err:
        first = err.errors()[0]
        allowed = first["msg"].removeprefix("Input ").replace("should", "must")
        return f"{'.'.join(map(str, first['loc']))}: {allowed}, got {first['input']!r:.100}"
    return None
