"""A real MLflow server on a real PostgreSQL that goes away, answers errors, or never comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from benchmarks.chaos import BAD, check_tracker
from benchmarks.surroundings import Server, free_port
from orchestrator import RunOptions, Sweep
from tests.integration import REAL_PARTS, wait_for

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
pytestmark = [
    *REAL_PARTS,
    pytest.mark.skipif(not BINARIES, reason="no PostgreSQL is installed (Debian: apt-get install postgresql)"),
    pytest.mark.skipif(os.getuid() != 0 and not shutil.which("runuser"), reason="cannot become the user postgres"),
]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """URL of an empty database of a PostgreSQL with a data directory of its own.

    It is not below pytest's folder: every other pytest of this user closes that to other users, and the server would end.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shutil.chown(folder, "postgres")
        yield from _postgres(Path(folder))


def _postgres(folder: Path) -> Iterator[str]:
    port = free_port()
    binaries = BINARIES[-1]

    def as_postgres(*command: str | Path) -> list[str]:
        return ["runuser", "-u", "postgres", "--", *map(str, command)]

    data = folder / "data"
    subprocess.run(as_postgres(binaries / "initdb", "-D", data, "-A", "trust"), check=True, capture_output=True)
    server = subprocess.Popen(
        as_postgres(binaries / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ready = as_postgres(binaries / "pg_isready", "-h", "127.0.0.1", "-p", str(port))
    wait_for(
        lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0,
        alive=lambda: server.poll() is None,
    )
    yield f"postgresql://postgres:secret@127.0.0.1:{port}/postgres"
    subprocess.run(as_postgres(binaries / "pg_ctl", "-D", data, "stop", "-m", "fast"), check=True, capture_output=True)
    server.wait()


@dataclass
class PostgresServer(Server):
    """The chaos benchmark's server, on PostgreSQL."""

    store: str = ""

    def command(self) -> list[str]:
        """How it is started."""
        plain = super().command()
        return [self.store if part.startswith("sqlite:") else part for part in plain]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is gone is not waited for as long as people would want."""
    monkeypatch.setattr("orchestrator.mirror.LAST_WAIT_S", 1.0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database: str) -> Iterator[PostgresServer]:
    started = PostgresServer(tmp_path_factory.mktemp("server"), store=database)
    started.start()
    yield started
    started.kill()


def sent(uri: str, name: str) -> bool:
    """Some trial of a sweep is complete there."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"lossatlas/{name}")
    runs = client.search_runs([experiment.experiment_id]) if experiment else []
    return any(run.info.status == "FINISHED" for run in runs)


def test_a_server_that_is_killed_and_comes_back_misses_nothing(
    tiny: dict[str, Any], home: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies when it has some trials, and is back when that was noticed, while the sweep goes on."""
    monkeypatch.setattr("orchestrator.mirror.BATCH_S", 0.5)
    sweep = Sweep.from_space(tiny, home=home)
    told: list[str] = []
    sweep.say = told.append
    ended: list[str] = []

    def hear(event: str, assignment: Any, detail: Any) -> None:
        if event == "end":
            ended.append(assignment.trial_id)
            if len(ended) == 5:
                wait_for(lambda: sent(server.uri, "tiny"))
                server.kill()
            elif len(ended) == 12:
                wait_for(lambda: any("does not take what it is sent" in text for text in told))
                server.start()

    sweep.listeners.append(hear)
    table = sweep.run(RunOptions(local=True, tracking_uri=server.uri)).table
    assert (table.status == "finished").all()
    found = check_tracker(server.uri, sweep)
    assert {name: found[name] for name in BAD if name in found} == dict.fromkeys(BAD[1:], 0)
    assert found["parents"] == 1
    assert sweep.facts["tracked"]


def test_a_server_that_never_comes_back_gets_everything_from_sync(
    tiny: dict[str, Any], home: Path, server: PostgresServer
) -> None:
    sweep = Sweep.from_space(tiny, home=home, name="later")
    server.kill()
    told: list[str] = []
    sweep.say = told.append
    table = sweep.run(RunOptions(local=True, tracking_uri=server.uri)).table
    assert (table.status == "finished").all()
    assert any(f"`lossatlas sync later --home {home}` sends the rest" in text for text in told)
    server.start()
    again = Sweep.stored("later", home)
    assert again.tracking_uri == server.uri, "sync and resume go on with the server"
    assert again.sync(RunOptions())
    found = check_tracker(server.uri, again)
    assert {name: found[name] for name in BAD if name in found} == dict.fromkeys(BAD[1:], 0)


def test_a_server_that_answers_errors_does_not_stop_a_sweep(tiny: dict[str, Any], home: Path) -> None:
    class Broken(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(500)
            self.end_headers()

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    del tiny["nuisance"]
    with ThreadingHTTPServer(("127.0.0.1", 0), Broken) as broken:
        Thread(target=broken.serve_forever, daemon=True).start()
        sweep = Sweep.from_space(tiny, home=home)
        told: list[str] = []
        sweep.say = told.append
        uri = f"http://someone:secret@127.0.0.1:{broken.server_port}"
        table = sweep.run(RunOptions(local=True, tracking_uri=uri)).table
        broken.shutdown()
    assert (table.status == "finished").all()
    assert any("sends the rest" in text for text in told)
    assert not any("secret" in text for text in told)
    written = [path for path in sweep.folder.path.rglob("*") if path.is_file()]
    assert not [path for path in written if b"secret" in path.read_bytes()], "passwords are not stored"


def test_the_database_itself_can_be_the_tracker(tiny: dict[str, Any], home: Path, database: str) -> None:
    del tiny["nuisance"]
    sweep = Sweep.from_space(tiny, home=home, name="direct")
    table = sweep.run(RunOptions(local=True, tracking_uri=database)).table
    assert table.run_id.notna().all()
    assert "secret" not in sweep.folder.plan.read_text() + sweep.folder.tracked.read_text()
