"""Everything that can be wrong with a space, found in one pass."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from search_spaces.domains import Domain, Value, parse_domain
from search_spaces.errors import ConfigError
from search_spaces.settings import Data, Fixed, SpaceSettings, file_hash, image_tree
from search_spaces.space import Arm, Nuisance, Space, axis_path, put
from trainables.config import KNOBS, LOSS_KNOBS, canonical_loss
from trainables.names import CONVNETS, IMAGE_SIZES, MOMENTUM_OPTIMIZERS, NORM_GROUPS, RESNET_NORMS

_DOTTED: Final = ("data", "teacher", "validation")
DEFAULT_DRAWS: Final = 4
MAX_DRAWS: Final = 1024
TUNABLE: Final = ("lr", "weight_decay", "momentum", "batch_size", "width")


def check_document(document: dict[str, Any], source: str, problems: Sequence[str] = ()) -> Space:
    """A Space from raw content.

    Args:
        document: Content of a space file after --set, numbers parsed.
        source: File name for messages.
        problems: Problems found before.

    Raises:
        ConfigError: With all problems, old and new.
    """
    checks = _Checks(document)
    space = checks.run()
    found = [*problems, *(f"{source}: {problem}" for problem in checks.problems)]
    if found or space is None:
        raise ConfigError(found)
    return space


class _Checks:
    """Collects problems while the parts of a space are parsed."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.problems: list[str] = []

    def run(self) -> Space | None:
        settings = self._validate_all()
        axes = self._axes()
        arms = self._arms(axes.pop("loss", None))
        nuisance, draws = self._nuisance(arms, axes)
        if settings is None or self.problems:
            return None
        self._files_are_there(settings)
        if self.problems:
            return None
        self._networks_fit(settings, axes)
        self._cross_checks(settings, axes, nuisance)
        return Space(settings, tuple(arms), {k: tuple(v) for k, v in axes.items()}, nuisance, draws, self.document)

    def _validate_all(self) -> SpaceSettings | None:
        try:
            return SpaceSettings.model_validate(self.document)
        except ValidationError as err:
            self.problems += describe(err, SpaceSettings)
            return None

    def _axes(self) -> dict[str, list[Any]]:
        """Checked axes by key, `loss` among them unchecked."""
        given = self.document.get("scientific")
        axes = _flatten(given) if isinstance(given, Mapping) else {}
        if isinstance(given, Mapping) and "loss" not in axes:
            self.problems.append("scientific.loss: missing; give a list of losses, see `lossatlas losses`.")
        for key, values in axes.items():
            if not isinstance(values, list) or not values:
                self.problems.append(f"scientific.{key}: an axis is a list of at least one value, got {values!r}.")
            elif key != "loss":
                self._axis(key, values)
        return {key: values for key, values in axes.items() if isinstance(values, list)}

    def _axis(self, key: str, values: list[Any]) -> None:
        if key not in Fixed.model_fields and key.split(".")[0] not in _DOTTED:
            self.problems.append(f"scientific.{key}: {_unknown(key, ['loss', *Fixed.model_fields])}")
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

    def _value(self, key: str, value: object, where: str) -> None:
        """Check one value as if it stood in the document at the factor's place."""
        path = axis_path(key)
        document = {name: self.document[name] for name in ("data", "teacher", "validation") if name in self.document}
        document = _deep_copy(document)
        try:
            put(document, path, value)
        except (TypeError, AttributeError):
            self.problems.append(f"{where}: {'.'.join(path[:-1])} is not a mapping, so it has no {path[-1]!r}.")
            return
        try:
            SpaceSettings.model_validate({"name": "x", "scientific": {}, **document})
        except ValidationError as err:
            mine = [e for e in err.errors() if tuple(map(str, e["loc"]))[: len(path)] == path]
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
        loss: Any = details.get("loss")
        if not isinstance(loss, str) or loss not in LOSS_KNOBS:
            self.problems.append(f"{where}: {_unknown(loss, list(LOSS_KNOBS), 'loss')}")
            return None
        knobs = {key: value if isinstance(value, list) else [value] for key, value in details.items() if key != "loss"}
        for key, values in knobs.items():
            if key not in LOSS_KNOBS[loss]:
                self.problems.append(f"{where}.{key}: {loss} has no such knob; it has {list(LOSS_KNOBS[loss])}.")
                continue
            if not values:
                self.problems.append(f"{where}.{key}: an empty list has no values.")
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
        if type(draws) is not int or not 1 <= draws <= MAX_DRAWS or draws & (draws - 1):
            self.problems.append(
                f"nuisance.draws: must be a power of two (scrambled Sobol) up to {MAX_DRAWS}, got {draws!r}."
            )
            draws = DEFAULT_DRAWS
        levels = {**axes, "loss": sorted({_canonical_name(arm.loss) for arm in arms})}
        parsed = [self._nuisance_factor(key, value, levels) for key, value in factors.items()]
        return tuple(factor for factor in parsed if factor), draws

    def _nuisance_factor(self, key: str, given: object, levels: Mapping[str, list[Any]]) -> Nuisance | None:
        where = f"nuisance.{key}"
        if key not in TUNABLE:
            hint = "a loss knob is an axis, not a nuisance" if key in KNOBS else _unknown(key, list(TUNABLE))
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
            self.problems.append(f"{where}.by: {_unknown(by, [*levels], 'factor')}")
            return None
        assert isinstance(given, Mapping)
        domains = {level: self._domain(key, d, f"{where}.{level}") for level, d in given.items() if level != "by"}
        for level in needed:
            if level not in domains:
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
        for value in _extremes(domain):
            self._value(key, value, where)
        return domain

    def _fixed_value(self, key: str) -> object:
        fixed = self.document.get("fixed")
        return (fixed if isinstance(fixed, dict) else {}).get(key, Fixed.model_fields[key].default)

    def _files_are_there(self, settings: SpaceSettings) -> None:
        """A teacher has a network or weights; images on disk can be listed, and have a size."""
        teacher = settings.teacher
        if teacher.model is None and not teacher.weights:
            self.problems.append("teacher: give a model, which is then trained, or weights (checkpoint files).")
        if (teacher.mean is None) != (teacher.std is None):
            self.problems.append("teacher: mean and std belong together; give both or none.")
        for path in teacher.weights or ():
            try:
                file_hash(path)
            except (ValueError, OSError) as err:
                self.problems.append(f"teacher.weights: {err}")
        self._check_tree(settings.data)

    def _check_tree(self, data: Data) -> None:
        """Data with a name take no settings of trees."""
        try:
            tree = image_tree(data)
        except (ValueError, OSError) as err:
            self.problems.append(f"data.real: {err}")
            return
        if tree is not None and data.image_size is None:
            self.problems.append("data.image_size: missing; give the side in pixels of the tree's images.")
        for key in ("image_size", "class_order", "flips") if tree is None else ():
            if getattr(data, key) is not None:
                self.problems.append(f"data.{key}: only for an image tree; {data.real} has its own.")

    def _networks_fit(self, settings: SpaceSettings, axes: Mapping[str, Any]) -> None:
        """A convnet halves its image once per layer; group norm splits its channels."""
        size = IMAGE_SIZES.get(settings.data.real) or settings.data.image_size or 1
        trained = [settings.teacher.model] if settings.teacher.model and not settings.teacher.weights else []
        named = {"teacher.model": trained, "student": axes.get("student", [settings.fixed.student])}
        for where, names in named.items():
            for name in names:
                if 2 ** CONVNETS.get(name, 0) > size:
                    self.problems.append(f"{where}: {name} halves images more often than their {size} pixels allow.")

        factor = settings.data.distilled.factor
        if size % factor:
            self.problems.append(f"data.distilled.factor: must divide the images' side of {size} pixels, got {factor}.")
        widths = axes.get("width", [settings.fixed.width])
        norms = {"norm": axes.get("norm", [settings.fixed.norm]), "teacher.norm": [settings.teacher.norm]}
        wide = {"norm": widths, "teacher.norm": [settings.teacher.width]}
        for (where, kinds), names in zip(norms.items(), reversed(named.values()), strict=True):
            if "group" in kinds and any(width % NORM_GROUPS for width in wide[where]):
                self.problems.append(f"{where}: group needs a width that {NORM_GROUPS} divides, got {wide[where]}.")
            if "resnet18_modified" in names and not set(kinds) <= set(RESNET_NORMS):
                self.problems.append(f"{where}: resnet18_modified has {' or '.join(RESNET_NORMS)}, got {kinds}.")

    def _cross_checks(self, settings: SpaceSettings, axes: Mapping[str, Any], nuisance: Sequence[Nuisance]) -> None:
        if "best" not in settings.confirm:
            self.problems.append("confirm: must contain best, which cell values are made of; give [best, shared].")
        if settings.nuisance and not nuisance:
            self.problems.append("nuisance: draws alone tune nothing; add a factor, such as lr.")
        optimizers = axes.get("optimizer", [settings.fixed.optimizer])
        if any(factor.name == "momentum" for factor in nuisance) and not set(optimizers) & set(MOMENTUM_OPTIMIZERS):
            self.problems.append(f"nuisance.momentum: {', '.join(optimizers)} has none, so it cannot be tuned.")
        warmup = max(axes.get("warmup_epochs", [settings.fixed.warmup_epochs]))
        if warmup >= settings.fixed.epochs:
            self.problems.append(f"warmup_epochs: must be less than epochs, got {warmup} of {settings.fixed.epochs}.")
        if settings.protocol == "paper" and nuisance:
            self.problems.append("protocol: paper compares at one fixed lr; remove the nuisance section or use tuned.")
        strata = settings.early_stopping.stratify if settings.early_stopping else "cell"
        known = ["loss", *axes]
        for factor in [] if strata == "cell" else strata:
            if factor not in known:
                self.problems.append(f"early_stopping.stratify: {_unknown(factor, known, 'factor')}")


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
        return _unknown(key, _keys_of(_model_at(parents, model)))
    allowed = " or ".join(error["msg"].removeprefix("Input ").replace("should", "must") for error in errors)
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
        options = [field.annotation, *typing.get_args(field.annotation)] if field else []
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return model


def _keys_of(model: type[BaseModel] | None) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()] if model else []


def _unknown(key: object, valid: list[str], what: str = "key") -> str:
    close = difflib.get_close_matches(str(key), valid, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown {what} {key!r}{hint}; valid: {valid}."


def _canonical_name(loss: str) -> str:
    return canonical_loss(loss, dict.fromkeys(KNOBS, 0.5))[0]


def _extremes(domain: Domain) -> list[Value]:
    return list(domain.arguments) if domain.kind == "choice" else [domain.at(0.0), domain.at(1 - 1e-9)]


def _flatten(axes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Axes by dotted key; nested mappings (as --set makes them) are dotted keys too."""
    flat: dict[str, Any] = {}
    for key, value in axes.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _has(document: Mapping[str, Any], path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(document, Mapping) or key not in document:
            return False
        document = document[key]
    return True


def _deep_copy(value: Any) -> Any:
    return {k: _deep_copy(v) for k, v in value.items()} if isinstance(value, dict) else value
