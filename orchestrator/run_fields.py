"""What an MLflow run says of a trial or a sweep, as plain dictionaries."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from pydantic import ValidationError

from orchestrator.cells import Cell
from orchestrator.plan import Plan
from orchestrator.recipes import recipe
from orchestrator.search import Assignment, TrialResult
from search_spaces import ConfigError
from search_spaces.checks import describe
from search_spaces.settings import SpaceSettings
from trainables.config import TrialConfig

#: Settings that data are made from.
_MADE_FROM: Final = ("name", "data", "teacher", "projector", "validation", "fixed", "data_seed")


def trial_tags(assignment: Assignment) -> dict[str, str]:
    """What a trial's run says of itself; configuration and recipe suffice to train it again."""
    return {
        "lossatlas.trial_id": assignment.trial_id,
        "lossatlas.cell": assignment.cell.label,
        "lossatlas.arms": "|".join(assignment.cell.arms),
        "lossatlas.stage": assignment.config.stage,
        "lossatlas.draw": str(assignment.draw),
        "lossatlas.config": json.dumps(assignment.config.as_dict()),
        "lossatlas.recipe": json.dumps(recipe(assignment.cell, assignment.config.replicate)),
        "lossatlas.settings": json.dumps(settings_of(assignment.cell)),
    }


def settings_of(cell: Cell) -> dict[str, Any]:
    """What a cell's recipe is computed from, as a space has it, without defaults; see `tracked_cell`."""
    return cell.settings.model_dump(by_alias=True, exclude_defaults=True, include=set(_MADE_FROM))


def tracked_cell(settings: object, config: TrialConfig) -> Cell:
    """The cell of a tracked trial, as far as its recipe needs it.

    Args:
        settings: As `settings_of` wrote them, but from outside: they are checked like a space.
        config: Of the trial, checked.

    Raises:
        ConfigError: With every setting that is unknown or impossible.
    """
    if not isinstance(settings, dict) or set(settings) - set(_MADE_FROM):
        raise ConfigError(f"lossatlas.settings: must be a mapping with keys of {list(_MADE_FROM)}.")
    try:
        checked = SpaceSettings.model_validate({**settings, "scientific": {}})
    except ValidationError as err:
        raise ConfigError([f"lossatlas.settings: {problem}" for problem in describe(err, SpaceSettings)]) from err
    return Cell("", config.loss, config.knobs, {}, (), checked)


def result_tags(result: TrialResult | None) -> dict[str, str]:
    """What the status of its run does not say about how a trial ended."""
    if result is None:
        return {}
    tags = {"stopped_by": result.stopped_by, "error": (result.error or "")[-4000:]}
    tags |= {"diverged": "true" * result.diverged, "audited": "true" * result.audited}
    return {f"lossatlas.{name}": value for name, value in tags.items() if value}


def environment_tags() -> dict[str, str]:
    """Versions and hardware that a reader of the runs would ask for."""
    packages = ("lossatlas", "torch", "torchvision", "timm", "ray", "mlflow", "numpy")
    versions = {f"version.{name}": version(name) for name in packages}
    return {**versions, "python": platform.python_version(), "machine": f"{platform.machine()}, {os.cpu_count()} CPUs"}


def trial_params(plan: Plan, assignment: Assignment) -> dict[str, Any]:
    """What differs between the trials of a sweep; the whole configuration is a tag, the rest the parent run has."""
    config = assignment.config
    nuisance = {factor.name: getattr(config, factor.name) for factor in plan.space.nuisance}
    factors = {**assignment.cell.factors, **nuisance, "replicate": config.replicate}
    return {key: value for key, value in factors.items() if value is not None}


def sweep_params(plan: Plan) -> dict[str, Any]:
    """What all trials of a sweep have in common, and how many there are."""
    varied = {*plan.space.axes, *(factor.name for factor in plan.space.nuisance)}
    fixed = {key: value for key, value in plan.space.settings.fixed.model_dump().items() if key not in varied}
    if fixed.get("lr") == "file" and len(set(plan.rates.values())) == 1:
        fixed["lr"] = next(iter(plan.rates.values()))
    counts = {f"trials_{stage}": count for stage, count in plan.trial_counts.items()}
    return {"cells": len(plan.cells), **counts, **{key: value for key, value in fixed.items() if value is not None}}


@dataclass(frozen=True, slots=True)
class TrackedTrial:
    """A trial as its MLflow run has it.

    Attributes:
        config: Of the trial, checked.
        cell: What the recipe of its data is computed from, checked.
        metrics: The last value of each.
        epochs: Epochs trained.
    """

    config: TrialConfig
    cell: Cell
    metrics: dict[str, float]
    epochs: int
