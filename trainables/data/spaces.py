"""Pixel spaces: what a teacher's networks were trained to see, and how ready images are brought there.

Notations: x pixels in [0, 1]; D = channels H W; W a whitening (D + 1, D): y = (x, 1) W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from trainables.data.real import RealData, normalise

#: Constants of published code by number of channels: (mean, std), of pixels in [0, 1].
COMMON: Final[dict[int, dict[str, tuple[Sequence[float], Sequence[float]]]]] = {
    3: {
        "CIFAR-10's constants": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
        "CIFAR-100's constants": ((0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)),
        "ImageNet's constants": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "mean 0.5 and std 0.5": ((0.5,) * 3, (0.5,) * 3),
        "pixels 0 to 1": ((0.0,) * 3, (1.0,) * 3),
    },
    1: {
        "MNIST's constants": ((0.1307,), (0.3081,)),
        "FashionMNIST's constants": ((0.2861,), (0.3530,)),
        "mean 0.5 and std 0.5": ((0.5,), (0.5,)),
        "pixels 0 to 1": ((0.0,), (1.0,)),
    },
}
#: How the spaces that depend on the real images are called.
OWN: Final = "the real data's own mean and std"
WHITENED: Final = "whitened (zca)"


@dataclass(frozen=True, slots=True)
class PixelSpace:
    """Pixels as a network was trained on them.

    Attributes:
        name: For people.
        mean, std: (channels,), of pixels in [0, 1]; None for whitened ones.
    """

    name: str
    mean: Tensor | None = None
    std: Tensor | None = None


@dataclass(frozen=True, slots=True)
class View:
    """How ready images become what a network sees: through the real data's `linear` map or not, then scale x + shift."""

    uses_linear: bool
    scale: Tensor
    shift: Tensor


def own_space(real: RealData) -> PixelSpace:
    """Plain pixels normalised with the real images' own constants."""
    plain = real if real.test.whitening is None else normalise(real)
    return PixelSpace(OWN, plain.mean, plain.std)


def possible_spaces(
    real: RealData, *, stated: str | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[PixelSpace], list[PixelSpace]]:
    """Spaces that were stated, and all that are possible, the default first.

    Args:
        real: Normalised or whitened data.
        stated: "raw01", "meanstd", "zca" or None.
        mean: Constants that were stated, one per channel; None: not.
        std: As `mean`.

    Raises:
        ValueError: If constants do not fit the channels.
    """
    channels = real.test.images.shape[1]
    own, white = own_space(real), PixelSpace(WHITENED)
    common = [PixelSpace(n, torch.tensor(m), torch.tensor(s)) for n, (m, s) in COMMON.get(channels, {}).items()]
    raw = PixelSpace("pixels 0 to 1", torch.zeros(channels), torch.ones(channels))
    plain = [own, *(space for space in common if space.name != raw.name), raw]
    is_white = real.test.whitening is not None
    every = [white, *plain] if is_white else plain
    if mean is not None and std is not None:
        if not len(mean) == len(std) == channels:
            raise ValueError(
                f"teacher: mean and std need one number per channel ({channels}), got {len(mean)}, {len(std)}."
            )
        given = PixelSpace("the constants that were stated", torch.tensor(list(mean)), torch.tensor(list(std)))
        return [given], [given, *every]
    by_name = {"zca": [white], "raw01": [raw], "meanstd": plain[:-1]}
    chosen = by_name[stated] if stated else every
    return chosen, [*chosen, *(space for space in every if not any(space is one for one in chosen))]


def view_of(space: PixelSpace, real: RealData) -> View:
    """How ready images of these data become what a network of a space sees."""
    ones = torch.ones(real.test.images.shape[1])
    is_white = real.test.whitening is not None
    if space.mean is None or space.std is None:
        return View(not is_white, ones, 0 * ones)
    if is_white:
        return View(True, 1 / space.std, -space.mean / space.std)
    return View(False, real.std / space.std, (real.mean - space.mean) / space.std)


def linear_map(real: RealData, whitening: Tensor | None) -> Tensor:
    """(D + 1, D): from whitened images to pixels in [0, 1]; or from normalised images to whitened ones.

    Un-whitening is the inverse map: W is symmetric and positive definite, as kornia's is.

    Args:
        real: Whitened or normalised data.
        whitening: W, for data that are not whitened.

    Raises:
        ValueError: If the data are not whitened and there is no W.
    """
    own = real.test.whitening
    if own is not None:
        inverse = torch.linalg.inv(own[:-1].double())
        return torch.cat([inverse, -(own[-1:].double() @ inverse)]).float()
    if whitening is None:
        raise ValueError("teacher.pixel_space: zca needs real images as bytes, with a train split to fit it on.")
    side = real.size**2
    std, mean = (values.double().repeat_interleave(side) for values in (real.std, real.mean))
    weight = whitening[:-1].double()
    return torch.cat([std[:, None] * weight, (mean @ weight + whitening[-1].double())[None]]).float()


def through(linear: Tensor, images: Tensor) -> Tensor:
    """Images (B, channels, H, W) through a map (D + 1, D): (x, 1) L."""
    return (images.flatten(1) @ linear[:-1] + linear[-1]).view(images.shape)
