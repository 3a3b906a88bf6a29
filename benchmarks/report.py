"""What the report of a large sweep costs: seconds, memory, size of the page, and how soon it can be read.

    python -m benchmarks.report [--json] [--trials 10000] [--reading HOME NAME]

A sweep of synthetic curves goes through the real conductor, journal and MLflow mirror into a SQLite store. Then, each in
a process of its own: `journal` writes the report from the sweep's folder, `store` from the SQLite store alone
(`--tracking-uri`), into a fresh home. `--reading` also times the report of a sweep that was really run. In a real
Chromium: milliseconds from opening the page until the headline and the first figure are there.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.browser import BROWSER, posted
from benchmarks.environment import environment, options, show
from orchestrator.conductor import Conductor
from orchestrator.home import write_json
from orchestrator.journal import Journal
from orchestrator.mirror import Mirror
from orchestrator.search import Assignment
from orchestrator.sweep import Sweep

#: 232 cells x 16 draws, and so many replicates that the wanted number of trials comes together.
SPACE: dict[str, Any] = {
    "name": "large",
    "data": {"real": "digits", "distilled": {"method": "random", "ipc": 10}},
    "teacher": {"model": "convnet2", "width": 64, "train": {"epochs": 30}},
    "scientific": {
        "loss": ["ce", "soft_ce", "kl", "mse", "mse_ce", "soft_ce_ce", "cosine", "gift"],
        "temperature": [1, 1.5, 2, 3, 4, 8, 20],
        "refinement": [0, "1/11", 0.2, 0.4],
        "optimizer": ["adamw", "sgd", "lamb"],
    },
    "nuisance": {"lr": {"loguniform": [3.0e-4, 3.0e-1]}, "draws": 16},
    "fixed": {"student": "convnet2", "width": 32, "epochs": 100, "batch_size": 50, "evaluate_every_epochs": 5},
    "early_stopping": {"grace_period_epochs": 25, "reduction_factor": 3},
}
#: Says when the headline is there and when the first figure is, in ms since the page was asked for.
WATCH = """<script>
let headline = null;
new MutationObserver(() => {
  if (headline === null && document.querySelector("p.lead")) headline = performance.now();
  if (document.querySelector(".plot[data-drawn]") && headline !== undefined) {
    fetch("/result", {method: "POST", body: JSON.stringify({headline_ms: headline, figure_ms: performance.now()})});
    headline = undefined; } }).observe(document, {subtree: true, childList: true, attributes: true});
</script>"""


def curve(assignment: Assignment) -> Iterator[dict[str, Any]]:
    """A learning curve whose end depends on cell, draw and replicate; noise is seeded by the trial's id."""
    cell, config = assignment.cell, assignment.config
    noise = random.Random(config.trial_id)
    quality = random.Random(cell.loss).uniform(0.85, 0.95) - 0.02 * abs(math.log10(config.lr) + 2)
    end = min(0.999, max(0.1, quality + random.Random(config.replicate).gauss(0, 0.004) + noise.gauss(0, 0.004)))
    for epoch in range(5, config.epochs + 1, 5):
        accuracy = 0.1 + (end - 0.1) * (1 - math.exp(-epoch / 20)) + noise.gauss(0, 0.002)
        is_last = epoch == config.epochs
        yield {
            "epoch": epoch,
            "train_loss": 2 * math.exp(-epoch / 30),
            "val_accuracy": round(accuracy, 4),
            "test_accuracy": round(end, 4) if is_last and config.stage == "confirm" else None,
            "train_s": epoch / 100,
            "diverged": False,
        }


def make_sweep(trials: int, home: Path) -> Sweep:
    """A sweep of about so many synthetic trials, in a home and in its SQLite store."""
    small = Sweep.from_space({**SPACE, "replicates": 2}, home=home)
    cells = len(small.plan.cells)
    sweep = Sweep.from_space({**SPACE, "replicates": max(2, trials // cells - 16)}, home=home)
    sweep.home.require_writable()
    sweep.folder.path.mkdir(parents=True)
    sweep.facts["data"] = {}
    _write_plan(sweep)
    journal = Journal(sweep.folder.journal)
    conductor = Conductor(sweep.plan, journal, [])
    with Mirror(sweep.plan, sweep.home, sweep.home.store_uri, lambda text: print(text, file=sys.stderr)) as mirror:
        conductor.listeners.append(mirror.hear)
        while (assignment := conductor.next_trial()) is not None:
            conductor.start(assignment)
            _train(conductor, assignment)
    journal.close()
    return sweep


def _write_plan(sweep: Sweep) -> None:
    plan = sweep.plan
    write_json(
        sweep.folder.plan,
        {
            "space": dict(plan.space.document),
            "device": "cpu",
            "signature": plan.signature(),
            "keys": plan.data_keys,
            "facts": sweep.facts,
        },
    )


def _train(conductor: Conductor, assignment: Assignment) -> None:
    for point in curve(assignment):
        if point["epoch"] == assignment.config.epochs:
            conductor.finish(assignment, [point])
        elif conductor.report(assignment, [point]):
            return


def time_report(name: str, home: Path, *options: str) -> dict[str, float]:
    """Write a report in a new process; its seconds and peak memory."""
    command = [sys.executable, "-m", "orchestrator.cli", "report", name, "--home", str(home), *options]
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    return {"s": time.monotonic() - started, "peak_mib": usage.ru_maxrss / 1024}


def time_page(page: Path) -> dict[str, float]:
    """Milliseconds until the headline and the first figure are there; nothing without a browser."""
    if BROWSER is None:
        return {}
    watched = page.with_name("watched.html")
    watched.write_text(page.read_text().replace("<head>", f"<head>{WATCH}", 1))
    with tempfile.TemporaryDirectory() as profile:
        return dict(posted(page.parent, watched.name, ["--window-size=1200,900"], Path(profile)))


def measure(trials: int, folder: Path, reading: tuple[str, str] | None) -> dict[str, Any]:
    """Make the sweep, write its reports, open its page."""
    home = folder / "home"
    started = time.monotonic()
    sweep = make_sweep(trials, home)
    made_s = time.monotonic() - started
    result = {"trials": sum(sweep.plan.trial_counts.values()), "made_s": made_s}
    result |= _named("journal", time_report("large", home))
    result |= _named("store", time_report("large", folder / "fresh", "--tracking-uri", sweep.home.store_uri))
    page = sweep.folder.report / "index.html"
    result["page_mib"] = page.stat().st_size / 2**20
    result |= time_page(page)
    if reading:
        result |= _named("reading", time_report(reading[1], Path(reading[0]), "--out", str(folder / "reading")))
    return result | {"environment": environment()}


def _named(name: str, values: dict[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in values.items()}


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--reading", nargs=2, metavar=("HOME", "NAME"), help="a sweep that was really run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(arguments.trials, Path(folder), arguments.reading)
    show(result, as_json=arguments.json, digits=2)


if __name__ == "__main__":
    main()
