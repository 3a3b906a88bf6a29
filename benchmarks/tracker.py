"""What a bad tracker costs a sweep: one that is slow (half a second per request), answers errors, or is gone, against none.

    python -m benchmarks.tracker [--json] [--rounds 4]

Two processes run the same small sweep (`--local`) at the same time, one with such a tracker and one without any, each on a core of
its own, which they swap from round to round: a shared machine's speed drifts by more than what is measured, and both see the
same drift. Seconds are from the first trial's start to the last one's end: what is sent after that delays nobody. The
ratios are medians over rounds of seconds with over seconds without.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ProcessPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from threading import Thread
from typing import Any

from benchmarks.environment import environment, options, show
from benchmarks.surroundings import Server, free_port
from orchestrator.journal import read_journal
from orchestrator.sweep import RunOptions, Sweep

SPACE: dict[str, Any] = {
    "name": "tracked",
    "data": {"real": "digits", "distilled": {"method": "random", "ipc": 10}},
    "teacher": {"model": "convnet2", "width": 16, "train": {"epochs": 3}},
    "scientific": {"loss": ["kl"], "temperature": [1, 4, 20]},
    "fixed": {"student": "convnet2", "width": 16, "epochs": 500, "batch_size": 50, "views": 10, "lr": 0.01},
    "replicates": 10,
}
SLOW_S = 0.5


class _Failing(BaseHTTPRequestHandler):
    """Answers every request with an error."""

    def answer(self) -> None:
        """500."""
        self.send_response(500)
        self.end_headers()

    do_GET = do_POST = answer  # noqa: N815 (the server calls them by these names)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


class _Slow(BaseHTTPRequestHandler):
    """Hands every request to a real MLflow server, late."""

    upstream = ""

    def answer(self) -> None:
        """What the real server says."""
        time.sleep(SLOW_S)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kept = {name: self.headers[name] for name in ("Content-Type", "Accept") if name in self.headers}
        request = urllib.request.Request(self.upstream + self.path, body or None, kept, method=self.command)
        try:
            with urllib.request.urlopen(request) as said:
                status, content = said.status, said.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 (the server calls them by these names)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def seconds(home: Path, uri: str, core: int) -> float:
    """Of the trials of one sweep on one core, from the first start to the last end."""
    os.sched_setaffinity(0, {core})
    sweep = Sweep.from_space(SPACE, home=home)
    sweep.run(RunOptions(local=True, tracking_uri=uri))
    records = list(read_journal(sweep.folder.journal))
    first = min(r["started_at"] for r in records if r["kind"] == "start")
    return float(max(r["ended_at"] for r in records if r["kind"] == "result") - first)


def side_by_side(uri: str, number: int, prepared: Path, folder: Path) -> float:
    """Seconds with a tracker over seconds without, at the same time."""
    cores = (number % 2, 1 - number % 2)
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        running = []
        for core, address in zip(cores, (uri, "off"), strict=True):
            home = Path(tempfile.mkdtemp(dir=folder))
            shutil.copytree(prepared / "cache", home / "cache")
            running.append(pool.submit(seconds, home, address, core))
        with_it, without = (sweep.result() for sweep in running)
    return with_it / without


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Median ratios of each kind."""
    real = Server(folder)
    real.start()
    _Slow.upstream = real.uri
    servers = {kind: ThreadingHTTPServer(("127.0.0.1", 0), handler) for kind, handler in _HANDLERS.items()}
    for server in servers.values():
        Thread(target=server.serve_forever, daemon=True).start()
    uris = {kind: f"http://127.0.0.1:{server.server_port}" for kind, server in servers.items()}
    uris["gone"] = f"http://127.0.0.1:{free_port()}"
    prepared = folder / "prepared"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        alone_s = pool.submit(seconds, prepared, "off", 0).result()
    ratios: dict[str, list[float]] = {kind: [] for kind in uris}
    for number in range(rounds):
        for kind, uri in uris.items():
            ratios[kind].append(side_by_side(uri, number, prepared, folder))
    real.kill()
    return {
        "trials": 30,
        "alone_s": alone_s,
        **{f"{kind}_ratio": median(values) for kind, values in ratios.items()},
        "ratios": ratios,
        "environment": environment(),
    }


_HANDLERS = {"errors": _Failing, "slow": _Slow}


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.rounds, Path(folder))
    show(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
