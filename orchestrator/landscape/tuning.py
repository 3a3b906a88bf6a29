"""What tuning buys: expected best validation after k draws, robustness of an arm to its draw, draws at the edge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import numpy as np
import pandas as pd
from scipy.special import gammaln

from orchestrator.landscape.values import CONFIDENCE, arm_values, levels_of, require, selected_for

BOOTSTRAPS: Final = 1000
CLOSE: Final = 0.01
_SEED: Final = 0


def expected_best(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Expected maximum of k values drawn without replacement, for k = 1 .. N.

    E_k = sum_{i >= k} v_(i) C(i - 1, k - 1) / C(N, k)

    Args:
        values: v, (..., N), in any order.

    Returns:
        (..., N), not decreasing; the last is the maximum.

    Source: Tang et al. 2020 (ACL), unbiased; Dodge et al. 2019, arXiv:1909.03004, for the idea.
    """
    v = np.sort(np.asarray(values, dtype=float), axis=-1)
    return np.asarray(v @ _expectation_weights(v.shape[-1]))


@cache
def _expectation_weights(n: int) -> np.ndarray:
    """C(i - 1, k - 1) / C(n, k) for i (rows) and k (columns) in 1 .. n, by logarithms: the binomials are huge."""
    i, k = np.arange(1, n + 1)[:, None], np.arange(1, n + 1)[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = _log_binomial(i - 1, k - 1) - _log_binomial(n, k)
    return np.where(i >= k, np.exp(logs), 0.0)


def _log_binomial(n: np.ndarray | int, k: np.ndarray) -> np.ndarray:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def tuning_curve(table: pd.DataFrame) -> pd.DataFrame:
    """Expected best validation accuracy of each arm after k draws, mean over contexts.

    The draws of all cells of an arm are its draws. Stopped draws enter with their last value, so that a curve with
    stopped draws is a lower bound.

    Returns:
        level, draws (k), expected, low, high (95 % bootstrap over draws), stopped (share of draws that were), n (tune replicates
        of each draw, those that all draws have).

    Source: docs/method.md 8.
    """
    tune, contexts = _tune_of_levels(table)
    rows = []
    for level, mine in tune.groupby("level", sort=False):
        groups = [
            g.val_accuracy.to_numpy() for _, g in (mine.groupby(contexts, dropna=False) if contexts else [((), mine)])
        ]
        most = min(len(values) for values in groups)
        curve = np.mean([expected_best(values)[:most] for values in groups], axis=0)
        random = np.random.default_rng(_SEED)
        again = np.mean([expected_best(random.choice(v, (BOOTSTRAPS, len(v))))[:, :most] for v in groups], axis=0)
        low, high = np.quantile(again, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
        stopped = (mine.status == "stopped").mean()
        n = int(mine.n.max())
        rows += [(level, k + 1, curve[k], low[k], high[k], stopped, n) for k in range(most)]
    return pd.DataFrame(rows, columns=["level", "draws", "expected", "low", "high", "stopped", "n"])


def equal_search(curve: pd.DataFrame) -> pd.DataFrame:
    """Arms ranked at the same number of draws: an arm with more cells had more of them.

    Args:
        curve: Of `tuning_curve`.

    Returns:
        One row per level, best first: level, draws (k: as many as the arm with the fewest has, per context), expected,
        low, high, of the best validation accuracy after k draws; n, as in `tuning_curve`.

    Source: docs/method.md 3 and 8.
    """
    k = curve.groupby("level").draws.max().min()
    at_k = curve[curve.draws == k].sort_values("expected", ascending=False, ignore_index=True)
    return pd.DataFrame(at_k, columns=["level", "draws", "expected", "low", "high", "n"])


def robustness(table: pd.DataFrame) -> pd.DataFrame:
    """How forgiving an arm is: share of the draws of its representing cells within one point of their best.

    Returns:
        level, draws, close (share), mean over contexts.
    """
    tune = _tune(table)
    rows = []
    for level, arms in arm_values(table).groupby("level", sort=False):
        shares = []
        for members in arms.members:
            values = tune[tune.cell.isin(members)].val_accuracy
            shares.append((values >= values.max() - CLOSE).mean() if len(values) else np.nan)
        rows.append((level, len(tune[tune.cell.isin([c for m in arms.members for c in m])]), np.nanmean(shares)))
    return pd.DataFrame(rows, columns=["level", "draws", "close"])


def boundary_flags(table: pd.DataFrame, factors: Sequence[str]) -> pd.DataFrame:
    """Cells whose chosen draw is the lowest or highest that was drawn.

    Args:
        table: The tidy table, with `tune` trials.
        factors: Nuisance factors.

    Returns:
        cell, factor, edge ("lowest" or "highest"), value.

    Source: docs/method.md 11; Google's tuning playbook.
    """
    chosen = selected_for("best", table).drop_duplicates("cell")
    if chosen.empty or not factors:
        return pd.DataFrame(columns=["cell", "factor", "edge", "value"])
    drawn = table[table.stage == "tune"].groupby("cell")
    rows = []
    for factor in factors:
        span = drawn[factor].agg(["min", "max", "nunique"])
        for cell, value in chosen[["cell", factor]].itertuples(index=False):
            if cell in span.index and span["nunique"][cell] > 2 and value in (span["min"][cell], span["max"][cell]):
                rows.append((cell, factor, "lowest" if value == span["min"][cell] else "highest", value))
    return pd.DataFrame(rows, columns=["cell", "factor", "edge", "value"])


def _tune(table: pd.DataFrame) -> pd.DataFrame:
    """Draws that ended, one row each: the mean over tune replicates; stopped if one of them was; diverged at chance.

    The mean is over the replicates that all of these draws have, so that a failed trial makes no draw better or worse; `n` is their number.
    """
    require(table, "cell", "stage", "status", "val_accuracy")
    ended = table[(table.stage == "tune") & table.status.isin(["finished", "stopped"]) & table.val_accuracy.notna()]
    if "draw" not in ended or ended.empty:
        return ended.assign(n=0)
    ended = _balanced(ended)
    means = ended.groupby(["cell", "draw"]).val_accuracy.transform("mean")
    was_stopped = ended.status.eq("stopped").groupby([ended.cell, ended.draw]).transform("any")
    status = np.where(was_stopped, "stopped", "finished")
    once = ended.assign(val_accuracy=means, status=status, n=ended.replicate.nunique())
    return once.drop_duplicates(["cell", "draw"])


def _balanced(ended: pd.DataFrame) -> pd.DataFrame:
    """Trials of the replicates that all draws have; where there is none, of the one that most draws have."""
    counts = ended.groupby("replicate").size()
    draws = len(ended[["cell", "draw"]].drop_duplicates())
    common = counts.index[counts == draws]
    return ended[ended.replicate.isin(common if len(common) else [counts.idxmax()])]


def _tune_of_levels(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    tune = _tune(table)
    parts = [tune[tune.cell.isin(cells)].assign(level=level) for level, cells in levels_of(table).items()]
    return pd.concat(parts, ignore_index=True), list(table.attrs.get("contexts", []))
