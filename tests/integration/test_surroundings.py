"""Current folder, environment and machine are not trusted: nothing in them is run, heard or waited for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.surroundings import free_port
from tests.integration import REAL_PARTS

pytestmark = REAL_PARTS
ROOT = Path(__file__).parents[2]
#: Names of modules that are imported somewhere, late or early.
SHADOWED = ("copy", "random", "torch", "numpy", "secrets", "trainables", "psutil", "html", "sitecustomize")
#: As the installed command begins, which has no current folder on its path.
COMMAND = [sys.executable, "-P", "-c", "from orchestrator.cli import main; main()"]
LISTENING = """
import json, sys
import psutil, ray
from ray.util.state import list_jobs
from orchestrator.cluster import connected
with connected(None) as dashboard:
    ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())
    us = [psutil.Process(), *psutil.Process().children(recursive=True)]
    heard = {c.laddr.ip for process in us for c in process.net_connections("inet") if c.status == "LISTEN"}
    jobs = [job.entrypoint for job in list_jobs(address=f"http://{dashboard}")]
print(json.dumps([sorted(heard), jobs]))
"""


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a folder, with this checkout on the path."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONSAFEPATH")}
    env = {**inherited, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=250)


@pytest.fixture
def space(tiny: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**tiny, "scientific": {"loss": ["ce"]}, "replicates": 1}))
    return path


def test_modules_in_the_current_folder_are_not_run(space: Path, tmp_path: Path) -> None:
    """In no process: driver, preparation, probe, Ray's workers. The home is fresh, so that all of them start."""
    here = tmp_path / "here"
    here.mkdir()
    for name in SHADOWED:
        (here / f"{name}.py").write_text(f"open({str(tmp_path)!r} + '/executed', 'a').write('{name} ')\n")
    home = str(tmp_path / "home")
    done = run([*COMMAND, "run", str(space), "--home", home, "--tracking-uri", "off"], here)
    executed = tmp_path / "executed"
    assert not executed.exists(), executed.read_text()
    assert done.returncode == 0, done.stderr


def test_a_local_ray_is_for_this_machine_alone_and_tells_no_password(tmp_path: Path) -> None:
    """Of every process that it starts; and the command line in its table of jobs has a password."""
    import json

    done = run([sys.executable, "-c", LISTENING, "--tracking-uri", "http://ann:s3cr3t@host"], tmp_path)
    assert done.returncode == 0, done.stderr
    heard, jobs = json.loads(done.stdout.splitlines()[-1])
    assert heard
    assert set(heard) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert jobs
    assert not [job for job in jobs if "s3cr3t" in job]
    assert "http://host" in jobs[0]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "http://127.0.0.1:{port}"])
def test_an_address_in_the_environment_that_nothing_answers_at_is_refused_at_once(
    address: str, space: Path, home: Path, tmp_path: Path
) -> None:
    command = [*COMMAND, "run", str(space), "--home", str(home), "--tracking-uri", "off"]
    started = time.monotonic()
    done = run(command, tmp_path, RAY_ADDRESS=address.format(port=free_port()))
    print(f"{time.monotonic() - started:.1f} s")
    assert done.returncode == 2
    assert done.stderr.startswith("RAY_ADDRESS: ")
    assert "Unset RAY_ADDRESS to start a cluster here" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_long_tmpdir_and_a_home_with_signs_in_its_name_do_not_matter(space: Path, home: Path, tmp_path: Path) -> None:
    """Sockets have short paths; `?`, `#` and `%` mean something in addresses."""
    long = Path(tempfile.mkdtemp()) / ("x" * 150)
    long.mkdir()
    odd = tmp_path / "a?b#c%20d"
    shutil.move(home, odd)
    done = run([*COMMAND, "run", str(space), "--home", str(odd)], tmp_path, TMPDIR=str(long))
    shutil.rmtree(long.parent)
    assert done.returncode == 0, done.stderr
    assert "MLflow" not in done.stderr, done.stderr
    assert (odd / "mlflow.db").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a?b#c%20d", "tiny.yaml"]
    assert list(odd.glob("artifacts/**/journal.jsonl"))
