"""Values of cells and arms, with intervals over replicates.

Notations: R replicates, the same seeds in every cell; x_r one test accuracy in [0, 1]; a level is an arm, or several
arms that own the same cells; a context is one combination of the factors that no loss owns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import stats

from trainables.config import KNOBS

CONFIDENCE: Final = 0.95
#: Said wherever intervals of two numbers are shown: Student's t has one degree of freedom, and its quantile is 12.7.
TWO_SEEDS: Final = (
    "Two seeds are too few: such an interval is about 12 times as wide as that of ten seeds would be, and rests on normal "
    "noise that two numbers cannot show. Use at least 3."
)


def mean_interval(
    values: Sequence[float] | np.ndarray, within: tuple[float, float] = (-math.inf, math.inf)
) -> tuple[float, float, float]:
    """Mean and its 95 % Student t interval.

    mean +- t_{0.975, n - 1} sd / sqrt(n), cut at `within`

    Args:
        values: n numbers; with fewer than two there is no interval. With two it is defined, but far too wide to be of use.
        within: Bounds of what the mean can be, such as 0 and 1 for an accuracy. What is cut off cannot hold the mean, so
            the interval covers it as often as before.

    Returns:
        (mean, low, high); NaN where not defined.

    Source: Student 1908; docs/method.md 2 says why not the bootstrap.
    """
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return math.nan, math.nan, math.nan
    if len(x) == 1:
        return float(x[0]), math.nan, math.nan
    half = stats.t.ppf((1 + CONFIDENCE) / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return float(x.mean()), max(float(x.mean() - half), within[0]), min(float(x.mean() + half), within[1])


def bounds_of(metric: str) -> tuple[float, float]:
    """What the mean of a column can be: an accuracy lies between 0 and 1."""
    return (0.0, 1.0) if "accuracy" in metric else (-math.inf, math.inf)


def require(table: pd.DataFrame, *columns: str) -> None:
    """Refuse a table that lacks a column, saying what it has.

    Raises:
        ValueError: If a column is missing.
    """
    if missing := [name for name in columns if name not in table]:
        raise ValueError(f"the table has no column {missing[0]!r}; it has {list(table.columns)}.")


def confirmed(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that enter cell values: finished `confirm` trials of the best draw (diverged ones count as they are)."""
    require(table, "cell", "stage", "status", "replicate")
    rows = selected_for("best", table) if "selected" in table else table[table.stage == "confirm"]
    return rows[rows.status == "finished"]


def selected_for(what: str, table: pd.DataFrame) -> pd.DataFrame:
    """`confirm` rows, ended or not, of the draw that was selected as "best" or as "shared"."""
    return table[(table.stage == "confirm") & table.selected.fillna("").str.contains(what)]


def diverged(table: pd.DataFrame) -> pd.Series:
    """Which trials diverged; none where a table does not say."""
    return table.diverged.astype(bool) if "diverged" in table else pd.Series(False, index=table.index)


def tuned_validation(table: pd.DataFrame) -> pd.Series:
    """Mean validation accuracy in `tune` of the draw that was confirmed, by cell; the quantity that arms choose by.

    The mean is over the tune replicates that all cells have; see `means_in_common`.
    """
    tune = table[(table.stage == "tune") & (table.status == "finished") & ~diverged(table)]
    if tune.empty:
        return pd.Series(dtype=float, index=pd.Index([], name="cell"))
    chosen = confirmed(table)[["cell", "draw"]].drop_duplicates()
    rows = tune.merge(chosen, on=["cell", "draw"])
    return means_in_common(rows.pivot_table(index="replicate", columns="cell", values="val_accuracy"))


