"""What rows of soft labels are is decided where the numbers decide it, and asked for elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.trainables.formats import builders
from trainables.formats.inspect import inspect_path
from trainables.formats.kinds import as_kind, kind_of_rows, possible_kinds
from trainables.formats.read import read_distilled

LOGITS = 3 * torch.randn(200, 100, generator=torch.Generator().manual_seed(0))
PROBABILITIES = LOGITS.softmax(1)


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
    ],
)
def test_the_kind_of_rows_is_what_they_were_made_as(rows: Tensor, kind: str | None, said: str) -> None:
    found = kind_of_rows(rows)
    assert found.kind == kind
    assert said in found.remark


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
