from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from trainables.config import KNOBS, LABEL_EDITS, LOSS_KNOBS, canonical_loss
from trainables.losses import LOSSES, loss_value

S = torch.tensor([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]])
T = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0]])
Y = torch.tensor([0, 1])


def gradient(name: str, **knobs: float) -> Tensor:
    student = S.clone().requires_grad_()
    loss_value(name, student, T, Y, **knobs).backward()  # type: ignore[arg-type]
    assert student.grad is not None
    return student.grad


def test_names_and_knobs_of_the_configuration_are_those_of_the_functions() -> None:
    assert {name: loss.knobs for name, loss in LOSSES.items()} == dict(LOSS_KNOBS)


def test_ce_equals_torch() -> None:
    assert loss_value("ce", S, T, Y) == F.cross_entropy(S, Y)


def test_soft_ce_by_hand() -> None:
    """C = 2, B = 1, s = (ln 3, 0): log softmax = ln(3/4), ln(1/4); t = 0 gives p = (1/2, 1/2).

    L = -(ln(3/4) + ln(1/4)) / 2 = ln 4 - ln(3) / 2.
    """
    value = loss_value("soft_ce", torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2), torch.tensor([0]))
    assert value.item() == pytest.approx(math.log(4) - math.log(3) / 2, rel=1e-6)


def test_kl_equals_torch_at_any_temperature() -> None:
    for temperature in (0.5, 1.0, 20.0):
        expected = F.kl_div(F.log_softmax(S / temperature, 1), F.softmax(T / temperature, 1), reduction="batchmean")
        torch.testing.assert_close(loss_value("kl", S, T, Y, temperature=temperature), expected)


def test_kl_of_equal_logits_is_zero() -> None:
    assert loss_value("kl", T, T, Y, temperature=3.0).abs() < 1e-7


def test_refined_probability_target_by_hand() -> None:
    """t = 0, C = 3, w = 1/2, alpha = 0.1, y = 0: p = 1/3 / 2 + h / 2 with h = (0.9, 0.05, 0.05).

    Against s = 0 the cross-entropy is ln 3 for any target that sums to 1; against s = (ln 2, 0, 0) it is
    ln 4 - p_0 ln 2 with p_0 = (1/3 + 0.9) / 2 = 0.616667.
    """
    y, zero = torch.tensor([0]), torch.zeros(1, 3)
    assert loss_value("soft_ce", zero, zero, y, refinement=0.5).item() == pytest.approx(math.log(3), rel=1e-6)
    value = loss_value("soft_ce", torch.tensor([[math.log(2), 0, 0]]), zero, y, refinement=0.5)
    assert value.item() == pytest.approx(math.log(4) - (1 / 3 + 0.9) / 2 * math.log(2), rel=1e-6)


def test_mse_without_refinement_equals_torch() -> None:
    torch.testing.assert_close(loss_value("mse", S, T, Y), F.mse_loss(S, T))


def test_refined_logit_target_keeps_the_length_scale_of_the_teacher() -> None:
    """t = (3, 0): |t| = 3, t^ = (1, 0); h = (0, 1) at alpha = 0, y = 1; w = 1/4: z = 3 (0.75, 0.25) = (2.25, 0.75)."""
    value = loss_value(
        "mse", torch.zeros(1, 2), torch.tensor([[3.0, 0.0]]), torch.tensor([1]), refinement=0.25, smoothing=0.0
    )
    assert value.item() == pytest.approx((2.25**2 + 0.75**2) / 2)


