"""Does the fast engine move accuracy? The same replicates in fp32, eager, and in another number format and engine, paired.

    python -m benchmarks.equivalence [--json] [--replicates 30] [--precision bf16] [--engine compiled] [--space digits] [--set KEY=VALUE ...]

One cell per loss of the space (its first one), at the middle of its learning-rate range. Per cell: the mean paired difference of
test accuracy in points, its 90 % t interval, and the p value of two one-sided t tests (TOST; Schuirmann 1987) of a
difference of 0.5 points or more; `equivalent` if the largest p is below 0.05.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from statsmodels.stats.weightstats import DescrStatsW

from benchmarks.environment import environment, options, show
from orchestrator.cells import Cell
from orchestrator.home import Home
from orchestrator.plan import Plan
from orchestrator.prepare import prepare_data
from search_spaces import load_space
from trainables.config import TrialConfig

MARGIN = 0.5
FAST_AND_PLAIN = ("fast", "plain")


def _test_accuracy(config: TrialConfig, cache: str) -> float:
    from trainables.arrays import load_arrays
    from trainables.trial import TrialData, train_student

    data = TrialData.from_arrays(load_arrays(config.data, Path(cache)), config.device)
    accuracy = list(train_student(config, data))[-1].test_accuracy
    assert accuracy is not None
    return accuracy


def first_cells(plan: Plan) -> list[Cell]:
    """One per loss."""
    by_loss: dict[str, Cell] = {}
    for cell in plan.cells:
        by_loss.setdefault(cell.loss, cell)
    return [*by_loss.values()]


def middle(plan: Plan, cell: Cell, replicate: int) -> TrialConfig:
    """A confirm trial at the middle of every nuisance range."""
    config = plan.trial(cell, 0, replicate, "confirm")
    factors = {**cell.factors, **cell.settings.fixed.model_dump()}
    values: dict[str, Any] = {factor.name: factor.domain(factors).at(0.5) for factor in plan.space.nuisance}
    return replace(config, **values)


def compare(fast: Sequence[float], plain: Sequence[float]) -> dict[str, Any]:
    """Paired differences in points, and two one-sided tests against the margin."""
    difference = 100 * (np.array(fast) - np.array(plain))
    found: dict[str, Any] = {"mean_difference": float(difference.mean()), "plain": float(100 * np.mean(plain))}
    if np.ptp(difference) == 0:  # no test is needed, or possible
        mean = found["mean_difference"]
        return {**found, "low": mean, "high": mean, "p_tost": float(len(difference) < 2 or abs(mean) >= MARGIN)}
    low, high = DescrStatsW(difference).tconfint_mean(alpha=0.1)
    p, _, _ = DescrStatsW(difference).ttost_mean(-MARGIN, MARGIN)
    return {**found, "low": float(low), "high": float(high), "p_tost": float(p)}


def measure(space: str, changes: Sequence[str], replicates: int, kinds: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Train every replicate of every cell under both kinds."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home.at(folder)
        home.require_writable()
        plan = Plan("equivalence", load_space(space, changes), "cpu")
        prepare_data(plan, home.cache, lambda text: print(text, file=sys.stderr))
        jobs = {
            (cell.label, kind): [replace(middle(plan, cell, r), **kinds[kind]) for r in range(1, replicates + 1)]
            for cell in first_cells(plan)
            for kind in FAST_AND_PLAIN
        }
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            running = {
                key: [pool.submit(_test_accuracy, config, str(home.cache)) for config in configs]
                for key, configs in jobs.items()
            }
            found = {key: [trial.result() for trial in trials] for key, trials in running.items()}
    cells = {cell.label: compare(found[cell.label, "fast"], found[cell.label, "plain"]) for cell in first_cells(plan)}
    return {
        "replicates": replicates,
        **kinds["fast"],
        "cells": cells,
        "largest_p": max(cell["p_tost"] for cell in cells.values()),
        "equivalent": all(cell["p_tost"] < 0.05 for cell in cells.values()),
    }


def main() -> None:
    """Measure and print a table, or JSON as the last line."""
    parser = options(__doc__)
    parser.add_argument("--replicates", type=int, default=30)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--engine", default="compiled")
    parser.add_argument("--space", default="digits", help="a shipped space or a path")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    kinds = {
        "fast": {"precision": arguments.precision, "engine": arguments.engine},
        "plain": {"precision": "fp32", "engine": "eager"},
    }
    result = measure(arguments.space, arguments.changes, arguments.replicates, kinds)
    for label, cell in result["cells"].items():
        print(
            f"{cell['mean_difference']:+6.2f} [{cell['low']:+.2f}, {cell['high']:+.2f}] p {cell['p_tost']:.2g}  {label}"
        )
    show(result | {"environment": environment()}, as_json=arguments.json)


if __name__ == "__main__":
    main()
