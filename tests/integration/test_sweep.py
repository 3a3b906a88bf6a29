"""Whole sweeps: this process, real Ray, real MLflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator import RunOptions, Sweep
from orchestrator.journal import read_journal
from tests.conftest import TINY, prepare_here
from tests.integration import REAL_PARTS, mlflow_runs
from trainables.arrays import seal

pytestmark = [*REAL_PARTS, pytest.mark.filterwarnings("ignore::UserWarning:ray")]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["run_id", "train_s"])


def trials_started(sweep: Sweep) -> int:
    return sum(record["kind"] == "start" for record in read_journal(sweep.folder.journal))


def damage(sweep: Sweep) -> Callable[[], None]:
    """Give the second cell's data labels out of range; a function that mends them."""
    prepare_here(sweep.plan, sweep.home.cache)
    damaged = sweep.plan.trial(sweep.plan.cells[1], 0, 1, "confirm").data
    path = sweep.home.cache / f"data-{damaged}" / "distilled_labels.npy"
    good = np.load(path)

    def save(labels: np.ndarray) -> None:
        np.save(path, labels)
        seal(path.parent)

    save(np.full_like(good, 99))
    return lambda: save(good)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, prepared_cache: Path, ray_here: None) -> tuple[Path, Sweep]:
    """A home with the tiny space swept twice: `there` on Ray, `here` in this process."""
    home = tmp_path_factory.mktemp("swept") / "home"
    shutil.copytree(prepared_cache, home / "cache")
    Sweep.from_space(TINY, name="here", home=home).run(RunOptions(local=True))
    there = Sweep.from_space(TINY, name="there", home=home)
    there.run()
    return home, there


def test_ray_and_this_process_give_the_same_table_bit_for_bit(swept: tuple[Path, Sweep]) -> None:
    home, there = swept
    here = Sweep.stored("here", home).landscape().table
    pd.testing.assert_frame_equal(comparable(here), comparable(there.landscape().table), check_exact=True)
    assert (here.status == "finished").all()
    assert here[here.stage == "confirm"].test_accuracy.notna().all()
    assert here[here.stage == "tune"].test_accuracy.isna().all()


def test_trials_that_share_a_device_give_the_table_of_trials_alone(
    swept: tuple[Path, Sweep], tiny: dict[str, Any]
) -> None:
    """All trials of the node advance in one actor; floats are summed in another order."""
    home, _ = swept
    tiny["fixed"] |= {"engine": "grouped", "norm": "instance"}
    del tiny["nuisance"]  # a draw may be chosen by a last digit
    plain = {**tiny, "fixed": {**tiny["fixed"], "engine": "eager"}}
    together = Sweep.from_space(tiny, name="together", home=home)
    table = together.run(RunOptions(max_concurrent=2)).table
    assert not [r for r in read_journal(together.folder.journal) if r["kind"] == "death"]
    alone = Sweep.from_space(plain, name="alone", home=home).run(RunOptions(local=True)).table
    assert (table.status == "finished").all()
    assert not set(table.trial_id) & set(alone.trial_id)
    assert table.cell.tolist() == alone.cell.tolist()
    assert (table.test_accuracy - alone.test_accuracy).abs().max() < 0.02


def test_all_slots_begin_before_any_trial_ends(swept: tuple[Path, Sweep]) -> None:
    """Tune hands a starting actor's trial to a free one and cancels the start; set-up is fast so that it cannot."""
    kinds = [record["kind"] for record in read_journal(swept[1].folder.journal)]
    slots = min(os.cpu_count() or 1, 16)
    assert kinds[:slots] == ["start"] * slots


def test_mlflow_has_one_parent_and_one_true_child_per_trial(swept: tuple[Path, Sweep]) -> None:
    home, there = swept
    runs = mlflow_runs(home, "there")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["lossatlas.trial_id"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(parents) == 1
    assert len(children) == len(runs) - 1 == 24
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parents[0].info.run_id}
    for row in there.landscape().table.to_dict("records"):
        run = children[row["trial_id"]]
        assert run.info.run_id == row["run_id"]
        assert run.data.metrics["val_accuracy"] == row["val_accuracy"]
        factors = {"loss", "lr", "replicate"} | ({"temperature"} & set(run.data.params))
        assert {name: run.data.params[name] for name in factors} == {name: str(row[name]) for name in factors}
        assert run.data.tags["lossatlas.cell"] == row["cell"]


def test_mlflow_has_the_whole_curve_and_what_the_sweep_was(swept: tuple[Path, Sweep]) -> None:
    from mlflow import MlflowClient

    home, there = swept
    client = MlflowClient(tracking_uri=there.home.store_uri)
    row = there.landscape().table.iloc[0]
    history = client.get_metric_history(row.run_id, "val_accuracy")
    (curve,) = (
        r["curve"]
        for r in read_journal(there.folder.journal)
        if r["kind"] == "result" and r["trial_id"] == row.trial_id
    )
    assert [(m.step, m.value) for m in history] == [(p["epoch"], p["val_accuracy"]) for p in curve]
    (parent,) = (run for run in mlflow_runs(home, "there") if "mlflow.parentRunId" not in run.data.tags)
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"plan.json", "journal.jsonl", "space.yaml"} <= names
    assert parent.data.params["student"] == "convnet2"
    assert parent.data.params["trials_tune"] == "16"


