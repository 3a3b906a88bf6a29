"""Distilled sets in flax checkpoints (RCIG): msgpack, in which an array is an extension of type 1.

An array is msgpack of [shape, name of the type, bytes]; nothing in it can run code. Sizes are checked before arrays are
made of them.

Source: the format that flax.serialization documents; Loo et al. 2023 (RCIG), arXiv:2302.06755, whose evaluation takes
`ema_average`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import torch

from trainables.formats.found import Found
from trainables.formats.numpy_files import as_images
from trainables.formats.tensors import labels_in, set_of

#: Larger files are no distilled sets of this family, and would be in memory whole.
LARGEST_BYTES: Final = 2 * 2**30
_ARRAY, _SCALAR = 1, 3
_TYPES: Final = ("float16", "float32", "float64", "bfloat16", "uint8", "int8", "int32", "int64", "uint32", "bool")
#: Where the images and labels are, by what the authors evaluate first.
_PLACES: Final = (("ema_average",), ("params",), ())


def recognise_flax(path: Path) -> Found | None:
    """The distilled set in a flax checkpoint, None if the file is no msgpack map.

    Raises:
        ValueError: If it is one, but damaged or without a distilled set.
    """
    if not _may_be_map(path):
        return None
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(
            f"{path}: larger than {LARGEST_BYTES // 2**30} GiB; distilled sets in flax's format are smaller."
        )
    try:
        content = msgpack.unpackb(path.read_bytes(), ext_hook=_array, raw=False, strict_map_key=False)
    except Exception as err:  # a damaged file can raise anything inside msgpack
        raise ValueError(f"{path}: not a readable msgpack file ({' '.join(str(err).split())[:200]}).") from err
    for place in _PLACES:
        inner = content
        for key in place:
            inner = inner.get(key) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and "x_proto" in inner:
            return _set_in(inner, path, place[0] if place else "the top")
    keys = list(content)[:5] if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(f"{path}: a flax checkpoint without a distilled set (x_proto, y_proto), got {keys}.")


def _may_be_map(path: Path) -> bool:
    """By the first byte: a msgpack map that is not empty (a pickle begins with 0x80, torch's archive with PK)."""
    with path.open("rb") as file:
        first = file.read(1)
    return first != b"" and (0x81 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))


def _array(code: int, data: bytes) -> Any:
    """An array of flax, or any other extension as it is."""
    if code not in (_ARRAY, _SCALAR):
        return msgpack.ExtType(code, data)
    shape, name, values = msgpack.unpackb(data, raw=False)
    if name not in _TYPES:
        raise ValueError(f"arrays of {str(name)[:20]!r} are not read")
    size = 2 if name == "bfloat16" else np.dtype(name).itemsize
    if not all(isinstance(n, int) and n >= 0 for n in shape) or math.prod(shape) * size != len(values):
        raise ValueError(f"an array of shape {tuple(shape)} in {len(values)} bytes")
    if name == "bfloat16":
        return torch.frombuffer(bytearray(values), dtype=torch.bfloat16).reshape(shape).float().numpy()
    return np.frombuffer(bytearray(values), dtype=name).reshape(shape)  # a copy that may be written to, as torch wants


def _set_in(arrays: Mapping[str, Any], path: Path, place: str) -> Found:
    if not isinstance(arrays.get("y_proto"), np.ndarray):
        raise ValueError(f"{path}: its key 'y_proto' is missing.")
    images = as_images(arrays["x_proto"], path, "x_proto")
    hard, soft = labels_in(torch.from_numpy(arrays["y_proto"]), len(images), path, "y_proto")
    return set_of("rcig", images, hard, soft, ask_kind=True, details={"taken_from": place})