def test_cosine_by_hand() -> None:
    """s = (1, 1), t = (1, 0): cos = 1 / sqrt 2."""
    value = loss_value("cosine", torch.ones(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert value.item() == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-6)


def test_zero_vector_has_cosine_zero() -> None:
    assert loss_value("cosine", torch.zeros(1, 3), T[:1], Y[:1]) == 1.0


def test_gift_equals_the_released_form() -> None:
    """The released code adds 0.1 h / |h| to t / |t| and takes 1 - mean cosine; h is smoothed by 0.1."""
    one_hot = F.one_hot(Y, 3).float()
    h = 0.9 * one_hot + 0.1 * (1 - one_hot) / 2
    target = T / T.norm(dim=1, keepdim=True) + 0.1 * h / h.norm(dim=1, keepdim=True)
    expected = 1 - F.cosine_similarity(S, target).mean()
    torch.testing.assert_close(loss_value("gift", S, T, Y), expected)
    torch.testing.assert_close(loss_value("cosine", S, T, Y, refinement=1 / 11, smoothing=0.1), expected)


def test_gift_ignores_knobs() -> None:
    assert loss_value("gift", S, T, Y, refinement=0.5, smoothing=0.3, temperature=7) == loss_value("gift", S, T, Y)


def test_ce_weight_adds_hard_cross_entropy() -> None:
    for name, soft in (("soft_ce_ce", "soft_ce"), ("mse_ce", "mse")):
        expected = loss_value(soft, S, T, Y) + 0.3 * F.cross_entropy(S, Y)
        torch.testing.assert_close(loss_value(name, S, T, Y, ce_weight=0.3), expected)


def test_scale_t2_multiplies_only_the_soft_term() -> None:
    plain = loss_value("soft_ce_ce", S, T, Y, temperature=4.0)
    scaled = loss_value("soft_ce_ce", S, T, Y, temperature=4.0, scale_t2=True)
    soft = loss_value("soft_ce", S, T, Y, temperature=4.0)
    torch.testing.assert_close(scaled - plain, 15 * soft)


def test_high_temperature_kl_times_t2_tends_to_half_mse_of_centred_logits() -> None:
    """T^2 KL -> mean_b sum_c (s_c - t_c)^2 / (2 C) for logits of zero mean (Hinton et al. 2015, section 2.1)."""
    s, t = S - S.mean(1, keepdim=True), T - T.mean(1, keepdim=True)
    value = loss_value("kl", s.double(), t.double(), Y, temperature=1000.0, scale_t2=True)
    assert value.item() == pytest.approx(((s - t) ** 2).sum(1).mean().item() / 6, rel=1e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_a_differentiable_scalar_with_hard_or_mixed_labels(name: str) -> None:
    indices, mixed = (
        loss_value(name, S, T, Y, refinement=0.2),
        loss_value(name, S, T, F.one_hot(Y, 3).float(), refinement=0.2),
    )
    torch.testing.assert_close(indices, mixed)
    assert indices.ndim == 0
    assert gradient(name, refinement=0.2).abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
def test_wrong_shapes_raise(name: str) -> None:
    for s, t, y in ((S[0], T, Y), (S, T[:, :2], Y), (S, T, Y[:1])):
        with pytest.raises(ValueError, match="must be"):
            loss_value(name, s, t, y)


@pytest.mark.parametrize(
    ("knob", "value"), [("temperature", 0.0), ("refinement", 1.0), ("smoothing", -0.1), ("ce_weight", math.nan)]
)
def test_knob_out_of_range_raises(knob: str, value: float) -> None:
    with pytest.raises(ValueError, match=knob):
        loss_value("kl", S, T, Y, **{knob: value})  # type: ignore[arg-type]


def test_unknown_loss_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown loss 'k1'; valid: \['ce'"):
        loss_value("k1", S, T, Y)


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(LOSS_KNOBS)),
    temperature=st.sampled_from([1.0, 4.0]),
    refinement=st.sampled_from([0.0, 1 / 11]),
    smoothing=st.sampled_from([0.0, 0.1]),
    scale_t2=st.booleans(),
    ce_weight=st.sampled_from([0.0, 0.1]),
    dkd_alpha=st.sampled_from([0.5, 1.0]),
    dkd_beta=st.sampled_from([1.0, 8.0]),
    huber_delta=st.sampled_from([0.5, 2.0]),
    label_temperature=st.sampled_from([1.0, 3.0]),
    label_swap=st.sampled_from([0, 1, 2]),
    label_top_k=st.sampled_from([0, 2]),
)
def test_canonical_form_has_the_same_gradient(name: str, **knobs: float) -> None:
    canonical, owned, why = canonical_loss(name, knobs)
    torch.testing.assert_close(gradient(name, **knobs), gradient(canonical, **owned), rtol=1e-5, atol=1e-7)
    idle = [knob for knob, value in LABEL_EDITS.items() if knobs[knob] == value]
    given = {k: knobs[k] for k in KNOBS if k in LOSS_KNOBS[name] and k not in idle}
    assert bool(why) == ((canonical, owned) != (name, given)) or ("refinement" in owned)


def test_canonical_form_is_idempotent() -> None:
    knobs = {"temperature": 1.0, "refinement": 0.0, "smoothing": 0.1, "scale_t2": True, "ce_weight": 0.0}
    assert canonical_loss("soft_ce_ce", knobs)[:2] == ("kl", {"temperature": 1.0, "refinement": 0.0})
    assert canonical_loss("mse_ce", knobs)[:2] == ("mse", {"refinement": 0.0})


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_a_student_that_begins_at_zero_is_of_the_size_of_the_others(name: str) -> None:
    """A zero last layer gives rows of zeros, where a direction is not defined; it was 1e12 / B there."""
    teacher = 3 * torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    for rows in (torch.zeros(16, 5), torch.full((16, 5), 1e-20), torch.ones(16, 5)):
        student = rows.requires_grad_(True)
        loss_value(name, student, teacher, torch.arange(16) % 5).backward()
        assert student.grad is not None
        assert student.grad.isfinite().all()
        assert student.grad.abs().max() < 1
    if name == "cosine":
        assert (zero_gradient(name, teacher) * teacher).sum() < 0, "a step from zero goes towards the teacher"


def zero_gradient(name: str, teacher: torch.Tensor) -> torch.Tensor:
    student = torch.zeros_like(teacher, requires_grad=True)
    loss_value(name, student, teacher, torch.arange(len(teacher)) % 5).backward()
    assert student.grad is not None
    return student.grad


@pytest.mark.parametrize("length", [1e-5, 1e-2, 1.0, 1e4])
def test_the_cosine_is_torchs_wherever_a_row_has_a_direction(length: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    student = length * torch.nn.functional.normalize(student, dim=1)
    expected = 1 - torch.nn.functional.cosine_similarity(student, teacher, dim=1, eps=1e-12).mean()
    torch.testing.assert_close(loss_value("cosine", student, teacher, torch.arange(8) % 5), expected)
