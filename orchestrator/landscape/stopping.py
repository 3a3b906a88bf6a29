"""What early stopping did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from scipy import stats

from orchestrator.landscape.values import selected_for

#: Trials that a rank correlation needs at least.
MIN_STRATUM: Final = 3


@dataclass(frozen=True, slots=True)
class StoppingSummary:
    """Early stopping in numbers.

    Attributes:
        trials: `tune` trials that ended.
        stopped: Of these, stopped.
        audited: Stop decisions that were recorded and not executed.
        audited_won: Audited trials that became their cell's best draw after all.
        won_low, won_high: 95 % Clopper-Pearson interval of that share; NaN without audits.
        epochs_saved_frac: Share of the `tune` stage's epochs that stopping saved (not: that diverging did).
    """

    trials: int
    stopped: int
    audited: int
    audited_won: int
    won_low: float
    won_high: float
    epochs_saved_frac: float


def summarise_stopping(table: pd.DataFrame, full_epochs: Mapping[str, int]) -> StoppingSummary:
    """Count what early stopping did.

    Args:
        table: The tidy table.
        full_epochs: Epochs of a full training, by cell.
    """
    tune = table[(table.stage == "tune") & table.status.isin(["finished", "stopped"])]
    wanted = sum(full_epochs[cell] for cell in tune.cell)
    audited = tune[tune.audited.astype(bool)]
    chosen = selected_for("best", table)[["cell", "draw"]].drop_duplicates()
    won = audited.merge(chosen, on=["cell", "draw"])
    stopped = tune[tune.status == "stopped"]
    missed = sum(full_epochs[cell] - epochs for cell, epochs in zip(stopped.cell, stopped.epochs, strict=True))
    interval = stats.binomtest(len(won), len(audited)).proportion_ci() if len(audited) else None
    return StoppingSummary(
        trials=len(tune),
        stopped=len(stopped),
        audited=len(audited),
        audited_won=len(won),
        won_low=float(interval.low) if interval else math.nan,
        won_high=float(interval.high) if interval else math.nan,
        epochs_saved_frac=missed / wanted if wanted else 0.0,
    )


def rung_table(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Decisions by rung: arrivals, stops, audits."""
    decisions = pd.DataFrame([r for r in records if r["kind"] == "decision"])
    if decisions.empty:
        return pd.DataFrame(columns=["rung_epochs", "arrived", "stopped", "audited"])
    counts = decisions.groupby(["rung_epochs", "action"]).size().unstack(fill_value=0)
    table = pd.DataFrame({"arrived": counts.sum(axis=1)})
    table["stopped"] = counts.get("stop", 0)
    table["audited"] = counts.get("audit", 0)
    return table.reset_index()


def early_stopping_safety(table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Does accuracy at a rung foretell accuracy at the end? From `tune` trials that got there, audited ones included.

    Args:
        table: The tidy table.
        records: The journal: decisions say where the rungs are, results hold the curves.

    Returns:
        rung_epochs, n (trials), across (Spearman's rho over all of them), within (mean rho over cells with at least 3
        such trials), strata (how many cells those are); NaN where there are too few. Stopped trials are missing, so that
        a rho over the better trials alone is, if anything, too small.

    Source: docs/method.md 10.
    """
    curves = {r["trial_id"]: r["curve"] for r in records if r["kind"] == "result"}
    ended = table[(table.stage == "tune") & (table.status == "finished") & table.trial_id.isin(curves)]
    rows = []
    for rung in sorted({r["rung_epochs"] for r in records if r["kind"] == "decision"}):
        points = pd.DataFrame(
            [(cell, *_then_and_last(curves[trial], rung)) for trial, cell in ended[["trial_id", "cell"]].to_numpy()],
            columns=["cell", "then", "last"],
        ).dropna()
        groups = [g for _, g in points.groupby("cell") if len(g) >= MIN_STRATUM]
        within = [rho for g in groups if not math.isnan(rho := _spearman(g))]
        mean_within = sum(within) / len(within) if within else math.nan
        rows.append((rung, len(points), _spearman(points), mean_within, len(within)))
    return pd.DataFrame(rows, columns=["rung_epochs", "n", "across", "within", "strata"])


def _then_and_last(curve: Sequence[Mapping[str, Any]], rung: int) -> tuple[float, float]:
    """Validation at the first evaluation at or after a rung, and at the end; NaN if the curve ends before."""
    reached = [point["val_accuracy"] for point in curve if point["epoch"] >= rung]
    return (reached[0], reached[-1]) if len(reached) > 1 else (math.nan, math.nan)


def _spearman(points: pd.DataFrame) -> float:
    if len(points) < MIN_STRATUM or points.then.nunique() < 2 or points["last"].nunique() < 2:
        return math.nan
    return float(stats.spearmanr(points.then, points["last"]).statistic)
