"""Image trees on disk: `train/` and `val/` or `test/`, one folder per class. Listing needs no torch.

Class order: folders named by numbers count as those numbers; other names are sorted, unless an order is given.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from trainables.archives import kind_of_archive, read_parts
from trainables.config import content_hash
from trainables.content import Content, content_of

EVALUATION_FOLDERS: Final = ("test", "val", "valid", "validation")
#: What Pillow reads and datasets are made of; other files are passed over, and counted by `passed_over`.
IMAGE_SUFFIXES: Final = (
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".bmp",
        ".webp",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".tif",
        ".tiff",
        ".gif",
    ),
    *(".tga", ".jp2", ".avif"),
)


@dataclass(frozen=True, slots=True)
class Tree:
    """What a tree holds.

    Attributes:
        root: Its folder.
        classes: Folder names in the order of their labels.
        files: By part ("evaluation", and "train" where there is one): (path below root, label), sorted by label and path.
        content: Of all its images: names and bytes; its key and the classes' order identify the data.
    """

    root: Path
    classes: tuple[str, ...]
    files: Mapping[str, tuple[tuple[str, int], ...]]
    content: Content

    @property
    def key(self) -> str:
        """Hash of the classes in their order and of every image's part, class, name and bytes."""
        return content_hash([list(self.classes), self.content.key])

    @property
    def folders(self) -> list[Path]:
        """The class folders of every part."""
        return sorted({(self.root / path).parent for entries in self.files.values() for path, _ in entries})


@lru_cache(maxsize=32)
def list_tree(root: str, class_order: tuple[str, ...] | None = None) -> Tree:
    """The images of a tree.

    Args:
        root: Folder with one of EVALUATION_FOLDERS, and usually `train/`.
        class_order: Folder names in the order of their labels; None takes numbers as such and sorts other names.

    Raises:
        ValueError: If folders are missing, differ between the parts, or hold no images.
    """
    folder = Path(root).expanduser()
    if kind_of_archive(folder) is not None:
        return _as_tree(folder, class_order)
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
        empty = sorted(set(range(len(classes))) - {label for _, label in entries})
        if empty:
            raise ValueError(f"{root}: no images in {parts[part].name}/{classes[empty[0]]}.")
    read = [(_name(part, path), folder / path) for part, entries in found.items() for path, _ in entries]
    return Tree(folder, classes, {part: tuple(entries) for part, entries in found.items()}, content_of(sorted(read)))


def _name(part: str, path: str) -> str:
    """What of an image's path counts: `val` and `test` are the same part."""
    return f"{part}/{path.partition('/')[2]}"


def _as_tree(path: Path, class_order: Sequence[str] | None) -> Tree:
    """CIFAR's or MNIST's original files, listed as if they were a tree."""
    if class_order is not None:
        raise ValueError(f"{path}: class_order: not for original files, which number their classes; leave it out.")
    parts, names = read_parts(path)
    files = {
        part: tuple((f"{part}/{number}", int(label)) for number, label in enumerate(labels))
        for part, (_, labels) in parts.items()
    }
    folder = sorted(place for place in path.iterdir() if place.is_file()) if path.is_dir() else [path]
    return Tree(path, names, files, content_of([(place.name, place) for place in folder]))


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


def passed_over(folders: Sequence[Path]) -> list[str]:
    """What lies in class folders and is not read, counted by its kind, in a sentence; nothing if that is nothing."""
    counts: Counter[str] = Counter()
    for folder in folders:
        for place, _, files in os.walk(folder):
            is_nested = Path(place) != folder
            for name in (name for name in files if not name.startswith(".")):
                is_image = name.lower().endswith(IMAGE_SUFFIXES)
                if is_nested or not is_image:
                    counts["images in nested folders" if is_image else f"{Path(name).suffix or 'other'} files"] += 1
    shown = ", ".join(f"{count} {kind}" for kind, count in counts.most_common(4))
    return [f"passed over in class folders: {shown}."] if counts else []


def _files(path: Path, classes: Sequence[str], root: Path) -> Iterator[tuple[str, int]]:
    """(path below root, label) of every image, by label and name."""
    for label, name in enumerate(classes):
        yield from ((str((path / name / file).relative_to(root)), label) for file in image_names(path / name))
