"""Teachers trained on the spot, on the real training split."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from trainables.augment import apply_dsa, draw_dsa
from trainables.data.real import Split
from trainables.models import make_model
from trainables.optim import make_optimizer, make_schedule
from trainables.seeding import make_generator, seeded_globals


def train_teacher(
    train: Split, model: nn.Module, *, epochs: int, lr: float, batch_size: int, flips: bool, background: torch.Tensor
) -> nn.Module:
    """Train a network on real images with cross-entropy, DSA, AdamW and the multistep schedule.

    Args:
        train: Normalised images and labels.
        model: Freshly initialised.
        epochs: Passes over the training split.
        lr: Learning rate of AdamW.
        batch_size: Images per step; the last, smaller batch of an epoch is used too.
        flips: Mirrored images keep their class.
        background: (channels,) normalised value of a blank pixel.

    Returns:
        The model, in evaluation mode.
    """
    optimizer = make_optimizer("adamw", model, lr=lr, weight_decay=0.0, momentum=None)
    schedule = make_schedule("multistep", optimizer, epochs=epochs)
    generator = make_generator("teacher batches", 0)
    for _ in range(epochs):
        for index in torch.randperm(len(train.labels), generator=generator).split(batch_size):
            images = apply_dsa(train.images[index], draw_dsa(len(index), generator), flip=flips, background=background)
            loss = F.cross_entropy(model(images), train.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def make_teacher(name: str, *, width: int, norm: str, channels: int, classes: int, image_size: int) -> nn.Module:
    """A teacher with seeded initial weights."""
    with seeded_globals("teacher weights", 0):
        return make_model(
            name, width=width, norm=norm, channels=channels, classes=classes, image_size=image_size
        )
