"""Files that a space names: what identifies their content, without torch."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from search_spaces.settings import Data, Distilled, Validation
from trainables.config import content_hash
from trainables.names import CLASSES, REAL_DATASETS, TRAINING_IMAGES
from trainables.sidecar import NAME as SIDECAR
from trainables.sidecar import STATED, read_sidecar, sidecar_of
from trainables.trees import Tree, class_folders, hash_folder, image_names, list_tree


def file_hash(path: str) -> str:
    """SHA-256 of a file, read once as long as it does not change.

    Raises:
        ValueError: If there is no such file.
    """
    place = Path(path).expanduser()
    if not place.is_file():
        raise ValueError(f"{path}: no such file.")
    return _hash_of(place, place.stat().st_mtime_ns, place.stat().st_size)


@lru_cache
def _hash_of(path: Path, changed: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def distilled_hash(path: str) -> str:
    """Content of a distilled set or label store: a file with the labels beside it, or a folder.

    Raises:
        ValueError: If there is no such file or folder.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        return hash_folder(str(place), (SIDECAR,))
    labels = place.with_name(place.name.replace("images", "labels"))
    beside = [file_hash(str(labels))] if labels != place and labels.is_file() else []
    return content_hash([file_hash(path), *beside])


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
