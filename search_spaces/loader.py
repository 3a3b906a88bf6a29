"""Read a space file, apply --set, check everything, report all problems at once."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from search_spaces.checks import check_document
from search_spaces.errors import ConfigError
from search_spaces.files import look_again
from search_spaces.space import Space, named_datasets, put
from trainables.documents import read_yaml

_PATH_AXES: Final = (
    "data.distilled.path",
    "data.distilled.label_store",
    "data.root",
    "projector.weights",
    "projector.text",
)
MOST_BYTES: Final = 1_000_000
_HERE: Final = Path(__file__).parent
_FRACTION: Final = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*/\s*(\d+(?:\.\d+)?)\s*")
_EXPONENT: Final = re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+")


def shipped_spaces() -> dict[str, Path]:
    """Space files that come with the package, by name."""
    return {path.stem: path for path in sorted(_HERE.glob("*.yaml"))}


def load_space(
    space: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, check_files: bool = True
) -> Space:
    """A checked space.

    Args:
        space: A shipped name, a path to a YAML file, or the content of one.
        overrides: "KEY=VALUE" with a dotted key and a YAML value; null removes the key.
        check_files: Files that it names must be there.

    Raises:
        ConfigError: With every problem found: where, what was given, what is allowed.
    """
    look_again()
    source, document = _read(space)
    problems = [problem for text in overrides for problem in _override(document, text)]
    try:
        document = _numbers(document)
    except RecursionError as err:
        raise ConfigError(f"{source}: nested too deeply; does an alias contain itself?") from err
    return check_document(_with_absolute_paths(document), source, problems, check_files=check_files)


def _with_absolute_paths(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its files named so that `resume` finds them from any working directory."""
    data, teacher = document.get("data"), document.get("teacher")
    named = named_datasets(document)
    axes = document.get("scientific")
    if isinstance(axes, dict):
        for key in set(_PATH_AXES) & set(axes):
            axes[key] = [_absolute(value) for value in axes[key]] if isinstance(axes[key], list) else axes[key]
    projector = document.get("projector")
    if isinstance(projector, dict):
        projector |= {key: _absolute(projector[key]) for key in ("weights", "text") if key in projector}
    variants = document.get("variants")
    for keys in variants.values() if isinstance(variants, dict) else ():
        if isinstance(keys, dict):
            keys |= {key: _absolute(keys[key]) for key in (*_PATH_AXES, "data.real") if "/" in str(keys.get(key))}
    for one in [each["data"] for each in named.values()] or [data]:
        _absolute_data(one)
    if named and isinstance(teacher, dict) and set(teacher) == set(named):
        document["teacher"] = {name: _absolute_teacher(one) for name, one in teacher.items()}
    elif teacher is not None:
        document["teacher"] = _absolute_teacher(teacher)
    return document


def _absolute_data(data: Any) -> None:
    """One dataset's files, in place."""
    if not isinstance(data, dict):
        return
    if "/" in str(data.get("real")):
        data["real"] = _absolute(data["real"])
    if data.get("root"):
        data["root"] = _absolute(data["root"])
    distilled = data.get("distilled")
    if isinstance(distilled, str):
        data["distilled"] = {"path": _absolute(distilled)}
    elif isinstance(distilled, dict):
        distilled |= {key: _absolute(distilled[key]) for key in ("path", "label_store") if key in distilled}


def _absolute_teacher(teacher: Any) -> Any:
    if isinstance(teacher, str | list):
        teacher = {"weights": [teacher] if isinstance(teacher, str) else teacher}
    if isinstance(teacher, dict) and isinstance(teacher.get("weights"), list):
        return teacher | {"weights": [_absolute(path) for path in teacher["weights"]]}
    return teacher


def _absolute(path: Any) -> Any:
    """Anything but text is left for the checks."""
    return str(Path(path).expanduser().absolute()) if isinstance(path, str) else path


def _read(space: str | Path | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where the space comes from, for messages, and its raw content."""
    if isinstance(space, Mapping):
        return "space", copy.deepcopy(dict(space))
    path = shipped_spaces().get(str(space), Path(space))
    if not _is_file(path):
        raise ConfigError(
            f"no space {str(space)!r}; give a path to a YAML file or one of the shipped: {sorted(shipped_spaces())}."
        )
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ConfigError(f"{path}: {size} bytes; a space file has at most {MOST_BYTES}.")
    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as err:
        raise ConfigError(f"{path}: not readable as YAML: {' '.join(str(err).split())}") from err
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: a space is a mapping of keys, got {type(document).__name__}; see docs/space.md.")
    return path.name, document


def _is_file(path: Path) -> bool:
    """False also for what cannot be the name of a file."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _override(document: dict[str, Any], text: str) -> list[str]:
    """Apply one --set in place; the problems with it."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        return [f"--set {text}: give KEY=VALUE, such as --set replicates=5."]
    try:
        put(document, tuple(key.strip().split(".")), read_yaml(value))
    except ValueError as err:
        return [f"--set {text}: the value is not YAML: {' '.join(str(err).split())}"]
    except (AttributeError, TypeError):
        return [f"--set {text}: {key.rpartition('.')[0]} is not a mapping, so it has no keys."]
    return []


def _numbers(value: Any) -> Any:
    """Fractions such as 1/11 and exponents such as 3e-4 as numbers; YAML 1.1 reads both as text."""
    if isinstance(value, dict):
        return {_numbers(key): _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str):
        if (match := _FRACTION.fullmatch(value)) and float(match[2]):
            return float(match[1]) / float(match[2])
        if _EXPONENT.fullmatch(value.strip()):
            number = float(value)
            return int(number) if "." not in value and number.is_integer() else number
    return value
