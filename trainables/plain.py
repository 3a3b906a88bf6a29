"""Plain networks of the distillation literature: MLP, LeNet, AlexNet and VGG for small images.

Their parameters have the names of the published code (DC and what follows it; VGG also of the common CIFAR code), so that its checkpoints
load. The first linear layer grows with the image, and images of 28 pixels are padded to 32 by the first convolution, as published.

Source: Zhao et al. 2021 (DC), arXiv:2006.05929, whose LeNet, AlexNet and VGG-11 are small versions of LeCun et al. 1998, Krizhevsky et
al. 2012 and Simonyan and Zisserman 2015 (arXiv:1409.1556).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn

from trainables.names import PADDED_SIDE, RESNET_NORMS

#: Largest side of images that is looked for, pixels.
MOST_SIDE: Final = 1024
#: A convolution: channels, side of its kernel, padding. None is a max pool, which halves the side.
Layer = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Layers of a plain network.

    Attributes:
        convolutions: Convolutions, each followed by a ReLU, and max pools.
        heads: Names of the linear layers; all but the last are followed by a ReLU.
        hidden: Units of all linear layers but the last.
        has_norm: A norm stands between each convolution and its ReLU.
    """

    convolutions: Sequence[Layer]
    heads: Sequence[str]
    hidden: Sequence[int] = ()
    has_norm: bool = False


def _vgg(*stages: Sequence[int]) -> Plan:
    """Stages of 3x3 convolutions, each ended by a pool."""
    layers = [layer for stage in stages for layer in (*((width, 3, 1) for width in stage), None)]
    return Plan(layers, ("classifier",), has_norm=True)


_FC: Final = ("fc_1", "fc_2", "fc_3")
PLANS: Final[Mapping[str, Plan]] = {
    "mlp": Plan((), _FC, (128, 128)),
    "lenet": Plan(((6, 5, 0), None, (16, 5, 0), None), _FC, (120, 84)),
    "alexnet": Plan(
        ((128, 5, 2), None, (192, 5, 2), None, (256, 3, 1), (192, 3, 1), (192, 3, 1), None),
        ("fc",),
    ),
    "vgg11": _vgg([64], [128], [256] * 2, [512] * 2, [512] * 2),
    "vgg13": _vgg([64] * 2, [128] * 2, [256] * 2, [512] * 2, [512] * 2),
    "vgg16": _vgg([64] * 2, [128] * 2, [256] * 3, [512] * 3, [512] * 3),
    "vgg19": _vgg([64] * 2, [128] * 2, [256] * 4, [512] * 4, [512] * 4),
}


class Plain(nn.Module):
    """Convolutions with ReLU and max pools, then linear layers; see `PLANS`."""

    def __init__(self, name: str, *, channels: int, classes: int, image_size: int, norm: str) -> None:
        """Build it, with PyTorch's initial weights.

        Args:
            name: A key of PLANS.
            channels: Of the input images.
            classes: C.
            image_size: Side of the images, pixels.
            norm: "batch" or "instance"; for networks that have a norm.

        Raises:
            ValueError: If the images are too small, or it has no such norm.
        """
        super().__init__()
        plan = PLANS[name]
        if plan.has_norm and norm not in RESNET_NORMS:
            raise ValueError(f"{name} has one of the norms {list(RESNET_NORMS)}, got {norm!r}.")
        if (inputs := inputs_of(name, channels, image_size)) < 1:
            raise ValueError(f"{name} halves images more often than their {image_size} pixels allow.")
        layers: list[nn.Module] = []
        extra = (PADDED_SIDE[image_size] - image_size) // 2 if image_size in PADDED_SIDE else 0
        for layer in plan.convolutions:
            if layer is None:
                layers.append(nn.MaxPool2d(2))
                continue
            width, side, padding = layer
            layers.append(nn.Conv2d(channels, width, side, padding=padding + extra))
            layers += [_norm(norm, width)] * plan.has_norm + [nn.ReLU()]
            channels, extra = width, 0
        self.features = nn.Sequential(*layers)
        units = [inputs, *plan.hidden, classes]
        for head, before, after in zip(plan.heads, units, units[1:], strict=False):
            self.add_module(head, nn.Linear(before, after))
        self.heads = list(plan.heads)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, H, W)."""
        x = self.features(images).flatten(1)
        *hidden, last = (self.get_submodule(head) for head in self.heads)
        for layer in hidden:
            x = F.relu(layer(x))
        logits: Tensor = last(x)
        return logits


def _norm(norm: str, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if norm == "batch" else nn.GroupNorm(width, width)


def inputs_of(name: str, channels: int, image_size: int) -> int:
    """Numbers that the first linear layer sees; 0 where images are too small.

    Args:
        name: A key of PLANS.
        channels: Of the images.
        image_size: Side of the images, pixels.
    """
    layers = PLANS[name].convolutions
    side = PADDED_SIDE.get(image_size, image_size) if layers else image_size
    for layer in layers:
        side = side // 2 if layer is None else side + 2 * layer[2] - layer[1] + 1
        channels = channels if layer is None else layer[0]
    return channels * max(0, side) ** 2


@dataclass(frozen=True, slots=True)
class PlainFound:
    """What the tensors of a plain network say.

    Attributes:
        name: A key of PLANS.
        norm: "batch", "instance" or "none".
        channels: Of the images.
        classes: C.
        inputs: Numbers that its first linear layer sees.
        image_size: Smallest side of images that give so many, pixels; None where there is none.
    """

    name: str
    norm: str
    channels: int
    classes: int
    inputs: int
    image_size: int | None


def plain_in(weights: Mapping[str, Tensor]) -> PlainFound | None:
    """The plain network that has these tensors, or None."""
    names = [name for name, plan in PLANS.items() if _is_like(weights, plan)]
    if not names:
        return None
    name, heads = names[0], PLANS[names[0]].heads
    first, last = (weights[f"{heads[at]}.weight"] for at in (0, -1))
    inputs = first.shape[1]
    channels = weights["features.0.weight"].shape[1] if PLANS[name].convolutions else _channels(inputs)
    sides = (side for side in range(1, MOST_SIDE + 1) if side not in PADDED_SIDE or not PLANS[name].convolutions)
    size = next((side for side in sides if inputs_of(name, channels, side) == inputs), None)
    norm = "none"
    if PLANS[name].has_norm:
        norm = "batch" if "features.1.running_mean" in weights else "instance"
    return PlainFound(name, norm, channels, last.shape[0], inputs, size)


def _channels(pixels: int) -> int:
    """Of images whose numbers an MLP sees: gray where they are a square."""
    return 1 if math.isqrt(pixels) ** 2 == pixels else 3


def _is_like(weights: Mapping[str, Tensor], plan: Plan) -> bool:
    """True if the layers have the names of a plan, and its convolutions the shapes."""
    heads = {key for key in weights if key.endswith(".weight") and "features" not in key}
    if heads != {f"{head}.weight" for head in plan.heads} or any(weights[head].ndim != 2 for head in heads):
        return False
    convolutions = {key: value.shape for key, value in weights.items() if value.ndim == 4}
    expected, number = {}, 0
    for layer in plan.convolutions:
        if layer is not None:
            expected[f"features.{number}.weight"] = (layer[0], layer[1])
        number += 1 if layer is None else 2 + plan.has_norm
    return {key: (shape[0], shape[2]) for key, shape in convolutions.items()} == expected
