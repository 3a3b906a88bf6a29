"""Records of a sweep's journal, each checked: what a colleague or a tracker sent along is not believed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from orchestrator.journal import numbered_records
from search_spaces import ConfigError
from search_spaces.trials import check_trial

_Accuracy = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=1)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class _Record(BaseModel):
    """Of known fields the types and ranges are checked; others are left to whoever wrote them."""

    model_config = ConfigDict(strict=True)


class _Point(_Record):
    epoch: _Count
    train_loss: float | None
    val_accuracy: _Accuracy
    test_accuracy: _Accuracy | None
    train_s: _Seconds
    diverged: bool


class _Result(_Record):
    trial_id: _Id
    status: Literal["finished", "stopped", "failed"]
    cell: str
    draw: Annotated[int, Field(ge=0)]
    config: dict[str, Any]
    curve: list[_Point]
    stopped_by: str | None = None
    audited: bool = False
    error: str | None = None
    ended_at: _Seconds | None = None


class _Start(_Record):
    trial_id: _Id
    started_at: _Seconds


class _Death(_Record):
    trial_id: _Id
    cause: str
    error: str


class _Decision(_Record):
    trial_id: _Id
    stratum: str
    rung_epochs: _Count
    value: _Accuracy | None
    cutoff: float | None
    population: Annotated[int, Field(ge=0)]  # 0: an audited trial at a later rung, which does not count there
    action: Literal["continue", "stop", "audit"]


_KINDS: Final[Mapping[str, type[_Record]]] = {
    "result": _Result,
    "start": _Start,
    "death": _Death,
    "decision": _Decision,
}


def read_records(path: Path) -> list[dict[str, Any]]:
    """All intact records of a journal, in order.

    Raises:
        ConfigError: If a record that was written whole says something impossible; the message names its line.
    """
    records = []
    for number, record in numbered_records(path):
        if problem := _problem_of(record):
            raise ConfigError(
                f"{path}:{number}: {problem} This journal was not written by LossAtlas, or by another version; "
                "delete the line, and its trial is trained again."
            )
        records.append(record)
    return records


def _problem_of(record: Mapping[str, Any]) -> str | None:
    """What is impossible about a record; None where nothing is, and of kinds that nothing reads."""
    kind = record["kind"]
    if kind not in _KINDS:
        return None
    try:
        checked = _KINDS[kind].model_validate(record)
        return _problem_of_result(checked) if isinstance(checked, _Result) else None
    except ValidationError as err:
        first = err.errors()[0]
        allowed = first["msg"].removeprefix("Input ").replace("should", "must")
        return f"{'.'.join(map(str, first['loc']))}: {allowed}, got {first['input']!r:.100}."
    except ConfigError as err:
        return err.problems[0]


def _problem_of_result(result: _Result) -> str | None:
    """A configuration is what its id says, and a curve goes forward to its last epoch at most."""
    config = check_trial(result.config, "config")
    if result.trial_id != config.trial_id:
        return f"trial_id: must be the hash of config ({config.trial_id}), got {result.trial_id!r}."
    epochs = [0, *(point.epoch for point in result.curve)]
    if any(later <= earlier for earlier, later in pairwise(epochs)) or epochs[-1] > config.epochs:
        return f"curve: epochs must rise to {config.epochs} at most, got {epochs[1:]!r:.100}."
    return None
