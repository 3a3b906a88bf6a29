"""Differentiable siamese augmentation (DSA) in whole-batch tensor code, with one draw of parameters per image.

Parameters are drawn on the CPU from a counter-based seed and applied on the device of the images, so a view can be
made again from (name of the view bank, number of the view) alone.

Source: Zhao and Bilen 2021, arXiv:2102.08259. GIFT's evaluation applies flip, colour and cutout always and one of
crop, scale and rotate. Differs: that one is drawn per image, not per batch; classes with a handedness (digits) get no flips.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

CROP_FRAC: Final = 0.125
CUTOUT_FRAC: Final = 0.5
SCALE_RATIO: Final = 1.2
ROTATE_DEGREES: Final = 15.0
BRIGHTNESS: Final = 1.0
SATURATION: Final = 2.0
CONTRAST: Final = 0.5


@dataclass(frozen=True, slots=True)
class DsaParameters:
    """One draw per image, each tensor of shape (N,); lengths are fractions of the image side.

    Attributes:
        shift_x, shift_y: Crop: translation in [-0.125, 0.125].
        scale_x, scale_y: Zoom factors in [1 / 1.2, 1.2].
        angle: Rotation in radians.
        cut_x, cut_y: Centre of the square that cutout blanks, in [0, 1].
        flip: 1 to mirror left and right, else 0.
        brightness, saturation, contrast: Uniform in [0, 1), centred and scaled when applied.
    """

    shift_x: Tensor
    shift_y: Tensor
    scale_x: Tensor
    scale_y: Tensor
    angle: Tensor
    cut_x: Tensor
    cut_y: Tensor
    flip: Tensor
    brightness: Tensor
    saturation: Tensor
    contrast: Tensor


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How the images of a dataset are augmented.

    Attributes:
        kind: "dsa" or "none".
        flips: Mirrored images keep their class.
        background: (channels,) value of a blank pixel, normalised as the images are.
    """

    kind: str
    flips: bool
    background: Tensor

    def apply(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Images (N, channels, H, W) under parameters drawn from the generator."""
        if self.kind == "none":
            return images
        return apply_dsa(images, draw_dsa(len(images), generator), flip=self.flips, background=self.background)


def draw_dsa(n: int, generator: torch.Generator) -> DsaParameters:
    """Draw parameters for n images; exactly one of crop, scale and rotate acts on each image."""
    u = torch.rand(len(fields(DsaParameters)) + 1, n, generator=generator)
    kind = (u[-1] * 3).long()
    crop, scale, rotate = (kind == k for k in range(3))
    ratio = torch.tensor(SCALE_RATIO)
    return DsaParameters(
        shift_x=torch.where(crop, (2 * u[0] - 1) * CROP_FRAC, 0.0),
        shift_y=torch.where(crop, (2 * u[1] - 1) * CROP_FRAC, 0.0),
        scale_x=torch.where(scale, ratio ** (2 * u[2] - 1), 1.0),
        scale_y=torch.where(scale, ratio ** (2 * u[3] - 1), 1.0),
        angle=torch.where(rotate, torch.deg2rad((2 * u[4] - 1) * ROTATE_DEGREES), 0.0),
        cut_x=u[5],
        cut_y=u[6],
        flip=(u[7] < 0.5).float(),
        brightness=u[8],
        saturation=u[9],
        contrast=u[10],
    )


def apply_dsa(images: Tensor, p: DsaParameters, *, flip: bool, background: Tensor) -> Tensor:
    """Augment images; the same parameters always give the same pixels.

    Args:
        images: (N, channels, H, W), normalised.
        p: One draw per image, on any device.
        flip: Mirror the images whose `p.flip` is 1 (False for digits and other handed classes).
        background: (channels,) value of a blank pixel, which fills what moves in and what cutout blanks.

    Returns:
        Augmented images, (N, channels, H, W).
    """
    p = DsaParameters(*(getattr(p, f.name).to(images.device) for f in fields(p)))
    images = _recolor(images, p)
    blank = background.view(1, -1, 1, 1)
    moved = F.grid_sample(images - blank, _sampling_grid(images, p, flip=flip), align_corners=False) + blank
    return torch.where(_cutout_mask(images, p), blank, moved)


def _sampling_grid(images: Tensor, p: DsaParameters, *, flip: bool) -> Tensor:
    """Where each output pixel is read from, (N, H, W, 2), in grid_sample's [-1, 1] coordinates."""
    cos, sin = p.angle.cos(), p.angle.sin()
    mirror = 1 - 2 * p.flip if flip else torch.ones_like(p.flip)
    row_x = torch.stack([mirror * p.scale_x * cos, -p.scale_x * sin, 2 * p.shift_x], dim=1)
    row_y = torch.stack([mirror * p.scale_y * sin, p.scale_y * cos, 2 * p.shift_y], dim=1)
    return F.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)


def _cutout_mask(images: Tensor, p: DsaParameters) -> Tensor:
    """True inside each image's blanked square of half the side, (N, 1, H, W)."""
    side = images.shape[-1]
    position = (torch.arange(side, device=images.device) + 0.5) / side
    inside_x = (position - p.cut_x[:, None]).abs() < CUTOUT_FRAC / 2
    inside_y = (position - p.cut_y[:, None]).abs() < CUTOUT_FRAC / 2
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def _recolor(images: Tensor, p: DsaParameters) -> Tensor:
    """Brightness, then saturation, then contrast, each per image."""
    images = images + ((p.brightness - 0.5) * BRIGHTNESS)[:, None, None, None]
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * (p.saturation * SATURATION)[:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (p.contrast + CONTRAST)[:, None, None, None]
