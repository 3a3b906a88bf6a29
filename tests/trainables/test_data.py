from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.plan import Plan
from search_spaces import load_space
from tests.conftest import TINY
from trainables.arrays import load_arrays
from trainables.augment import Augmentation, DsaParameters, apply_dsa, draw_dsa
from trainables.data.distilled import choose_random
from trainables.data.labels import build_label_bank, make_view
from trainables.data.real import load_real
from trainables.data.teacher import make_teacher
from trainables.evaluate import accuracy, predict_logits
from trainables.names import REAL_DATASETS
from trainables.networks import ModelShape
from trainables.prepare import prepare
from trainables.seeding import make_generator
from trainables.splits import Split


def neutral(n: int, **changed: float) -> DsaParameters:
    """Parameters that leave images as they are: cutout far outside, neutral colours."""
    values = {"shift_x": 0.0, "shift_y": 0.0, "scale_x": 1.0, "scale_y": 1.0, "angle": 0.0, "cut_x": 9.0, "cut_y": 9.0}
    values |= {"flip": 0.0, "brightness": 0.5, "saturation": 0.5, "contrast": 0.5, **changed}
    return DsaParameters(**{name: torch.full((n,), value) for name, value in values.items()})


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BLANK = torch.zeros(3)


def test_digits_are_split_once_and_stratified() -> None:
    real = load_real("digits", validation_frac=0.25)
    sizes = [len(split.labels) for split in (real.train, real.validation, real.test)]
    assert sizes == [898, 300, REAL_DATASETS["digits"]]
    assert sum(sizes) == 1797
    flat = torch.cat([s.images.flatten(1) for s in (real.train, real.validation, real.test)])
    assert len(flat.unique(dim=0)) == 1797, "no scan is in two splits"
    shares = torch.stack([torch.bincount(s.labels) / len(s.labels) for s in (real.train, real.validation, real.test)])
    assert (shares - 0.1).abs().max() < 0.01
    again = load_real("digits", validation_frac=0.25)
    assert torch.equal(real.test.images, again.test.images)
    assert 0 <= float(real.train.images.min()) < float(real.train.images.max()) == 1


def test_unknown_real_data_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown real data 'x'; valid: \['digits'\]"):
        load_real("x", validation_frac=0.2)


def test_random_distilled_sets_are_balanced_nested_and_seeded() -> None:
    train = load_real("digits", validation_frac=0.25).train
    ten = choose_random(train, ipc=10, classes=10, seed=0)
    assert torch.bincount(ten.labels).tolist() == [10] * 10
    three = choose_random(train, ipc=3, classes=10, seed=0)
    rows = {tuple(image.flatten().tolist()) for image in ten.images}
    assert all(tuple(image.flatten().tolist()) in rows for image in three.images)
    assert not torch.equal(ten.images, choose_random(train, ipc=10, classes=10, seed=1).images)


def test_more_images_than_a_class_has_raise() -> None:
    with pytest.raises(ValueError, match=r"`ipc` must be at most 8[0-9]"):
        choose_random(load_real("digits", validation_frac=0.25).train, ipc=500, classes=10, seed=0)


def test_neutral_augmentation_changes_nothing() -> None:
    torch.testing.assert_close(apply_dsa(IMAGES, neutral(4), flip=True, background=BLANK), IMAGES)


def test_flip_mirrors_only_where_allowed() -> None:
    flipped = apply_dsa(IMAGES, neutral(4, flip=1.0), flip=True, background=BLANK)
    torch.testing.assert_close(flipped, IMAGES.flip(-1))
    kept = apply_dsa(IMAGES, neutral(4, flip=1.0), flip=False, background=BLANK)
    torch.testing.assert_close(kept, IMAGES)


def test_shift_moves_pixels_and_fills_with_background() -> None:
    """A shift of 1/8 of 8 pixels moves by one pixel; what moves in is background."""
    moved = apply_dsa(IMAGES, neutral(4, shift_x=1 / 8), flip=False, background=BLANK + 7)
    torch.testing.assert_close(moved[..., :-1], IMAGES[..., 1:])
    torch.testing.assert_close(moved[..., -1], torch.full((4, 3, 8), 7.0))


def test_cutout_blanks_a_square_of_half_the_side() -> None:
    cut = apply_dsa(IMAGES, neutral(4, cut_x=0.5, cut_y=0.5), flip=False, background=BLANK - 1)
    assert (cut[:, :, 2:6, 2:6] == -1).all()
    assert (cut == -1).sum() == 4 * 3 * 16


