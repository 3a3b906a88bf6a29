"""A sweep that everything happens to, against the same sweep left alone.

    python -m benchmarks.chaos [--json] [--driver-kills 20] [--worker-kills 20] [--node-losses 3] [--outages 3] [--seed 0]

A Ray cluster of three nodes on this machine (the head and two workers) runs a small sweep that is mirrored to a real MLflow
server, without early stopping. Meanwhile, in an order drawn from the seed: the driver is killed (SIGKILL) and the sweep
resumed, workers are killed, nodes vanish and others join, the server is killed and comes back some seconds later. In the
end the table must equal that of the undisturbed sweep but for `run_id` and `train_s`, and the server must have one run
per trial, none running, each with every point of its curve once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from benchmarks.environment import environment, options, show
from benchmarks.surroundings import Cluster, Server, surroundings
from orchestrator.journal import read_journal
from orchestrator.sweep import RunOptions, Sweep

#: 7 cells; 4 draws and so many replicates that the sweep outlives the disasters.
SPACE: dict[str, Any] = {
    "name": "chaos",
    "data": {"real": "digits", "distilled": {"method": "random", "ipc": 10}},
    "teacher": {"model": "convnet2", "width": 16, "train": {"epochs": 3}},
    "scientific": {"loss": ["ce", "kl", "gift", "mse"], "temperature": [1, 2, 4, 8]},
    "nuisance": {"lr": {"loguniform": [1.0e-3, 3.0e-2]}, "draws": 4},
    "fixed": {"student": "convnet2", "width": 16, "epochs": 60, "batch_size": 50, "views": 10},
    "checkpoint_every_epochs": 20,
}
#: What must be 0 in the end.
BAD = ("rows_that_differ", "missing_runs", "duplicate_runs", "running_runs", "lost_points", "repeated_points")
#: Longest wait for a trial to end, and for the sweep, on however busy a machine; seconds.
LIMIT_S = 1800.0


class Chaos:
    """One disturbed sweep."""

    def __init__(
        self, space: Path, home: Path, surroundings: tuple[Server, Cluster], *, seed: int, most_pause_s: float
    ) -> None:
        """Nothing has happened yet."""
        self._space, self._home = space, home
        self._server, self._cluster = surroundings
        self._most_pause_s = most_pause_s
        self._random = random.Random(seed)
        self._driver: subprocess.Popen[bytes] | None = None
        self._server_back_at: float | None = None
        self.done: Counter[str] = Counter()

    def run(self, disasters: list[str]) -> None:
        """Let everything happen, then let the sweep end."""
        self._start()
        for disaster in disasters:
            if not self._wait_for_progress():
                break  # it ended before everything could happen
            getattr(self, f"_{disaster}")()
            self.done[disaster] += 1
            print(f"{time.strftime('%H:%M:%S')} {disaster}: {dict(self.done)}, {self._ended} trials ended", flush=True)
        while self._server_back_at is not None:
            time.sleep(0.2)
            self._tend_server()
        self._server.wait()
        self._finish()

    def _start(self) -> None:
        begun = (self._home / "sweeps" / SPACE["name"] / "plan.json").exists()
        what = ["resume", SPACE["name"]] if begun else ["run", str(self._space)]
        command = [sys.executable, "-m", "orchestrator.cli", *what, "--home", str(self._home)]
        command += ["--address", self._cluster.address, "--tracking-uri", self._server.uri]
        with (self._home.parent / "driver.log").open("a") as log:
            self._driver = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    @property
    def _ended(self) -> int:
        path = self._home / "sweeps" / SPACE["name"] / "journal.jsonl"
        return path.read_bytes().count(b'{"kind":"result"') if path.exists() else 0

    def _wait_for_progress(self) -> bool:
        """Wait until some trial has ended, and a moment more; False if the sweep has."""
        assert self._driver
        before, deadline = self._ended, time.monotonic() + LIMIT_S
        while self._ended == before:
            self._tend_server()
            if self._driver.poll() is not None:
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"nothing ends any more; see {self._home.parent / 'driver.log'}")
            time.sleep(0.1)
        time.sleep(self._random.uniform(0.0, self._most_pause_s))
        return self._driver.poll() is None

    def _tend_server(self) -> None:
        if self._server_back_at is not None and time.monotonic() >= self._server_back_at:
            self._server_back_at = None
            self._server.launch()  # it is not waited for here: meanwhile the sweep would end before all has happened

    def _driver_kill(self) -> None:
        assert self._driver
        os.killpg(self._driver.pid, signal.SIGKILL)
        self._driver.wait()
        self._start()

    def _worker_kill(self) -> None:
        if pids := self._cluster.worker_pids():
            os.kill(self._random.choice(pids), signal.SIGKILL)

    def _node_loss(self) -> None:
        self._cluster.replace_node(self._random)

    def _outage(self) -> None:
        self._server.kill()
        self._server_back_at = time.monotonic() + self._random.uniform(5, 20)

    def _finish(self) -> None:
        """Wait for the driver, then run and send what may be left."""
        assert self._driver
        name = str(SPACE["name"])
        if self._driver.wait(LIMIT_S):
            self._call("resume", name, "--address", self._cluster.address)
        if not Sweep.stored(name, self._home).facts.get("tracked"):
            self._call("sync", name)

    def _call(self, *arguments: str) -> None:
        where = ["--home", str(self._home), "--tracking-uri", self._server.uri]
        subprocess.run([sys.executable, "-m", "orchestrator.cli", *arguments, *where], check=False, capture_output=True)


def compare_tables(calm: pd.DataFrame, disturbed: pd.DataFrame) -> int:
    """How many rows differ in anything but run_id and train_s."""
    columns = [name for name in calm if name not in ("run_id", "train_s")]
    a, b = (t[columns].sort_values("trial_id", ignore_index=True) for t in (calm, disturbed))
    if len(a) != len(b):
        return max(len(a), len(b))
    equal = (a == b) | (a.isna() & b.isna())
    return int((~equal.all(axis=1)).sum())


def check_tracker(uri: str, sweep: Sweep) -> dict[str, int]:
    """What is wrong with what the server has; all zeros if nothing is."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(f"lossatlas/{sweep.plan.name}")
    assert experiment
    runs: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    trials = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    ids = Counter(run.data.tags["lossatlas.trial_id"] for run in trials)
    curves = {r["trial_id"]: r["curve"] for r in read_journal(sweep.folder.journal) if r["kind"] == "result"}
    lost = repeated = 0
    for run in trials:
        steps = Counter(m.step for m in client.get_metric_history(run.info.run_id, "val_accuracy"))
        wanted = {point["epoch"] for point in curves[run.data.tags["lossatlas.trial_id"]]}
        lost += len(wanted - set(steps))
        repeated += sum(steps.values()) - len(steps)
    return {
        "parents": len(runs) - len(trials),
        "missing_runs": len(set(curves) - set(ids)),
        "duplicate_runs": sum(ids.values()) - len(ids),
        "running_runs": sum(run.info.status == "RUNNING" for run in runs),
        "lost_points": lost,
        "repeated_points": repeated,
    }


