"""Real labelled images, split into train, validation and test once and for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.splits import Split, as_tensor

SPLIT_SEED: Final = 2024
TEST_FRAC: Final = 1 / 3


@dataclass(frozen=True, slots=True)
class RealData:
    """A real dataset.

    Attributes:
        train, validation, test: Disjoint splits, stratified by class; train is empty where there is none.
        names: Of the classes, in the order of their labels.
        flips: Mirrored images keep their class.
        background: (channels,) value of a blank pixel.
        mean, std: (channels,) that ready images were normalised with; 0 and 1 before `normalise`.
    """

    train: Split
    validation: Split
    test: Split
    names: tuple[str, ...]
    flips: bool
    background: Tensor
    mean: Tensor
    std: Tensor

    @property
    def classes(self) -> int:
        """C."""
        return len(self.names)

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return self.test.images.shape[-1]


def load_digits(validation_frac: float) -> RealData:
    """scikit-learn's digits: 1,797 real 8 x 8 scans (UCI, Alpaydin and Kaynak 1998); a third is the test split."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    rest, test = _split_stratified(labels, TEST_FRAC)
    train, validation = _split_stratified(labels[rest], validation_frac)
    parts = [_take(images, labels, index) for index in (rest[train], rest[validation], test)]
    zero = torch.zeros(1)
    names = tuple(map(str, range(10)))
    return RealData(parts[0], parts[1], parts[2], names, flips=False, background=zero, mean=zero, std=zero + 1)


def load_parts(
    arrays: Mapping[str, np.ndarray], names: Sequence[str], *, flips: bool, validation_from: str, validation_frac: float
) -> RealData:
    """Real data from decoded images; see `decode_tree`.

    Args:
        arrays: {part}_images and {part}_labels of the part "evaluation" and perhaps "train".
        names: Of the classes.
        flips: Mirrored images keep their class.
        validation_from: "train", "evaluation", or "auto": train where there is one. The other images of the
            evaluation part are the test split.
        validation_frac: Share of that part, in (0, 1).

    Raises:
        ValueError: If there is no such part, or a class would be left without images.
    """
    source = validation_source(arrays, validation_from)
    kept = {part: np.arange(len(arrays[f"{part}_labels"])) for part in ("train", "evaluation") if _has(arrays, part)}
    kept[source], held_out = _split_stratified(arrays[f"{source}_labels"], validation_frac)
    validation = _part(arrays, source, held_out)
    train = _part(arrays, "train", kept["train"]) if "train" in kept else _part(arrays, "evaluation", np.arange(0))
    zeros = torch.zeros(validation.images.shape[1])
    test = _part(arrays, "evaluation", kept["evaluation"])
    return RealData(train, validation, test, tuple(names), flips, zeros, zeros, zeros + 1)


def validation_source(arrays: Mapping[str, np.ndarray], asked: str) -> str:
    """The part that validation is split from."""
    if asked == "train" and not _has(arrays, "train"):
        raise ValueError("validation.from: train, but the data have no train split; use auto or evaluation.")
    return asked if asked != "auto" else "train" if _has(arrays, "train") else "evaluation"


def _has(arrays: Mapping[str, np.ndarray], part: str) -> bool:
    return f"{part}_labels" in arrays


def _part(arrays: Mapping[str, np.ndarray], part: str, index: np.ndarray) -> Split:
    """Some images of a part; all of them without a copy."""
    images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    return _wrap(images, labels) if len(index) == len(labels) else _take(images, labels, index)


def normalise(real: RealData, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> RealData:
    """The same data less a mean and divided by a deviation per channel; bytes stay bytes.

    Args:
        real: Pixels in [0, 1], or bytes.
        mean: Per channel; None: of the training split, or of the test split where there is none.
        std: Per channel, to go with `mean`.

    Raises:
        ValueError: If there is not one number per channel.
    """
    if mean is None or std is None:
        return _normalised(real, *_moments(real))
    channels = real.test.images.shape[1]
    if not len(mean) == len(std) == channels:
        raise ValueError(f"data: mean and std need one number per channel ({channels}), got {len(mean)}, {len(std)}.")
    return _normalised(real, torch.tensor(list(mean)), torch.tensor(list(std)))


def _normalised(real: RealData, mean: Tensor, std: Tensor) -> RealData:
    def of(split: Split) -> Split:
        if split.images.dtype == torch.uint8:
            return Split(split.images, split.labels, mean, std)
        return Split((split.images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1), split.labels, mean, std)

    parts = (of(real.train), of(real.validation), of(real.test))
    return RealData(*parts, real.names, real.flips, (real.background - mean) / std, mean, std)


def _moments(real: RealData) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel of the pixels; of bytes, counted from a histogram."""
    seen = (real.train if len(real.train) else real.test).images
    if seen.dtype != torch.uint8:
        return seen.mean(dim=(0, 2, 3)), seen.std(dim=(0, 2, 3))
    levels = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([_histogram(seen, c) for c in range(seen.shape[1])])
    shares = counts / counts.sum(dim=1, keepdim=True)
    mean = shares @ levels
    std = (shares @ levels**2 - mean**2).clamp_min(1e-12).sqrt()
    return mean.float(), std.float()


def _histogram(images: Tensor, channel: int) -> Tensor:
    """How often each byte occurs in a channel, part by part, so that a mapped file is never in memory whole."""
    parts = (part[:, channel].flatten().int() for part in images.split(10_000))
    return torch.stack([torch.bincount(part, minlength=256) for part in parts]).sum(dim=0).double()


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
