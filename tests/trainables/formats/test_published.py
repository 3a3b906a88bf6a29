"""Distilled sets that others published are what their authors say, and their damaged twins are refused.

The files are not part of the project: they are looked for in a folder `shared/data/real-sets` above it, and the tests are
skipped where there is none. `test_pixels` and `test_readers` do the same with small sets made here.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainables.formats.inspect import inspect_path
from trainables.formats.read import read_distilled

PLACES = [parent / "shared" / "data" / "real-sets" for parent in Path(__file__).parents]
SETS = next((place for place in PLACES if place.is_dir()), None)
needs_files = pytest.mark.skipif(SETS is None, reason="published sets are not here (shared/data/real-sets)")
CIFAR = tuple(f"c{number}" for number in range(10))
CONSTANTS = {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2023, 0.1994, 0.2010]}
MNIST = {"mean": [0.1307], "std": [0.3081]}

#: Path, what is said (format, space, label kind, keys asked for) and what completes it.
TRUTH: dict[str, tuple[tuple[str, str | None, str, list[str]], dict[str, Any]]] = {
    "dc/res_DC_CIFAR10_ConvNet_1ipc.pt": (("dc", "meanstd", "hard", ["mean", "std"]), CONSTANTS),
    "dc/res_DC_CIFAR10_ConvNet_10ipc.pt": (("dc", "meanstd", "hard", ["mean", "std"]), CONSTANTS),
    "dc/res_DC_MNIST_ConvNet_1ipc.pt": (("dc", "meanstd", "hard", ["mean", "std"]), MNIST),
    "mtt-zca-ipc1": (("mtt", "zca", "hard", []), {}),
    "mtt-zca-ipc1/images_5000.pt": (("mtt", "zca", "hard", []), {}),
    "rfad/cifar10_ipc1_best.npz": (("rfad", None, "centred", ["pixel_space"]), {"pixel_space": "zca"}),
    "ddranking-datm-ipc10": (("dd-ranking", None, "logit", ["pixel_space"]), {"pixel_space": "zca"}),
    "datadam/CIFAR10_IPC1_images.pt": (("datadam", "meanstd", "hard", ["mean", "std"]), CONSTANTS),
    "d4m-cifar100-ipc1": (("numbered", "uint8", "hard", []), {}),
}


@needs_files
@pytest.mark.parametrize("name", TRUTH)
def test_a_published_set_is_what_its_authors_say(name: str) -> None:
    assert SETS is not None
    expected, given = TRUTH[name]
    facts = inspect_path(SETS / name)
    assert (facts["format"], facts["pixel_space"], facts["labels"]["kind"], facts["asks"]) == expected
    classes = tuple(f"c{number}" for number in range(facts["classes"]))
    found = read_distilled(SETS / name, given, classes=classes, size=facts["images"]["shape"][-1])
    assert found.hard.tolist() == sorted(found.hard.tolist()), "all of these are class after class"
    assert found.hard.bincount().tolist() == [facts["ipc"]] * facts["classes"]


@needs_files
def test_whitened_images_are_never_taken_for_normalised_ones_without_their_twin(tmp_path: Path) -> None:
    assert SETS is not None
    for file in ("images_best.pt", "labels_best.pt"):
        shutil.copy(SETS / "mtt-zca-ipc1" / file, tmp_path / file)
    facts = inspect_path(tmp_path)
    assert (facts["pixel_space"], facts["asks"]) == (None, ["pixel_space"])
    assert "as whitened (zca) ones do" in facts["details"]["pixel_space_guess"]
    (tmp_path / "lossatlas.yaml").write_text("pixel_space: meanstd\nmean: [0.5, 0.5, 0.5]\nstd: [0.2, 0.2, 0.2]\n")
    assert any("pixel_space is meanstd, but" in problem for problem in inspect_path(tmp_path)["problems"])


@needs_files
def test_what_lies_beside_the_images_is_said() -> None:
    assert SETS is not None
    facts = inspect_path(SETS / "ddranking-datm-ipc10")
    assert facts["details"]["learned_lr"] == pytest.approx(0.018357, abs=1e-6)
    assert any("another class for 5% of the images" in problem for problem in facts["problems"])
    with pytest.raises(ValueError, match=r"a single number, 0\.01835"):
        inspect_path(SETS / "ddranking-datm-ipc10" / "lr.pt")


@needs_files
@pytest.mark.parametrize("defect", ["truncated", "nan", "shape", "swapped", "longer", "classes"])
@pytest.mark.parametrize("name", ["ddranking-datm-ipc10", "mtt-zca-ipc1"])
def test_a_damaged_twin_of_a_published_set_is_refused(name: str, defect: str, tmp_path: Path) -> None:
    assert SETS is not None
    stem = "images" if name.startswith("ddranking") else "images_best"
    for file in (f"{stem}.pt", f"{stem.replace('images', 'labels')}.pt"):
        shutil.copy(SETS / name / file, tmp_path / file)
    images, labels = tmp_path / f"{stem}.pt", tmp_path / f"{stem.replace('images', 'labels')}.pt"
    pixels, rows = torch.load(images), torch.load(labels)
    if defect == "truncated":
        images.write_bytes(images.read_bytes()[:-1000])
    elif defect == "nan":
        torch.save(torch.where(pixels == pixels.max(), torch.nan, pixels), images)
    elif defect == "shape":
        torch.save(pixels[:, :, :, :-1].clone(), images)
    elif defect == "swapped":
        torch.save(pixels, labels)
        torch.save(rows, images)
    elif defect == "longer":
        torch.save(torch.cat([rows, rows[:1]]), labels)
    else:
        torch.save(rows[:, :-1].clone() if rows.ndim == 2 else rows.clamp_max(8), labels)
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_distilled(tmp_path, {"pixel_space": "zca"}, classes=CIFAR, size=32)


@needs_files
def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    assert SETS is not None
    source = SETS / "rfad" / "cifar10_ipc1_best.npz"
    arrays = dict(np.load(source))
    (tmp_path / "cut.npz").write_bytes(source.read_bytes()[:-500])
    np.savez(tmp_path / "nan.npz", **{**arrays, "images": np.where(arrays["images"] > 4, np.nan, arrays["images"])})
    np.savez(tmp_path / "shape.npz", **{**arrays, "images": arrays["images"][:, :2]})
    np.savez(tmp_path / "longer.npz", **{**arrays, "labels": arrays["labels"][:-1]})
    for path in tmp_path.glob("*.npz"):
        with pytest.raises(ValueError, match=path.name):
            inspect_path(path)
