"""Everything that can be wrong with a space, found in one pass."""

from __future__ import annotations

import math
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from search_spaces.coherence import incoherences
from search_spaces.domains import Domain, Value, parse_domain
from search_spaces.errors import ConfigError, unknown
from search_spaces.settings import Fixed, SpaceSettings
from search_spaces.space import Arm, Nuisance, Space, axis_path, flatten, list_sizes, named_datasets, put
from search_spaces.texts import invisible_in, problem_of_name
from trainables.config import KNOBS, LOSS_KNOBS, canonical_loss

_DOTTED: Final = ("data", "teacher", "validation", "projector")
DEFAULT_DRAWS: Final = 4
MAX_DRAWS: Final = 1024
#: Values of an axis.
MOST_LEVELS: Final = 1000
#: Combinations of all axes and arms; thousands of cells are weeks of training.
MOST_POINTS: Final = 100_000
TUNABLE: Final = ("lr", "weight_decay", "momentum", "batch_size", "width")


def check_document(
    document: dict[str, Any], source: str, problems: Sequence[str] = (), *, check_files: bool = True
) -> Space:
    """A Space from raw content.

    Args:
        document: Content of a space file after --set, numbers parsed.
        source: File name for messages.
        problems: Problems found before.
        check_files: Files that it names must be there.

    Raises:
        ConfigError: With all problems, old and new.
    """
    checks = _Checks(document)
    space = checks.run(check_files=check_files)
    found = [*problems, *(f"{source}: {problem}" for problem in checks.problems)]
    if found or space is None:
        raise ConfigError(found)
    return space


