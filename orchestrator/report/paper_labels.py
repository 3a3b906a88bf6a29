"""Figures about the labels themselves as files: the teacher's epoch, edits, images per class, bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from orchestrator.report.figures import COLOURS, accuracy_range
from orchestrator.report.findings import IPC, Findings
from orchestrator.report.html import cell_names, context_name
from orchestrator.report.panels import EDITS, EPOCH, Panel, edit_panels, epoch_panels, has_storage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ERRORS: Final = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 50, 70, 100)
_BAR: Final = {"fmt": "o-", "markersize": 3.5, "capsize": 2, "linewidth": 1.2}


def draw_epoch(found: Findings, drawing: Figure) -> bool:
    """Accuracy against the teacher's epoch; False where that does not vary."""
    return _draw_lines(epoch_panels(found), EPOCH, "epochs of the teacher", drawing)


def draw_swap(found: Findings, drawing: Figure) -> bool:
    """Accuracy against which logit was swapped with the smallest; False where none was."""
    return _draw_edit(found, "label_swap", drawing)


def draw_top_k(found: Findings, drawing: Figure) -> bool:
    """Accuracy against the number of classes that labels keep; False where they keep all."""
    return _draw_edit(found, "label_top_k", drawing)


def _draw_edit(found: Findings, knob: str, drawing: Figure) -> bool:
    return _draw_lines(edit_panels(found, knob), knob, EDITS[knob], drawing)


def _draw_lines(panels: list[Panel], factor: str, title: str, drawing: Figure) -> bool:
    """One panel per context, one line per name, dashed references."""
    if not panels:
        return False
    every = pd.concat([panel.cells for panel in panels])
    low, high = accuracy_range(pd.concat([every["mean"], *(panel.beside["mean"] for panel in panels)]))
    row = drawing.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, panel in zip(row, panels, strict=True):
        for number, (name, mine) in enumerate(panel.cells.groupby("line", sort=False)):
            mine = mine.sort_values(factor)
            error = 100 * (mine.high - mine["mean"]).fillna(0)
            style = {**_BAR, "color": COLOURS[number % len(COLOURS)]}
            axes.errorbar(mine[factor], 100 * mine["mean"], yerr=error, label=str(name), **style)
        for line in panel.beside.to_dict("records"):
            axes.axhline(100 * line["mean"], color="0.5", linewidth=0.8, linestyle="--")
            axes.annotate(
                line["arms"],
                (1, 100 * line["mean"]),
                xycoords=("axes fraction", "data"),
                fontsize=7,
                ha="right",
                annotation_clip=True,
            )
        axes.set(xlabel=title, title=panel.name, ylim=(low, high))
        _log_if_wide(axes, every[factor])
    row[0].set_ylabel("test accuracy, %")
    row[0].legend(fontsize=7)
    return True


def _log_if_wide(axes: Axes, values: pd.Series) -> None:
    ticks = sorted(values.unique())
    if min(ticks) > 0 and max(ticks) >= 10 * min(ticks):
        axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.minorticks_off()


def draw_scaling(found: Findings, drawing: Figure) -> bool:
    """Error against images per class with the fitted laws; False where there are none."""
    if not found.scaling:
        return False
    axes = drawing.add_subplot()
    for number, (key, law) in enumerate(found.scaling.items()):
        at, colour = law.points, COLOURS[number % len(COLOURS)]
        error = 100 * (at.high - at.accuracy).fillna(0)
        axes.errorbar(
            at.x,
            100 * (1 - at.accuracy),
            yerr=error,
            fmt="o",
            markersize=4,
            capsize=2,
            color=colour,
            label=context_name(key),
        )
        along = np.clip(np.geomspace(at.x.min(), at.x.max(), 60), at.x.min(), at.x.max())
        axes.plot(along, [100 * (1 - law.at(float(x))) for x in along], color=colour, linewidth=1)
    axes.set(xlabel="images per class", ylabel="test error, % (points and fitted law)", yscale="log")
    _log_if_wide(axes, found.table[IPC].dropna())
    errors = 100 * (1 - pd.concat([law.points.accuracy for law in found.scaling.values()]))
    ticks = [tick for tick in _ERRORS if errors.min() / 1.5 <= tick <= 1.5 * errors.max()]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.legend(fontsize=7)
    return True


def draw_storage(found: Findings, drawing: Figure) -> bool:
    """Accuracy against label bytes, the Pareto front filled; False where they do not vary."""
    front = found.storage
    if not has_storage(front):
        return False
    axes = drawing.add_subplot()
    contexts = list(found.table.attrs.get("contexts", []))
    for is_on in (True, False):
        mine = front[front.front == is_on]
        error = 100 * (mine.high - mine["mean"]).fillna(0)
        axes.errorbar(
            mine.label_bytes,
            100 * mine["mean"],
            yerr=error,
            fmt="o",
            markersize=5,
            capsize=2,
            color=COLOURS[0],
            markerfacecolor=COLOURS[0] if is_on else "none",
            label="on the Pareto front" if is_on else "beaten",
        )
    named = front[front.front]
    for name, row in zip(cell_names(named, contexts), named.to_dict("records"), strict=True):
        place = (row["label_bytes"], 100 * row["mean"])
        axes.annotate(name, place, xytext=(3, 3), textcoords="offset points", fontsize=6)
    least = front.label_bytes[front.label_bytes > 0].min()
    axes.set_xscale("symlog", linthresh=float(least))
    axes.set(xlabel="bytes of labels", ylabel="test accuracy, %", ylim=accuracy_range(front["mean"]))
    axes.legend(fontsize=7)
    return True


#: By file name.
DRAWINGS: Final[Mapping[str, Callable[[Findings, Any], bool]]] = {
    "epoch": draw_epoch,
    "swap": draw_swap,
    "top_k": draw_top_k,
    "scaling": draw_scaling,
    "storage": draw_storage,
}
