"""Checkpoints as other people write them: twins of the published networks, built here layer by layer."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainables.models import load_checkpoint, network_from, operations_of, read_checkpoint, read_weights, recognise
from trainables.names import ACTIVATIONS, POOLINGS
from trainables.networks import ConvNet, ModelShape, make_model


def norm_layer(norm: str, width: int, side: int) -> list[nn.Module]:
    """The norms of the published ConvNets."""
    layers: dict[str, list[nn.Module]] = {
        "batch": [nn.BatchNorm2d(width)],
        "instance": [nn.GroupNorm(width, width, affine=True)],
        "layer": [nn.LayerNorm([width, side, side], elementwise_affine=True)],
        "none": [],
    }
    return layers[norm]


class Sequential(nn.Module):
    """DC, MTT, DATM: one sequence of blocks."""

    def __init__(self, depth: int, width: int, norm: str, channels: int, classes: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last, side = channels, 32 if side == 28 else side
        for d in range(depth):
            layers.append(nn.Conv2d(last, width, kernel_size=3, padding=3 if channels == 1 and d == 0 else 1))
            layers += norm_layer(norm, width, side)
            layers += [nn.ReLU(inplace=False), nn.AvgPool2d(kernel_size=2, stride=2)]
            last, side = width, side // 2
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.features(x)
        return self.classifier(out.view(out.size(0), -1))  # type: ignore[no-any-return]


class ByKind(nn.Module):
    """IDC, RDED, GIFT: all convolutions, then all norms."""

    def __init__(self, depth: int, width: int, norm: str, channels: int, classes: int, side: int) -> None:
        super().__init__()
        kinds: dict[str, list[nn.Module]] = {"conv": [], "norm": [], "act": [], "pool": []}
        last = channels
        for _ in range(depth):
            kinds["conv"].append(nn.Conv2d(last, width, kernel_size=(3, 3), padding=1))
            kinds["norm"] += norm_layer(norm, width, side)
            kinds["act"].append(nn.ReLU(inplace=True))
            kinds["pool"].append(nn.AvgPool2d(kernel_size=2, stride=2))
            last, side = width, side // 2
        self.layers = nn.ModuleDict({kind: nn.ModuleList(modules) for kind, modules in kinds.items()})
        self.classifier = nn.Linear(width * side * side, classes)

    def forward(self, x: Tensor) -> Tensor:
        for d in range(len(self.layers["conv"])):  # type: ignore[arg-type]
            for kind in ("conv", "norm", "act", "pool"):
                if len(self.layers[kind]):  # type: ignore[arg-type]
                    x = self.layers[kind][d](x)  # type: ignore[index]
        return self.classifier(x.view(x.size(0), -1))  # type: ignore[no-any-return]


class CifarBlock(nn.Module):
    def __init__(self, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=1, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class CifarResNet18(nn.Module):
    """G-VBSM and EDC (head `linear`), DC (head `classifier`)."""

    def __init__(self, classes: int, head: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for number, planes in enumerate((64, 128, 256, 512), 1):
            blocks = [CifarBlock(inputs, planes, 1 if number == 1 else 2), CifarBlock(planes, planes, 1)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            inputs = planes
        setattr(self, head, nn.Linear(512, classes))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        x = F.avg_pool2d(x, 4)
        return getattr(self, self.head)(x.view(x.size(0), -1))  # type: ignore[no-any-return]


def settle(model: nn.Module) -> nn.Module:
    """Weights and running statistics that no fresh network has."""
    generator = torch.Generator().manual_seed(0)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(0.05 + 0.1 * torch.rand(value.shape, generator=generator))
    return model.eval()


def same(model: nn.Module, twin: nn.Module, channels: int, side: int) -> bool:
    images = torch.rand(3, channels, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return torch.allclose(model(images), twin(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "none"])
@pytest.mark.parametrize(
    ("kind", "depth", "channels", "side"),
    [(Sequential, 3, 3, 32), (Sequential, 2, 3, 16), (Sequential, 3, 1, 28), (ByKind, 3, 3, 32), (ByKind, 4, 3, 64)],
)
def test_convnets_of_both_layouts(
    kind: type[Any], depth: int, channels: int, side: int, norm: str, tmp_path: Path
) -> None:
    twin = settle(kind(depth, 6, norm, channels, 7, side))
    torch.save(twin.state_dict(), tmp_path / "net.pt")
    found = recognise(read_weights(tmp_path / "net.pt"))
    assert found is not None
    layout = "features" if kind is Sequential else "layers"
    assert (found.name, found.layout, found.norm, found.width) == (f"convnet{depth}", layout, norm, 6)
    assert (found.channels, found.classes) == (channels, 7)
    model = load_checkpoint(tmp_path / "net.pt", classes=7, channels=channels, image_size=side)
    assert same(model, twin, channels, side)
    assert not model.training


@pytest.mark.parametrize("head", ["linear", "classifier"])
def test_cifar_resnets_with_heads_of_other_names(head: str, tmp_path: Path) -> None:
    twin = settle(CifarResNet18(10, head))
    torch.save(twin.state_dict(), tmp_path / "net.pt")
    found = recognise(read_weights(tmp_path / "net.pt"))
    assert found is not None
    assert (found.name, found.layout, found.norm) == ("resnet18_modified", "cifar", "batch")
    assert same(load_checkpoint(tmp_path / "net.pt", classes=10, channels=3, image_size=32), twin, 3, 32)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnext50_32x4d"])
def test_torchvisions_resnets(name: str, tmp_path: Path) -> None:
    from torchvision import models

    twin = models.get_model(name, weights=None, num_classes=4).eval()
    torch.save(twin.state_dict(), tmp_path / "net.pt")
    found = recognise(read_weights(tmp_path / "net.pt"))
    assert found is not None
    assert found.name == name.split("_")[0].replace("next", "net")
    assert same(load_checkpoint(tmp_path / "net.pt", classes=4, channels=3, image_size=32), twin, 3, 32)


def test_resnet18_modified_is_recognised_as_itself(tmp_path: Path) -> None:
    twin = make_model("resnet18_modified", ModelShape(3, 5, 32), width=None, norm="instance").eval()
    torch.save(twin.state_dict(), tmp_path / "net.pt")
    found = recognise(read_weights(tmp_path / "net.pt"))
    assert found is not None
    assert (found.name, found.norm) == ("resnet18_modified", "instance")
    assert same(load_checkpoint(tmp_path / "net.pt", classes=5, channels=3, image_size=32), twin, 3, 32)


@pytest.mark.parametrize("name", ["timm/resnet10t", "timm/vit_tiny_patch16_224", "torchvision/mobilenet_v2"])
@pytest.mark.parametrize("channels", [1, 3])
def test_foreign_networks_by_name(name: str, channels: int, tmp_path: Path) -> None:
    twin = make_model(name, ModelShape(channels, 6, 32), width=None, norm=None).eval()
    torch.save({"state_dict": twin.state_dict()}, tmp_path / "net.pt")
    model = load_checkpoint(tmp_path / "net.pt", classes=6, channels=channels, image_size=32, name=name)
    assert same(model, twin, channels, 32)


def wrapped(weights: dict[str, Tensor], wrapper: str) -> Any:
    prefixed = OrderedDict((f"module.{key}", value) for key, value in weights.items())
    return {
        "bare": weights,
        "torchvision reference": {
            "model": weights,
            "optimizer": {"state": {}, "param_groups": []},
            "epoch": 3,
            "args": argparse.Namespace(model="ConvNet", lr=0.1),
        },
        "SRe2L": {"state_dict": prefixed, "acc": np.float64(0.5), "epoch": 3},
        "net": {"net": prefixed, "acc": np.int64(5)},
        "compiled": {f"_orig_mod.module.{key}": value for key, value in weights.items()},
        "Lightning": {"state_dict": {f"model.{key}": value for key, value in weights.items()}, "epoch": 3},
        "an attribute net": {"state_dict": {f"net.module.{key}": value for key, value in weights.items()}},
        "model_state_dict": {"model_state_dict": weights, "optimizer_state_dict": {}},
    }[wrapper]


@pytest.mark.parametrize(
    "wrapper",
    [
        "bare",
        "torchvision reference",
        "SRe2L",
        "net",
        "compiled",
        "Lightning",
        "an attribute net",
        "model_state_dict",
    ],
)
def test_wrappers_and_prefixes_are_taken_off(wrapper: str, tmp_path: Path) -> None:
    twin = settle(Sequential(2, 4, "batch", 3, 5, 16))
    torch.save(wrapped(twin.state_dict(), wrapper), tmp_path / "net.pt")
    assert same(load_checkpoint(tmp_path / "net.pt", classes=5, channels=3, image_size=16), twin, 3, 16)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"classes": 10}, "convnet2 has classes 5, expected 10"),
        ({"channels": 1}, "convnet2 has channels 3, expected 1"),
        ({"image_size": 32}, "convnet2 has image_size 16, expected 32"),
        ({"name": "timm/resnet10t"}, "does not fit timm/resnet10t"),
        ({"name": "timm/no_such_network"}, "timm/no_such_network cannot be built"),
        ({"name": "timm/vit_tiny_patch16_224", "image_size": 13}, "cannot be built for 3 x 13 x 13 pixels"),
    ],
)
def test_a_network_for_other_data_is_refused(wanted: dict[str, Any], message: str, tmp_path: Path) -> None:
    torch.save(Sequential(2, 4, "batch", 3, 5, 16).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "net.pt", **{"classes": 5, "channels": 3, "image_size": 16, **wanted})


def spoil(weights: dict[str, Tensor], defect: str, path: Path) -> None:
    """Write a checkpoint with one defect."""
    if defect == "missing key":
        del weights["features.1.bias"]
    elif defect == "left over":
        weights["head.weight"] = torch.zeros(3)
    elif defect == "shape":
        weights["features.4.weight"] = weights["features.4.weight"][:, :2]
    elif defect == "NaN":
        weights["classifier.bias"][0] = float("nan")
    torch.save([1, 2] if defect == "no network" else weights, path)
    if defect == "truncated":
        path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        ("missing key", "does not fit convnet2"),
        ("left over", "does not fit convnet2"),
        ("shape", "does not fit convnet2"),
        ("NaN", "classifier.bias has values that are NaN or infinite"),
        ("no network", "no network in it"),
        ("truncated", "not a readable torch file"),
    ],
)
def test_damaged_checkpoints_are_refused_with_one_message(defect: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    spoil(Sequential(2, 4, "batch", 3, 5, 16).state_dict(), defect, path)
    with pytest.raises(ValueError, match=message) as caught:
        load_checkpoint(path, classes=5, channels=3, image_size=16)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such file"):
        load_checkpoint(tmp_path / "none.pt", classes=5, channels=3, image_size=16)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_malicious_file_is_refused_and_runs_nothing(writer: str, tmp_path: Path) -> None:
    path, target = tmp_path / "net.pt", tmp_path / "hacked"
    if writer == "torch":
        torch.save({"model": Malicious(target)}, path)
    else:
        path.write_bytes(pickle.dumps({"model": Malicious(target)}))
    with pytest.raises(ValueError, match="refused: it holds more than tensors, numbers and containers"):
        read_weights(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("stated", "fraction"),
    [
        ({"acc": 62.5}, 0.625),
        ({"best_acc1": torch.tensor(0.5)}, 0.5),
        ({"acc": np.float64(91)}, 0.91),
        ({}, None),
        ({"acc": "high"}, None),
    ],
)
def test_the_accuracy_that_a_file_states_is_read_as_a_fraction(
    stated: dict[str, Any], fraction: float | None, tmp_path: Path
) -> None:
    twin = Sequential(2, 4, "batch", 3, 5, 16)
    torch.save({"state_dict": twin.state_dict(), **stated}, tmp_path / "net.pt")
    assert read_checkpoint(tmp_path / "net.pt").accuracy == fraction


def test_a_network_saved_whole_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(Sequential(2, 4, "batch", 3, 5, 16), tmp_path / "net.pt")
    with pytest.raises(ValueError, match=r"refused: .*save the weights: torch.save\(model.state_dict\(\), PATH\)"):
        read_weights(tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ["conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "linear.bias"],
            "all have names of resnet, but layers are missing",
        ),
        (
            ["features.0.weight", "features.3.weight", "fc1.weight"],
            "nearest is .*, which 1 of 3 keys do not fit: fc1.weight",
        ),
        (["encoder.weight", "decoder.weight"], "none of them fits a known network: encoder.weight, decoder.weight"),
    ],
)
def test_a_network_that_is_not_recognised_is_told_which_keys_fit_nothing(
    keys: list[str], message: str, tmp_path: Path
) -> None:
    torch.save({key: torch.zeros(2) for key in keys}, tmp_path / "net.pt")
    with pytest.raises(ValueError, match=message):
        load_checkpoint(tmp_path / "net.pt", classes=2, channels=3, image_size=32)


@pytest.mark.parametrize("layout", ["features", "layers"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_operations_without_parameters_can_be_chosen(layout: str, pooling: str, activation: str) -> None:
    """Against the same blocks written out, with group norm; keys do not tell any of the three."""
    shape = ModelShape(3, 5, 8)
    chosen = {"pooling": pooling, "activation": activation, "norm": "group"}
    twin = settle(ConvNet(shape, depth=1, width=8, layout=layout, **chosen))  # type: ignore[arg-type]
    weights = twin.state_dict()
    assert chosen in operations_of(weights, None)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    convolution, scale = next(value for value in weights.values() if value.ndim == 4), list(weights.values())
    x = F.group_norm(F.conv2d(images, convolution, scale[1], padding=1), 4, scale[2], scale[3])
    x = {"relu": F.relu, "leaky_relu": F.leaky_relu, "sigmoid": torch.sigmoid, "silu": F.silu}[activation](x)
    x = (F.avg_pool2d if pooling == "avg" else F.max_pool2d)(x, 2)
    expected = F.linear(x.flatten(1), weights["classifier.weight"], weights["classifier.bias"])
    model = network_from(weights, shape, name=None, source="here", operations=chosen)
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected)


def test_operations_of_a_network_that_has_no_choice_are_refused() -> None:
    twin = make_model("resnet18_modified", ModelShape(3, 5, 32), width=None, norm="instance")
    assert operations_of(twin.state_dict(), None) == [{}]
    with pytest.raises(ValueError, match="only convnets have a choice, this is resnet18_modified"):
        network_from(twin.state_dict(), ModelShape(3, 5, 32), name=None, source="x", operations={"pooling": "max"})
