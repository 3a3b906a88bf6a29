"""Real labelled images, split into train, validation and test once and for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.names import REAL_DATASETS
from trainables.splits import Split, as_tensor

SPLIT_SEED: Final = 2024
TEST_FRAC: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class RealData:
    """A real dataset.

    Attributes:
        train, validation, test: Disjoint splits, stratified by class.
        classes: C.
        flips: Mirrored images keep their class.
        background: (channels,) value of a blank pixel.
        mean, std: (channels,) that ready images were normalised with; 0 and 1 before `normalise`.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    flips: bool
    background: Tensor
    mean: Tensor
    std: Tensor


def load_real(name: str, *, validation_frac: float) -> RealData:
    """Load a real dataset by name; the split depends on nothing but `validation_frac`.

    Args:
        name: A name of REAL_DATASETS; see `load_tree` for images on disk.
        validation_frac: Share of the training images held out for choosing settings, in (0, 1).

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown real data {name!r}; valid: {list(REAL_DATASETS)}.")
    return _LOADERS[name](validation_frac)


def normalise(real: RealData) -> RealData:
    """The same data with zero mean and unit deviation per channel of the training split; bytes stay bytes."""
    if real.train.images.dtype == torch.uint8:
        return _normalise_bytes(real)
    mean = real.train.images.mean(dim=(0, 2, 3)).view(-1, 1, 1)
    std = real.train.images.std(dim=(0, 2, 3)).view(-1, 1, 1)
    train, validation, test = (
        Split((split.images - mean) / std, split.labels) for split in (real.train, real.validation, real.test)
    )
    background = (real.background - mean.flatten()) / std.flatten()
    return RealData(train, validation, test, real.classes, real.flips, background, mean.flatten(), std.flatten())


def _normalise_bytes(real: RealData) -> RealData:
    """Give every split of bytes the training split's mean and deviation, counted from a histogram."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([_histogram(real.train.images, c) for c in range(real.train.images.shape[1])])
    shares = counts / counts.sum(dim=1, keepdim=True)
    mean = shares @ levels
    std = (shares @ levels**2 - mean**2).clamp_min(1e-12).sqrt()
    mean, std = mean.float(), std.float()
    train, validation, test = (
        Split(split.images, split.labels, mean, std) for split in (real.train, real.validation, real.test)
    )
    background = (real.background - mean) / std
    return RealData(train, validation, test, real.classes, real.flips, background, mean, std)


def _histogram(images: Tensor, channel: int) -> Tensor:
    """How often each byte occurs in a channel, part by part, so that a mapped file is never in memory whole."""
    parts = (part[:, channel].flatten().int() for part in images.split(10_000))
    return torch.stack([torch.bincount(part, minlength=256) for part in parts]).sum(dim=0).double()


def load_tree(arrays: Mapping[str, np.ndarray], *, classes: int, flips: bool, validation_frac: float) -> RealData:
    """Real data from decoded images; see `decode_tree`.

    Validation is split from the training part; the evaluation part is the test split.

    Args:
        arrays: {part}_images and {part}_labels of the parts "train" and "evaluation".
        classes: C.
        flips: Mirrored images keep their class.
        validation_frac: Share of the training part that validation is split from, in (0, 1).
    """
    labels = arrays["train_labels"]
    rest, held_out = _split_stratified(labels, validation_frac)
    train, validation = (_take(arrays["train_images"], labels, index) for index in (rest, held_out))
    test = _wrap(arrays["evaluation_images"], arrays["evaluation_labels"])
    zeros = torch.zeros(train.images.shape[1])
    return RealData(train, validation, test, classes, flips, zeros, zeros, zeros + 1)


def _load_digits(validation_frac: float) -> RealData:
    """scikit-learn's digits: 1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak 1998); a third is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    rest, test = _split_stratified(labels, TEST_FRAC)
    train, validation = _split_stratified(labels[rest], validation_frac)
    parts = [_take(images, labels, index) for index in (rest[train], rest[validation], test)]
    zero = torch.zeros(1)
    return RealData(parts[0], parts[1], parts[2], 10, flips=False, background=zero, mean=zero, std=zero + 1)


def _split_stratified(labels: np.ndarray, frac: float) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices of (the rest, a fraction), each with the class shares of the whole."""
    from sklearn.model_selection import train_test_split

    index = np.arange(len(labels))
    try:
        rest, part = train_test_split(index, test_size=frac, stratify=labels, random_state=SPLIT_SEED)
    except ValueError as err:
        raise ValueError(f"validation.frac: {frac} of {len(labels)} images leaves a class without any: {err}") from err
    return np.sort(rest), np.sort(part)


def _take(images: np.ndarray, labels: np.ndarray, index: np.ndarray) -> Split:
    return _wrap(images[index], labels[index])


def _wrap(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(as_tensor(images), as_tensor(labels.astype(np.int64)))


_LOADERS: Final[Mapping[str, Callable[[float], RealData]]] = {"digits": _load_digits}
