"""Open the files that a space names before anything is decoded or trained: checkpoints, sets, label stores, projectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orchestrator.cells import Cell
from orchestrator.plan import Plan
from orchestrator.prepare import Say, run_module
from orchestrator.recipes import recipe
from orchestrator.students import GRAY
from search_spaces import ConfigError
from search_spaces.files import classes_of, image_tree
from trainables.arrays import entry_of, is_intact
from trainables.config import content_hash
from trainables.names import IMAGE_SIZES


def require_readable(plan: Plan, cache: Path, say: Say) -> None:
    """Refuse files that data cannot be made of, or that do not fit the real data.

    Args:
        plan: Of the sweep.
        cache: Where an answer is kept, and data that were made already, whose files are not opened again.
        say: Told that this takes seconds.

    Raises:
        ConfigError: With every such file, the key that names it, the reason, and what to do.
    """
    cells = {plan.data_keys[cell.label]: cell for cell in plan.cells}
    made = {key: _wanted(cell) for key, cell in cells.items() if not is_intact(entry_of(key, cache))}
    wanted = list({content_hash(one): one for one in made.values() if any(one[key] for key in _FILES)}.values())
    answer = cache / f"files-{content_hash(wanted)}.ok"
    if not wanted or answer.exists():
        return
    say("opening the files that the space names, to see that they can be read and fit")
    problems: list[str] = json.loads(run_module("trainables.prepare.files", wanted, cache, lambda text: None))
    if problems:
        raise ConfigError(problems)
    if cache.is_dir():
        answer.touch()


_FILES = ("teacher", "distilled", "label_store", "projector")


def _wanted(cell: Cell) -> dict[str, Any]:
    """Files of a cell's recipe, and the images that they must fit as far as those are known; see `trainables.prepare.files`."""
    made, data = recipe(cell), cell.settings.data
    teacher, distilled, projector = made["teacher"], made["data"]["distilled"], made.get("projector", {})
    tree = image_tree(data)
    channels = None if tree else 1 if data.real in GRAY else 3
    return {
        "teacher": teacher if teacher and "weights" in teacher else None,
        "distilled": distilled if "path" in distilled else None,
        "label_store": made.get("label_store"),
        "projector": projector if {"weights", "text"} & projector.keys() else None,
        "is_ordered": "class_order" in made["data"],
        "classes": classes_of(data),
        "names": list(tree.classes) if tree else None,
        "channels": channels,
        "size": IMAGE_SIZES.get(data.real) or data.image_size,
        "versions": made["versions"],
    }
