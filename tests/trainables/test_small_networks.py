"""Checkpoints of the MLP, LeNet, AlexNet, VGG and CIFAR ResNets of published code: twins of the definitions, written out here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.trainables.test_models import same, settle
from trainables.models import load_checkpoint, read_checkpoint, read_weights, recognise
from trainables.names import CIFAR_RESNETS, PLAIN, SMALL_STEMS
from trainables.networks import ModelShape, make_model

CLASSES = 7


class Mlp(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(channels * side * side, 128)
        self.fc_2 = nn.Linear(128, 128)
        self.fc_3 = nn.Linear(128, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), -1)
        return self.fc_3(self.fc_2(self.fc_1(x).relu()).relu())  # type: ignore[no-any-return]


class LeNet(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, 6, 5, padding=2 if side == 28 else 0)
        self.features = nn.Sequential(
            stem, nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2, 2)
        )
        self.fc_1 = nn.Linear(16 * (13 if side == 64 else 5) ** 2, 120)
        self.fc_2 = nn.Linear(120, 84)
        self.fc_3 = nn.Linear(84, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x).reshape(len(x), -1)
        return self.fc_3(F.relu(self.fc_2(F.relu(self.fc_1(x)))))  # type: ignore[no-any-return]


class AlexNet(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, 128, 5, padding=4 if side == 28 else 2), nn.ReLU()]
        layers += [nn.MaxPool2d(2), nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        for before, after in ((192, 256), (256, 192), (192, 192)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.MaxPool2d(2))
        self.fc = nn.Linear(192 * (8 if side == 64 else 4) ** 2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).reshape(len(x), -1))  # type: ignore[no-any-return]


class Vgg(nn.Module):
    """Ends in a pool of one pixel, which changes nothing."""

    def __init__(self, channels: int, side: int, norm: str, layers: str) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        padding = 3 if side == 28 else 1
        for width in map(int, layers.split()):
            if not width:
                modules.append(nn.MaxPool2d(2))
                continue
            modules.append(nn.Conv2d(channels, width, 3, padding=padding))
            modules.append(nn.GroupNorm(width, width) if norm == "instance" else nn.BatchNorm2d(width))
            modules.append(nn.ReLU())
            channels, padding = width, 1
        self.features = nn.Sequential(*modules, nn.AvgPool2d(kernel_size=1, stride=1))
        self.classifier = nn.Linear(512 * (4 if side == 64 else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).reshape(len(x), -1))  # type: ignore[no-any-return]


VGG11 = "64 0 128 0 256 256 0 512 512 0 512 512 0"
VGG16 = "64 64 0 128 128 0 256 256 256 0 512 512 512 0 512 512 512 0"


class Block(nn.Module):
    """Option A unless `projects`: every second pixel, a quarter of the channels as zeros on either side."""

    def __init__(self, before: int, after: int, projects: bool) -> None:
        super().__init__()
        self.stride, self.missing = (1, 0) if before == after else (2, after // 4)
        self.conv1 = nn.Conv2d(before, after, 3, stride=self.stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        if projects and self.missing:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), nn.BatchNorm2d(after))

    def around(self, x: Tensor) -> Tensor:
        if hasattr(self, "shortcut"):
            return self.shortcut(x)  # type: ignore[no-any-return]
        if not self.missing:
            return x
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = torch.zeros(x.shape[0], self.missing, *x.shape[2:])
        return torch.cat([zeros, x, zeros], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(inner + self.around(x))


class ThreeStages(nn.Module):
    def __init__(self, channels: int, blocks: int, head: str, projects: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        for stage, (before, after) in enumerate(((16, 16), (16, 32), (32, 64)), 1):
            inputs = [before] + [after] * (blocks - 1)
            self.add_module(f"layer{stage}", nn.Sequential(*(Block(i, after, projects) for i in inputs)))
        self.add_module(head, nn.Linear(64, CLASSES))
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        x = F.avg_pool2d(x, x.shape[3]).flatten(1)
        return self.get_submodule(self.head)(x)  # type: ignore[no-any-return]


def scaled(model: nn.Module) -> nn.Module:
    """Weights and running statistics that no fresh network has, of either sign, so that logits stay finite and differ."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            fan_in = max(1, value[0].numel()) if value.ndim > 1 else 1
            value.copy_(1 + 0.1 * noise.abs() if "var" in key else noise * (2 / fan_in) ** 0.5)
    return model.eval()


