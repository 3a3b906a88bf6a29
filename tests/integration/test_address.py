"""A sweep on a Ray cluster that somebody else started, mirrored to a tracking server that somebody else started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmarks.surroundings import Server, free_port, own_ray_folder
from orchestrator import Sweep
from tests.integration import REAL_PARTS, wait_for

pytestmark = REAL_PARTS
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """Address of a head node that wants a token, and the environment that has it."""
    token = tmp_path_factory.mktemp("cluster") / "token"
    token.write_text("0123456789abcdef" * 4)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
    environment["RAY_AUTH_TOKEN_PATH"] = str(token)
    ports = {name: free_port() for name in ("port", "ray-client-server-port", "dashboard-agent-listen-port")}
    command = [BIN / "ray", "start", "--head", "--num-cpus=2", "--include-dashboard=false", "--block"]
    with own_ray_folder() as folder:
        head = subprocess.Popen(
            [*command, *(f"--{name}={port}" for name, port in ports.items())],
            env={**environment, "RAY_AUTH_MODE": "token", "RAY_TMPDIR": str(folder), "PYTHONPATH": ""},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for((folder / "ray" / "ray_current_cluster").exists, alive=lambda: head.poll() is None)
        yield f"127.0.0.1:{ports['port']}", environment
        head.terminate()
        head.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a real MLflow server."""
    started = Server(tmp_path)
    started.start()
    yield started.uri
    started.kill()


def test_a_foreign_cluster_with_a_token_and_a_tracking_server(
    tiny: dict[str, Any], home: Path, tmp_path: Path, cluster: tuple[str, dict[str, str]], server: str
) -> None:
    address, environment = cluster
    space = tmp_path / "tiny.yaml"
    space.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(space), "--home", str(home)]
    done = subprocess.run(
        [*command, "--address", address, "--tracking-uri", server],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    table = Sweep.stored("tiny", home).landscape().table
    assert (table.status == "finished").all()
    check_server(server, table)


def test_workers_run_the_drivers_code(cluster: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    """The packages are sent along; what a node has installed does not count."""
    address, environment = cluster
    script = (
        "import sys\n"
        "from orchestrator.cluster import connected, present_token\n"
        "present_token(sys.argv[1])\n"
        "import ray\n"
        "def where():\n"
        "    import trainables\n"
        "    return trainables.__file__\n"
        "with connected(sys.argv[1]):\n"
        "    print(ray.get(ray.remote(where).remote()))\n"
    )
    command = [sys.executable, "-c", script, address]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "py_modules" in done.stdout, done.stdout + done.stderr


def check_server(server: str, table: pd.DataFrame) -> None:
    """One parent with its files, one child per trial."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("lossatlas/tiny")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.info.run_id for run in runs} > set(table.run_id)
    assert len(runs) == len(table) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"plan.json", "journal.jsonl", "space.yaml", "report"}
