"""CIFAR's and MNIST's original files as real data: python and binary batches, idx files; folders or the tar.gz.

Python batches are pickles. They are read by an unpickler that knows lists, dictionaries, texts and arrays of bytes, and
calls nothing that a file names.

Source: the formats' descriptions at cs.toronto.edu/~kriz/cifar.html and in the MNIST database.
"""

from __future__ import annotations

import gzip
import io
import math
import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

#: No file of these sets is larger, packed or not.
LARGEST_BYTES: Final = 400 * 2**20
Part = tuple[np.ndarray, np.ndarray]
_SIDE: Final = 32
_BATCHES: Final = tuple(f"data_batch_{number}" for number in range(1, 6))
#: By kind: the files of each part.
_FILES: Final[Mapping[str, Mapping[str, Sequence[str]]]] = {
    "cifar10-python": {"train": _BATCHES, "evaluation": ("test_batch",)},
    "cifar100-python": {"train": ("train",), "evaluation": ("test",)},
    "cifar10-binary": {"train": tuple(f"{name}.bin" for name in _BATCHES), "evaluation": ("test_batch.bin",)},
    "cifar100-binary": {"train": ("train.bin",), "evaluation": ("test.bin",)},
    "idx": {
        "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        "evaluation": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
    },
}


def kind_of_archive(path: Path) -> str | None:
    """Which of the formats a folder or a tar.gz holds, None if it is none of them."""
    names = _names(path)
    for kind, parts in _FILES.items():
        if all(name in names for files in parts.values() for name in files):
            return kind
    return None


def read_parts(path: Path) -> tuple[dict[str, Part], tuple[str, ...]]:
    """Images uint8 (n, channels, H, W) and labels int64 (n,) by part, and the names of the classes.

    Args:
        path: Folder or tar.gz, of which `kind_of_archive` knows the kind.

    Raises:
        ValueError: If a file is damaged or holds anything else.
    """
    stats = [entry.stat() for entry in sorted(path.iterdir() if path.is_dir() else [path])]
    return _read_parts(path, tuple((stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=2)
def _read_parts(path: Path, changed: tuple[tuple[int, int], ...]) -> tuple[dict[str, Part], tuple[str, ...]]:
    """As `read_parts`; again, when a file has changed."""
    kind = kind_of_archive(path)
    assert kind is not None
    read: Callable[[Path, str, str], Part] = {"python": _python, "binary": _binary}.get(kind.partition("-")[2], _python)
    if kind == "idx":
        parts = {part: _idx(path, *files) for part, files in _FILES[kind].items()}
        return parts, _names_of(path, kind, parts)
    parts = {part: _joined([read(path, name, kind) for name in files]) for part, files in _FILES[kind].items()}
    return parts, _names_of(path, kind, parts)


def _joined(parts: Sequence[Part]) -> Part:
    return np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts])


def _names_of(path: Path, kind: str, parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Names where a file beside the batches says them, else numbers."""
    classes = 1 + max(int(labels.max()) for _, labels in parts.values())
    meta = {"cifar10-python": ("batches.meta", b"label_names"), "cifar100-python": ("meta", b"fine_label_names")}
    file, key = meta.get(kind, ("", b""))
    if file in _names(path):
        named = _unpickled(path, file).get(key)
        if isinstance(named, list) and len(named) == classes and all(isinstance(name, bytes) for name in named):
            return tuple(name.decode("ascii", "replace") for name in named)
    return tuple(map(str, range(classes)))


def _python(path: Path, name: str, kind: str) -> Part:
    """A pickled batch."""
    batch = _unpickled(path, name)
    labels = batch.get(b"labels" if kind.startswith("cifar10-") else b"fine_labels")
    pixels = batch.get(b"data")
    if (
        not isinstance(pixels, np.ndarray)
        or not isinstance(labels, list)
        or pixels.shape != (len(labels), 3 * _SIDE**2)
    ):
        raise ValueError(f"{path}: {name} holds no images (n, 3072) with their labels.")
    return pixels.reshape(-1, 3, _SIDE, _SIDE), _checked(np.array(labels, dtype=np.int64), path, name)


def _binary(path: Path, name: str, kind: str) -> Part:
    """Records of one label (CIFAR-100: coarse, fine) and 3,072 pixels."""
    skipped = 1 if kind.startswith("cifar100") else 0
    length, content = 1 + skipped + 3 * _SIDE**2, _content(path, name)
    if not content or len(content) % length:
        raise ValueError(f"{path}: {name} has {len(content)} bytes, which are not records of {length}.")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    images = records[:, 1 + skipped :].reshape(-1, 3, _SIDE, _SIDE)
    return images, _checked(records[:, skipped].astype(np.int64), path, name)


def _idx(path: Path, images: str, labels: str) -> Part:
    """MNIST's pair of files."""
    pixels, classes = _idx_array(path, images, 3), _idx_array(path, labels, 1)
    if len(pixels) != len(classes):
        raise ValueError(f"{path}: {images} has {len(pixels)} images, {labels} {len(classes)} labels.")
    return pixels[:, None], _checked(classes.astype(np.int64), path, labels)


def _idx_array(path: Path, name: str, dimensions: int) -> np.ndarray:
    """An array of bytes behind a header: 0, 0, type 8, dimensions, and a big-endian number for each."""
    content, start = _content(path, name), 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:start], dtype=">u4").tolist())
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(shape) or not len(shape):
        raise ValueError(f"{path}: {name} is no idx file of {dimensions} dimensions, or is cut short.")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _checked(labels: np.ndarray, path: Path, name: str) -> np.ndarray:
    if not len(labels) or labels.min() < 0 or labels.max() > 255:
        raise ValueError(f"{path}: {name} holds labels that are no class indices.")
    return labels