PLAIN_TWINS = {
    "mlp": (Mlp, "none"),
    "lenet": (LeNet, "none"),
    "alexnet": (AlexNet, "none"),
    "vgg11": (lambda channels, side: Vgg(channels, side, "instance", VGG11), "instance"),
    "vgg11 of the common CIFAR code": (lambda channels, side: Vgg(channels, side, "batch", VGG11), "batch"),
    "vgg16": (lambda channels, side: Vgg(channels, side, "batch", VGG16), "batch"),
}


@pytest.mark.parametrize("twin", PLAIN_TWINS)
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_plain_networks_of_published_code_load_with_the_same_logits(
    twin: str, channels: int, side: int, tmp_path: Path
) -> None:
    build, norm = PLAIN_TWINS[twin]
    network = scaled(build(channels, side))
    torch.save({"net": network.state_dict()}, tmp_path / "net.pt")
    found = recognise(read_weights(tmp_path / "net.pt"))
    assert found is not None
    assert (found.name, found.norm, found.channels, found.classes) == (twin.split()[0], norm, channels, CLASSES)
    assert found.image_size == (32 if side == 28 and twin != "mlp" else side)
    model = load_checkpoint(tmp_path / "net.pt", classes=CLASSES, channels=channels, image_size=side)
    assert same(model, network, channels, side)


@pytest.mark.parametrize("head", ["linear", "fc"])
@pytest.mark.parametrize("projects", [False, True])
@pytest.mark.parametrize("blocks", [3, 5])
def test_cifar_resnets_of_6n_plus_2_layers_load_with_the_same_logits(
    head: str, projects: bool, blocks: int, tmp_path: Path
) -> None:
    network = scaled(ThreeStages(3, blocks, head, projects))
    torch.save(
        {"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}, "best_prec1": 91.6},
        tmp_path / "net.th",
    )
    found = recognise(read_weights(tmp_path / "net.th"))
    assert found is not None
    assert (found.name, found.norm, found.width, found.classes) == (f"resnet{6 * blocks + 2}", "batch", 16, CLASSES)
    assert same(load_checkpoint(tmp_path / "net.th", classes=CLASSES, channels=3, image_size=32), network, 3, 32)
    assert read_checkpoint(tmp_path / "net.th").accuracy == pytest.approx(0.916)


@pytest.mark.parametrize("name", [*PLAIN, *CIFAR_RESNETS, *SMALL_STEMS])
@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_networks_by_name_take_images_of_28_32_and_64_pixels_and_their_checkpoints_tell_them(
    name: str, channels: int, side: int
) -> None:
    shape = ModelShape(channels, CLASSES, side)
    model = make_model(name, shape, width=None, norm="instance").eval()
    with torch.no_grad():
        assert model(torch.zeros(2, channels, side, side)).shape == (2, CLASSES)
    found = recognise(model.state_dict())
    assert found is not None
    assert (found.name, found.channels, found.classes) == (name, channels, CLASSES)


@pytest.mark.parametrize(("name", "side"), [("lenet", 8), ("alexnet", 7), ("vgg11", 30)])
def test_images_that_are_too_small_are_refused(name: str, side: int) -> None:
    with pytest.raises(ValueError, match=f"{name} halves images more often than their {side} pixels allow"):
        make_model(name, ModelShape(3, 10, side), width=None, norm="batch")


def test_torchvisions_alexnet_at_32_pixels_names_the_one_for_small_images() -> None:
    with pytest.raises(ValueError, match=r"cannot be built for 3 x 32 x 32 .*for small images is alexnet\."):
        make_model("torchvision/alexnet", ModelShape(3, 10, 32), width=None, norm=None)


def test_a_network_made_for_other_images_is_refused_with_its_side(tmp_path: Path) -> None:
    torch.save(settle(AlexNet(3, 64)).state_dict(), tmp_path / "net.pt")
    with pytest.raises(ValueError, match="alexnet has image_size 64, expected 32"):
        load_checkpoint(tmp_path / "net.pt", classes=CLASSES, channels=3, image_size=32)
