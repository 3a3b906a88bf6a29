"""RDED: a distilled set of the most realistic crops of real images, a few of them stitched into each image."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.evaluate import predict_logits
from trainables.seeding import make_generator
from trainables.splits import Split

SMALLEST_AREA: Final = 0.08


def make_rded(  # noqa: PLR0913 (the method's settings by name)
    train: Split, teacher: nn.Module, *, ipc: int, crops: int, factor: int, pool: int, classes: int, seed: int
) -> Split:
    """The most realistic crops of each class, `factor`^2 to an image.

    Of every real image `crops` random square crops are scored by the teacher's cross-entropy; the crop with the lowest
    stands for the image. The ipc factor^2 images with the lowest are kept, best first, and stitched in that order, so
    at the same seed a smaller set is the beginning of a larger one.

    Args:
        train: Real images to take crops from.
        teacher: Judges realism.
        ipc: Images per class.
        crops: Crops tried per real image.
        factor: Side of the mosaic: each image holds factor^2 crops of 1 / factor the side, which it must divide.
        pool: Real images per class, at most, that crops are taken from.
        classes: C.
        seed: Which images and crops.

    Returns:
        ipc images of each class, class by class, ready as `train.batch` gives them.

    Raises:
        ValueError: If a class has fewer than ipc factor^2 training images.

    Source: Sun et al. 2024, arXiv:2312.03526, section 3.2.
    Differs: crops are drawn for the whole class at once, each with its own position and area.
    """
    generator = make_generator("rded", seed)
    made = [_make_class(train, teacher, label, ipc, crops, factor, pool, generator) for label in range(classes)]
    labels = torch.arange(classes).repeat_interleave(ipc)
    return Split(torch.cat(made), labels.to(train.labels.device))


def _make_class(  # noqa: PLR0913
    train: Split,
    teacher: nn.Module,
    label: int,
    ipc: int,
    crops: int,
    factor: int,
    pool: int,
    generator: torch.Generator,
) -> Tensor:
    """Images of one class, (ipc, channels, H, W)."""
    members = (train.labels == label).nonzero().flatten()
    needed = ipc * factor**2
    if min(len(members), pool) < needed:
        raise ValueError(
            f"rded: `ipc * factor^2` must be at most {min(len(members), pool)} (training images of class {label}, at "
            f"most pool), got {needed}."
        )
    chosen = members[torch.randperm(len(members), generator=generator)[:pool]]
    images = train.batch(chosen)
    size = images.shape[-1]
    cut = torch.stack([random_crops(images, size // factor, generator) for _ in range(crops)])
    seen = F.interpolate(cut.flatten(0, 1), size=(size, size), mode="bilinear", align_corners=False)
    target = torch.full((len(seen),), label, device=seen.device)
    loss = F.cross_entropy(predict_logits(teacher, seen), target, reduction="none").view(crops, -1)
    best, which = loss.min(dim=0)
    kept = cut[which, torch.arange(cut.shape[1])][best.argsort(stable=True)[:needed]]
    return stitch(kept, factor)


def random_crops(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """One square crop of each image, resampled to (n, channels, size, size); its area is 8 to 100 % of the image's."""
    u = torch.rand(3, len(images), generator=generator).to(images.device)
    side = (SMALLEST_AREA + (1 - SMALLEST_AREA) * u[0]).sqrt()
    x, y = ((2 * v - 1) * (1 - side) for v in u[1:])
    zero = torch.zeros_like(side)
    theta = torch.stack([torch.stack([side, zero, x], dim=1), torch.stack([zero, side, y], dim=1)], dim=1)
    grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def stitch(patches: Tensor, factor: int) -> Tensor:
    """Mosaics of factor x factor patches in reading order: (n factor^2, c, h, w) to (n, c, factor h, factor w)."""
    n, (c, h, w) = len(patches) // factor**2, patches.shape[1:]
    rows = patches.view(n, factor, factor, c, h, w).permute(0, 3, 1, 4, 2, 5)
    return rows.reshape(n, c, factor * h, factor * w)
