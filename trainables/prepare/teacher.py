"""The teacher of a recipe: from checkpoints, or trained on the spot and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from trainables.arrays import is_intact, new_entry
from trainables.augment import Augmentation
from trainables.config import data_key
from trainables.data.reading import Judge, Option, read_as
from trainables.data.real import RealData
from trainables.data.spaces import COMMON, PixelSpace, linear_map, possible_spaces, view_of
from trainables.data.teacher import Member, Teacher, make_teacher, train_teacher
from trainables.data.whitening import whitened
from trainables.evaluate import accuracy, confusion
from trainables.findings import Reading
from trainables.models import Checkpoint, network_from, operations_of, read_checkpoint, recognise, unknown_keys
from trainables.names import CONVNETS, STUDENTS
from trainables.networks import ModelShape
from trainables.prepare.real import Say, whitening_entry

#: Of images that have not been looked at.
USUAL_CHANNELS: Final = 3


@dataclass(frozen=True, slots=True)
class AboutTeacher:
    """What is known of a teacher.

    Attributes:
        facts: Its accuracies, for the entry.
        readings: How each of its checkpoints was read.
        confusion: (C, C) validation images by label and by what it says; None without a teacher.
    """

    facts: dict[str, Any]
    readings: tuple[Reading, ...] = ()
    confusion: np.ndarray | None = None


def require_readable(
    recipe: Mapping[str, Any], shape_of: Callable[[int], ModelShape | None] = lambda channels: None
) -> None:
    """Open the teacher's checkpoints, so that what cannot be read is found before anything is decoded.

    Args:
        recipe: Its `teacher`.
        shape_of: What a network with so many channels must fit; None: not known yet, nor looked at.

    Raises:
        ValueError: If one is missing, damaged, refused, of a network that is not recognised, or does not fit.
    """
    wanted = recipe["teacher"] or {}
    for path in _paths(wanted):
        weights, name = _read(wanted, path).weights, _name(wanted)
        found = None if name else recognise(weights)
        if name is None and found is None:
            raise ValueError(f"{path}: architecture not recognised: {unknown_keys(weights)}; give teacher.model.")
        if (shape := shape_of(found.channels if found else USUAL_CHANNELS)) is not None:
            stated = _stated_operations(wanted)
            kinds = [kind for kind in operations_of(weights, name) if stated.items() <= kind.items()] or [stated]
            network_from(weights, shape, name=name, source=str(path), operations=kinds[0])


def load_or_train_teacher(
    recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say
) -> tuple[Teacher | None, AboutTeacher]:
    """The recipe's teacher, from checkpoints, from the cache or trained now, and what is known of it; None where it has none."""
    wanted = recipe["teacher"]
    if wanted is None:
        return None, AboutTeacher({})
    if "weights" not in wanted:
        return _trained_teacher(recipe, real, cache, say)
    paths = _paths(wanted)
    at = {key: wanted[key] for key in ("expert", "epoch") if key in wanted}
    say(f"teacher from {', '.join(map(str, paths))}" + "".join(f", {key} {value}" for key, value in at.items()))
    chosen, every = possible_spaces(
        real, stated=wanted.get("pixel_space"), mean=wanted.get("mean"), std=wanted.get("std")
    )
    needs_map = real.test.whitening is not None or wanted.get("pixel_space") == "zca"
    linear = linear_map(real, _fitted_whitening(recipe, real, cache)) if needs_map else None
    found = [_read_member(wanted, path, real, spaces=(chosen, every), linear=linear) for path in paths]
    for _, reading in found:
        say(f"teacher {reading.source}: {describe_reading(reading)}")
    shape = ModelShape(real.test.images.shape[1], real.classes, real.size)
    teacher = Teacher([member for member, _ in found], shape, linear).eval().to(device())
    counts = confusion(teacher, real.validation, real.classes)
    facts = _accuracies(teacher, real, counts) | _epoch_of(wanted)
    return teacher, AboutTeacher(facts, tuple(reading for _, reading in found), counts)


def _paths(wanted: Mapping[str, Any]) -> list[Path]:
    return [Path(file["path"]).expanduser() for file in wanted.get("weights", ())]


def _name(wanted: Mapping[str, Any]) -> str | None:
    """Of a network whose keys do not tell it."""
    return None if wanted.get("model") in STUDENTS else wanted.get("model")


def _stated_operations(wanted: Mapping[str, Any]) -> dict[str, str]:
    return {key: wanted[key] for key in ("pooling", "activation", "norm") if key in wanted}


def _read(wanted: Mapping[str, Any], path: Path) -> Checkpoint:
    return read_checkpoint(path, expert=wanted.get("expert"), epoch=wanted.get("epoch"))


