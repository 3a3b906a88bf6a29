"""Make what a recipe asks for (teacher, distilled set, label bank), once, in a content-addressed cache.

`python -m trainables.prepare CACHE < recipes.json` does it in a process of its own, so that a driver needs no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainables.config import content_hash
from trainables.data.distilled import choose_random
from trainables.data.labels import build_label_bank
from trainables.data.real import RealData, Split, load_real
from trainables.data.teacher import make_teacher, train_teacher
from trainables.evaluate import accuracy
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
        real, mean, std = _normalised(recipe)
        teacher, about = _teacher(recipe, real, mean, std, cache, say)
        distilled = recipe["data"]["distilled"]
        chosen = choose_random(real.train, ipc=distilled["ipc"], classes=real.classes, seed=distilled["seed"])
        bank = build_label_bank(
            chosen.images,
            chosen.labels,
            teacher,
            views=recipe["views"],
            augment=recipe["augment"],
            flips=real.flips,
            background=-mean / std,
        )
        arrays = TrialData(bank, real.validation, real.test).to_arrays()
        about |= {"n_distilled": len(chosen.labels), "n_validation": len(real.validation.labels)}
        about |= {"n_test": len(real.test.labels), "classes": real.classes, "views": recipe["views"]}
        about |= {"bank_bytes": arrays["bank_images"].nbytes + arrays["bank_logits"].nbytes}
        _write_entry(entry, arrays, about)
        say(f"label bank: {recipe['views']} views of {len(chosen.labels)} images, {about['bank_bytes'] / 2**20:.1f} MiB")
    return dict(json.loads((entry / "about.json").read_text()))


def _normalised(recipe: Mapping[str, Any]) -> tuple[RealData, torch.Tensor, torch.Tensor]:
    """Real data with zero mean and unit deviation per channel of the training split."""
    real = load_real(recipe["data"]["real"], validation_frac=recipe["validation"]["frac"])
    mean = real.train.images.mean(dim=(0, 2, 3))
    std = real.train.images.std(dim=(0, 2, 3))

    def normalise(split: Split) -> Split:
        return Split((split.images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1), split.labels)

    splits = (normalise(split) for split in (real.train, real.validation, real.test))
    return RealData(*splits, classes=real.classes, flips=real.flips), mean, std


def _teacher(
    recipe: Mapping[str, Any], real: RealData, mean: torch.Tensor, std: torch.Tensor, cache: Path, say: Say
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The recipe's teacher and its accuracies, from the cache or trained now."""
    wanted = {name: recipe[name] for name in ("version", "teacher", "validation")} | {"real": recipe["data"]["real"]}
    entry = cache / f"teacher-{content_hash(wanted)}"
    settings = recipe["teacher"]
    shape = real.train.images.shape
    model = make_teacher(
        settings["model"],
        width=settings["width"],
        norm=settings["norm"],
        channels=shape[1],
        classes=real.classes,
        image_size=shape[-1],
    )
    if not (entry / "about.json").exists():
        say(f"teacher {settings['model']} of width {settings['width']}: training {settings['train']['epochs']} epochs")
        train_teacher(real.train, model, **settings["train"], flips=real.flips, background=-mean / std)
        about = {
            "teacher_validation_accuracy": accuracy(model, real.validation.images, real.validation.labels),
            "teacher_test_accuracy": accuracy(model, real.test.images, real.test.labels),
        }
        with _new_entry(entry) as folder:
            torch.save(model.state_dict(), folder / "teacher.pt")
            (folder / "about.json").write_text(json.dumps(about))
        say(f"teacher: test accuracy {about['teacher_test_accuracy']:.4f}")
    model.load_state_dict(torch.load(entry / "teacher.pt", weights_only=True))
    return model.eval(), dict(json.loads((entry / "about.json").read_text()))


def _write_entry(entry: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    with _new_entry(entry) as folder:
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array)
        (folder / "about.json").write_text(json.dumps(about))


@contextmanager
def _new_entry(entry: Path) -> Iterator[Path]:
    """A folder that becomes the cache entry when the block ends well; nothing half-written is ever read."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", dir=entry.parent))
    try:
        yield folder
        if entry.exists():
            shutil.rmtree(entry)
        os.replace(folder, entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Prepare the recipes on standard input ({key: recipe}); what is known about each is the last line printed."""
    cache = Path(sys.argv[1])

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    torch.set_num_threads(os.cpu_count() or 1)
    try:
        about = {key: prepare(key, recipe, cache, say) for key, recipe in json.load(sys.stdin).items()}
    except ValueError as err:
        print(err, file=sys.stderr)
        return 2
    print(json.dumps(about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
