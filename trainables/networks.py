"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from trainables.cifar_resnet import CifarResNet
from trainables.names import (
    ACTIVATIONS,
    CIFAR_RESNETS,
    CONVNETS,
    NORM_GROUPS,
    NORMS,
    PLAIN,
    POOLINGS,
    RESNET_NORMS,
    SMALL_STEMS,
    STUDENTS,
    WITHOUT_NORM,
)
from trainables.plain import Plain

_POOLS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "avg": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.MaxPool2d(2),
}
_ACTIVATIONS: Final[Mapping[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
}

#: Of SMALL_STEMS, those with bottleneck in place of basic blocks.
BOTTLENECKS: Final = ("resnet50_modified",)


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
    """The plain network of the distillation literature: depth x (conv 3x3, norm, activation, pool 2), linear.

    Its parameters have the names of one of the two published layouts: "features" (one sequence; DC, MTT, DATM) or
    "layers" (all convolutions, then all norms; IDC, RDED, GIFT).

    Source: Gidaris and Komodakis 2018, arXiv:1804.09458; width 128, instance norm in Zhao et al. 2021, arXiv:2006.05929.
    """

    def __init__(  # noqa: PLR0913 (what published variants differ in)
        self,
        shape: ModelShape,
        *,
        depth: int,
        width: int,
        norm: str,
        layout: str = "features",
        pools: bool = True,
        pools_globally: bool = False,
        pooling: str = "avg",
        activation: str = "relu",
        first_padding: int = 1,
    ) -> None:
        """Build it.

        Args:
            shape: What it must fit; the image side must be at least 2 ** depth pixels if it pools.
            depth: Blocks.
            width: Channels per convolution.
            norm: A name of NORMS.
            layout: "features" or "layers".
            pools: Every block ends with a pool, which halves the side.
            pools_globally: The classifier sees the mean over positions (ConvNetGAP).
            pooling: Pool of a block, a name of POOLINGS.
            activation: Activation of a block, a name of ACTIVATIONS; leaky_relu has slope 0.01.
            first_padding: Of the first convolution; 3 for 28-pixel images in the published code.

        Raises:
            ValueError: If the image is too small, or a name is unknown.
        """
        super().__init__()
        for what, kind, valid in (("pooling", pooling, POOLINGS), ("activation", activation, ACTIVATIONS)):
            if kind not in valid:
                raise ValueError(f"unknown {what} {kind!r}; valid: {list(valid)}.")
        side, channels = shape.image_size + 2 * first_padding - 2, shape.channels
        if pools and side < 2**depth:
            raise ValueError(f"convnet{depth} halves the image {depth} times, got {side} pixels; use a smaller depth.")
        blocks: list[list[nn.Module]] = []
        for number in range(depth):
            convolution = nn.Conv2d(channels, width, 3, padding=first_padding if number == 0 else 1)
            after = [*_norm_layers(norm, width, side), _ACTIVATIONS[activation](), *[_POOLS[pooling]()] * pools]
            blocks.append([convolution, *after])
            side, channels = side // 2 if pools else side, width
        if layout == "features":
            self.features = nn.Sequential(*(layer for block in blocks for layer in block))
        else:
            norms = [block[1] for block in blocks] if norm != "none" else []
            self.layers = nn.ModuleDict({"conv": nn.ModuleList(b[0] for b in blocks), "norm": nn.ModuleList(norms)})
            self.activation, self.pool = _ACTIVATIONS[activation](), _POOLS[pooling]()
        self.pools, self.pools_globally = pools, pools_globally
        self.classifier = nn.Linear(width if pools_globally else width * side**2, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, C) of images (B, channels, H, W)."""
        features = self.features(images) if hasattr(self, "features") else self._through_layers(images)
        flat = features.mean(dim=(2, 3)) if self.pools_globally else features.flatten(1)
        logits: Tensor = self.classifier(flat)
        return logits

    def _through_layers(self, x: Tensor) -> Tensor:
        convolutions, norms = self.layers["conv"], self.layers["norm"]
        assert isinstance(convolutions, nn.ModuleList)
        assert isinstance(norms, nn.ModuleList)
        for number, convolution in enumerate(convolutions):
            x = convolution(x)
            x = self.activation(norms[number](x) if len(norms) else x)
            x = self.pool(x) if self.pools else x
        return x


def _norm_layers(norm: str, width: int, side: int) -> list[nn.Module]:
    """One layer, or none."""
    if norm == "batch":
        return [nn.BatchNorm2d(width)]
    if norm == "layer":
        return [nn.LayerNorm([width, side, side])]
    groups = {"group": NORM_GROUPS, "instance": width}
    return [nn.GroupNorm(groups[norm], width)] if norm != "none" else []


def make_resnet(
    shape: ModelShape, *, blocks: Sequence[int], norm: str, small: bool, bottleneck: bool = False, **groups: int
) -> nn.Module:
    """Torchvision's ResNet.

    Args:
        shape: What it must fit.
        blocks: Blocks per stage.
        norm: "batch" or "instance".
        small: For small images: first convolution 3x3 with stride 1, no max pool (`resnet18_modified`).
        bottleneck: Bottleneck instead of basic blocks.
        **groups: torchvision's `groups` and `width_per_group`.

    Source: He et al. 2016, arXiv:1512.03385; the small stem as in the distillation literature (Cazenavette et al. 2022).
    """
    from torchvision.models import resnet

    def instance(width: int) -> nn.Module:
        return nn.GroupNorm(width, width)

    block = resnet.Bottleneck if bottleneck else resnet.BasicBlock
    if norm not in RESNET_NORMS:
        raise ValueError(f"a ResNet has one of the norms {list(RESNET_NORMS)}, got {norm!r}.")
    model: nn.Module = resnet.ResNet(
        block, list(blocks), num_classes=shape.classes, norm_layer=instance if norm == "instance" else None, **groups
    )
    if small:
        model.conv1 = nn.Conv2d(shape.channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    elif shape.channels != 3:
        model.conv1 = nn.Conv2d(shape.channels, 64, 7, stride=2, padding=3, bias=False)
    return model


def make_model(name: str, shape: ModelShape, *, width: int | None, norm: str | None, **operations: Any) -> nn.Module:
    """A freshly initialised network; draws from the global generator (see `seeding.seeded_globals`).

    Args:
        name: A name of STUDENTS, torchvision/NAME or timm/NAME for any classifier of those libraries.
        shape: What it must fit.
        width: Channels per convolution of a convnet; ignored by others.
        norm: A name of NORMS, for convnets, ResNets and VGG; ignored by others.
        **operations: `pooling` and `activation` of a convnet, which others do not take.

    Raises:
        ValueError: If the name or the norm is unknown, or the network cannot take such images.
    """
    library, _, rest = name.partition("/")
    if operations and name not in CONVNETS:
        raise ValueError(f"{' and '.join(operations)}: only a convnet has a choice, {name} has its own; leave it out.")
    if library in ("torchvision", "timm") and rest:
        return _make_foreign(library, rest, shape)
    if name not in STUDENTS:
        raise ValueError(f"unknown model {name!r}; valid: {list(STUDENTS)}, torchvision/NAME, timm/NAME.")
    if name in WITHOUT_NORM:
        norm = "none"
    if norm not in NORMS:
        raise ValueError(f"unknown norm {norm!r}; valid: {list(NORMS)}.")
    if name in CONVNETS:
        if width is None:
            raise ValueError(f"{name} needs a width, got None.")
        return ConvNet(shape, depth=CONVNETS[name], width=width, norm=norm, **operations)
    if name in PLAIN:
        return Plain(name, channels=shape.channels, classes=shape.classes, image_size=shape.image_size, norm=norm)
    if name in CIFAR_RESNETS:
        blocks = CIFAR_RESNETS[name]
        return CifarResNet(channels=shape.channels, classes=shape.classes, blocks=blocks, norm=norm)
    return make_resnet(shape, blocks=SMALL_STEMS[name], norm=norm, small=True, bottleneck=name in BOTTLENECKS)


def _make_foreign(library: str, name: str, shape: ModelShape) -> nn.Module:
    """A classifier of timm or torchvision, tried on one image."""
    try:
        model = (_make_timm if library == "timm" else _make_torchvision)(name, shape)
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, shape.channels, shape.image_size, shape.image_size))
    except (RuntimeError, ValueError, TypeError, AssertionError) as err:
        raise ValueError(
            f"{library}/{name} cannot be built for {shape.channels} x {shape.image_size} x {shape.image_size} pixels "
            f"and {shape.classes} classes: {' '.join(str(err).split())[:300]}" + _small_twin(name)
        ) from err
    if tuple(getattr(logits, "shape", ())) != (1, shape.classes):
        raise ValueError(f"{library}/{name} is no classifier that gives one row of logits per image.")
    return model.train()


def _small_twin(name: str) -> str:
    """Which of our networks is the same one for small images, in words."""
    twin = next((ours for ours in (name, f"{name}_modified") if ours in STUDENTS), None)
    return f"; the published network for small images is {twin}." if twin else ""


def _make_timm(name: str, shape: ModelShape) -> nn.Module:
    import timm

    asked: dict[str, Any] = {"pretrained": False, "num_classes": shape.classes, "in_chans": shape.channels}
    try:
        return timm.create_model(name, img_size=shape.image_size, **asked)
    except TypeError:  # networks that take any size have no such argument
        return timm.create_model(name, **asked)


def _make_torchvision(name: str, shape: ModelShape) -> nn.Module:
    from torchvision import models

    asked: dict[str, Any] = {"image_size": shape.image_size} if name.startswith("vit") else {}
    if name in ("googlenet", "inception_v3"):  # their second heads would be trained by losses of their own
        asked = {"aux_logits": False, "init_weights": True}
    model: nn.Module = models.get_model(name, weights=None, num_classes=shape.classes, **asked)
    if shape.channels != 3:
        _replace_first_convolution(model, shape.channels)
    return model


def _replace_first_convolution(model: nn.Module, channels: int) -> None:
    """Give a network's first convolution another number of input channels."""
    name, old = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    parent, _, attribute = name.rpartition(".")
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        stride=old.stride,  # type: ignore[arg-type]
        padding=old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    setattr(model.get_submodule(parent), attribute, new)
