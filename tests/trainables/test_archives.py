"""CIFAR's and MNIST's original files are real data, and their pickles run nothing."""

from __future__ import annotations

import gzip
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainables.archives import kind_of_archive
from trainables.data.decode import decode_tree
from trainables.trees import list_tree

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 32, 32)).astype(np.uint8)
LABELS = np.arange(60) % 10
GRAY = IMAGES[:, 0, :28, :28]
BATCHES = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]


def python10(folder: Path) -> None:
    for number, name in enumerate(BATCHES):
        part = slice(10 * number, 10 * number + 10)
        content = {b"data": IMAGES[part].reshape(10, -1), b"labels": LABELS[part].tolist(), b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))
    names = [f"class {label}".encode() for label in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=3))


def python100(folder: Path) -> None:
    for name, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        content = {
            b"data": IMAGES[part].reshape(-1, 3072),
            b"fine_labels": LABELS[part].tolist(),
            b"coarse_labels": [0],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=3))


def binary10(folder: Path) -> None:
    for number, name in enumerate(BATCHES):
        part = slice(10 * number, 10 * number + 10)
        records = np.concatenate([LABELS[part, None].astype(np.uint8), IMAGES[part].reshape(10, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def binary100(folder: Path) -> None:
    for name, part in (("train", slice(0, 50)), ("test", slice(50, 60))):
        labels = np.stack([np.full(60, 7), LABELS], axis=1)[part].astype(np.uint8)
        records = np.concatenate([labels, IMAGES[part].reshape(-1, 3072)], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


def idx(folder: Path) -> None:
    for name, part in (("train", slice(0, 50)), ("t10k", slice(50, 60))):
        for what, array in (("images-idx3", GRAY[part]), ("labels-idx1", LABELS[part].astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
            (folder / f"{name}-{what}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))


KINDS: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "cifar10-python": (python10, IMAGES),
    "cifar100-python": (python100, IMAGES),
    "cifar10-binary": (binary10, IMAGES),
    "cifar100-binary": (binary100, IMAGES),
    "idx": (idx, GRAY[:, None]),
}


def decoded(path: Path, cache: Path, size: int) -> dict[str, np.ndarray]:
    list_tree.cache_clear()
    return decode_tree(list_tree(str(path)), image_size=size, cache=cache, say=lambda text: None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packed", [False, True])
def test_original_files_are_read_as_they_were_written(kind: str, packed: bool, tmp_path: Path) -> None:
    write, expected = KINDS[kind]
    path = tmp_path / "set"
    path.mkdir()
    write(path)
    if packed:
        with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
            archive.add(path, "cifar-batches")
        path = tmp_path / "set.tar.gz"
    assert kind_of_archive(path) == kind
    arrays = decoded(path, tmp_path / "cache", expected.shape[-1])
    np.testing.assert_array_equal(arrays["train_images"], expected[:50])
    np.testing.assert_array_equal(arrays["evaluation_labels"], LABELS[50:])
    tree = list_tree(str(path))
    assert tree.classes[3] == ("class 3" if kind == "cifar10-python" else "3")
    assert len(tree.files["evaluation"]) == 10
    with pytest.raises(ValueError, match=r"data\.image_size: .* has images of .* pixels, got 16"):
        decoded(path, tmp_path / "cache", 16)


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_cut_short_are_refused(kind: str, tmp_path: Path) -> None:
    KINDS[kind][0](tmp_path)
    victim = sorted(path for path in tmp_path.iterdir() if path.name.startswith(("data_batch_1", "train")))[0]
    victim.write_bytes(victim.read_bytes()[:-700])
    with pytest.raises(ValueError, match=r"damaged|not records|cut short|not readable|no images") as raised:
        decoded(tmp_path, tmp_path / "cache", 32)
    assert victim.name.removesuffix(".gz") in str(raised.value)


class Calls:
    """Unpickled, it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("what", ["call", "floats", "size"])
def test_a_batch_that_names_code_or_other_arrays_is_refused_and_runs_nothing(what: str, tmp_path: Path) -> None:
    python10(tmp_path)
    target = tmp_path / "executed"
    content = {
        "call": {b"data": Calls(target), b"labels": [0]},
        "floats": {b"data": np.zeros((10, 3072)), b"labels": [0] * 10},
        "size": {b"data": np.zeros((10, 30), np.uint8), b"labels": [0] * 10},
    }[what]
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=3))
    with pytest.raises(ValueError, match=r"test_batch (is refused or damaged|holds no images)"):
        decoded(tmp_path, tmp_path / "cache", 32)
    assert not target.exists()


def test_changed_labels_are_other_data(tmp_path: Path) -> None:
    idx(tmp_path)
    first = list_tree(str(tmp_path)).key
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1] + b"\x00"))
    list_tree.cache_clear()
    assert list_tree(str(tmp_path)).key != first
