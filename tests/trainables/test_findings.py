"""From files to findings: what is wrong with a set on disk is in the record of the prepared data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.judgement import mistakes_in, remarks_on
from orchestrator.plan import Plan
from search_spaces import load_space
from trainables.findings import Findings
from trainables.prepare import prepare

NAMES = ("ant", "bee", "cat", "dog", "eel", "fox")


def write(folder: Path, label: int, count: int, seed: int) -> None:
    """Images whose left part is bright up to a column that tells the class."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = rng.normal(60, 10, (8, 8))
        pixels[:, : label + 1] += 120
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")


@pytest.mark.parametrize("shown", [(0, 1, 2, 3, 4, 5), (0, 4, 2, 3, 1, 5)])
def test_exchanged_class_folders_are_found_and_repeated_images_counted(shown: tuple[int, ...], tmp_path: Path) -> None:
    """Folders 1 and 4 hold each other's images; one of them is a test image."""
    for label, name in enumerate(NAMES):
        for part, count in (("train", 24), ("test", 8)):
            write(tmp_path / "real" / part / name, label, count, seed=10 * label + len(part))
        write(tmp_path / "set" / f"{label:05d}", shown[label], 10, seed=100 + label)
    copy = (tmp_path / "real" / "test" / "ant" / "0.png").read_bytes()
    (tmp_path / "set" / "00000" / "0.png").write_bytes(copy)
    space = {
        "name": "six",
        "data": {
            "real": str(tmp_path / "real"),
            "image_size": 8,
            "flips": False,
            "distilled": {"path": str(tmp_path / "set")},
        },
        "teacher": {"model": "convnet2", "width": 16, "train": {"epochs": 12, "lr": 1.0e-2}},
        "scientific": {"loss": ["kl"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 1, "views": 1, "augment": "none"},
    }
    ((key, recipe),) = Plan("six", load_space(space), "cpu").recipes.items()
    about = prepare(key, recipe, tmp_path / "cache", lambda text: None)
    assert remarks_on(about)[0] == "1 of 60 distilled images are also test images, pixel by pixel."
    if shown[1] == 1:
        assert mistakes_in(about) == []
        assert Findings.of(about).class_test == "passed"
        return
    (mistake,) = mistakes_in(about)
    assert "labelled bee look like eel" in mistake
    assert "labelled eel look like bee" in mistake