def measure(
    disasters: dict[str, int], document: dict[str, Any], *, seed: int, folder: Path, most_pause_s: float = 2.0
) -> dict[str, Any]:
    """Run a sweep undisturbed, then with disasters; what is different.

    Args:
        disasters: How many of "driver_kill", "worker_kill", "node_loss" and "outage".
        document: A space without early stopping, of the name of SPACE.
        seed: Of the order of disasters, their times and victims.
        folder: Empty.
        most_pause_s: Longest pause between some progress and the next disaster.
    """
    space = folder / "chaos.yaml"
    space.write_text(yaml.safe_dump(document))
    started = time.monotonic()
    calm = Sweep.from_space(document, home=folder / "calm").run(RunOptions(local=True, tracking_uri="off")).table
    calm_s = time.monotonic() - started
    print(f"undisturbed, one process: {len(calm)} trials in {calm_s:.0f} s; seed {seed}", flush=True)
    order = [name for name, count in disasters.items() for _ in range(count)]
    random.Random(seed).shuffle(order)
    home = folder / "chaos"
    home.mkdir()
    (folder / "calm" / "cache").rename(home / "cache")
    started = time.monotonic()
    with surroundings(folder) as (server, cluster):
        chaos = Chaos(space, home, (server, cluster), seed=seed, most_pause_s=most_pause_s)
        chaos.run(order)
        sweep = Sweep.stored(str(SPACE["name"]), home)
        result: dict[str, Any] = {"trials": len(calm), "seed": seed, **{name: chaos.done[name] for name in disasters}}
        result |= {"chaos_s": time.monotonic() - started, "rows_that_differ": -1}
        result["rows_that_differ"] = compare_tables(calm, sweep.landscape().table)
        result["deaths"] = sum(r["kind"] == "death" for r in read_journal(sweep.folder.journal))
        result |= check_tracker(server.uri, sweep)
    return result | {"environment": environment()}


def main() -> None:
    """Measure and print a table, or JSON as the last line; status 1 if anything was lost, doubled or left running."""
    parser = options(__doc__)
    for name, count in (("driver_kill", 20), ("worker_kill", 20), ("node_loss", 3), ("outage", 3)):
        plural = name.replace("_", "-").replace("loss", "losse") + "s"
        parser.add_argument(f"--{plural}", dest=name, type=int, default=count)
    parser.add_argument("--replicates", type=int, default=90, help="more of them make a longer sweep")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wanted = {name: getattr(arguments, name) for name in ("driver_kill", "worker_kill", "node_loss", "outage")}
    with tempfile.TemporaryDirectory() as folder:
        document = {**SPACE, "replicates": arguments.replicates}
        result = measure(wanted, document, seed=arguments.seed, folder=Path(folder))
    show(result, as_json=arguments.json, digits=1)
    sys.exit(any(result[name] for name in BAD) or any(result[name] != count for name, count in wanted.items()))


if __name__ == "__main__":
    main()
