"""What pixels say of themselves: statistics of a seeded sample, and the space they are in where that can be decided.

Whitened (ZCA) and mean/std-normalised images both have mean 0 and a deviation near 1, so these decide nothing. What tells
them apart is how fast pixels of one image lose their correlation: r(k), at k pixels' distance, horizontally and
vertically. Measured (docs/log.md, 2026-11-25): r(2) of natural images is above 0.64 in sets of 10 and more, of images that
were whitened as published code does it below 0.38; but noise is as rough as whitened images are. So smooth pixels prove
that nothing was whitened, and rough ones prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainables.formats.found import Found, ImageFiles

SAMPLE: Final = 200
#: Sets of fewer or smaller images have too few pixels for r(1) and r(2).
LEAST_IMAGES: Final = 8
LEAST_SIDE: Final = 16
#: Least r(1) and r(2) of pixels that were surely not whitened.
SMOOTH: Final = (0.75, 0.5)
#: Largest r(1) and r(2) of pixels that look whitened.
ROUGH: Final = (0.73, 0.42)


@dataclass(frozen=True, slots=True)
class Space:
    """The space that pixels are in.

    Attributes:
        name: "uint8", "raw01", "meanstd" or "zca"; None if the pixels cannot tell.
        why: The evidence, or what is missing.
    """

    name: str | None
    why: str


def describe_images(found: Found, *, full: bool) -> tuple[dict[str, Any], Tensor]:
    """Shape, type, range, mean and deviation per channel of a set's images, and the images looked at.

    Args:
        found: With images.
        full: Look at all instead of a seeded sample of 200.
    """
    images = found.images
    assert images is not None
    n = len(images.files) if isinstance(images, ImageFiles) else len(images)
    index = np.arange(n) if full else sample_of(n)
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


def sample_of(n: int) -> np.ndarray:
    """Sorted indices of a seeded sample of at most 200 of n images."""
    if n <= SAMPLE:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:SAMPLE])


def space_of(images: Tensor, *, layout: str | None = None, unwhitened_beside: bool = False) -> Space:
    """The space of a set's pixels, decided or left open.

    Args:
        images: (N, channels, H, W), uint8 or float.
        layout: The space in which the code that writes this layout keeps pixels, if it has one.
        unwhitened_beside: Pictures of the same images with the whitening undone lie beside the file.
    """
    if images.dtype == torch.uint8:
        return Space("uint8", "pixels are bytes")
    if unwhitened_beside:
        return Space("zca", "images_zca_* lies beside it, the same images with the whitening undone")
    low, high = float(images.min()), float(images.max())
    shown = f"pixels are {low:.3g} to {high:.3g}"
    if _fills_unit_range(images, low, high) or (layout == "raw01" and low >= -0.1 and high <= 1.1):
        return Space("raw01", shown)
    if layout == "raw01":
        return Space(None, f"cannot tell: {shown}, this layout usually has 0 to 1")
    is_white, why = looks_whitened(images)
    if is_white is None and layout == "meanstd":
        return Space("meanstd", "this layout is normalised")
    if is_white is not False:
        return Space(None, f"cannot tell: {why}")
    if layout == "meanstd" or _is_centred(images, low):
        return Space("meanstd", f"{shown}, and {why}")
    return Space(None, f"cannot tell: {shown}; {why}")


def looks_whitened(images: Tensor) -> tuple[bool | None, str]:
    """False if pixels are as smooth as whitened ones never are, True if as rough as those are (noise is too), else None.

    Args:
        images: (N, channels, H, W), float.

    Returns:
        The answer, and the evidence for it.
    """
    n, _, height, width = images.shape
    if n < LEAST_IMAGES or min(height, width) < LEAST_SIDE:
        return None, f"{n} images of {height} pixels are too few pixels to tell whitened from normalised ones"
    seen = images[torch.from_numpy(sample_of(n))]
    near, far = correlation_at(seen, 1), correlation_at(seen, 2)
    shown = f"pixels correlate by {near:.2f} with the next and {far:.2f} with the next but one"
    if near >= SMOOTH[0] and far >= SMOOTH[1]:
        return False, f"{shown}, which whitened ones do not"
    if near <= ROUGH[0] and far <= ROUGH[1]:
        return True, f"{shown}, as whitened (zca) ones do, and noise"
    return None, f"{shown}, which is between whitened and normalised images"


def correlation_at(images: Tensor, distance: int) -> float:
    """r(k): correlation of pixels at a horizontal or vertical distance, within images and channels.

    Args:
        images: (N, channels, H, W), float.
        distance: k, pixels.
    """
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    across = (centred[..., distance:] * centred[..., :-distance]).mean()
    down = (centred[..., distance:, :] * centred[..., :-distance, :]).mean()
    return float((across + down) / 2 / (centred * centred).mean().clamp_min(1e-12))


def _fills_unit_range(images: Tensor, low: float, high: float) -> bool:
    """Pixels are in [0, 1], and are bytes over 255 or clamped to the ends; normalised low contrast can be in [0, 1] too."""
    if not (low >= -1e-3 and high <= 1 + 1e-3 and high >= 0.5):
        return False
    seen = images[torch.from_numpy(sample_of(len(images)))]
    at_ends = (seen.abs() < 1e-6) | ((seen - 1).abs() < 1e-6)
    on_grid = (seen * 255 - (seen * 255).round()).abs() < 1e-3
    return int(at_ends.sum()) >= 2 or float(on_grid.float().mean()) > 0.99


def _is_centred(images: Tensor, low: float) -> bool:
    """Channels have mean about 0 and a deviation about 1, as normalised ones have."""
    seen = images[torch.from_numpy(sample_of(len(images)))]
    mean, std = seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3))
    return low < -0.5 and bool((mean.abs() <= 1).all() and (std >= 0.3).all())
