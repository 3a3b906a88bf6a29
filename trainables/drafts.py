"""Cache entries that wait for their teacher's labels: how labelling is split, done by any process, and put together.

A draft holds views, images and the teacher. Parts of it can be labelled anywhere (`label_views`); whoever gathers the parts
(`complete`) needs no torch and never has all labels in memory.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainables.arrays import SEAL, map_entry, new_entry

#: Of a part's labels in float32, at most, unless a single view has more.
PART_BYTES: Final = 64 * 2**20
FLOAT16_MOST: Final = float(np.finfo(np.float16).max)
Part = tuple[int, int]


def draft_of(entry: Path) -> Path:
    """Where an entry's draft lies."""
    return entry.with_name(entry.name.replace("data-", "draft-", 1))


def label_format_of(draft: Path) -> str:
    """The number format in which its labels are to be kept."""
    return str(_about(draft)["label_format"])


def split_views(draft: Path, *, workers: int = 1) -> list[Part]:
    """(first, last + 1) of the views of each part: about two per worker, none larger than PART_BYTES (or one view)."""
    views, images = _shape(draft)[:2]
    fits = PART_BYTES // max(1, 4 * images * _about(draft)["classes"])
    size = max(1, min(fits, -(-views // (2 * workers)) if workers > 1 else views))
    return [(first, min(first + size, views)) for first in range(0, views, size)]


def needed_for_labels(draft: Path) -> dict[str, np.ndarray]:
    """The arrays of a draft that `label_views` reads: neither pixels of views nor the other splits."""
    unneeded = ("validation_", "test_", "bank_pixels", "bank_present")
    return {name: array for name, array in map_entry(draft).items() if not name.startswith(unneeded)}


def label_views(arrays: Mapping[str, np.ndarray], part: Part, label_format: str) -> tuple[np.ndarray, float]:
    """Have a draft's teacher label some views, on a GPU where this process has one.

    Args:
        arrays: See `needed_for_labels`.
        part: First view and the one after the last.
        label_format: "float16" or "float32".

    Returns:
        Logits (views, N, C), rounded to the nearest number of the format, and the largest rounding error among them.

    Raises:
        ValueError: If a logit is too large for the format.
    """
    import torch

    from trainables.data.labels import label_view
    from trainables.data.teacher import teacher_from_bytes
    from trainables.splits import as_split, as_tensor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = teacher_from_bytes(arrays["teacher"]).to(device)
    tensors = {name: as_tensor(arrays[name]) for name in arrays if name != "teacher"}
    distilled, background = as_split("distilled", tensors), tensors["bank_background"]
    views = tensors["bank_parameters"][slice(*part)]
    logits = torch.stack([label_view(distilled, view, background, teacher) for view in views])
    return round_logits(logits.numpy(), label_format)


def round_logits(logits: np.ndarray, label_format: str) -> tuple[np.ndarray, float]:
    """Logits in a number format, and the largest rounding error.

    float16 rounds to the nearest number: |error| <= 2^-11 |t|, or 2^-25 where |t| < 2^-14.

    Raises:
        ValueError: If a logit is too large for the format.
    """
    largest = float(np.abs(logits).max(initial=0.0))
    if label_format == "float16" and largest > FLOAT16_MOST:
        raise ValueError(f"fixed.label_format: float16 ends at 65504, there is a logit of {largest:g}; use float32.")
    rounded = logits.astype(label_format)
    return rounded, float(np.abs(rounded.astype(np.float32) - logits).max(initial=0.0))


def complete(draft: Path, entry: Path, labelled: Iterable[tuple[Part, tuple[np.ndarray, float]]]) -> None:
    """Make an entry of a draft and its labels, which arrive part by part in any order; the draft is used up."""
    about, rounding = _about(draft), 0.0
    shape = (*_shape(draft)[:2], about["classes"])
    with new_entry(entry) as folder:
        logits = np.lib.format.open_memmap(
            folder / "bank_logits.npy", mode="w+", dtype=about["label_format"], shape=shape
        )
        for part, (values, error) in labelled:
            logits[slice(*part)] = values
            rounding = max(rounding, error)
        logits.flush()
        about |= {"label_rounding": rounding, "bank_bytes": about["bank_bytes"] + logits.nbytes}
        for path in draft.iterdir():
            if path.name not in (SEAL, "teacher.npy", "about.json"):
                path.rename(folder / path.name)
        (folder / "about.json").write_text(json.dumps(about))
    shutil.rmtree(draft)


def _about(draft: Path) -> dict[str, Any]:
    return dict(json.loads((draft / "about.json").read_text()))


def _shape(draft: Path) -> tuple[int, ...]:
    return map_entry(draft)["bank_parameters"].shape
