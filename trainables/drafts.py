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
#: Labels of a bank: logits, and which classes they are of where not of all.
BANK_FILES: Final = ("bank_logits.npy", "bank_kept.npy")
#: Arrays that hold the teacher: `Teacher.to_bytes`, and the map `linear` of one that has it.
TEACHER: Final = ("teacher", "teacher_linear")
FLOAT16_MOST: Final = float(np.finfo(np.float16).max)
Part = tuple[int, int]


def draft_of(entry: Path) -> Path:
    """Where an entry's draft lies."""
    return entry.with_name(entry.name.replace("data-", "draft-", 1))


def packing_of(draft: Path) -> dict[str, Any]:
    """How its labels are to be kept: arguments of `pack_logits`."""
    about = read_about(draft)
    return {"label_format": about["label_format"], "top_k": about.get("label_top_k", 0)}


def split_views(draft: Path, *, workers: int = 1) -> list[Part]:
    """(first, last + 1) of the views of each part: about two per worker, none larger than PART_BYTES (or one view)."""
    views, images = _shape(draft)[:2]
    fits = PART_BYTES // max(1, 4 * images * read_about(draft)["classes"])
    size = max(1, min(fits, -(-views // (2 * workers)) if workers > 1 else views))
    return [(first, min(first + size, views)) for first in range(0, views, size)]


def needed_for_labels(draft: Path) -> dict[str, np.ndarray]:
    """The arrays of a draft that `label_views` reads: neither pixels of views nor the other splits."""
    unneeded = ("validation_", "test_", "bank_pixels", "bank_present")
    return {name: array for name, array in map_entry(draft).items() if not name.startswith(unneeded)}


def label_views(
    arrays: Mapping[str, np.ndarray], part: Part, packing: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], float]:
    """Have a draft's teacher label some views, on a GPU where this process has one.

    Args:
        arrays: See `needed_for_labels`.
        part: First view and the one after the last.
        packing: See `packing_of`.

    Returns:
        As `pack_logits`, of logits (views, N, C).

    Raises:
        ValueError: If a logit is too large for the format.
    """
    import torch

    from trainables.data.labels import label_view
    from trainables.data.teacher import teacher_from_bytes
    from trainables.splits import as_split, as_tensor

    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = teacher_from_bytes(arrays["teacher"], arrays.get("teacher_linear")).to(device)
    tensors = {name: as_tensor(arrays[name]) for name in arrays if name not in TEACHER}
    distilled, background = as_split("distilled", tensors), tensors["bank_background"]
    views = tensors["bank_parameters"][slice(*part)]
    logits = torch.stack([label_view(distilled, view, background, teacher) for view in views])
    return pack_logits(logits.numpy(), **packing)


def pack_logits(logits: np.ndarray, *, label_format: str, top_k: int = 0) -> tuple[dict[str, np.ndarray], float]:
    """Logits as a bank keeps them, and the largest rounding error.

    float16 rounds to the nearest number: |error| <= 2^-11 |t|, or 2^-25 where |t| < 2^-14.

    Args:
        logits: (..., C).
        label_format: "float16" or "float32".
        top_k: Keep the k largest of each row and their classes; 0 or C: all.

    Returns:
        `bank_logits` (..., C or k), and where some were left out also `bank_kept`, the class of each (..., k), largest first.

    Raises:
        ValueError: If a logit is too large for the format.
    """
    packed, classes = {}, logits.shape[-1]
    if 0 < top_k < classes:
        kept = np.argsort(-logits, axis=-1, kind="stable")[..., :top_k]
        logits = np.take_along_axis(logits, kept, axis=-1)
        packed["bank_kept"] = kept.astype("uint8" if classes <= 256 else "int16" if classes <= 2**15 else "int32")
    largest = float(np.abs(logits).max(initial=0.0))
    if label_format == "float16" and largest > FLOAT16_MOST:
        raise ValueError(f"fixed.label_format: float16 ends at 65504, there is a logit of {largest:g}; use float32.")
    rounded = packed["bank_logits"] = logits.astype(label_format)
    return packed, float(np.abs(rounded.astype(np.float32) - logits).max(initial=0.0))


def complete(draft: Path, entry: Path, labelled: Iterable[tuple[Part, tuple[Mapping[str, np.ndarray], float]]]) -> None:
    """Make an entry of a draft and its labels, which arrive part by part in any order; the draft is used up."""
    about, rounding = read_about(draft), 0.0
    views, files = _shape(draft)[0], {}
    with new_entry(entry) as folder:
        for part, (arrays, error) in labelled:
            rounding = max(rounding, error)
            for name, values in arrays.items():
                if name not in files:
                    shape, path = (views, *values.shape[1:]), folder / f"{name}.npy"
                    files[name] = np.lib.format.open_memmap(path, mode="w+", dtype=values.dtype, shape=shape)
                files[name][slice(*part)] = values
        for file in files.values():
            file.flush()
        bank_bytes = about["bank_bytes"] + sum(file.nbytes for file in files.values())
        about |= {"label_rounding": rounding, "bank_bytes": bank_bytes}
        for path in draft.iterdir():
            if path.name not in (SEAL, "about.json") and path.stem not in TEACHER:
                path.rename(folder / path.name)
        (folder / "about.json").write_text(json.dumps(about))
    shutil.rmtree(draft)


def read_about(entry: Path) -> dict[str, Any]:
    """What is known of an entry, with `label_bytes`: of the files that a user of its labels would have to be sent."""
    about: dict[str, Any] = json.loads((entry / "about.json").read_text())
    older = BANK_FILES if "label_format" in about else ("teacher.npy",)  # entries from before files were listed
    files = about.get("label_files", older)
    sizes = [path.stat().st_size for name in files if (path := entry / name).exists()]
    return {**about, "label_bytes": sum(sizes)}


def _shape(draft: Path) -> tuple[int, ...]:
    return map_entry(draft)["bank_parameters"].shape
