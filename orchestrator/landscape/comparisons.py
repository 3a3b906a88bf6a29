"""Paired comparisons between arms, or between the levels of any other factor.

Notations: d_r difference of two levels at replicate r, averaged over the contexts that both have; n replicates that both
have in every shared context.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.landscape.values import CONFIDENCE, confirmed, levels_of, mean_interval, require, tuned_validation

EXACT_UP_TO: Final = 20
RANDOM_FLIPS: Final = 100_000
_FLIP_SEED: Final = 0
_PAIR: Final = ("a", "b", "n", "mean_difference", "low", "high", "p_value", "p_holm")
COLUMNS: Final = (*_PAIR, "p_better", "p_better_low", "p_better_high")


def compare(
    table: pd.DataFrame,
    factor: str = "loss",
    aggregate: str = "tuned",
    metric: str = "test_accuracy",
    *,
    contexts: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Every pair of levels of a factor, replicate by replicate.

    Args:
        table: The tidy table; at least trial_id, cell, stage, status, replicate, the factor and the metric. Finished
            `confirm` trials count, of the best draw where `selected` says which.
        factor: A column; "loss" compares the arms where the table has them (arms with equal cells are one level).
        aggregate: What represents a level in a context where it has several cells: "tuned", the cell with the best
            `tune` validation, or "mean", the mean of its cells.
        metric: Column that is compared.
        contexts: Columns within which levels are compared; None takes `table.attrs["contexts"]`, or none. For another
            factor than the loss, that factor leaves the contexts and the arm joins them.

    Returns:
        One row per pair: a, b, n, mean_difference (a - b) with its 95 % t interval (low, high), p_value of the
        sign-flip test (exact up to n = 20), p_holm adjusted for all pairs, p_better = P(a > b) with ties counted half
        and its Clopper-Pearson interval.

    Raises:
        ValueError: If a column is missing, or several cells are to be chosen from without `tune` trials.

    Source: docs/method.md 4; Bouthillier et al. 2021, arXiv:2103.03098, for P(A > B); Holm 1979.
    """
    if aggregate not in ("tuned", "mean"):
        raise ValueError(f"unknown aggregate {aggregate!r}; valid: ['tuned', 'mean'].")
    require(table, "cell", "stage", "status", "replicate", factor, metric)
    represented = _represented(table, factor, aggregate, metric, _contexts(table, factor, contexts))
    pairs = [(a, b, *_differ(represented[a], represented[b])) for a, b in itertools.combinations(represented, 2)]
    compared = pd.DataFrame(pairs, columns=[name for name in COLUMNS if name != "p_holm"])
    compared["p_holm"] = holm(compared.p_value.to_numpy(dtype=float))
    return compared[list(COLUMNS)]


def _contexts(table: pd.DataFrame, factor: str, given: Sequence[str] | None) -> list[str]:
    known = table.attrs.get("contexts", []) if given is None else given
    return [name for name in known if name != factor]


def _represented(
    table: pd.DataFrame, factor: str, aggregate: str, metric: str, contexts: list[str]
) -> dict[str, pd.DataFrame]:
    """By level: the metric of each context (columns) and replicate (rows)."""
    rows = confirmed(table)
    rows = rows[rows[metric].notna()]
    validation = tuned_validation(table) if (table.stage == "tune").any() else pd.Series(dtype=float)
    levels = _levels(rows, factor)
    arms = {"": list(rows.cell.unique())} if factor == "loss" else _arms(rows)
    found = {}
    for level, cells in levels.items():
        columns = {}
        for arm, owned in arms.items():
            mine = rows[rows.cell.isin(set(cells) & set(owned))]
            for key, group in mine.groupby(contexts, dropna=False) if contexts else [((), mine)]:
                if len(group):
                    columns[(arm, *map(str, key))] = _one_value(group, aggregate, metric, validation)
        found[level] = pd.DataFrame(columns)
    return found


def _levels(rows: pd.DataFrame, factor: str) -> dict[str, list[str]]:
    """Cells of each level, in the table's order."""
    if factor == "loss" and "arms" in rows:
        return levels_of(rows)
    return {str(value): list(group.cell.unique()) for value, group in rows.groupby(factor, sort=False)}


def _arms(rows: pd.DataFrame) -> dict[str, list[str]]:
    """What joins the contexts when another factor than the loss is compared.

    Arms that own the same cells everywhere count once; without a column of arms, the loss; without either, nothing.
    """
    if "arms" in rows:
        return levels_of(rows)
    if "loss" in rows:
        return {str(value): list(group.cell.unique()) for value, group in rows.groupby("loss", sort=False)}
    return {"": list(rows.cell.unique())}


def _one_value(rows: pd.DataFrame, aggregate: str, metric: str, validation: pd.Series) -> pd.Series:
    """A level's value at each replicate in one context."""
    cells = list(rows.cell.unique())
    if len(cells) > 1 and aggregate == "tuned":
        known = validation.reindex(cells)
        if known.isna().all():
            raise ValueError(
                f"{len(cells)} cells to choose from ({cells[0]}, ...), but no tune trials to choose by; give "
                'aggregate="mean".'
            )
        rows = rows[rows.cell == known.idxmax()]
        cells = cells[:1]
    by_replicate = rows.groupby("replicate")[metric]
    return by_replicate.mean()[by_replicate.size() >= len(cells)]


def _differ(a: pd.DataFrame, b: pd.DataFrame) -> tuple[float, ...]:
    """n, mean difference, low, high, p, P(a > b) and its interval."""
    shared = [context for context in a if context in b]
    d = (a[shared] - b[shared]).dropna().mean(axis=1).to_numpy() if shared else np.array([])
    return len(d), *mean_interval(d), sign_flip_p(d), *probability_better(d)


