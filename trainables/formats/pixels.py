"""What pixels say of themselves: statistics of a seeded sample, and a guess at the space they are in."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainables.formats.found import Found, ImageFiles

SAMPLE: Final = 200
#: Neighbouring pixels of natural images correlate above 0.8; whitening takes that away.
WHITE_CORRELATION: Final = 0.5


def describe_images(found: Found, *, full: bool) -> tuple[dict[str, Any], Tensor]:
    """Shape, type, range, mean and deviation per channel of a set's images, and the images looked at.

    Args:
        found: With images.
        full: Look at all instead of a seeded sample of 200.
    """
    images = found.images
    assert images is not None
    n = len(images.files) if isinstance(images, ImageFiles) else len(images)
    index = np.arange(n) if full or n <= SAMPLE else np.sort(np.random.default_rng(0).permutation(n)[:SAMPLE])
    seen = images.decode(index, None) if isinstance(images, ImageFiles) else images[torch.from_numpy(index)]
    pixels = seen.float() / 255 if seen.dtype == torch.uint8 else seen
    described = {
        "shape": [n, *seen.shape[1:]],
        "dtype": str(seen.dtype).removeprefix("torch."),
        "min": seen.min().item(),
        "max": seen.max().item(),
        "mean": [round(value, 4) for value in pixels.mean(dim=(0, 2, 3)).tolist()],
        "std": [round(value, 4) for value in pixels.std(dim=(0, 2, 3)).tolist()],
        "sampled": len(index) < n,
    }
    return described, seen


def guess_space(seen: Tensor) -> str:
    """A guess in words; never acted on."""
    if seen.dtype == torch.uint8:
        return "uint8"
    mean, std = seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3))
    if seen.min() >= -1e-3 and seen.max() <= 1 + 1e-3:
        return "raw01, by its range"
    if bool((mean.abs() < 0.25).all()) and _neighbour_correlation(seen) < WHITE_CORRELATION:
        return "zca, because neighbouring pixels hardly correlate; noise looks the same"
    if seen.min() >= -0.1 and seen.max() <= 1.1 and bool(((mean - 0.45).abs() < 0.2).all()):
        return "raw01 not clamped, by its mean"
    if bool((mean.abs() < 0.5).all() and ((std - 1).abs() < 0.5).all()):
        return "meanstd, because channels have mean 0 and deviation 1"
    return "unknown"


def _neighbour_correlation(images: Tensor) -> float:
    left, right = images[..., :-1].flatten(), images[..., 1:].flatten()
    return float(torch.corrcoef(torch.stack([left, right]))[0, 1])
