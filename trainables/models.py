"""Models that people bring: read a checkpoint safely, recognise the architecture from its keys, load it strictly.

Recognised: convnets in both published layouts, the MLP, LeNet, AlexNet and VGG of the distillation literature, ResNets with
torchvision's names, with those of the distillation repositories, and of 6n + 2 layers for CIFAR. Wrappers (`model`, `state_dict`, `net`, `model_state_dict`) and prefixes (`module.`,
`_orig_mod.`; `model.` and `net.`, which Lightning adds, where every key has one) are taken off.

Keys do not tell operations without parameters: pooling, activation, and group norm from instance norm; see `operations_of`.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor, nn

from trainables.cifar_resnet import CifarResNet, cifar_resnet_in
from trainables.experts import expert_weights, is_buffer
from trainables.names import ACTIVATIONS, NORM_GROUPS, POOLINGS
from trainables.networks import ConvNet, ModelShape, make_model, make_resnet
from trainables.plain import PLANS, Plain, inputs_of, plain_in
from trainables.unpickling import safe_load as safe_load

#: Fewer pixels than any image has: a classifier that wide sees the mean over positions (ConvNetGAP).
SMALLEST_SIDE: Final = 8
Weights = dict[str, Tensor]
_WRAPPERS: Final = ("model", "state_dict", "net", "model_state_dict")
_PREFIXES: Final = ("module.", "_orig_mod.")
#: Names under which training code keeps a network as an attribute, so that all of its keys begin with it.
_ATTRIBUTES: Final = ("model.", "net.", "network.")
#: Keys under which files keep the accuracy of their network on test images, as a fraction or in percent.
_ACCURACIES: Final = ("acc", "best_acc", "best_acc1", "best_prec1", "acc1", "test_acc", "accuracy")
#: Keys of the networks that are recognised, by family.
_FAMILIES: Final = {
    "convnet (features)": r"features\.\d+\.\w+|classifier\.(weight|bias)",
    "convnet (layers)": r"layers\.(conv|norm)\.\d+\.\w+|classifier\.(weight|bias)",
    "plain network": r"features\.\d+\.\w+|(fc_[123]|fc|classifier)\.(weight|bias)",
    "resnet": r"(conv1|bn1)\.\w+|layer[1-4]\.\d+\.((conv|bn)[123]|(downsample|shortcut)\.[01])\.\w+|(fc|linear|classifier)\.\w+",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the keys and shapes of a checkpoint say.

    Attributes:
        name: convnet3, resnet18, resnet18_modified, ...
        layout: Whose names the parameters have.
        norm: "batch", "instance", "layer" or "none"; group norm with 4 groups looks like "instance".
        width: Channels of a convnet's convolutions.
        channels: Of the input images.
        classes: C.
        image_size: Side in pixels where the classifier tells it, else None. Published code pads 28-pixel gray images
            to 32, which it counts as.
        details: Further arguments of the constructor.
    """

    name: str
    layout: str
    norm: str
    width: int
    channels: int
    classes: int
    image_size: int | None
    details: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network's tensors by name, and the accuracy that the file states of it, a fraction; None where it states none."""

    weights: Weights
    accuracy: float | None = None


def read_weights(path: Path, *, expert: int | None = None, epoch: int | None = None) -> Weights:
    """A network's tensors by name; see `read_checkpoint`."""
    return read_checkpoint(path, expert=expert, epoch=epoch).weights


def read_checkpoint(path: Path, *, expert: int | None = None, epoch: int | None = None) -> Checkpoint:
    """A network's tensors by name, out of any wrapper, or out of an expert buffer.

    Args:
        path: A file of torch.save.
        expert: Of an expert buffer; None: the first.
        epoch: Of an expert buffer; None: the last.

    Raises:
        ValueError: As `safe_load`, or if there is no such network in the file, or a weight is NaN or infinite.
    """
    content = safe_load(path)
    if is_buffer(content):
        content = expert_weights(content, path, expert=expert or 0, epoch=epoch)
    elif (expert, epoch) != (None, None):
        raise ValueError(
            f"{path}: teacher.epoch and teacher.expert are of expert buffers, which this is not; leave them out, or write "
            "{epoch} into the path of a file per epoch."
        )
    return Checkpoint(weights_of(content, path), _accuracy_in(content))


