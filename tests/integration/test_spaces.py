"""Every shipped space runs on somebody's own files, through the command line that its first lines show."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from orchestrator.cli import app
from search_spaces import shipped_spaces
from tests.integration import REAL_PARTS
from tests.trainables.formats import builders

pytestmark = REAL_PARTS
SMALL = ("teacher.train.epochs=20", "teacher.train.lr=0.01", "replicates=1", "nuisance.draws=2", "early_stopping=null")
SMALL_STUDENT = ("fixed.epochs=2", "fixed.views=2", "fixed.width=4")


@pytest.mark.parametrize("name", sorted(shipped_spaces()))
def test_a_shipped_space_runs_on_a_tree_and_a_distilled_set(name: str, tree: Path, tmp_path: Path) -> None:
    path = builders.gift(tmp_path, None)
    data = f"data={{real: {tree}, image_size: 8, distilled: {path}}}"
    changes = [part for change in (data, *SMALL, *SMALL_STUDENT) for part in ("--set", change)]
    home = ["--home", str(tmp_path / "home")]
    runner = CliRunner()
    run = runner.invoke(app, ["run", name, "--local", "--force", "--tracking-uri", "off", *changes, *home])
    assert run.exit_code == 0, run.output
    table = pd.read_csv(io.StringIO(runner.invoke(app, ["table", name, *home]).stdout))
    assert set(table.status) == {"finished"}
    assert table.cell.nunique() * (2 + 1) == len(table)
    assert (tmp_path / "home" / "sweeps" / name / "report" / "index.html").stat().st_size > 10_000
