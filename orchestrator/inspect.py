"""What a file is, for the terminal; what it cannot tell, written beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_spaces import ConfigError
from search_spaces.files import check_stated
from trainables.documents import read_yaml
from trainables.isolated import look_apart
from trainables.sidecar import STATED, sidecar_of, write_sidecar


def inspect_file(path: Path, *, full: bool, stated: Sequence[str]) -> dict[str, Any]:
    """Facts about a distilled set, label store or checkpoint; see `trainables.formats.inspect.inspect_path`.

    Args:
        path: File or folder.
        full: Look at every image.
        stated: "KEY=VALUE" to write into `lossatlas.yaml` first.

    Raises:
        ConfigError: If the path is nothing that is known, or a key or value is not allowed.
    """

    def look() -> dict[str, Any]:
        from trainables.formats.inspect import inspect_path  # loads torch

        return inspect_path(path, full=full)

    try:
        facts: dict[str, Any] = look_apart(path, look)
        if stated:
            given = _parsed(stated)
            check_stated(facts["stated"] | given, "--set")
            write_sidecar(path, given)
            facts = look_apart(path, look)
    except (ValueError, OSError) as err:
        raise ConfigError(str(err)) from err
    try:
        check_stated(facts["stated"], sidecar_of(path).name)
    except ValueError as err:
        facts["problems"].append(str(err))
    return facts


def _parsed(stated: Sequence[str]) -> dict[str, Any]:
    found = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: give KEY=VALUE, such as --set pixel_space=raw01.")
        try:
            found[key.strip()] = read_yaml(value)
        except ValueError as err:
            raise ValueError(f"--set {text}: the value is not YAML: {' '.join(str(err).split())}.") from err
    return found


def describe_file(path: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """The facts in sentences."""
    yield f"{path}: {facts['kind']}, format {facts['format']}"
    if images := facts["images"]:
        sample = "a sample of 200" if images["sampled"] else "all"
        yield f"  images   {' x '.join(map(str, images['shape']))}, {images['dtype']}, {images['min']:.4g} to {images['max']:.4g}"
        yield f"  pixels   mean {images['mean']}, deviation {images['std']} per channel ({sample})"
        yield f"  space    {facts['pixel_space'] or facts['details']['pixel_space_guess']}"
    if labels := facts["labels"]:
        yield f"  labels   {labels['kind'] or 'soft'}, {' x '.join(map(str, labels['shape']))}"
    if facts["classes"]:
        per_class = f", {facts['ipc']} images each" if facts["ipc"] else ""
        yield f"  classes  {facts['classes']}{per_class}"
    shown = {key: value for key, value in facts["details"].items() if key not in ("pixel_space_guess", "details")}
    yield from (f"  {key:8} {value}" for key, value in shown.items())
    yield from (f"  stated   {key}: {value} ({sidecar_of(path).name})" for key, value in facts["stated"].items())
    yield from (f"  NOTE     {remark}" for remark in facts["remarks"])
    yield from (f"  PROBLEM  {problem}" for problem in facts["problems"])
    yield from (f"  STATE    {key}: {STATED[key]}" for key in facts["asks"])
    if facts["asks"]:
        yield f"State it under data.distilled in the space, or here: lossatlas inspect {path} --set {facts['asks'][0]}=..."
