"""Augmentation in whole-batch tensor code: parameters are drawn first, one row per image, and applied afterwards.

A view is a table of such rows (N, len(COLUMNS)) and nothing else: whoever has the table and the distilled set can make
the view again, on any device. Labels published with the augmentation they belong to (FORMATS: FKD) are read into the
same table.

Published code draws which operation acts, and how images are mixed, once per batch, and everything else per image. A view
then says which images make up a batch (column `batch`): the batches belong to the view, and a training takes them in an
order of its own. So each training sees batches of random images under a random operation, as published, and the labels of a
view hold for every training. What trainings share with a view is then not only its parameters but who is in a batch with whom.

Source of the operations: differentiable siamese augmentation (Zhao and Bilen 2021, arXiv:2102.08259) with the ranges of its
released code (`align_corners`, which differs between codes, does not matter to maps without a shift); CutMix (Yun et al. 2019, arXiv:1905.04899);
MixUp (Zhang et al. 2018, arXiv:1710.09412); random resized crop (Szegedy et al. 2015). Operation by operation the pixels are
those of the published formulas, up to rounding (tests/trainables/test_as_published.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from trainables.names import DSA_OPERATIONS
from trainables.splits import Split

#: What a row holds, and the value that changes nothing. Lengths and positions are fractions of the image side; with
#: `inside` 1 the shift and scale are a box, and nothing outside it is read (a resized crop);
#: saturation and contrast are factors, brightness is added; `partner` is the index of the image that is mixed in and
#: `share` what stays of the image itself: everywhere (MixUp), or outside the box (CutMix). `batch` is the number of the
#: batch that an image belongs to in this view; with -1 any images may be a batch. With `own_label` 1 the hard label of a
#: mixed image is that of the image itself.
IDENTITY: Final = {
    "shift_x": 0.0,
    "shift_y": 0.0,
    "scale_x": 1.0,
    "scale_y": 1.0,
    "angle": 0.0,
    "inside": 0.0,
    "flip": 0.0,
    "brightness": 0.0,
    "saturation": 1.0,
    "contrast": 1.0,
    "cut_x": 0.5,
    "cut_y": 0.5,
    "cut_side": 0.0,
    "partner": 0.0,
    "share": 1.0,
    "box_x": 0.0,
    "box_y": 0.0,
    "box_w": 0.0,
    "box_h": 0.0,
    "batch": -1.0,
    "own_label": 0.0,
}
COLUMNS: Final = tuple(IDENTITY)
#: Columns that `augment` does not read.
_NOT_OWN: Final = COLUMNS[COLUMNS.index("partner") :]

#: How far DSA's operations go: shift in shares of the side; side of the hole; largest scale; largest angle in degrees; range
#: of what is added; largest saturation; smallest contrast, whose range is 1. And the share of images that are mirrored.
STRENGTHS: Final = {
    "crop": 0.125,
    "cutout": 0.5,
    "scale": 1.2,
    "rotate": 15.0,
    "brightness": 1.0,
    "saturation": 2.0,
    "contrast": 0.5,
    "flip": 0.5,
}
ASPECT_RATIO: Final = 4 / 3
Rows = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How views differ.

    Attributes:
        kind: "dsa": flip, colour and cutout always, and one of crop, scale and rotate (GIFT's evaluation). A strategy
            such as "color_crop_cutout_flip_scale_rotate": one of the operations it names (DC, MTT, DATM); with plus
            signs, such as "crop+flip", all that it names, in one resampling. "rrc": random resized crop and flip. "none".
        flips: Mirrored images keep their class; without it nothing is flipped.
        crop_area_min: rrc: smallest share of the image's area, in (0, 1].
        mix: "none", "cutmix" or "mixup".
        mix_alpha: The share of the image itself is drawn from Beta(mix_alpha, mix_alpha).
        mix_prob: Share of the images (or batches) that are mixed, in (0, 1].
        batch_size: Which operation acts, and how images are mixed, is drawn once for each batch of so many images, a
            view's last one smaller; None: for each image.
        own_labels: The hard label of a mixed image stays its own.
        strengths: Those of STRENGTHS that differ.
    """

    kind: str
    flips: bool
    crop_area_min: float = 0.08
    mix: str = "none"
    mix_alpha: float = 1.0
    mix_prob: float = 1.0
    batch_size: int | None = None
    own_labels: bool = False
    strengths: Mapping[str, float] = field(default_factory=dict)

    def draw(self, n: int, size: int, generator: torch.Generator) -> Tensor:
        """Rows for one view of n images of `size` pixels, (n, len(COLUMNS))."""
        rows = identity_rows(n)
        u = dict(zip((*COLUMNS, "which"), torch.rand(len(COLUMNS) + 1, n, generator=generator), strict=True))
        alike = torch.arange(n)  # images of one number share what is drawn per batch
        if self.batch_size is not None:
            alike = torch.randperm(n, generator=generator) // self.batch_size
            rows["batch"], u["which"] = alike.float(), u["which"][alike]
        if self.kind == "rrc":
            rows |= _resized_crop(u, self.crop_area_min) | _flip(u, STRENGTHS["flip"])
        elif self.kind != "none":
            rows |= _dsa(u, self.kind, size, STRENGTHS | dict(self.strengths))
        if not self.flips:
            rows["flip"] = torch.zeros(n)
        if self.mix != "none":
            rows |= self._mixing(alike, size, generator)
            rows["own_label"] = torch.full((n,), float(self.own_labels))
        return torch.stack([rows[name] for name in COLUMNS], dim=1)

    def _mixing(self, alike: Tensor, size: int, generator: torch.Generator) -> Rows:
        """A partner, a share and (CutMix) a box of whole pixels for each image; a batch mixes within itself."""
        from scipy.special import betaincinv

        n = len(alike)
        partner = _partners(torch.zeros_like(alike) if self.batch_size is None else alike, generator)
        acts, beta, x, y = torch.rand(4, n, generator=generator)[:, alike]
        share = torch.from_numpy(betaincinv(self.mix_alpha, self.mix_alpha, beta.double().numpy())).float()
        share = torch.where(acts < self.mix_prob, share, 1.0)
        if self.mix == "mixup":
            return {"partner": partner, "share": share}
        half = (1 - share).sqrt() / 2
        left, right, top, bottom = (
            ((centre + sign * half).clamp(0, 1) * size).round() / size for centre in (x, y) for sign in (-1, 1)
        )
        box = {"box_x": left, "box_y": top, "box_w": right - left, "box_h": bottom - top}
        return {"partner": partner, "share": 1 - box["box_w"] * box["box_h"], **box}