def _accuracy_in(content: Any) -> float | None:
    """The accuracy that a checkpoint states, as a fraction: numbers above 1 are percent."""
    for key in _ACCURACIES:
        value = content.get(key) if isinstance(content, Mapping) else None
        value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            number = float(value)
            fraction = number / 100 if number > 1 else number
            return fraction if 0 <= fraction <= 1 else None
    return None


def weights_of(content: Any, path: Path) -> Weights:
    """The network in what `safe_load` gave; see `read_weights`."""
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"{path}: no network in it; expected tensors by name, bare or under {list(_WRAPPERS)}.")
    weights = _without_attribute({_without_prefixes(str(key)): value for key, value in content.items()})
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(f"{path}: {key} has values that are NaN or infinite.")
    return weights


def _without_prefixes(key: str) -> str:
    while key.startswith(_PREFIXES):
        key = key.partition(".")[2]
    return key


def _without_attribute(weights: Weights) -> Weights:
    """Keys without the name of the attribute that held the network, where all of them begin with it."""
    for name in _ATTRIBUTES:
        if all(key.startswith(name) for key in weights):
            return _without_attribute(
                {_without_prefixes(key.removeprefix(name)): value for key, value in weights.items()}
            )
    return weights


def recognise(weights: Mapping[str, Tensor]) -> Architecture | None:
    """The architecture that has these tensors, or None."""
    for recogniser in (_recognise_plain, _recognise_convnet, _recognise_resnet):
        if (found := recogniser(weights)) is not None:
            return found
    return None


def load_checkpoint(  # noqa: PLR0913 (what it must fit, and where in the file it is)
    path: str | Path,
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: str | None = None,
    expert: int | None = None,
    epoch: int | None = None,
) -> nn.Module:
    """A network with a checkpoint's weights, in evaluation mode.

    Args:
        path: A file of torch.save.
        classes: C the network must have.
        channels: Of the images it must take.
        image_size: Side of the images it must take, pixels.
        name: Of the network (torchvision/NAME, timm/NAME) where the keys do not tell.
        expert: Of an expert buffer, from 0; None: the first.
        epoch: Of an expert buffer, 0 is untrained; None: the last.

    Raises:
        ValueError: If the file is refused or damaged, the network is not recognised, does not fit, or a tensor is
            missing, left over or of another shape.
    """
    path = Path(path)
    weights = read_weights(path, expert=expert, epoch=epoch)
    return network_from(weights, ModelShape(channels, classes, image_size), name=name, source=str(path))


def network_from(
    weights: Weights, shape: ModelShape, *, name: str | None, source: str, operations: Mapping[str, str] | None = None
) -> nn.Module:
    """A network with these weights, in evaluation mode; as `load_checkpoint`, which reads them from a file `source`.

    Args:
        weights: Tensors by name.
        shape: What the network must fit.
        name: Of the network, where the keys do not tell.
        source: Of the weights, for messages.
        operations: `pooling`, `activation` and `norm` of a convnet, as `operations_of` lists them; None: the published default.

    Raises:
        ValueError: As `load_checkpoint`, or if the network has no such operations.
    """
    found = None if name else recognise(weights)
    called = found.name if found else name
    if called is None:
        keys = unknown_keys(weights)
        raise ValueError(f"{source}: architecture not recognised from its keys ({keys}); give the network's name.")
    if operations and (found is None or not found.name.startswith("convnet")):
        stated = ", ".join(operations)
        raise ValueError(f"{source}: {stated}: only convnets have a choice, this is {called}; leave it out.")
    if found is not None:
        _require_fit(source, found, shape)
        weights = _torchvision_names(weights)
        model = _build(found, shape, operations or {})
    else:
        model = make_model(called, shape, width=None, norm=None)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as err:
        having = f" with {', '.join(f'{k} {v}' for k, v in operations.items())}" if operations else ""
        raise ValueError(f"{source}: does not fit {called}{having}: {_first(err)}") from err
    return model.eval()


