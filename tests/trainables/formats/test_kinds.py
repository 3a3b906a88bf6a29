"""What rows of soft labels are is decided where the numbers decide it, and asked for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.trainables.formats import builders
from trainables.formats.inspect import inspect_path
from trainables.formats.kinds import as_kind, kind_of_rows, possible_kinds
from trainables.formats.read import read_distilled

LOGITS = 3 * torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
PROBABILITIES = LOGITS.softmax(1)

NOISE = torch.randn(100, 10, generator=torch.Generator().manual_seed(2))
ONE_HOT = torch.eye(10).repeat_interleave(10, 0)


def cut(rows: Tensor, k: int) -> Tensor:
    """The k largest of each row, the rest 0."""
    values, index = rows.topk(k, dim=1)
    return torch.zeros_like(rows).scatter(1, index, values)


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        (LOGITS, "logit", ""),
        (LOGITS.half(), "logit", ""),
        (LOGITS - LOGITS.mean(1, keepdim=True), "logit", ""),
        (LOGITS - 20, "logit", ""),
        (PROBABILITIES, "prob", ""),
        (PROBABILITIES.bfloat16(), "prob", "rounded"),
        (PROBABILITIES.half(), "prob", ""),
        ((100 * PROBABILITIES).round() / 100, "prob", "rounded"),
        (cut(PROBABILITIES, 5), "prob", "cut to the largest"),
        (PROBABILITIES.log(), "logprob", "logarithms"),
        (PROBABILITIES.log().bfloat16(), "logprob", "logarithms"),
        (torch.eye(10) - 0.1, "centred", "one-hot less 1 / C"),
        (torch.eye(10) - 0.1 + 0.01 * torch.randn(10, 10, generator=torch.Generator().manual_seed(1)), "centred", ""),
        (torch.eye(10), "prob", ""),
        (LOGITS.sigmoid(), None, "state label_kind"),
        (cut(PROBABILITIES, 5).clamp_min(1e-5).log(), None, "logprob or logit"),
        (ONE_HOT + 0.02 * NOISE, None, "as probabilities that were learned do"),
        (PROBABILITIES * 100, None, "every row sums to about 100"),
        (((4 * ONE_HOT + NOISE).softmax(1) * 255).round(), None, "every row sums to about 255"),
        (ONE_HOT - 0.1 + 0.1 * NOISE, None, "one-hot rows less 1 / C that were learned"),
        (2 * ONE_HOT - 1, None, "one large number per row"),
        ((torch.eye(100) - 0.01) / 10**0.5, None, "one large number per row"),
        (
            (torch.eye(100) - 0.01) / 10**0.5 + 0.02 * LOGITS[:100] / 3,
            None,
            "one-hot rows less 1 / C that were learned",
        ),
    ],
)
def test_the_kind_of_rows_is_what_they_were_made_as(rows: Tensor, kind: str | None, said: str) -> None:
    found = kind_of_rows(rows)
    assert found.kind == kind
    assert said in found.remark


@pytest.mark.parametrize("scale", [0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 3, 10])
@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_logits_of_no_scale_or_offset_are_asked_about(classes: int, scale: float) -> None:
    rows = scale * torch.randn(200, classes, generator=torch.Generator().manual_seed(3))
    for logits in (rows, rows - rows.mean(1, keepdim=True), rows + 5, rows - 20):
        assert kind_of_rows(logits).kind == "logit"


def test_learned_probabilities_are_asked_about_and_corrected_where_stated_with_the_largest_correction(
    tmp_path: Path,
) -> None:
    """A pair of .pt files, whose layout says nothing about the kind."""
    torch.save(builders.normalised(), tmp_path / "images_best.pt")
    rows = torch.eye(3).repeat_interleave(4, 0)
    rows[0] = torch.tensor([0.9, 0.1, -0.1])
    for whole, said in ((1, "the largest correction of a probability is 0.1"), (100, "their sum (about 100)")):
        stored = rows if whole == 1 else whole * rows.clamp_min(0)
        torch.save(stored, tmp_path / "labels_best.pt")
        assert "label_kind" in inspect_path(tmp_path)["asks"]
        with pytest.raises(ValueError, match=r"state label_kind: prob .* Soft labels are"):
            read(tmp_path, {"pixel_space": "zca"})
        found = read(tmp_path, {"pixel_space": "zca", "label_kind": "prob"})
        assert found.soft[0].tolist() == pytest.approx([0.9, 0.1, 0])
        assert said in " ".join(found.remarks)
        assert read(tmp_path, {"pixel_space": "zca", "label_kind": "logit"}).label_kind == "logit"


@pytest.mark.parametrize("each", [1, 4])
def test_classes_that_are_exchanged_in_a_file_have_the_labels_that_their_soft_labels_name(
    each: int, tmp_path: Path
) -> None:
    """Two of ten classes: 80 percent of the images agree with their positions, yet these two do not."""
    order = torch.tensor([0, 1, 2, 8, 4, 5, 6, 7, 3, 9]).repeat_interleave(each)
    rows = 12 * torch.eye(10)[order] + 0.1 * NOISE[: len(order)]
    pixels = torch.randn(len(order), 3, 8, 8, generator=torch.Generator().manual_seed(4))
    classes = tuple("abcdefghij")
    torch.save(pixels, tmp_path / "images_best.pt")
    torch.save(rows, tmp_path / "labels_best.pt")
    found = read_distilled(tmp_path, {"pixel_space": "zca"}, classes=classes, size=8)
    assert found.hard.tolist() == order.tolist()
    assert "class 3 (soft labels: 8), 8 (soft labels: 3)" in " ".join(found.remarks)
    by_position = read_distilled(tmp_path, {"pixel_space": "zca", "class_order": "index"}, classes=classes, size=8)
    assert by_position.hard.tolist() == sorted(order.tolist())
    (tmp_path / "images_best.pt").rename(tmp_path / "images.pt")
    (tmp_path / "labels_best.pt").rename(tmp_path / "labels.pt")
    with pytest.raises(ValueError, match=r"class 3 \(soft labels: 8\), 8 .*; state class_order: index"):
        read_distilled(tmp_path, {"pixel_space": "zca"}, classes=classes, size=8)


def test_one_drifted_image_of_a_class_that_has_one_leaves_positions_as_labels(tmp_path: Path) -> None:
    order = torch.tensor([0, 1, 2, 8, 4, 5, 6, 7, 8, 9])
    torch.save(torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(4)), tmp_path / "images_best.pt")
    torch.save(12 * torch.eye(10)[order] + 0.1 * NOISE[:10], tmp_path / "labels_best.pt")
    found = read_distilled(tmp_path, {"pixel_space": "zca"}, classes=tuple("abcdefghij"), size=8)
    assert found.hard.tolist() == list(range(10))


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool"])
def test_one_hot_rows_of_whole_numbers_are_hard_labels(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", (255 * builders.pixels()).to(torch.uint8).numpy())
    rows = torch.eye(3).repeat_interleave(4, 0).numpy().astype(kind)
    np.save(tmp_path / "labels.npy", rows)
    found = read(tmp_path, {})
    assert (found.label_kind, found.hard.tolist()) == ("hard", builders.hard().tolist())
    np.save(tmp_path / "labels.npy", rows + rows)
    if kind != "bool":
        with pytest.raises(ValueError, match="floats, or one-hot in whole numbers"):
            read(tmp_path, {})


def test_rounded_and_cut_probabilities_sum_to_1_afterwards_and_keep_their_order() -> None:
    for rows in (PROBABILITIES.bfloat16(), cut(PROBABILITIES, 5)):
        made = as_kind(rows, "prob")
        torch.testing.assert_close(made.sum(1), torch.ones(200))
        assert torch.equal(made.argmax(1), rows.float().argmax(1))
    torch.testing.assert_close(as_kind(PROBABILITIES.bfloat16(), "prob"), PROBABILITIES, atol=4e-3, rtol=1e-2)
    assert torch.equal(as_kind(LOGITS, "logit"), LOGITS)


def test_a_statement_that_the_numbers_contradict_is_impossible_and_others_are_not() -> None:
    possible = {kind for kind, why in possible_kinds(PROBABILITIES.bfloat16()).items() if not why}
    assert possible == {"prob", "hard"}
    assert {kind for kind, why in possible_kinds(LOGITS).items() if not why} == {"logit", "centred", "hard"}
    assert "logprob" in {kind for kind, why in possible_kinds(PROBABILITIES.log()).items() if not why}
    assert possible_kinds(LOGITS)["prob"].startswith("rows are negative or do not sum to 1")


def read(path: Path, given: dict[str, Any]) -> Any:
    return read_distilled(path, given, classes=("a", "b", "c"), size=builders.SIZE)


def test_soft_labels_of_an_interleaved_set_give_their_own_hard_labels(tmp_path: Path) -> None:
    """0 1 2 0 1 2 ...: positions would be wrong for two thirds of the images."""
    order = torch.arange(12).view(3, 4).T.flatten()
    torch.save(builders.normalised()[order], tmp_path / "images_best.pt")
    torch.save(builders.logits()[order], tmp_path / "labels_best.pt")
    found = read(tmp_path, {"pixel_space": "zca"})
    assert torch.equal(found.hard, builders.hard()[order])
    assert "hard labels are the largest entries of the soft labels" in " ".join(found.remarks)
    assert read(tmp_path, {"pixel_space": "zca", "class_order": "index"}).hard.tolist() == builders.hard().tolist()
    (tmp_path / "images_best.pt").rename(tmp_path / "images.pt")
    (tmp_path / "labels_best.pt").rename(tmp_path / "labels.pt")
    with pytest.raises(ValueError, match=r"dd-ranking counts positions as labels.*state class_order: index"):
        read(tmp_path, {"pixel_space": "zca"})
    assert any("state class_order: index" in problem for problem in inspect_path(tmp_path)["problems"])


def test_a_few_largest_entries_of_another_class_leave_positions_as_labels_and_are_said(tmp_path: Path) -> None:
    labels = builders.logits()
    labels[0] = torch.tensor([0.0, 0.0, 9.0])
    path = builders.datm(tmp_path, None)
    torch.save(labels, tmp_path / "labels_best.pt")
    found = read(path, {})
    assert found.hard.tolist() == builders.hard().tolist()
    assert "another class for 8% of the images" in " ".join(found.remarks)


def test_probabilities_in_few_bits_are_taken_and_renormalised_with_a_word(tmp_path: Path) -> None:
    path = builders.gift(tmp_path, None)
    rows = (builders.logits() / 3).softmax(1).bfloat16()
    torch.save({"dataset": "x", "data": builders.pixels(), "label": rows}, path)
    given = {"pixel_space": "raw01"}
    for stated in ({}, {"label_kind": "prob"}):
        found = read(path, given | stated)
        assert found.label_kind == "prob"
        torch.testing.assert_close(found.soft.sum(1), torch.ones(12))
    with pytest.raises(ValueError, match="label_kind: logit, but every row is a distribution; give prob or hard"):
        read(path, given | {"label_kind": "logit"})
