from __future__ import annotations

import json
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
from trainables.data.distilled import choose_random
from trainables.data.real import load_digits
from trainables.evaluate import accuracy
from trainables.names import REAL_DATASETS
from trainables.prepare import prepare
from trainables.splits import Split


def test_digits_are_split_once_and_stratified() -> None:
    real = load_digits(0.25)
    sizes = [len(split.labels) for split in (real.train, real.validation, real.test)]
    assert sizes == [898, 300, REAL_DATASETS["digits"]]
    assert sum(sizes) == 1797
    flat = torch.cat([s.images.flatten(1) for s in (real.train, real.validation, real.test)])
    assert len(flat.unique(dim=0)) == 1797, "no scan is in two splits"
    shares = torch.stack([torch.bincount(s.labels) / len(s.labels) for s in (real.train, real.validation, real.test)])
    assert (shares - 0.1).abs().max() < 0.01
    again = load_digits(0.25)
    assert torch.equal(real.test.images, again.test.images)
    assert 0 <= float(real.train.images.min()) < float(real.train.images.max()) == 1


def test_random_distilled_sets_are_balanced_nested_and_seeded() -> None:
    train = load_digits(0.25).train
    ten = choose_random(train, ipc=10, classes=10, seed=0)
    assert torch.bincount(ten.labels).tolist() == [10] * 10
    three = choose_random(train, ipc=3, classes=10, seed=0)
    rows = {tuple(image.flatten().tolist()) for image in ten.images}
    assert all(tuple(image.flatten().tolist()) in rows for image in three.images)
    assert not torch.equal(ten.images, choose_random(train, ipc=10, classes=10, seed=1).images)


def test_more_images_than_a_class_has_raise() -> None:
    with pytest.raises(ValueError, match=r"`ipc` must be at most 8[0-9]"):
        choose_random(load_digits(0.25).train, ipc=500, classes=10, seed=0)


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
    assert all(isinstance(array.base, np.memmap) for array in arrays.values())
    assert arrays["bank_logits"].shape == (8, 40, 10)


def test_data_of_the_same_teacher_share_it(prepared_cache: Path) -> None:
    plan = Plan("tiny", load_space(TINY, ["data.distilled.ipc=2"]), "cpu")
    ((key, recipe),) = plan.recipes.items()
    told: list[str] = []
    prepare(key, recipe, prepared_cache, told.append)
    assert len(told) == 1
    assert told[0].startswith("label bank")


@pytest.mark.slow
def test_a_recipe_that_cannot_be_followed_is_status_2(tmp_path: Path) -> None:
    """A space that asks for it would be refused before; a recipe may come from elsewhere."""
    recipes = Plan("tiny", load_space(TINY, ["teacher.train.epochs=1"]), "cpu").recipes
    for recipe in recipes.values():
        recipe["data"]["distilled"]["ipc"] = 500
    command = [sys.executable, "-m", "trainables.prepare", str(tmp_path)]
    done = subprocess.run(command, input=json.dumps(recipes), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "`ipc` must be at most" in done.stdout
    assert not list(tmp_path.glob("data-*")), "nothing half-written is left"


@pytest.mark.slow
def test_the_digits_teacher_reaches_98_percent(tmp_path: Path) -> None:
    ((key, recipe),) = Plan("digits", load_space("digits"), "cpu").recipes.items()
    assert prepare(key, recipe, tmp_path, lambda text: None)["teacher_test_accuracy"] >= 0.98
