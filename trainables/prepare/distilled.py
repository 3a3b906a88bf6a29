"""The distilled set of a recipe, in the pixels that students see."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trainables.arrays import changed_rows
from trainables.data.distilled import choose_random
from trainables.data.rded import make_rded
from trainables.data.real import RealData
from trainables.formats.read import read_distilled
from trainables.splits import Split


@dataclass(frozen=True, slots=True)
class AboutSet:
    """What is known of a distilled set besides its pixels.

    Attributes:
        soft: (N, C) labels that came with it, or None.
        label_kind: Of them: "prob" or "logit"; else "hard".
        listed: Index of each image in ImageFolder's order of their files; None for sets that are no files.
        native_size: Shorter side of the first file, pixels; None for sets that are no files.
        facts: For the report.
    """

    soft: Tensor | None
    label_kind: str
    listed: Tensor | None
    native_size: int | None
    facts: dict[str, Any]


def make_distilled(
    recipe: Mapping[str, Any], real: RealData, teacher: nn.Module | None, cache: Path
) -> tuple[Split, AboutSet]:
    """The recipe's distilled set: made by a method, or read from disk (floats by way of a file in the cache's folder)."""
    wanted = recipe["data"]["distilled"]
    if "path" in wanted:
        return _read(wanted, real, cache, is_ordered="class_order" in recipe["data"])
    if not len(real.train):
        raise ValueError(f"data.distilled.method: {wanted['method']} needs real training images; there is no train/.")
    settings = {key: value for key, value in wanted.items() if key != "method"}
    if wanted["method"] == "rded":
        if teacher is None:
            raise ValueError("data.distilled.method: rded needs a teacher, which judges crops.")
        split = make_rded(real.train, teacher, classes=real.classes, **settings)
    else:
        split = choose_random(real.train, classes=real.classes, **settings)
    return split, AboutSet(None, "hard", None, None, {"distilled": wanted["method"]})


def _read(wanted: Mapping[str, Any], real: RealData, cache: Path, *, is_ordered: bool) -> tuple[Split, AboutSet]:
    """A set from disk, brought to the pixels that students see."""
    path = Path(wanted["path"]).expanduser()
    fit: dict[str, Any] = {"classes": real.names, "size": real.size, "is_ordered": is_ordered}
    file = read_distilled(path, wanted["stated"], **fit, scratch=cache)
    channels = real.test.images.shape[1]
    if file.images.shape[1] != channels:
        raise ValueError(f"{path}: images of {file.images.shape[1]} channels, the real data have {channels}.")
    about = AboutSet(
        file.soft,
        file.label_kind,
        file.listed,
        file.native_size,
        {"distilled": file.format, "label_kind": file.label_kind},
    )
    if file.pixel_space == "uint8":
        whitening = real.test.whitening
        return Split(file.images, file.hard, real.mean, real.std, whitening), about
    if file.pixel_space == "zca":
        return Split(file.images, file.hard), about
    mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (file.mean, file.std))
    real_mean, real_std = (values.view(-1, 1, 1).numpy() for values in (real.mean, real.std))

    def normalised(pixels: np.ndarray) -> np.ndarray:
        raw = pixels * std + mean if file.pixel_space == "meanstd" else pixels
        return np.asarray((raw - real_mean) / real_std)

    pixels = changed_rows(file.images.float().numpy(), np.arange(len(file.images)), normalised, cache)
    return Split(torch.from_numpy(pixels), file.hard), about
