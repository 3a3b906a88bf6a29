"""ResNets of 6n + 2 layers for CIFAR: three stages of n blocks with 16, 32 and 64 channels.

Source: He et al. 2016, arXiv:1512.03385, section 4.2. Names of layers are torchvision's; those of the common CIFAR code (head `linear`)
are brought to them by `trainables.models`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from trainables.names import RESNET_NORMS

STAGES: Final = 3
#: Channels of the first stage.
WIDTH: Final = 16


class PaddedShortcut(nn.Module):
    """Shortcut without parameters (option A): every second pixel, and zeros for the channels that are new, half on each side."""

    def __init__(self, channels: int) -> None:
        """Build it.

        Args:
            channels: Of its output, twice those of its input.
        """
        super().__init__()
        self.missing = channels // 4

    def forward(self, x: Tensor) -> Tensor:
        """(B, W, H, H) to (B, 2 W, ceil(H / 2), ceil(H / 2))."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.missing, self.missing))


class CifarResNet(nn.Module):
    """ResNet of 6n + 2 layers: a 3x3 convolution, three stages of n basic blocks, the mean over positions, a linear layer."""

    def __init__(  # noqa: PLR0913 (what published variants differ in)
        self, *, channels: int, classes: int, blocks: int, norm: str, width: int = WIDTH, pads: bool = True
    ) -> None:
        """Build it, with He et al.'s initial weights.

        Args:
            channels: Of the input images.
            classes: C.
            blocks: n, blocks per stage.
            norm: "batch" or "instance".
            width: Channels of the first stage; each further one has twice as many.
            pads: Shortcuts between stages pad with zeros (option A); else they are 1x1 convolutions with a norm (option B).

        Raises:
            ValueError: If it has no such norm.
        """
        super().__init__()
        if norm not in RESNET_NORMS:
            raise ValueError(f"a ResNet has one of the norms {list(RESNET_NORMS)}, got {norm!r}.")
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = _norm(norm)(width)
        before = width
        for stage in range(STAGES):
            after = width * 2**stage
            first = BasicBlock(
                before, after, 1 + (stage > 0), _shortcut(before, after, norm, pads), norm_layer=_norm(norm)
            )
            rest = [BasicBlock(after, after, norm_layer=_norm(norm)) for _ in range(blocks - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
            before = after
        self.fc = nn.Linear(before, classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, H, W)."""
        x = F.relu(self.bn1(self.conv1(images)))
        for stage in range(STAGES):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _norm(norm: str) -> type[nn.BatchNorm2d] | type[InstanceNorm]:
    return nn.BatchNorm2d if norm == "batch" else InstanceNorm


class InstanceNorm(nn.GroupNorm):
    """Group norm with a group per channel."""

    def __init__(self, width: int) -> None:
        """Build it.

        Args:
            width: Channels.
        """
        super().__init__(width, width)


def _shortcut(before: int, after: int, norm: str, pads: bool) -> nn.Module | None:
    """What brings the input of a stage to the shape of its output; None where it has that already."""
    if before == after:
        return None
    if pads:
        return PaddedShortcut(after)
    return nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), _norm(norm)(after))


@dataclass(frozen=True, slots=True)
class CifarResNetFound:
    """What the tensors of such a ResNet say; arguments of `CifarResNet`."""

    channels: int
    classes: int
    blocks: int
    width: int
    pads: bool

    @property
    def layers(self) -> int:
        """6n + 2."""
        return 2 * STAGES * self.blocks + 2


def cifar_resnet_in(weights: Mapping[str, Tensor]) -> CifarResNetFound | None:
    """The ResNet of 6n + 2 layers that has these tensors, by torchvision's names, or None."""
    found = [re.fullmatch(r"layer(\d)\.(\d+)\.conv2\.weight", key) for key in weights]
    numbers = {(int(m[1]), int(m[2])) for m in found if m}
    blocks = len(numbers) // STAGES
    head, stem = weights.get("fc.weight"), weights.get("conv1.weight")
    is_whole = numbers == {(stage + 1, block) for stage in range(STAGES) for block in range(blocks)}
    if not numbers or not is_whole or head is None or stem is None or "layer1.0.conv3.weight" in weights:
        return None
    if head.ndim != 2 or stem.ndim != 4 or head.shape[1] != stem.shape[0] * 2 ** (STAGES - 1):
        return None
    pads = "layer2.0.downsample.0.weight" not in weights
    return CifarResNetFound(stem.shape[1], head.shape[0], blocks, stem.shape[0], pads)
