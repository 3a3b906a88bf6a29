"""What orchestration costs: the trials of a sweep on Ray and MLflow against a bare pool of processes, and against plain Ray Tune.

    python -m benchmarks.orchestration [--json] [--space digits] [--rounds 4] [--default-trials 40] [--set KEY=VALUE ...]

(a) `bare`: a warm pool of one single-threaded process per core, neither Ray nor MLflow.
(b) `sweep`: `lossatlas run` without early stopping, from a round's first trial's start to its last trial's end.
(c) `ray_default`: some of the same trials as a function trainable of Ray Tune with its default settings, at the end.

The first two run the same trials. A machine's speed drifts by more than what is measured, so the sweep is run in rounds (each
asks for more replicates and trains only what is new), and after each round the bare pool trains that round's trials.
Times are sums over rounds; `efficiency` is bare_s / sweep_s, `efficiency_by_round` shows the drift.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.environment import environment, options, show
from benchmarks.pool import Pool
from orchestrator.home import Home
from orchestrator.journal import read_journal
from orchestrator.prepare import prepare_data, probe_costs
from orchestrator.sweep import Sweep
from trainables.config import TrialConfig


@dataclass(frozen=True, slots=True)
class Round:
    """Seconds of one round of the sweep, and its trials."""

    sweep_s: float
    startup_s: float
    finish_s: float
    tracking_cpu_s: float
    configs: list[TrialConfig]


def run_round(space: str, changes: Sequence[str], home: Path) -> Round:
    """Run the command line; seconds of its parts, from what the journal gained."""
    sweep = Sweep.from_space(space, overrides=changes, home=home)
    known = len(list(read_journal(sweep.folder.journal)))
    before_s = sweep.folder.read_plan()["facts"]["tracking_cpu_s"] if known else 0.0
    command = [sys.executable, "-m", "orchestrator.cli", "run", space, "--home", str(home)]
    started = time.time()
    subprocess.run([*command, *(f"--set={change}" for change in changes)], check=True, stdout=sys.stderr)
    ended = time.time()
    records = list(read_journal(sweep.folder.journal))[known:]
    results = [r for r in records if r["kind"] == "result"]
    first = min(
        r["ended_at"] - r["curve"][-1]["train_s"] for r in results
    )  # an actor's first load of torch is start-up
    last = max(r["ended_at"] for r in results)
    return Round(
        sweep_s=last - first,
        startup_s=first - started,
        finish_s=ended - last,
        tracking_cpu_s=sweep.folder.read_plan()["facts"]["tracking_cpu_s"] - before_s,
        configs=[TrialConfig(**r["config"]) for r in results],
    )


def measure(
    space: str, changes: Sequence[str], rounds: int, folder: Path, *, default_trials: int = 0
) -> dict[str, Any]:
    """Run round after round, each followed by the bare pool on its trials; then some trials by plain Ray Tune."""
    changes = [*changes, "early_stopping=null"]
    sweep = Sweep.from_space(space, overrides=changes, home=folder)
    home = Home.at(folder)
    home.require_writable()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    prepare_data(sweep.plan, home.cache, say)
    probe_costs(sweep.plan, home.cache, say)
    replicates = sweep.plan.space.settings.replicates
    done: list[Round] = []
    bare: list[float] = []
    for number in range(1, rounds + 1):
        done.append(run_round(space, [*changes, f"replicates={replicates * number // rounds}"], folder))
        with Pool(home.cache, done[-1].configs[0], processes=os.cpu_count() or 1) as pool:
            bare.append(pool.run(done[-1].configs)[0])
        say(f"round {number}: {len(done[-1].configs)} trials, sweep {done[-1].sweep_s:.1f} s, bare {bare[-1]:.1f} s")
    some = done[-1].configs[:default_trials]
    return _summary(done, bare, (len(some), run_default(some, home.cache)) if some else None)


def run_default(configs: Sequence[TrialConfig], cache: Path) -> float:
    """Seconds that Ray Tune with default settings needs for the trials; Ray is up already."""
    import ray
    from ray import tune

    def train(config: dict[str, Any]) -> None:
        from trainables.arrays import load_arrays
        from trainables.trial import TrialData, train_student

        trial = TrialConfig(**config["trial"])
        data = TrialData.from_arrays(load_arrays(trial.data, cache), trial.device)
        for point in train_student(trial, data):
            tune.report(point.as_dict())

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    space = {"trial": tune.grid_search([config.as_dict() for config in configs])}
    storage = tune.RunConfig(storage_path=str(cache.parent / "default"))
    started = time.monotonic()
    tune.Tuner(train, param_space=space, run_config=storage).fit()
    seconds = time.monotonic() - started
    ray.shutdown()
    return seconds


def _summary(done: Sequence[Round], bare: Sequence[float], default: tuple[int, float] | None) -> dict[str, Any]:
    sweep_s = sum(r.sweep_s for r in done)
    wall_s = sum(r.startup_s + r.sweep_s + r.finish_s for r in done)
    tracking_s = sum(r.tracking_cpu_s for r in done)
    trials = sum(len(r.configs) for r in done)
    per_hour = {"bare": 3600 * trials / sum(bare), "sweep": 3600 * trials / sweep_s}
    if default:
        per_hour["ray_default"] = 3600 * default[0] / default[1]
    return {
        "trials": trials,
        **{f"{kind}_per_hour": rate for kind, rate in per_hour.items()},
        "bare_s": sum(bare),
        "sweep_s": sweep_s,
        "startup_s": median(r.startup_s for r in done),
        "finish_s": median(r.finish_s for r in done),
        "efficiency": sum(bare) / sweep_s,
        "efficiency_by_round": [b / r.sweep_s for r, b in zip(done, bare, strict=True)],
        "tracking_cpu_s": tracking_s,
        "tracking_cpu_frac": tracking_s / ((os.cpu_count() or 1) * wall_s),
        "environment": environment(),
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--space", default="digits", help="a shipped space or a path")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of the sweep, at most its replicates")
    parser.add_argument("--default-trials", type=int, default=40, help="for plain Ray Tune; 0 leaves it out")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place, count = Path(folder), arguments.default_trials
        result = measure(arguments.space, arguments.changes, arguments.rounds, place, default_trials=count)
    show(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
