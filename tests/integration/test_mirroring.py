"""What MLflow has of a sweep, whatever happened to the tracker or the store; real MLflow on SQLite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from orchestrator import RunOptions, Sweep
from orchestrator.landscape.values import cell_values
from orchestrator.report import Findings, write_report
from tests.integration import REAL_PARTS, mlflow_runs

pytestmark = [*REAL_PARTS, pytest.mark.filterwarnings("ignore::UserWarning:ray")]


def test_a_tracker_that_is_away_does_not_stop_the_sweep_and_gets_the_rest_later(
    tiny: dict[str, Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.mirror.LAST_WAIT_S", 1.0)
    sweep = Sweep.from_space(tiny, home=home)
    told: list[str] = []
    sweep.say = told.append
    table = sweep.run(RunOptions(local=True, tracking_uri="http://127.0.0.1:9")).table
    assert (table.status == "finished").all()
    assert table.run_id.isna().all()
    assert any(f"`lossatlas sync tiny --home {home}` sends the rest" in text for text in told)
    again = Sweep.from_space(tiny, home=home).run(RunOptions(local=True)).table
    assert again.run_id.notna().all()
    assert {run.info.status for run in mlflow_runs(home, "tiny")} == {"FINISHED"}
    assert len(mlflow_runs(home, "tiny")) == 25


def test_runs_created_right_before_a_crash_are_found_again(tiny: dict[str, Any], home: Path) -> None:
    """The notes are cut to the parent and one run, as if the process had died before it noted the others."""
    sweep = Sweep.from_space(tiny, home=home)
    sweep.run(RunOptions(local=True))
    lines = sweep.folder.tracked.read_bytes().splitlines(keepends=True)
    sweep.folder.tracked.write_bytes(b"".join(lines[:2]))
    table = Sweep.from_space(tiny, home=home).run(RunOptions(local=True)).table
    assert len(mlflow_runs(home, "tiny")) == 25
    assert table.run_id.notna().all()
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=sweep.home.store_uri)
    steps = {tuple(m.step for m in client.get_metric_history(run_id, "val_accuracy")) for run_id in table.run_id}
    assert steps == {(2, 4, 6, 8)}, "no point was sent twice"


def test_two_stores_are_mirrored_each_on_its_own(
    tiny: dict[str, Any], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    del tiny["nuisance"]
    first = Sweep.from_space(tiny, home=home).run(RunOptions(local=True)).table
    second = Sweep.from_space(tiny, home=home).run(RunOptions(local=True, tracking_uri=other)).table
    third = Sweep.from_space(tiny, home=home).run(RunOptions(local=True)).table
    assert set(first.run_id) == set(third.run_id)
    assert second.run_id.notna().all()
    assert not set(first.run_id) & set(second.run_id)
    assert len(mlflow_runs(home, "tiny")) == 9
    assert {path.name for path in tmp_path.iterdir()} == {"home", "other.db"}, "artifacts lie in the home directory"


def test_a_store_that_was_deleted_is_filled_again(tiny: dict[str, Any], home: Path) -> None:
    del tiny["nuisance"]
    Sweep.from_space(tiny, home=home).run(RunOptions(local=True))
    (home / "mlflow.db").unlink()
    # MLflow keeps the engine of a store per process; another spelling of the path is another store to it
    table = Sweep.from_space(tiny, home=home / ".." / "home").run(RunOptions(local=True)).table
    assert table.run_id.notna().all()


def test_two_first_runs_at_once_share_a_new_store(tiny: dict[str, Any], home: Path, tmp_path: Path) -> None:
    del tiny["nuisance"]
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(tmp_path / "space.yaml"), "--local"]
    processes = [
        subprocess.Popen([*command, "--home", str(home), "--name", name], stdout=subprocess.DEVNULL) for name in "ab"
    ]
    assert [process.wait() for process in processes] == [0, 0]
    for name in "ab":
        assert Sweep.stored(name, home).landscape().table.run_id.notna().all()


def test_a_team_with_the_tracker_alone_gets_the_same_table_and_report(
    tiny: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    sweep = Sweep.from_space(tiny, home=home)
    landscape = sweep.run(RunOptions(local=True))
    table = landscape.table
    sweep.log_report(RunOptions(), write_report(Findings(landscape), sweep.folder.report), landscape)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=sweep.home.store_uri)
    experiment = client.get_experiment_by_name("lossatlas/tiny")
    assert experiment
    cells = client.search_runs([experiment.experiment_id], "metrics.cell_n > 0", order_by=["metrics.cell_mean DESC"])
    means = [run.data.metrics["cell_mean"] for run in cells]
    assert means == pytest.approx(sorted(cell_values(table)["mean"], reverse=True))
    command = [sys.executable, "-m", "orchestrator.cli", "report", "tiny", "--tracking-uri", sweep.home.store_uri]
    there = tmp_path / "there"
    subprocess.run([*command, "--home", str(there)], check=True)
    again = Sweep.stored("tiny", there, reading=True).landscape()
    pd.testing.assert_frame_equal(again.table, table)
    assert again.facts["data"], "the caveats need what was known of the data"
    assert (there / "sweeps" / "tiny" / "report" / "index.html").exists()
    here = subprocess.run([*command, "--home", str(home)], capture_output=True, text=True, check=False)
    assert here.returncode == 2
    assert "was run in" in here.stderr
    command[4] = "nothing"
    missing = subprocess.run([*command, "--home", str(there)], capture_output=True, text=True, check=False)
    assert (missing.returncode, "no sweep 'nothing'" in missing.stderr) == (2, True)
