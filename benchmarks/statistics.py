"""Do the landscape's statistics say what is true? Synthetic landscapes with known truth: coverage, bias, false positives.

`python -m benchmarks.statistics [--landscapes 1000] [--json]`. Each landscape has 56 cells: 6 losses, temperature and
refinement inside those that have them, two optimizers; R = 10 replicates with rho = 0.5; seed sd 0.3 and 1 times the
cells' sd; effects drawn anew each time. Nominal: 95 % intervals, 5 % family-wise error.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment, options
from orchestrator.landscape.anova import effects
from orchestrator.landscape.comparisons import compare
from orchestrator.landscape.values import cell_values

KNOBS = {"kl": ("T", "w"), "js": ("T", "w"), "brier": ("T", "w"), "dist": ("T", "w"), "mse": ("w",), "ce": ()}
TEMPERATURES, REFINEMENTS, OPTIMIZERS = (1.0, 4.0, 20.0), (0.0, 0.1), ("adamw", "sgd")
FACTORS = ["loss", "temperature", "refinement", "optimizer"]
REPLICATES, RHO, CELL_SD = 10, 0.5, 0.03


def design() -> pd.DataFrame:
    """The cells of every landscape."""
    rows = []
    for loss, knobs in KNOBS.items():
        temperatures = TEMPERATURES if "T" in knobs else (math.nan,)
        refinements = REFINEMENTS if "w" in knobs else (math.nan,)
        for t, w, o in itertools.product(temperatures, refinements, OPTIMIZERS):
            rows.append(
                {"loss": loss, "temperature": t, "refinement": w, "optimizer": o, "cell": f"{loss},{t},{w},{o}"}
            )
    return pd.DataFrame(rows)


def draw_truth(cells: pd.DataFrame, random: np.random.Generator) -> np.ndarray:
    """True accuracies: a random effect of each level of each term, each term with a random weight; sd 0.03."""
    truth = np.zeros(len(cells))
    for size in (1, 2):
        for names in itertools.combinations(FACTORS, size):
            group = cells.groupby(
                ["loss", *names] if set(names) & {"temperature", "refinement"} else list(names), dropna=False
            )
            number = group.ngroup().to_numpy()
            truth += random.exponential() * random.normal(size=number.max() + 1)[number]
    return np.asarray(0.8 + CELL_SD * (truth - truth.mean()) / truth.std())


def draw_trials(cells: pd.DataFrame, truth: np.ndarray, sigma: float, random: np.random.Generator) -> pd.DataFrame:
    """Confirm trials of all cells."""
    block = random.normal(size=REPLICATES) * sigma * math.sqrt(RHO)
    own = random.normal(size=(len(cells), REPLICATES)) * sigma * math.sqrt(1 - RHO)
    table = cells.loc[cells.index.repeat(REPLICATES)].reset_index(drop=True)
    table["replicate"] = np.tile(np.arange(1, REPLICATES + 1), len(cells))
    table["test_accuracy"] = (truth[:, None] + block + own).ravel()
    return table.assign(stage="confirm", status="finished", diverged=False, trial_id=range(len(table)))


def measure_effects(landscapes: int, ratio: float, seed: int) -> dict[str, Any]:
    """Bias, error and coverage of shares at a seed sd of `ratio` times the cells' sd."""
    cells, random = design(), np.random.default_rng(seed)
    rows = []
    for _ in range(landscapes):
        truth = draw_truth(cells, random)
        exact = effects(draw_trials(cells, truth, 0.0, random), FACTORS).set_index("term").share[:-2]
        found = effects(draw_trials(cells, truth, ratio * CELL_SD, random), FACTORS).set_index("term")
        rows += [(t, exact[t], found.share[t], found.low[t] <= exact[t] <= found.high[t]) for t in exact.index]
    frame = pd.DataFrame(rows, columns=["term", "true", "found", "covered"])
    error = frame.found - frame.true
    by_term = error.groupby(frame.term).mean()
    large = frame.true >= 0.05
    return {
        "seed_sd_over_cell_sd": ratio,
        "landscapes": landscapes,
        "largest_bias": float(by_term.abs().max()),
        "largest_bias_term": str(by_term.abs().idxmax()),
        "rmse": float(np.sqrt((error**2).mean())),
        "coverage_share_at_least_0.05": float(frame.covered[large].mean()),
        "coverage_smaller_shares": float(frame.covered[~large].mean()),
    }


def measure_comparisons(landscapes: int, seed: int) -> dict[str, float]:
    """Coverage of cell values and mean differences; false positives where all cells are equal."""
    cells, random = design(), np.random.default_rng(seed)
    covered, differences, better, wrong = [], [], [], []
    arms = cells.drop_duplicates(["loss", "optimizer"])
    for _ in range(landscapes):
        truth = draw_truth(arms, random)
        table = draw_trials(arms, truth, CELL_SD, random)
        values = cell_values(table)
        covered.append(np.mean((values.low <= truth) & (truth <= values.high)))
        level = pd.Series(truth).groupby(arms.loss.to_numpy(), sort=False).mean()
        pairs = compare(table, contexts=["optimizer"])
        true = level[pairs.a].to_numpy() - level[pairs.b].to_numpy()
        differences.append(np.mean((pairs.low <= true) & (true <= pairs.high)))
        chance = _probability(true, sd=CELL_SD * math.sqrt(2 * (1 - RHO) / 2))
        better.append(np.mean((pairs.p_better_low <= chance) & (chance <= pairs.p_better_high)))
        null = compare(draw_trials(arms, np.full(len(arms), 0.8), CELL_SD, random), contexts=["optimizer"])
        wrong.append((float((null.p_value <= 0.05).mean()), bool((null.p_holm <= 0.05).any())))
    return {
        "landscapes": landscapes,
        "coverage_cell_values": float(np.mean(covered)),
        "coverage_mean_difference": float(np.mean(differences)),
        "coverage_p_better": float(np.mean(better)),
        "false_positives_per_pair": float(np.mean([w[0] for w in wrong])),
        "false_positives_family_wise": float(np.mean([w[1] for w in wrong])),
        "monte_carlo_error": math.sqrt(0.95 * 0.05 / landscapes),
    }


def _probability(difference: np.ndarray, *, sd: float) -> np.ndarray:
    """P(a > b) for normal differences."""
    from scipy.stats import norm

    return np.asarray(norm.cdf(difference / sd))


def _lines(found: dict[str, Any], name: str) -> Iterator[tuple[str, str, str]]:
    for key, value in found.items():
        yield name, key, f"{value:.4f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure and print one table."""
    parser = options(__doc__)
    parser.add_argument("--landscapes", type=int, default=1000)
    arguments = parser.parse_args()
    started = time.monotonic()
    found = {f"effects, ratio {r:g}": measure_effects(arguments.landscapes, r, seed=1) for r in (0.3, 1.0)}
    found["comparisons"] = measure_comparisons(arguments.landscapes, seed=2)
    table = Table("what", "figure", "value")
    for name, values in found.items():
        for line in _lines(values, name):
            table.add_row(*line)
    Console().print(table)
    if arguments.json:
        print(json.dumps({**found, "seconds": time.monotonic() - started, "environment": environment()}))


if __name__ == "__main__":
    main()
