"""Torch files and numpy archives from outside: read without running code, and no larger than their bytes say."""

from __future__ import annotations

import argparse
import math
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

#: Larger files are mapped instead of read.
MAPPED_FROM_BYTES: Final = 64 * 2**20
#: Compressed content may be this many times as large as the file; below SMALL_BYTES and SMALL_ELEMENTS nothing is refused.
MOST_EXPANSION: Final = 20
SMALL_BYTES: Final = 2**30
SMALL_ELEMENTS: Final = 10**7
_SAVE_WEIGHTS: Final = "; of a network that was saved whole, save the weights: torch.save(model.state_dict(), PATH)"
_DTYPES: Final = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


class _Dtype:
    """Stand-in for numpy.dtype, whose own `__setstate__` believes pointers and sizes that a file states."""

    def __init__(self, name: object, align: object = False, copy: object = False) -> None:
        if name not in _DTYPES:
            raise pickle.UnpicklingError(f"numpy.dtype {name!s:.50}")
        self.dtype = np.dtype(str(name))

    def __setstate__(self, state: object) -> None:
        """Only the order of bytes: everything else is what simple types have."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("numpy.dtype with a state of its own")
        if any(part not in (None, -1, 0) for part in state[2:]):
            raise pickle.UnpicklingError("numpy.dtype with fields")
        self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(dtype: object, content: object = b"") -> Any:
    """Stand-in for numpy's scalar: a plain number of exactly the bytes that its type has."""
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or len(content) != dtype.dtype.itemsize:
        raise pickle.UnpicklingError("numpy scalar whose bytes do not fit its type")
    return np.frombuffer(content, dtype.dtype)[0].item()


#: What published files hold besides tensors: numpy scalars (by both of numpy's names for them) and parsed arguments.
SAFE_TYPES: Final[list[Any]] = [
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_Dtype, "numpy.dtype"),
    argparse.Namespace,
]


def safe_load(path: Path) -> Any:
    """The content of a torch file, without ever running code from it.

    Raises:
        ValueError: If the file is missing, damaged, holds anything but tensors, numbers and containers, or tensors that
            are much larger than the file.
    """
    try:
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            require_modest_archive(path)
        with torch.serialization.safe_globals(SAFE_TYPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols; what cannot be read is an error anyway
            is_large = path.stat().st_size > MAPPED_FROM_BYTES and is_zip
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_large)
    except FileNotFoundError as err:
        raise ValueError(f"{path}: no such file.") from err
    except pickle.UnpicklingError as err:
        raise ValueError(_refusal(path, err)) from err
    except Exception as err:  # a damaged file can raise anything inside torch's reader
        raise ValueError(f"{path}: not a readable torch file ({' '.join(str(err).split())[:200]}).") from err
    for tensor in _tensors_in(content, path):
        _require_dense(tensor, path)
    return content


def _refusal(path: Path, err: pickle.UnpicklingError) -> str:
    """What a file holds that is refused."""
    found = re.search(r"GLOBAL ([\w.]+)|global:? ([\w.]+)|class ([\w.]+)|(numpy\.dtype|numpy scalar)", str(err))
    name = next((part for part in found.groups() if part and "." in part), "") if found else ""
    if not name and not _is_pickle(path):
        return f"{path}: not a readable torch file."
    what = f" ({name})" if name else ""
    hint = "; save tensors (torch.from_numpy), not arrays" if name.startswith("numpy") else _SAVE_WEIGHTS
    return f"{path}: refused: it holds more than tensors, numbers and containers{what}{hint}."


def _is_pickle(path: Path) -> bool:
    """By its first bytes: torch's zip archive or a bare pickle."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def _tensors_in(content: Any, path: Path) -> Iterator[Tensor]:
    """Every tensor in containers in containers; a container in itself is refused."""
    waiting, seen = [(content, 0)], set()
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            if level > 50:
                raise ValueError(f"{path}: containers nested more than 50 levels deep.")
            waiting += [(inner, level + 1) for inner in (value.values() if isinstance(value, Mapping) else value)]


def _require_dense(tensor: Tensor, path: Path) -> None:
    """An ordinary tensor in memory, not many views of few numbers: those have no end when they are looked at."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ValueError(f"{path}: it holds a tensor that is sparse, quantised or on no device; save plain ones.")
    stored = tensor.untyped_storage().nbytes()
    if tensor.numel() > SMALL_ELEMENTS and tensor.numel() * tensor.element_size() > 2 * stored:
        raise ValueError(
            f"{path}: a tensor {tuple(tensor.shape)} of {stored} stored bytes repeats them (expand); save it contiguous."
        )


def require_modest_archive(path: Path) -> None:
    """Refuse a zip archive whose content is many times the file, by its directory, before anything is unpacked.

    Raises:
        ValueError: If it is, or the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as err:
        raise ValueError(f"{path}: not a readable archive ({' '.join(str(err).split())[:200]}).") from err
    size = path.stat().st_size
    if unpacked > SMALL_BYTES and unpacked > MOST_EXPANSION * size:
        raise ValueError(
            f"{path}: {size} bytes that unpack to {unpacked}, more than {MOST_EXPANSION} times as many; refused. Save it "
            "uncompressed if it is what it says."
        )


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a numpy archive, by name.

    Raises:
        ValueError: If it is damaged, holds objects, or its headers state more than the archive can hold.
    """
    require_modest_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                _require_stated_size(archive, entry, path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as err:  # a damaged file can raise anything inside numpy's reader
        raise ValueError(f"{path}: not a readable numpy archive ({' '.join(str(err).split())[:200]}).") from err


def _require_stated_size(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    """An array's header and its bytes agree: numpy makes room for the shape before it reads."""
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} says {shape} of {dtype}, and has {entry.file_size} bytes")
