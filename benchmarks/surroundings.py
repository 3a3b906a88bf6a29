"""What a sweep runs in: a real MLflow server and a Ray cluster of several nodes on this machine, both mortal."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

#: Ray names a worker by its actor, or by the method that it runs: StudentTrainable, ResourceTrainable.train.
WORKER = re.compile(rb"ray::\w*Trainable")

#: Longest time for a server to start, on however busy a machine; seconds.
START_S = 280.0
T = TypeVar("T")
#: How often a Ray node is started before it is an error.
STARTS = 5


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Server:
    """A real MLflow server that can be killed and started again on the same port and store."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """How it is started."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        return [*command, "--artifacts-destination", str(self.folder / "artifacts")]

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it; on a busy machine it answers a minute later."""
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)

    def wait(self) -> None:
        """Wait until it answers."""
        assert self.process
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health")
                return
            except OSError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.2)
        raise RuntimeError(f"the server did not start; see {self.folder / 'server.log'}")

    def kill(self) -> None:
        """As a crash would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def own_ray_folder() -> Iterator[Path]:
    """A folder of our own for Ray's files, removed in the end; what is started meanwhile uses it too.

    Ray notes the address of the cluster last started in the folder that all of a machine share by default: other people's
    programs would then join ours, and wait for it once it is gone.
    """
    before = os.environ.get("RAY_TMPDIR")
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.environ["RAY_TMPDIR"] = folder  # a short path: it holds sockets
        try:
            yield Path(folder)
        finally:
            os.environ.pop("RAY_TMPDIR")
            os.environ.update({"RAY_TMPDIR": before} if before else {})


def patiently(start: Callable[[], T]) -> T:
    """What a function starts; again if Ray gave up, which it does after 30 seconds, however busy the machine is."""
    for _ in range(STARTS - 1):
        with suppress(Exception):  # Ray raises nothing more special; the last try says what it is
            return start()
    return start()


class Cluster:
    """Three Ray nodes on this machine: a head without CPUs and two workers with one each."""

    def __init__(self) -> None:
        """Start them; the head's dashboard would insist on port 8265 if it were not told that any will do."""
        from ray.cluster_utils import Cluster as RayCluster

        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": None}
        self._cluster = patiently(lambda: RayCluster(initialize_head=True, head_node_args=head))
        self._workers = [patiently(lambda: self._cluster.add_node(num_cpus=1)) for _ in range(2)]

    @property
    def address(self) -> str:
        """For --address."""
        return str(self._cluster.address)

    def replace_node(self, which: random.Random) -> None:
        """A worker node vanishes with all its processes, and another one joins."""
        lost = self._workers.pop(which.randrange(len(self._workers)))
        self._cluster.remove_node(lost, allow_graceful=False)
        self._workers.append(patiently(lambda: self._cluster.add_node(num_cpus=1)))

    def worker_pids(self) -> list[int]:
        """Processes of these nodes, and of no other cluster on the machine, in which trials run."""
        raylets = {info.process.pid for node in self._workers for info in node.all_processes["raylet"]}
        pids = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
                if WORKER.match(path.read_bytes()) and parent in raylets:
                    pids.append(int(path.parent.name))
            except OSError:  # it has ended meanwhile
                continue
        return pids

    def stop(self) -> None:
        """Stop all nodes."""
        self._cluster.shutdown()


@contextmanager
def surroundings(folder: Path) -> Iterator[tuple[Server, Cluster]]:
    """A server and a cluster, stopped in the end."""
    server = Server(folder)
    server.start()
    try:
        with own_ray_folder():
            cluster = Cluster()
            try:
                yield server, cluster
            finally:
                cluster.stop()
    finally:
        server.kill()
