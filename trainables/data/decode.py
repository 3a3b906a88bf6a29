"""Decode image trees once per machine into uint8 arrays that every process on it maps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from trainables.arrays import is_intact, map_entry, new_entry
from trainables.config import content_hash
from trainables.trees import Tree
from trainables.versions import VERSIONS

#: Images a thread decodes at a time, and images in memory at a time.
CHUNK: Final = 100
PART: Final = 5_000
#: Of one image, by its header.
MOST_PIXELS: Final = 2**25


def decode_tree(tree: Tree, *, image_size: int, cache: Path, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """Images and labels of every part, memory-mapped; decoded now unless the cache has them.

    Args:
        tree: What to decode.
        image_size: Side in pixels; other images are resized by their shorter side and cropped in the middle.
        cache: Folder of entries.
        say: Told what takes long.

    Returns:
        {part}_images uint8 (n, channels, size, size) and {part}_labels int64 (n,), for each part of the tree. One
        channel if every image is gray, else three.

    Raises:
        ValueError: If a file is no image.
    """
    entry = cache / f"real-{content_hash([tree.key, image_size, VERSIONS['real']])}"
    if not is_intact(entry):
        count = sum(len(files) for files in tree.files.values())
        say(f"decoding {count} images of {tree.root} at {image_size} x {image_size} pixels")
        everything = [file for files in tree.files.values() for file in files]
        mode = find_mode(tree.root, everything)
        with new_entry(entry) as folder:
            for part, files in tree.files.items():
                _decode_part(tree.root, files, image_size, mode, folder / f"{part}_images.npy")
                np.save(folder / f"{part}_labels.npy", np.array([label for _, label in files], dtype=np.int64))
    return map_entry(entry)


def find_mode(root: Path, files: Sequence[tuple[str, int]]) -> str:
    """Pillow's "L" if every image is gray, else "RGB"; one gray photograph does not make a dataset gray."""

    def is_gray(path: str) -> bool:
        with _open(root / path) as image:
            return image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")

    if not is_gray(files[0][0]):
        return "RGB"
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return "L" if all(pool.map(is_gray, [path for path, _ in files])) else "RGB"


def decode_files(root: Path, files: Sequence[tuple[str, int]], size: int | None, mode: str | None = None) -> np.ndarray:
    """Some images in memory, uint8 (n, channels, size, size), decoded by a thread per core.

    Args:
        root: Folder.
        files: (path below root, label).
        size: Side in pixels; None takes the shorter side of the first.
        mode: "L" or "RGB"; None finds out.
    """
    mode = mode or find_mode(root, files)
    with _open(root / files[0][0]) as image:
        size = size or min(image.size)
    paths = [str(root / path) for path, _ in files]
    jobs = [(paths[first : first + CHUNK], mode, size) for first in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding the interpreter
        return np.concatenate(list(pool.map(_decode_chunk, jobs)))


def side_of(root: Path, files: Sequence[tuple[str, int]]) -> int:
    """The shorter side of the first image, pixels."""
    with _open(root / files[0][0]) as image:
        return min(image.size)


def _decode_part(root: Path, files: Sequence[tuple[str, int]], size: int, mode: str, out: Path) -> None:
    """Write one part's images, a few thousand in memory at a time."""
    shape = (len(files), 1 if mode == "L" else 3, size, size)
    array = np.lib.format.open_memmap(out, mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, len(files), PART):
        array[first : first + PART] = decode_files(root, files[first : first + PART], size, mode)
    array.flush()


def _decode_chunk(job: tuple[list[str], str, int]) -> np.ndarray:
    paths, mode, size = job
    return np.stack([_decode(path, mode, size) for path in paths])


def _decode(path: str, mode: str, size: int) -> np.ndarray:
    """One image, (channels, size, size)."""
    with _open(path) as image:
        try:
            if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            image = image.convert(mode)
        except Exception as err:  # a damaged file can raise anything inside Pillow's plugins
            raise ValueError(f"{path}: damaged image ({err}).") from err
        if image.size != (size, size):
            image = _fit(image, size)
        pixels = np.asarray(image)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _open(path: str | Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit, which is larger
            image = Image.open(path)
    except Exception as err:  # missing, not an image, a decompression bomb
        raise ValueError(f"{path}: not an image ({type(err).__name__}).") from err
    if image.width * image.height > MOST_PIXELS:
        image.close()
        raise ValueError(f"{path}: an image of {image.width} x {image.height} pixels; at most {MOST_PIXELS} are read.")
    return image


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side, then crop the middle."""
    scale = size / min(image.size)
    image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