def identity_rows(n: int) -> Rows:
    """Rows by column that leave n images as they are."""
    return {name: torch.full((n,), value) for name, value in IDENTITY.items()}


def _partners(group: Tensor, generator: torch.Generator) -> Tensor:
    """For each image another one of its group (or itself), each image once."""
    one, other = (
        torch.argsort(group + torch.rand(len(group), generator=generator, dtype=torch.double)) for _ in range(2)
    )
    return torch.empty(len(group)).scatter_(0, one, other.float())


def _resized_crop(u: Rows, smallest_area: float) -> Rows:
    """A box of random area and aspect ratio inside the image, stretched to its size."""
    area = smallest_area + (1 - smallest_area) * u["scale_x"]
    aspect = torch.exp((2 * u["scale_y"] - 1) * math.log(ASPECT_RATIO))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    shift = {"shift_x": (u["shift_x"] - 0.5) * (1 - width), "shift_y": (u["shift_y"] - 0.5) * (1 - height)}
    return {"scale_x": width, "scale_y": height, **shift, "inside": torch.ones_like(width)}


def _flip(u: Rows, probability: float) -> Rows:
    return {"flip": (u["flip"] < probability).float()}


def _dsa(u: Rows, kind: str, size: int, strength: Mapping[str, float]) -> Rows:
    """Rows of DSA: neutral wherever an operation does not act on an image."""
    names = DSA_OPERATIONS if kind == "dsa" else tuple(re.split("[_+]", kind))
    chosen = ("crop", "scale", "rotate") if kind == "dsa" else names if "+" not in kind else ()
    which, drawn = (u["which"] * len(chosen)).long(), _operations(u, size, strength)
    rows: Rows = {}
    for operation in names:
        acts = which == chosen.index(operation) if operation in chosen else torch.ones_like(which, dtype=torch.bool)
        rows |= {name: torch.where(acts, value, IDENTITY[name]) for name, value in drawn[operation].items()}
    return rows


def _operations(u: Rows, size: int, strength: Mapping[str, float]) -> dict[str, Rows]:
    """What each operation of DSA would draw for each image."""
    most, hole = int(size * strength["crop"] + 0.5), int(size * strength["cutout"] + 0.5)
    largest = strength["scale"]
    return {
        "crop": {
            name: ((2 * most + 1) * u[name] - 0.5).round() / size - most / size for name in ("shift_x", "shift_y")
        },
        "scale": {name: 1 / largest + (largest - 1 / largest) * u[name] for name in ("scale_x", "scale_y")},
        "rotate": {"angle": torch.deg2rad((2 * u["angle"] - 1) * strength["rotate"])},
        "flip": _flip(u, strength["flip"]),
        "color": {
            "brightness": strength["brightness"] * (u["brightness"] - 0.5),
            "saturation": strength["saturation"] * u["saturation"],
            "contrast": strength["contrast"] + u["contrast"],
        },
        "cutout": {
            **{
                name: ((size + 1 - hole % 2) * u[name]).floor() / size + hole % 2 / (2 * size)
                for name in ("cut_x", "cut_y")
            },
            "cut_side": torch.full_like(u["cut_x"], hole / size),
        },
    }


