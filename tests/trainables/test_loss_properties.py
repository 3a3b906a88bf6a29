"""What every loss promises, on random logits; and the newer losses by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from trainables.losses import LOSSES, loss_value

PROBABILITY = [name for name, loss in LOSSES.items() if loss.space == "probability"]
#: Losses that are 0 for a student that equals the teacher, at w = 0.
ZERO_AT_TEACHER = ["kl", "reverse_kl", "js", "dkd", "dist", "brier", "mse", "huber", "cosine"]
#: Losses that do not change when a constant is added to a row of student logits.
SHIFT_INVARIANT = ["ce", *PROBABILITY]


@st.composite
def problems(draw: st.DrawFn) -> dict[str, Any]:
    """Student, teacher, hard labels (indices or mixed) and knobs, in float64."""
    batch, classes = draw(st.integers(1, 5)), draw(st.integers(2, 6))
    scale = draw(st.sampled_from([0.1, 1.0, 5.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    student, teacher = (torch.randn(batch, classes, generator=generator, dtype=torch.float64) * scale for _ in range(2))
    hard = torch.randint(classes, (batch,), generator=generator)
    if draw(st.booleans()):
        shares = torch.rand(batch, 1, generator=generator, dtype=torch.float64)
        hard = shares * F.one_hot(hard, classes) + (1 - shares) * F.one_hot(hard.roll(1), classes)
    knobs = {
        "temperature": draw(st.sampled_from([0.5, 1.0, 4.0, 20.0])),
        "refinement": draw(st.sampled_from([0.0, 1 / 11, 0.5])),
        "smoothing": draw(st.sampled_from([0.0, 0.1])),
        "scale_t2": draw(st.booleans()),
    }
    return {"student": student, "teacher": teacher, "hard": hard, "knobs": knobs}


def value(name: str, student: Tensor, problem: dict[str, Any], **changes: Any) -> Tensor:
    return loss_value(name, student, problem["teacher"], problem["hard"], **{**problem["knobs"], **changes})


@pytest.mark.parametrize("name", LOSSES)
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_finite_and_differentiable_with_the_right_gradient(name: str, problem: dict[str, Any]) -> None:
    student = problem["student"].requires_grad_()
    assert value(name, student, problem).isfinite()
    assert torch.autograd.gradcheck(lambda s: value(name, s, problem), (student,), atol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e-30, 1e4])
def test_finite_for_extreme_logits_in_float32(name: str, size: float) -> None:
    student = (torch.tensor([[1.0, -1.0, 0.5], [0.0, 2.0, -2.0]]) * size).requires_grad_()
    loss = loss_value(name, student, torch.tensor([[-1.0, 1.0, 0.0], [3.0, 1.0, -1.0]]) * size, torch.tensor([0, 1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", ZERO_AT_TEACHER)
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_a_student_that_equals_the_teacher_is_a_minimum_of_zero(name: str, problem: dict[str, Any]) -> None:
    """`dist` also needs rows and columns that vary: a batch of one has constant columns, which correlate with nothing."""
    teacher = problem["teacher"].clone().requires_grad_()
    if name == "dist" and len(teacher) < 2:
        return
    loss = value(name, teacher, problem, refinement=0.0, scale_t2=False)
    assert abs(loss.item()) < 1e-9
    loss.backward()  # type: ignore[no-untyped-call]
    assert teacher.grad is not None
    assert teacher.grad.abs().max() < 1e-7
    assert value(name, problem["student"], problem, refinement=0.0) >= -1e-12


@pytest.mark.parametrize("name", SHIFT_INVARIANT)
@settings(max_examples=25, deadline=None)
@given(problem=problems(), shift=st.floats(-50, 50))
def test_a_constant_added_to_the_logits_changes_nothing(name: str, problem: dict[str, Any], shift: float) -> None:
    student = problem["student"]
    torch.testing.assert_close(value(name, student + shift, problem), value(name, student, problem))


@settings(max_examples=25, deadline=None)
@given(problem=problems(), factor=st.floats(0.01, 100))
def test_cosine_sees_no_length(problem: dict[str, Any], factor: float) -> None:
    """Up to the floor below which a vector counts as zero."""
    student = problem["student"] + 0.1
    torch.testing.assert_close(value("cosine", factor * student, problem), value("cosine", student, problem))


@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_js_is_symmetric_and_at_most_ln_2(problem: dict[str, Any]) -> None:
    there = value("js", problem["student"], problem, refinement=0.0, scale_t2=False)
    swapped = {**problem, "teacher": problem["student"]}
    torch.testing.assert_close(there, value("js", problem["teacher"], swapped, refinement=0.0, scale_t2=False))
    assert there <= math.log(2) + 1e-12


@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_dkd_with_the_weight_of_the_other_classes_is_kl(problem: dict[str, Any]) -> None:
    """KL(p, q) = KL of (p_y, 1 - p_y) + (1 - p_y) KL of the others, row by row (Zhao et al. 2022, Eq. 6)."""
    for row in range(len(problem["student"])):
        one = {**problem, "teacher": problem["teacher"][row : row + 1], "hard": problem["hard"][row : row + 1]}
        student = problem["student"][row : row + 1]
        label = one["hard"].argmax() if one["hard"].ndim == 2 else one["hard"][0]
        p = F.softmax(one["teacher"][0] / one["knobs"]["temperature"], dim=0)
        weight = float(1 - p[label])
        dkd = value("dkd", student, one, refinement=0.0, dkd_alpha=1.0, dkd_beta=weight)
        torch.testing.assert_close(dkd, value("kl", student, one, refinement=0.0), rtol=1e-6, atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_softer_losses_agree_with_scipy(problem: dict[str, Any]) -> None:
    temperature = problem["knobs"]["temperature"]
    p, q = (F.softmax(problem[who] / temperature, dim=1).numpy() for who in ("teacher", "student"))
    plain = {"refinement": 0.0, "scale_t2": False}
    js = value("js", problem["student"], problem, **plain)
    assert js.item() == pytest.approx((jensenshannon(p, q, axis=1) ** 2).mean(), abs=1e-9)
    reverse = value("reverse_kl", problem["student"], problem, **plain)
    assert reverse.item() == pytest.approx(stats.entropy(q, p, axis=1).mean(), abs=1e-4)
    brier = value("brier", problem["student"], problem, **plain)
    assert brier.item() == pytest.approx(((p - q) ** 2).mean(), abs=1e-12)
    if len(p) > 2 and len(p[0]) > 2:
        between = [stats.pearsonr(a, b).statistic for a, b in zip(p, q, strict=True)]
        within = [stats.pearsonr(a, b).statistic for a, b in zip(p.T, q.T, strict=True)]
        expected = 2 - sum(between) / len(between) - sum(within) / len(within)
        assert value("dist", problem["student"], problem, **plain).item() == pytest.approx(expected, abs=1e-6)


def test_huber_by_hand() -> None:
    """Differences 0.5 and 3 at delta 2: (0.5^2 / 2 + 2 (3 - 1)) / 2 = (0.125 + 4) / 2."""
    loss = loss_value("huber", torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2), torch.tensor([0]), huber_delta=2.0)
    assert loss.item() == pytest.approx(4.125 / 2)


def test_dkd_by_hand() -> None:
    """p = (1/2, 1/4, 1/4), y = 0, s = ln (1, 1, 2): q = (1/4, 1/4, 1/2).

    Of the label: KL((1/2, 1/2), (1/4, 3/4)) = ln 2 / 2 + ln(2/3) / 2. Of the others: KL((1/2, 1/2), (1/3, 2/3)) =
    ln(3/2) / 2 + ln(3/4) / 2.
    """
    student, teacher = torch.tensor([[1.0, 1.0, 2.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    label = math.log(2) / 2 + math.log(2 / 3) / 2
    others = math.log(3 / 2) / 2 + math.log(3 / 4) / 2
    loss = loss_value("dkd", student, teacher, torch.tensor([0]), dkd_alpha=2.0, dkd_beta=3.0)
    assert loss.item() == pytest.approx(2 * label + 3 * others, rel=1e-5)


@pytest.mark.parametrize("knob", ["huber_delta", "dkd_alpha", "dkd_beta"])
def test_new_knobs_are_checked(knob: str) -> None:
    with pytest.raises(ValueError, match=f"`{knob} >"):
        loss_value("dkd", torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0]), **{knob: -1.0})  # type: ignore[arg-type]
