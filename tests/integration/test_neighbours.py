"""What other people run on the same machine, or ran: a Ray head on the default ports, and the address that Ray notes for all."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.surroundings import Cluster, own_ray_folder
from orchestrator.plan import Plan
from search_spaces import load_space
from tests.crowded import somebodys_ray
from tests.integration import REAL_PARTS

pytestmark = [*REAL_PARTS, pytest.mark.filterwarnings("ignore::UserWarning:ray")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """Address of somebody's head."""
    with somebodys_ray() as address:
        yield address


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """What listens at the noted address and never answers, like a cluster that is gone; nobody may have tried it."""
    with own_ray_folder() as folder, socket.create_server(("127.0.0.1", 0)) as listening:
        (folder / "ray").mkdir()
        (folder / "ray" / "ray_current_cluster").write_text(f"127.0.0.1:{listening.getsockname()[1]}")
        yield listening
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def output_of(*lines: str) -> str:
    """The last line that a program prints, in a process that has no cluster yet."""
    command = [sys.executable, "-W", "ignore", "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_clusters_of_our_own_start_beside_somebodys_and_its_note_stays(head: str) -> None:
    """Of several nodes, for the chaos; and of one, for a sweep without an address."""
    note = Path(os.environ["RAY_TMPDIR"]) / "ray" / "ray_current_cluster"
    with own_ray_folder():
        cluster = Cluster()
        several = cluster.address
        cluster.stop()
    one = output_of(
        "import ray",
        "from orchestrator.cluster import connected",
        "with connected(None): print(ray.get_runtime_context().gcs_address)",
    )
    assert len({head, several, one}) == 3
    assert not head or note.read_text() == head


def test_a_sweep_does_not_wait_for_a_cluster_that_is_gone(
    silent: socket.socket, tiny: dict[str, Any], home: Path, tmp_path: Path
) -> None:
    del tiny["nuisance"]
    space = tmp_path / "tiny.yaml"
    space.write_text(yaml.safe_dump(tiny))
    command = [sys.executable, "-m", "orchestrator.cli", "run", str(space), "--home", str(home), "--tracking-uri=off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_baseline_does_not_wait_for_a_cluster_that_is_gone(
    silent: socket.socket, tiny: dict[str, Any], home: Path
) -> None:
    plan = Plan("tiny", load_space(tiny), "cpu")
    trial = plan.trial(plan.cells[0], 0, 1, "confirm").as_dict()
    seconds = output_of(
        "from pathlib import Path",
        "from benchmarks.orchestration import run_default",
        "from trainables.config import TrialConfig",
        f"print(run_default([TrialConfig(**{trial!r})], Path({str(home / 'cache')!r})))",
    )
    assert float(seconds) > 0


def test_nothing_leaves_it_to_ray_which_cluster_it_joins() -> None:
    """An argument of every call says it, called here or handed on with its arguments."""
    files = [path for part in ("orchestrator", "trainables", "benchmarks") for path in (ROOT / part).rglob("*.py")]
    calls = [call for path in files for call in re.findall(r"ray\.init[(,](.*)", path.read_text().replace("\n", " "))]
    assert len(calls) >= 4
    assert all(call.strip().startswith("address=") for call in calls)
