"""Whole sweeps: this process, real Ray, real MLflow."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from orchestrator import RunOptions, Sweep
from orchestrator.journal import read_journal
from orchestrator.landscape.values import cell_values
from orchestrator.prepare import prepare_data
from orchestrator.report import Findings, write_report
from tests.integration import REAL_PARTS
from trainables.arrays import seal

pytestmark = [*REAL_PARTS, pytest.mark.filterwarnings("ignore::UserWarning:ray")]


def comparable(table: pd.DataFrame) -> pd.DataFrame:
    return table.drop(columns=["run_id", "train_s"])


def trials_started(sweep: Sweep) -> int:
    return sum(record["kind"] == "start" for record in read_journal(sweep.folder.journal))


def mlflow_runs(home: Path, name: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(f"lossatlas/{name}")
    return list(client.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def damage(sweep: Sweep) -> Callable[[], None]:
    """Give the second cell's data labels out of range; a function that mends them."""
    prepare_data(sweep.plan, sweep.home.cache, print)
    damaged = sweep.plan.trial(sweep.plan.cells[1], 0, 1, "confirm").data
    path = sweep.home.cache / f"data-{damaged}" / "distilled_labels.npy"
    good = np.load(path)

    def save(labels: np.ndarray) -> None:
        np.save(path, labels)
        seal(path.parent)

    save(np.full_like(good, 99))
    return lambda: save(good)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, prepared_cache: Path) -> tuple[Path, Sweep]:
    """A home with the tiny space swept twice: `there` on Ray, `here` in this process."""
    import shutil

    from tests.conftest import TINY

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


def test_a_failing_trial_on_ray_fails_alone_too(tiny: dict[str, Any], home: Path) -> None:
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
    assert [process.wait(120) for process in processes] == [0, 0]
    for name in "ab":
        assert Sweep.stored(name, home).landscape().table.run_id.notna().all()


def test_two_processes_cannot_run_one_sweep(tiny: dict[str, Any], home: Path) -> None:
    from search_spaces import ConfigError

    sweep = Sweep.from_space(tiny, home=home)
    with sweep.folder.lock():
        assert sweep.folder.is_running
        with pytest.raises(ConfigError, match=f"sweep 'tiny' is being run by process {os.getpid()}"):
            sweep.run(RunOptions(local=True))
    assert not sweep.folder.is_running


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_on_ray_keeps_what_ended_and_resume_completes_it(
    kind: signal.Signals, tiny: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    tiny["fixed"]["epochs"] = 60
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "orchestrator.cli"]
    environment = {**os.environ, "LOSSATLAS_HOME": str(home)}
    process = subprocess.Popen(
        [*command, "run", str(tmp_path / "space.yaml")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    sweep_folder = home / "sweeps" / "tiny"
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        ended = sum(r["kind"] == "result" for r in read_journal(sweep_folder / "journal.jsonl"))
        if ended >= 3:
            break
        time.sleep(0.05)
    process.send_signal(kind)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "lossatlas resume tiny" in errors
    assert "Traceback" not in errors
    ended = sum(r["kind"] == "result" for r in read_journal(sweep_folder / "journal.jsonl"))
    assert 3 <= ended < 24
    assert not [run for run in mlflow_runs(home, "tiny") if run.info.status == "RUNNING"]
    table = Sweep.stored("tiny", home).run(RunOptions(local=True)).table
    assert (table.status == "finished").all()
    results = [r["trial_id"] for r in read_journal(sweep_folder / "journal.jsonl") if r["kind"] == "result"]
    assert len(results) == len(set(results)) == 24
    assert len(mlflow_runs(home, "tiny")) == 25
    assert {run.info.status for run in mlflow_runs(home, "tiny")} == {"FINISHED"}


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
    subprocess.run([*command, "--home", str(there)], check=True, timeout=120)
    again = Sweep.stored("tiny", there, reading=True).landscape()
    pd.testing.assert_frame_equal(again.table, table)
    assert again.facts["data"], "the caveats need what was known of the data"
    assert (there / "sweeps" / "tiny" / "report" / "index.html").exists()
    here = subprocess.run([*command, "--home", str(home)], capture_output=True, text=True, check=False, timeout=120)
    assert here.returncode == 2
    assert "was run in" in here.stderr
    command[4] = "nothing"
    missing = subprocess.run([*command, "--home", str(there)], capture_output=True, text=True, check=False, timeout=120)
    assert (missing.returncode, "no sweep 'nothing'" in missing.stderr) == (2, True)


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_cache_entry_is_made_again(harm: str, tiny: dict[str, Any], home: Path) -> None:
    """A flipped bit, a file cut short, a file gone: each is found before a trial reads it."""
    del tiny["nuisance"]
    before = Sweep.from_space(tiny, home=home, name="before").run(RunOptions(local=True, tracking_uri="off")).table
    (path,) = home.glob("cache/data-*/bank_logits.npy")
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[-3] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-100])
    else:
        path.unlink()
    sweep = Sweep.from_space(tiny, home=home, name="after")
    told: list[str] = []
    sweep.say = told.append
    after = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert any("is damaged; making it again" in text for text in told)
    assert after.test_accuracy.tolist() == before.test_accuracy.tolist()


def test_a_full_disk_ends_a_sweep_with_one_message_and_resume_completes_it(
    tiny: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    """A limit on the size of files fails a write half-way, as a full disk does; what the journal had is kept."""
    del tiny["nuisance"]
    tiny["replicates"] = 20
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(space), "--local", "--home", str(home)]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    # coverage would write its own file, which is larger
    plain = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    done = subprocess.run(
        [*command, "--tracking-uri=off"], env=plain, capture_output=True, text=True, check=False, preexec_fn=limit
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.splitlines()[-1]
    assert "journal.jsonl cannot be written (File too large)" in last
    assert f"lossatlas resume tiny --home {home}" in last
    assert "Traceback" not in done.stderr
    sweep = Sweep.stored("tiny", home)
    kept = sweep.landscape().table
    assert 1 < (kept.status == "finished").sum() < len(kept)
    again = sweep.run(RunOptions(local=True, tracking_uri="off")).table
    assert (again.status == "finished").all()
    there = kept[kept.status == "finished"].set_index("trial_id").train_s
    assert (again.set_index("trial_id").train_s[there.index] == there).all(), "what was kept is not trained again"
