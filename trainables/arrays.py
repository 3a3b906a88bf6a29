"""The cache: entries written whole or not at all, arrays mapped. Free of torch, so that a driver can pass them on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def load_arrays(key: str, cache: Path) -> dict[str, np.ndarray]:
    """The arrays of a prepared recipe, memory-mapped, so that processes on one machine share them."""
    return map_entry(cache / f"data-{key}")


def map_entry(entry: Path) -> dict[str, np.ndarray]:
    """The arrays of a cache entry by name, memory-mapped."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted(entry.glob("*.npy"))}


@contextmanager
def new_entry(entry: Path) -> Iterator[Path]:
    """A folder that becomes the cache entry when the block ends well; nothing half-written is ever read."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{entry.name}.", dir=entry.parent))
    try:
        yield folder
        if entry.exists():
            shutil.rmtree(entry)
        folder.replace(entry)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
