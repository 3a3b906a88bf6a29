"""Train one trial outside a sweep and keep its student."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.arrays import load_arrays
from trainables.config import TrialConfig
from trainables.splits import Split
from trainables.trial import TrialData, start_trial, train_student


@dataclass(frozen=True, slots=True)
class Trained:
    """A student and how it came out.

    Attributes:
        metrics: Its last ones, by name.
        epoch: How far it was trained.
        student: The network, on ready images.
        shape: Of an image, (channels, H, W).
        split: Says how pixels become ready images.
    """

    metrics: dict[str, Any]
    epoch: int
    student: nn.Module
    shape: tuple[int, ...]
    split: Split

    def save(self, path: Path, config: TrialConfig) -> None:
        """Write {"config", "epoch", "model"}, loadable with `torch.load(..., weights_only=True)`."""
        torch.save({"config": config.as_dict(), "epoch": self.epoch, "model": self.student.state_dict()}, path)

    @torch.no_grad()
    def on_pixels(self) -> tuple[nn.Module, np.ndarray, np.ndarray]:
        """The student as a network of images in [0, 1], on the CPU, with an example of its input and its output."""
        module = PixelStudent(self.student, self.split).cpu().eval()
        pixels = torch.zeros(2, *self.shape)  # a batch of one would fix the batch size when it is exported
        return module, pixels.numpy(), module(pixels).numpy()


class PixelStudent(nn.Module):
    """A student whose input are pixels in [0, 1]: they are normalised or whitened as the sweep did it."""

    mean: Tensor | None
    std: Tensor | None
    whitening: Tensor | None

    def __init__(self, student: nn.Module, split: Split) -> None:
        super().__init__()
        self.student = student
        whitening = split.whitening
        mean, std = (None, None) if whitening is not None else (split.mean, split.std)
        for name, tensor in (("mean", mean), ("std", std), ("whitening", whitening)):
            self.register_buffer(name, None if tensor is None else tensor.clone())

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (B, C) of pixels (B, channels, H, W) in [0, 1]."""
        if self.whitening is not None:
            ready = (pixels.flatten(1) @ self.whitening[:-1] + self.whitening[-1]).view(pixels.shape)
        else:
            assert self.mean is not None
            assert self.std is not None
            ready = (pixels - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)
        logits: Tensor = self.student(ready)
        return logits


def train_again(config: TrialConfig, cache: Path, *, epochs: int) -> Trained:
    """Train a trial up to `epochs` (fewer than its own if it was stopped).

    Args:
        config: Of the trial.
        cache: Where its data were prepared.
        epochs: How far.
    """
    data = TrialData.from_arrays(load_arrays(config.data, cache), config.device)
    state = start_trial(config, data)
    last: dict[str, Any] = {}
    for point in train_student(config, data, state):
        last = point.as_dict()
        if point.epoch >= epochs:
            break
    return Trained(last, state.epoch, state.student, tuple(data.test.images.shape[1:]), data.test)