def operations_of(weights: Mapping[str, Tensor], name: str | None) -> list[dict[str, str]]:
    """Operations that networks with these keys may have, the published default first; [{}] where there is no choice.

    Args:
        weights: Tensors by name.
        name: Of the network, where the keys do not tell; such a network has no choice.
    """
    found = None if name else recognise(weights)
    if found is None or not found.name.startswith("convnet"):
        return [{}]
    pools = POOLINGS if found.details["pools"] else POOLINGS[:1]
    is_group = found.norm == "instance" and found.width % NORM_GROUPS == 0
    norms = ("instance", "group") if is_group else (found.norm,)
    every = itertools.product(pools, ACTIVATIONS, norms)
    return [{"pooling": pooling, "activation": activation, "norm": norm} for pooling, activation, norm in every]


def unknown_keys(weights: Mapping[str, Tensor]) -> str:
    """Which keys of a network that is not recognised fit none of the known ones, in words."""
    fit = {family: [key for key in weights if re.fullmatch(keys, key)] for family, keys in _FAMILIES.items()}
    nearest = max(fit, key=lambda family: len(fit[family]))
    odd = [key for key in weights if key not in fit[nearest]]
    if not fit[nearest] or len(odd) == len(weights):
        return f"none of them fits a known network: {_some(list(weights))}"
    if odd:
        return f"nearest is {nearest}, which {len(odd)} of {len(weights)} keys do not fit: {_some(odd)}"
    return f"all have names of {nearest}, but layers are missing or of other shapes: {_some(list(weights))}"


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")


def _first(err: RuntimeError) -> str:
    """Torch lists every key; the first lines say what is wrong."""
    return " ".join(str(err).split())[:300]


def _require_fit(source: str, found: Architecture, shape: ModelShape) -> None:
    """One message for a network made for other data."""
    size = 28 if _is_padded(found, shape) else found.image_size
    if found.name in PLANS and found.details["inputs"] == inputs_of(found.name, shape.channels, shape.image_size):
        size = shape.image_size  # one of several that give as many numbers
    for what, has in (("classes", found.classes), ("channels", found.channels), ("image_size", size)):
        wanted = getattr(shape, what)
        if has is not None and has != wanted:
            raise ValueError(f"{source}: {found.name} has {what} {has}, expected {wanted}.")


def _is_padded(found: Architecture, shape: ModelShape) -> bool:
    """Made for MNIST and its like by the published code."""
    return (found.image_size, found.channels, shape.channels, shape.image_size) == (32, 1, 1, 28)


def _build(found: Architecture, shape: ModelShape, operations: Mapping[str, str]) -> nn.Module:
    if found.name.startswith("convnet"):
        depth = int(found.name.removeprefix("convnet"))
        arguments = {**found.details, "first_padding": 3 if _is_padded(found, shape) else 1}
        arguments |= {"norm": found.norm, **operations}
        return ConvNet(shape, depth=depth, width=found.width, layout=found.layout, **arguments)
    if found.name in PLANS:
        size = shape.image_size
        return Plain(found.name, channels=shape.channels, classes=shape.classes, image_size=size, norm=found.norm)
    if "pads" in found.details:
        return CifarResNet(channels=shape.channels, classes=shape.classes, norm=found.norm, **found.details)
    return make_resnet(shape, norm=found.norm, **found.details)


def _recognise_plain(weights: Mapping[str, Tensor]) -> Architecture | None:
    found = plain_in(weights)
    if found is None:
        return None
    return Architecture(
        found.name,
        "plain",
        found.norm,
        width=0,
        channels=found.channels,
        classes=found.classes,
        image_size=found.image_size,
        details={"inputs": found.inputs},
    )


