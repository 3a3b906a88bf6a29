"""A recipe's entry in the cache: what its trials read, and what is known about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trainables.arrays import is_intact, new_entry
from trainables.data.labels import with_pixels
from trainables.evaluate import accuracy
from trainables.prepare.bank import make_bank
from trainables.prepare.distilled import make_distilled
from trainables.prepare.real import Say, load_real_data
from trainables.prepare.teacher import load_or_train_teacher
from trainables.trial import TrialData


def prepare(key: str, recipe: Mapping[str, Any], cache: Path, say: Say = print) -> dict[str, Any]:
    """Make a recipe's arrays unless the cache has them; what is known about them.

    Args:
        key: Name of the cache entry, a hash of the recipe.
        recipe: As `orchestrator.recipes.recipe` writes it.
        cache: Folder of entries.
        say: Told what takes long.

    Raises:
        ValueError: If the recipe cannot be followed (such as more images per class than there are).
    """
    entry = cache / f"data-{key}"
    if not is_intact(entry):
        if entry.exists():
            say(f"cache entry {entry.name} is damaged; making it again")
        real, about = load_real_data(recipe, cache, say)
        teacher, accuracies = load_or_train_teacher(recipe, real, cache, say)
        about |= accuracies
        distilled, about_set = make_distilled(recipe, real, teacher)
        about |= about_set.facts
        if teacher is not None:
            about["teacher_distilled_accuracy"] = accuracy(teacher, distilled)
        bank = make_bank(recipe, real, teacher, distilled, about_set)
        arrays = TrialData(with_pixels(bank), real.validation, real.test).to_arrays()
        if recipe["labels"] == "online" and teacher is not None:
            arrays["teacher"] = teacher.to_bytes()
        about |= {"n_distilled": len(distilled), "n_validation": len(real.validation), "n_test": len(real.test)}
        about |= {"classes": real.classes, "views": bank.views}
        about["bank_bytes"] = sum(array.nbytes for name, array in arrays.items() if name.startswith("bank_"))
        _write_entry(entry, arrays, about)
        say(f"label bank: {bank.views} views of {len(distilled)} images, {about['bank_bytes'] / 2**20:.1f} MiB")
    return dict(json.loads((entry / "about.json").read_text()))


def _write_entry(entry: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    with new_entry(entry) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "about.json").write_text(json.dumps(about))
