"""The losses a student can be trained with: one function, one equation, one source, declared knobs each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from trainables.config import GIFT_REFINEMENT, GIFT_SMOOTHING, LABEL_EDITS, LOSS_KNOBS
from trainables.divergences import (
    brier_distance,
    correlation_distance,
    cosine_distance,
    decoupled_divergence,
    hard_cross_entropy,
    huber_distance,
    jensen_shannon_divergence,
    kl_divergence,
    mean_squared_error,
    reverse_kl_divergence,
    soft_cross_entropy,
)
from trainables.edits import edit_logits
from trainables.targets import refine_directions, refine_logits, refine_probabilities, smooth_labels

Knobs = Mapping[str, float | bool]
Distance = Callable[[Tensor, Tensor, Tensor, Knobs], Tensor]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and what a person should know of it.

    Attributes:
        distance: Function of (student logits, target, hard labels, knobs) -> scalar; the target is free of the student.
        space: Where student and target are compared: hard, probability, logit or angle.
        knobs: Names of the knobs that have an effect.
        equation: The definition on one line.
        source: Where it comes from.
    """

    distance: Distance
    space: str
    knobs: tuple[str, ...]
    equation: str
    source: str


def _softened(divergence: Callable[..., Tensor]) -> Distance:
    """A divergence at temperature T, times T^2 if asked."""

    def distance(student: Tensor, target: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
        return _scaled(divergence(student, target, temperature=knobs["temperature"]), knobs)

    return distance


def _scaled(value: Tensor, knobs: Knobs) -> Tensor:
    return value * knobs["temperature"] ** 2 if knobs.get("scale_t2") else value


def _dkd(student: Tensor, target: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
    weights = {"alpha": knobs["dkd_alpha"], "beta": knobs["dkd_beta"]}
    return _scaled(decoupled_divergence(student, target, hard, temperature=knobs["temperature"], **weights), knobs)


def _huber(student: Tensor, target: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
    return huber_distance(student, target, delta=knobs["huber_delta"])


_ce: Final[Distance] = lambda s, y, hard, knobs: hard_cross_entropy(s, y)  # noqa: E731
_soft_ce: Final = _softened(soft_cross_entropy)
_mse: Final[Distance] = lambda s, z, hard, knobs: mean_squared_error(s, z)  # noqa: E731
_cosine: Final[Distance] = lambda s, u, hard, knobs: cosine_distance(s, u)  # noqa: E731
_HINTON: Final = "Hinton et al. 2015, arXiv:1503.02531"
_GIFT: Final = "Shang et al. 2025, arXiv:2405.14736"
#: What the equations are written in.
SYMBOLS: Final = (
    "s, t: student and teacher logits; y: hard label; h: smoothed label; T: temperature; w: refinement.",
    "p = (1 - w) softmax(t / T) + w h; q = softmax(s / T); t^ = t / |t|; z = |t| ((1 - w) t^ + w h^); rho: Pearson.",
    "[T^2]: multiplied by T^2 where scale_t2 is true.",
)

LOSSES: Final[Mapping[str, Loss]] = {
    name: Loss(distance, space, LOSS_KNOBS[name], equation, source)
    for name, distance, space, equation, source in (
        ("ce", _ce, "hard", "-log softmax(s)_y", "textbook"),
        ("soft_ce", _soft_ce, "probability", "-sum_c p_c log q_c [T^2]", _HINTON),
        ("kl", _softened(kl_divergence), "probability", "KL(p, q) [T^2]", _HINTON),
        ("reverse_kl", _softened(reverse_kl_divergence), "probability", "KL(q, p) [T^2]", "Gu 2024, arXiv:2306.08543"),
        (
            "js",
            _softened(jensen_shannon_divergence),
            "probability",
            "(KL(p, m) + KL(q, m)) / 2 [T^2], m = (p + q) / 2",
            "Lin 1991, doi:10.1109/18.61115",
        ),
        (
            "dkd",
            _dkd,
            "probability",
            "dkd_alpha KL of (p_y, 1 - p_y) + dkd_beta KL of p_c / (1 - p_y), c != y [T^2]",
            "Zhao et al. 2022, arXiv:2203.08679",
        ),
        (
            "dist",
            _softened(correlation_distance),
            "probability",
            "2 - mean_b rho(q_b, p_b) - mean_c rho(q_c, p_c) [T^2]",
            "Huang et al. 2022, arXiv:2205.10536",
        ),
        ("brier", _softened(brier_distance), "probability", "mean_c (q - p)_c^2 [T^2]", "Brier 1950"),
        ("mse", _mse, "logit", "mean_c (s - z)_c^2", "Ba, Caruana 2014, arXiv:1312.6184"),
        ("huber", _huber, "logit", "mean_c of (s - z)_c^2 / 2, linear beyond huber_delta", "Huber 1964"),
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
        teacher: Logits t, (B, C); a class that a bank left out has -inf.
        hard: Labels y, (B,) or (B, C).
        knobs: At least the knobs in the loss's canonical form; smoothing may be absent where w = 0.

    Returns:
        Target in the loss's space, (B, C); `hard` itself for losses in the space "hard".
    """
    if LOSSES[name].space == "hard":
        return hard
    if name == "gift":
        knobs = {"refinement": GIFT_REFINEMENT, "smoothing": GIFT_SMOOTHING}
    teacher = edit_logits(teacher, knobs)
    refinement = knobs["refinement"]
    h = smooth_labels(hard, teacher.shape[1], smoothing=knobs.get("smoothing", 0.0))
    if LOSSES[name].space == "probability":
        return refine_probabilities(teacher, h, temperature=knobs["temperature"], refinement=refinement)
    refine = refine_directions if LOSSES[name].space == "angle" else refine_logits
    return refine(teacher, h, refinement=refinement)


def compare(name: str, student: Tensor, target: Tensor, hard: Tensor, knobs: Knobs) -> Tensor:
    """The loss between student logits (B, C) and a target of `make_target`; scalar."""
    value = LOSSES[name].distance(student, target, hard, knobs)
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
    dkd_alpha: float = 1.0,
    dkd_beta: float = 8.0,
    huber_delta: float = 1.0,
    label_temperature: float = 1.0,
    label_swap: int = 0,
    label_top_k: int = 0,
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
        dkd_alpha: Weight of the labelled class in dkd, >= 0.
        dkd_beta: Weight of the other classes in dkd, >= 0.
        huber_delta: Where huber turns linear, > 0.
        label_temperature: Divides t before anything else, > 0.
        label_swap: k: t's k-th largest value and its smallest change places; 0: none do.
        label_top_k: k: all but t's k largest classes have probability 0; 0: none.

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
        "dkd_alpha": dkd_alpha,
        "dkd_beta": dkd_beta,
        "huber_delta": huber_delta,
        "label_temperature": label_temperature,
        "label_swap": label_swap,
        "label_top_k": label_top_k,
    }
    knobs = {knob: value for knob, value in knobs.items() if knob in LOSS_KNOBS[name] or knob not in LABEL_EDITS}
    _check_knobs(knobs, student.shape[-1])
    _check_shapes(student, teacher, hard)
    return compare(name, student, make_target(name, teacher, hard, knobs), hard, knobs)


def _check_knobs(knobs: Knobs, classes: int) -> None:
    for name in ("temperature", "huber_delta", "label_temperature"):
        if not 0 < knobs.get(name, 1) < math.inf:
            raise ValueError(f"`{name} > 0` must hold, got {knobs[name]}.")
    for name in ("label_swap", "label_top_k"):
        if not 0 <= knobs.get(name, 0) <= classes:
            raise ValueError(f"`0 <= {name} <= C` must hold with C = {classes}, got {knobs[name]}.")
    for name in ("refinement", "smoothing"):
        if not 0 <= knobs[name] < 1:
            raise ValueError(f"`0 <= {name} < 1` must hold, got {knobs[name]}.")
    for name in ("ce_weight", "dkd_alpha", "dkd_beta"):
        if not 0 <= knobs[name] < math.inf:
            raise ValueError(f"`{name} >= 0` must hold, got {knobs[name]}.")


def _check_shapes(student: Tensor, teacher: Tensor, hard: Tensor) -> None:
    if student.ndim != 2 or student.shape[1] < 2:
        raise ValueError(f"student logits must be (B, C) with C >= 2, got {tuple(student.shape)}.")
    if teacher.shape != student.shape:
        raise ValueError(f"teacher logits must be {tuple(student.shape)}, got {tuple(teacher.shape)}.")
    if hard.shape not in (student.shape[:1], student.shape):
        raise ValueError(f"hard labels must be (B,) or (B, C), got {tuple(hard.shape)}.")
