"""Data are what is in their files: other bytes are other data, another place or time is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from orchestrator.plan import Plan
from search_spaces import ConfigError, load_space
from search_spaces.files import sampled
from search_spaces.files import test_images as count_test_images
from tests.conftest import make_tree
from tests.trainables.formats import builders
from tests.trainables.test_named import write_idx
from trainables.content import content_of, folder_content, walk
from trainables.prepare import prepare


def document(real: Path | str, distilled: Any = None, **data: Any) -> dict[str, Any]:
    return {
        "name": "content",
        "data": {"real": str(real), "distilled": distilled or {"method": "random", "ipc": 2}, **data},
        "scientific": {"loss": ["ce"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 1, "labels": "hard", "views": 2, "lr": 0.01},
        "replicates": 1,
        "teacher": None,
    }


def key_of(space: dict[str, Any]) -> str:
    plan = Plan("content", load_space({k: v for k, v in space.items() if v is not None}), "cpu")
    (key,) = set(plan.data_keys.values())
    return key


def bmp_tree(folder: Path) -> Path:
    root = make_tree(folder)
    for path in list(root.rglob("*.png")):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    return root


def change_a_byte(path: Path) -> None:
    """Same size, same time of change."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def exchange(root: Path, a: str, b: str) -> None:
    (root / a).rename(root / "swap")
    (root / b).rename(root / a)
    (root / "swap").rename(root / b)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: change_a_byte(root / "val" / "ape" / "0.bmp"),
        lambda root: change_a_byte(root / "train" / "zebra" / "3.bmp"),
        lambda root: exchange(root / "val", "ape", "cat"),
        lambda root: exchange(root / "val" / "ape", "0.bmp", "1.bmp"),
    ],
    ids=["a byte of a test image", "a byte of a training image", "labels", "two images"],
)
def test_another_byte_or_label_is_another_set(change: Callable[[Path], None], tmp_path: Path) -> None:
    root = bmp_tree(tmp_path)
    before = key_of(document(root, image_size=8))
    change(root)
    assert key_of(document(root, image_size=8)) != before


def test_place_order_on_disk_time_and_links_do_not_count(tmp_path: Path) -> None:
    root = bmp_tree(tmp_path)
    before = key_of(document(root, image_size=8))
    for path in sorted(root.rglob("*.bmp"), reverse=True):
        os.utime(path, (0, 0))
    assert key_of(document(root, image_size=8)) == before, "touched"
    other = tmp_path / "elsewhere" / "name"
    for path in sorted((p for p in root.rglob("*.bmp")), reverse=True):
        place = other / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
    assert key_of(document(other, image_size=8)) == before, "written in another order"
    linked = tmp_path / "linked"
    for part in ("train", "val"):
        (linked / part).mkdir(parents=True)
        for folder in (root / part).iterdir():
            (linked / part / folder.name).symlink_to(folder)
    assert key_of(document(linked, image_size=8)) == before, "folders of classes are links"
    (other / "val").rename(other / "test")
    assert key_of(document(other, image_size=8)) == before, "test and val are the same part"


def test_a_distilled_set_behind_links_is_what_it_links_to(tmp_path: Path) -> None:
    folder = builders.rded(tmp_path / "set", None)
    keys = [key_of(document("digits", str(folder)))]
    linked = tmp_path / "linked"
    linked.mkdir()
    for entry in folder.iterdir():
        (linked / entry.name).symlink_to(entry)
    keys.append(key_of(document("digits", str(linked))))
    for path in folder.rglob("*.jpg"):
        noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(noise).save(path)
    keys.append(key_of(document("digits", str(linked))))
    assert keys[0] == keys[1] != keys[2]


def test_links_that_form_a_loop_are_refused(tmp_path: Path) -> None:
    folder = builders.rded(tmp_path / "set", None)
    (folder / "more").symlink_to(folder)
    with pytest.raises(ConfigError, match="links form a loop"):
        load_space({k: v for k, v in document("digits", str(folder)).items() if v})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no files"):
        load_space({k: v for k, v in document("digits", str(tmp_path / "empty")).items() if v})


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    root = bmp_tree(tmp_path)
    os.mkfifo(root / "val" / "ape" / "pipe.bmp")
    with pytest.raises(ConfigError, match=r"pipe.bmp: no regular file"):
        load_space({k: v for k, v in document(root, image_size=8).items() if v})


def test_named_data_are_their_files(tmp_path: Path) -> None:
    """MNIST under two roots: the same files are the same data, shuffled labels are not, and neither are the files of another name."""
    write_idx(tmp_path / "one", "MNIST")
    shutil.copytree(tmp_path / "one", tmp_path / "same")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    labels = tmp_path / "other" / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    one, same, other = (key_of(document("mnist", root=str(tmp_path / name))) for name in ("one", "same", "other"))
    assert one == same != other
    (tmp_path / "one" / "MNIST").rename(tmp_path / "one" / "FashionMNIST")
    assert key_of(document("fashionmnist", root=str(tmp_path / "one"))) != one


def test_named_data_that_are_not_there_are_found_missing_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.root: .* has no cifar10 that torchvision can read"):
        load_space({k: v for k, v in document("cifar10", root=str(tmp_path)).items() if v})
    assert key_of(document("cifar10", root=str(tmp_path), download=True))


def test_files_that_changed_after_planning_are_refused(tmp_path: Path) -> None:
    """Whatever is made of them would be kept under the id of the old ones."""
    from search_spaces.files import look_again

    root = bmp_tree(tmp_path)
    plan = Plan("content", load_space({k: v for k, v in document(root, image_size=8).items() if v}), "cpu")
    ((key, recipe),) = plan.recipes.items()
    change_a_byte(root / "val" / "ape" / "0.bmp")
    look_again()
    with pytest.raises(ValueError, match="not what it was when this was planned"):
        prepare(key, recipe, tmp_path / "cache", lambda text: None)


def test_many_bytes_are_identified_by_names_sizes_times_and_a_sample(tmp_path: Path) -> None:
    root = bmp_tree(tmp_path)
    first = folder_content(str(root), whole_bytes=1)
    assert not first.is_whole
    assert first.size_bytes == sum(path.stat().st_size for path in root.rglob("*.bmp"))
    files = list(walk(root))
    change_a_byte(files[-1][1])
    assert content_of(files, whole_bytes=1).key != first.key
    space = load_space({k: v for k, v in document(root, image_size=8).items() if v})
    assert sampled(space.settings.data) == {}


@pytest.mark.parametrize(("source", "expected"), [("auto", 24), ("evaluation", 18), ("train", 24)])
def test_test_images_are_those_that_validation_leaves(source: str, expected: int, tmp_path: Path) -> None:
    space = document(make_tree(tmp_path), image_size=8) | {"validation": {"from": source, "frac": 0.25}}
    checked = load_space({k: v for k, v in space.items() if v})
    assert count_test_images(checked.settings.data, checked.settings.validation) == expected
