"""Look at all images of a set before they are decoded: gray or colour, sizes, and what their largest number means.

A file of 16 bits does not say how many of them are used. That is decided by the largest number in the whole set, which
is white or nearly so in any set of images: 8 bits (128 to 255), 12 (2,048 to 4,095) or 16 (32,768 to 65,535); in
between nothing is decided and the set is refused. Floats are 0 to 1 or 0 to 255.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

_GRAY: Final = ("1", "L", "LA", "La", "F")
_WITH_ALPHA: Final = ("LA", "La", "PA", "RGBA", "RGBa")
#: Full scale by the number of bits that are used.
_FULL_SCALE: Final = {8: 255, 12: 4_095, 16: 65_535}
#: Of one image, by its header.
MOST_PIXELS: Final = 2**25
#: Alpha from which on a pixel counts as opaque.
OPAQUE: Final = 250


@dataclass(frozen=True, slots=True)
class Survey:
    """What the images of a set have in common.

    Attributes:
        mode: Pillow's "L" if every image is gray, else "RGB"; one gray photograph does not make a dataset gray.
        white: The number that is white in images of more than 8 bits, or of floats.
        sizes: How many images there are of each (width, height).
        deep: How many images have more than 8 bits, or floats.
    """

    mode: str
    white: float
    sizes: Counter[tuple[int, int]]
    deep: int

    def as_bytes(self, image: Image.Image) -> Image.Image:
        """An image in this mode, 8 bits."""
        if _is_deep(image) and not _is_colour(image):
            values = np.asarray(image, dtype=np.float64) * (255 / self.white)
            image = Image.fromarray(np.floor(values.clip(0, 255) + 0.5).astype(np.uint8))
        return image.convert(self.mode)

    def remarks(self, size: int) -> list[str]:
        """What should be known, in sentences.

        Args:
            size: Side in pixels to which the images are brought.
        """
        said = []
        if self.deep:
            said.append(f"{self.deep} images have more than 8 bits or floats; {self.white:g} is taken for white.")
        if len(self.sizes) > 1:
            shown = ", ".join(f"{count} of {w} x {h}" for (w, h), count in self.sizes.most_common(3))
            said.append(
                f"images have {len(self.sizes)} sizes ({shown}{', ...' * (len(self.sizes) > 3)}); all become {size} x {size}."
            )
        elif next(iter(self.sizes)) != (size, size):
            width, height = next(iter(self.sizes))
            said.append(f"images of {width} x {height} pixels become {size} x {size}.")
        return said


def open_image(path: str | Path) -> Image.Image:
    """An image whose pixels are not decoded yet.

    Raises:
        ValueError: If it is none.
    """
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


def is_transparent(image: Image.Image) -> bool:
    """Some pixels let a background through, whose colour is not known."""
    if image.mode not in _WITH_ALPHA and "transparency" not in image.info:
        return False
    low, _ = image.convert("RGBA").getchannel("A").getextrema()
    return float(low) < OPAQUE  # type: ignore[arg-type]


def survey_images(root: Path, files: Sequence[tuple[str, int]]) -> Survey:
    """What the images of a set have in common.

    Args:
        root: Folder.
        files: (path below root, label) of all images.

    Raises:
        ValueError: If a file is no image, or it cannot be told which number is white.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        headers = list(pool.map(lambda file: _header(root / file[0]), files))
        deep = [root / path for (path, _), (_, _, is_deep) in zip(files, headers, strict=True) if is_deep]
        ranges = list(pool.map(_range, deep))
    white = _white(ranges, deep[0]) if deep else 255.0
    mode = "L" if all(is_gray for _, is_gray, _ in headers) else "RGB"
    return Survey(mode, white, Counter(size for size, _, _ in headers), len(deep))


def _header(path: Path) -> tuple[tuple[int, int], bool, bool]:
    """Size, whether it is gray, whether it has more than 8 bits."""
    with open_image(path) as image:
        return image.size, image.mode in _GRAY or image.mode.startswith("I"), _is_deep(image)


def _is_deep(image: Image.Image) -> bool:
    """More than 8 bits, or floats; Pillow keeps the upper bytes alone of colours with 16 bits."""
    return image.mode.startswith(("I", "F")) or _is_colour(image)


def _is_colour(image: Image.Image) -> bool:
    arguments = [tile[3] for tile in getattr(image, "tile", None) or ()]
    raw = [arg[0] if isinstance(arg, tuple) and arg else arg for arg in arguments]
    return image.mode in ("RGB", "RGBA", "LA") and any(isinstance(name, str) and ";16" in name for name in raw)


def _range(path: Path) -> tuple[float, float, str]:
    """Smallest and largest number, and whether they are floats, whole numbers or the upper bytes of colours."""
    with open_image(path) as image:
        try:
            kind = "colour" if _is_colour(image) else "float" if image.mode == "F" else "whole"
            values = np.asarray(image.convert("RGB") if kind == "colour" else image, dtype=np.float64)
        except Exception as err:  # a damaged file can raise anything inside Pillow's plugins
            raise ValueError(f"{path}: damaged image ({err}).") from err
    scale = 257 if kind == "colour" else 1
    return float(values.min()) * scale, float(values.max()) * scale, kind


def _white(ranges: Sequence[tuple[float, float, str]], example: Path) -> float:
    """The number that is white, by the largest in the set."""
    low, high = min(first for first, _, _ in ranges), max(second for _, second, _ in ranges)
    kinds = {kind for _, _, kind in ranges}
    if kinds == {"float"}:
        scales = [scale for scale in (1.0, 255.0) if scale / 2 <= high <= scale]
    else:
        known = _FULL_SCALE.values() if kinds == {"whole"} else [65_535]
        scales = [float(scale) for scale in known if (scale + 1) / 2 <= high <= scale]
    if low < 0 or not scales:
        raise ValueError(
            f"{example}: images of more than 8 bits whose numbers are {low:g} to {high:g} in the whole set, which does not "
            "tell the number of white; convert them to 8 bits."
        )
    return scales[0]
