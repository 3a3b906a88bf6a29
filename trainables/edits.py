"""Edits of a teacher's logits that ask which part of a soft label matters: how sharp, which classes, in which order.

Shapes: logits t (B, C), C >= 2.

Source: Qin et al. 2024, arXiv:2406.10485, whose code calls 1 / label_temperature `temp`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def edit_logits(logits: Tensor, knobs: Mapping[str, float | bool]) -> Tensor:
    """Logits after label_temperature, label_swap and label_top_k, as far as the knobs have them; else the same tensor."""
    if "label_temperature" in knobs:
        logits = logits / knobs["label_temperature"]
    if "label_swap" in knobs:
        logits = swap_with_smallest(logits, int(knobs["label_swap"]))
    if "label_top_k" in knobs:
        logits = keep_largest(logits, int(knobs["label_top_k"]))
    return logits


def swap_with_smallest(logits: Tensor, k: int) -> Tensor:
    """Logits whose k-th largest value and smallest value have changed places; as they are for k = 0 and k = C.

    Equal logits count in the order of their classes, the last of the smallest as the smallest.

    Args:
        logits: (B, C).
        k: 0 to C.
    """
    if k in (0, logits.shape[1]):
        return logits
    order = logits.argsort(dim=1, descending=True, stable=True)
    places = order[:, [k - 1, -1]]
    return logits.scatter(1, places, logits.gather(1, places.flip(1)))


def keep_largest(logits: Tensor, k: int) -> Tensor:
    """Logits with -inf, probability 0, in all but the k largest classes; as they are for k = 0 and k = C.

    Of equal logits at the edge the first classes are kept, as where a label bank keeps k logits of each row.

    Args:
        logits: (B, C).
        k: 0 to C.
    """
    if k in (0, logits.shape[1]):
        return logits
    classes = logits.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.full_like(logits, -math.inf).scatter(1, classes, logits.gather(1, classes))
