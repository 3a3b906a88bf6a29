"""Labelled images as trials read them: ready, or as bytes that are normalised batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor on the same memory. Shared arrays are read-only; torch warns of that, and everyone only reads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their labels.

    Attributes:
        images: (n, channels, H, W): float32, ready for a network, or uint8, 0 to 255.
        labels: (n,) in 0 .. C - 1.
        mean, std: (channels,), of pixels in [0, 1]: what ready images were normalised with, and what bytes will be.
        whitening: (D + 1, D), D = channels H W: bytes x become (x / 255, 1) @ whitening (ZCA); None leaves it out.
    """

    images: Tensor
    labels: Tensor
    mean: Tensor | None = None
    std: Tensor | None = None
    whitening: Tensor | None = None

    def batch(self, index: Tensor | slice) -> Tensor:
        """Images ready for a network, float32 (b, channels, H, W)."""
        images = self.images[index]
        if images.dtype != torch.uint8:
            return images
        if self.whitening is not None:
            flat = images.flatten(1).float() / 255
            return (flat @ self.whitening[:-1] + self.whitening[-1]).view(images.shape)
        assert self.mean is not None
        assert self.std is not None
        return (images.float() / 255 - self.mean.view(-1, 1, 1)) / self.std.view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)


def as_split(part: str, tensors: Mapping[str, Tensor]) -> Split:
    """A part ("distilled", "validation" or "test") of prepared tensors by name."""
    pixels = (tensors.get("pixel_mean"), tensors.get("pixel_std"))
    return Split(tensors[f"{part}_images"], tensors[f"{part}_labels"], *pixels, tensors.get("whitening"))
