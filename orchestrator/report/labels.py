"""Sections about the labels themselves: the teacher's epoch, edits, images per class, bytes. Each only where a space varies it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.landscape.scaling import AT_BOUND, PARAMETERS, PowerLaw, hard_label_worth
from orchestrator.report.curves import lines_figure, scaling_figure, storage_figure
from orchestrator.report.findings import IPC, Findings
from orchestrator.report.html import cell_names, context_name, figure, grid, interval, percent, points
from orchestrator.report.panels import EDITS, EPOCH, edit_panels, epoch_panels, has_storage


def teacher_epoch(found: Findings) -> Iterator[str]:
    """Accuracy against the epoch of the teacher's checkpoint, a line per label temperature."""
    panels = epoch_panels(found)
    if not panels:
        return
    yield figure(
        lines_figure(panels, EPOCH, "epochs of the teacher that says the labels"),
        "Test accuracy against the number of epochs after which the teacher was stopped, a line per label temperature, a panel "
        "per context; bars are 95 % t intervals over seeds. Data: <a href='cells.csv'>cells.csv</a>.",
        "Test accuracy by the teacher's epoch and the label temperature",
        wide=len(panels) > 1,
    )
    chosen = "validation" if all(panel.cells.validation.notna().any() for panel in panels) else "mean"
    rows = []
    for panel in panels:
        ranked = panel.cells.sort_values(chosen, ascending=False)
        best, last = ranked.to_dict("records")[0], ranked[ranked[EPOCH] == ranked[EPOCH].max()].to_dict("records")[0]
        shown = [(f"{c[EPOCH]:g}", c["line"], percent(c["mean"]), interval(c["low"], c["high"])) for c in (best, last)]
        rows.append((panel.name or "all", *shown[0], *shown[1]))
    yield grid(
        ("context", "best epoch", "at", "test accuracy", "95 %", "last epoch", "at", "test accuracy", "95 %"), rows
    )
    how = (
        "on validation images"
        if chosen == "validation"
        else "on the test images that it is shown for, so it looks too good"
    )
    yield f"<p class='soft'>The best epoch, and the label temperature beside it, are chosen {how}.</p>"


def structure(found: Findings) -> Iterator[str]:
    """Edits of labels, against the label as it is."""
    contexts = list(found.table.attrs.get("contexts", []))
    for knob, meaning in EDITS.items():
        panels = edit_panels(found, knob)
        if not panels:
            continue
        yield figure(
            lines_figure(panels, knob, meaning),
            f"Test accuracy by {knob}. Dashed: arms whose labels are as they are, or hard. Bars are 95 % t intervals over seeds. "
            "What lies far below the rest is beyond the axis; the table has it. Data: <a href='cells.csv'>cells.csv</a>.",
            f"Test accuracy by {knob}",
            wide=len(panels) > 1,
        )
        head = (
            "arm",
            knob,
            *contexts,
            "test accuracy",
            "95 % interval",
            "against the label as it is, points",
            "95 %, paired",
            "seeds",
        )
        yield grid(head, [_edited(row, knob, contexts) for panel in panels for row in panel.cells.to_dict("records")])


def _edited(row: Mapping[Any, Any], knob: str, contexts: Sequence[str]) -> tuple[object, ...]:
    """One cell with an edit, as a row of the table."""
    difference = points(row["difference"]), interval(row["difference_low"], row["difference_high"])
    shown = percent(row["mean"]), interval(row["low"], row["high"])
    return row["arms"], f"{row[knob]:g}", *(row[name] for name in contexts), *shown, *difference, row["n"]


