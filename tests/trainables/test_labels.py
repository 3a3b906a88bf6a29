"""The label bank, and where its labels come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from orchestrator import RunOptions, Sweep
from orchestrator.plan import Plan
from search_spaces import ConfigError, load_space
from tests.conftest import TINY, prepare_here
from trainables.arrays import load_arrays
from trainables.augment import COLUMNS, Augmentation, render
from trainables.config import ANGLE_LOSSES, LOGIT_LOSSES, TrialConfig
from trainables.data.labels import LabelBank, draw_views, label_view, with_pixels
from trainables.data.teacher import make_teacher, teacher_from_bytes
from trainables.evaluate import predict_logits
from trainables.losses import LOSSES, make_target
from trainables.networks import ModelShape
from trainables.prepare import prepare
from trainables.seeding import make_generator
from trainables.splits import Split
from trainables.trial import TrialData, train_student

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(6) % 3
BLANK = torch.zeros(3)


def make_bank(mix: str = "none", views: int = 3) -> LabelBank:
    teacher = make_teacher("convnet2", ModelShape(3, 3, 8), width=4, norm="batch").eval()
    parameters = draw_views(Augmentation("dsa", flips=True, mix=mix), 6, 8, views=views, seed=0)
    distilled = Split(IMAGES, LABELS)
    logits = torch.stack([label_view(distilled, view, BLANK, teacher) for view in parameters])
    return LabelBank(distilled, parameters, logits, BLANK)


def test_labels_of_a_view_are_the_teachers_logits_on_its_pixels() -> None:
    teacher = make_teacher("convnet2", ModelShape(3, 3, 8), width=4, norm="batch")
    distilled, views = Split(IMAGES, LABELS), draw_views(Augmentation("dsa", True), 6, 8, views=3, seed=0)
    for view in views:
        seen = render(distilled, view, torch.arange(6), BLANK)
        torch.testing.assert_close(label_view(distilled, view, BLANK, teacher), predict_logits(teacher, seen))
    assert teacher.training, "predicting restores the mode"


def test_a_view_depends_on_its_number_and_seed_alone() -> None:
    dsa = Augmentation("dsa", flips=True)
    few, many = (draw_views(dsa, 6, 8, views=v, seed=0) for v in (2, 5))
    assert torch.equal(few, many[:2])
    assert not torch.equal(many[0], many[1])
    assert not torch.equal(few, draw_views(dsa, 6, 8, views=2, seed=1))


@pytest.mark.parametrize("mix", ["none", "cutmix", "mixup"])
def test_kept_pixels_equal_pixels_made_in_each_epoch(mix: str) -> None:
    bank = make_bank(mix)
    kept = with_pixels(bank)
    assert kept.pixels is not None
    assert with_pixels(bank, below_bytes=1000).pixels is None
    order = torch.tensor([5, 0, 3, 1])
    for made, stored in zip(bank.images(1, order, 3), kept.images(1, order, 3), strict=True):
        torch.testing.assert_close(made, stored)


def test_mixed_views_have_mixed_hard_labels() -> None:
    order = torch.tensor([2, 1])
    assert torch.equal(make_bank().hard(0, order), LABELS[order])
    mixed = make_bank("mixup").hard(0, order)
    assert mixed.shape == (2, 3)
    torch.testing.assert_close(mixed.sum(1), torch.ones(2))


def test_images_that_a_view_lacks_are_left_out_of_its_epoch() -> None:
    present = torch.ones(3, 6, dtype=torch.bool)
    present[1, [0, 4]] = False
    bank = replace(make_bank(), present=present)
    assert sorted(bank.order(1, torch.Generator().manual_seed(0)).tolist()) == [1, 2, 3, 5]
    assert len(bank.order(0, torch.Generator().manual_seed(0))) == 6


def test_a_teacher_survives_its_journey_as_bytes() -> None:
    for norm in ("batch", "group"):
        teacher = make_teacher("convnet2", ModelShape(3, 3, 8), width=8, norm=norm).eval()
        again = teacher_from_bytes(teacher.to_bytes())
        assert torch.equal(predict_logits(teacher, IMAGES), predict_logits(again, IMAGES))


@pytest.fixture(scope="module")
def cache(prepared_cache: Path) -> Path:
    return prepared_cache


def trained(cache: Path, **changes: Any) -> tuple[list[float], TrialConfig]:
    """Validation accuracies of one trial of TINY with other settings."""
    space = load_space(TINY, [f"{key}={value}" for key, value in changes.items()])
    plan = Plan("tiny", space, "cpu")
    config = plan.trial(plan.cells[-1], 0, 1, "confirm")
    for key, recipe in plan.recipes.items():
        prepare(key, recipe, cache, lambda text: None)
    data = TrialData.from_arrays(load_arrays(config.data, cache), "cpu")
    return [point.val_accuracy for point in train_student(config, data)], config


def test_a_teacher_inside_the_trial_says_what_the_bank_says(cache: Path) -> None:
    """Logits of a batch differ from those of the whole view in the last digits only."""
    bank, _ = trained(cache)
    online, config = trained(cache, **{"fixed.labels": "online"})
    assert config.labels == "online"
    assert online == pytest.approx(bank, abs=0.02)


def test_hard_labels_are_the_smoothed_hard_labels_whatever_the_refinement(cache: Path) -> None:
    """Under hard labels kl at T = 1 is cross-entropy with smoothed labels, so refinement merges into one cell."""
    settings = ["fixed.labels=hard", "scientific.loss=[kl]", "scientific.refinement=[0,0.5]", "teacher=null"]
    plan = Plan("tiny", load_space(TINY, settings), "cpu")
    assert len(plan.cells) == 2, "one for each temperature"
    assert plan.cells[0].knobs["refinement"] == 1
    knobs = {"temperature": 1.0, "refinement": 1.0, "smoothing": 0.1, "scale_t2": False}
    target = torch.full((2, 3), 0.05)
    target[0, 1] = target[1, 2] = 0.9
    assert torch.allclose(make_target("kl", torch.zeros(2, 3), torch.tensor([1, 2]), knobs), target)
    direction = make_target("cosine", torch.zeros(2, 3), torch.tensor([1, 2]), knobs)
    torch.testing.assert_close(direction, F.normalize(target, dim=1))


def test_hard_labels_need_no_teacher(cache: Path) -> None:
    settings = {"fixed.labels": "hard", "scientific.loss": "[kl]", "scientific.temperature": "[1]"}
    values, _ = trained(
        cache, **settings, **{"teacher": "null", "nuisance": "null", "fixed.epochs": "40", "fixed.lr": "0.01"}
    )
    assert values[-1] > 0.25


@pytest.mark.slow
def test_label_sources_can_be_an_axis(home: Path, tiny: dict[str, Any]) -> None:
    tiny["scientific"] = {"loss": ["kl", "gift"], "labels": ["bank", "online", "hard"]}
    tiny["fixed"] |= {"epochs": 2}
    tiny["replicates"] = 1
    del tiny["nuisance"]
    sweep = Sweep.from_space(tiny, home=str(home))
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert set(table.labels) == {"bank", "online", "hard"}
    assert (table.status == "finished").all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["fixed.labels=stored"], "fixed.labels: stored, but the distilled set is made here"),
        (["teacher=null"], "teacher: missing; labels: bank are a teacher's"),
        (["fixed.labels=hard", "scientific.loss=[mse]"], "mse compares logits, which labels: hard do not have"),
        (["fixed.augment=color_jump"], "fixed.augment: must be one of dsa, rrc, none, color_crop"),
        (["fixed.mix=blend"], "fixed.mix"),
        (["data.distilled.pixel_space=zca"], "data.distilled.pixel_space: describes a file"),
    ],
)
def test_labels_and_views_that_cannot_be_are_refused(changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_space(TINY, changes)
    assert message in str(raised.value)


def test_names_of_losses_by_space_are_those_of_the_code() -> None:
    assert set(LOGIT_LOSSES) == {name for name, loss in LOSSES.items() if loss.space == "logit"}
    assert set(ANGLE_LOSSES) == {name for name, loss in LOSSES.items() if loss.space == "angle"}


def test_a_replicates_own_views_are_no_other_ones() -> None:
    dsa = Augmentation("dsa", flips=True)
    own = [draw_views(dsa, 6, 8, views=2, seed=0, replicate=r) for r in (None, 1, 2, -1)]
    assert len({tuple(views.flatten().tolist()) for views in own}) == 4


def orders_of(batch_size: int | None, n: int = 7, replicates: int = 40) -> tuple[LabelBank, list[list[int]]]:
    """A bank of one view, and the orders in which replicates go through it."""
    views = draw_views(Augmentation("dsa", flips=True, batch_size=batch_size), n, 8, views=1, seed=0)
    bank = LabelBank(Split(torch.rand(n, 3, 8, 8), torch.arange(n) % 3), views, torch.zeros(1, n, 3), BLANK)
    return bank, [bank.order(0, make_generator("test", r)).tolist() for r in range(replicates)]


def test_a_views_batches_stay_together_in_an_order_of_each_training_the_smaller_one_last() -> None:
    """7 images in batches of 3: two whole ones in either order, then the one that is left."""
    bank, orders = orders_of(3)
    number = bank.parameters[0][:, COLUMNS.index("batch")].long().tolist()
    batches = {tuple(number[i] for i in order) for order in orders}
    assert batches == {(0, 0, 0, 1, 1, 1, 2), (1, 1, 1, 0, 0, 0, 2)}
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 20


def test_drawn_per_image_any_images_come_together() -> None:
    assert len({frozenset(order[:3]) for order in orders_of(None)[1]}) > 20


def test_every_epoch_of_a_view_has_the_batches_that_its_operations_were_drawn_for() -> None:
    """A trial's steps see one batch of the view each, whatever the replicate."""
    bank, _ = orders_of(3)
    shown = with_pixels(bank)
    seen = []
    for replicate in range(5):
        order = bank.order(0, make_generator("other", replicate))
        seen.append({frozenset(part.tolist()) for part in order.split(3)})
        for one, other in zip(bank.images(0, order, 3), shown.images(0, order, 3), strict=True):
            torch.testing.assert_close(one, other)
    assert all(batches == seen[0] for batches in seen)