def _fitted_whitening(recipe: Mapping[str, Any], real: RealData, cache: Path) -> Tensor | None:
    """The whitening that a stated pixel_space: zca asks for, where the real data are not whitened."""
    if real.test.whitening is not None:
        return real.test.whitening
    return whitened(real, whitening_entry(recipe, cache)).test.whitening


def _read_member(
    wanted: Mapping[str, Any],
    path: Path,
    real: RealData,
    *,
    spaces: tuple[Sequence[PixelSpace], Sequence[PixelSpace]],
    linear: Tensor | None,
) -> tuple[Member, Reading]:
    """A network from a checkpoint as it classifies real images best; what was stated about it is kept to."""
    name, checkpoint = _name(wanted), _read(wanted, path)
    shape = ModelShape(real.test.images.shape[1], real.classes, real.size)

    def build(operations: Mapping[str, str]) -> nn.Module:
        network = network_from(checkpoint.weights, shape, name=name, source=str(path), operations=operations)
        return network.to(device())

    stated = _stated_operations(wanted)
    kinds = operations_of(checkpoint.weights, name)
    if not any(stated.items() <= kind.items() for kind in kinds):
        build(stated)  # says so, if it cannot be
        kinds = [*kinds, {**kinds[0], **stated}]
    chosen, every = spaces
    options = [
        Option(
            space,
            kind,
            is_allowed=any(space is one for one in chosen) and stated.items() <= kind.items(),
            is_common=space.name in COMMON.get(shape.channels, {}) and len(chosen) > 1,
        )
        for space in every
        for kind in kinds
    ]
    judge = Judge(build, real, linear)
    option, reading = read_as(
        judge, options, source=str(path), classes=real.classes, stated_accuracy=checkpoint.accuracy
    )
    network = judge.network(option.operations)
    return Member(network, view_of(option.space, real), name, operations=option.operations), reading


def describe_reading(reading: Reading) -> str:
    """How a checkpoint was read, in a sentence."""
    share = f"{reading.chosen.accuracy:.1%} of {reading.images} {reading.split} images"
    text = f"taken with {reading.chosen.words()} ({share})"
    if reading.chosen != reading.default:
        return f"{text}, instead of {reading.default.words()} ({reading.default.accuracy:.1%})"
    return text


def device() -> str:
    """Where teachers are trained and asked."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _accuracies(teacher: Teacher, real: RealData, counts: np.ndarray) -> dict[str, Any]:
    """On validation, from its (C, C) counts, and on test images."""
    return {
        "teacher_validation_accuracy": int(np.trace(counts)) / int(counts.sum()),
        "teacher_test_accuracy": accuracy(teacher, real.test),
    }


def _epoch_of(wanted: Mapping[str, Any]) -> dict[str, int]:
    """Which of a training's checkpoints it is, where that was asked for."""
    epoch = wanted.get("epoch", wanted.get("file_of_epoch"))
    return {} if epoch is None else {"teacher_epoch": epoch}


def _trained_teacher(recipe: Mapping[str, Any], real: RealData, cache: Path, say: Say) -> tuple[Teacher, AboutTeacher]:
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
    operations = {key: settings[key] for key in ("pooling", "activation") if key in settings}
    teacher = make_teacher(settings["model"], shape, width=settings["width"], norm=settings["norm"], **operations)
    teacher = teacher.to(device())
    if not is_intact(entry):
        wide = f" of width {settings['width']}" if settings["model"] in CONVNETS else ""
        say(f"teacher {settings['model']}{wide}: training {training['epochs']} epochs")
        augmentation = Augmentation("dsa", real.flips)
        mean_colour = torch.zeros_like(real.background)
        train = partial(train_teacher, real.train, teacher, augmentation, mean_colour, say=say, **training)
        facts = _train(train, teacher, real, entry, keeps_all=epoch is not None)
        say(f"teacher: test accuracy {facts['teacher_test_accuracy']:.4f}")
    name = "teacher.pt" if epoch is None else f"teacher-{epoch}.pt"
    teacher.members[0].load_state_dict(torch.load(entry / name, map_location="cpu", weights_only=True))
    teacher.eval()
    if epoch is None and (entry / "confusion.npy").exists():
        facts, counts = dict(json.loads((entry / "about.json").read_text())), np.load(entry / "confusion.npy")
        return teacher, AboutTeacher(facts, confusion=counts)
    counts = confusion(teacher, real.validation, real.classes)
    return teacher, AboutTeacher(_accuracies(teacher, real, counts) | _epoch_of(recipe["teacher"]), confusion=counts)


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
        counts = confusion(teacher, real.validation, real.classes)
        np.save(folder / "confusion.npy", counts)
        facts = _accuracies(teacher, real, counts)
        (folder / "about.json").write_text(json.dumps(facts))
    return facts
