"""The distilled set of a recipe, in the pixels that students see, which are checked whatever they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from trainables.arrays import changed_rows
from trainables.data.distilled import choose_random
from trainables.data.rded import make_rded
from trainables.data.real import RealData
from trainables.formats.pixels import sample_of
from trainables.formats.read import DistilledFile, read_distilled
from trainables.formats.stores import LabelStore, doubts_about_store, open_store
from trainables.splits import Split

#: Deviations and means that no set of images has in units of the real images' deviation: refused, and doubtful.
_IMPOSSIBLE: Final = (0.02, 20.0, 10.0)
_DOUBTFUL: Final = (0.25, 6.0, 2.0)


@dataclass(frozen=True, slots=True)
class AboutSet:
    """What is known of a distilled set besides its pixels.

    Attributes:
        soft: (N, C) labels that came with it, or None.
        label_kind: Of them, see `trainables.formats.kinds`; else "hard".
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
        stored = Path(recipe["label_store"]["path"]).expanduser() if "label_store" in recipe else None
        store = open_store(stored, real.classes) if stored else None
        return _read(wanted, real, cache, store, is_ordered="class_order" in recipe["data"])
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


def _read(
    wanted: Mapping[str, Any], real: RealData, cache: Path, store: LabelStore | None, *, is_ordered: bool
) -> tuple[Split, AboutSet]:
    """A set from disk, brought to the pixels that students see."""
    path = Path(wanted["path"]).expanduser()
    fit: dict[str, Any] = {"classes": real.names, "size": real.size, "is_ordered": is_ordered}
    file = read_distilled(path, wanted["stated"], **fit, scratch=cache)
    file = with_channels(file, real.test.images.shape[1], path)
    split = _in_pixels_of(file, real, cache)
    doubts = _require_contrast(split, real, wanted["stated"], path)
    facts: dict[str, Any] = {
        "distilled": file.format,
        "label_kind": file.label_kind,
        "pixel_space": file.pixel_space,
        "remarks": [*file.remarks, *doubts],
    }
    if store is not None:
        facts["label_kind"] = store.label_kind
        facts["remarks"] += [f"{store.root.name}: {said}" for said in doubts_about_store(store)]
    return split, AboutSet(file.soft, file.label_kind, file.listed, file.native_size, facts)


def with_channels(file: DistilledFile, channels: int, path: Path) -> DistilledFile:
    """A set with as many channels as the real images: three equal ones are gray, gray ones are repeated; it is remarked.

    Many programs write gray images as files of three equal channels (`torchvision.utils.save_image` always does).

    Args:
        file: What was read; pixels that are normalised or whitened, each channel by numbers of its own, stay as they are.
        channels: Of the real images, 1 or 3.
        path: For messages.

    Raises:
        ValueError: If the channels differ in number and cannot be brought to each other.
    """
    images, has = file.images, file.images.shape[1]
    if has == channels:
        return file
    if file.pixel_space not in ("uint8", "raw01") or (has > channels and not bool((images == images[:, :1]).all())):
        raise ValueError(f"{path}: images of {has} channels, the real data have {channels}.")
    if has > channels:
        images, said = images[:, :1].contiguous(), "all images have three equal channels, which are read as one (gray)."
    else:
        images, said = (
            images.repeat(1, channels, 1, 1),
            "images are gray and the real ones are not; channels are repeated.",
        )
    return replace(file, images=images, remarks=(*file.remarks, said))


def _in_pixels_of(file: DistilledFile, real: RealData, cache: Path) -> Split:
    """Images as students see them: bytes as they are, floats normalised as the real images."""
    if file.pixel_space == "uint8":
        return Split(file.images, file.hard, real.mean, real.std, real.test.whitening)
    if file.pixel_space == "zca":
        return Split(file.images, file.hard)
    mean, std = (np.array(values, dtype=np.float32).reshape(-1, 1, 1) for values in (file.mean, file.std))
    real_mean, real_std = (values.view(-1, 1, 1).numpy() for values in (real.mean, real.std))

    def normalised(pixels: np.ndarray) -> np.ndarray:
        raw = pixels * std + mean if file.pixel_space == "meanstd" else pixels
        return np.asarray((raw - real_mean) / real_std)

    pixels = changed_rows(file.images.float().numpy(), np.arange(len(file.images)), normalised, cache)
    return Split(torch.from_numpy(pixels), file.hard)


def _require_contrast(split: Split, real: RealData, stated: Mapping[str, Any], path: Path) -> list[str]:
    """Doubts about mean and deviation of what students see, against the real images; what cannot be is refused."""
    seen, expected = (part.batch(torch.from_numpy(sample_of(len(part)))) for part in (split, real.test))
    scale = float(expected.std().clamp_min(1e-6))
    deviation, mean = float(seen.std()) / scale, float((seen.mean() - expected.mean()).abs()) / scale
    constants = ", ".join(f"{key} {stated[key]}" for key in ("pixel_space", "mean", "std") if key in stated)
    said = (
        f"{path}: images have {deviation:.3g} times the deviation of the real ones and a mean that is {mean:.3g} of it away"
        + (f" (stated: {constants})" if constants else "")
    )
    for (least, most, far), is_refused in ((_IMPOSSIBLE, True), (_DOUBTFUL, False)):
        if least <= deviation <= most and mean <= far:
            continue
        if is_refused:
            raise ValueError(f"{said}; mean and std are of pixels in [0, 1], and bytes go from 0 to 255.")
        return [f"{said}; look at pixel_space, mean and std."]
    return []