def test_colour_changes_by_hand() -> None:
    """Brightness 0.9 adds 0.4; saturation 0 makes grey; contrast 0 halves the distance to the image mean."""
    bright = apply_dsa(IMAGES, neutral(4, brightness=0.9), flip=False, background=BLANK)
    torch.testing.assert_close(bright, IMAGES + 0.4)
    grey = apply_dsa(IMAGES, neutral(4, saturation=0.0), flip=False, background=BLANK)
    torch.testing.assert_close(grey, IMAGES.mean(1, keepdim=True).expand_as(IMAGES))
    mean = IMAGES.mean((1, 2, 3), keepdim=True)
    flat = apply_dsa(IMAGES, neutral(4, contrast=0.0), flip=False, background=BLANK)
    torch.testing.assert_close(flat, mean + (IMAGES - mean) / 2)


def test_each_image_gets_one_of_crop_scale_and_rotate() -> None:
    p = draw_dsa(300, make_generator("test", 0))
    kinds = torch.stack([(p.shift_x != 0) | (p.shift_y != 0), (p.scale_x != 1) | (p.scale_y != 1), p.angle != 0])
    assert (kinds.sum(0) == 1).all()
    assert (kinds.sum(1) > 60).all()
    assert p.angle.abs().max() <= math.radians(15)


def test_a_view_is_made_again_from_its_number() -> None:
    dsa = Augmentation("dsa", True, BLANK)
    view = make_view(IMAGES, 3, dsa)
    assert torch.equal(view, make_view(IMAGES, 3, dsa))
    assert not torch.equal(view, make_view(IMAGES, 4, dsa))
    assert torch.equal(make_view(IMAGES, 3, Augmentation("none", True, BLANK)), IMAGES)


def test_label_bank_holds_the_teachers_logits_on_every_view() -> None:
    teacher = make_teacher("convnet2", ModelShape(3, 5, 8), width=4, norm="batch")
    bank = build_label_bank(IMAGES, torch.arange(4), teacher, views=3, augmentation=Augmentation("dsa", True, BLANK))
    assert bank.images.shape == (3, 4, 3, 8, 8)
    for view in range(3):
        torch.testing.assert_close(bank.logits[view], predict_logits(teacher, bank.images[view]))
    assert teacher.training, "predicting restores the mode"


def test_accuracy_is_the_share_of_hits() -> None:
    """Logits are the images themselves: argmax 1, 0; labels 1, 1; one of two."""
    model = torch.nn.Flatten()
    images = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(2, 1, 1, 2)
    assert accuracy(model, Split(images, torch.tensor([1, 1]))) == 0.5


def test_prepared_data_are_cached_and_mapped(prepared_cache: Path) -> None:
    plan = Plan("tiny", load_space(TINY), "cpu")
    ((key, recipe),) = plan.recipes.items()
    told: list[str] = []
    about = prepare(key, recipe, prepared_cache, told.append)
    assert told == [], "nothing is made twice"
    assert (about["n_distilled"], about["n_test"], about["classes"]) == (40, 599, 10)
    arrays = load_arrays(key, prepared_cache)
    assert all(isinstance(array, np.memmap) for array in arrays.values())
    assert arrays["bank_logits"].shape == (8, 40, 10)


def test_data_of_the_same_teacher_share_it(prepared_cache: Path) -> None:
    plan = Plan("tiny", load_space(TINY, ["data.distilled.ipc=2"]), "cpu")
    ((key, recipe),) = plan.recipes.items()
    told: list[str] = []
    prepare(key, recipe, prepared_cache, told.append)
    assert len(told) == 1
    assert told[0].startswith("label bank")


def test_a_recipe_that_cannot_be_followed_is_status_2(tmp_path: Path) -> None:
    plan = Plan("tiny", load_space(TINY, ["data.distilled.ipc=500", "teacher.train.epochs=1"]), "cpu")
    command = [sys.executable, "-m", "trainables.prepare", str(tmp_path)]
    done = subprocess.run(command, input=json.dumps(plan.recipes), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "`ipc` must be at most" in done.stdout
    assert not list(tmp_path.glob("data-*")), "nothing half-written is left"


@pytest.mark.slow
def test_the_digits_teacher_reaches_98_percent(tmp_path: Path) -> None:
    ((key, recipe),) = Plan("digits", load_space("digits"), "cpu").recipes.items()
    assert prepare(key, recipe, tmp_path, lambda text: None)["teacher_test_accuracy"] >= 0.98
