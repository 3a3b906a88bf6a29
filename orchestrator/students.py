"""Find networks that cannot be built before anything is trained: a name that does not exist, images that are too small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.cells import Cell
from orchestrator.plan import Plan
from orchestrator.prepare import Say, run_module
from search_spaces import ConfigError
from search_spaces.files import classes_of
from trainables.config import content_hash
from trainables.names import IMAGE_SIZES, STUDENTS

#: Of images whose files have not been looked at; hardly a network can do with one and not with the other.
USUAL_CHANNELS = 3
GRAY = ("digits", "mnist", "fashionmnist")


def require_buildable(plan: Plan, cache: Path, say: Say) -> None:
    """Refuse networks of torchvision and timm that cannot be built for the images; our own are checked with the space.

    Args:
        plan: Of the sweep.
        cache: Where an answer is kept.
        say: Told that this takes seconds.

    Raises:
        ConfigError: With every such network, the key that names it, and the reason.
    """
    wanted = list({content_hash(one): one for cell in plan.cells for one in _wanted(cell)}.values())
    if not wanted:
        return
    answer = cache / f"networks-{content_hash([wanted, version('torchvision'), version('timm')])}.ok"
    if answer.exists():
        return
    say("building the networks of torchvision and timm once, to see that they can be")
    problems: list[str] = json.loads(run_module("trainables.students", wanted, cache, lambda text: None))
    if problems:
        raise ConfigError(problems)
    if cache.is_dir():
        answer.touch()


def _wanted(cell: Cell) -> Iterator[dict[str, Any]]:
    """Foreign networks of a cell, with the images that they must take."""
    settings = cell.settings
    size = IMAGE_SIZES.get(settings.data.real) or settings.data.image_size
    classes = classes_of(settings.data)
    if size is None or classes is None:
        return
    shape = {"channels": 1 if settings.data.real in GRAY else USUAL_CHANNELS, "classes": classes, "image_size": size}
    fixed, teacher = settings.fixed, settings.teacher
    if fixed.student not in STUDENTS:
        where = f"{'scientific' if 'student' in cell.context else 'fixed'}.student"
        yield {"where": where, "name": fixed.student, "width": None, "norm": None, **shape}
    if teacher is not None and teacher.model is not None and teacher.model not in STUDENTS:
        yield {"where": "teacher.model", "name": teacher.model, "width": None, "norm": None, **shape}
