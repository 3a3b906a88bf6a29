"""The label bank: every view of the distilled set and the teacher's logits on it, made once, read by all trials."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainables.augment import Augmentation
from trainables.evaluate import predict_logits
from trainables.seeding import make_generator


@dataclass(frozen=True, slots=True)
class LabelBank:
    """Views and what the teacher says of them.

    Attributes:
        images: (V, N, channels, H, W), normalised.
        logits: (V, N, C).
        hard: (N,) labels, the same for every view.
    """

    images: Tensor
    logits: Tensor
    hard: Tensor


def build_label_bank(
    images: Tensor, hard: Tensor, teacher: nn.Module, *, views: int, augmentation: Augmentation
) -> LabelBank:
    """Augment the distilled set `views` times and label each view once.

    Args:
        images: Distilled images (N, channels, H, W), normalised.
        hard: (N,) labels.
        teacher: Network on the device of the images.
        views: V >= 1.
        augmentation: How views differ.
    """
    made = [make_view(images, v, augmentation) for v in range(views)]
    logits = [predict_logits(teacher, view) for view in made]
    return LabelBank(torch.stack(made), torch.stack(logits), hard)


def make_view(images: Tensor, view: int, augmentation: Augmentation) -> Tensor:
    """View number `view` of the distilled set, the same whenever it is made."""
    return augmentation.apply(images, make_generator("view", view))
