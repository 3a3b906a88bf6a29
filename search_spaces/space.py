"""A checked space: arms, axes, nuisance factors and the settings of any combination of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_spaces.domains import Domain
from search_spaces.errors import ConfigError
from search_spaces.settings import Fixed, SpaceSettings
from trainables.config import KNOBS, LOSS_KNOBS, KnobValue


@dataclass(frozen=True, slots=True)
class Arm:
    """A name in the loss list.

    Attributes:
        name: What tables and rankings call it.
        loss: A loss by name, not yet canonical.
        knobs: Values that replace the axes and fixed values for this arm.
    """

    name: str
    loss: str
    knobs: Mapping[str, tuple[KnobValue, ...]]


@dataclass(frozen=True, slots=True)
class Nuisance:
    """A factor tuned for each cell.

    Attributes:
        name: A key of `fixed`.
        by: The factor its range depends on, or None.
        domains: Range per level of that factor; the only key is None where `by` is None.
    """

    name: str
    by: str | None
    domains: Mapping[Any, Domain]

    def domain(self, factors: Mapping[str, Any]) -> Domain:
        """The range in a cell with these factor values."""
        level = factors[self.by] if self.by else None
        if level not in self.domains:
            raise ConfigError(
                f"nuisance.{self.name}: no range for {self.by} {level!r}; there are {list(self.domains)}."
            )
        return self.domains[level]


@dataclass(frozen=True, slots=True)
class Space:
    """A space file after all checks.

    Attributes:
        settings: The file's content, with defaults.
        arms: Entries of the loss list.
        axes: Values of every scientific factor but the loss, in file order.
        nuisance: Factors tuned for each cell.
        draws: D, draws per cell; 1 where nothing is tuned.
        document: The content as given (after --set), JSON-like.
        datasets: Where `data` is a mapping of names: what each puts in the place of `data` (and `teacher`).
    """

    settings: SpaceSettings
    arms: tuple[Arm, ...]
    axes: Mapping[str, tuple[Any, ...]]
    nuisance: tuple[Nuisance, ...]
    draws: int
    document: Mapping[str, Any]
    datasets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def list_sizes(self) -> list[int]:
        """How many values each tuned factor has, in order; [] where one has a range, or other numbers of values by level."""
        return list_sizes(self.nuisance)

    @property
    def takes_each_once(self) -> bool:
        """True if the draws are all combinations of lists of values."""
        return bool(self.list_sizes) and self.draws == math.prod(self.list_sizes)

    @property
    def context_factors(self) -> tuple[str, ...]:
        """Scientific factors that no loss owns, in file order."""
        return tuple(name for name in self.axes if name not in KNOBS)

    def knob_values(self, arm: Arm, fixed: Fixed) -> dict[str, tuple[KnobValue, ...]]:
        """For each knob the arm's loss has: the arm's own values, else the axis, else the fixed value."""
        return {
            knob: arm.knobs.get(knob) or self.axes.get(knob) or (getattr(fixed, knob),)
            for knob in KNOBS
            if knob in LOSS_KNOBS[arm.loss]
        }

    def at(self, context: Mapping[str, Any]) -> SpaceSettings:
        """The settings with context factors put in place."""
        if not context:
            return self.settings
        document = self.settings.model_dump(by_alias=True)
        document |= self.datasets.get(str(context.get("dataset")), {})
        for key, value in context.items():
            if key == "variant":
                for inner, setting in flatten(self.settings.variants[str(value)]).items():
                    put(document, axis_path(inner), setting)
            elif key != "dataset":
                put(document, axis_path(key), value)
        return SpaceSettings.model_validate(document)


def list_sizes(nuisance: Sequence[Nuisance]) -> list[int]:
    """As `Space.list_sizes`."""
    found: list[int] = []
    for factor in nuisance:
        sizes = {len(domain.arguments) if domain.kind == "choice" else 0 for domain in factor.domains.values()}
        if len(sizes) != 1 or 0 in sizes:
            return []
        found += sizes
    return found


def named_datasets(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each name under `data` stands for: its data, and its teacher where that has the same names; {} for one."""
    data, teacher = document.get("data"), document.get("teacher")
    if (
        not isinstance(data, Mapping)
        or not data
        or "real" in data
        or not all(isinstance(v, dict) for v in data.values())
    ):
        return {}
    if not all("real" in value for value in data.values()):
        return {}
    teachers = teacher if isinstance(teacher, Mapping) and set(teacher) == set(data) else {}
    return {
        str(name): {"data": value} | ({"teacher": teachers[name]} if teachers else {}) for name, value in data.items()
    }


def flatten(keys: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; nested mappings (as --set makes them) are dotted keys too."""
    flat: dict[str, Any] = {}
    for key, value in keys.items():
        is_nested = isinstance(value, Mapping) and value  # an empty one must not vanish without a word
        flat |= flatten(value, f"{prefix}{key}.") if is_nested else {f"{prefix}{key}": value}
    return flat


def axis_path(key: str) -> tuple[str, ...]:
    """Where a factor lives in the document: a key of `fixed`, or a dotted key as it stands."""
    return ("fixed", key) if key in Fixed.model_fields else tuple(key.split("."))


def put(document: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    """Set (or with None remove) a nested key in place, making mappings on the way."""
    *parents, last = path
    for key in parents:
        if document.get(key) is None:
            document[key] = {}
        document = document[key]
    if value is None:
        document.pop(last, None)
    else:
        document[last] = copy.deepcopy(value)
