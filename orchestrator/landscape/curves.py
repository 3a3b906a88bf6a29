"""Learning curves of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.landscape.values import arm_values, bounds_of, confirmed, mean_interval


def learning_curves(table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Validation accuracy by epoch of each level: mean over contexts, 95 % t interval over replicates.

    Returns:
        level, epoch, mean, low, high.
    """
    curves = {r["trial_id"]: r["curve"] for r in records if r["kind"] == "result"}
    rows = confirmed(table)
    points = pd.DataFrame(
        [
            (row["cell"], row["replicate"], point["epoch"], point["val_accuracy"])
            for row in rows.to_dict("records")
            for point in curves.get(row["trial_id"], [])
        ],
        columns=["cell", "replicate", "epoch", "value"],
    )
    out = []
    for level, arms in arm_values(table).groupby("level", sort=False):
        mine = points[points.cell.isin(cell for members in arms.members for cell in members)]
        by_replicate = mine.groupby(["epoch", "replicate"]).value.mean()
        out += [
            (level, epoch, *mean_interval(x.to_numpy(), bounds_of("val_accuracy")))
            for epoch, x in by_replicate.groupby("epoch")
        ]
    return pd.DataFrame(out, columns=["level", "epoch", "mean", "low", "high"])
