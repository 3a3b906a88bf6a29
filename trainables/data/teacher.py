"""Teachers: trained on the spot on the real training split, or loaded from people's checkpoints."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.augment import Augmentation, augment
from trainables.data.real import RealData
from trainables.data.spaces import View, linear_map, possible_spaces, through, view_of
from trainables.evaluate import autocast
from trainables.models import load_checkpoint, network_from
from trainables.networks import ModelShape, make_model
from trainables.optim import make_optimizer, make_schedule
from trainables.seeding import NetworkDraws, make_generator, seeded_globals
from trainables.splits import Split, as_tensor

#: Shorter ones need no line of progress.
SLOW_EPOCH_S: Final = 10.0


class Teacher(nn.Module):
    """Mean logits of networks that see pixels in their own way."""

    linear: Tensor | None

    def __init__(self, members: Sequence[Member], shape: ModelShape, linear: Tensor | None = None) -> None:
        """Networks, what they fit, and the map (D + 1, D) that some members' pixels go through; see `spaces.linear_map`."""
        super().__init__()
        self.sources, self.shape = [m.source for m in members], shape
        self.uses_linear = [m.view.uses_linear for m in members]
        self.members = nn.ModuleList(member.network for member in members)
        self.register_buffer("scale", torch.stack([m.view.scale for m in members]).view(len(members), -1, 1, 1))
        self.register_buffer("shift", torch.stack([m.view.shift for m in members]).view(len(members), -1, 1, 1))
        self.register_buffer("linear", linear if any(self.uses_linear) else None)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images as students see them, (B, channels, H, W)."""
        linear = self.linear
        mapped = images if linear is None else through(linear, images)
        seen = [mapped if uses else images for uses in self.uses_linear]
        scales, shifts = self.get_buffer("scale"), self.get_buffer("shift")
        logits = [m(x * a + b) for m, x, a, b in zip(self.members, seen, scales, shifts, strict=True)]
        return torch.stack(logits).mean(dim=0)

    def to_bytes(self) -> np.ndarray:
        """All but `linear` as uint8, to travel with the arrays of a label bank; see `teacher_from_bytes`."""
        file = io.BytesIO()
        weights = [member.state_dict() for member in self.members]
        content: dict[str, Any] = {"sources": self.sources, "shape": astuple(self.shape), "weights": weights}
        content |= {"scale": self.get_buffer("scale"), "shift": self.get_buffer("shift"), "linear": self.uses_linear}
        torch.save(content, file)
        return np.frombuffer(file.getvalue(), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Member:
    """A network of a teacher, what it sees, and what builds it again.

    Attributes:
        network: In evaluation mode.
        view: How it sees ready images.
        name: Of the network; None where its weights' keys tell it.
        width, norm: Of a network that was made by name; None for one from a checkpoint.
        operations: Of a convnet; see `models.operations_of`.
    """

    network: nn.Module
    view: View
    name: str | None
    width: int | None = None
    norm: str | None = None
    operations: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> tuple[str | None, int | None, str | None, dict[str, str]]:
        """What builds it again, besides its weights."""
        return self.name, self.width, self.norm, dict(self.operations)


def teacher_from_bytes(array: np.ndarray, linear: np.ndarray | None = None) -> Teacher:
    """The teacher that `to_bytes` was called on, in evaluation mode; `linear` is its map of that name, if it has one."""
    content = torch.load(io.BytesIO(array.tobytes()), map_location="cpu", weights_only=True)
    shape = ModelShape(*content["shape"])
    views = map(View, content["linear"], content["scale"].flatten(1), content["shift"].flatten(1))
    members = []
    for (name, width, norm, operations), weights, view in zip(
        content["sources"], content["weights"], views, strict=True
    ):
        if width is None:
            network = network_from(weights, shape, name=name, source="teacher", operations=operations)
        else:
            network = make_model(name, shape, width=width, norm=norm, **operations)
            network.load_state_dict(weights)
        members.append(Member(network, view, name, width, norm, operations))
    return Teacher(members, shape, None if linear is None else as_tensor(linear)).eval()


def make_teacher(name: str, shape: ModelShape, *, width: int, norm: str, **operations: str) -> Teacher:
    """An untrained teacher with seeded initial weights that sees pixels as students do."""
    with seeded_globals("teacher weights", 0):
        network = make_model(name, shape, width=width, norm=norm, **operations)
    ones = torch.ones(shape.channels)
    return Teacher([Member(network, View(False, ones, 0 * ones), name, width, norm, operations)], shape)


def load_teacher(
    paths: Sequence[Path],
    real: RealData,
    *,
    name: str | None,
    expert: int | None = None,
    epoch: int | None = None,
    **constants: Sequence[float],
) -> Teacher:
    """Teachers from checkpoints as they are written: nothing is tried; in evaluation mode.

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
    (space, *_), _ = possible_spaces(real, stated=None, mean=constants.get("mean"), std=constants.get("std"))
    shape = ModelShape(real.test.images.shape[1], real.classes, real.size)
    fit: dict[str, int] = {"classes": real.classes, "channels": shape.channels, "image_size": real.size}
    networks = [load_checkpoint(path, **fit, name=name, expert=expert, epoch=epoch) for path in paths]
    view = view_of(space, real)
    linear = linear_map(real, None) if view.uses_linear else None
    return Teacher([Member(network, view, name) for network in networks], shape, linear).eval()


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
