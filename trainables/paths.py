"""Paths made from names that come from outside stay where they belong. Free of torch."""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import Final

#: What a name may be that becomes a part of a path: no separator, not hidden, neither "." nor "..".
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
_asking = threading.Lock()


def permitted(mode: int) -> int:
    """A mode of files or folders as the user's umask leaves it; temporary ones are made for their owner alone."""
    with _asking:  # the only way to ask is to set another
        umask = os.umask(0o077)
        os.umask(umask)
    return mode & ~umask


#: What files of images and of their labels are called; other than images and labels in numpy files alone.
_PAIRS: Final = (
    ("images", "labels"),
    ("image", "label"),
    ("x", "y"),
    ("X", "y"),
    ("data", "labels"),
    ("data", "targets"),
)


def below(root: Path, *names: str) -> Path:
    """The path of `names` below a folder, each name one part of it.

    Args:
        root: Folder that the path stays in.
        names: Parts, such as a sweep's name, a trial's id, the key of a cache entry.

    Raises:
        ValueError: If a name is anything but letters, digits, `_`, `-` and `.`, or begins with `.` or `-`.
    """
    for name in names:
        if not isinstance(name, str) or not _PART.fullmatch(name):
            raise ValueError(
                f"a name in {root} has letters, digits, _, - and . and does not begin with . or -, got {name!r:.100}."
            )
    return root.joinpath(*names)


def labels_beside(path: Path) -> Path | None:
    """The labels of a file of images, by their names: images_best.pt and labels_best.pt, x.npy and y.npy."""
    for images, labels in _PAIRS if path.suffix == ".npy" else _PAIRS[:1]:
        beside = path.with_name(path.stem.replace(images, labels) + path.suffix)
        if beside != path and beside.is_file():
            return beside
    return None
