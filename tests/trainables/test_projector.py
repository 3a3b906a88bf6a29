"""Projectors: what they can represent, what they cost, and that labels come from the numbers that are sent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from orchestrator import RunOptions, Sweep
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from trainables.arrays import load_arrays
from trainables.augment import Augmentation
from trainables.data.distilled import choose_random
from trainables.data.labels import LabelBank, draw_views
from trainables.data.projector import Projector, Trunk, fit, unexplained, without_head
from trainables.data.real import load_digits, normalise
from trainables.data.teacher import load_teacher
from trainables.networks import ModelShape, make_model
from trainables.prepare.projector import project_labels

C, D, N = 5, 12, 200
ONE, NOTHING = torch.ones(3), torch.zeros(3)


def pairs_of(teacher: nn.Module, shape: tuple[int, ...]) -> Any:
    """The same random images in every epoch, with a teacher's logits of them."""
    images = torch.randn(N, *shape, generator=torch.Generator().manual_seed(0))

    def pairs(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from ((part, teacher(part).detach()) for part in images.split(64))

    return pairs


def linear_teacher(rank: int = C) -> nn.Module:
    torch.manual_seed(1)
    head = nn.Linear(D, C)
    with torch.no_grad():
        head.weight.copy_(torch.randn(C, rank) @ torch.randn(rank, D))
    return nn.Sequential(nn.Flatten(), head)


def linear_projector(rank: int, text: Tensor | None = None) -> Projector:
    return Projector(Trunk(nn.Flatten(), scale=ONE, shift=NOTHING), D, C, rank=rank, text=text)


@pytest.mark.parametrize("text", [None, torch.randn(C, D, generator=torch.Generator().manual_seed(3))])
def test_a_projector_of_full_rank_recovers_the_labels_of_a_linear_teacher(text: Tensor | None) -> None:
    teacher = linear_teacher()
    pairs, projector = pairs_of(teacher, (3, 2, 2)), linear_projector(C, text)
    assert fit(projector, pairs, epochs=0, lr=1e-3) < 1e-9
    images = torch.randn(50, 3, 2, 2)
    torch.testing.assert_close(projector(images), teacher(images), rtol=1e-4, atol=1e-4)


def test_rank_r_recovers_a_teacher_of_rank_r_and_no_more() -> None:
    """The head's update has r (C + D) numbers, and leaves what the best approximation of rank r leaves."""
    exact = linear_projector(2)
    assert fit(exact, pairs_of(linear_teacher(2), (3, 2, 2)), epochs=0, lr=1e-3) < 1e-9
    assert sum(p.numel() for p in exact.fitted) == 2 * (C + D) + C
    pairs = pairs_of(linear_teacher(), (3, 2, 2))
    left = [fit(linear_projector(rank), pairs, epochs=0, lr=1e-3) for rank in (1, 2, 3, 5)]
    assert left == sorted(left, reverse=True)
    images, wanted = map(torch.cat, zip(*pairs(0), strict=True))
    t = (wanted - wanted.mean(dim=0)).double()
    f = images.flatten(1).double()
    f = f - f.mean(dim=0)
    values = torch.linalg.svdvals(f @ torch.linalg.lstsq(f, t).solution)
    best = [float((values[r:] ** 2).sum() / t.square().sum()) for r in (1, 2, 3)]
    assert left[:3] == pytest.approx(best, rel=1e-4)


def test_fitting_the_trunk_helps_and_never_hurts() -> None:
    torch.manual_seed(0)
    teacher = make_model("convnet2", ModelShape(1, C, 8), width=16, norm="instance").eval()

    def projector() -> Projector:
        torch.manual_seed(7)
        network = without_head(make_model("convnet2", ModelShape(1, C, 8), width=8, norm="instance"))
        return Projector(Trunk(network, scale=ONE[:1], shift=NOTHING[:1]), 32, C, rank=4)

    pairs = pairs_of(teacher, (1, 8, 8))
    head = fit(projector(), pairs, epochs=0, lr=1e-3)
    fitted = projector()
    assert fit(fitted, pairs, epochs=40, lr=3e-3) < 0.9 * head
    assert unexplained(fitted, pairs(0)) < 0.9 * head
    wild = projector()
    assert fit(wild, pairs, epochs=1, lr=100.0) == head, "a worse fit is thrown away"
    assert unexplained(wild, pairs(0)) == pytest.approx(head, rel=1e-6)


def test_what_is_sent_is_what_labels_are_made_of() -> None:
    """Rounding is in place, so labels are those of the numbers sent; another who has the trunk gets the same."""
    pairs = pairs_of(linear_teacher(), (3, 2, 2))
    projector, other = linear_projector(2), linear_projector(2)
    fit(projector, pairs, epochs=0, lr=1e-3)
    numbers = projector.round_(torch.float16, with_trunk=False)
    assert len(numbers) == 2 * (C + D) + C
    torch.nn.utils.vector_to_parameters(numbers.float(), other.fitted)
    images = torch.randn(5, 3, 2, 2)
    assert other(images).equal(projector(images))


def run(space: dict[str, Any], home: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Cache entry and facts of each variant."""
    sweep = Sweep.from_space(space, home=home)
    prepare_here(sweep.plan, sweep.home.cache)
    table = sweep.run(RunOptions(local=True, tracking_uri="off", force=True)).table
    assert set(table.status) == {"finished"}
    keys = {cell.context.get("variant"): sweep.plan.data_keys[cell.label] for cell in sweep.plan.cells}
    return {name: (sweep.home.cache / f"data-{key}", sweep.facts["data"][key]) for name, key in keys.items()}


@pytest.mark.slow
def test_label_bytes_are_the_bytes_on_disk(tiny: dict[str, Any], home: Path) -> None:
    """8 views of 40 images and 10 classes; 128 bytes are a file's header."""
    del tiny["nuisance"]
    tiny |= {"scientific": {"loss": ["kl"]}, "replicates": 1}
    tiny["variants"] = {
        "full": {"label_format": "float32"},
        "half": {"label_format": "float16"},
        "few": {"views": 2},
        "top": {"label_top_k": 3},
        "hard": {"labels": "hard"},
        "online": {"labels": "online"},
        "own": {"labels": "projector", "projector.epochs": 0},
        "random": {"labels": "projector", "projector.backbone": "convnet2", "projector": {"width": 8, "epochs": 1}},
    }
    del tiny["fixed"]["views"]
    found = run({**tiny, "fixed": {**tiny["fixed"], "epochs": 2}, "variants": with_views(tiny["variants"])}, home)
    files = {"own": ["projector"], "random": ["projector"], "online": ["teacher"], "top": ["bank_logits", "bank_kept"]}
    for name, (entry, about) in found.items():
        assert about["label_bytes"] == sum(
            (entry / f"{file}.npy").stat().st_size for file in files.get(name, ["bank_logits"] * (name != "hard"))
        )
    sizes = {name: about["label_bytes"] for name, (_, about) in found.items()}
    labels = 8 * 40 * 10
    assert (sizes["full"], sizes["half"], sizes["hard"]) == (4 * labels + 128, 2 * labels + 128, 0)
    assert (sizes["few"], sizes["top"]) == (2 * labels // 4 + 128, 8 * 40 * 3 * (2 + 1) + 256)
    layers = 4 * (1 * 9 + 8) + 4 * (8 * 9 + 8) + 4 * (32 + 10)
    assert sizes["random"] == 2 * (layers + 10) + 128, "rank 4, of two convolutions and the head, and the head's bias"
    assert sizes["own"] > sizes["online"] / 4, "nobody else has the teacher's trunk"
    assert found["own"][1]["projector_left"] < found["random"][1]["projector_left"]


def with_views(variants: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: {"views": 8} | keys for name, keys in variants.items()}


@pytest.mark.slow
def test_a_bank_of_the_largest_logits_gives_the_targets_of_truncation(tiny: dict[str, Any], home: Path) -> None:
    """A top-3 bank has exactly the three largest logits of the full one."""
    del tiny["nuisance"]
    tiny |= {"scientific": {"loss": ["kl"]}, "replicates": 1, "variants": {"all": {}, "top": {"label_top_k": 3}}}
    found = run(tiny, home)
    full, top = (load_arrays(found[name][0].name.removeprefix("data-"), home / "cache") for name in ("all", "top"))
    logits, kept = full["bank_logits"], top["bank_kept"].astype(int)
    assert kept.dtype.itemsize == 8
    assert top["bank_kept"].dtype == np.uint8
    assert np.array_equal(np.take_along_axis(logits, kept, axis=-1), top["bank_logits"])
    assert (np.sort(logits, axis=-1)[..., -3:] == np.sort(top["bank_logits"], axis=-1)).all()


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    """The weights of a tiny network of timm, as they are published."""
    torch.manual_seed(3)
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


def test_a_pretrained_backbone_is_loaded_whole_and_costs_nothing(
    pretrained: Path, tmp_path: Path, prepared_cache: Path
) -> None:
    """Texts as long as its features, or as its own head is wide (CLIP), are what the head is at first."""
    real = normalise(load_digits(0.25))
    (checkpoint,) = prepared_cache.glob("teacher-*/teacher.pt")
    teacher = load_teacher([checkpoint], real, name=None)
    distilled = choose_random(real.train, ipc=1, classes=10, seed=0)
    views = draw_views(Augmentation("none", flips=False), 10, 8, views=1, seed=0)
    bank = LabelBank(distilled, views, torch.zeros(1, 0, 10), real.background)

    def label(**projector: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        given = {"backbone": "timm/test_vit", "weights": {"path": str(pretrained)}, "image_size": 160}
        recipe = {"projector": {**given, "epochs": 0, "rank": 64, "lr": 1e-3, **projector}, "label_format": "float16"}
        return project_labels(recipe, real, teacher, bank, lambda text: None)

    arrays, about = label()
    assert about["trunk_is_sent"] is False
    assert arrays["bank_logits"].shape == (1, 10, 10)
    sizes = {}
    text = {"path": str(tmp_path / "text.npy")}
    for width in (64, 1000):
        np.save(tmp_path / "text.npy", np.random.default_rng(0).normal(size=(10, width)).astype(np.float32))
        sizes[width] = label(text=text, rank=1)[0]["projector"].size
    assert sizes[1000] - sizes[64] == (1000 - 64) + (64 + 1000), "a longer update of our head, and one of its own head"
    np.save(tmp_path / "text.npy", np.zeros((10, 7), dtype=np.float32))
    with pytest.raises(ValueError, match=r"projector.text: rows of 7 numbers, the backbone has 64 features"):
        label(text=text)
    torch.save({"cls_token": torch.zeros(1, 1, 64)}, pretrained)
    with pytest.raises(ValueError, match=r"vit.pth: projector.weights: not of timm/test_vit: .*Missing key"):
        label()


@pytest.mark.slow
def test_variants_that_come_to_the_same_are_trained_once_and_shown_under_both_names(
    tiny: dict[str, Any], home: Path
) -> None:
    """`ce` sees no labels, `again` changes nothing: 2 cells of ce, 3 of kl, of which 1 and 2 are different trainings."""
    tiny |= {"scientific": {"loss": ["ce", "kl"]}, "replicates": 1}
    tiny["variants"] = {"all": {}, "again": {"label_temperature": 1.0}, "top": {"label_swap": 2}}
    sweep = Sweep.from_space(tiny, home=home)
    assert sweep.plan.trial_counts == {"tune": 3 * 4, "confirm": 3}
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert set(table.status) == {"finished"}
    assert table.trial_id.nunique() == 3 * 4 + 3
    by_variant = table[table.stage == "confirm"].pivot_table(index="variant", columns="arms", values="test_accuracy")
    assert by_variant.ce.nunique() == 1
    assert by_variant.kl["all"] == by_variant.kl["again"]
    assert len(by_variant) == 3


def test_a_swap_with_itself_is_no_cell_of_its_own(tiny: dict[str, Any], home: Path) -> None:
    tiny["scientific"] = {"loss": ["kl", {"swapped": {"loss": "kl", "label_swap": [2, 10]}}]}
    cells = {cell.label: cell.arms for cell in Sweep.from_space(tiny, home=home).plan.cells}
    assert cells == {
        "kl,temperature=1,refinement=0": ("kl", "swapped"),
        "kl,temperature=1,refinement=0,label_swap=2": ("swapped",),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"projector": {"rank": 0}}, "projector.rank: .*greater than or equal to 1"),
        ({"projector": {"weights": "w.pth"}}, "projector.weights: .*no such file"),
        ({"projector": {"text": "t.npy"}}, "projector.text: belongs to a backbone"),
        ({"teacher": None}, "teacher: missing; labels: projector are a teacher's"),
        ({"variants": {"a": {"labels": "bnak"}}}, "variants.a.labels: .*'projector'"),
        ({"variants": {"a": {"nothing": 1}}}, "variants.a.nothing: unknown"),
        ({"variants": {"a": {"epochs": 1}}}, "variants.a.epochs"),
        ({"variants": {1: {}}, "scientific": {"loss": ["kl"], "variant": [2]}}, "variants"),
        ({"variants": {"a": {"lr": 0.1}}}, "variants.a.lr: also given under nuisance; give it in one place"),
        ({"variants": {"a": {"temperature": 2}}}, "variants.a.temperature: also given under scientific"),
        (
            {"variants": {"a": {"label_swap": 2, "label_top_k": 3}}},
            "label_swap and label_top_k, which exclude each other",
        ),
        ({"variants": {"a": {"warmup_epochs": 8}}}, "warmup_epochs: must be less than epochs, got 8 of 8"),
        ({"variants": {"a": {"label_swap": 11}}}, "label_swap: must be at most C, the 10 classes, got 11"),
        ({"projector": {"image_size": 4}}, "projector.image_size: belongs to a backbone"),
        ({"teacher": None, "scientific": {"loss": ["kl"], "teacher.epoch": [1]}}, "teacher: give a model"),
        (
            {"variants": {"a": {}}, "scientific": {"loss": ["kl"], "variant": ["b"]}},
            "scientific.variant: unknown name 'b'",
        ),
    ],
)
def test_what_is_wrong_is_said_at_once(change: dict[str, Any], message: str, tiny: dict[str, Any]) -> None:
    tiny["fixed"]["labels"] = "projector"
    with pytest.raises(ConfigError, match=message):
        load_space({**tiny, **change})
