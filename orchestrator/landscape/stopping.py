"""What early stopping did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from scipy import stats


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
    is_best = (table.stage == "confirm") & table.selected.str.contains("best")
    chosen = table[is_best][["cell", "draw"]].drop_duplicates()
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