def cell_values(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Mean over replicates of every cell.

    Returns:
        One row per cell of the table, in its order: cell, arms, loss, knobs and contexts, n, mean, low, high, sd,
        diverged (how many of n), validation (of the confirmed draw in `tune`).
    """
    require(table, metric)
    rows = confirmed(table)
    outcome = ["trial_id", "stage", "replicate", "draw", "status", "stopped_by", "audited", "diverged", "selected"]
    outcome += ["epochs", "val_accuracy", "test_accuracy", "test_accuracy_max", "train_s", "run_id"]
    settings = table.drop(columns=outcome, errors="ignore")
    tuned = [
        name for name, most in settings.groupby("cell").nunique().max().items() if most > 1
    ]  # differs within a cell
    cells = settings.drop(columns=tuned).drop_duplicates("cell").set_index("cell")
    by_cell = rows.groupby("cell")
    measured = {
        cell: (len(g), *mean_interval(g[metric].to_numpy(), bounds_of(metric)), g[metric].std(), diverged(g).sum())
        for cell, g in by_cell
    }
    columns = ["n", "mean", "low", "high", "sd", "diverged"]
    values = pd.DataFrame.from_dict(measured, orient="index", columns=columns)
    values = cells.join(values).join(tuned_validation(table).rename("validation"))
    values[["n", "diverged"]] = values[["n", "diverged"]].fillna(0).astype(int)
    return values.rename_axis("cell").reset_index()


def read_table(path: str | Path) -> pd.DataFrame:
    """A table that LossAtlas wrote (.csv or .parquet), with its contexts in `attrs["contexts"]`.

    Without contexts the statistics would choose one cell per arm over all optimizers, students and datasets.
    """
    path = Path(path)
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    settings = [str(name) for name in table if name not in KNOBS]
    labels = table.cell.astype(str)
    table.attrs["contexts"] = [name for name in settings if labels.str.contains(f",{name}=", regex=False).any()]
    return table


def levels_of(table: pd.DataFrame) -> dict[str, list[str]]:
    """Cells per level. Arms with equal sets of cells are one level, named "kl = soft_ce".

    A table without arms has its losses as arms, one without losses its cells.
    """
    owned: dict[str, set[str]] = {}
    names = next(name for name in ("arms", "loss", "cell") if name in table)
    for cell, arms in table[["cell"]].assign(arms=table[names]).drop_duplicates().itertuples(index=False):
        for arm in arms.split("|"):
            owned.setdefault(arm, set()).add(cell)
    order = list(table.cell.drop_duplicates())
    named: dict[frozenset[str], list[str]] = {}
    for arm, cells in owned.items():
        named.setdefault(frozenset(cells), []).append(arm)
    return {" = ".join(sorted(arms)): [c for c in order if c in cells] for cells, arms in named.items()}


def arm_values(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Every level in every context, represented by its cell with the best `tune` validation.

    Where nothing was tuned there is nothing to choose by: the mean of the level's cells represents it.

    Returns:
        One row per level and context: level, contexts, cell (or "mean of k cells"), members (labels of the cells that
        represent it), cells (searched), n, mean, low, high, validation.
    """
    contexts = list(table.attrs.get("contexts", []))
    values, confirm = cell_values(table, metric), confirmed(table)
    is_tuned = bool((table.stage == "tune").any())
    rows = []
    for level, cells in levels_of(table).items():
        mine = values[values.cell.isin(cells) & (values.n > 0)]
        groups = mine.groupby(contexts, dropna=False) if contexts else [((), mine)]
        for key, group in groups:
            if len(group) == 0:
                continue
            best = group.iloc[[int(group.validation.fillna(-1).to_numpy().argmax())]]
            used = best if is_tuned else group
            x = by_replicate(confirm[confirm.cell.isin(used.cell)], metric)
            mean, low, high = mean_interval(x.to_numpy(), bounds_of(metric))
            name = used.cell.iloc[0] if len(used) == 1 else f"mean of {len(used)} cells"
            row = {"level": level, **dict(zip(contexts, key, strict=True)), "cell": name, "members": tuple(used.cell)}
            row |= {"n": len(x), "mean": mean, "low": low, "high": high, "validation": used.validation.mean()}
            rows.append({**row, "cells": len(group)})
    columns = ["level", *contexts, "cell", "members", "n", "mean", "low", "high", "validation", "cells"]
    return pd.DataFrame(rows, columns=columns)


def ranking(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Levels by their mean over contexts, best first, each with its paired difference to the best.

    Per replicate, a level's value is the mean over contexts of its representing cells, so intervals are over
    replicates and differences are paired (docs/method.md 3 and 4). A replicate counts where all levels have it in every context.
    A level with fewer contexts than others, or so few replicates that fewer than two would be common to all, comes after them
    with the mean over its own replicates and no difference to the best.

    Returns:
        level, mean, low, high, n (replicates), contexts, cells (searched), behind, behind_low, behind_high.
    """
    columns = ["level", "mean", "low", "high", "n", "contexts", "cells"]
    arms = arm_values(table, metric)
    if arms.empty:
        return pd.DataFrame(columns=[*columns, "behind", "behind_low", "behind_high"])
    rows = confirmed(table)
    values_of = {str(level): _over_contexts(rows, g.members, metric) for level, g in arms.groupby("level")}
    n_cells, n_contexts = arms.groupby("level").cells.sum(), arms.groupby("level").size()
    together = in_common({level: x for level, x in values_of.items() if n_contexts[level] == n_contexts.max()})
    used = values_of | {str(level): together[level] for level in together}
    values = [
        (level, *mean_interval(x.to_numpy(), bounds_of(metric)), len(x), n_contexts[level], n_cells[level])
        for level, x in used.items()
    ]
    ranked = pd.DataFrame(values, columns=columns).assign(compared=lambda frame: frame.level.isin(together.columns))
    ranked = ranked.sort_values(["contexts", "compared", "mean"], ascending=False, ignore_index=True)
    best = used[ranked.level[0]]
    behind = [mean_interval((best - used[level]).to_numpy() if level in together else []) for level in ranked.level]
    ranked[["behind", "behind_low", "behind_high"]] = behind
    return ranked.drop(columns="compared")


def _over_contexts(rows: pd.DataFrame, members: Iterable[Sequence[str]], metric: str) -> pd.Series:
    """Mean over contexts of the mean over each one's cells, of the replicates that all of them have."""
    return paired(rows, dict(enumerate(members)), metric).mean(axis=1, skipna=False).dropna()


def jackknife(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], whole: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """95 % intervals of statistics by leaving out one replicate at a time, with Student's t.

    Args:
        values: (cells, R).
        statistic: Of such values, (m,).
        whole: The statistics of all of them.

    Returns:
        (low, high), (m,) each; NaN with fewer than 3 replicates.

    Source: Efron and Tibshirani 1993, chapter 11.
    """
    r = values.shape[1]
    if r < 3:
        return np.full(len(whole), np.nan), np.full(len(whole), np.nan)
    without = np.array([statistic(np.delete(values, i, axis=1)) for i in range(r)])
    error = np.sqrt((r - 1) / r * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = stats.t.ppf((1 + CONFIDENCE) / 2, r - 1) * error
    return whole - half, whole + half


def paired(rows: pd.DataFrame, cells: Mapping[Any, Iterable[str]], metric: str) -> pd.DataFrame:
    """Means over cells, replicate by replicate: the one place where trials that are missing are dealt with.

    A replicate that one of a name's cells lacks has no mean of that name: a mean over the cells that are left would be one over other
    settings. So a statistic on replicates without holes is what it would be had they been the only ones.

    Args:
        rows: One per cell and replicate.
        cells: By name.
        metric: Column that is averaged.

    Returns:
        Replicates (rows) by names (columns), NaN where a cell is missing.
    """
    wide = rows.pivot_table(index="replicate", columns="cell", values=metric)
    return pd.DataFrame(
        {name: wide.reindex(columns=list(mine)).mean(axis=1, skipna=False) for name, mine in cells.items()},
        index=wide.index,
    )


def means_in_common(values: pd.DataFrame) -> pd.Series:
    """Mean of each column over the replicates (rows) that all columns have, so that no seed makes one better or worse.

    Where they have none in common, the one that most columns have counts, and the others have no mean.

    Args:
        values: Replicates by what is compared. A column without any value has no mean and takes none away from the others.
    """
    known = values.dropna(axis=1, how="all")
    common = known.dropna()
    if common.empty and not known.empty:
        common = known.loc[[known.count(axis=1).idxmax()]]
    return common.mean().reindex(values.columns)


def in_common(values: Mapping[str, pd.Series]) -> pd.DataFrame:
    """What is ranked (columns) by the replicates that all of it has (rows).

    Where fewer than two would be common (or than one, where none has two), what has the fewest replicates is left out.
    """
    wide = pd.DataFrame(values)
    while wide.shape[1] > 1 and len(wide.dropna()) < min(2, wide.count().max()):
        wide = wide.drop(columns=wide.iloc[:, ::-1].count().idxmin())
    return wide.dropna()


def by_replicate(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over cells of each replicate that all of them have."""
    return paired(rows, {"mean": rows.cell.unique()}, metric)["mean"].dropna()
