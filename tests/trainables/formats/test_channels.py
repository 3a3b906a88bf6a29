"""Sets whose files have another number of channels than the real images."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgpack
import numpy as np
import pytest
import torch
from PIL import Image

from trainables.formats.inspect import inspect_path
from trainables.formats.read import DistilledFile, read_distilled
from trainables.networks import ModelShape, make_model
from trainables.prepare.distilled import with_channels


def read(folder: Path, *, colour: bool, tint: int = 0) -> DistilledFile:
    """Two classes of two images each, gray pixels; in files of three channels if `colour`."""
    for name in ("ape", "cat"):
        (folder / name).mkdir(parents=True)
        for number in range(2):
            gray = np.full((8, 8), 50 * number + len(name), dtype=np.uint8)
            pixels = np.dstack([gray, gray, gray + np.uint8(tint)]) if colour else gray
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return read_distilled(folder, {}, classes=("ape", "cat"), size=8)


def test_three_equal_channels_are_gray_and_gray_is_repeated(tmp_path: Path) -> None:
    colour, gray = read(tmp_path / "rgb", colour=True), read(tmp_path / "gray", colour=False)
    one, three = with_channels(colour, 1, tmp_path), with_channels(gray, 3, tmp_path)
    assert torch.equal(one.images, gray.images)
    assert torch.equal(three.images, colour.images)
    assert "three equal channels" in one.remarks[-1]
    assert "channels are repeated" in three.remarks[-1]
    assert with_channels(gray, 1, tmp_path) is gray


def test_colours_are_no_gray(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images of 3 channels, the real data have 1"):
        with_channels(read(tmp_path / "rgb", colour=True, tint=1), 1, tmp_path)


def test_a_flax_file_of_gray_images_is_read_without_a_warning(tmp_path: Path) -> None:
    def packed(array: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))

    images = np.linspace(0, 1, 2 * 64, dtype=np.float32).reshape(2, 8, 8, 1)
    inner = {"x_proto": packed(images), "y_proto": packed(np.eye(2, dtype=np.float32) - 0.5)}
    (tmp_path / "ckpt").write_bytes(msgpack.packb({"ema_average": inner}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert inspect_path(tmp_path / "ckpt")["format"] == "rcig"


def test_the_accuracy_that_a_checkpoint_says_of_itself_is_shown(tmp_path: Path) -> None:
    net = make_model("convnet2", ModelShape(1, 10, 8), width=16, norm="instance")
    torch.save({"net": net.state_dict(), "acc": 91.5}, tmp_path / "net.pth")
    assert inspect_path(tmp_path / "net.pth")["details"]["acc"] == 91.5


def test_a_tree_of_real_images_is_called_one_and_is_no_distilled_set(tmp_path: Path) -> None:
    for part in ("train", "test"):
        read(tmp_path / part, colour=True)
    facts = inspect_path(tmp_path)
    assert (facts["kind"], facts["format"], facts["classes"]) == ("real", "image-tree", 2)
    assert facts["details"] == {"train_images": 4, "test_images": 4, "sizes": "8 x 8", "use": "data.real"}
    with pytest.raises(ValueError, match=r"real \(image-tree\), not a distilled set"):
        read_distilled(tmp_path, {}, classes=("ape", "cat"), size=8)
