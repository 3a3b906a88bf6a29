"""How much of the variance of accuracy each factor explains: exact functional ANOVA on the landscape's cells.

Notations: x a cell; mu the measure over cells (losses equally weighted, cells equally weighted within a loss and
context); U a set of factors; a_U(x) mean of f over all cells that agree with x in U; f_U = sum over S in U of
(-1)^(|U| - |S|) a_S; V_U = E_mu[f_U^2].
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from orchestrator.landscape.values import confirmed, jackknife, paired

_COLUMNS: Final = ("term", "variance", "share", "low", "high")


def effects(table: pd.DataFrame, factors: Sequence[str], metric: str = "test_accuracy") -> pd.DataFrame:
    """Variance and share of every main effect and interaction.

    A factor that is empty for some losses is nested in the loss: its term is `temperature|loss`, averaged over all
    losses, 0 where it does not exist. Terms are corrected for the noise of cell means by the mean square of cell x
    replicate, and are at least 0. Replicates count that every cell has.

    Args:
        table: The tidy table; finished `confirm` trials of the best draw count.
        factors: Columns that span the landscape, `loss` among them if any factor is nested.
        metric: Column to explain.

    Returns:
        term, variance, share, low, high: cell terms first (their shares sum to 1), then the rows `block` (replicate)
        and `residual` with the variance of one trial, their shares being of cell terms + block + residual. Intervals
        of shares by the delete-one-replicate jackknife with Student's t, within [0, 1].

    Raises:
        ValueError: If a column is missing, there are fewer than 2 replicates, or the cells are no full factorial
            within each loss.

    Source: Hutter, Hoos, Leyton-Brown 2014 (functional ANOVA); docs/method.md 6.
    """
    if missing := sorted({"cell", "replicate", metric, *factors} - set(table.columns)):
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(table.columns)}.")
    rows = confirmed(table)
    names = list(rows.cell.unique())
    values = paired(rows, {name: [name] for name in names}, metric).dropna().T
    if values.shape[1] < 2:
        raise ValueError(f"effects need at least 2 replicates, got {values.shape[1]} that every cell has.")
    cells = rows.drop_duplicates("cell").set_index("cell").loc[values.index, list(factors)]
    terms = list(_terms(cells))
    variances, noise = _variances(values.to_numpy(), terms)
    shares = _shares(variances, noise)
    low, high = _jackknife(values.to_numpy(), terms, shares)
    names = [*(term.name for term in terms), "block", "residual"]
    found = zip(names, [*variances, *noise], shares, low, high, strict=True)
    return pd.DataFrame(list(found), columns=list(_COLUMNS))


@dataclass(frozen=True)
class _Term:
    """A term as a quadratic form of the cell means m: V = m' Q m, which noise of variance tau^2 raises by tau^2 tr Q."""

    name: str
    form: np.ndarray


def _terms(cells: pd.DataFrame) -> Iterator[_Term]:
    """Terms that exist, main effects first."""
    names = [str(name) for name in cells]
    nested = [name for name in names if cells[name].isna().any() and not cells[name].isna().all()]
    crossed = [name for name in names if name not in nested and cells[name].nunique(dropna=False) > 1]
    if nested and "loss" not in cells:
        raise ValueError(f"{nested[0]} is empty in some cells, so it is nested in the loss; give loss as a factor.")
    _require_factorial(cells, crossed, nested)
    weights = _measure(cells, crossed)
    for size in range(1, len(crossed) + len(nested) + 1):
        for own in itertools.combinations([*crossed, *nested], size):
            inner = [name for name in own if name in nested]
            if inner and "loss" in own:
                continue  # what is nested in the loss has no term of its own with it
            form = _form(cells, weights, own, given=("loss",) if inner else ())
            if np.trace(form) > 1e-12:
                yield _Term(":".join(own) + ("|loss" if inner else ""), form)


def _require_factorial(cells: pd.DataFrame, crossed: Sequence[str], nested: Sequence[str]) -> None:
    """Within each loss, every combination of the values of its factors is there, once."""
    for loss, mine in cells.groupby("loss", dropna=False) if "loss" in cells else [("all", cells)]:
        names = [name for name in (*crossed, *nested) if name != "loss"]
        expected = int(np.prod([mine[name].nunique(dropna=False) for name in names]))
        if len(mine) != expected or (names and mine.duplicated(names).any()):
            raise ValueError(
                f"effects need a full factorial: {loss} has {len(mine)} cells, its factors {names} span {expected}."
            )


def _measure(cells: pd.DataFrame, crossed: Sequence[str]) -> np.ndarray:
    """Weight of each cell: combinations of crossed factors equally, cells equally within each."""
    if not crossed:
        return np.full(len(cells), 1 / len(cells))
    group = cells.groupby(list(crossed), dropna=False).ngroup()
    weights = 1 / group.map(group.value_counts()).to_numpy(dtype=float)
    return np.asarray(weights / weights.sum())


def _form(cells: pd.DataFrame, weights: np.ndarray, own: Sequence[str], given: tuple[str, ...]) -> np.ndarray:
    """Q = P' D P with P the projection on a term: inclusion and exclusion of conditional means."""
    projection = np.zeros((len(cells), len(cells)))
    for size in range(len(own) + 1):
        for subset in itertools.combinations(own, size):
            projection += (-1) ** (len(own) - size) * _conditional_mean(cells, weights, (*given, *subset))
    return np.asarray(projection.T @ (weights[:, None] * projection))


def _conditional_mean(cells: pd.DataFrame, weights: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """A with (A f)(x) the mean of f over the cells that agree with x in these factors."""
    if not names:
        return np.tile(weights, (len(cells), 1))
    group = cells.groupby(list(names), dropna=False).ngroup().to_numpy()
    agree = (group[:, None] == group[None, :]) * weights[None, :]
    return np.asarray(agree / agree.sum(axis=1, keepdims=True))


def _variances(values: np.ndarray, terms: Sequence[_Term]) -> tuple[np.ndarray, np.ndarray]:
    """Noise-corrected variance of each term; variances of block and residual.

    Args:
        values: (cells, replicates), complete.
        terms: Of the cells.
    """
    residual, block = _noise(values)
    means, trials = values.mean(axis=1), values.shape[1]
    found = [means @ t.form @ means - residual * float(np.trace(t.form)) / trials for t in terms]
    return np.maximum(found, 0.0), np.array([block, residual])


def _noise(values: np.ndarray) -> tuple[float, float]:
    """Mean square of cell x replicate, and the variance component of the replicates, from an additive model."""
    n, r = values.shape
    blocks = values.mean(axis=0) - values.mean()
    rest = values - values.mean(axis=1, keepdims=True) - blocks
    freedom = (n - 1) * (r - 1)
    residual = float((rest**2).sum() / freedom) if freedom > 0 else 0.0
    return residual, max(0.0, float(blocks @ blocks / (r - 1)) - residual / n)


def _shares(variances: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Of cell terms among each other; of block and residual in the variance of one trial."""
    cells, one_trial = variances.sum(), variances.sum() + noise.sum()
    own = variances / cells if cells > 0 else np.full(len(variances), np.nan)
    return np.concatenate([own, noise / one_trial if one_trial > 0 else np.full(2, np.nan)])


def _jackknife(values: np.ndarray, terms: Sequence[_Term], shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intervals of the shares; NaN with fewer than 3 replicates."""
    low, high = jackknife(values, lambda part: _shares(*_variances(part, terms)), shares)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)
