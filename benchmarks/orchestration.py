"""What orchestration costs: the trials of a sweep on Ray and MLflow against a bare pool of processes.

    python -m benchmarks.orchestration [--json] [--space digits] [--set KEY=VALUE ...]

(a) `bare`: a warm pool of one single-threaded process per core, neither Ray nor MLflow.
(b) `sweep`: `lossatlas run` without early stopping, from its first trial's start to its last trial's end.

Both run the same trials. The machine's speed drifts, so (a) is run half before and half after (b): the tune trials
first, the confirm trials (whose draws the sweep chose) last. `efficiency` is bare_s / sweep_s.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from orchestrator.home import Home
from orchestrator.journal import read_journal
from orchestrator.prepare import prepare_data, probe_costs
from orchestrator.sweep import Sweep
from trainables.config import TrialConfig

_data: dict[str, Any] = {}


def _warm_up(cache: str, config: TrialConfig) -> None:
    """Make a pool process ready: torch loaded, data mapped, one trial done."""
    from trainables.arrays import load_arrays
    from trainables.trial import TrialData, train_student

    _data[config.data] = TrialData.from_arrays(load_arrays(config.data, Path(cache)), config.device)
    list(train_student(config, _data[config.data]))


def _train(config: TrialConfig) -> float:
    from trainables.trial import train_student

    return list(train_student(config, _data[config.data]))[-1].val_accuracy


def run_bare(configs: Sequence[TrialConfig], cache: Path) -> float:
    """Seconds that a warm pool needs for the trials."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), initializer=_warm_up, initargs=(str(cache), configs[0])) as pool:
        pool.map(_train, configs[:1] * (4 * (os.cpu_count() or 1)), chunksize=1)  # all processes are up and warm
        started = time.monotonic()
        for _ in pool.imap_unordered(_train, configs, chunksize=1):
            pass
        return time.monotonic() - started


def run_sweep(space: str, changes: Sequence[str], home: Path) -> dict[str, Any]:
    """Run the command line; seconds of its parts, from the journal."""
    command = [sys.executable, "-m", "orchestrator.cli", "run", space, "--no-early-stopping", "--home", str(home)]
    started = time.time()
    subprocess.run([*command, *(f"--set={change}" for change in changes)], check=True, stdout=sys.stderr)
    ended = time.time()
    sweep = Sweep.stored(Sweep.from_space(space, overrides=changes).plan.name, home)
    records = list(read_journal(sweep.folder.journal))
    starts = [r["started_at"] for r in records if r["kind"] == "start"]
    ends = [r["ended_at"] for r in records if r["kind"] == "result"]
    return {
        "sweep_s": max(ends) - min(starts),
        "startup_s": min(starts) - started,
        "finish_s": ended - max(ends),
        "tracking_cpu_s": sweep.facts["tracking_cpu_s"],
        "configs": [TrialConfig(**r["config"]) for r in records if r["kind"] == "result"],
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the result as JSON in the last line")
    parser.add_argument("--space", default="digits", help="a shipped space or a path")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.space, arguments.changes, Path(folder))
    for key, value in result.items():
        print(f"{key:15} {value if isinstance(value, dict | int) else round(value, 3)}")
    if arguments.json:
        print(json.dumps(result))


def measure(space: str, changes: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run (a), (b), (a)."""
    changes = [*changes, "early_stopping=null"]
    sweep = Sweep.from_space(space, overrides=changes, home=folder)
    home = Home.at(folder)
    home.require_writable()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    prepare_data(sweep.plan, home.cache, say)
    probe_costs(sweep.plan, home.cache, say)
    tune = [config for _, _, config in sweep.plan.tune_trials()]
    before_s = run_bare(tune, home.cache)
    swept = run_sweep(space, changes, folder)
    confirm = [config for config in swept.pop("configs") if config.stage == "confirm"]
    bare_s = before_s + run_bare(confirm, home.cache)
    return {
        "trials": len(tune) + len(confirm),
        "bare_s": bare_s,
        **swept,
        "efficiency": bare_s / swept["sweep_s"],
        "tracking_cpu_frac": swept["tracking_cpu_s"] / ((os.cpu_count() or 1) * swept["sweep_s"]),
        "environment": environment(),
    }


if __name__ == "__main__":
    main()
