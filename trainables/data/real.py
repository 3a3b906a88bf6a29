"""Real labelled images, split into train, validation and test once and for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.names import REAL_DATASETS

SPLIT_SEED: Final = 2024
TEST_FRAC: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class Split:
    """Images (n, channels, H, W) in [0, 1] and labels (n,) in 0 .. C - 1."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, slots=True)
class RealData:
    """A real dataset.

    Attributes:
        train, validation, test: Disjoint splits, stratified by class.
        classes: C.
        flips: Mirrored images keep their class.
        background: (channels,) value of a blank pixel.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    flips: bool
    background: Tensor


def load_real(name: str, *, validation_frac: float) -> RealData:
    """Load a real dataset by name; the split depends on nothing but `validation_frac`.

    Args:
        name: A name of REAL_DATASETS.
        validation_frac: Share of the training images held out for choosing settings, in (0, 1).

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown real data {name!r}; valid: {list(REAL_DATASETS)}.")
    return _LOADERS[name](validation_frac)


def normalise(real: RealData) -> RealData:
    """The same data with zero mean and unit deviation per channel of the training split."""
    mean = real.train.images.mean(dim=(0, 2, 3)).view(-1, 1, 1)
    std = real.train.images.std(dim=(0, 2, 3)).view(-1, 1, 1)
    train, validation, test = (
        Split((split.images - mean) / std, split.labels) for split in (real.train, real.validation, real.test)
    )
    background = (real.background - mean.flatten()) / std.flatten()
    return RealData(train, validation, test, real.classes, real.flips, background)


def _load_digits(validation_frac: float) -> RealData:
    """scikit-learn's digits: 1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak 1998); a third is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    rest, test = _split_stratified(labels, TEST_FRAC)
    train, validation = _split_stratified(labels[rest], validation_frac)
    parts = [_take(images, labels, index) for index in (rest[train], rest[validation], test)]
    return RealData(parts[0], parts[1], parts[2], classes=10, flips=False, background=torch.zeros(1))


def _split_stratified(labels: np.ndarray, frac: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of (the rest, a fraction), each with the class shares of the whole."""
    from sklearn.model_selection import train_test_split

    index = np.arange(len(labels))
    rest, part = train_test_split(index, test_size=frac, stratify=labels, random_state=SPLIT_SEED)
    return np.sort(rest), np.sort(part)


def _take(images: np.ndarray, labels: np.ndarray, index: np.ndarray) -> Split:
    return Split(torch.from_numpy(images[index]), torch.from_numpy(labels[index].astype(np.int64)))


_LOADERS: Final[Mapping[str, Callable[[float], RealData]]] = {"digits": _load_digits}
