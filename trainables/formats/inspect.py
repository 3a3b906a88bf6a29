"""What a distilled set, a label store or a checkpoint is, and what is doubtful about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.formats.found import Found, ImageFiles
from trainables.formats.pixels import describe_images, guess_space
from trainables.formats.read import missing_keys
from trainables.formats.recognise import recognise_path
from trainables.sidecar import read_sidecar


def inspect_path(path: Path, *, full: bool = False) -> dict[str, Any]:
    """Facts about a file or folder, ready for JSON.

    Args:
        path: What to look at.
        full: Compute pixel statistics from all images instead of a seeded sample of 200.

    Returns:
        kind, format, images (shape, dtype, min, max, mean, std, sampled), pixel_space, labels (kind, shape), classes,
        ipc, problems, asks (keys the user must state), stated (what the sidecar says), details.

    Raises:
        ValueError: If the path is missing, damaged, refused or nothing that is known.
    """
    found, stated = recognise_path(path), read_sidecar(path)
    problems = list(found.problems)
    images, space = None, found.pixel_space or stated.get("pixel_space")
    details = dict(found.details)
    if found.images is not None:
        images, seen = describe_images(found, full=full)
        details["pixel_space_guess"] = guess_space(seen)
        space = "uint8" if seen.dtype == torch.uint8 else space
        if space == "raw01" and not (images["min"] >= -0.1 and images["max"] <= 1.1):
            problems.append(f"pixels are {images['min']:.3g} to {images['max']:.3g}, which is not raw01.")
        if space in ("meanstd", "zca") and images["min"] >= 0 and images["max"] <= 1.1:
            problems.append(f"pixels are {images['min']:.3g} to {images['max']:.3g}, which is raw01, not {space}.")
    if isinstance(found.images, ImageFiles):
        details |= {"class_names": list(found.images.names)} if not found.images.numbered else {}
    return {
        "kind": found.kind,
        "format": found.format,
        "images": images,
        "pixel_space": space,
        "labels": _labels(found),
        "classes": found.classes or _classes(found),
        "ipc": _images_per_class(found, stated),
        "problems": problems,
        "asks": missing_keys(found, stated),
        "stated": stated,
        "details": details,
    }


def _labels(found: Found) -> dict[str, Any] | None:
    """Kind and shape of the labels; None where there are none."""
    if found.kind == "labels":
        shape = [found.details["epochs"], found.details["images"], found.classes]
        return {"kind": found.label_kind, "shape": shape}
    if found.soft is not None:
        return {"kind": found.label_kind, "shape": list(found.soft.shape)}
    return {"kind": "hard", "shape": list(found.hard.shape)} if found.hard is not None else None


def _classes(found: Found) -> int | None:
    if found.soft is not None:
        return found.soft.shape[1]
    return len(found.hard.unique()) if found.hard is not None else None


def _images_per_class(found: Found, stated: dict[str, Any]) -> int | None:
    """None where it is unknown or differs between classes."""
    if found.images is None:
        return None
    hard: Tensor | None = found.hard
    if hard is not None:
        counts = np.unique(np.bincount(hard.numpy()))
        return int(counts[0]) if len(counts) == 1 else None
    classes = _classes(found)
    n = len(found.images) if isinstance(found.images, Tensor) else len(found.images.files)
    if classes:
        return n // classes if n % classes == 0 else None
    return stated.get("ipc")
