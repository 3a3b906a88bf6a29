"""Real data with a name: torchvision's own readers on files in torchvision's own layouts."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from trainables.data.named import load_named
from trainables.names import HANDED, IMAGE_SIZES, REAL_DATASETS

RNG = np.random.default_rng(0)


def load(name: str, root: Path, tmp_path: Path, **options: Any) -> Any:
    settings = {"download": False, "image_size": None, "cache": tmp_path / "cache", "say": lambda text: None}
    return load_named(name, root, **(settings | options))


def write_idx(root: Path, folder: str) -> dict[str, np.ndarray]:
    """MNIST's files: big-endian headers, then bytes."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    written = {}
    for part, prefix, n in (("train", "train", 20), ("evaluation", "t10k", 10)):
        images = RNG.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, n, 28, 28) + images.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, n) + labels.tobytes())
        written |= {f"{part}_images": images[:, None], f"{part}_labels": labels}
    return written


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_mnist_and_its_like_are_read(name: str, folder: str, tmp_path: Path) -> None:
    written = write_idx(tmp_path, folder)
    arrays, names = load(name, tmp_path, tmp_path)
    assert len(names) == 10
    for key, values in written.items():
        np.testing.assert_array_equal(arrays[key], values)
    assert arrays["train_images"].dtype == np.uint8
    (tmp_path / folder).rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"data\.root"):
        load(name, tmp_path, tmp_path)


def write_batch(path: Path, content: dict[str, Any]) -> list[str]:
    """A file of CIFAR's; its name and checksum, as torchvision lists them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 3,072 bytes, channel by channel; the checksums that torchvision verifies are those of these files."""
    maker = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder, key = tmp_path / maker.base_folder, "labels" if name == "cifar10" else "fine_labels"
    pixels = RNG.integers(0, 256, (20, 3072), dtype=np.uint8)
    labels = [i % 10 for i in range(20)]
    lists = {}
    for attribute, file in (("train_list", "some_train"), ("test_list", "some_test")):
        lists[attribute] = [write_batch(folder / file, {"data": pixels, key: labels})]
    words = [f"word{i}" for i in range(10)]
    meta = write_batch(folder / "meta", {maker.meta["key"]: words})
    for attribute, value in lists.items():
        monkeypatch.setattr(maker, attribute, value)
    monkeypatch.setattr(maker, "meta", {**maker.meta, "filename": meta[0], "md5": meta[1]})
    arrays, names = load(name, tmp_path, tmp_path)
    assert names == tuple(words)
    np.testing.assert_array_equal(arrays["evaluation_images"], pixels.reshape(20, 3, 32, 32))
    assert arrays["train_labels"].tolist() == labels
    (folder / "some_train").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=rf"has no {name} that torchvision can read.*data.download: true"):
        load(name, tmp_path, tmp_path / "other")


def test_svhn_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Matlab arrays (32, 32, 3, n); the digit 0 is stored as 10."""
    pixels = RNG.integers(0, 256, (32, 32, 3, 20), dtype=np.uint8)
    split_list = dict(datasets.SVHN.split_list)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels, "y": np.arange(1, 21)[:, None] % 10 + 10 * (np.arange(1, 21)[:, None] % 10 == 0)})
        split_list[split] = [split_list[split][0], path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", split_list)
    arrays, names = load("svhn", tmp_path, tmp_path)
    assert names == tuple("0123456789")
    assert arrays["train_labels"].tolist() == [i % 10 for i in range(1, 21)]
    np.testing.assert_array_equal(arrays["train_images"][7], pixels[..., 7].transpose(2, 0, 1))


def test_imagenette_is_read_as_the_tree_it_is(tmp_path: Path) -> None:
    wnids = ["n01440764", "n02102040"]
    for part in ("train", "val"):
        for number, wnid in enumerate(wnids):
            path = tmp_path / "imagenette2" / part / wnid / "a.JPEG"
            path.parent.mkdir(parents=True)
            Image.fromarray(np.full((20, 30, 3), 100 * number + 20, dtype=np.uint8)).save(path, "JPEG")
    arrays, names = load("imagenette", tmp_path, tmp_path, image_size=16)
    assert names == tuple(wnids)
    assert arrays["train_images"].shape == (2, 3, 16, 16)
    assert arrays["evaluation_labels"].tolist() == [0, 1]


def test_every_name_has_a_size_and_the_handed_ones_are_names() -> None:
    assert set(IMAGE_SIZES) == set(REAL_DATASETS) - {"imagenette"}
    assert set(HANDED) <= set(REAL_DATASETS)
