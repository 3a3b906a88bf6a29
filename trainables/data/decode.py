"""Decode image trees once per machine into uint8 arrays that every process on it maps."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from trainables.archives import kind_of_archive, read_parts
from trainables.arrays import is_intact, map_entry, new_entry
from trainables.config import content_hash
from trainables.data.survey import Survey, is_transparent, open_image, survey_images
from trainables.trees import Tree
from trainables.versions import VERSIONS

#: Images a thread decodes at a time, and images in memory at a time.
CHUNK: Final = 100
PART: Final = 5_000
_REMARKS: Final = "remarks.json"


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
    entry = _entry_of(tree, image_size, cache)
    if not is_intact(entry):
        count = sum(len(files) for files in tree.files.values())
        if kind_of_archive(tree.root) is not None:
            return _copy_archive(tree, image_size, entry)
        say(f"decoding {count} images of {tree.root} at {image_size} x {image_size} pixels")
        everything = [file for files in tree.files.values() for file in files]
        with new_entry(entry) as folder:
            survey = survey_images(tree.root, everything)
            for part, files in tree.files.items():
                _decode_part(tree.root, files, image_size, survey, folder / f"{part}_images.npy")
                np.save(folder / f"{part}_labels.npy", np.array([label for _, label in files], dtype=np.int64))
            (folder / _REMARKS).write_text(json.dumps(survey.remarks(image_size)))
    return map_entry(entry)


def _copy_archive(tree: Tree, image_size: int, entry: Path) -> dict[str, np.ndarray]:
    """Original files of CIFAR or MNIST as arrays, which need no decoding."""
    parts, _ = read_parts(tree.root)
    side = parts["evaluation"][0].shape[-1]
    if side != image_size:
        raise ValueError(f"data.image_size: {tree.root} has images of {side} pixels, got {image_size}.")
    with new_entry(entry) as folder:
        for part, (images, labels) in parts.items():
            np.save(folder / f"{part}_images.npy", images)
            np.save(folder / f"{part}_labels.npy", labels)
    return map_entry(entry)


def remarks_of_tree(tree: Tree, *, image_size: int, cache: Path) -> list[str]:
    """What a decoded tree's images were like, in sentences; nothing of one that was decoded before there were remarks."""
    place = _entry_of(tree, image_size, cache) / _REMARKS
    return list(json.loads(place.read_text())) if place.is_file() else []


def _entry_of(tree: Tree, image_size: int, cache: Path) -> Path:
    return cache / f"real-{content_hash([tree.key, image_size, VERSIONS['real']])}"


def decode_files(
    root: Path, files: Sequence[tuple[str, int]], size: int | None, survey: Survey | None = None
) -> np.ndarray:
    """Some images in memory, uint8 (n, channels, size, size), decoded by a thread per core.

    Args:
        root: Folder.
        files: (path below root, label).
        size: Side in pixels; None takes the shorter side of the first.
        survey: Of all images of the set; None looks at these.
    """
    survey = survey or survey_images(root, files)
    size = size or side_of(root, files)
    paths = [str(root / path) for path, _ in files]
    jobs = [(paths[first : first + CHUNK], survey, size) for first in range(0, len(paths), CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes without holding the interpreter
        return np.concatenate(list(pool.map(_decode_chunk, jobs)))


def side_of(root: Path, files: Sequence[tuple[str, int]]) -> int:
    """The shorter side of the first image, pixels."""
    with open_image(root / files[0][0]) as image:
        return min(image.size)


def _decode_part(root: Path, files: Sequence[tuple[str, int]], size: int, survey: Survey, out: Path) -> None:
    """Write one part's images, a few thousand in memory at a time."""
    shape = (len(files), 1 if survey.mode == "L" else 3, size, size)
    array = np.lib.format.open_memmap(out, mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, len(files), PART):
        array[first : first + PART] = decode_files(root, files[first : first + PART], size, survey)
    array.flush()


def _decode_chunk(job: tuple[list[str], Survey, int]) -> np.ndarray:
    paths, survey, size = job
    return np.stack([_decode(path, survey, size) for path in paths])


def _decode(path: str, survey: Survey, size: int) -> np.ndarray:
    """One image, (channels, size, size)."""
    with open_image(path) as image:
        try:
            lets_through, decoded = is_transparent(image), survey.as_bytes(image)
        except Exception as err:  # a damaged file can raise anything inside Pillow's plugins
            raise ValueError(f"{path}: damaged image ({err}).") from err
        if lets_through:
            raise ValueError(
                f"{path}: transparent pixels, whose colour is not known; put the images onto a background."
            )
        if decoded.size != (size, size):
            decoded = _fit(decoded, size)
        pixels = np.asarray(decoded)
    return pixels[None] if survey.mode == "L" else pixels.transpose(2, 0, 1)


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Resize the shorter side, then crop the middle."""
    scale = size / min(image.size)
    image = image.resize((max(size, round(image.width * scale)), max(size, round(image.height * scale))))
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))
