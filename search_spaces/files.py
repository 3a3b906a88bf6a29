"""Files that a space names: what identifies their content, without torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.settings import Data, Distilled, Validation
from trainables.content import RAW_FILES, Content, file_hash, folder_content, forget, named_content, set_hash
from trainables.names import CLASSES, DEFAULT_ROOT, IMAGENETTE, REAL_DATASETS, TRAINING_IMAGES
from trainables.sidecar import NAME as SIDECAR
from trainables.sidecar import STATED, read_sidecar, sidecar_of
from trainables.trees import Tree, class_folders, image_names, list_tree

__all__ = [
    "check_stated",
    "classes_of",
    "distilled_hash",
    "file_hash",
    "image_tree",
    "look_again",
    "real_content",
    "sampled",
    "stated_of",
    "test_images",
]


def distilled_hash(path: str) -> str:
    """Content of a distilled set or label store; what is stated of it counts by itself.

    Raises:
        ValueError: If there is no such file or folder.
    """
    return set_hash(path, (SIDECAR,))


def real_content(data: Data) -> str | None:
    """What identifies real data; None for named data that are not there yet, and the name of those that a library brings.

    Raises:
        ValueError: If a folder is no image tree.
        OSError: If a file is not readable.
    """
    if (tree := image_tree(data)) is not None:
        return tree.key
    if data.real == "imagenette":
        folder = Path(data.root or DEFAULT_ROOT).expanduser() / IMAGENETTE
        return list_tree(str(folder)).key if folder.is_dir() else None
    return named_content(data.real, data.root or DEFAULT_ROOT) if data.real in RAW_FILES else data.real


def test_images(data: Data, validation: Validation) -> int:
    """Images of the test split: those of the evaluation part that are not taken for validation."""
    tree = image_tree(data)
    n = len(tree.files["evaluation"]) if tree else REAL_DATASETS[data.real]
    has_train = tree is None or "train" in tree.files
    source = validation.source if validation.source != "auto" else "train" if has_train else "evaluation"
    return n if source == "train" or data.real == "digits" else n - math.ceil(validation.frac * n)


def sampled(data: Data) -> dict[str, Content]:
    """Files that are too large to be identified by all their bytes, by the setting that names them."""
    tree, path = image_tree(data), data.distilled.path
    found = {"data.real": tree.content} if tree else {}
    for key, place in (("path", path), ("label_store", data.distilled.label_store)):
        if place and Path(place).expanduser().is_dir():
            found[f"data.distilled.{key}"] = folder_content(str(Path(place).expanduser()), (SIDECAR,))
    return {key: content for key, content in found.items() if not content.is_whole}


def look_again() -> None:
    """Forget what files held: whatever is decided from here on rests on what they hold now."""
    forget()
    list_tree.cache_clear()


def stated_of(distilled: Distilled) -> dict[str, Any]:
    """What is known of a file that it cannot tell: the sidecar, overruled by the space.

    Raises:
        ValueError: If the sidecar is not readable, or holds a key or a value that is not allowed.
    """
    assert distilled.path is not None
    place = Path(distilled.path).expanduser()
    sidecar = read_sidecar(place)
    return check_stated(sidecar, str(sidecar_of(place))) | distilled.stated


def check_stated(stated: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is stated of a file, checked as under `data.distilled`.

    Raises:
        ValueError: If there is a key or a value that is not allowed.
    """
    if unknown := sorted(set(stated) - set(STATED)):
        raise ValueError(f"{where}: unknown key {unknown[0]!r}; valid: {list(STATED)}.")
    try:
        return Distilled.model_validate(dict(stated)).stated
    except ValidationError as err:
        first = err.errors()[0]
        allowed = first["msg"].removeprefix("Input ").replace("should", "must")
        raise ValueError(f"{where}: {'.'.join(map(str, first['loc']))}: {allowed}, got {first['input']!r}.") from err


def classes_of(data: Data) -> int | None:
    """C of real data; None for a tree that is not there."""
    try:
        tree = image_tree(data)
    except (ValueError, OSError):
        return None
    return len(tree.classes) if tree is not None else CLASSES[data.real]


def image_tree(data: Data) -> Tree | None:
    """The tree that holds the real data, listed; None for data with a name of their own.

    Raises:
        ValueError: If the folder is no image tree.
    """
    if data.real in REAL_DATASETS:
        return None
    return list_tree(data.real, tuple(data.class_order) if data.class_order else None)


def training_images_per_class(data: Data, validation: Validation) -> int:
    """The most training images that the smallest class can have once validation is split off; 0 without any.

    Which images are split off is decided when the data are read; a class may then have one image fewer than this.

    Raises:
        ValueError: If the folder is no image tree.
    """
    tree = image_tree(data)
    if tree is not None and "train" not in tree.files:
        return 0
    if tree is None:
        total, smallest = TRAINING_IMAGES[data.real]
    else:
        counts = Counter(label for _, label in tree.files["train"])
        total, smallest = counts.total(), min(counts.values())
    if validation.source == "evaluation" and data.real != "digits":
        return smallest
    kept = total - math.ceil(validation.frac * total)
    return math.ceil(kept * smallest / total)


def images_per_class(folder: str) -> int | None:
    """Images in the smallest class folder of a distilled set; None where images do not lie in class folders."""
    place = Path(folder).expanduser()
    counts = [len(image_names(place / name)) for name in class_folders(place)] if place.is_dir() else []
    return min(counts, default=0) or None