def _names(path: Path) -> dict[str, str]:
    """Names of the files, without folders and .gz, and how they are called in full."""
    if path.is_dir():
        found = [entry.name for entry in path.iterdir() if entry.is_file()]
    elif path.is_file() and path.name.endswith((".tar.gz", ".tgz", ".tar")):
        try:
            with tarfile.open(path) as archive:
                found = [member.name for member in archive.getmembers() if member.isfile()]
        except (tarfile.TarError, OSError, EOFError) as err:
            raise ValueError(f"{path}: not a readable tar archive ({err}).") from err
    else:
        found = []
    return {Path(name).name.removesuffix(".gz"): name for name in found}


def _content(path: Path, name: str) -> bytes:
    """The bytes of a file in a folder or archive, unpacked."""
    full = _names(path)[name]
    try:
        if path.is_dir():
            with (path / full).open("rb") as file:
                content = file.read(LARGEST_BYTES + 1)
        else:
            with tarfile.open(path) as archive:
                member = archive.extractfile(full)
                content = member.read(LARGEST_BYTES + 1) if member else b""
        if full.endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(LARGEST_BYTES + 1)
    except (tarfile.TarError, OSError, EOFError) as err:
        raise ValueError(f"{path}: {name} is not readable ({err}).") from err
    if len(content) > LARGEST_BYTES:
        raise ValueError(f"{path}: {name} is larger than {LARGEST_BYTES // 2**20} MiB.")
    return content


class _Bytes:
    """What stands for numpy's array of bytes while a pickle is read."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, content = state
        if not isinstance(kind, _Kind) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array of anything but bytes")
        if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) != len(content):
            raise pickle.UnpicklingError("an array whose shape is not its size")
        self.array = np.frombuffer(content, dtype=np.uint8).reshape(shape, order="F" if is_fortran else "C")


class _Kind:
    """What stands for numpy's type of bytes; nothing of its state is used."""

    def __init__(self, name: object, *_: object) -> None:
        if name not in (b"u1", "u1"):
            raise pickle.UnpicklingError(f"an array of {name!r}")

    def __setstate__(self, state: object) -> None:
        return


class _Unpickler(pickle.Unpickler):
    """Knows arrays of bytes, by numpy's names for them, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {("numpy", "dtype"): _Kind, ("numpy", "ndarray"): _Bytes}
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            known[core, "_reconstruct"] = lambda *_: _Bytes()
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return known[module, name]


def _unpickled(path: Path, name: str) -> dict[bytes, Any]:
    """A batch's dictionary."""
    try:
        content = _Unpickler(io.BytesIO(_content(path, name)), encoding="bytes").load()
    except ValueError:
        raise
    except Exception as err:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: {name} is refused or damaged: {' '.join(str(err).split())[:200]}.") from err
    if not isinstance(content, dict):
        raise ValueError(f"{path}: {name} holds no dictionary.")
    arrays = {key: value.array if isinstance(value, _Bytes) else value for key, value in content.items()}
    return {key.encode() if isinstance(key, str) else key: value for key, value in arrays.items()}
