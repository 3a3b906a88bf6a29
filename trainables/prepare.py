"""Make what a recipe asks for (teacher, distilled set, label bank), once, in a content-addressed cache.

`python -m trainables.prepare CACHE < recipes.json` does it in a process of its own, so that a driver needs no torch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.arrays import new_entry
from trainables.augment import Augmentation
from trainables.config import data_key
from trainables.data.decode import decode_tree
from trainables.data.distilled import choose_random
from trainables.data.labels import build_label_bank
from trainables.data.rded import make_rded
from trainables.data.real import RealData, load_real, load_tree, normalise
from trainables.data.teacher import load_teacher, make_teacher, train_teacher
from trainables.evaluate import accuracy
from trainables.names import REAL_DATASETS, STUDENTS
from trainables.networks import ModelShape
from trainables.splits import Split
from trainables.trees import list_tree
from trainables.trial import TrialData

Say = Callable[[str], None]


def prepare(key: str, recipe: Mapping[str, Any], cache: Path, say: Say = print) -> dict[str, Any]:
    """Make a recipe's arrays unless the cache has them; what is known about them.

    Args:
        key: Name of the cache entry, a hash of the recipe.
        recipe: As `orchestrator.plan.recipe` writes it.
        cache: Folder of entries.
        say: Told what takes long.

    Raises:
        ValueError: If the recipe cannot be followed (such as more images per class than there are).
    """
    entry = cache / f"data-{key}"
    if not (entry / "about.json").exists():
        real = normalise(_real(recipe["data"], recipe["validation"]["frac"], cache, say))
        make = _loaded_teacher if "weights" in recipe["teacher"] else _trained_teacher
        teacher, about = make(recipe, real, cache, say)
        chosen = _distilled(recipe["data"]["distilled"], real, teacher)
        about["teacher_distilled_accuracy"] = accuracy(teacher, chosen)
        augmentation = Augmentation(recipe["augment"], real.flips, real.background)
        bank = build_label_bank(chosen.images, chosen.labels, teacher, views=recipe["views"], augmentation=augmentation)
        arrays = TrialData(bank, real.validation, real.test).to_arrays()
        about |= {"n_distilled": len(chosen.labels), "n_validation": len(real.validation.labels)}
        about |= {"n_test": len(real.test.labels), "classes": real.classes, "views": recipe["views"]}
        about |= {"bank_bytes": arrays["bank_images"].nbytes + arrays["bank_logits"].nbytes}
        _write_entry(entry, arrays, about)
        say(
            f"label bank: {recipe['views']} views of {len(chosen.labels)} images, {about['bank_bytes'] / 2**20:.1f} MiB"
        )
    return dict(json.loads((entry / "about.json").read_text()))


def _real(data: Mapping[str, Any], validation_frac: float, cache: Path, say: Say) -> RealData:
    """Real data by name, or from a tree, decoded once."""
    if data["real"] in REAL_DATASETS:
        return load_real(data["real"], validation_frac=validation_frac)
    tree = list_tree(data["real"], tuple(data["class_order"]) if "class_order" in data else None)
    arrays = decode_tree(tree, image_size=data["image_size"], cache=cache, say=say)
    return load_tree(arrays, classes=len(tree.classes), flips=data.get("flips", True), validation_frac=validation_frac)


def _distilled(wanted: Mapping[str, Any], real: RealData, teacher: torch.nn.Module) -> Split:
    """The recipe's distilled set."""
    settings = {key: value for key, value in wanted.items() if key != "method"}
    if wanted["method"] == "rded":
        return make_rded(real.train, teacher, classes=real.classes, **settings)
    return choose_random(real.train, classes=real.classes, **settings)


def _loaded_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The recipe's checkpoints and their accuracies."""
    wanted = recipe["teacher"]
    name = None if wanted.get("model") in STUDENTS else wanted.get("model")
    constants = {key: wanted[key] for key in ("mean", "std") if key in wanted}
    paths = [Path(file["path"]).expanduser() for file in wanted["weights"]]
    teacher = load_teacher(paths, real, name=name, **constants)
    about = _accuracies(teacher, real)
    say(f"teacher from {', '.join(map(str, paths))}: test accuracy {about['teacher_test_accuracy']:.4f}")
    return teacher, about


def _accuracies(teacher: torch.nn.Module, real: RealData) -> dict[str, Any]:
    return {
        "teacher_validation_accuracy": accuracy(teacher, real.validation),
        "teacher_test_accuracy": accuracy(teacher, real.test),
    }


def _trained_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The recipe's teacher and its accuracies, from the cache or trained now."""
    wanted = {name: recipe[name] for name in ("version", "teacher", "validation")}
    wanted |= {key: value for key, value in recipe["data"].items() if key != "distilled"}
    entry = cache / f"teacher-{data_key(wanted)}"
    settings, training = recipe["teacher"], recipe["teacher"]["train"]
    shape = ModelShape(real.train.images.shape[1], real.classes, real.train.images.shape[-1])
    model = make_teacher(settings["model"], shape, width=settings["width"], norm=settings["norm"])
    if not (entry / "about.json").exists():
        say(f"teacher {settings['model']} of width {settings['width']}: training {training['epochs']} epochs")
        train_teacher(real.train, model, Augmentation("dsa", real.flips, real.background), **training)
        about = _accuracies(model, real)
        with new_entry(entry) as folder:
            torch.save(model.state_dict(), folder / "teacher.pt")
            (folder / "about.json").write_text(json.dumps(about))
        say(f"teacher: test accuracy {about['teacher_test_accuracy']:.4f}")
    model.load_state_dict(torch.load(entry / "teacher.pt", weights_only=True))
    return model.eval(), dict(json.loads((entry / "about.json").read_text()))


def _write_entry(entry: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    with new_entry(entry) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "about.json").write_text(json.dumps(about))


def main() -> int:
    """Prepare the recipes on standard input ({key: recipe}); what is known about each is the last line printed."""
    cache = Path(sys.argv[1])

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    torch.set_num_threads(os.cpu_count() or 1)
    try:
        about = {key: prepare(key, recipe, cache, say) for key, recipe in json.load(sys.stdin).items()}
    except ValueError as err:
        print(err)  # the driver says it, once
        return 2
    print(json.dumps(about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
