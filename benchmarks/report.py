"""What the report of a large sweep costs: seconds, memory, size of the page, and how soon it can be read.

    python -m benchmarks.report [--json] [--trials 10000] [--reading HOME NAME]

A sweep of synthetic curves goes through the real conductor, journal and MLflow mirror into a SQLite store. Then, each in
a process of its own: `journal` writes the report from the sweep's folder, `store` from the SQLite store alone
(`--tracking-uri`), into a fresh home. `--reading` also times the report of a sweep that was really run. In a real
Chromium: milliseconds from opening the page until the headline and the first figure are there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.browser import BROWSER, posted
from benchmarks.environment import environment, options, show
from benchmarks.synthetic import curve, space_of
from orchestrator.conductor import Conductor
from orchestrator.home import write_json
from orchestrator.journal import Journal
from orchestrator.mirror import Mirror
from orchestrator.search import Assignment
from orchestrator.sweep import Sweep

#: Says when the headline is there and when the first figure is, in ms since the page was asked for.
WATCH = """<script>
let headline = null;
new MutationObserver(() => {
  if (headline === null && document.querySelector("p.lead")) headline = performance.now();
  if (document.querySelector(".plot[data-drawn]") && headline !== undefined) {
    fetch("/result", {method: "POST", body: JSON.stringify({headline_ms: headline, figure_ms: performance.now()})});
    headline = undefined; } }).observe(document, {subtree: true, childList: true, attributes: true});
</script>"""


def make_sweep(trials: int, home: Path) -> Sweep:
    """A sweep of about so many synthetic trials, in a home and in its SQLite store."""
    sweep = Sweep.from_space(space_of(trials), home=home)
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
