"""Teachers: trained on the spot on the real training split, or loaded from people's checkpoints."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.augment import Augmentation, augment
from trainables.data.real import RealData
from trainables.evaluate import autocast
from trainables.models import load_checkpoint, network_from
from trainables.networks import ModelShape, make_model
from trainables.optim import make_optimizer, make_schedule
from trainables.seeding import NetworkDraws, make_generator, seeded_globals
from trainables.splits import Split

#: Shorter ones need no line of progress.
SLOW_EPOCH_S: Final = 10.0


class Teacher(nn.Module):
    """Mean logits of networks that see pixels normalised in their own way."""

    def __init__(self, members: Sequence[Member], shape: ModelShape, scale: Tensor, shift: Tensor) -> None:
        """Ready images x become scale x + shift, both (channels,)."""
        super().__init__()
        self.sources, self.shape = [(m.name, m.width, m.norm) for m in members], shape
        self.members = nn.ModuleList(member.network for member in members)
        self.register_buffer("scale", scale.view(-1, 1, 1))
        self.register_buffer("shift", shift.view(-1, 1, 1))
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images as students see them, (B, channels, H, W)."""
        seen = images * self.get_buffer("scale") + self.get_buffer("shift")
        return torch.stack([member(seen) for member in self.members]).mean(dim=0)

    def to_bytes(self) -> np.ndarray:
        """All of it as uint8, to travel with the arrays of a label bank; see `teacher_from_bytes`."""
        file = io.BytesIO()
        weights = [member.state_dict() for member in self.members]
        content = {"sources": self.sources, "shape": astuple(self.shape), "weights": weights}
        torch.save({**content, "scale": self.get_buffer("scale"), "shift": self.get_buffer("shift")}, file)
        return np.frombuffer(file.getvalue(), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Member:
    """A network of a teacher and what builds it again: name, width and norm, or its weights' keys."""

    network: nn.Module
    name: str | None
    width: int | None = None
    norm: str | None = None


def teacher_from_bytes(array: np.ndarray) -> Teacher:
    """The teacher that `to_bytes` was called on, in evaluation mode."""
    content = torch.load(io.BytesIO(array.tobytes()), map_location="cpu", weights_only=True)
    shape = ModelShape(*content["shape"])
    members = []
    for (name, width, norm), weights in zip(content["sources"], content["weights"], strict=True):
        if width is None:
            network = network_from(weights, shape, name=name, source="teacher")
        else:
            network = make_model(name, shape, width=width, norm=norm)
            network.load_state_dict(weights)
        members.append(Member(network, name, width, norm))
    return Teacher(members, shape, content["scale"].flatten(), content["shift"].flatten()).eval()


def make_teacher(name: str, shape: ModelShape, *, width: int, norm: str) -> Teacher:
    """An untrained teacher with seeded initial weights that sees pixels as students do."""
    with seeded_globals("teacher weights", 0):
        network = make_model(name, shape, width=width, norm=norm)
    ones = torch.ones(shape.channels)
    return Teacher([Member(network, name, width, norm)], shape, ones, 0 * ones)


def load_teacher(
    paths: Sequence[Path],
    real: RealData,
    *,
    name: str | None,
    expert: int | None = None,
    epoch: int | None = None,
    **constants: Sequence[float],
) -> Teacher:
    """Teachers from checkpoints, in evaluation mode.

    Args:
        paths: Of checkpoints; several are an ensemble.
        real: Normalised data that they must fit.
        name: Of the network, where the keys do not tell.
        expert: Of expert buffers; None: the first.
        epoch: Of expert buffers; None: the last.
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
    shape = ModelShape(channels, real.classes, size)
    fit: dict[str, int] = {"classes": real.classes, "channels": channels, "image_size": size}
    networks = [load_checkpoint(path, **fit, name=name, expert=expert, epoch=epoch) for path in paths]
    members = [Member(network, name) for network in networks]
    return Teacher(members, shape, real.std / std, (real.mean - mean) / std).eval()


def train_teacher(  # noqa: PLR0913 (hyperparameters by name)
    train: Split,
    model: nn.Module,
    augmentation: Augmentation,
    background: Tensor,
    *,
    epochs: int,
    lr: float,
    batch_size: int,
    precision: str = "fp32",
    say: Callable[[str], None] = lambda text: None,
    after_epoch: Callable[[int], None] = lambda epochs: None,
) -> nn.Module:
    """Train a network on real images with cross-entropy, AdamW and the multistep schedule.

    Args:
        train: Images and labels.
        model: Freshly initialised, on the device that it is to be trained on.
        augmentation: Of every batch.
        background: (channels,) value of a blank pixel.
        epochs: Passes over the training split.
        lr: Learning rate of AdamW.
        batch_size: Images per step; the last, smaller batch of an epoch is used too.
        precision: "fp32" or "bf16", of the forward pass.
        say: Told of every epoch that takes long.
        after_epoch: Called with the number of epochs that the model has had, 0 to `epochs`.

    Returns:
        The model, in evaluation mode.
    """
    optimizer = make_optimizer("adamw", model, lr=lr, weight_decay=0.0, momentum=None)
    schedule = make_schedule("multistep", optimizer, epochs=epochs)
    generator, device = make_generator("teacher batches", 0), next(model.parameters()).device
    draws = NetworkDraws("teacher draws", 0, device.type)
    after_epoch(0)
    for epoch in range(epochs):
        started, total = time.monotonic(), torch.zeros(())
        for index in torch.randperm(len(train.labels), generator=generator).split(batch_size):
            rows = augmentation.draw(len(index), train.images.shape[-1], generator)
            images = augment(train.batch(index).to(device), rows.to(device), background.to(device))
            with draws.in_use(), autocast(device.type, precision):
                logits = model(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), train.labels[index].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach().cpu() * len(index)
        schedule.step()
        after_epoch(epoch + 1)
        if (took_s := time.monotonic() - started) > SLOW_EPOCH_S:
            say(f"teacher: epoch {epoch + 1} of {epochs}, loss {total / len(train):.3f}, {took_s:.0f} s")
    return model.eval()
