"""How much hangs on the loss, how much of that is learning rate, and how stable the answer is.

Notations: in a context every arm has a value, that of its representing cell; the range is the best minus the worst.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.landscape.values import (
    arm_values,
    confirmed,
    levels_of,
    mean_interval,
    means_in_common,
    paired,
    selected_for,
    tuned_validation,
)
from trainables.config import KNOBS

Matrix = pd.DataFrame


def sensitivity(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Range over arms, each at its own draw and all at one shared draw, in every context.

    Arms are represented by the same cells both times. At the shared draw the confirmed trials count where `confirm`
    includes `shared`. Else both ranges of the gap are those of `tune` validation, at the draw with the best mean over
    cells, without intervals, and cells that early stopping or divergence kept from full budget there are left out.

    Returns:
        contexts; best, worst (arms); tuned, tuned_low, tuned_high: range at own draws; shared_best, shared_worst, shared,
        shared_low, shared_high: the same at the shared draw; gap, gap_low, gap_high: shared - tuned, paired; source
        ("confirm" or "tune") and left_out (cells) of the shared range; n and shared_n: replicates that all arms have at their
        own draws, and also at the shared one.

    Source: docs/method.md 7. Intervals are of the difference between the two arms that are best and worst on average; being
    chosen for that makes a range too large where arms hardly differ.
    """
    contexts = list(table.attrs.get("contexts", []))
    rows = []
    for key, arms in _by_context(arm_values(table, metric), contexts):
        members = dict(zip(arms.level, arms.members, strict=True))
        values = paired(confirmed(table), members, metric)
        best, worst, *own = _range(values)
        row = dict(zip(contexts, key, strict=True)) | {"best": best, "worst": worst}
        row |= dict(zip(("tuned", "tuned_low", "tuned_high"), own, strict=True))
        here = table[table.cell.isin([cell for cells in members.values() for cell in cells])]
        shared = paired(_shared_rows(here), members, metric).dropna(axis=1, how="all")
        row |= _shared_range(values, shared) if shared.shape[1] > 1 else _shared_in_tune(here, table, members)
        rows.append(row | {"n": len(values.dropna())})
    return pd.DataFrame(rows)


def factor_drops(table: pd.DataFrame, factor: str = "optimizer", metric: str = "test_accuracy") -> pd.DataFrame:
    """What each arm loses from its best to its worst level of a factor: GIFT's cross-optimizer question.

    Returns:
        level (arm), best, worst (of the factor), n, drop, low, high; means over the other contexts, those that every one of
        the arm's values of the factor has.

    Source: docs/method.md 7. The two levels are those that are best and worst on average; see `sensitivity`.
    """
    arms, rows = arm_values(table, metric), []
    contexts = list(table.attrs.get("contexts", []))
    for level, mine in arms.groupby("level", sort=False):
        cells = {str(value): list(cells) for (_, value), cells in _alike(mine, factor, contexts).items()}
        if len(cells) < 2:
            continue
        values = paired(confirmed(table), cells, metric)
        best, worst, *interval = _range(values)
        rows.append((level, best, worst, len(values.dropna()), *interval))
    return pd.DataFrame(rows, columns=["level", "best", "worst", "n", "drop", "low", "high"])