class _Checks:
    """Collects problems while the parts of a space are parsed."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.given, self.datasets = document, named_datasets(document)
        self.document = document | next(iter(self.datasets.values()), {})
        self.problems: list[str] = []

    def run(self, *, check_files: bool) -> Space | None:
        self.problems += invisible_in(self.given)
        self._check_names()
        settings = self._validate_all()
        axes = self._axes()
        self._require_one_place(axes)
        if settings is not None and settings.data_seeds > 1:
            axes["data_seed"] = list(range(settings.data_seeds))
        arms = self._arms(axes.pop("loss", None))
        self._require_few_points(arms, axes)
        nuisance, draws = self._nuisance(arms, axes)
        if settings is None or self.problems:
            return None
        kept = {key: tuple(values) for key, values in axes.items()}
        space = Space(settings, tuple(arms), kept, nuisance, draws, self.given, self.datasets)
        self.problems += incoherences(space) if check_files else []
        return None if self.problems else space

    def _check_names(self) -> None:
        """Names of datasets and variants; those of arms are checked where they are read."""
        variants = self.given.get("variants")
        named = {"data": [*self.datasets], "variants": [*variants] if isinstance(variants, Mapping) else []}
        for where, names in named.items():
            found = (problem_of_name(name) for name in names if isinstance(name, str))
            self.problems += [f"{where}: {problem}" for problem in found if problem]

    def _validate_all(self) -> SpaceSettings | None:
        try:
            return SpaceSettings.model_validate(self.document)
        except ValidationError as err:
            self.problems += describe(err, SpaceSettings)
            return None

    def _axes(self) -> dict[str, list[Any]]:
        """Checked axes by key, `loss` among them unchecked."""
        given = self.document.get("scientific")
        axes = flatten(given) if isinstance(given, Mapping) else {}
        if self.datasets:
            axes.setdefault("dataset", list(self.datasets))
        if variants := self._variants():
            axes.setdefault("variant", variants)
        if isinstance(given, Mapping) and "loss" not in axes:
            self.problems.append("scientific.loss: missing; give a list of losses, see `lossatlas losses`.")
        for key, values in axes.items():
            if not isinstance(values, list) or not values:
                self.problems.append(f"scientific.{key}: an axis is a list of at least one value, got {values!r}.")
            elif len(values) > MOST_LEVELS:
                self.problems.append(f"scientific.{key}: an axis has at most {MOST_LEVELS} values, got {len(values)}.")
            elif key != "loss":
                self._axis(key, values)
        return {key: values for key, values in axes.items() if isinstance(values, list)}

    def _require_few_points(self, arms: list[Arm], axes: Mapping[str, list[Any]]) -> None:
        """Combinations that would have to be enumerated before anything can be said of them."""
        of_arms = sum(math.prod(len(values) for values in arm.knobs.values()) for arm in arms)
        points = of_arms * math.prod(len(values) for values in axes.values())
        if points > MOST_POINTS:
            self.problems.append(f"scientific: at most {MOST_POINTS} combinations of values, got {points}; give fewer.")

    def _variants(self) -> list[str]:
        """Names under `variants`, whose settings are checked as if each were a value of an axis."""
        given = self.document.get("variants")
        if not isinstance(given, Mapping) or not all(
            isinstance(name, str) and isinstance(keys, Mapping) for name, keys in given.items()
        ):
            return []  # pydantic has complained
        for name, keys in given.items():
            for key, value in flatten(keys).items():
                if key not in Fixed.model_fields and key.split(".")[0] not in _DOTTED:
                    self.problems.append(f"variants.{name}.{key}: {unknown(key, [*Fixed.model_fields])}")
                elif key == "epochs" or not isinstance(value, str | int | float):
                    self.problems.append(f"variants.{name}.{key}: a key of an axis with one value, got {value!r}.")
                else:
                    self._value(key, value, f"variants.{name}.{key}")
        return [str(name) for name in given]

    def _require_one_place(self, axes: Mapping[str, Any]) -> None:
        """What a variant sets is neither an axis, nor tuned, nor set by an arm."""
        given = self.document.get("variants")
        losses, nuisance = axes.get("loss"), self.document.get("nuisance")
        arms = [entry for entry in losses if isinstance(entry, Mapping)] if isinstance(losses, list) else []
        places = {"scientific": set(axes), "nuisance": set(nuisance if isinstance(nuisance, Mapping) else ())}
        places["an arm"] = {k for arm in arms for own in arm.values() if isinstance(own, Mapping) for k in own}
        for name, keys in given.items() if isinstance(given, Mapping) else ():
            for key in flatten(keys) if isinstance(keys, Mapping) else ():
                for where in (where for where, there in places.items() if key in there):
                    self.problems.append(f"variants.{name}.{key}: also given under {where}; give it in one place.")

    def _axis(self, key: str, values: list[Any]) -> None:
        variants = self.document.get("variants")
        names_of_variants = [str(name) for name in variants] if isinstance(variants, Mapping) else []
        named = {"dataset": ("data", [*self.datasets]), "variant": ("variants", names_of_variants)}
        if key in named:
            where, names = named[key]
            self.problems += [
                f"scientific.{key}: {unknown(value, names, 'name')} Names are those of `{where}`."
                for value in values
                if value not in names
            ]
            return
        if key not in Fixed.model_fields and key.split(".")[0] not in _DOTTED:
            self.problems.append(f"scientific.{key}: {unknown(key, ['loss', *Fixed.model_fields])}")
            return
        if key == "epochs":
            self.problems.append(
                "scientific.epochs: cannot be an axis, because stopped trials have fewer; run two sweeps."
            )
            return
        if not all(isinstance(value, str | int | float) for value in values):
            self.problems.append(f"scientific.{key}: values are numbers, words, true or false, got {values!r}.")
            return
        if _has(self.document, axis_path(key)):
            self.problems.append(
                f"scientific.{key}: also given as {'.'.join(axis_path(key))}; a factor is either an axis or fixed."
            )
        if len(set(values)) < len(values):
            self.problems.append(f"scientific.{key}: values must differ, got {values!r}.")
        for number, value in enumerate(values):
            self._value(key, value, f"scientific.{key}[{number}]")

    def _value(self, key: str, value: object, where: str, *, words: bool = True) -> None:
        """Check one value as if it stood in the document at the factor's place; without words, only numbers are allowed."""
        path = axis_path(key)
        document = {name: self.document[name] for name in _DOTTED if name in self.document}
        document = _deep_copy(document)
        try:
            put(document, path, value)
        except (TypeError, AttributeError):
            self.problems.append(f"{where}: {'.'.join(path[:-1])} is not a mapping, so it has no {path[-1]!r}.")
            return
        try:
            SpaceSettings.model_validate({"name": "x", "scientific": {}, **document})
        except ValidationError as err:
            errors = [e for e in err.errors() if words or e["type"] != "literal_error"]
            mine = [e for e in errors if tuple(map(str, e["loc"]))[: len(path)] == path]
            if mine:
                self.problems.append(f"{where}: {_join(mine, SpaceSettings)}")

    def _arms(self, given: list[Any] | None) -> list[Arm]:
        arms = [
            arm for number, entry in enumerate(given or []) if (arm := self._arm(entry, f"scientific.loss[{number}]"))
        ]
        names = [arm.name for arm in arms]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.problems.append(f"scientific.loss: arm {name!r} is given twice; names must differ.")
        return arms

    def _arm(self, entry: Any, where: str) -> Arm | None:
        name: Any = entry
        details: Any = {"loss": entry}
        if isinstance(entry, Mapping) and len(entry) == 1:
            ((name, details),) = entry.items()
        if not isinstance(name, str) or not isinstance(details, Mapping) or "|" in name or not name.strip():
            self.problems.append(f"{where}: give a loss name or {{ARM: {{loss: NAME, KNOB: value}}}}, got {entry!r}.")
            return None
        if problem := problem_of_name(name):
            self.problems.append(f"{where}: {problem}")
            return None
        loss: Any = details.get("loss")
        if not isinstance(loss, str) or loss not in LOSS_KNOBS:
            self.problems.append(f"{where}: {unknown(loss, list(LOSS_KNOBS), 'loss')}")
            return None
        knobs = {key: value if isinstance(value, list) else [value] for key, value in details.items() if key != "loss"}
        for key, values in knobs.items():
            if key not in LOSS_KNOBS[loss]:
                self.problems.append(f"{where}.{key}: {loss} has no such knob; it has {list(LOSS_KNOBS[loss])}.")
                continue
            if not 0 < len(values) <= MOST_LEVELS:
                how_many = (
                    f"at most {MOST_LEVELS} values, got {len(values)}." if values else "an empty list has no values."
                )
                self.problems.append(f"{where}.{key}: {how_many}")
                continue
            for value in values:
                if value is None:
                    self.problems.append(f"{where}.{key}: null is no value.")
                self._value(key, value, f"{where}.{key}")
        return Arm(name, loss, {key: tuple(values) for key, values in knobs.items()})

    def _nuisance(self, arms: list[Arm], axes: Mapping[str, list[Any]]) -> tuple[tuple[Nuisance, ...], int]:
        given = self.document.get("nuisance") or {}
        if not isinstance(given, Mapping):
            return (), 1
        factors = {key: value for key, value in given.items() if key != "draws"}
        draws = given.get("draws", DEFAULT_DRAWS) if factors else 1
        levels = {**axes, "loss": sorted({_canonical_name(arm.loss) for arm in arms})}
        parsed = tuple(f for key, value in factors.items() if (f := self._nuisance_factor(key, value, levels)))
        combinations = math.prod(list_sizes(parsed)) if len(parsed) == len(factors) else 1
        is_number = type(draws) is int and 1 <= draws <= MAX_DRAWS
        if not is_number or (draws & (draws - 1) and draws != combinations):
            or_each = f", or {combinations} (each of the given values once)" if 1 < combinations <= MAX_DRAWS else ""
            self.problems.append(
                f"nuisance.draws: must be a power of two (scrambled Sobol) up to {MAX_DRAWS}{or_each}, got {draws!r}."
            )
            draws = DEFAULT_DRAWS
        return parsed, draws

    def _nuisance_factor(self, key: str, given: object, levels: Mapping[str, list[Any]]) -> Nuisance | None:
        where = f"nuisance.{key}"
        if key not in TUNABLE:
            hint = "a loss knob is an axis, not a nuisance" if key in KNOBS else unknown(key, list(TUNABLE))
            self.problems.append(f"{where}: {hint}")
            return None
        for place in ("scientific", "fixed"):
            if _has(self.document, (place, key)):
                self.problems.append(f"{where}: also given under {place}; a factor is tuned, an axis or fixed.")
        by = given.get("by") if isinstance(given, Mapping) else None
        if by is None:
            domain = self._domain(key, given, where)
            return Nuisance(key, None, {None: domain}) if domain else None
        if not isinstance(by, str) or by in KNOBS:
            self.problems.append(f"{where}.by: a range depends on the loss or on a factor no loss owns, got {by!r}.")
            return None
        needed = levels.get(by) or ([self._fixed_value(by)] if by in Fixed.model_fields else None)
        if needed is None:
            self.problems.append(f"{where}.by: {unknown(by, [*levels], 'factor')}")
            return None
        assert isinstance(given, Mapping)
        domains = {level: self._domain(key, d, f"{where}.{level}") for level, d in given.items() if level != "by"}
        for level in needed:
            if isinstance(level, Hashable) and level not in domains:  # what is not was reported as an axis
                self.problems.append(
                    f"{where}: no range for {by} {level!r}; give {{{level}: {{loguniform: [low, high]}}}}."
                )
        return Nuisance(key, by, {level: d for level, d in domains.items() if d})

    def _domain(self, key: str, given: object, where: str) -> Domain | None:
        try:
            domain = parse_domain(given)
        except ValueError as err:
            self.problems.append(f"{where}: {err}")
            return None
        known = len(self.problems)
        if words := [value for value in domain.arguments if isinstance(value, str)]:
            self.problems.append(f"{where}: a tuned value is a number, got {words[0]!r}.")
            return domain
        for value in _extremes(domain):
            if domain.kind == "choice" or len(self.problems) == known:  # of a range, one end says what is wrong with it
                self._value(key, value, where, words=False)
        return domain

    def _fixed_value(self, key: str) -> object:
        fixed = self.document.get("fixed")
        return (fixed if isinstance(fixed, dict) else {}).get(key, Fixed.model_fields[key].default)


