"""Images that occur in several splits, pixel by pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.data.real import RealData
from trainables.findings import Repeats
from trainables.splits import Split

#: Bytes in the middle of an image by which it is looked up; what agrees there is compared whole.
LOOKED_UP: Final = 4096
CHUNK: Final = 2_000


def count_repeats(real: RealData, distilled: Split | None) -> Repeats:
    """How many images of one split are also in another.

    Args:
        real: Splits of real images.
        distilled: In the real data's normalisation; None where its pixels cannot be compared (whitened floats).
    """
    test, validation = _index(real.test), _index(real.validation)
    return Repeats(
        distilled_in_test=0 if distilled is None else _count(distilled, real.test, test),
        distilled_in_validation=0 if distilled is None else _count(distilled, real.validation, validation),
        train_in_test=_count(real.train, real.test, test),
        train_in_validation=_count(real.train, real.validation, validation),
        validation_in_test=_count(real.validation, real.test, test),
    )


def _count(split: Split, other: Split, index: dict[bytes, list[int]]) -> int:
    """Images of a split that are in another one, by that one's index."""
    repeated = 0
    for _, rows in _chunks(split):
        for number, middle in enumerate(_middles(rows)):
            candidates = index.get(middle, ())
            repeated += any(bool((_bytes(other, slice(k, k + 1))[0] == rows[number]).all()) for k in candidates)
    return repeated


def _index(split: Split) -> dict[bytes, list[int]]:
    """Numbers of the images by a hash of their middle."""
    index: dict[bytes, list[int]] = defaultdict(list)
    for first, rows in _chunks(split):
        for number, middle in enumerate(_middles(rows)):
            index[middle].append(first + number)
    return dict(index)


def _middles(rows: np.ndarray) -> Iterator[bytes]:
    """Hash of the middle of each row."""
    start = max(0, (rows.shape[1] - LOOKED_UP) // 2)
    for row in np.ascontiguousarray(rows[:, start : start + LOOKED_UP]):
        yield blake2b(row, digest_size=12).digest()


def _chunks(split: Split) -> Iterator[tuple[int, np.ndarray]]:
    """(first, rows) of all images as bytes, some at a time."""
    for first in range(0, len(split), CHUNK):
        yield first, _bytes(split, slice(first, first + CHUNK))


def _bytes(split: Split, part: slice) -> np.ndarray:
    """Some images as rows of bytes; ready ones are brought back to pixels 0 to 255."""
    images: Tensor = split.images[part]
    if images.dtype != torch.uint8:
        if split.mean is not None and split.std is not None:
            images = images * split.std.view(-1, 1, 1) + split.mean.view(-1, 1, 1)
        images = (images * 255).round().clamp(0, 255).to(torch.uint8)
    return images.flatten(1).numpy()