def scaling(found: Findings) -> Iterator[str]:
    """Power laws of images per class."""
    if not found.scaling:
        return
    yield figure(
        scaling_figure(found.scaling),
        "Test error against images per class, with the fitted law error = floor + scale · x<sup>−exponent</sup> between the "
        "smallest and the largest number that was measured, no further. Bars are 95 % t intervals over seeds.",
        "Test error by images per class with fitted power laws",
    )
    rows = [
        (context_name(key), *(_estimate(law, i) for i in range(3)), *_misfit(law)) for key, law in found.scaling.items()
    ]
    yield grid(("arm", *PARAMETERS, "largest residual, points", "levels off the law"), rows)
    yield (
        "<p class='soft'>Least squares on the mean error of each number, 95 % jackknife intervals over seeds; a residual is "
        "accuracy minus fit; a level is off where its interval does not hold the fit. The sets are nested, and one draw of them: how images were drawn is in no interval. From "
        "Python: <code>fit_power_law(...).at(x)</code>, which refuses an x outside the range.</p>"
    )
    yield from _worth(found)


def _misfit(law: PowerLaw) -> tuple[str, str]:
    """Whether a power law is what was measured."""
    at = law.points
    off = ((at.fitted < at.low) | (at.fitted > at.high)).sum()
    return points(at.residual.abs().max()), "–" if at.low.isna().any() else f"{off} of {len(at)}"


def _estimate(law: PowerLaw, number: int) -> str:
    value, low, high = law.parameters[number], law.low[number], law.high[number]
    if value < AT_BOUND:
        return "0 (its bound)"
    return f"{value:.3g}" + ("" if pd.isna(low) else f" [{low:.2g}, {high:.2g}]")


def _worth(found: Findings) -> Iterator[str]:
    """How many images with hard labels reach what fewer with soft labels do."""
    worth = hard_label_worth(found.table, IPC)
    if worth.empty:
        return
    others = [name for name in found.table.attrs["contexts"] if name != IPC]
    rows = [
        (
            context_name([row["level"], *(row[name] for name in others)]),
            f"{row[IPC]:g}",
            percent(row["accuracy"]),
            _images(row),
        )
        for row in worth.to_dict("records")
    ]
    yield grid(
        ("arm", "images per class", "test accuracy", "images per class with hard labels (ce) for the same"), rows
    )
    yield (
        "<p class='soft'>Between the numbers that were measured, by straight lines over the logarithm, passing over numbers that were "
        "no better than a smaller one; 95 % jackknife intervals over seeds, cut at the numbers that were measured. Beyond them "
        "nothing is said.</p>"
    )


def _images(row: Mapping[Any, Any]) -> str:
    if row["beyond"]:
        return f"{row['beyond']} than were measured"
    shown = "(too near the end of what was measured for an interval)"
    return f"{row['images']:.3g} " + (shown if pd.isna(row["low"]) else f"[{row['low']:.3g}, {row['high']:.3g}]")


def storage(found: Findings) -> Iterator[str]:
    """Accuracy against images and label bytes."""
    front = found.storage
    if not has_storage(front):
        return
    contexts = list(found.table.attrs.get("contexts", []))
    ordered = front.sort_values(["images", "label_bytes"])
    yield figure(
        storage_figure(front, contexts),
        "Test accuracy against the bytes of labels that have to be stored or sent; the colour is the number of images, where it varies. "
        "Filled: on the Pareto front (nothing has as few images, as few bytes and as high an accuracy, and is better in one). Bars are "
        "95 % t intervals over seeds. What lies far below the rest is beyond the axis; the table has it. "
        "Data: <a href='storage.csv'>storage.csv</a>.",
        "Test accuracy by label bytes with the Pareto front",
    )
    rows = [
        (
            name,
            f"{row['images']:,}",
            f"{row['label_bytes']:,}",
            percent(row["mean"]),
            interval(row["low"], row["high"]),
            "yes" if row["front"] else "",
            f"{row['front_share']:.0%}",
        )
        for name, row in zip(cell_names(ordered, contexts), ordered.to_dict("records"), strict=True)
    ]
    yield grid(("cell", "images", "label bytes", "test accuracy", "95 % interval", "front", "of seeds"), rows)
    yield (
        "<p class='soft'>Bytes are those of the files of soft labels on disk (a file's header is 128); 0 where only hard labels "
        "are used. A projector counts the numbers that have to be sent, and its trunk where that is the teacher's own. Of seeds: the share in "
        "which a cell is on the front of that seed's accuracies.</p>"
    )
