"""Edits of labels: hand-made rows, and what changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainables.drafts import pack_logits
from trainables.edits import edit_logits, keep_largest, swap_with_smallest
from trainables.losses import loss_value

T = torch.tensor([[2.0, 5.0, -1.0, 3.0], [0.0, -4.0, 1.0, 7.0]])
ROWS = st.integers(2, 12).flatmap(lambda c: st.tuples(st.just(c), st.integers(0, 10_000)))


def test_swapping_by_hand() -> None:
    assert swap_with_smallest(T, 1).tolist() == [[2, -1, 5, 3], [0, 7, 1, -4]], "the largest"
    assert swap_with_smallest(T, 2).tolist() == [[2, 5, 3, -1], [0, 1, -4, 7]], "the second"


def test_keeping_by_hand() -> None:
    assert keep_largest(T, 2).softmax(dim=1).argmin(dim=1).tolist() == [0, 0]
    assert keep_largest(T, 2)[0].tolist() == [-math.inf, 5, -math.inf, 3]
    assert keep_largest(T, 1).softmax(dim=1).tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]], "the teacher's hard label"


@given(ROWS)
def test_all_classes_and_a_swap_with_itself_change_nothing(shape: tuple[int, int]) -> None:
    classes, seed = shape
    logits = torch.randn(3, classes, generator=torch.Generator().manual_seed(seed))
    for k in (0, classes):
        assert torch.equal(swap_with_smallest(logits, k), logits)
        assert torch.equal(keep_largest(logits, k), logits)
        packed, error = pack_logits(logits.numpy(), label_format="float32", top_k=k)
        assert packed.keys() == {"bank_logits"}
        assert error == 0
    assert torch.equal(edit_logits(logits, {"temperature": 4.0}), logits)


@given(ROWS, st.integers(1, 11))
def test_a_swap_keeps_the_values_and_is_undone_by_itself(shape: tuple[int, int], k: int) -> None:
    """Of distinct logits: the k-th largest lies where the smallest was, so swapping those two places again restores them."""
    classes, seed = shape
    logits = torch.randperm(classes, generator=torch.Generator().manual_seed(seed)).float()[None]
    swapped = swap_with_smallest(logits, min(k, classes))
    assert swapped.sort().values.equal(logits.sort().values)
    assert int((swapped != logits).sum()) == (0 if k >= classes else 2)
    assert swap_with_smallest(swapped, min(k, classes)).equal(logits)


def test_label_temperature_softens_the_labels_alone() -> None:
    """softmax(t / 2) against softmax(s): the cross-entropy of halved logits, and not that of temperature 2."""
    student, hard = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3])
    halved = loss_value("soft_ce", student, T / 2, hard)
    assert loss_value("soft_ce", student, T, hard, label_temperature=2.0).item() == pytest.approx(halved.item())
    assert loss_value("soft_ce", student, T, hard, temperature=2.0).item() != pytest.approx(halved.item(), rel=0.01)


def test_a_direction_has_no_label_temperature() -> None:
    student, hard = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 3])
    plain = loss_value("cosine", student, T, hard)
    assert loss_value("cosine", student, T, hard, label_temperature=2.0, label_top_k=1).item() == plain.item()
    assert loss_value("cosine", student, T, hard, label_swap=1).item() != pytest.approx(plain.item(), rel=0.01)


@pytest.mark.parametrize("knob", [{"label_swap": 5}, {"label_top_k": -1}, {"label_temperature": 0.0}])
def test_an_impossible_edit_is_refused(knob: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(knob))):
        loss_value("kl", T, T, torch.tensor([1, 3]), **knob)  # type: ignore[arg-type]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_ties_at_the_edge_are_cut_in_a_trial_as_in_a_bank(k: int) -> None:
    """Of equal logits the first classes stay, in both."""
    logits = torch.tensor([[1.0, 2.0, 2.0, 2.0, 0.0, 2.0], [0.0] * 6, [3.0, 1.0, 1.0, 1.0, 1.0, 3.0]])
    packed, _ = pack_logits(logits.numpy(), label_format="float32", top_k=k)
    kept = torch.zeros(3, 6, dtype=torch.bool).scatter(1, torch.from_numpy(packed["bank_kept"]).long(), True)
    assert torch.equal(keep_largest(logits, k).isfinite(), kept)
