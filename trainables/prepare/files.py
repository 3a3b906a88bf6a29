"""`python -m trainables.prepare.files < wanted.json`: open every file that recipes name, before anything is made of one.

Each file is opened in a process of its own, so that one that crashes a reader is a message like any other.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainables.formats.found import asking
from trainables.formats.read import missing_keys, require_fitting
from trainables.formats.recognise import recognise_path
from trainables.isolated import look_apart
from trainables.networks import ModelShape
from trainables.prepare.bank import fitting_store
from trainables.prepare.projector import read_backbone, read_text
from trainables.prepare.teacher import USUAL_CHANNELS, require_readable

Look = Callable[[], None]


def unreadable(wanted: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the files that recipes name, after the key of the space that names them.

    Args:
        wanted: Of each `teacher`, `distilled`, `label_store` and `projector`, as recipes have them, None where it has no files;
            `is_ordered`, whether `data.class_order` is stated; and `classes`, `names`, `channels` and `size` of the real images,
            None where they are not known before images are read.
    """
    problems = []
    for one in wanted:
        for key, path, look in _looks(one):
            try:
                look_apart(path, look)
            except (ValueError, OSError) as err:
                problems.append(f"{key}: {str(err).removeprefix(f'{key}: ')}")
    return list(dict.fromkeys(problems))


def _looks(one: Mapping[str, Any]) -> Iterator[tuple[str, Path, Look]]:
    """Key of the space, path, and what opens it, of each file."""
    if teacher := one["teacher"]:
        for file in teacher["weights"]:
            yield "teacher.weights", _path(file), partial(_open_teacher, one, file)
    if distilled := one["distilled"]:
        yield "data.distilled.path", _path(distilled), partial(_open_set, one)
    if store := one["label_store"]:
        yield "data.distilled.label_store", _path(store), partial(_open_store, one)
    if projector := one["projector"]:
        if "weights" in projector:
            yield "projector.weights", _path(projector["weights"]), partial(_open_backbone, one)
        if "text" in projector:
            yield "projector.text", _path(projector["text"]), partial(_open_text, one)


def _path(file: Mapping[str, Any]) -> Path:
    return Path(file["path"]).expanduser()


def _shape(one: Mapping[str, Any], channels: int) -> ModelShape | None:
    if one["classes"] is None or one["size"] is None:
        return None
    return ModelShape(one["channels"] or channels, one["classes"], one["size"])


def _open_teacher(one: Mapping[str, Any], file: Mapping[str, Any]) -> None:
    require_readable(
        {"teacher": {**one["teacher"], "weights": [file]}}, shape_of=lambda channels: _shape(one, channels)
    )


def _open_set(one: Mapping[str, Any]) -> None:
    path, stated, names = _path(one["distilled"]), one["distilled"]["stated"], one["names"]
    if names is None or one["size"] is None:
        _require_all_stated(path, stated)
        return
    require_fitting(path, stated, classes=names, size=one["size"], is_ordered=one["is_ordered"])


def _require_all_stated(path: Path, stated: Mapping[str, Any]) -> None:
    """Names of folders may be those of the real classes, which are not known."""
    found = recognise_path(path)
    if found.kind != "distilled":
        raise ValueError(f"{path}: {found.kind} ({found.format}), not a distilled set.")
    if missing := [key for key in missing_keys(found, stated) if key != "class_order"]:
        raise ValueError(asking(found, missing, path))


def _open_store(one: Mapping[str, Any]) -> None:
    fitting_store(one["label_store"], one["classes"])


def _open_backbone(one: Mapping[str, Any]) -> None:
    if (shape := _shape(one, USUAL_CHANNELS)) is not None:
        read_backbone(one["projector"], shape)


def _open_text(one: Mapping[str, Any]) -> None:
    if one["classes"] is not None:
        read_text(one["projector"]["text"], one["classes"])


def main() -> int:
    """Read what is wanted on standard input; the last line printed are the problems as JSON."""
    print(json.dumps(unreadable(json.load(sys.stdin))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
