"""Image trees on disk: `train/` and `val/` or `test/`, one folder per class. Listing needs no torch.

Class order: folders named by numbers count as those numbers; other names are sorted, unless an order is given.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from trainables.config import content_hash

EVALUATION_FOLDERS: Final = ("test", "val", "valid", "validation")
IMAGE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class Tree:
    """What a tree holds.

    Attributes:
        root: Its folder.
        classes: Folder names in the order of their labels.
        files: By part ("evaluation", and "train" where there is one): (path below root, label), sorted by label and path.
        key: Hash of every path and size in it; files of equal names and sizes count as the same.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, int], ...]]
    key: str


#: Folders up to this size are identified by the bytes in them.
HASH_WHOLE_BYTES: Final = 4 * 2**30


@lru_cache(maxsize=32)
def hash_folder(root: str, ignored: tuple[str, ...] = ()) -> str:
    """Hash of the name and content of every file in a folder, but for hidden files and those of `ignored` names.

    Of folders above 4 GiB (label stores), names, sizes and times of change are hashed, and the content of the first and
    the last file.
    """
    folder = Path(root)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {path: str(path.relative_to(folder)) for path in files}
    files = [p for p in files if p.name not in ignored and not any(n.startswith(".") for n in names[p].split("/"))]
    stats = {path: path.stat() for path in files}
    whole = sum(stat.st_size for stat in stats.values()) <= HASH_WHOLE_BYTES
    digest = hashlib.sha256()
    for number, path in enumerate(files):
        stat = stats[path]
        digest.update(f"{names[path]}\0{stat.st_size}\0{'' if whole else stat.st_mtime_ns}\n".encode())
        if whole or number in (0, len(files) - 1):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def list_tree(root: str, class_order: tuple[str, ...] | None = None) -> Tree:
    """The images of a tree.

    Args:
        root: Folder with one of EVALUATION_FOLDERS, and usually `train/`.
        class_order: Folder names in the order of their labels; None takes numbers as such and sorts other names.

    Raises:
        ValueError: If folders are missing, differ between the parts, or hold no images.
    """
    folder = Path(root).expanduser()
    evaluation = next((folder / name for name in EVALUATION_FOLDERS if (folder / name).is_dir()), None)
    if evaluation is None:
        raise ValueError(
            f"{root}: an image tree has a folder {' or '.join(EVALUATION_FOLDERS)}, and train if teachers are trained."
        )
    parts = {"evaluation": evaluation}
    if (folder / "train").is_dir():
        parts = {"train": folder / "train", **parts}
    names = {part: class_folders(path) for part, path in parts.items()}
    if len({frozenset(found) for found in names.values()}) > 1:
        odd = sorted(set(names["train"]) ^ set(names["evaluation"]))
        raise ValueError(f"{root}: class folders of train and {evaluation.name} differ: {odd[:5]}.")
    classes = _ordered(root, names["evaluation"], class_order)
    found = {part: list(_files(path, classes, folder)) for part, path in parts.items()}
    for part, entries in found.items():
        empty = sorted(set(range(len(classes))) - {label for _, label, _ in entries})
        if empty:
            raise ValueError(f"{root}: no images in {parts[part].name}/{classes[empty[0]]}.")
    files = {part: tuple((path, label) for path, label, _ in entries) for part, entries in found.items()}
    return Tree(folder, classes, files, content_hash([list(classes), found]))


def class_folders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted as text."""
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))


def _ordered(root: str, names: Sequence[str], order: Sequence[str] | None) -> tuple[str, ...]:
    """Class folders in the order of their labels."""
    if order is not None:
        if sorted(order) != sorted(names):
            odd = sorted(set(order) ^ set(names))
            raise ValueError(f"{root}: class_order must name every class folder once; it differs in {odd[:5]}.")
        return tuple(order)
    if all(re.fullmatch(r"\d+", name) for name in names):
        numbers = sorted(map(int, names))
        if numbers != list(range(len(names))):
            raise ValueError(f"{root}: class folders are numbers but not 0 to {len(names) - 1}; give class_order.")
        return tuple(sorted(names, key=int))
    if len(names) < 2:
        raise ValueError(f"{root}: a dataset has at least 2 class folders, got {list(names)}.")
    return tuple(sorted(names))


def image_names(folder: Path) -> list[str]:
    """Names of the image files in a folder, sorted as text; hidden files are none."""
    names = (entry.name for entry in os.scandir(folder))
    return sorted(name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."))


def _files(path: Path, classes: Sequence[str], root: Path) -> Iterator[tuple[str, int, int]]:
    """(path below root, label, bytes) of every image, by label and name."""
    for label, name in enumerate(classes):
        for file in image_names(path / name):
            place = path / name / file
            yield str(place.relative_to(root)), label, place.stat().st_size
