"""What `inspect` says of data, `plan`, `run` and the report say too; constants and labels that cannot be are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from orchestrator import RunOptions, Sweep
from orchestrator.describe import describe_plan
from orchestrator.report.caveats import caveats
from search_spaces import ConfigError, load_space
from tests.trainables.formats import builders
from trainables.prepare import prepare


@pytest.fixture
def space(tree: Path, tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "set").mkdir()
    return {
        "name": "remarks",
        "data": {"real": str(tree), "image_size": builders.SIZE, "distilled": {"path": str(tmp_path / "set")}},
        "scientific": {"loss": ["ce"]},
        "fixed": {"student": "convnet2", "width": 4, "epochs": 1, "batch_size": 6, "views": 1, "labels": "hard"},
        "replicates": 1,
    }


def prepared(space: dict[str, Any], home: Path) -> dict[str, Any]:
    sweep = Sweep.from_space(space, home=home)
    ((key, recipe),) = sweep.plan.recipes.items()
    return prepare(key, recipe, sweep.home.cache, lambda text: None)


def test_remarks_are_said_by_plan_run_and_report(space: dict[str, Any], tmp_path: Path) -> None:
    """Interleaved soft labels of two decimals, whose hard labels are their own largest entries."""
    order = torch.arange(12).view(3, 4).T.flatten()
    torch.save(builders.pixels()[order], tmp_path / "set" / "images_best.pt")
    rows = torch.tensor([[0.67, 0.16, 0.16], [0.16, 0.67, 0.16], [0.16, 0.16, 0.67]])[builders.hard()]
    torch.save(rows[order], tmp_path / "set" / "labels_best.pt")
    space["data"]["distilled"] |= {"pixel_space": "raw01"}
    space["fixed"]["labels"] = "stored"
    sweep = Sweep.from_space(space, home=tmp_path / "home")
    told: list[str] = []
    sweep.say = told.append
    plan = "\n".join(describe_plan(sweep, probe=False, say=told.append))
    landscape = sweep.run(RunOptions(local=True, tracking_uri="off"))
    for text in (plan, "\n".join(told), "\n".join(caveats(landscape))):
        assert "hard labels are the largest entries of the soft labels" in text
        assert "(rounded); they are divided by the sums" in text
        assert "pixel_space = raw01" in text
        assert "mirrored" in text
        assert "The classes of the distilled set are not tested, for there is no teacher" in text


@pytest.mark.parametrize("scale", [255.0, 1 / 255])
def test_constants_out_of_all_proportion_are_refused_without_a_teacher(
    scale: float, space: dict[str, Any], tmp_path: Path
) -> None:
    builders.mtt(tmp_path / "set", None)
    constants = {"mean": [0.4 * scale] * 3, "std": [0.2 * scale] * 3}
    space["data"]["distilled"] |= {"pixel_space": "meanstd", **constants}
    if scale > 1:
        with pytest.raises(ConfigError, match=r"distilled\.mean: must be less than or equal to 1, got 102"):
            load_space(space)
        return
    with pytest.raises(
        ValueError, match=r"times the deviation of the real ones .*mean and std are of pixels in \[0, 1\]"
    ):
        prepared(space, tmp_path / "home")


def test_bytes_of_0_and_1_are_refused(space: dict[str, Any], tmp_path: Path) -> None:
    images = (builders.pixels() > 0.5).to(torch.uint8)
    torch.save({"dataset": "x", "data": images, "label": builders.hard()}, tmp_path / "set" / "data.pt")
    with pytest.raises(ValueError, match="times the deviation of the real ones"):
        prepared(space, tmp_path / "home")


def test_centred_labels_are_for_squared_errors_alone(space: dict[str, Any], tmp_path: Path) -> None:
    builders.rfad(tmp_path / "set", None)
    space["data"]["distilled"] |= {"pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3}
    space["fixed"]["labels"] = "stored"
    space["scientific"] = {"loss": ["mse", "cosine", "ce"]}
    table = Sweep.from_space(space, home=tmp_path / "home").run(RunOptions(local=True, tracking_uri="off")).table
    assert (table.status == "finished").all()
    space |= {"name": "other", "scientific": {"loss": ["kl"]}}
    with pytest.raises(ConfigError, match="kl compares probabilities, the stored labels are centred"):
        Sweep.from_space(space, home=tmp_path / "home").run(RunOptions(local=True, tracking_uri="off"))


def test_plan_refuses_a_set_that_does_not_tell_all(space: dict[str, Any], tmp_path: Path) -> None:
    builders.mtt(tmp_path / "set", None)
    sweep = Sweep.from_space(space, home=tmp_path / "home")
    with pytest.raises(ConfigError, match="recognised as mtt, which cannot tell everything; state pixel_space"):
        list(describe_plan(sweep, probe=False, say=lambda text: None))


def test_plan_says_what_is_mirrored_and_passed_over(space: dict[str, Any], tree: Path, tmp_path: Path) -> None:
    builders.gift(tmp_path / "set", None)
    (tree / "train" / "ape" / "nested").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tree / "train" / "ape" / "nested" / "a.png")
    (tree / "train" / "ape" / "notes.psd").write_text("x")

    def said(changed: dict[str, Any]) -> str:
        sweep = Sweep.from_space({**space, "data": {**space["data"], **changed}}, home=tmp_path / "home")
        return "\n".join(describe_plan(sweep, probe=False, say=lambda text: None))

    assert "mirrored: yes (the default here; data.flips says otherwise)" in said({})
    assert "mirrored: no (stated by data.flips)" in said({"flips": False})
    assert "passed over in class folders: 1 .psd files, 1 images in nested folders." in said({})
