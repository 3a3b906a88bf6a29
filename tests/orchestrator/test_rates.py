"""`lr: file`: students are trained at the rate that was learned with the distilled set."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from orchestrator import RunOptions, Sweep
from orchestrator.describe import describe_plan
from orchestrator.plan import Plan
from orchestrator.report.caveats import caveats
from search_spaces import ConfigError, load_space
from tests.trainables.formats import builders


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


@pytest.fixture
def space(tree: Path, folder: Path) -> dict[str, Any]:
    distilled = {"path": str(folder), "pixel_space": "meanstd", "mean": [0.4] * 3, "std": [0.2] * 3}
    fixed: dict[str, Any] = {"student": "convnet2", "width": 4, "epochs": 1, "batch_size": 6, "views": 1}
    return {
        "name": "rates",
        "data": {"real": str(tree), "image_size": builders.SIZE, "distilled": distilled},
        "scientific": {"loss": ["ce"]},
        "fixed": fixed | {"labels": "hard", "lr": "file"},
        "replicates": 1,
    }


def planned(space: dict[str, Any]) -> list[float]:
    plan = Plan("rates", load_space(space), "cpu")
    return [plan.trial(cell, 0, 1, "confirm").lr for cell in plan.cells]


def test_the_rate_beside_the_set_is_used_said_and_kept(space: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    builders.mtt(folder, None)
    torch.save(torch.tensor(0.0625), folder / "lr_best.pt")
    sweep = Sweep.from_space(space, home=tmp_path / "home")
    said = "\n".join(describe_plan(sweep, probe=False, say=lambda text: None))
    assert "Learning rate: 0.0625 in 1 cells, learned with the distilled set (lr: file)." in said
    landscape = sweep.run(RunOptions(local=True, tracking_uri="off"))
    assert list(landscape.table.status) == ["finished"]
    assert "lr = 0.0625 (of the file)" in " ".join(caveats(landscape))
    shutil.rmtree(folder)
    stored = Sweep.stored("rates", tmp_path / "home", reading=True)
    assert list(stored.landscape().table.trial_id) == list(landscape.table.trial_id)


def test_another_rate_beside_the_set_is_another_trial_and_the_same_number_the_same(
    space: dict[str, Any], folder: Path
) -> None:
    builders.mtt(folder, None)
    ids = []
    for rate in (0.25, 0.5):
        torch.save(torch.tensor(rate), folder / "lr_best.pt")
        assert planned(space) == [rate]
        plan = Plan("rates", load_space(space), "cpu")
        ids.append(plan.trial(plan.cells[0], 0, 1, "confirm").trial_id)
    assert ids[0] != ids[1]
    number = Plan("rates", load_space(space, ["fixed.lr=0.5"]), "cpu")
    assert number.trial(number.cells[0], 0, 1, "confirm").trial_id == ids[1]


@pytest.mark.parametrize("key", ["lr", "syn_lr"])
def test_the_sets_own_key_is_used(key: str, space: dict[str, Any], folder: Path) -> None:
    content = {"dataset": "x", "data": builders.normalised(), "label": builders.hard(), key: torch.tensor([0.125])}
    torch.save(content, folder / "data.pt")
    assert planned(space) == [0.125]


def test_a_variant_may_take_the_files_rate(space: dict[str, Any], folder: Path) -> None:
    builders.mtt(folder, None)
    torch.save(torch.tensor(0.0625), folder / "lr_best.pt")
    del space["fixed"]["lr"]
    space["variants"] = {"learned": {"lr": "file"}, "usual": {"lr": 0.01}}
    assert planned(space) == [0.0625, 0.01]


def test_without_a_rate_the_error_names_the_file_that_was_looked_for(space: dict[str, Any], folder: Path) -> None:
    builders.mtt(folder, None)
    with pytest.raises(
        ConfigError, match=r"fixed\.lr: file: no learned rate belongs to .*looked for .*/set/lr_best\.pt"
    ):
        planned(space)
    torch.save(torch.tensor(-0.5), folder / "lr_best.pt")
    with pytest.raises(ConfigError, match=r"`learned rate > 0` must hold, got -0\.5"):
        planned(space)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.distilled=null", "fixed.lr: file, but the distilled set is made here"),
        ("nuisance={lr: [file, 0.1], draws: 2}", "nuisance.lr: a tuned value is a number, got 'file'"),
        ("scientific.lr=[file, 0.1]", "scientific.lr: file is no value of an axis"),
        ("fixed.lr=fil", "fixed.lr: must be a valid number"),
    ],
)
def test_where_no_file_can_say_it_is_refused(override: str, message: str, space: dict[str, Any], folder: Path) -> None:
    builders.mtt(folder, None)
    if not override.startswith("data"):
        del space["fixed"]["lr"]
    with pytest.raises(ConfigError) as caught:
        load_space(space, [override])
    assert message in str(caught.value)
