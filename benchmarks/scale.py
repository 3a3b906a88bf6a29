"""What orchestration costs per trial, and whether that grows: synthetic trials that report three times and train nothing.

    python -m benchmarks.scale [--json] [--trials 400 20000] [--ray-trials 800]

- `conductor_*`: searcher, scheduler, journal and progress, driven by a loop in this process. CPU milliseconds per trial (asking for
  it, starting and ending it) and per report, and driver memory per trial (`tracemalloc`, in a second run), for each number of trials.
- `mirror_*_per_s`: trials per second that the MLflow mirror sends to SQLite, and to a server (one worker, SQLite).
- `ray_*`: on real Ray with 16 slots, trials that sleep for a second: seconds of all of them under our driver and under a bare Tuner
  with the same reports, one after the other; `ray_ideal_s` is trials / 16. `ray_ratio` is bare over ours.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune

from benchmarks.environment import environment, options, show
from benchmarks.surroundings import Server
from benchmarks.synthetic import curve, space_of
from orchestrator.conductor import Conductor, Listener
from orchestrator.home import Home
from orchestrator.journal import Journal
from orchestrator.mirror import Mirror
from orchestrator.plan import Plan
from orchestrator.progress import Progress
from orchestrator.ray_runner import Slots, run_on_ray
from orchestrator.search import Assignment
from search_spaces import load_space

#: Trials that are under way at once in the loop: as on a cluster, their reports come interleaved.
SLOTS = 16


def reports(assignment: Assignment) -> Iterator[list[dict[str, Any]]]:
    """A curve in the three parts in which Tune hears of it: up to each rung, and to the end."""
    points = list(curve(assignment))
    for first, last in ((0, 25), (25, 75), (75, 100)):
        yield [point for point in points if first < point["epoch"] <= last]


class Timer:
    """CPU seconds of this thread inside some calls, and how many there were."""

    def __init__(self) -> None:
        self.cpu_s, self.calls = 0.0, 0

    def __enter__(self) -> None:
        self._started = time.thread_time()

    def __exit__(self, *error: object) -> None:
        self.cpu_s += time.thread_time() - self._started
        self.calls += 1


def drive(conductor: Conductor) -> tuple[Timer, Timer]:
    """Run all trials of a conductor; time spent per trial and per report."""
    trial, report = Timer(), Timer()
    running: deque[tuple[Assignment, Iterator[list[dict[str, Any]]]]] = deque()
    while True:
        while len(running) < SLOTS:
            with trial:
                assignment = conductor.next_trial()
                if assignment is not None:
                    conductor.start(assignment)
            if assignment is None:
                break
            running.append((assignment, reports(assignment)))
        if not running:
            return trial, report
        assignment, parts = running.popleft()
        points = next(parts)
        if points[-1]["epoch"] == assignment.config.epochs:
            with report:
                conductor.finish(assignment, points)
            continue
        with report:
            stopped = conductor.report(assignment, points)
        if not stopped:
            running.append((assignment, parts))


def measure_conductor(trials: int, folder: Path) -> dict[str, float]:
    """Milliseconds and bytes per trial."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(f"scale-{trials}", load_space(space_of(trials)), "cpu")
    conductor, trial, report = driven(plan, folder / "timed.jsonl")
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    conductor, *_ = driven(plan, folder / "weighed.jsonl")
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    ended = len(conductor.search.results)
    return {
        "trials": ended,
        "trial_ms": 1000 * trial.cpu_s / ended,
        "report_ms": 1000 * report.cpu_s / report.calls,
        "bytes_per_trial": held / ended,
    }


def driven(plan: Plan, path: Path, *listeners: Listener) -> tuple[Conductor, Timer, Timer]:
    """A conductor all of whose trials have ended, with a journal of its own, and what that took."""
    journal = Journal(path)
    conductor = Conductor(plan, journal, [])
    conductor.listeners += [Progress(conductor).hear, *listeners]
    timers = drive(conductor)
    journal.close()
    return conductor, *timers


