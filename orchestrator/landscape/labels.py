"""What labels are worth: accuracy as they are edited, and against the images and bytes that they take."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.values import by_replicate, cell_values, confirmed, mean_interval, require
from trainables.config import KNOBS

#: The loss that looks at no soft label.
_HARD = "ce"


def edit_curve(table: pd.DataFrame, knob: str) -> pd.DataFrame:
    """Accuracy at every value of an edit of labels, and its paired difference to the same cell with the label as it is.

    Args:
        table: The tidy table.
        knob: label_swap, label_top_k or label_temperature.

    Returns:
        One row per cell that has the edit: its arms, loss, other knobs and contexts, the knob, n, mean, low, high, and where the
        unedited cell was trained too difference, difference_low, difference_high (edited minus as it is).
    """
    require(table, knob)
    values, rows = cell_values(table), confirmed(table)
    settings = ["loss", *(k for k in KNOBS if k in values and k != knob), *table.attrs.get("contexts", [])]
    series = {cell: by_replicate(group, "test_accuracy") for cell, group in rows.groupby("cell")}
    found = []
    for _, group in values[values.n > 0].groupby(settings, sort=False, dropna=False):
        plain = group[group[knob].isna()].cell
        for row in group[group[knob].notna()].to_dict("records"):
            pairs = (series[row["cell"]] - series[plain.iloc[0]]).dropna().to_numpy() if len(plain) else np.empty(0)
            mean, low, high = mean_interval(pairs)
            found.append({**row, "difference": mean, "difference_low": low, "difference_high": high})
    columns = ["arms", *settings, knob, "cell", "n", "mean", "low", "high"]
    return pd.DataFrame(found, columns=[*columns, "difference", "difference_low", "difference_high"])


def label_costs(landscape: Landscape) -> pd.DataFrame:
    """Images and bytes of labels that somebody would have to be sent to train a cell's student.

    Returns:
        One row per cell: cell, images (N), label_bytes (of the files of soft labels, 0 where a cell uses none). Cells of
        sweeps from before bytes were counted are left out.
    """
    known = landscape.facts.get("data", {})
    rows = []
    for cell in landscape.plan.cells:
        about = known.get(landscape.plan.data_keys[cell.label], {})
        if "label_bytes" in about:
            label_bytes = 0 if cell.loss == _HARD else about["label_bytes"]
            rows.append({"cell": cell.label, "images": about["n_distilled"], "label_bytes": label_bytes})
    return pd.DataFrame(rows, columns=["cell", "images", "label_bytes"])


def pareto_front(points: pd.DataFrame, *, costs: Sequence[str], gain: str) -> pd.Series:
    """Which rows no other row beats: none costs as little or less of everything and gains as much or more, one of them strictly.

    Args:
        points: Without holes in these columns.
        costs: Columns of which less is better.
        gain: Column of which more is better.
    """
    values = np.column_stack([points[list(costs)].to_numpy(dtype=float), -points[gain].to_numpy(dtype=float)])
    no_worse = (values[:, None, :] <= values[None, :, :]).all(axis=2)  # [i, j]: i is no worse than j
    better = (values[:, None, :] < values[None, :, :]).any(axis=2)
    return pd.Series(~(no_worse & better).any(axis=0), index=points.index)


def storage_front(landscape: Landscape) -> pd.DataFrame:
    """Cells by what they cost and what they gain.

    Returns:
        One row per confirmed cell, but for those with swapped labels, which nobody would send: as `cell_values` with images, label_bytes, `front` (no cell has as few images, as few
        label bytes and as high a mean accuracy over the replicates that all have, and is better in one) and `front_share` (the share of replicates, of those
        that all cells have, in which that holds of their accuracies). A front per dataset, where there are several.
    """
    values = cell_values(landscape.table).merge(label_costs(landscape), on="cell")
    swapped = values["label_swap"].notna() if "label_swap" in values else False
    values = values[(values.n > 0) & ~swapped].reset_index(drop=True)
    if values.empty:
        return values.assign(front=[], front_share=[])
    if "dataset" in landscape.table.attrs.get("contexts", []):
        parts = [_front(part, landscape.table) for _, part in values.groupby("dataset", sort=False)]
        return pd.concat(parts, ignore_index=True)
    return _front(values, landscape.table)


def _front(values: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Which of these cells are on the front, and in how many seeds."""
    costs, rows = ["images", "label_bytes"], confirmed(table)
    series = {cell: by_replicate(group, "test_accuracy") for cell, group in rows.groupby("cell")}
    together = pd.concat([series[cell] for cell in values.cell], axis=1, join="inner").to_numpy().T
    per_seed = [
        pareto_front(values.assign(one=together[:, seed]), costs=costs, gain="one") for seed in range(together.shape[1])
    ]
    share = np.mean(per_seed, axis=0) if per_seed else np.full(len(values), np.nan)
    alike = together.mean(axis=1) if per_seed else values["mean"]  # means over other seeds are not to be compared
    return values.assign(front=pareto_front(values.assign(one=alike), costs=costs, gain="one"), front_share=share)
