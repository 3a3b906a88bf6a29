"""The cache: entries written whole or not at all, known by checksums, arrays mapped. Free of torch, for the driver."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

from trainables.paths import below, permitted

SEAL = "checksums.json"
ROWS_AT_ONCE: Final = 256


def entry_of(key: str, cache: Path) -> Path:
    """Where the data of a recipe lie.

    Raises:
        ValueError: If the key is none that we make; see `paths.below`.
    """
    return below(cache, f"data-{key}")


def load_arrays(key: str, cache: Path) -> dict[str, np.ndarray]:
    """The arrays of a prepared recipe, memory-mapped, so that processes on one machine share them."""
    return map_entry(entry_of(key, cache))


def map_entry(entry: Path) -> dict[str, np.ndarray]:
    """The arrays of a cache entry by name, memory-mapped.

    As plain arrays: `np.memmap` is pickled with its content, so that every worker would get a copy of its own, while plain
    arrays are shared through Ray's object store.
    """
    return {path.stem: np.load(path, mmap_mode="r").view(np.ndarray) for path in sorted(entry.glob("*.npy"))}


def changed_rows(
    rows: np.ndarray, keep: np.ndarray, change: Callable[[np.ndarray], np.ndarray], folder: Path
) -> np.ndarray:
    """Some rows of a large array, changed a few at a time into a file that is gone when nobody reads it any more.

    What is mapped from files needs no memory of its own, so neither the rows nor the result are ever in memory at once.

    Args:
        rows: (n, ...), float32.
        keep: Indices of rows.
        change: Of some rows, to as many of the same shape.
        folder: Where the file has room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        made = np.memmap(file, dtype=np.float32, mode="w+", shape=(len(keep), *rows.shape[1:]))
    for first in range(0, len(keep), ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        made[part] = change(rows[keep[part]])
    return made.view(np.ndarray)


@contextmanager
def only_maker(entry: Path) -> Iterator[None]:
    """Wait until no other process makes this entry, then clear away what a dead one left of it."""
    locks = entry.parent / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = locks / entry.name
    with lock.open("a" if os.access(lock, os.W_OK) or not lock.exists() else "r") as file:  # it may be another user's
        fcntl.flock(file, fcntl.LOCK_EX)
        for leftover in entry.parent.glob(f"{entry.name}.*/"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield


@contextmanager
def new_entry(entry: Path) -> Iterator[Path]:
    """A folder that becomes the cache entry when the block ends well; nothing half-written is ever read."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", dir=entry.parent))
    try:
        yield folder
        seal(folder)
        if entry.exists():
            shutil.rmtree(entry)
        folder.chmod(permitted(0o777))  # others of the group may share the cache
        folder.replace(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seal(entry: Path) -> None:
    """Note the checksums of an entry's files in it."""
    sums = {path.name: _checksum(path) for path in sorted(entry.iterdir()) if path.name != SEAL}
    (entry / SEAL).write_text(json.dumps(sums))


def is_intact(entry: Path) -> bool:
    """True if an entry is there and its files are what was written; a damaged one is to be made again."""
    try:
        sums = json.loads((entry / SEAL).read_text())
        return bool(sums == {name: _checksum(below(entry, name)) for name in sums})
    except (OSError, ValueError):
        return False


def _checksum(path: Path) -> int:
    """CRC-32 of a file, about a gigabyte per second."""
    with path.open("rb") as file:
        if path.stat().st_size == 0:
            return 0
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return zlib.crc32(content)
