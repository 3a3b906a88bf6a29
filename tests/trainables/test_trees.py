"""Image trees: class order, decoding, and a sweep on one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator import RunOptions, Sweep
from search_spaces import ConfigError, load_space
from tests.conftest import prepare_here
from trainables.data.decode import decode_tree
from trainables.data.real import load_parts, normalise
from trainables.trees import list_tree


def write_tree(root: Path, classes: list[str], *, per_class: int = 6, side: int = 8, mode: str = "RGB") -> Path:
    """Images whose brightness tells their class, as PNG."""
    random = np.random.default_rng(0)
    for part, evaluation in (("train", False), ("val", True)):
        for label, name in enumerate(classes):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(per_class):
                pixels = random.integers(0, 60, (side, side, 3)) + 180 * label // max(1, len(classes) - 1)
                image = Image.fromarray(pixels.astype(np.uint8)).convert(mode)
                image.save(folder / f"{number + 100 * evaluation:03d}.png")
    return root


@pytest.mark.parametrize(
    ("classes", "order", "expected"),
    [
        (["cat", "ape", "bee"], None, ("ape", "bee", "cat")),
        (["cat", "ape", "bee"], ("cat", "bee", "ape"), ("cat", "bee", "ape")),
        ([str(n) for n in range(11)], None, tuple(str(n) for n in range(11))),
        (["00002", "00000", "00001"], None, ("00000", "00001", "00002")),
    ],
)
def test_order_of_classes(
    classes: list[str], order: tuple[str, ...] | None, expected: tuple[str, ...], tmp_path: Path
) -> None:
    """Eleven unpadded numbers: 10 comes after 9, not after 1."""
    tree = list_tree(str(write_tree(tmp_path / "tree", classes, per_class=1)), order)
    assert tree.classes == expected
    assert [Path(path).parent.name for path, _ in tree.files["train"]] == list(expected)
    assert [label for _, label in tree.files["evaluation"]] == list(range(len(expected)))


def test_the_key_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    one, two = (write_tree(tmp_path / name, ["a", "b"]) for name in ("one", "two"))
    assert list_tree(str(one)).key == list_tree(str(two)).key
    (two / "train" / "a" / "000.png").unlink()
    list_tree.cache_clear()
    assert list_tree(str(one)).key != list_tree(str(two)).key


def spoil(root: Path, defect: str) -> None:
    if defect == "no evaluation":
        (root / "val").rename(root / "other")
    elif defect == "other classes":
        (root / "val" / "b").rename(root / "val" / "c")
    elif defect == "empty class":
        for path in (root / "train" / "b").iterdir():
            path.unlink()
    elif defect == "gap in numbers":
        for part in ("train", "val"):
            (root / part / "a").rename(root / part / "0")
            (root / part / "b").rename(root / part / "2")


@pytest.mark.parametrize(
    ("defect", "order", "message"),
    [
        ("no evaluation", None, "an image tree has a folder test or val"),
        ("other classes", None, r"class folders of train and val differ: \['b', 'c'\]"),
        ("empty class", None, "no images in train/b"),
        ("gap in numbers", None, "class folders are numbers but not 0 to 1; give class_order"),
        ("", ("a", "c"), r"class_order must name every class folder once; it differs in \['b', 'c'\]"),
    ],
)
def test_defects_of_a_tree_are_named(defect: str, order: tuple[str, ...] | None, message: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", ["a", "b"])
    spoil(root, defect)
    with pytest.raises(ValueError, match=message):
        list_tree(str(root), order)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_decoded_images_are_the_files(mode: str, channels: int, tmp_path: Path) -> None:
    tree = list_tree(str(write_tree(tmp_path / "tree", ["a", "b"], mode=mode)))
    told: list[str] = []
    arrays = decode_tree(tree, image_size=8, cache=tmp_path / "cache", say=told.append)
    assert arrays["train_images"].shape == (12, channels, 8, 8)
    assert arrays["train_labels"].tolist() == [0] * 6 + [1] * 6
    path, _ = tree.files["evaluation"][7]
    pixels = np.asarray(Image.open(tree.root / path)).reshape(8, 8, channels).transpose(2, 0, 1)
    assert np.array_equal(arrays["evaluation_images"][7], pixels)
    again = decode_tree(tree, image_size=8, cache=tmp_path / "cache", say=told.append)
    assert len(told) == 1, "the second time nothing is decoded"
    assert isinstance(again["train_images"].base, np.memmap)


def test_other_sizes_are_resized_by_the_shorter_side_and_cropped(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", ["a", "b"])
    wide = np.zeros((8, 24, 3), dtype=np.uint8)
    wide[:, 8:16] = 255
    Image.fromarray(wide).save(root / "train" / "a" / "000.png")
    arrays = decode_tree(list_tree(str(root)), image_size=4, cache=tmp_path / "cache", say=print)
    assert arrays["train_images"].shape == (12, 3, 4, 4)
    assert arrays["train_images"][0].min() > 200, "the middle of the wide image"


def test_a_file_that_is_no_image_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "tree", ["a", "b"])
    (root / "train" / "b" / "003.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"train/b/003.png: not an image"):
        decode_tree(list_tree(str(root)), image_size=8, cache=tmp_path / "cache", say=print)
    assert not list((tmp_path / "cache").iterdir())


def test_bytes_are_normalised_as_floats_would_be(tmp_path: Path) -> None:
    tree = list_tree(str(write_tree(tmp_path / "tree", ["a", "b"], per_class=20)))
    arrays = decode_tree(tree, image_size=8, cache=tmp_path / "cache", say=print)
    real = normalise(load_parts(arrays, tree.classes, flips=True, validation_from="auto", validation_frac=0.25))
    assert [len(split) for split in (real.train, real.validation, real.test)] == [30, 10, 40]
    assert real.train.images.dtype == torch.uint8
    ready = real.train.batch(slice(None))
    torch.testing.assert_close(ready.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(ready.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3, rtol=0)
    black = (torch.zeros(3) - real.train.mean) / real.train.std  # type: ignore[operator]
    torch.testing.assert_close(real.background, black)


def space(root: Path) -> dict[str, Any]:
    return {
        "name": "tree",
        "data": {"real": f"{root.parent}/{root.name}", "image_size": 8, "distilled": {"method": "random", "ipc": 3}},
        "validation": {"frac": 0.4},
        "teacher": {"model": "convnet2", "width": 4, "train": {"epochs": 3, "batch_size": 4}},
        "scientific": {"loss": ["kl", "gift"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 20, "batch_size": 3, "views": 4},
        "replicates": 2,
    }


@pytest.mark.slow
def test_a_sweep_on_a_tree_equals_one_on_its_copy(tmp_path: Path) -> None:
    tables = []
    for name in ("here", "there"):
        root = write_tree(tmp_path / name, ["dark", "bright"], per_class=12)
        sweep = Sweep.from_space(space(root), home=tmp_path / f"home-{name}")
        prepare_here(sweep.plan, sweep.home.cache)
        tables.append(sweep.run(RunOptions(local=True, tracking_uri="off")).table.drop(columns="train_s"))
    assert tables[0].equals(tables[1]), "trial ids and metrics do not depend on where the files lie"
    assert (tables[0].status == "finished").all()
    assert tables[0].test_accuracy.mean() > 0.8


@pytest.mark.slow
def test_a_relative_path_is_found_again_from_another_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "tree", ["dark", "bright"], per_class=12)
    monkeypatch.chdir(tmp_path)
    Sweep.from_space(space(Path("./tree")) | {"name": "here"}, home=tmp_path / "home").run(
        RunOptions(local=True, tracking_uri="off")
    )
    monkeypatch.chdir("/")
    assert (Sweep.stored("here", tmp_path / "home").landscape().table.status == "finished").all()


def test_a_tree_needs_a_size(tmp_path: Path) -> None:
    document = space(write_tree(tmp_path / "tree", ["a", "b"]))
    del document["data"]["image_size"]
    with pytest.raises(ConfigError, match=r"data\.image_size: missing; give the side in pixels"):
        load_space(document)
