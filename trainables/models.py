"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from trainables.names import NORM_GROUPS, NORMS, STUDENTS

_NORM_LAYERS: Final[Mapping[str, Callable[[int], nn.Module]]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(NORM_GROUPS, width),
    "instance": lambda width: nn.GroupNorm(width, width),
    "layer": lambda width: nn.GroupNorm(1, width),
    "none": lambda width: nn.Identity(),
}


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What a network must fit.

    Attributes:
        channels: Of the input images.
        classes: C, logits per image.
        image_size: Side of the square images, pixels.
    """

    channels: int
    classes: int
    image_size: int


class ConvNet(nn.Module):
    """The plain network of the distillation literature: depth x (conv 3x3, norm, ReLU, average pool 2), linear.

    Source: Gidaris and Komodakis 2018, arXiv:1804.09458; width 128, instance norm in Zhao et al. 2021, arXiv:2006.05929.
    """

    def __init__(self, shape: ModelShape, *, depth: int, width: int, norm: str) -> None:
        """Build it; the image side must be at least 2 ** depth pixels."""
        super().__init__()
        size, channels = shape.image_size, shape.channels
        if size < 2**depth:
            raise ValueError(f"convnet{depth} halves the image {depth} times, got {size} pixels; use a smaller depth.")
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, width, 3, padding=1), _NORM_LAYERS[norm](width), nn.ReLU(), nn.AvgPool2d(2)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * (size // 2**depth) ** 2, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, H, W)."""
        logits: Tensor = self.classifier(self.features(images).flatten(1))
        return logits


def make_model(name: str, shape: ModelShape, *, width: int, norm: str) -> nn.Module:
    """A freshly initialised network; draws from the global generator (see `seeding.seeded_globals`).

    Raises:
        ValueError: If the name or the norm is unknown, or the image is too small for the depth.
    """
    if name not in STUDENTS:
        raise ValueError(f"unknown model {name!r}; valid: {list(STUDENTS)}.")
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; valid: {list(NORMS)}.")
    return ConvNet(shape, depth=int(name.removeprefix("convnet")), width=width, norm=norm)