def compare_tables(a: pd.DataFrame, b: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Two sweeps, cell by cell, paired by replicate.

    Args:
        a: Tidy table of one sweep.
        b: Of another; cells are the same where their labels are.
        metric: Column that is compared.

    Returns:
        The row "all shared cells" (the mean over them at each replicate), then one row per shared cell: cell, n,
        mean_difference (a - b), low, high, p_value, p_holm (over the cells), p_better with its interval.

    Raises:
        ValueError: If no cell is confirmed in both.
    """
    values = [
        confirmed(table).pivot_table(index="replicate", columns="cell", values=metric, sort=False) for table in (a, b)
    ]
    shared = [cell for cell in values[0] if cell in values[1]]
    if not shared:
        raise ValueError("the two sweeps have no confirmed cell in common; cells are the same where their labels are.")
    rows = [(cell, *_differ(values[0][[cell]], values[1][[cell]])) for cell in shared]
    together = ("all shared cells", *_differ(values[0][shared], values[1][shared]))
    compared = pd.DataFrame([together, *rows], columns=["cell", *(c for c in COLUMNS[2:] if c != "p_holm")])
    compared["p_holm"] = np.concatenate([[np.nan], holm(compared.p_value.to_numpy(dtype=float)[1:])])
    return compared[["cell", *COLUMNS[2:]]]


def against(table: pd.DataFrame, base: str, cells: Sequence[str], metric: str = "test_accuracy") -> pd.DataFrame:
    """Cells of one sweep against one of them, paired by replicate.

    Returns:
        One row per other cell: cell, n, mean_difference (cell - base), low, high, p_value, p_holm (over the rows), p_better with its
        interval.
    """
    values = confirmed(table).pivot_table(index="replicate", columns="cell", values=metric, sort=False)
    others = [cell for cell in cells if cell != base and cell in values]
    rows = [(cell, *_differ(values[[cell]], values[[base]].rename(columns={base: cell}))) for cell in others]
    compared = pd.DataFrame(rows, columns=["cell", *(c for c in COLUMNS[2:] if c != "p_holm")])
    compared["p_holm"] = holm(compared.p_value.to_numpy(dtype=float))
    return compared[["cell", *COLUMNS[2:]]]


def sign_flip_p(differences: np.ndarray) -> float:
    """Two-sided p of the hypothesis that the signs of paired differences are arbitrary.

    p = share of the 2^n sign patterns e with |sum_r e_r d_r| >= |sum_r d_r|

    Args:
        differences: d, (n,). All patterns are counted up to n = 20; above, 100,000 random ones and the observed one.

    Returns:
        p in (0, 1]; NaN for n = 0.

    Source: Fisher 1935; docs/method.md 4.
    """
    n = len(differences)
    if n == 0:
        return float("nan")
    observed = abs(differences.sum())
    if n <= EXACT_UP_TO:
        sums = np.array([differences[0]])  # patterns come in pairs of opposite sign: the first sign is fixed
        for value in differences[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= observed * (1 - 1e-12)))
    signs = np.random.default_rng(_FLIP_SEED).choice(np.array([-1, 1], dtype=np.int8), size=(RANDOM_FLIPS, n))
    hits = int((np.abs(signs @ differences) >= observed * (1 - 1e-12)).sum())
    return (hits + 1) / (RANDOM_FLIPS + 1)


def probability_better(differences: np.ndarray) -> tuple[float, float, float]:
    """Share of replicates with d > 0, ties counted half, and its 95 % Clopper-Pearson interval; NaN for n = 0."""
    n = len(differences)
    if n == 0:
        return float("nan"), float("nan"), float("nan")
    wins = float((differences > 0).sum() + (differences == 0).sum() / 2)
    tail = (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, wins, n - wins + 1)) if wins > 0 else 0.0
    high = float(stats.beta.ppf(1 - tail, wins + 1, n - wins)) if wins < n else 1.0
    return wins / n, low, high


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values; NaN stays NaN and does not count as a test.

    p_(i) becomes min(1, max over j <= i of (m - j + 1) p_(j))

    Source: Holm 1979. A test holds it to statsmodels' `multipletests`, which collects garbage at each call: a tenth of a
    second.
    """
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested])]
    steps = np.arange(len(order), 0, -1) * p_values[order]
    adjusted[order] = np.minimum(1, np.maximum.accumulate(steps))
    return adjusted


def significance_groups(means: Mapping[str, float], compared: pd.DataFrame, *, alpha: float = 0.05) -> dict[str, str]:
    """Letters for a ranking: two levels that share a letter were not found to differ.

    Args:
        means: Value of each level.
        compared: Of `compare`, with a row for every pair of these levels.
        alpha: Family-wise level, on p_holm.

    Returns:
        One or more letters per level, "a" for the best.

    Source: Piepho 2004, doi:10.1198/1061860043515 (insert and absorb).
    """
    order = sorted(means, key=lambda level: -means[level])
    different = {frozenset(pair) for *pair, p in compared[["a", "b", "p_holm"]].itertuples(index=False) if p <= alpha}
    groups = [set(order)]
    for pair in different:
        groups = [part for group in groups for part in ([group - {one} for one in pair] if pair <= group else [group])]
        groups = [g for g in groups if g and not any(g < other for other in groups)]
    unique = sorted({frozenset(g) for g in groups}, key=lambda g: [order.index(level) for level in order if level in g])
    letters = dict.fromkeys(order, "")
    for number, group in enumerate(unique):
        for level in group:
            letters[level] += chr(ord("a") + number % 26)
    return letters
