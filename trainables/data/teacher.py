"""Teachers trained on the spot, on the real training split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from trainables.augment import Augmentation
from trainables.models import ModelShape, make_model
from trainables.optim import make_optimizer, make_schedule
from trainables.seeding import make_generator, seeded_globals
from trainables.splits import Split


def make_teacher(name: str, shape: ModelShape, *, width: int, norm: str) -> nn.Module:
    """A teacher with seeded initial weights."""
    with seeded_globals("teacher weights", 0):
        return make_model(name, shape, width=width, norm=norm)


def train_teacher(  # noqa: PLR0913 (three hyperparameters by name)
    train: Split, model: nn.Module, augmentation: Augmentation, *, epochs: int, lr: float, batch_size: int
) -> nn.Module:
    """Train a network on real images with cross-entropy, AdamW and the multistep schedule.

    Args:
        train: Images and labels.
        model: Freshly initialised.
        augmentation: Of every batch.
        epochs: Passes over the training split.
        lr: Learning rate of AdamW.
        batch_size: Images per step; the last, smaller batch of an epoch is used too.

    Returns:
        The model, in evaluation mode.
    """
    optimizer = make_optimizer("adamw", model, lr=lr, weight_decay=0.0, momentum=None)
    schedule = make_schedule("multistep", optimizer, epochs=epochs)
    generator = make_generator("teacher batches", 0)
    for _ in range(epochs):
        for index in torch.randperm(len(train.labels), generator=generator).split(batch_size):
            loss = F.cross_entropy(model(augmentation.apply(train.batch(index), generator)), train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()
