"""What commands answer to programs (--json, completion) and to a person in a hurry (Ctrl-C, settings that do nothing)."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.orchestrator.conftest import Call

#: Runs the command line and presses Ctrl-C as soon as a module begins to be loaded.
INTERRUPTED_AT = """
import os, signal, sys

class CtrlC:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

wanted = sys.argv.pop(1)
sys.meta_path.insert(0, CtrlC())
from orchestrator.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["typer", "pydantic", "search_spaces.loader", "orchestrator.sweep", "numpy"])
def test_ctrl_c_is_one_line_and_130_whatever_is_being_loaded(module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AT, module, "plan", "digits"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "interrupted\n"
    assert done.stdout == ""


def ends(condition: Any, within_s: float) -> bool:
    """Whether something becomes true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid: int) -> set[int]:
    """Processes that a process has started, and those that they have."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = dict(map(int, line.split()) for line in listed.splitlines())
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in {pid, *found}} - found:
        found |= more
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT])
def test_the_ui_leaves_no_server_behind(kind: signal.Signals, call: Call, home: Path, space: str) -> None:
    assert call("run", space, "--local", "--set", "nuisance=null", "--set", "scientific.loss=[ce]")[0] == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "orchestrator.cli", "ui", "tiny", "--port", str(port), "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert ends(lambda: answers(port), 120)
        servers = descendants(process.pid)
        assert servers
        process.send_signal(kind)
        assert process.wait(30) == 0
        assert ends(lambda: not answers(port), 10)
        assert ends(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers), 10)
    finally:
        process.kill()


@pytest.mark.slow
def test_a_sweep_that_is_ended_leaves_no_process_that_trains_a_teacher(space: str, tmp_path: Path) -> None:
    """SIGTERM, as a scheduler sends it, reaches the sweep's own process alone."""
    command = [sys.executable, "-m", "orchestrator.cli", "run", space, "--local", "--home", str(tmp_path / "new")]
    changes = ["--tracking-uri", "off", "--set", "teacher.train.epochs=100000"]
    process = subprocess.Popen([*command, *changes], stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr
    try:
        said = next(line for line in process.stderr if "teacher" in line)
        preparing = descendants(process.pid)
        assert preparing, said
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        assert "Traceback" not in process.stderr.read()
        assert ends(lambda: not any(Path(f"/proc/{pid}").exists() for pid in preparing), 10)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()


@pytest.mark.slow
def test_json_is_all_that_is_written_and_has_the_documented_keys(call: Call, space: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "json.md").read_text()

    def parsed(*arguments: str) -> Any:
        status, text, errors = call(*arguments, "--json")
        assert status == 0, errors
        return json.loads(text)

    plan = parsed("plan", space)
    assert plan["trials"] == {"tune": 16, "confirm": 8}
    assert len(plan["cells"]) == 4
    for name, changes in (("one", ()), ("two", ("--set", "fixed.batch_size=40", "--set", "replicates=1"))):
        small = ("--set", "nuisance=null", "--set", "scientific.loss=[kl,gift]", "--set", "fixed.epochs=2")
        assert call("run", space, "--local", "--name", name, "--tracking-uri", "off", *small, *changes)[0] == 0
    status = parsed("status", "one")
    assert status["trials"] == {"confirm": {"finished": 6}}
    compared = parsed("compare", "one", "two")
    assert {"key": "fixed.batch_size", "a": 20, "b": 40} in compared["settings"]
    assert {row["n"] for row in compared["cells"]} == {1}
    assert compared["cells"][0]["low"] is None, "NaN is no JSON"
    spaces, losses = parsed("spaces"), parsed("losses")
    assert "digits" in {row["name"] for row in spaces}
    assert "kl" in {row["name"] for row in losses}
    keys = {*plan, *plan["detectable"], *plan["cost"], *status, *compared, *spaces[0], *losses[0]}
    assert not {key for key in keys if f"`{key}`" not in page}, "docs/json.md names every key"


@pytest.mark.slow
def test_compare_lists_the_settings_in_which_two_sweeps_differ(call: Call, space: str) -> None:
    small = ("--local", "--tracking-uri", "off", "--set", "nuisance=null", "--set", "scientific.loss=[ce]")
    for name, changes in (("a", ()), ("b", ("--set", "fixed.batch_size=40")), ("c", ())):
        assert call("run", space, "--name", name, *small, *changes)[0] == 0
    text = call("compare", "a", "b")[1]
    assert "Settings that differ (a | b):\n  fixed.batch_size: 20 | 40\n" in text
    assert "Two seeds are too few" in text
    assert "No setting differs." in call("compare", "a", "c")[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["early_stopping.grace_period_epochs=8"], "grace_period_epochs, 8, is not below epochs, 8"),
        (["early_stopping.grace_period_epochs=2", "nuisance.draws=2"], "a cell has 2 draws, fewer than"),
        (
            ["early_stopping.grace_period_epochs=2", "nuisance=null"],
            "it acts in the tune stage only, and nothing is tuned here",
        ),
    ],
)
def test_early_stopping_that_can_stop_nothing_is_said_by_plan_and_by_run(
    changes: list[str], reason: str, call: Call, space: str
) -> None:
    settings = [f"--set={change}" for change in ["scientific.loss=[ce]", *changes]]
    assert f"Early stopping is asked for, but stops nothing: {reason}" in call("plan", space, *settings)[1]
    status, text, errors = call("run", space, "--local", "--tracking-uri", "off", *settings)
    assert status == 0
    assert reason in errors
    assert f"was asked for, but could stop nothing: {reason}" in text


@pytest.mark.slow
def test_the_shell_completes_names_of_spaces_and_sweeps_without_loading_pandas(home: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (home / "sweeps" / name).mkdir(parents=True)
        (home / "sweeps" / name / "plan.json").write_text("{}")
    (tmp_path / "mine.yaml").write_text("")
    program = (
        "import sys; from orchestrator.cli import main\n"
        "try: main()\n"
        "finally: assert not {'pandas', 'torch', 'ray', 'mlflow'} & set(sys.modules)"
    )

    def completed(line: str) -> list[str]:
        words = {
            "_LOSSATLAS_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        }
        path = {"PYTHONPATH": str(Path(__file__).parents[2]), "LOSSATLAS_HOME": str(home)}
        command = [sys.executable, "-c", f"import sys; sys.argv = ['lossatlas']\n{program}"]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **path, **words}, check=False, cwd=tmp_path
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert completed("lossatlas report ") == ["first", "second"]
    assert completed("lossatlas status s") == ["second"]
    assert completed("lossatlas run digits") == ["digits", "digits-rded"]
    assert completed("lossatlas run mi") == ["mine.yaml"]


def test_more_images_per_class_than_there_are_is_said_before_anything_is_made(
    call: Call, home: Path, space: str
) -> None:
    before = sorted(home.rglob("*"))
    for command in ("plan", "run"):
        status, _, errors = call(command, space, "--set", "data.distilled.ipc=88")
        assert status == 2
        assert "`ipc` must be at most 87 (training images of the smallest class), got 88" in errors
    assert sorted(home.rglob("*")) == before
