"""Teachers: trained on the spot on the real training split, or loaded from people's checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.augment import Augmentation
from trainables.data.real import RealData
from trainables.models import load_checkpoint
from trainables.networks import ModelShape, make_model
from trainables.optim import make_optimizer, make_schedule
from trainables.seeding import make_generator, seeded_globals
from trainables.splits import Split


def make_teacher(name: str, shape: ModelShape, *, width: int, norm: str) -> nn.Module:
    """A teacher with seeded initial weights."""
    with seeded_globals("teacher weights", 0):
        return make_model(name, shape, width=width, norm=norm)


class Ensemble(nn.Module):
    """Mean logits of teachers that see pixels normalised in their own way."""

    def __init__(self, members: Sequence[nn.Module], scale: Tensor, shift: Tensor) -> None:
        """Ready images x become scale x + shift, both (channels,)."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", shift.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images as students see them, (B, channels, H, W)."""
        seen = images * self.get_buffer("scale") + self.get_buffer("shift")
        return torch.stack([member(seen) for member in self.members]).mean(dim=0)


def load_teacher(paths: Sequence[Path], real: RealData, *, name: str | None, **constants: Sequence[float]) -> nn.Module:
    """Teachers from checkpoints, in evaluation mode.

    Args:
        paths: Of checkpoints; several are an ensemble.
        real: Normalised data that they must fit.
        name: Of the network, where the keys do not tell.
        **constants: `mean` and `std` per channel that the teachers' pixels were normalised with; none: as `real`'s.

    Raises:
        ValueError: As `load_checkpoint`, or if the constants do not fit the channels.
    """
    channels, size = real.train.images.shape[1], real.train.images.shape[-1]
    given = {key: torch.tensor(list(values)) for key, values in constants.items()}
    mean, std = given.get("mean", real.mean), given.get("std", real.std)
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"teacher: mean and std need one number per channel ({channels}), got {len(mean)}, {len(std)}."
        )
    members = [
        load_checkpoint(path, classes=real.classes, channels=channels, image_size=size, name=name) for path in paths
    ]
    return Ensemble(members, real.std / std, (real.mean - mean) / std).eval()


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
