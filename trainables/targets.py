"""Soft targets: what the teacher and the hard label say together, in the space where a loss compares."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def smooth_labels(hard: Tensor, classes: int, *, smoothing: float) -> Tensor:
    """Label-smoothed one-hot (or mixed) rows.

    h = (1 - alpha) y + alpha (1 - y) / (C - 1)

    Args:
        hard: Indices (B,) or mixed rows (B, C) that sum to 1.
        classes: C >= 2.
        smoothing: 0 <= alpha < 1.

    Returns:
        Rows h, (B, C), each sums to 1.

    Source: GIFT's released code (Shang et al. 2025, arXiv:2405.14736), which spreads alpha over the other C - 1.
    """
    one_hot = hard if hard.ndim == 2 else F.one_hot(hard, classes).float()
    return (1 - smoothing) * one_hot + smoothing * (1 - one_hot) / (classes - 1)


def refine_probabilities(teacher: Tensor, h: Tensor, *, temperature: float, refinement: float) -> Tensor:
    """Probability target (1 - w) softmax(t / T) + w h, (B, C); rows sum to 1."""
    p = F.softmax(teacher / temperature, dim=1)
    return p if refinement == 0 else (1 - refinement) * p + refinement * h


def refine_directions(teacher: Tensor, h: Tensor, *, refinement: float) -> Tensor:
    """Angle target (1 - w) t / |t| + w h / |h|, (B, C); a zero vector stays zero.

    Source: Shang et al. 2025, arXiv:2405.14736, soft-label refinement.
    Differs: a convex combination; the released code adds 0.1 h / |h|, the same direction at w = 1/11.
    """
    t = F.normalize(teacher, dim=1)
    return t if refinement == 0 else (1 - refinement) * t + refinement * F.normalize(h, dim=1)


def refine_logits(teacher: Tensor, h: Tensor, *, refinement: float) -> Tensor:
    """Logit target |t| ((1 - w) t / |t| + w h / |h|), (B, C)."""
    if refinement == 0:
        return teacher
    norm: Tensor = torch.linalg.vector_norm(teacher, dim=1, keepdim=True)
    return norm * refine_directions(teacher, h, refinement=refinement)
