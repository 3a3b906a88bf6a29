"""The command line as a user meets it, in this process where no process of its own is needed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.orchestrator.conftest import Call
from trainables.arrays import seal


@pytest.mark.slow
def test_bad_input_is_status_2_with_every_problem_and_starts_nothing_in_two_seconds(tmp_path: Path) -> None:
    """From a cold start, in a process of its own."""
    home = tmp_path / "home"
    settings = ["fixed.widht=3", "scientific.loss=[k1]", "scientific.temperature=[0]", "scientific.refinement=[1.2]"]
    settings += ["nuisance.lr.adamw.loguniform=[1, 0.1]", "scientific.width=[8]"]
    command = [sys.executable, "-m", "orchestrator.cli", "run", "digits", "--home", str(home)]
    started = time.monotonic()
    done = subprocess.run(
        [*command, *(f"--set={setting}" for setting in settings)], capture_output=True, text=True, check=False
    )
    print(f"{time.monotonic() - started:.2f} s from a cold start")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == len(settings)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "nowhere"), "no space 'nowhere'"),
        (("run", "digits", "--set", "x"), "--set x: give KEY=VALUE"),
        (("resume", "nothing"), "no sweep 'nothing' in"),
        (("table", "nothing"), "no sweep 'nothing' in"),
        (("report", "nothing"), "no sweep 'nothing' in"),
        (("status", "nothing"), "no sweep 'nothing' in"),
        (("ui", "nothing"), "no sweep 'nothing' in"),
        (("sync", "nothing"), "no sweep 'nothing' in"),
        (("replay", "nothing"), "no sweep 'nothing' in"),
        (
            ("run", "digits", "--name", "a/b"),
            "name must be at most 64 letters, digits, - and _, not beginning with -, got 'a/b'",
        ),
        (("rerun", "0123"), "no MLflow store at"),
        (("rerun", "0123", "--tracking-uri", "off"), "no MLflow store at off"),
        (("rerun", "0123", "--tracking-uri", "foo://bar"), "no run '0123' at foo://bar"),
        (("status", "../sweeps/x"), "no sweep '../sweeps/x'"),
        (("plan", "x" * 5000), "no space 'xxx"),
        (("run", "digits", "--max-concurrent", "0"), "--max-concurrent"),
        (("run", "digits", "--home", "/proc/nowhere"), "home directory /proc/nowhere is not writable"),
        (("run", "digits", "--max-conc", "1"), "No such option"),
    ],
)
def test_wrong_input_is_status_2_and_one_message(arguments: tuple[str, ...], message: str, call: Call) -> None:
    status, _, errors = call(*arguments)
    assert status == 2
    assert message in errors
    assert "Traceback" not in errors


def test_plan_describes_and_trains_nothing(call: Call, home: Path, space: str) -> None:
    status, text, _ = call("plan", space)
    assert status == 0
    assert "4 cells, 24 trials" in text
    assert "per trial (probed)" in text, "the cache of this home knows the cost"
    assert not (home / "sweeps").exists()


def test_losses_and_spaces_are_listed(call: Call) -> None:
    status, text, _ = call("losses")
    assert status == 0
    assert "arXiv:2405.14736" in text
    status, text, _ = call("spaces")
    assert status == 0
    assert "digits: The digits landscape" in text
    assert "(38 cells)" in text


def test_help_teaches(call: Call) -> None:
    status, text, _ = call("run", "--help")
    assert status == 0
    assert "trains nothing that is already done" in " ".join(text.split())


def registered_accuracy(home: Path, name: str, tiny: dict[str, Any]) -> float:
    """Test accuracy of version 1 of a registered model, which is handed pixels in [0, 1]."""
    import mlflow
    import torch

    from trainables.data.real import load_digits

    mlflow.set_tracking_uri(f"sqlite:///{home / 'mlflow.db'}")
    test = load_digits(tiny.get("validation", {}).get("frac", 0.2)).test
    assert mlflow.models.get_model_info(f"models:/{name}/1").signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    model = mlflow.pytorch.load_model(f"models:/{name}/1")
    with torch.no_grad():
        return float((model(test.images).argmax(dim=1) == test.labels).float().mean())


@pytest.mark.slow
def test_a_sweep_from_run_to_rerun(call: Call, home: Path, space: str, tmp_path: Path, tiny: dict[str, Any]) -> None:
    import json

    import pandas as pd
    import torch

    status, text, errors = call("run", space, "--local")
    assert status == 0, errors
    assert "MLflow" not in errors, errors
    assert "24 finished" in text
    page = home / "sweeps" / "tiny" / "report" / "index.html"
    assert f"Report        {page}" in text
    assert "Loss landscape: tiny" in page.read_text()

    assert "tune     16 finished" in call("status", "tiny")[1]
    records = json.loads(call("table", "tiny", "--format", "json")[1])
    assert len(records) == 24
    assert call("table", "tiny")[1].startswith("trial_id,cell,arms,stage,replicate,draw,loss,")
    assert call("table", "tiny", "--format", "parquet")[0] == 2
    assert call("table", "tiny", "--out", "/proc/nope/x.csv")[0] == 2
    assert call("report", "tiny", "--out", "/proc/nope")[0] == 2
    assert call("rerun", records[0]["run_id"], "--save", "/proc/nope/x")[0] == 2
    assert call("table", "tiny", "--format", "parquet", "--out", str(tmp_path / "t.parquet"))[0] == 0
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 24
    assert call("table", "tiny", "--out", str(tmp_path / "t.csv"))[0] == 0
    assert call("report", "tiny", "--out", str(tmp_path / "report"))[1].strip() == str(tmp_path / "report/index.html")

    student = tmp_path / "student.pt"
    status, text, _ = call("rerun", records[-1]["run_id"], "--save", str(student))
    assert status == 0
    assert text.count("equal") == 3
    saved = torch.load(student, weights_only=True)
    assert saved["config"]["replicate"] == 2
    assert call("rerun", records[-1]["run_id"], "--register", "a/b")[0] == 2

    status, text, _ = call("rerun", records[-1]["run_id"], "--register", "tiny-student")
    assert "student registered as tiny-student, version 1" in text
    assert registered_accuracy(home, "tiny-student", tiny) == pytest.approx(records[-1]["test_accuracy"], abs=1e-6)

    status, _, errors = call("run", space, "--local", "--set", "fixed.width=5")
    assert status == 2
    assert "exists with another plan" in errors
    assert "4 cells of the sweep are missing or have other fixed settings" in errors
    assert call("resume", "tiny", "--local")[0] == 0

    status, text, _ = call("replay", "tiny", "--set", "early_stopping.grace_period_epochs=2")
    assert status == 0
    assert "tiny: 16 tune trials, 2 at once" in text
    assert "rung 2: 16 arrived" in text
    assert call("replay", "tiny", "--set", "replicates=3")[0] == 2


@pytest.mark.slow
def test_failed_trials_make_status_1(call: Call, home: Path, space: str) -> None:
    for labels in home.glob("cache/data-*/distilled_labels.npy"):
        np.save(labels, np.full_like(np.load(labels), 99))
        seal(labels.parent)
    status, text, _ = call("run", space, "--local", "--set", "scientific.loss=[ce]")
    assert status == 1
    assert "FAILED" in text


@pytest.mark.slow
def test_a_run_that_never_trained_does_not_hold_its_name(call: Call, space: str) -> None:
    status, _, errors = call("run", space, "--local", "--set", "data.distilled.ipc=500")
    assert status == 2
    assert "`ipc` must be at most" in errors
    assert call("run", space, "--local", "--set", "scientific.loss=[ce]", "--tracking-uri", "off")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "127.0.0.1:1"], "--address: nothing answers at 127.0.0.1:1"),
        (["--tracking-uri", "foo://bar"], "--tracking-uri: must be off or begin with one of http://"),
        (["--set", "fixed.device=cuda"], "fixed.device: cuda, but this machine has no GPU"),
        (["--set", "replicates=100000000"], "replicates: must be less than or equal to 10000"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(
    arguments: list[str], message: str, call: Call, home: Path, space: str
) -> None:
    if "fixed.device=cuda" in arguments and shutil.which("nvidia-smi"):
        pytest.skip("there is a GPU")
    status, _, errors = call("run", space, *arguments)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1, "one message, once"
    assert not (home / "sweeps").exists()


@pytest.mark.slow
def test_a_split_without_a_class_is_refused_by_name_and_said_once(call: Call, space: str) -> None:
    status, _, errors = call("run", space, "--local", "--set", "validation.frac=0.001")
    assert status == 2
    assert errors.count("validation.frac: 0.001 of 1198 images leaves a class without any") == 1


@pytest.mark.slow
def test_a_damaged_plan_is_named(call: Call, home: Path, space: str) -> None:
    assert call("run", space, "--local", "--set", "scientific.loss=[ce]", "--tracking-uri", "off")[0] == 0
    (home / "sweeps" / "tiny" / "plan.json").write_text("{")
    status, _, errors = call("status", "tiny")
    assert status == 2
    assert "plan.json is damaged" in errors


@pytest.mark.slow
def test_a_sweep_whose_draws_all_diverged_says_so(call: Call, space: str) -> None:
    changes = ["scientific.loss=[mse]", "fixed.optimizer=sgd", "nuisance.lr.loguniform=[1.0e+20,1.0e+22]"]
    status, text, _ = call("run", space, "--local", "--tracking-uri", "off", *(f"--set={c}" for c in changes))
    assert status == 0
    assert "none: no cell has a confirmed trial, for all of its draws diverged." in text


@pytest.mark.slow
def test_draws_of_equal_values_are_one_trial_and_one_row(call: Call, space: str) -> None:
    changes = ["scientific.loss=[ce]", "nuisance.lr=[0.01,0.02]"]
    assert call("run", space, "--local", "--tracking-uri", "off", *(f"--set={c}" for c in changes))[0] == 0
    rows = json.loads(call("table", "tiny", "--format", "json")[1])
    assert len(rows) == len({row["trial_id"] for row in rows}) == 4
    assert {row["selected"] for row in rows if row["stage"] == "confirm"} == {"best"}


@pytest.mark.slow
def test_two_sweeps_are_compared_and_a_paper_gets_its_table_and_figures(
    call: Call, home: Path, space: str, tmp_path: Path
) -> None:
    """Another batch size is another sweep of the same cells."""
    for name, changes in (("one", ()), ("two", ("--set", "fixed.batch_size=40"))):
        small = ("--set", "nuisance=null", "--set", "scientific.loss=[kl,gift]", "--set", "fixed.epochs=2")
        assert call("run", space, "--local", "--name", name, "--tracking-uri", "off", *small, *changes)[0] == 0
    status, text, _ = call("compare", "one", "two", "--out", str(tmp_path / "c.csv"))
    assert status == 0
    assert "one minus two, points of test accuracy" in text
    assert "all shared cells" in text
    assert (tmp_path / "c.csv").read_text().startswith("cell,n,mean_difference")
    status, text, _ = call("report", "one", "--latex", "--figures", "png", "--out", str(tmp_path / "r"))
    assert status == 0
    assert {"index.html", "ranking.tex", "ranking.png"} <= {path.name for path in (tmp_path / "r").iterdir()}
    assert call("compare", "one", "three")[0] == 2


def test_doctor_says_what_to_do_and_its_status_says_whether(call: Call, space: str, tmp_path: Path) -> None:
    import json

    status, text, _ = call("doctor", space)
    assert status == 0
    assert "ok    versions: python" in text
    assert "valid, and its files are there" in text
    status, text, _ = call(
        "doctor", "--json", "--tracking-uri", "http://someone:secret@127.0.0.1:9", "--address", "127.0.0.1:1"
    )
    assert status == 1
    failed = [finding for finding in json.loads(text) if finding["level"] == "FAIL"]
    assert len(failed) == 2
    assert all(finding["advice"] for finding in failed)
    assert "secret" not in text


@pytest.mark.slow
def test_a_home_with_two_hundred_sweeps_is_read_as_fast_and_names_the_closest(
    call: Call, home: Path, space: str
) -> None:
    import shutil

    assert call("run", space, "--local", "--tracking-uri=off", "--set", "nuisance=null")[0] == 0
    for number in range(200):
        shutil.copytree(home / "sweeps" / "tiny", home / "sweeps" / f"tiny-{number}")
    assert "confirm  8 finished" in call("status", "tiny-123")[1]
    status, _, errors = call("status", "tiny-1234")
    assert status == 2
    assert "there are 201, among them: ['tiny-1" in errors


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"space": {"na', '{"space": 7, "device": 7, "signature": null, "facts": 1}']
)
def test_a_damaged_plan_is_one_message_that_says_how_to_go_on(content: str, call: Call, home: Path) -> None:
    folder = home / "sweeps" / "broken"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(content)
    for command in (("status", "broken"), ("resume", "broken", "--local"), ("table", "broken"), ("sync", "broken")):
        status, _, errors = call(*command)
        assert status == 2
        assert len(errors.splitlines()) == 1
        assert "what the journal has is not trained again" in errors


@pytest.mark.slow
def test_lost_notes_lost_plans_and_lost_results_are_made_good(call: Call, home: Path, space: str) -> None:
    """Without its notes a sweep finds its runs by its id; without its plan it is run again; a lost journal is said."""
    from tests.integration.test_sweep import mlflow_runs

    small = ("--local", "--set", "nuisance=null", "--set", "scientific.loss=[ce]")
    assert call("run", space, *small)[0] == 0
    folder = home / "sweeps" / "tiny"
    runs = {run.info.run_id for run in mlflow_runs(home, "tiny")}
    assert len(runs) == 3
    (folder / "tracked.jsonl").unlink()
    assert call("resume", "tiny", "--local")[0] == 0
    assert {run.info.run_id for run in mlflow_runs(home, "tiny")} == runs, "no run is doubled"
    (folder / "plan.json").unlink()
    before = (folder / "journal.jsonl").read_bytes()
    assert call("run", space, *small)[0] == 0
    assert (folder / "journal.jsonl").read_bytes() == before, "nothing is trained again"
    (folder / "journal.jsonl").unlink()
    status, _, errors = call("resume", "tiny", "--local")
    assert status == 0
    assert "lacks 2 results that MLflow was sent" in errors


@pytest.mark.slow
def test_status_says_that_the_tracker_is_behind(call: Call, space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.mirror.LAST_WAIT_S", 1.0)
    away = ("--tracking-uri", "http://127.0.0.1:9", "--set", "nuisance=null", "--set", "scientific.loss=[ce]")
    status, _, errors = call("run", space, "--local", *away)
    assert status == 0, "the sweep itself is complete"
    assert "sends the rest" in errors
    assert "MLflow lacks some of it: lossatlas sync tiny" in call("status", "tiny")[1]