def _recognise_convnet(weights: Mapping[str, Tensor]) -> Architecture | None:
    layout = "layers" if "layers.conv.0.weight" in weights else "features"
    pattern = re.compile(r"layers\.conv\.(\d+)\.weight" if layout == "layers" else r"features\.(\d+)\.weight")
    numbers = sorted(int(m[1]) for key, value in weights.items() if (m := pattern.fullmatch(key)) and value.ndim == 4)
    head = weights.get("classifier.weight")
    if not numbers or head is None or head.ndim != 2:
        return None
    prefix = "layers.conv" if layout == "layers" else "features"
    first = weights[f"{prefix}.{numbers[0]}.weight"]
    norm = _norm_of(weights, "layers.norm.0" if layout == "layers" else f"features.{numbers[0] + 1}")
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 4
    pools = layout == "layers" or step == (3 if norm == "none" else 4)
    positions = head.shape[1] // first.shape[0]
    side = math.isqrt(positions) * (2 ** len(numbers) if pools else 1)
    is_global = positions == 1 and side < SMALLEST_SIDE
    return Architecture(
        f"convnet{len(numbers)}",
        layout,
        norm,
        width=first.shape[0],
        channels=first.shape[1],
        classes=head.shape[0],
        image_size=None if is_global else side,
        details={"pools": pools, "pools_globally": is_global},
    )


def _norm_of(weights: Mapping[str, Tensor], prefix: str) -> str:
    scale = weights.get(f"{prefix}.weight")
    if scale is None or scale.ndim == 4:
        return "none"
    if f"{prefix}.running_mean" in weights:
        return "batch"
    return "layer" if scale.ndim == 3 else "instance"


def _torchvision_names(weights: Weights) -> Weights:
    """ResNets of the distillation repositories with torchvision's names for shortcut and head."""
    has_other_head = "layer1.0.conv1.weight" in weights and "fc.weight" not in weights
    if not has_other_head and not any(".shortcut." in key for key in weights):
        return weights
    return {
        re.sub(r"^(linear|classifier)\.", "fc.", key.replace(".shortcut.", ".downsample.")): value
        for key, value in weights.items()
    }


def _recognise_resnet(weights: Mapping[str, Tensor]) -> Architecture | None:
    layout = "torchvision" if "fc.weight" in weights else "cifar"
    weights = _torchvision_names(dict(weights))
    head, stem, inner = (weights.get(key) for key in ("fc.weight", "conv1.weight", "layer1.0.conv2.weight"))
    if head is None or stem is None or inner is None:
        return None
    if (cifar := cifar_resnet_in(weights)) is not None:
        details: dict[str, Any] = {"blocks": cifar.blocks, "width": cifar.width, "pads": cifar.pads}
        sizes = {"width": cifar.width, "channels": cifar.channels, "classes": cifar.classes}
        norm = _norm_of(weights, "bn1")
        return Architecture(f"resnet{cifar.layers}", layout, norm, **sizes, image_size=None, details=details)
    found = [re.fullmatch(r"layer(\d)\.(\d+)\.conv1\.weight", key) for key in weights]
    stages = [(int(m[1]), int(m[2])) for m in found if m]
    blocks = tuple(1 + max((b for stage, b in stages if stage == s), default=-1) for s in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in weights
    if not all(blocks) or head.shape[1] != 512 * (4 if bottleneck else 1):
        return None
    small = stem.shape[-1] == 3
    details = {"blocks": blocks, "small": small, "bottleneck": bottleneck}
    if bottleneck:
        groups = inner.shape[0] // inner.shape[1]
        details |= {"groups": groups, "width_per_group": inner.shape[0] // groups}
    layers = sum(blocks) * (3 if bottleneck else 2) + 2
    return Architecture(
        f"resnet{layers}" + "_modified" * small,
        layout,
        _norm_of(weights, "bn1"),
        width=stem.shape[0],
        channels=stem.shape[1],
        classes=head.shape[0],
        image_size=None,
        details=details,
    )
