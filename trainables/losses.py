"""The losses a student can be trained with: one function, one equation, one source, declared knobs each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch.nn.functional as F
from torch import Tensor

from trainables.config import GIFT_REFINEMENT, GIFT_SMOOTHING, LOSS_KNOBS
from trainables.targets import refine_directions, refine_logits, refine_probabilities, smooth_labels

Knobs = Mapping[str, float | bool]


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy between softened student outputs and soft labels.

    L = -(1 / B) sum_b sum_c p_bc log softmax(s_b / T)_c

    Args:
        logits: Student outputs s, (B, C), any real.
        targets: Soft labels p, already softened at T, (B, C), each row sums to 1.
        temperature: T > 0, dimensionless.

    Returns:
        Scalar, nats.

    Source: Hinton et al. 2015, arXiv:1503.02531, Eq. 1.
    Differs: no T^2 factor here; see `scale_t2`.
    """
    return -(targets * F.log_softmax(logits / temperature, dim=1)).sum(dim=1).mean()


def kl_divergence(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean Kullback-Leibler divergence of softened student outputs from soft labels.

    L = (1 / B) sum_b sum_c p_bc (log p_bc - log softmax(s_b / T)_c), with 0 log 0 = 0

    Shapes and arguments as in `soft_cross_entropy`; scalar, nats.

    Source: Hinton et al. 2015, arXiv:1503.02531; T = 20 in GIFT's tables.
    """
    return F.kl_div(F.log_softmax(logits / temperature, dim=1), targets, reduction="batchmean")


def mean_squared_error(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over batch and classes of the squared difference of logits.

    L = (1 / (B C)) sum_b sum_c (s_bc - z_bc)^2

    Args:
        logits: Student outputs s, (B, C).
        targets: Target logits z, (B, C).

    Returns:
        Scalar, squared logits.

    Source: Ba and Caruana 2014, arXiv:1312.6184.
    """
    return F.mse_loss(logits, targets)


def cosine_distance(logits: Tensor, targets: Tensor) -> Tensor:
    """One minus the mean cosine of student outputs and target directions.

    L = 1 - (1 / B) sum_b <s_b, u_b> / (|s_b| |u_b|); a zero vector has cosine 0

    Args:
        logits: Student outputs s, (B, C).
        targets: Target directions u, (B, C), of any length.

    Returns:
        Scalar in [0, 2], dimensionless.

    Source: Shang et al. 2025, arXiv:2405.14736 (GIFT).
    """
    return 1 - (F.normalize(logits, dim=1) * F.normalize(targets, dim=1)).sum(dim=1).mean()


def hard_cross_entropy(logits: Tensor, hard: Tensor) -> Tensor:
    """Cross-entropy with hard labels: indices (B,) or mixed rows (B, C); scalar, nats."""
    return F.cross_entropy(logits, hard)


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and what a person should know of it.

    Attributes:
        distance: Function of (student logits, target, knobs) -> scalar. The target does not depend on the student.
        space: Where student and target are compared: hard, probability, logit or angle.
        knobs: Names of the knobs that have an effect.
        equation: The definition on one line.
        source: Where it comes from.
    """

    distance: Callable[[Tensor, Tensor, Knobs], Tensor]
    space: str
    knobs: tuple[str, ...]
    equation: str
    source: str


def _softened(divergence: Callable[..., Tensor]) -> Callable[[Tensor, Tensor, Knobs], Tensor]:
    """A divergence at temperature T, times T^2 if asked."""

    def distance(student: Tensor, target: Tensor, knobs: Knobs) -> Tensor:
        temperature = knobs["temperature"]
        value = divergence(student, target, temperature=temperature)
        return value * temperature**2 if knobs.get("scale_t2") else value

    return distance


_ce: Final = lambda s, y, knobs: hard_cross_entropy(s, y)  # noqa: E731
_soft_ce: Final = _softened(soft_cross_entropy)
_kl: Final = _softened(kl_divergence)
_mse: Final = lambda s, z, knobs: mean_squared_error(s, z)  # noqa: E731
_cosine: Final = lambda s, u, knobs: cosine_distance(s, u)  # noqa: E731
_HINTON: Final = "Hinton et al. 2015, arXiv:1503.02531"
_GIFT: Final = "Shang et al. 2025, arXiv:2405.14736"
_P: Final = "p = (1 - w) softmax(t / T) + w h"

LOSSES: Final[Mapping[str, Loss]] = {
    name: Loss(distance, space, LOSS_KNOBS[name], equation, source)
    for name, distance, space, equation, source in (
        ("ce", _ce, "hard", "-log softmax(s)_y", "textbook"),
        ("soft_ce", _soft_ce, "probability", f"-sum_c p_c log softmax(s / T)_c [T^2], {_P}", _HINTON),
        ("kl", _kl, "probability", f"KL(p, softmax(s / T)) [T^2], {_P}", _HINTON),
        ("mse", _mse, "logit", "mean_c (s - |t| ((1 - w) t^ + w h^))_c^2", "Ba, Caruana 2014, arXiv:1312.6184"),
        ("soft_ce_ce", _soft_ce, "probability", "soft_ce + ce_weight ce", _GIFT),
        ("mse_ce", _mse, "logit", "mse + ce_weight ce", "Shao et al. 2024 (G-VBSM), arXiv:2311.17950"),
        ("cosine", _cosine, "angle", "1 - cos(s, (1 - w) t^ + w h^)", _GIFT),
        ("gift", _cosine, "angle", "cosine at w = 1/11, alpha = 0.1", f"{_GIFT}, released code"),
    )
}


def make_target(name: str, teacher: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
    """What the student is compared with; free of the student, so a trial makes it once per view.

    Args:
        name: A key of LOSSES.
        teacher: Logits t, (B, C).
        hard: Labels y, (B,) or (B, C).
        knobs: At least the knobs in the loss's canonical form; smoothing may be absent where w = 0.

    Returns:
        Target in the loss's space, (B, C); `hard` itself for losses in the space "hard".
    """
    if LOSSES[name].space == "hard":
        return hard
    if name == "gift":
        knobs = {"refinement": GIFT_REFINEMENT, "smoothing": GIFT_SMOOTHING}
    refinement = knobs["refinement"]
    h = smooth_labels(hard, teacher.shape[1], smoothing=knobs.get("smoothing", 0.0))
    if LOSSES[name].space == "probability":
        return refine_probabilities(teacher, h, temperature=knobs["temperature"], refinement=refinement)
    refine = refine_directions if LOSSES[name].space == "angle" else refine_logits
    return refine(teacher, h, refinement=refinement)


def compare(name: str, student: Tensor, target: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
    """The loss between student logits (B, C) and a target of `make_target`; scalar."""
    value = LOSSES[name].distance(student, target, knobs)
    if "ce_weight" in LOSSES[name].knobs:
        value = value + knobs["ce_weight"] * hard_cross_entropy(student, hard)
    return value


def loss_value(  # noqa: PLR0913 (a contract: every knob of every loss by name)
    name: str,
    student: Tensor,
    teacher: Tensor,
    hard: Tensor,
    *,
    temperature: float = 1.0,
    refinement: float = 0.0,
    smoothing: float = 0.1,
    ce_weight: float = 0.1,
    scale_t2: bool = False,
) -> Tensor:
    """The value of a loss by name; knobs that the loss lacks are ignored.

    Args:
        name: A key of LOSSES.
        student: Logits s, (B, C).
        teacher: Logits t, (B, C). Stored probabilities enter as log p (floor 1e-8).
        hard: Labels y: indices (B,) or mixed rows (B, C).
        temperature: T > 0.
        refinement: w in [0, 1).
        smoothing: alpha in [0, 1).
        ce_weight: Weight of the hard-label term, >= 0.
        scale_t2: Multiply the soft term by T^2.

    Returns:
        Scalar, differentiable in `student`.

    Raises:
        ValueError: If the name is unknown, a knob is out of range, or shapes do not fit.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; valid: {list(LOSSES)}.")
    knobs: Knobs = {
        "temperature": temperature,
        "refinement": refinement,
        "smoothing": smoothing,
        "ce_weight": ce_weight,
        "scale_t2": scale_t2,
    }
    _check_knobs(knobs)
    _check_shapes(student, teacher, hard)
    return compare(name, student, make_target(name, teacher, hard, knobs), hard, knobs)


def _check_knobs(knobs: Knobs) -> None:
    if not knobs["temperature"] > 0:
        raise ValueError(f"`temperature > 0` must hold, got {knobs['temperature']}.")
    for name in ("refinement", "smoothing"):
        if not 0 <= knobs[name] < 1:
            raise ValueError(f"`0 <= {name} < 1` must hold, got {knobs[name]}.")
    if not knobs["ce_weight"] >= 0:
        raise ValueError(f"`ce_weight >= 0` must hold, got {knobs['ce_weight']}.")


def _check_shapes(student: Tensor, teacher: Tensor, hard: Tensor) -> None:
    if student.ndim != 2 or student.shape[1] < 2:
        raise ValueError(f"student logits must be (B, C) with C >= 2, got {tuple(student.shape)}.")
    if teacher.shape != student.shape:
        raise ValueError(f"teacher logits must be {tuple(student.shape)}, got {tuple(teacher.shape)}.")
    if hard.shape not in (student.shape[:1], student.shape):
        raise ValueError(f"hard labels must be (B,) or (B, C), got {tuple(hard.shape)}.")
