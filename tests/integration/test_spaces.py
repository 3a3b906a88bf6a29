"""Every shipped space runs on somebody's own files, through the command line that its first lines show."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestrator import Sweep
from orchestrator.cli import app
from search_spaces import shipped_spaces
from tests.conftest import make_tree, prepare_here
from tests.integration import REAL_PARTS
from tests.trainables.formats import builders

pytestmark = REAL_PARTS
SMALL = ("teacher.train.epochs=20", "teacher.train.lr=0.01", "replicates=1", "nuisance.draws=2", "early_stopping=null")
#: In place of the one rate of a paper's protocol, and a student that fits eight pixels.
OWN_RATE = [
    "protocol=tuned",
    "fixed.lr=null",
    "nuisance={lr: {loguniform: [1.0e-3, 1.0e-1]}, draws: 2}",
    "fixed.student=convnet2",
]
#: What three classes with four images each need besides, and the section of the report that the space is for.
OF_LABELS = {
    "label-structure": (
        [
            "scientific.loss=[ce, soft_ce, {swapped: {loss: soft_ce, label_swap: [1, 2]}}, {top: {loss: soft_ce, label_top_k: [1, 2]}}]"
        ],
        "structure",
    ),
    "label-expert-epoch": (
        [
            "teacher.train.epochs=8",
            "scientific={loss: [soft_ce], label_temperature: [1, 4], teacher.epoch: [1, 8], data.distilled.ipc: [1, 4]}",
        ],
        "epoch",
    ),
    "label-scaling": (["scientific={loss: [ce, soft_ce], data.distilled.ipc: [1, 2, 3, 4]}"], "scaling"),
    "label-storage": (
        [
            "projector.epochs=1",
            "variants={all: {}, top: {label_top_k: 1}, rank_1: {labels: projector, projector.rank: 1}, hard: {labels: hard}}",
        ],
        "storage",
    ),
    "dd-challenge": (OWN_RATE, "which"),
    "paper-datm": (OWN_RATE, "which"),
    "paper-dc": ([*OWN_RATE, "teacher=null"], "which"),
    "paper-mtt": ([*OWN_RATE, "teacher=null"], "which"),
}
#: What a section is as a file.
PICTURES = {"structure": "swap", "epoch": "epoch", "scaling": "scaling", "storage": "storage"}
SMALL_STUDENT = ("fixed.epochs=2", "fixed.views=2", "fixed.width=4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree, a distilled set, and a home whose cache spaces share, as far as their data are the same."""
    place = tmp_path_factory.mktemp("spaces")
    make_tree(place)
    builders.gift(place, None)
    return place


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_a_shipped_space_runs_on_a_tree_and_a_distilled_set(name: str, folder: Path) -> None:
    data = f"data={{real: {folder / 'real'}, image_size: 8, distilled: {folder / 'data.pt'}}}"
    own, section = OF_LABELS.get(name, ([], "which"))
    overrides = [data, *SMALL, *SMALL_STUDENT, *own]
    if name != "digits":  # that one prepares its data as the command does it, in a process of its own
        sweep = Sweep.from_space(name, overrides=overrides, home=folder / "home")
        prepare_here(sweep.plan, sweep.home.cache)
    changes = [f"--set={change}" for change in overrides]
    home = ["--home", str(folder / "home")]
    runner = CliRunner()
    run = runner.invoke(app, ["run", name, "--local", "--force", "--tracking-uri", "off", *changes, *home])
    assert run.exit_code == 0, run.output
    table = pd.read_csv(io.StringIO(runner.invoke(app, ["table", name, *home]).stdout))
    assert set(table.status) == {"finished"}
    assert table.cell.nunique() * (2 + 1) == len(table)
    page = (folder / "home" / "sweeps" / name / "report" / "index.html").read_text()
    assert f"<h2 id='{section}'>" in page
    picture = PICTURES.get(section)
    if picture:
        asked = runner.invoke(app, ["report", name, "--figures", "png", "--out", str(folder / name), *home])
        assert asked.exit_code == 0, asked.output
        assert (folder / name / f"{picture}.png").stat().st_size > 5_000
