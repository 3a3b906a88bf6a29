"""Images of every depth are decoded as they look, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.data.decode import decode_files, decode_tree, remarks_of_tree
from trainables.trees import list_tree, passed_over

GRAY = np.random.default_rng(0).integers(0, 256, (6, 8, 8)).astype(np.uint8)
GRAY[0, 0, :2] = 0, 255
Writer = Callable[[np.ndarray, Path], None]


def _save(make: Callable[[np.ndarray], Image.Image]) -> Writer:
    return lambda pixels, path: make(pixels).save(path)


WRITERS: dict[str, tuple[str, Writer]] = {
    "8 bits": (".png", _save(Image.fromarray)),
    "16 bits": (".png", _save(lambda x: Image.fromarray(x.astype(np.uint16) * 257))),
    "12 of 16 bits": (".png", _save(lambda x: Image.fromarray((x / 255 * 4095).round().astype(np.uint16)))),
    "8 of 16 bits": (".png", _save(lambda x: Image.fromarray(x.astype(np.uint16)))),
    "32 bits": (".tif", _save(lambda x: Image.fromarray(x.astype(np.int32) * 257))),
    "floats to 1": (".tif", _save(lambda x: Image.fromarray((x / 255).astype(np.float32)))),
    "floats to 255": (".tiff", _save(lambda x: Image.fromarray(x.astype(np.float32)))),
    "opaque alpha": (".png", _save(lambda x: Image.merge("LA", [Image.fromarray(x), Image.new("L", (8, 8), 255)]))),
    "pgm": (".pgm", _save(Image.fromarray)),
    "bmp": (".bmp", _save(Image.fromarray)),
}


def write(folder: Path, name: str, pixels: np.ndarray = GRAY) -> list[tuple[str, int]]:
    suffix, save = WRITERS[name]
    for number, image in enumerate(pixels):
        save(image, folder / f"{number}{suffix}")
    return [(f"{number}{suffix}", 0) for number in range(len(pixels))]


@pytest.mark.parametrize("name", WRITERS)
def test_every_depth_comes_out_as_the_same_bytes(name: str, tmp_path: Path) -> None:
    decoded = decode_files(tmp_path, write(tmp_path, name), 8)
    assert decoded.shape == (6, 1, 8, 8)
    assert np.abs(decoded[:, 0].astype(int) - GRAY).max() <= 1


@pytest.mark.parametrize("name", ["16 bits", "12 of 16 bits", "8 of 16 bits", "floats to 1", "floats to 255"])
def test_a_depth_that_the_set_does_not_tell_is_refused(name: str, tmp_path: Path) -> None:
    """The largest number is 100 of 255: neither near white of 16, 12 or 8 bits, nor of floats."""
    with pytest.raises(ValueError, match="does not tell the number of white; convert them to 8 bits"):
        decode_files(tmp_path, write(tmp_path, name, (GRAY / 255 * 100).astype(np.uint8)), 8)


def test_the_whole_set_decides_and_not_the_image(tmp_path: Path) -> None:
    """One dark image of 16 bits beside a bright one stays dark."""
    files = write(tmp_path, "16 bits", np.stack([np.full((8, 8), 1), np.full((8, 8), 255)]))
    assert decode_files(tmp_path, files, 8).max(axis=(1, 2, 3)).tolist() == [1, 255]


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    """A digit that is drawn in the alpha channel over black."""
    Image.merge("LA", [Image.new("L", (8, 8)), Image.fromarray(GRAY[0])]).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: transparent pixels, whose colour is not known"):
        decode_files(tmp_path, [("a.png", 0)], 8)


def test_sizes_depths_and_what_is_passed_over_are_said(tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / "test" / name
        (folder / "more").mkdir(parents=True)
        write(folder, "16 bits")
        Image.fromarray(GRAY[0]).resize((16, 12)).save(folder / "z.png")
        Image.fromarray(GRAY[0]).save(folder / "more" / "y.png")
        (folder / "x.psd").write_bytes(b"")
    tree = list_tree(str(tmp_path))
    decode_tree(tree, image_size=8, cache=tmp_path / "cache", say=lambda text: None)
    said = " ".join(remarks_of_tree(tree, image_size=8, cache=tmp_path / "cache"))
    assert "12 images have more than 8 bits or floats; 65535 is taken for white." in said
    assert "images have 2 sizes (12 of 8 x 8, 2 of 16 x 12); all become 8 x 8." in said
    folders = [tmp_path / "test" / name for name in ("a", "b")]
    assert passed_over(folders) == ["passed over in class folders: 2 .psd files, 2 images in nested folders."]
