"""Formulas of the losses: how far student logits are from a target.

Shapes: student logits s (B, C), targets (B, C), C >= 2. Every function is the mean over the batch, a scalar that is
differentiable in s. A vector without direction (zero, or constant where a mean is taken off) has correlation 0.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

#: A vector shorter than this has no direction.
SHORTEST: Final = 1e-6


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

    L = 1 - (1 / B) sum_b <s_b, u_b> / (|s_b| |u_b|); a zero vector has cosine 0, and there the gradient is -u_b / (B |u_b|)

    Args:
        logits: Student outputs s, (B, C).
        targets: Target directions u, (B, C), of any length.

    Returns:
        Scalar in [0, 2], dimensionless.

    Source: Shang et al. 2025, arXiv:2405.14736 (GIFT).
    """
    return 1 - (direction(logits, dim=1) * direction(targets, dim=1)).sum(dim=1).mean()


def direction(x: Tensor, *, dim: int, shortest: float | Tensor = SHORTEST) -> Tensor:
    """Vectors divided by their length, and those no longer than `shortest` as they are.

    The gradient of x / |x| grows as 1 / |x|. A student whose last layer is zero begins at x = 0, where dividing by a tiny number instead
    would give a gradient of 1e12 and one step to nowhere; here it is 1 at x = 0, and at most 1 / shortest anywhere.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(length <= shortest, 1.0, length)


def hard_cross_entropy(logits: Tensor, hard: Tensor) -> Tensor:
    """Cross-entropy with hard labels: indices (B,) or mixed rows (B, C); scalar, nats."""
    return F.cross_entropy(logits, hard)


def reverse_kl_divergence(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean Kullback-Leibler divergence of soft labels from softened student outputs: seeks modes instead of covering.

    L = (1 / B) sum_b sum_c q_bc (log q_bc - log p_bc), q = softmax(s / T), with 0 log 0 = 0

    Zero where q = p; invariant to a constant added to a row of s. Scalar, nats.

    Source: Gu et al. 2024, arXiv:2306.08543 (MiniLLM), Eq. 1.
    """
    log_q = F.log_softmax(logits / temperature, dim=1)
    return (log_q.exp() * (log_q - _positive(targets).log())).sum(dim=1).mean()


def jensen_shannon_divergence(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean Jensen-Shannon divergence of softened student outputs and soft labels.

    L = (1 / B) sum_b (KL(p_b, m_b) + KL(q_b, m_b)) / 2, q = softmax(s / T), m = (p + q) / 2

    Symmetric in p and q, zero where they are equal, at most ln 2. Scalar, nats.

    Source: Lin 1991, doi:10.1109/18.61115, Eq. 4.1 with equal weights.
    """
    log_q = F.log_softmax(logits / temperature, dim=1)
    log_m = torch.logaddexp(_positive(targets).log(), log_q) - math.log(2)
    of_q = (log_q.exp() * (log_q - log_m)).sum(dim=1).mean()
    return (F.kl_div(log_m, targets, reduction="batchmean") + of_q) / 2


def _positive(probabilities: Tensor) -> Tensor:
    """Probabilities with those that underflowed raised to the smallest number of their type."""
    return probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny)


def decoupled_divergence(  # noqa: PLR0913 (weights and temperature of one formula)
    logits: Tensor, targets: Tensor, hard: Tensor, *, temperature: float = 1.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """Decoupled knowledge distillation: what is said of the labelled class, and what of the others, weighted apart.

    L = (1 / B) sum_b (alpha KL((p_y, 1 - p_y), (q_y, 1 - q_y)) + beta KL(p_c / (1 - p_y), q_c / (1 - q_y) over c != y))

    with q = softmax(s / T). With beta replaced by 1 - p_y and alpha = 1 it is KL(p, q). Zero where q = p.

    Args:
        logits: Student outputs s, (B, C).
        targets: Soft labels p, (B, C), each row sums to 1.
        hard: Labels y, (B,); of mixed rows (B, C) the class with the largest share.
        temperature: T > 0.
        alpha: Weight of the labelled class, >= 0.
        beta: Weight of the other classes, >= 0.

    Returns:
        Scalar, nats.

    Source: Zhao et al. 2022, arXiv:2203.08679, Eq. 7.
    Differs: no T^2 factor here; see `scale_t2`.
    """
    label = (hard if hard.ndim == 1 else hard.argmax(dim=1)).unsqueeze(1)
    is_label = torch.zeros_like(targets, dtype=torch.bool).scatter_(1, label, True)
    log_q = F.log_softmax(logits / temperature, dim=1)
    others = log_q.masked_fill(is_label, -torch.inf)
    rest = torch.logsumexp(others, dim=1, keepdim=True)
    p_label = targets.gather(1, label)
    binary_p = torch.cat([p_label, 1 - p_label], dim=1).clamp(0, 1)
    of_label = F.kl_div(torch.cat([log_q.gather(1, label), rest], dim=1), binary_p, reduction="batchmean")
    p_others = targets.masked_fill(is_label, 0)
    p_others = p_others / _positive(p_others.sum(dim=1, keepdim=True))
    of_others = F.kl_div((others - rest).masked_fill(is_label, 0), p_others, reduction="batchmean")
    return alpha * of_label + beta * of_others


def correlation_distance(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """One minus the Pearson correlation of predictions and soft labels, between classes plus within classes.

    L = 1 - (1 / B) sum_b rho(q_b., p_b.) + 1 - (1 / C) sum_c rho(q_.c, p_.c), q = softmax(s / T)

    Unchanged when p is replaced by a p + b with a > 0. Zero where q = p and no row or column is constant.

    Returns:
        Scalar in [0, 4], dimensionless.

    Source: Huang et al. 2022, arXiv:2205.10536 (DIST), Eqs. 7 to 10 with both weights 1.
    """
    q = F.softmax(logits / temperature, dim=1)
    return (1 - _correlation(q, targets, dim=1)) + (1 - _correlation(q, targets, dim=0))


def _correlation(a: Tensor, b: Tensor, *, dim: int) -> Tensor:
    """Mean Pearson correlation along a dimension; what differs from its mean by rounding alone is constant."""
    around = []
    for x in (a, b):
        noise = SHORTEST * torch.linalg.vector_norm(x.detach(), dim=dim, keepdim=True)
        around.append(direction(x - x.mean(dim=dim, keepdim=True), dim=dim, shortest=noise))
    return (around[0] * around[1]).sum(dim=dim).mean()


def brier_distance(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mean over batch and classes of the squared difference of probabilities.

    L = (1 / (B C)) sum_b sum_c (q_bc - p_bc)^2, q = softmax(s / T)

    Zero where q = p. Scalar in [0, 2 / C], dimensionless.

    Source: Brier 1950, doi:10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    Differs: Brier sums over classes, which is C times this.
    """
    return F.mse_loss(F.softmax(logits / temperature, dim=1), targets)


def huber_distance(logits: Tensor, targets: Tensor, *, delta: float = 1.0) -> Tensor:
    """Mean over batch and classes of Huber's function of the difference of logits: square near 0, linear far off.

    L = (1 / (B C)) sum_b sum_c h(s_bc - z_bc), h(d) = d^2 / 2 for |d| <= delta, else delta (|d| - delta / 2)

    Args:
        logits: Student outputs s, (B, C).
        targets: Target logits z, (B, C).
        delta: > 0, in logits.

    Returns:
        Scalar, squared logits.

    Source: Huber 1964, doi:10.1214/aoms/1177703732.
    """
    return F.huber_loss(logits, targets, delta=delta)
