"""Teachers are shown the pixels, and given the operations, that they were trained with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainables.augment import Augmentation
from trainables.data.real import RealData, load_digits, normalise
from trainables.data.teacher import teacher_from_bytes, train_teacher
from trainables.data.whitening import whitened
from trainables.evaluate import accuracy, predict_logits
from trainables.networks import ConvNet, ModelShape
from trainables.prepare.teacher import load_or_train_teacher, require_readable
from trainables.seeding import seeded_globals
from trainables.splits import Split

SHAPE = ModelShape(1, 10, 8)


@pytest.fixture(scope="module")
def real() -> RealData:
    """The digits as bytes, normalised, so that they can be whitened too."""
    digits = load_digits(0.25)

    def as_bytes(split: Split) -> Split:
        return Split((split.images * 255).round().to(torch.uint8), split.labels)

    parts = {part: as_bytes(getattr(digits, part)) for part in ("train", "validation", "test")}
    return normalise(replace(digits, **parts))


def as_prepared(real: RealData, folder: Path) -> RealData:
    """Whitened from bytes that nobody normalised, as data are prepared."""
    parts = {part: replace(getattr(real, part), mean=None, std=None) for part in ("train", "validation", "test")}
    zeros = torch.zeros(1)
    return whitened(replace(real, **parts, mean=zeros, std=zeros + 1), folder / "whitening")


def trained(real: RealData, **operations: Any) -> nn.Module:
    """A network that knows the digits as they are in `real`."""
    with seeded_globals("reading", 0):
        network = ConvNet(SHAPE, depth=2, width=16, **{"norm": "batch", **operations})
    return train_teacher(
        real.train, network, Augmentation("none", False), real.background, epochs=6, lr=1e-2, batch_size=32
    )


def load(network: nn.Module, real: RealData, folder: Path, *, extra: Any = None, **stated: Any) -> Any:
    """(Teacher, what is known of it, what was said) of a network saved as a file."""
    path, said = folder / "net.pt", []
    torch.save({"state_dict": network.state_dict(), **(extra or {})}, path)
    recipe = {"teacher": {"weights": [{"path": str(path)}], **stated}, "data": {"real": "x"}, "validation": {}}
    recipe["versions"] = {"real": 1}
    teacher, about = load_or_train_teacher(recipe, real, folder, said.append)
    return teacher, about, " ".join(said)


@pytest.mark.parametrize(
    "operations",
    [{}, {"pooling": "max"}, {"activation": "sigmoid"}, {"norm": "group"}, {"pooling": "max", "norm": "instance"}],
)
def test_a_checkpoint_is_given_the_operations_that_it_was_trained_with(
    operations: dict[str, str], real: RealData, tmp_path: Path
) -> None:
    network = trained(real, **operations)
    teacher, about, said = load(network, real, tmp_path)
    images = real.test.batch(slice(0, 50))
    torch.testing.assert_close(predict_logits(teacher, images), predict_logits(network, images), rtol=1e-4, atol=1e-4)
    (reading,) = about.readings
    assert operations.items() <= reading.chosen.operations.items()
    assert all(value in said for value in operations.values())
    again = teacher_from_bytes(teacher.to_bytes())
    assert predict_logits(again, images).equal(predict_logits(teacher, images))


def test_stated_operations_are_taken_and_their_cost_is_known(real: RealData, tmp_path: Path) -> None:
    network = trained(real, pooling="max")
    teacher, about, _ = load(network, real, tmp_path, pooling="avg")
    (reading,) = about.readings
    assert reading.chosen.operations["pooling"] == "avg"
    assert reading.best.operations["pooling"] == "max"
    assert reading.is_far
    assert accuracy(teacher, real.test) < accuracy(network, real.test) - 0.05


def test_a_plain_teacher_is_shown_plain_pixels_though_students_see_whitened_ones(
    real: RealData, tmp_path: Path
) -> None:
    network = trained(real)
    white = as_prepared(real, tmp_path)
    teacher, about, said = load(network, white, tmp_path)
    plain, seen = real.test.batch(slice(0, 50)), white.test.batch(slice(0, 50))
    torch.testing.assert_close(predict_logits(teacher, seen), predict_logits(network, plain), rtol=1e-2, atol=1e-2)
    assert "own mean and std" in said
    assert about.facts["teacher_test_accuracy"] == pytest.approx(accuracy(network, real.test), abs=0.01)
    assert accuracy(network, white.test) < accuracy(network, real.test) - 0.05
    again = teacher_from_bytes(teacher.to_bytes(), teacher.linear.numpy())
    assert predict_logits(again, seen).equal(predict_logits(teacher, seen))


def test_a_teacher_trained_on_whitened_pixels_keeps_to_them(real: RealData, tmp_path: Path) -> None:
    white = as_prepared(real, tmp_path)
    network = trained(white)
    teacher, about, _ = load(network, white, tmp_path)
    assert about.readings[0].chosen.pixels == "whitened (zca)"
    assert teacher.linear is None
    stated, known, _ = load(network, real, tmp_path, pixel_space="zca")
    assert known.facts["teacher_test_accuracy"] == pytest.approx(accuracy(network, white.test), abs=0.01)
    assert stated.linear is not None


def test_constants_of_a_teacher_are_taken_under_whitening_too(real: RealData, tmp_path: Path) -> None:
    raw = replace(real, mean=torch.zeros(1), std=torch.ones(1))
    parts = {p: replace(getattr(real, p), mean=raw.mean, std=raw.std) for p in ("train", "validation", "test")}
    network = trained(replace(raw, **parts))
    white = as_prepared(real, tmp_path)
    _, about, _ = load(network, white, tmp_path, mean=[0.0], std=[1.0])
    expected = accuracy(network, replace(raw, **parts).test)
    assert about.facts["teacher_test_accuracy"] == pytest.approx(expected, abs=0.01)


def test_a_stated_accuracy_is_kept(real: RealData, tmp_path: Path) -> None:
    _, about, _ = load(trained(real), real, tmp_path, extra={"acc": 99.0})
    assert about.readings[0].stated_accuracy == pytest.approx(0.99)


def test_checkpoints_are_opened_before_anything_else(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="save the weights"):
        require_readable({"teacher": {"weights": [{"path": str(tmp_path / "whole.pt")}]}})
    require_readable({"teacher": None})
    require_readable({"teacher": {"model": "convnet2"}})
