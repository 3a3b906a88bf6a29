"""What a distilled set, a label store or a checkpoint is, and what is doubtful about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.formats.found import Found, ImageFiles
from trainables.formats.pixels import describe_images
from trainables.formats.positions import hard_labels
from trainables.formats.read import doubts_about, missing_keys, remarks_on
from trainables.formats.recognise import recognise_path
from trainables.sidecar import read_sidecar


def inspect_path(path: Path, *, full: bool = False, given: dict[str, Any] | None = None) -> dict[str, Any]:
    """Facts about a file or folder, ready for JSON.

    Args:
        path: What to look at.
        full: Compute pixel statistics from all images instead of a seeded sample of 200.
        given: What is stated about it; None: what the sidecar says.

    Returns:
        kind, format, images (shape, dtype, min, max, mean, std, sampled), pixel_space, labels (kind, shape), classes,
        ipc, problems (what is doubtful), remarks (what was decided about the content), asks (keys the user must state),
        stated (what the sidecar says), details.

    Raises:
        ValueError: If the path is missing, damaged, refused or nothing that is known.
    """
    found, stated = recognise_path(path), read_sidecar(path) if given is None else given
    problems, details = doubts_about(found, stated), dict(found.details)
    images, space = None, stated.get("pixel_space", found.pixel_space)
    if found.images is not None:
        images, seen = describe_images(found, full=full)
        space = "uint8" if seen.dtype == torch.uint8 else space
        why = details.pop("pixel_space_why", "pixels are bytes")
        details["pixel_space_guess"] = f"{found.pixel_space}: {why}" if found.pixel_space else why
        problems += _against_range(space, images)
    if found.soft is not None:
        problems += _of_hard_labels(found, stated, path)
    if isinstance(found.images, ImageFiles):
        details |= {"class_names": list(found.images.names)} if not found.images.numbered else {}
    return {
        "kind": found.kind,
        "format": found.format,
        "images": images,
        "pixel_space": space,
        "labels": _labels(found, stated),
        "classes": found.classes or _classes(found),
        "ipc": _images_per_class(found, stated),
        "problems": problems,
        "remarks": remarks_on(found, stated),
        "asks": missing_keys(found, stated),
        "stated": stated,
        "details": details,
    }


def _against_range(space: str | None, images: dict[str, Any]) -> list[str]:
    """A range of pixels that the space cannot have."""
    low, high = images["min"], images["max"]
    if space == "raw01" and not (low >= -0.1 and high <= 1.1):
        return [f"pixels are {low:.3g} to {high:.3g}, which is not raw01."]
    if space in ("meanstd", "zca") and low >= 0 and high <= 1.1:
        return [f"pixels are {low:.3g} to {high:.3g}, which is raw01, not {space}."]
    return []


def _of_hard_labels(found: Found, stated: dict[str, Any], path: Path) -> list[str]:
    """Where hard labels are from, if the file does not hold them."""
    try:
        _, said = hard_labels(found, stated, path)
    except ValueError as err:
        return [str(err)]
    return [said] if said else []


def _labels(found: Found, stated: dict[str, Any]) -> dict[str, Any] | None:
    """Kind and shape of the labels; None where there are none."""
    if found.kind == "labels":
        shape = [found.details["epochs"], found.details["images"], found.classes]
        return {"kind": found.label_kind, "shape": shape}
    if found.soft is not None:
        return {"kind": stated.get("label_kind", found.label_kind), "shape": list(found.soft.shape)}
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