def measure_mirror(trials: int, uri: str, folder: Path) -> float:
    """Trials per second that reach the tracker, all of them queued at once."""
    plan, home = Plan("mirrored", load_space(space_of(trials)), "cpu"), Home.at(folder)
    home.require_writable()
    sweep = home.sweep(plan.name)
    sweep.path.mkdir(parents=True)
    sweep.plan.write_text('{"facts": {}, "space": {}, "device": "cpu", "signature": {}}')
    mirror = Mirror(plan, home, uri, print)
    conductor, *_ = driven(plan, sweep.journal, mirror.hear)
    started = time.monotonic()
    with mirror:
        pass
    assert mirror.complete
    return len(conductor.search.results) / (time.monotonic() - started)


class Sleeper(tune.Trainable):
    """A trial that sleeps, and reports three times."""

    def setup(self, config: dict[str, Any], data: object = None) -> None:
        """Nothing to keep."""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin anew."""
        self._left = [25, 75, 100]
        return True

    def step(self) -> dict[str, Any]:
        """Sleep up to the next rung."""
        time.sleep(1 / 3)
        epoch = self._left.pop(0)
        point = {"epoch": epoch, "train_loss": 1.0, "val_accuracy": 0.5, "test_accuracy": 0.5}
        points = [{**point, "train_s": epoch / 100, "diverged": False}]
        return {"points": points, "checkpoint": None, "done": not self._left}


def measure_ray(trials: int, folder: Path) -> dict[str, float]:
    """Seconds under our driver and under a bare Tuner."""
    space = {**space_of(trials), "early_stopping": None}
    plan = Plan("slept", load_space(space), "cpu")
    ray.init(address="local", num_cpus=SLOTS, log_to_driver=False, include_dashboard=False)
    journal = Journal(folder / "slept.jsonl")
    conductor = Conductor(plan, journal, [])
    started = time.monotonic()
    run_on_ray(conductor, {}, slots=Slots(1, 0.0, None), storage=folder / "ours", trainable=Sleeper)
    ours_s = time.monotonic() - started
    journal.close()
    count = len(conductor.search.results)
    started = time.monotonic()
    tune.Tuner(
        tune.with_resources(Sleeper, {"CPU": 1}),
        tune_config=tune.TuneConfig(num_samples=count, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(folder / "bare"),
            verbose=0,
            # by default Tune asks class trainables for a checkpoint at the end, and throws actors away that have none
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    ).fit()
    bare_s = time.monotonic() - started
    ray.shutdown()
    ideal_s = count / SLOTS
    return {
        "ray_trials": count,
        "ray_ideal_s": ideal_s,
        "ray_s": ours_s,
        "ray_bare_s": bare_s,
        "ray_ratio": bare_s / ours_s,
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[400, 20_000])
    parser.add_argument("--ray-trials", type=int, default=800, help="0 leaves real Ray out")
    parser.add_argument("--mirror-trials", type=int, default=400)
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for count in arguments.trials:
            result |= {f"conductor_{count}_{key}": v for key, v in measure_conductor(count, place).items()}
        measure_mirror(200, f"sqlite:///{place / 'warm.db'}", place / "warm")  # imports MLflow
        result["mirror_sqlite_per_s"] = measure_mirror(
            arguments.mirror_trials, f"sqlite:///{place / 'mirror.db'}", place / "a"
        )
        server = Server(place)
        server.start()
        measure_mirror(200, server.uri, place / "warm-server")
        result["mirror_server_per_s"] = measure_mirror(arguments.mirror_trials, server.uri, place / "b")
        server.kill()
        if arguments.ray_trials:
            result |= measure_ray(arguments.ray_trials, place)
    show(result | {"environment": environment()}, as_json=arguments.json)


if __name__ == "__main__":
    main()
