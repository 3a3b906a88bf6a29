"""Numbers that the parts of the code give that prepare data, on fixed input; see `tests.golden`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.conftest import CLASSES, make_tree
from tests.trainables.formats import builders
from tests.trainables.formats.test_stores import write_quantised
from tests.trainables.test_archives import python10
from trainables.arrays import load_arrays
from trainables.augment import Augmentation
from trainables.content import named_content
from trainables.data.decode import decode_tree
from trainables.data.labels import LabelBank, draw_views, label_view, with_pixels
from trainables.data.real import RealData, load_digits, load_parts, normalise
from trainables.data.teacher import make_teacher, train_teacher
from trainables.drafts import pack_logits
from trainables.formats.read import read_distilled
from trainables.networks import ConvNet, ModelShape
from trainables.prepare import prepare
from trainables.prepare.bank import make_bank
from trainables.prepare.distilled import make_distilled
from trainables.prepare.projector import project_labels
from trainables.prepare.real import load_real_data
from trainables.prepare.teacher import load_or_train_teacher
from trainables.seeding import seeded_globals
from trainables.splits import Split
from trainables.trees import list_tree
from trainables.trial import TrialData

SHAPE = ModelShape(1, 10, 8)


def numbers_of(*tensors: torch.Tensor) -> list[float]:
    """Mean, deviation and a position-weighted mean of each."""
    found = []
    for tensor in tensors:
        flat = tensor.detach().double().flatten()
        weights = torch.linspace(0, 1, len(flat), dtype=torch.float64)
        found += [flat.mean(), flat.std(unbiased=False), (flat * weights).mean()]
    return [float(value) for value in found]


def digits_data() -> TrialData:
    """A bank of 40 digits with random labels, and real digits."""
    real = normalise(load_digits(0.25))
    distilled = Split(real.train.images[:40], real.train.labels[:40])
    views = draw_views(Augmentation("dsa", flips=False), 40, 8, views=2, seed=0)
    logits = torch.randn(2, 40, 10, generator=torch.Generator().manual_seed(1))
    return TrialData(with_pixels(LabelBank(distilled, views, logits, real.background)), real.validation, real.test)


def _quiet(text: str) -> None:
    pass


def _load_real(folder: Path, **data: Any) -> RealData:
    recipe = {"data": {"distilled": {"method": "random"}, **data}, "versions": {"real": 1}}
    recipe["validation"] = {"from": "auto", "frac": 0.25}
    return load_real_data(recipe, folder / "cache", _quiet)[0]


def _idx(folder: Path) -> None:
    """MNIST's files."""
    folder.mkdir(parents=True)
    for name, n in (("train", 60), ("t10k", 20)):
        images, labels = np.arange(n * 784) % 251, np.arange(n) % 10
        for what, array in (("images-idx3", images.reshape(n, 28, 28)), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (folder / f"{name}-{what}-ubyte").write_bytes(header + array.astype(np.uint8).tobytes())


def real() -> list[float]:
    """Digits, a tree plain and whitened, an archive, and data with a name."""
    digits = normalise(load_digits(0.25))
    found = numbers_of(digits.train.images, digits.validation.labels, digits.test.labels)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = list_tree(str(make_tree(folder)))
        arrays = decode_tree(tree, image_size=6, cache=folder / "cache", say=_quiet)
        plain = normalise(load_parts(arrays, tree.classes, flips=True, validation_from="auto", validation_frac=0.25))
        found += numbers_of(plain.train.batch(slice(None)), plain.validation.labels, plain.test.batch(slice(None)))
        (folder / "archive").mkdir()
        python10(folder / "archive")
        _idx(folder / "MNIST" / "raw")
        zca = {"distilled": {"path": "none", "stated": {"pixel_space": "zca"}}}
        for part in (
            _load_real(folder, real=str(folder / "real"), content=tree.key, image_size=6, **zca),
            _load_real(
                folder, real=str(folder / "archive"), content=list_tree(str(folder / "archive")).key, image_size=32
            ),
            _load_real(folder, real="mnist", root=name, download=False, content=named_content("mnist", name)),
        ):
            found += numbers_of(part.train.batch(slice(None)), part.validation.labels, part.test.batch(slice(None)))
            found.append(float(part.flips))
    return found


def distilled() -> list[float]:
    """Formats whose pixels, labels and order are all ours to get right, and sets that are made."""
    found = []
    for name in ("gift", "idc", "kip", "datm", "rded"):
        _, build, given = builders.SETS[name]
        with tempfile.TemporaryDirectory() as folder:
            read = read_distilled(build(Path(folder), None), given, classes=CLASSES, size=builders.SIZE)
            found += numbers_of(read.images, read.hard)
    made = {"ipc": 2, "seed": 0}
    for wanted in ({"method": "random"}, {"method": "rded", "crops": 2, "factor": 1, "pool": 10}):
        found += numbers_of(*_made(normalise(load_digits(0.25)), {**wanted, **made}))
    with tempfile.TemporaryDirectory() as folder:
        tree = list_tree(str(make_tree(Path(folder))))
        parts = load_parts(
            decode_tree(tree, image_size=builders.SIZE, cache=Path(folder) / "cache", say=_quiet),
            tree.classes, flips=True, validation_from="auto", validation_frac=0.25,
        )  # fmt: skip
        path = builders.gift_datm(Path(folder), None)
        found += numbers_of(*_made(normalise(parts), {"path": str(path), "stated": builders.SETS["gift_datm"][2]}))
        found += _stored_labels(Path(folder), normalise(parts))
    return found


def _made(data: RealData, wanted: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    teacher = make_teacher("convnet2", SHAPE, width=8, norm="instance").eval() if "method" in wanted else None
    with tempfile.TemporaryDirectory() as folder:
        split, _ = make_distilled({"data": {"distilled": wanted}}, data, teacher, Path(folder))
        return split.batch(slice(None)), split.labels


def _stored_labels(folder: Path, data: RealData) -> list[float]:
    """A folder of images and a store of labels of them."""
    path = str(builders.sre2l(folder, None))
    split, about = make_distilled({"data": {"distilled": {"path": path, "stated": {}}}}, data, None, folder)
    found = []
    builders.write_store(folder / "whole", builders.hard())
    write_quantised(folder / "quantised")
    for name in ("whole", "quantised"):
        recipe = {"label_store": {"path": str(folder / name), "batch_size": 5}, "views": 2}
        bank = make_bank(recipe, data, None, split, about)
        found += numbers_of(bank.parameters, bank.logits.float().clamp_min(-100))
    return found


def labels() -> list[float]:
    """A teacher's, rounded and cut, a projector's, and those of a whole entry of the cache."""
    data, teacher = digits_data(), make_teacher("convnet2", SHAPE, width=8, norm="instance").eval()
    bank = data.bank
    logits = label_view(bank.distilled, bank.parameters[0], bank.background, teacher)
    packed, _ = pack_logits(logits.numpy(), label_format="float16", top_k=3)
    found = numbers_of(logits, *(torch.from_numpy(packed[name].astype(np.float64)) for name in sorted(packed)))
    recipe = {"projector": {"rank": 2, "epochs": 1, "lr": 1e-3}, "label_format": "float16"}
    arrays, _ = project_labels(recipe, normalise(load_digits(0.25)), teacher, bank, _quiet)
    return found + numbers_of(torch.from_numpy(arrays["bank_logits"].astype(np.float64))) + _entry()


def _entry() -> list[float]:
    """Digits with the labels of a teacher that has had one epoch."""
    recipe: dict[str, Any] = {
        "versions": dict.fromkeys(("real", "augmentation", "teachers", "networks"), 1),
        "data": {"real": "digits", "image_size": 8, "distilled": {"method": "random", "ipc": 2, "seed": 0}},
        "validation": {"from": "auto", "frac": 0.25},
        "teacher": {"model": "convnet2", "width": 4, "norm": "instance", "train": {"epochs": 1, "lr": 0.01, "batch_size": 256}},
        "augment": {"kind": "dsa", "mix": "none"},
        "views": 2, "labels": "bank", "label_format": "float32", "data_seed": 0,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        prepare("golden", recipe, Path(folder), _quiet)
        arrays = load_arrays("golden", Path(folder))
        return numbers_of(*(torch.from_numpy(arrays[name].copy()) for name in ("bank_parameters", "bank_logits")))


def teachers() -> list[float]:
    """Logits after a training."""
    digits = normalise(load_digits(0.25))
    small = Split(digits.train.images[:200], digits.train.labels[:200])
    teacher = make_teacher("convnet2", SHAPE, width=8, norm="instance")
    train_teacher(
        small, teacher, Augmentation("dsa", flips=False), digits.background, epochs=1, lr=0.005, batch_size=50
    )
    return numbers_of(teacher(digits.test.images[:50]))


def _classifier(digits: RealData, *, scale: float = 1.0, shift: float = 0.0, **operations: Any) -> nn.Module:
    """Random features of digits x scale + shift, with the head of least squares: it classifies, and nothing was trained."""
    with seeded_globals("golden", 0):
        network = ConvNet(SHAPE, depth=2, width=16, **{"norm": "none", **operations}).eval()
    head, network.classifier = network.classifier, nn.Identity()
    with torch.no_grad():
        features = network(digits.train.images * scale + shift).double()
        targets = 10 * nn.functional.one_hot(digits.train.labels, 10).double() - 1
        gram = features.T @ features + 1e-2 * torch.eye(features.shape[1]) * features.square().mean()
        head.weight.copy_(torch.linalg.solve(gram, features.T @ targets).T)
        head.bias.zero_()
    network.classifier = head
    return network


def readings() -> list[float]:
    """What checkpoints are taken for, by their accuracies, and the logits of digits: operations, pixels, an expert buffer."""
    digits = normalise(load_digits(0.25))
    mean, std = float(digits.mean), float(digits.std)
    plain = _classifier(digits, norm="instance")
    buffer = [[[p.detach() for p in network.parameters()] for network in (plain, _classifier(digits))]]
    files: list[Any] = [
        {"model_state_dict": {f"module.{k}": v for k, v in _classifier(digits, pooling="max").state_dict().items()}},
        {"state_dict": _classifier(digits, activation="sigmoid").state_dict()},
        {"net": _classifier(digits, scale=std / 0.5, shift=(mean - 0.5) / 0.5).state_dict(), "acc": 90.0},
        buffer,
    ]
    found = []
    for content in files:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "replay_buffer_0.pt"
            torch.save(content, path)
            recipe = {"teacher": {"weights": [{"path": str(path)}]}, "data": {}, "validation": {}}
            teacher, about = load_or_train_teacher(recipe, digits, Path(folder), _quiet)
        assert teacher is not None
        (reading,) = about.readings
        found += [one.accuracy for one in (reading.chosen, reading.default, reading.best)]
        with torch.no_grad():
            found += numbers_of(teacher(digits.test.images[:50]))
    return found