def describe(err: ValidationError, model: type[BaseModel]) -> list[str]:
    """One sentence per place that pydantic complains of."""
    grouped: dict[str, list[Any]] = {}
    for error in err.errors():
        grouped.setdefault(".".join(_known_path(error["loc"], model)), []).append(error)
    return [f"{where}: {_join(errors, model)}" for where, errors in grouped.items()]


def _join(errors: Sequence[Any], model: type[BaseModel]) -> str:
    first = errors[0]
    if first["type"] == "missing":
        return "missing."
    if first["type"] == "extra_forbidden":
        *parents, key = map(str, first["loc"])
        return unknown(key, _keys_of(_model_at(parents, model)))
    allowed = " or ".join(
        dict.fromkeys(error["msg"].removeprefix("Input ").replace("should", "must") for error in errors)
    )
    return f"{allowed}, got {first['input']!r}."


def _known_path(loc: Iterable[int | str], model: type[BaseModel]) -> list[str]:
    """The part of an error's location that a user can find in the file (union members are pydantic's own)."""
    path: list[str] = []
    for key in map(str, loc):
        parent = _model_at(path, model)
        if path and parent is None:
            break
        path.append(key)
    return path


def _model_at(path: Sequence[str], model: type[BaseModel] | None) -> type[BaseModel] | None:
    """The settings model behind a path of keys, if there is one."""
    for key in path:
        if model is None:
            return None
        field = next((f for name, f in model.model_fields.items() if key in (name, f.alias)), None)
        options = _members(field.annotation) if field else []
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return model


def _members(annotation: Any) -> list[Any]:
    """A type and the members of its unions, whatever they are annotated with."""
    return [annotation, *(member for part in typing.get_args(annotation) for member in _members(part))]


def _keys_of(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _canonical_name(loss: str) -> str:
    return canonical_loss(loss, dict.fromkeys(KNOBS, 0.5))[0]


def _extremes(domain: Domain) -> list[Value]:
    return list(domain.arguments) if domain.kind == "choice" else [domain.at(0.0), domain.at(1 - 1e-9)]


def _has(document: Mapping[str, Any], path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(document, Mapping) or key not in document:
            return False
        document = document[key]
    return True


def _deep_copy(value: Any) -> Any:
    return {k: _deep_copy(v) for k, v in value.items()} if isinstance(value, dict) else value
