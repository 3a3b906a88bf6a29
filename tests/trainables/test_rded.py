"""RDED on digits: realistic, nested, stitched; and a sweep on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from orchestrator import RunOptions, Sweep
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from trainables.data.distilled import choose_random
from trainables.data.rded import make_rded, random_crops, stitch
from trainables.data.real import RealData, load_digits, normalise
from trainables.data.teacher import make_teacher
from trainables.evaluate import predict_logits
from trainables.networks import ModelShape


@pytest.fixture(scope="module")
def real() -> RealData:
    return normalise(load_digits(0.25))


@pytest.fixture(scope="module")
def teacher(prepared_cache: Path) -> nn.Module:
    model = make_teacher("convnet2", ModelShape(1, 10, 8), width=8, norm="batch")
    (path,) = prepared_cache.glob("teacher-*/teacher.pt")
    model.members[0].load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


SETTINGS = {"crops": 5, "factor": 1, "pool": 300, "classes": 10, "seed": 0}


def realism(images: torch.Tensor, labels: torch.Tensor, teacher: nn.Module) -> float:
    return float(F.cross_entropy(predict_logits(teacher, images), labels))


def test_crops_are_more_realistic_than_random_images_and_come_best_first(real: RealData, teacher: nn.Module) -> None:
    made = make_rded(real.train, teacher, ipc=10, **SETTINGS)
    assert made.images.shape == (100, 1, 8, 8)
    assert torch.bincount(made.labels).tolist() == [10] * 10
    random = choose_random(real.train, ipc=10, classes=10, seed=0)
    assert realism(made.images, made.labels, teacher) < realism(random.images, random.labels, teacher)
    loss = F.cross_entropy(predict_logits(teacher, made.images), made.labels, reduction="none").view(10, 10)
    assert (loss.diff(dim=1) >= -1e-5).all(), "of each class the most realistic comes first"


def test_more_crops_are_at_least_as_realistic(real: RealData, teacher: nn.Module) -> None:
    few, many = (make_rded(real.train, teacher, ipc=5, **{**SETTINGS, "crops": crops}) for crops in (1, 20))
    assert realism(many.images, many.labels, teacher) < realism(few.images, few.labels, teacher)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(real: RealData, teacher: nn.Module) -> None:
    three, ten = (make_rded(real.train, teacher, ipc=ipc, **SETTINGS) for ipc in (3, 10))
    assert torch.equal(three.images.view(10, 3, 1, 8, 8), ten.images.view(10, 10, 1, 8, 8)[:, :3])
    other = make_rded(real.train, teacher, ipc=3, **{**SETTINGS, "seed": 1})
    assert not torch.equal(three.images, other.images)


def test_a_mosaic_holds_four_crops(real: RealData, teacher: nn.Module) -> None:
    made = make_rded(real.train, teacher, ipc=5, **{**SETTINGS, "factor": 2})
    assert made.images.shape == (50, 1, 8, 8)
    patches = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 2, 2)
    first, second = stitch(patches, 2)
    assert first[0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    assert second.unique().tolist() == [4, 5, 6, 7]


def test_crops_lie_inside_the_image() -> None:
    """The image is its own x coordinate, so a crop's values say where it lies and how wide it is."""
    size = 64
    ramp = ((torch.arange(size) + 0.5) / size * 2 - 1).expand(200, 1, size, size)
    crops = random_crops(ramp, 16, torch.Generator().manual_seed(0))
    left, right = crops[:, 0, 0, 0], crops[:, 0, 0, -1]
    width = (right - left) / 2 * 16 / 15
    assert (left >= -1).all()
    assert (right <= 1).all()
    assert 0.08**0.5 - 0.02 <= float(width.min()) < 0.4
    assert 0.9 < float(width.max()) <= 1.02


def test_too_few_images_are_named(real: RealData, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"`ipc \* factor\^2` must be at most 8\d \(training images of class 0"):
        make_rded(real.train, teacher, ipc=30, **{**SETTINGS, "factor": 2})


def test_a_factor_must_divide_the_side(tiny: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data.distilled.factor: must divide the images' side of 8 pixels, got 3"):
        load_space(tiny, ["data.distilled.method=rded", "data.distilled.factor=3"])


@pytest.mark.slow
def test_the_space_runs_and_random_sets_keep_their_key(tiny: dict[str, Any], home: Path) -> None:
    plain = set(Sweep.from_space(tiny, home=home).plan.recipes)
    assert plain == set(Sweep.from_space(tiny, overrides=["data.distilled.crops=9"], home=home).plan.recipes)
    small = [f"{key}={value}" for key, value in {"fixed.epochs": 4, "fixed.views": 4, "replicates": 2}.items()]
    small += ["scientific.loss=[kl]", "scientific.temperature=[4]", "early_stopping=null", "teacher.train.epochs=4"]
    sweep = Sweep.from_space("digits-rded", overrides=small, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert (table.status == "finished").all()
    (about,) = sweep.facts["data"].values()
    assert about["teacher_distilled_accuracy"] > about["teacher_test_accuracy"]