def test_the_same_command_again_trains_nothing_and_tracks_nothing_twice(swept: tuple[Path, Sweep]) -> None:
    home, there = swept
    before, runs = trials_started(there), len(mlflow_runs(home, "there"))
    table = there.landscape().table
    again = Sweep.from_space(there.plan.space, name="there", home=home).run().table
    assert trials_started(there) == before == 24
    assert len(mlflow_runs(home, "there")) == runs
    pd.testing.assert_frame_equal(again, table)


def test_a_larger_plan_trains_only_what_is_new(swept: tuple[Path, Sweep], tiny: dict[str, Any]) -> None:
    home, _ = swept
    sweep = Sweep.from_space(tiny, name="here", overrides=["replicates=3"], home=home)
    before = trials_started(sweep)
    table = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert trials_started(sweep) - before == 4
    assert len(table) == 28


def test_early_stopping_stops_trials_and_says_so_everywhere(tiny: dict[str, Any], home: Path) -> None:
    tiny["early_stopping"] = {"grace_period_epochs": 3, "audit_frac": 0.0}
    sweep = Sweep.from_space(tiny, home=home)
    table = sweep.run(RunOptions(local=True)).table
    stopped = table[table.status == "stopped"]
    assert len(stopped) > 0
    assert set(stopped.stopped_by) == {"asha@3"}
    assert set(stopped.epochs) == {4}, "the first evaluation at or after the rung"
    assert set(stopped.stage) == {"tune"}
    decisions = [r for r in read_journal(sweep.folder.journal) if r["kind"] == "decision"]
    assert {r["trial_id"] for r in decisions if r["action"] == "stop"} == set(stopped.trial_id)
    statuses = {run.data.tags.get("lossatlas.trial_id"): run.info.status for run in mlflow_runs(home, "tiny")}
    assert {statuses[trial_id] for trial_id in stopped.trial_id} == {"KILLED"}
    for row in stopped.to_dict("records"):
        rivals = [r for r in decisions if r["stratum"].startswith(row["cell"] + "#")]
        assert all(r["stratum"] == f"{row['cell']}#0" for r in rivals)


def test_a_failing_trial_fails_alone(tiny: dict[str, Any], home: Path) -> None:
    """One of two data sets is damaged after it was prepared: its trials raise, and are tried again once it is mended."""
    del tiny["data"]["distilled"]["ipc"]
    tiny["scientific"] = {"loss": ["ce"], "data.distilled.ipc": [4, 2]}
    sweep = Sweep.from_space(tiny, home=home)
    mended = damage(sweep)
    table = sweep.run(RunOptions(local=True)).table
    counts = table.groupby(["data.distilled.ipc", "status"]).size().to_dict()
    assert counts == {(4, "finished"): 6, (2, "failed"): 4, (2, "skipped"): 2}
    (error, *_) = (r["error"] for r in read_journal(sweep.folder.journal) if r["kind"] == "result" and r["error"])
    assert "out of bounds" in error
    assert {run.info.status for run in mlflow_runs(home, "tiny")} == {"FINISHED", "FAILED"}
    mended()
    again = Sweep.stored("tiny", home).run(RunOptions(local=True)).table
    assert (again.status == "finished").all()
    assert {run.info.status for run in mlflow_runs(home, "tiny")} == {"FINISHED"}
    assert len(mlflow_runs(home, "tiny")) == 13


def test_a_failing_trial_on_ray_fails_alone_too(ray_here: None, tiny: dict[str, Any], home: Path) -> None:
    """A label out of range: the second data set is damaged after it was prepared, which the probe survives too."""
    del tiny["nuisance"], tiny["data"]["distilled"]["ipc"]
    tiny["scientific"] = {"loss": ["ce"], "data.distilled.ipc": [4, 2]}
    sweep = Sweep.from_space(tiny, home=home)
    damage(sweep)
    table = sweep.run(RunOptions(tracking_uri="off")).table
    assert table.status.tolist() == ["finished", "finished", "failed", "failed"]
    errors = [r["error"] for r in read_journal(sweep.folder.journal) if r["kind"] == "result" and r["error"]]
    assert len(errors) == 2
    assert all("train_student" in error for error in errors)


def test_diverged_trials_are_results(tiny: dict[str, Any], home: Path) -> None:
    tiny["scientific"] = {"loss": ["mse"], "optimizer": ["sgd"]}
    tiny["nuisance"] = {"lr": [1.0e-2, 1.0e20], "draws": 2}
    table = Sweep.from_space(tiny, home=home).run(RunOptions(local=True, tracking_uri="off")).table
    tune = table[table.stage == "tune"].set_index("lr")
    assert tune.diverged.to_dict() == {1.0e-2: False, 1.0e20: True}
    assert (tune.status == "finished").all()
    assert tune.val_accuracy[1.0e20] == 0.1
    assert (table[table.stage == "confirm"].lr == 1.0e-2).all()
