"""A sweep that is interrupted, locked, or whose files are damaged: nothing that ended is lost."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import RunOptions, Sweep
from orchestrator.journal import read_journal
from tests.integration import REAL_PARTS, mlflow_runs, wait_for

pytestmark = [*REAL_PARTS, pytest.mark.filterwarnings("ignore::UserWarning:ray")]


def test_two_processes_cannot_run_one_sweep(tiny: dict[str, Any], home: Path) -> None:
    from search_spaces import ConfigError

    sweep = Sweep.from_space(tiny, home=home)
    with sweep.folder.lock():
        assert sweep.folder.is_running
        with pytest.raises(ConfigError, match=f"sweep 'tiny' is being run by process {os.getpid()}"):
            sweep.run(RunOptions(local=True))
    assert not sweep.folder.is_running


def interrupt(command: list[str], kind: signal.Signals, journal: Path) -> str:
    """Run a command until three more trials have ended, then send it a signal; what it says then."""
    before = ended(journal)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: ended(journal) >= before + 3, alive=lambda: process.poll() is None)
    process.send_signal(kind)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    return errors


def ended(journal: Path) -> int:
    return sum(record["kind"] == "result" for record in read_journal(journal))


def test_a_sweep_on_ray_that_is_interrupted_twice_keeps_what_ended_and_resume_completes_it(
    tiny: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    """By Ctrl-C, and by the SIGTERM of a job scheduler; so many trials are left that neither can come after the end."""
    tiny["replicates"] = 10
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(tiny))
    journal = home / "sweeps" / "tiny" / "journal.jsonl"
    command = [sys.executable, "-m", "orchestrator.cli"]
    run, resume = ["run", str(tmp_path / "space.yaml")], ["resume", "tiny"]
    for arguments, kind in ((run, signal.SIGINT), (resume, signal.SIGTERM)):
        errors = interrupt([*command, *arguments, "--home", str(home)], kind, journal)
        assert "lossatlas resume tiny" in errors
        assert "Traceback" not in errors
        assert ended(journal) < 56
        assert not [run for run in mlflow_runs(home, "tiny") if run.info.status == "RUNNING"]
    table = Sweep.stored("tiny", home).run(RunOptions(local=True)).table
    assert (table.status == "finished").all()
    results = [r["trial_id"] for r in read_journal(journal) if r["kind"] == "result"]
    assert len(results) == len(set(results)) == 56
    assert len(mlflow_runs(home, "tiny")) == 57
    assert {run.info.status for run in mlflow_runs(home, "tiny")} == {"FINISHED"}


@pytest.mark.parametrize("harm", ["flip", "cut", "lose"])
def test_a_damaged_cache_entry_is_made_again(harm: str, tiny: dict[str, Any], home: Path) -> None:
    """A flipped bit, a file cut short, a file gone: each is found before a trial reads it."""
    del tiny["nuisance"]
    before = Sweep.from_space(tiny, home=home, name="before").run(RunOptions(local=True, tracking_uri="off")).table
    (key,) = Sweep.from_space(tiny, home=home).plan.recipes
    path = home / "cache" / f"data-{key}" / "bank_logits.npy"
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
    tiny["replicates"] = 10
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
