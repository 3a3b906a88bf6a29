"""Learning curves of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.landscape.values import arm_values, bounds_of, confirmed, mean_interval, paired


def learning_curves(table: pd.DataFrame, records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Validation accuracy by epoch of each level: mean over contexts, 95 % t interval over replicates.

    A training that diverged stays at the chance level that it ended with. The replicates are those that all cells of the level have,
    and the epochs those at which all of them were evaluated, so that a curve is of the same trials from end to end.

    Returns:
        level, epoch, mean, low, high, n (replicates).
    """
    curves = {r["trial_id"]: r["curve"] for r in records if r["kind"] == "result"}
    rows = confirmed(table)
    out = []
    for level, arms in arm_values(table).groupby("level", sort=False):
        cells = [cell for members in arms.members for cell in members]
        points = _points(rows[rows.cell.isin(cells)], curves)
        complete = paired(rows, {"": cells}, "val_accuracy")[""].dropna().index
        for epoch, at in points[points.replicate.isin(complete)].groupby("epoch"):
            values = paired(at, {"": cells}, "value")[""].reindex(complete)
            if values.notna().all():
                out.append((level, epoch, *mean_interval(values.to_numpy(), bounds_of("val_accuracy")), len(values)))
    return pd.DataFrame(out, columns=["level", "epoch", "mean", "low", "high", "n"])


def _points(rows: pd.DataFrame, curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> pd.DataFrame:
    """cell, replicate, epoch, value of trials; after its end a diverged one has its last value wherever others of its cell have one."""
    seen = [
        (row["cell"], row["replicate"], point["epoch"], point["val_accuracy"], bool(row.get("diverged", False)))
        for row in rows.to_dict("records")
        for point in curves.get(row["trial_id"], [])
    ]
    points = pd.DataFrame(seen, columns=["cell", "replicate", "epoch", "value", "diverged"])
    parts = [_held(group) for _, group in points.groupby("cell")]
    return pd.concat(parts, ignore_index=True) if parts else points


def _held(points: pd.DataFrame) -> pd.DataFrame:
    """Points of one cell, with the last value of diverged trainings at all later epochs."""
    wide = points.pivot_table(index="epoch", columns="replicate", values="value")
    diverged = points.loc[points.diverged, "replicate"].unique()
    wide[diverged] = wide[diverged].ffill()
    long = wide.melt(ignore_index=False).dropna().reset_index()
    return long.assign(cell=points.cell.iloc[0])
