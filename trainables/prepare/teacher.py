"""The teacher of a recipe: from checkpoints, or trained on the spot and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
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
    at = {key: wanted[key] for key in ("expert", "epoch") if key in wanted}
    say(f"teacher from {', '.join(map(str, paths))}" + "".join(f", {key} {value}" for key, value in at.items()))
    teacher = load_teacher(paths, real, name=name, **at, **constants).to(device())
    return teacher, _accuracies(teacher, real) | _epoch_of(wanted)


def device() -> str:
    """Where teachers are trained and asked."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accuracies(teacher: Teacher, real: RealData) -> dict[str, Any]:
    return {
        "teacher_validation_accuracy": accuracy(teacher, real.validation),
        "teacher_test_accuracy": accuracy(teacher, real.test),
    }


def _epoch_of(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Which of a training's checkpoints it is, where that was asked for."""
    epoch = wanted.get("epoch", wanted.get("file_of_epoch"))
    return {} if epoch is None else {"teacher_epoch": epoch}


def _trained_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[Teacher, dict[str, Any]]:
    """A teacher after its last epoch, or as it was after `epoch` of them (its checkpoints are then all kept)."""
    settings = {key: value for key, value in recipe["teacher"].items() if key != "epoch"}
    epoch, training = recipe["teacher"].get("epoch"), settings["train"]
    parts = ("real", "augmentation", "teachers", "networks")
    wanted: dict[str, Any] = {"versions": [recipe["versions"][part] for part in parts]}
    wanted |= {"teacher": settings, "validation": recipe["validation"]}
    wanted |= {key: value for key, value in recipe["data"].items() if key != "distilled"}
    wanted["whitened"] = real.test.whitening is not None
    entry = cache / f"teacher-{data_key(wanted | ({'checkpoints': 'all'} if epoch is not None else {}))}"
    if not len(real.train):
        raise ValueError("teacher: there are no real training images (train/) to train it on; give weights.")
    shape = ModelShape(real.train.images.shape[1], real.classes, real.size)
    teacher = make_teacher(settings["model"], shape, width=settings["width"], norm=settings["norm"])
    teacher = teacher.to(device())
    if not is_intact(entry):
        say(f"teacher {settings['model']} of width {settings['width']}: training {training['epochs']} epochs")
        augmentation = Augmentation("dsa", real.flips)
        mean_colour = torch.zeros_like(real.background)
        train = partial(train_teacher, real.train, teacher, augmentation, mean_colour, say=say, **training)
        about = _train(train, teacher, real, entry, keeps_all=epoch is not None)
        say(f"teacher: test accuracy {about['teacher_test_accuracy']:.4f}")
    name = "teacher.pt" if epoch is None else f"teacher-{epoch}.pt"
    teacher.members[0].load_state_dict(torch.load(entry / name, map_location="cpu", weights_only=True))
    teacher.eval()
    if epoch is not None:
        return teacher, _accuracies(teacher, real) | _epoch_of(recipe["teacher"])
    return teacher, dict(json.loads((entry / "about.json").read_text()))


def _train(
    train: Callable[..., Any], teacher: Teacher, real: RealData, entry: Path, *, keeps_all: bool
) -> dict[str, Any]:
    """Train a teacher and keep it, or it after every epoch; its accuracies."""
    network = teacher.members[0]
    with new_entry(entry) as folder:

        def keep(epochs: int) -> None:
            torch.save(network.state_dict(), folder / f"teacher-{epochs}.pt")

        train(**({"after_epoch": keep} if keeps_all else {}))
        if not keeps_all:
            torch.save(network.state_dict(), folder / "teacher.pt")
        about = _accuracies(teacher, real)
        (folder / "about.json").write_text(json.dumps(about))
    return about
