"""The teacher of a recipe: from checkpoints, or trained on the spot and kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trainables.arrays import is_intact, new_entry
from trainables.augment import Augmentation
from trainables.config import data_key
from trainables.data.real import RealData
from trainables.data.teacher import Teacher, load_teacher, make_teacher, train_teacher
from trainables.evaluate import accuracy
from trainables.names import STUDENTS
from trainables.networks import ModelShape
from trainables.prepare.real import Say


def load_or_train_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[Teacher | None, dict[str, Any]]:
    """The recipe's teacher, from checkpoints, from the cache or trained now, and its accuracies; None where it has none."""
    wanted = recipe["teacher"]
    if wanted is None:
        return None, {}
    if "weights" not in wanted:
        return _trained_teacher(recipe, real, cache, say)
    name = None if wanted.get("model") in STUDENTS else wanted.get("model")
    constants = {key: wanted[key] for key in ("mean", "std") if key in wanted}
    if constants and real.test.whitening is not None:
        raise ValueError("teacher.mean: with pixel_space zca a teacher sees whitened pixels; leave mean and std out.")
    paths = [Path(file["path"]).expanduser() for file in wanted["weights"]]
    say(f"teacher from {', '.join(map(str, paths))}")
    teacher = load_teacher(paths, real, name=name, **constants).to(device())
    return teacher, _accuracies(teacher, real)


def device() -> str:
    """Where teachers are trained and asked."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accuracies(teacher: Teacher, real: RealData) -> dict[str, Any]:
    return {
        "teacher_validation_accuracy": accuracy(teacher, real.validation),
        "teacher_test_accuracy": accuracy(teacher, real.test),
    }


def _trained_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[Teacher, dict[str, Any]]:
    wanted = {name: recipe[name] for name in ("version", "teacher", "validation")}
    wanted |= {key: value for key, value in recipe["data"].items() if key != "distilled"}
    wanted["whitened"] = real.test.whitening is not None
    entry = cache / f"teacher-{data_key(wanted)}"
    settings, training = recipe["teacher"], recipe["teacher"]["train"]
    if not len(real.train):
        raise ValueError("teacher: there are no real training images (train/) to train it on; give weights.")
    shape = ModelShape(real.train.images.shape[1], real.classes, real.size)
    teacher = make_teacher(settings["model"], shape, width=settings["width"], norm=settings["norm"])
    teacher = teacher.to(device())
    if not is_intact(entry):
        say(f"teacher {settings['model']} of width {settings['width']}: training {training['epochs']} epochs")
        train_teacher(real.train, teacher, Augmentation("dsa", real.flips), real.background, say=say, **training)
        about = _accuracies(teacher, real)
        with new_entry(entry) as folder:
            torch.save(teacher.members[0].state_dict(), folder / "teacher.pt")
            (folder / "about.json").write_text(json.dumps(about))
        say(f"teacher: test accuracy {about['teacher_test_accuracy']:.4f}")
    teacher.members[0].load_state_dict(torch.load(entry / "teacher.pt", map_location="cpu", weights_only=True))
    return teacher.eval(), dict(json.loads((entry / "about.json").read_text()))
