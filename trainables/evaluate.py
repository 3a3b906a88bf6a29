"""Accuracy of a model on a split."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn

EVALUATION_BATCH: Final = {"cpu": 128, "cuda": 2048}  # small batches stay in a CPU's cache


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (n, C) of images (n, channels, H, W) in evaluation mode; restores the mode."""
    was_training = model.training
    model.eval()
    logits = torch.cat([model(batch) for batch in images.split(EVALUATION_BATCH[images.device.type])])
    model.train(was_training)
    return logits


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images (n, channels, H, W) whose largest logit is their label (n,)."""
    hits = (predict_logits(model, images).argmax(dim=1) == labels).sum().item()
    return hits / len(labels)
