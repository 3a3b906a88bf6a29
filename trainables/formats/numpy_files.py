"""Distilled sets in numpy files: archives of FRePo (image, label), KIP and RFAD (images, labels), and single arrays.

Nothing is unpickled. Sizes are read from headers before any content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainables.formats.found import Found
from trainables.formats.tensors import images_in, labels_in, set_of
from trainables.paths import labels_beside
from trainables.unpickling import read_arrays


def recognise_archive(path: Path) -> Found | None:
    """FRePo's (image, label) and KIP's and RFAD's (images, labels) archives, None for other keys.

    Raises:
        ValueError: If it is damaged, or holds no images with their labels.
    """
    arrays = read_arrays(path)
    for images_key, labels_key in (("image", "label"), ("images", "labels"), ("x_proto", "y_proto")):
        if images_key not in arrays:
            continue
        if labels_key not in arrays:
            raise ValueError(f"{path}: its key {labels_key!r} is missing.")
        pixels = arrays[images_key]
        images = as_images(pixels, path, images_key)
        hard, soft = labels_in(torch.from_numpy(arrays[labels_key]), len(images), path, labels_key)
        name = {"image": "frepo", "x_proto": "rcig"}.get(images_key, "kip" if pixels.shape[-1] in (1, 3) else "rfad")
        return set_of(name, images, hard, soft, ask_kind=True)
    return None


def recognise_array(path: Path) -> Found:
    """A single array: images, with the labels in a file beside it that is called as the images are.

    Raises:
        ValueError: If it is damaged, or holds no images.
    """
    pixels = _read_array(path)
    if pixels.ndim != 4:
        what = {0: "a single number", 1: "a row of numbers, perhaps labels", 2: "a table, perhaps labels"}
        described = what.get(pixels.ndim, "an array")
        raise ValueError(
            f"{path}: {described} of shape {pixels.shape}; give the file of the images (N, channels, H, W)."
        )
    images = as_images(pixels, path, "images")
    beside = labels_beside(path)
    if beside is None:
        return set_of("bare", images, None, None, asks=("class_order", "ipc"))
    hard, soft = labels_in(torch.from_numpy(_read_array(beside)), len(images), beside, "labels")
    return set_of("numpy", images, hard, soft, ask_kind=soft is not None, details={"labels_file": beside.name})


def as_images(pixels: np.ndarray, path: Path, key: str) -> Tensor:
    """An array (N, channels, H, W) or (N, H, W, channels) as images (N, channels, H, W), checked.

    Raises:
        ValueError: If it is neither.
    """
    shape = pixels.shape
    is_last = len(shape) == 4 and shape[3] in (1, 3) and shape[1] == shape[2]
    is_first = len(shape) == 4 and shape[1] in (1, 3) and shape[2] == shape[3]
    if not is_last and not is_first:
        raise ValueError(f"{path}: {key} must be images (N, H, W, 1 or 3) or (N, 1 or 3, H, W), square, got {shape}.")
    if pixels.dtype not in (np.uint8, np.float16, np.float32, np.float64):
        raise ValueError(f"{path}: {key} must be floats or uint8, got {pixels.dtype}.")
    tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if is_last else pixels))
    return images_in(tensor, path, key)


def _read_array(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    except Exception as err:  # as above
        raise ValueError(f"{path}: not a readable numpy array ({' '.join(str(err).split())[:200]}).") from err
