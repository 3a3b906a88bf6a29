"""Read prepared arrays. Free of torch, so that a driver can pass them on."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def load_arrays(key: str, cache: Path) -> dict[str, np.ndarray]:
    """The arrays of a prepared recipe, memory-mapped, so that processes on one machine share them."""
    return {path.stem: np.load(path, mmap_mode="r") for path in sorted((cache / f"data-{key}").glob("*.npy"))}