def render(images: Split, view: Tensor, index: Tensor, background: Tensor) -> Tensor:
    """Some images under a view, ready for a network.

    Args:
        images: The distilled set, N images.
        view: Rows of all its images, (N, len(COLUMNS)), on the device of the images.
        index: Which images, (b,).
        background: (channels,) value of a blank pixel, normalised as the images are; zeros are the mean colour.

    Returns:
        (b, channels, H, W).
    """
    own = augment(images.batch(index), view[index], background)
    if not mixes(view):
        return own
    partner = view[index, COLUMNS.index("partner")].long()
    return _mix(own, augment(images.batch(partner), view[partner], background), view[index])


def mixes(view: Tensor) -> bool:
    """True if any image of a view has a partner mixed in."""
    return bool((view[:, COLUMNS.index("share")] < 1).any())


def mix_labels(one_hot: Tensor, view: Tensor) -> Tensor:
    """Labels (N, C) of all images of a view: share y + (1 - share) y of the partner, or y where labels stay."""
    share, partner = view[:, COLUMNS.index("share"), None], view[:, COLUMNS.index("partner")].long()
    share = torch.maximum(share, view[:, COLUMNS.index("own_label"), None])
    return share * one_hot + (1 - share) * one_hot[partner]


def augment(images: Tensor, rows: Tensor, background: Tensor) -> Tensor:
    """Augment images, without mixing; the same rows always give the same pixels.

    Args:
        images: (n, channels, H, W), normalised.
        rows: (n, len(COLUMNS)), on the device of the images.
        background: (channels,) value of a blank pixel, which fills what moves in and what cutout blanks.

    Returns:
        Augmented images, (n, channels, H, W).
    """
    if not _acts(rows):
        return images
    p = dict(zip(COLUMNS, rows.unbind(dim=1), strict=True))
    blank = background.view(1, -1, 1, 1)
    images = _recolor(images, p) - blank
    moved = F.grid_sample(images, _sampling_grid(images, p), align_corners=False) + blank
    return torch.where(_cutout_mask(images, p), blank, moved)


def _acts(rows: Tensor) -> bool:
    """False if the rows leave every image as it is; mixing aside."""
    own = [name for name in COLUMNS if name not in _NOT_OWN and not name.startswith("cut_")]
    neutral = torch.tensor([IDENTITY[name] for name in own], device=rows.device)
    changed = rows[:, [COLUMNS.index(name) for name in own]] != neutral
    return bool(changed.any() or (rows[:, COLUMNS.index("cut_side")] > 0).any())


def _sampling_grid(images: Tensor, p: Rows) -> Tensor:
    """Where each output pixel is read from, (n, H, W, 2), in grid_sample's [-1, 1] coordinates."""
    cos, sin = p["angle"].cos(), p["angle"].sin()
    mirror = 1 - 2 * p["flip"]
    row_x = torch.stack([mirror * p["scale_x"] * cos, -p["scale_x"] * sin, 2 * p["shift_x"]], dim=1)
    row_y = torch.stack([mirror * p["scale_y"] * sin, p["scale_y"] * cos, 2 * p["shift_y"]], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(images.shape), align_corners=False)
    shift = torch.stack([p["shift_x"], p["shift_y"]], dim=1)[:, None, None]
    reach = torch.stack([p["scale_x"], p["scale_y"]], dim=1)[:, None, None] - 1 / images.shape[-1]
    boxed = torch.minimum(torch.maximum(grid, 2 * shift - reach), 2 * shift + reach)
    return torch.where(p["inside"][:, None, None, None] > 0, boxed, grid)


def _cutout_mask(images: Tensor, p: Rows) -> Tensor:
    """True inside each image's blanked square, (n, 1, H, W)."""
    return _box_mask(images, p["cut_x"], p["cut_y"], p["cut_side"], p["cut_side"])


def _box_mask(images: Tensor, x: Tensor, y: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """True where a pixel's centre is inside the box around (x, y), (n, 1, H, W)."""
    side = images.shape[-1]
    position = (torch.arange(side, device=images.device) + 0.5) / side
    inside_x = (position - x[:, None]).abs() < width[:, None] / 2
    inside_y = (position - y[:, None]).abs() < height[:, None] / 2
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]


def _recolor(images: Tensor, p: Rows) -> Tensor:
    """Brightness, then saturation, then contrast, each per image."""
    images = images + p["brightness"][:, None, None, None]
    gray = images.mean(dim=1, keepdim=True)
    images = gray + (images - gray) * p["saturation"][:, None, None, None]
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * p["contrast"][:, None, None, None]


def _mix(own: Tensor, partner: Tensor, rows: Tensor) -> Tensor:
    """CutMix inside a box where there is one, else MixUp."""
    p = dict(zip(COLUMNS, rows.unbind(dim=1), strict=True))
    has_box = (p["box_w"] > 0)[:, None, None, None]
    inside = _box_mask(own, p["box_x"] + p["box_w"] / 2, p["box_y"] + p["box_h"] / 2, p["box_w"], p["box_h"])
    share = p["share"][:, None, None, None]
    blended = share * own + (1 - share) * partner
    return torch.where(has_box, torch.where(inside, partner, own), blended)
