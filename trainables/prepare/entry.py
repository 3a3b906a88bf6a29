"""A recipe's entry in the cache: what its trials read, and what is known about it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainables.arrays import entry_of, is_intact, new_entry, only_maker
from trainables.content import file_hash, set_hash
from trainables.data.labels import with_pixels
from trainables.drafts import (
    BANK_FILES,
    complete,
    draft_of,
    label_views,
    needed_for_labels,
    pack_logits,
    packing_of,
    read_about,
    split_views,
)
from trainables.evaluate import confusion
from trainables.prepare.bank import make_bank
from trainables.prepare.distilled import make_distilled
from trainables.prepare.findings import find_out
from trainables.prepare.projector import project_labels
from trainables.prepare.real import CHANGED, Say, load_real_data
from trainables.prepare.teacher import load_or_train_teacher, require_readable
from trainables.sidecar import NAME as SIDECAR
from trainables.trial import TrialData

#: What a user of labels from a source would have to be sent, besides the images.
_LABEL_FILES: Final[Mapping[str, Sequence[str]]] = {
    "bank": BANK_FILES,
    "stored": BANK_FILES,
    "online": ("teacher.npy",),
    "projector": ("projector.npy",),
    "hard": (),
}


def prepare(
    key: str, recipe: Mapping[str, Any], cache: Path, say: Say = print, *, leave_labels: bool = False
) -> dict[str, Any]:
    """Make a recipe's arrays unless the cache has them; what is known about them.

    Args:
        key: Name of the cache entry, a hash of the recipe.
        recipe: As `orchestrator.recipes.recipe` writes it.
        cache: Folder of entries.
        say: Told what takes long.
        leave_labels: Where a teacher has yet to label the views, leave a draft; see `trainables.drafts`.

    Raises:
        ValueError: If the recipe cannot be followed (such as more images per class than there are).
    """
    entry = entry_of(key, cache)
    with only_maker(entry):
        return _make_entry(entry, recipe, cache, say, leave_labels=leave_labels)


def _make_entry(entry: Path, recipe: Mapping[str, Any], cache: Path, say: Say, *, leave_labels: bool) -> dict[str, Any]:
    if is_intact(entry):
        return read_about(entry)
    draft = draft_of(entry)
    if not is_intact(draft):
        if entry.exists():
            say(f"cache entry {entry.name} is damaged; making it again")
        arrays, about = _make(recipe, cache, say)
        _write_entry(draft if recipe["labels"] == "bank" else entry, arrays, about)
    if not is_intact(entry):
        if leave_labels:
            return read_about(draft)
        _label(draft, entry)
        about = read_about(entry)
        say(
            f"label bank: {about['views']} views of {about['n_distilled']} images, {about['bank_bytes'] / 2**20:.1f} MiB"
        )
    return read_about(entry)


def _check_files(recipe: Mapping[str, Any]) -> None:
    """Refuse files that are not those of the recipe: what is made of them would be taken for what it is not.

    Raises:
        ValueError: If one has changed since the recipe was written, or another lies where it was.
    """
    distilled, teacher = recipe["data"]["distilled"], recipe["teacher"] or {}
    sets = [made for made in (distilled, recipe.get("label_store", {})) if "content" in made]
    files = [*teacher.get("weights", ()), *(f for f in recipe.get("projector", {}).values() if isinstance(f, Mapping))]
    for made, now in (
        *((made, set_hash(made["path"], (SIDECAR,))) for made in sets),
        *((made, file_hash(made["path"])) for made in files),
    ):
        if now != made["content"]:
            raise ValueError(f"{made['path']}: {CHANGED}")


def _make(recipe: Mapping[str, Any], cache: Path, say: Say) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays but a teacher's labels, and what is known about them."""
    _check_files(recipe)
    require_readable(recipe)
    real, about = load_real_data(recipe, cache, say)
    is_judged = recipe["data"]["distilled"].get("method") == "rded"  # by the teacher, so it must be there
    made = (
        None if is_judged else make_distilled(recipe, real, None, cache)
    )  # its faults are found before a teacher is trained
    teacher, about_teacher = load_or_train_teacher(recipe, real, cache, say)
    distilled, about_set = made or make_distilled(recipe, real, teacher, cache)
    about |= about_teacher.facts | about_set.facts
    bank = with_pixels(make_bank(recipe, real, teacher, distilled, about_set))
    arrays = TrialData(bank, real.validation, real.test).to_arrays()
    counts = None if teacher is None else confusion(teacher, distilled, real.classes)
    if counts is not None:
        about["teacher_distilled_accuracy"] = int(np.trace(counts)) / int(counts.sum())
    about["findings"] = find_out(recipe, real, distilled, about_teacher, counts).as_dict()
    if teacher is not None and recipe["labels"] in ("bank", "online"):
        arrays["teacher"] = teacher.to_bytes()
        arrays |= {} if teacher.linear is None else {"teacher_linear": teacher.linear.cpu().numpy()}
    if "label_format" in recipe:
        about |= {key: recipe[key] for key in ("label_format", "label_top_k") if key in recipe}
        logits = arrays.pop("bank_logits")
        if recipe["labels"] == "projector":
            assert teacher is not None
            labels, facts = project_labels(recipe, real, teacher, bank, say)
            arrays, about = arrays | labels, about | facts
        if recipe["labels"] == "stored":
            how = {"label_format": recipe["label_format"], "top_k": recipe.get("label_top_k", 0)}
            packed, about["label_rounding"] = pack_logits(logits, **how)
            arrays |= packed
    about["label_files"] = _LABEL_FILES[recipe["labels"]]
    about["distilled_pixels"] = distilled.images.numel()
    about |= {"n_distilled": len(distilled), "n_validation": len(real.validation), "n_test": len(real.test)}
    about |= {"classes": real.classes, "views": bank.views}
    about["bank_bytes"] = sum(array.nbytes for name, array in arrays.items() if name.startswith("bank_"))
    return arrays, about


def _label(draft: Path, entry: Path) -> None:
    """Label a draft's views in this process."""
    arrays, packing = needed_for_labels(draft), packing_of(draft)
    parts = split_views(draft)
    complete(draft, entry, ((part, label_views(arrays, part, packing)) for part in parts))


def _write_entry(entry: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    with new_entry(entry) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "about.json").write_text(json.dumps(about))