def tunability(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """What an arm loses by keeping one of its knobs at one value instead of having it chosen with the others.

    In every context the arm's representing cell is set against its best one (by `tune` validation) among those with
    the knob at that value; differences are paired by replicate and averaged over contexts.

    Returns:
        level, knob, value, n, lost (0 where the value is the chosen one everywhere), low, high. A value that does not
        exist in some context has no row.

    Source: docs/method.md 9; Probst et al. 2019 (JMLR 20), tunability of one hyperparameter, there against a package default.
    """
    confirm, validation, rows = confirmed(table), tuned_validation(table), []
    arms, contexts = arm_values(table, metric), list(table.attrs.get("contexts", []))
    knobs = [name for name in KNOBS if name in table]
    for level, owned in levels_of(table).items():
        cells = confirm[confirm.cell.isin(owned)].drop_duplicates("cell")
        mine = arms[arms.level == level]
        for knob, value in ((name, v) for name in knobs for v in _several(cells[name])):
            kept = {k: g.cell for k, g in _by_context(cells[cells[knob] == value], contexts)}
            best = [validation.reindex(cells_there).idxmax() for cells_there in kept.values()]
            if len(best) < len(mine):
                continue
            used = {"tuned": [c for members in mine.members for c in members], "kept": best}
            values = paired(confirm, used, metric).dropna()
            rows.append((level, knob, value, len(values), *mean_interval((values.tuned - values.kept).to_numpy())))
    return pd.DataFrame(rows, columns=["level", "knob", "value", "n", "lost", "low", "high"])


def _several(values: pd.Series) -> list[Any]:
    """Distinct values of a knob, if an arm has several to choose from."""
    distinct = sorted(values.dropna().unique())
    return distinct if len(distinct) > 1 else []


def rank_stability(table: pd.DataFrame, metric: str = "test_accuracy") -> pd.DataFrame:
    """Kendall's tau between rankings of the arms: between replicates, and between the levels of each context factor.

    Returns:
        between ("replicates" or a factor), pairs, tau (mean over pairs), lowest, n (replicates that all arms have everywhere).
        An arm that is missing in a level of a factor is left out of the rankings between its levels.
    """
    arms, contexts = arm_values(table, metric), list(table.attrs.get("contexts", []))
    most = arms.groupby("level").size()
    full = arms[arms.level.map(most) == most.max()]
    cells = {str(level): [c for m in g.members for c in m] for level, g in full.groupby("level", sort=False)}
    rankings: dict[str, Matrix] = {"replicates": paired(confirmed(table), cells, metric).dropna()}
    seeds = dict.fromkeys(["replicates", *contexts], len(rankings["replicates"]))
    for factor in contexts:
        values = paired(confirmed(table), _alike(arms, factor, contexts), metric).dropna()
        rankings[factor], seeds[factor] = _by_value(values), len(values)
    rows = []
    for between, values in rankings.items():
        taus = [
            float(stats.kendalltau(a, b).statistic)
            for a, b in itertools.combinations(values.to_numpy(), 2)
            if len(a) > 1
        ]
        taus = [tau for tau in taus if not math.isnan(tau)]  # not defined where all arms tie
        if taus:
            rows.append((between, len(taus), float(np.mean(taus)), min(taus), seeds[between]))
    return pd.DataFrame(rows, columns=["between", "pairs", "tau", "lowest", "n"])


def _by_value(values: Matrix) -> Matrix:
    """Means over replicates by the value of a factor (rows) and arm (columns)."""
    if values.empty:
        return pd.DataFrame()
    return values.mean().rename_axis(["level", "value"]).unstack("level", sort=False)


def _alike(arms: pd.DataFrame, factor: str, contexts: list[str]) -> dict[tuple[str, Any], list[str]]:
    """Cells that represent each arm at each value of a factor, over the same other contexts everywhere.

    Arms that lack a value of the factor are left out, unless there is one arm alone.
    """
    others = [name for name in contexts if name != factor]
    keys = arms[others].astype(str).agg("|".join, axis=1) if others else pd.Series("", index=arms.index)
    spread = arms.assign(other=keys)
    values = spread.groupby("level")[factor].transform("nunique")
    spread = spread[values == spread[factor].nunique()]
    places = [set(g.other) for _, g in spread.groupby(["level", factor], sort=False)]
    shared = spread[spread.other.isin(set.intersection(*places) if places else set())]
    return {
        (str(level), value): [c for members in g.members for c in members]
        for (level, value), g in shared.groupby(["level", factor], sort=False)
    }


def _by_context(frame: pd.DataFrame, contexts: list[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    if not contexts:
        yield (), frame
        return
    yield from frame.groupby(contexts, sort=False, dropna=False)


def _range(values: Matrix) -> tuple[str, str, float, float, float]:
    """Best and worst column by their mean over the replicates that all have, and the interval of their difference."""
    values = values.dropna()
    if values.empty:
        return "", "", math.nan, math.nan, math.nan
    means = values.mean()
    best, worst = str(means.idxmax()), str(means.idxmin())
    return best, worst, *mean_interval((values[best] - values[worst]).dropna().to_numpy())


def _shared_rows(here: pd.DataFrame) -> pd.DataFrame:
    """Confirmed trials of the shared draw."""
    if "selected" not in here:
        return here.iloc[:0]
    rows = selected_for("shared", here)
    return rows[rows.status == "finished"]


def _shared_range(own: Matrix, shared: Matrix) -> dict[str, Any]:
    """Range over arms at the shared draw, and by how much it differs from that at own draws, replicate by replicate."""
    both = own[list(shared)].dropna().index.intersection(shared.dropna().index)
    own, shared = own.loc[both, list(shared)], shared.loc[both]
    best, worst, spread, low, high = _range(shared)
    own_best, own_worst, *_ = _range(own)
    gaps = (shared[best] - shared[worst]) - (own[own_best] - own[own_worst]) if len(both) else pd.Series(dtype=float)
    gap, gap_low, gap_high = mean_interval(gaps.to_numpy())
    return {
        "shared_best": best,
        "shared_worst": worst,
        "shared": spread,
        "shared_low": low,
        "shared_high": high,
        "gap": gap,
        "gap_low": gap_low,
        "gap_high": gap_high,
        "source": "confirm",
        "left_out": 0,
        "shared_n": len(both),
    }


def _shared_in_tune(here: pd.DataFrame, table: pd.DataFrame, members: Mapping[str, Any]) -> dict[str, Any]:
    """Ranges of validation: at the draw with the best mean over cells, of arms whose cells got to the end there.

    Draws are compared where all of them have a cell and tune replicate, arms at the replicates that all have.
    """
    missing = ("shared", "shared_low", "shared_high", "gap", "gap_low", "gap_high")
    nothing = dict.fromkeys(missing, math.nan) | {
        "shared_best": "",
        "shared_worst": "",
        "source": "none",
        "left_out": 0,
        "shared_n": 0,
    }
    tune = here[(here.stage == "tune") & here.status.isin(["finished", "stopped"]) & here.val_accuracy.notna()]
    if tune.empty:
        return nothing
    draw = means_in_common(
        tune.pivot_table(index=["cell", "replicate"], columns="draw", values="val_accuracy")
    ).idxmax()
    ended = tune[(tune.draw == draw) & (tune.status == "finished") & ~tune.diverged.astype(bool)]
    there = means_in_common(ended.pivot_table(index="replicate", columns="cell", values="val_accuracy"))
    chosen = tuned_validation(table)
    arms = {level: there.reindex(list(cells)).mean() for level, cells in members.items()}
    known = {level: value for level, value in arms.items() if not math.isnan(value)}
    if len(known) < 2:
        return nothing
    own = [chosen.reindex(list(members[level])).mean() for level in known]
    spread = max(known.values()) - min(known.values())
    return nothing | {
        "shared_best": max(known, key=lambda level: known[level]),
        "shared_worst": min(known, key=lambda level: known[level]),
        "shared": spread,
        "gap": spread - (max(own) - min(own)),
        "source": "tune",
        "left_out": here.cell.nunique() - len(there),
    }
