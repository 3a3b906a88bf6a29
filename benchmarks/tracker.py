"""What a bad tracker costs a sweep: one that is slow (half a second per request), answers errors, or is gone, against none.

    python -m benchmarks.tracker [--json] [--rounds 3]

The same small sweep is run in this process (`--local`), kinds taking turns within each round, in homes of their own with the
same prepared data. Seconds are from the first trial's start to the last one's end: what is sent after that delays nobody.
`ratio` is the median over rounds of a kind's seconds over those without a tracker in the same round.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


def seconds(home: Path, uri: str) -> float:
    """Of the trials of one sweep, from the first start to the last end."""
    sweep = Sweep.from_space(SPACE, home=home)
    sweep.run(RunOptions(local=True, tracking_uri=uri))
    records = list(read_journal(sweep.folder.journal))
    first = min(r["started_at"] for r in records if r["kind"] == "start")
    return float(max(r["ended_at"] for r in records if r["kind"] == "result") - first)


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Median ratios of each kind."""
    real = Server(folder)
    real.start()
    _Slow.upstream = real.uri
    servers = {kind: ThreadingHTTPServer(("127.0.0.1", 0), handler) for kind, handler in _HANDLERS.items()}
    for server in servers.values():
        Thread(target=server.serve_forever, daemon=True).start()
    uris = {"none": "off", **{kind: f"http://127.0.0.1:{server.server_port}" for kind, server in servers.items()}}
    uris["gone"] = f"http://127.0.0.1:{free_port()}"
    seconds(folder / "first", "off")  # prepares, and warms torch up
    taken: dict[str, list[float]] = {kind: [] for kind in uris}
    for number in range(rounds):
        kinds = [*uris]
        for kind in kinds[number % len(kinds) :] + kinds[: number % len(kinds)]:
            home = folder / f"{kind}-{number}"
            shutil.copytree(folder / "first" / "cache", home / "cache")
            taken[kind].append(seconds(home, uris[kind]))
    ratios = {
        kind: [a / b for a, b in zip(s, taken["none"], strict=True)] for kind, s in taken.items() if kind != "none"
    }
    return {
        "trials": 30,
        "none_s": median(taken["none"]),
        **{f"{kind}_ratio": median(values) for kind, values in ratios.items()},
        "ratios": ratios,
        "environment": environment(),
    }


_HANDLERS = {"errors": _Failing, "slow": _Slow}


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.rounds, Path(folder))
    show(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