def test_the_fill_is_the_mean_colour_unless_black_is_asked_for(tiny: dict[str, Any], tmp_path: Path) -> None:
    backgrounds = {}
    for fill in ("mean", "black"):
        plan = Plan("tiny", load_space(tiny, [f"fixed.augment_fill={fill}", "fixed.labels=hard"]), "cpu")
        ((key, recipe),) = plan.recipes.items()
        prepare(key, recipe, tmp_path, lambda text: None)
        backgrounds[fill] = load_arrays(key, tmp_path)["bank_background"].tolist()
    assert backgrounds["mean"] == [0]
    assert backgrounds["black"][0] < -0.5, "0 of 16 levels, normalised"


@pytest.mark.slow
def test_a_sweep_with_views_of_each_replicate_labels_each_of_them_and_pairs_cells(
    home: Path, tiny: dict[str, Any]
) -> None:
    tiny["scientific"] = {"loss": ["kl", "mse"]}
    tiny["fixed"] |= {"epochs": 2, "view_draw": "replicate"}
    del tiny["nuisance"]
    sweep = Sweep.from_space(tiny, home=home)
    table = sweep.run(RunOptions(local=True, tracking_uri="off", force=True)).table
    assert (table.status == "finished").all()
    assert len(table) == 4
    banks = {
        r: load_arrays(sweep.plan.trial(sweep.plan.cells[0], 0, r, "confirm").data, sweep.home.cache) for r in (1, 2)
    }
    for name in ("bank_parameters", "bank_logits"):
        assert not (banks[1][name] == banks[2][name]).all()
    assert (banks[1]["distilled_images"] == banks[2]["distilled_images"]).all()
