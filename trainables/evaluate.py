"""Accuracy of a model on a split."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from trainables.splits import Split

EVALUATION_BATCH: Final = {"cpu": 128, "cuda": 2048}  # small batches stay in a CPU's cache


def autocast(device: str, precision: str) -> torch.autocast:
    """Where a network's forward pass runs in `precision`, "fp32" or "bf16"."""
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")


@torch.no_grad()
def predict_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (n, C) of ready images (n, channels, H, W) in evaluation mode; restores the mode.

    Images may lie on another device than the model, and their logits will be where they are.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters(), images).device
    batches = images.split(EVALUATION_BATCH[device.type])
    logits = torch.cat([model(batch.to(device)).to(images.device) for batch in batches])
    model.train(was_training)
    return logits


def even_batch(n: int, most: int) -> int:
    """Size of the fewest batches that n images fit into, none larger than `most`, all but the last of that size."""
    return -(-n // -(-n // most))


def accuracy(model: nn.Module, split: Split, *, precision: str = "fp32") -> float:
    """Fraction of a split's images whose largest logit is their label; the forward pass is in fp32 or bf16."""
    hits = torch.zeros((), dtype=torch.long, device=split.images.device)
    for labels, logits in _labelled_logits(model, split, precision):
        hits += (logits.argmax(dim=1) == labels).sum()
    return hits.item() / len(split)


def confusion(model: nn.Module, split: Split, classes: int) -> np.ndarray:
    """How many images of each label a model takes for each class, int64 (C labels, C predictions); fp32."""
    counts = torch.zeros(classes**2, dtype=torch.long)
    for labels, logits in _labelled_logits(model, split, "fp32"):
        counts += torch.bincount((labels * classes + logits.argmax(dim=1)).cpu(), minlength=classes**2)
    return counts.view(classes, classes).numpy()


def _labelled_logits(model: nn.Module, split: Split, precision: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Labels (b,) and logits (b, C) of a split, batch by batch."""
    size = even_batch(len(split), EVALUATION_BATCH[split.images.device.type]) if len(split) else 1
    for first in range(0, len(split), size):
        part = slice(first, first + size)
        images = split.batch(part)
        padding = images[:1].expand(size - len(images), -1, -1, -1)  # one shape for all batches, so one kernel for each
        with autocast(split.images.device.type, precision):
            logits = predict_logits(model, torch.cat([images, padding]))[: len(images)]
        yield split.labels[part], logits
