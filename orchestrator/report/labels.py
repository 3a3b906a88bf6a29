"""Sections about the labels themselves: the teacher's epoch, edits, images per class, bytes. Each only where a space varies it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pandas as pd

from orchestrator.landscape.labels import edit_curve
from orchestrator.landscape.scaling import PARAMETERS, PowerLaw, hard_label_worth
from orchestrator.landscape.values import cell_values
from orchestrator.report.curves import lines_figure, scaling_figure, storage_figure
from orchestrator.report.figures import by_context
from orchestrator.report.findings import IPC, Findings
from orchestrator.report.html import cell_name, context_name, figure, grid, interval, percent, points

EPOCH: Final = "teacher.epoch"
_EDITS: Final = {
    "label_swap": "k: the k-th largest logit of each label and its smallest change places",
    "label_top_k": "k: classes that each label keeps",
}


def teacher_epoch(found: Findings) -> Iterator[str]:
    """Accuracy against the epoch of the teacher's checkpoint, a line per label temperature."""
    values = cell_values(found.table)
    values = values[values.n > 0] if EPOCH in values else values.iloc[:0]
    if values.empty or values[EPOCH].nunique() < 2:
        return
    by = "label_temperature" if "label_temperature" in values else "arms"
    values = values.assign(line=[_softness(v) if by == "label_temperature" else v for v in values[by]])
    others = [name for name in found.table.attrs["contexts"] if name != EPOCH]
    panels = [(context_name(key, others) if others else "", cells) for key, cells in by_context(values, others)]
    yield figure(
        lines_figure(panels, EPOCH, "epochs of the teacher that says the labels"),
        "Test accuracy against the number of epochs after which the teacher was stopped, a line per label temperature, a panel "
        "per context; bars are 95 % t intervals over seeds. Data: <a href='cells.csv'>cells.csv</a>.",
        "Test accuracy by the teacher's epoch and the label temperature",
        wide=len(panels) > 1,
    )
    chosen = "validation" if values.validation.notna().any() else "mean"
    rows = []
    for name, group in panels:
        ranked = group.sort_values(chosen, ascending=False)
        best, last = ranked.to_dict("records")[0], ranked[ranked[EPOCH] == ranked[EPOCH].max()].to_dict("records")[0]
        shown = [(f"{cell[EPOCH]:g}", cell["line"], percent(cell["mean"])) for cell in (best, last)]
        rows.append((name or "all", *shown[0], *shown[1]))
    yield grid(("context", "best epoch", "at", "test accuracy", "last epoch", "at", "test accuracy"), rows)
    how = (
        "on validation images"
        if chosen == "validation"
        else "on the test images that it is shown for, so it looks too good"
    )
    yield f"<p class='soft'>The best epoch, and the label temperature beside it, are chosen {how}.</p>"


def _softness(value: float) -> str:
    return f"label temperature {1 if pd.isna(value) else value:g}"


def structure(found: Findings) -> Iterator[str]:
    """Edits of labels, against the label as it is."""
    contexts = list(found.table.attrs.get("contexts", []))
    values = cell_values(found.table)
    values = values[values.n > 0]
    plain = values[values[[knob for knob in _EDITS if knob in values]].isna().all(axis=1)]
    for knob, meaning in _EDITS.items():
        curve = edit_curve(found.table, knob) if knob in found.table else values.iloc[:0]
        panels = [
            (key, cells) for key, cells in by_context(curve, contexts) if knob in cells and cells[knob].nunique() > 1
        ]
        if not panels:
            continue
        beside = dict(by_context(plain, contexts))
        yield figure(
            lines_figure(
                [
                    (context_name(key, contexts) if contexts else "", cells.assign(line=cells.arms))
                    for key, cells in panels
                ],
                knob,
                meaning,
                references=[beside.get(key, plain.iloc[:0]) for key, _ in panels],
            ),
            f"Test accuracy by {knob}. Dashed: arms whose labels are as they are, or hard. Bars are 95 % t intervals over seeds. "
            "What lies far below the rest is beyond the axis; the table has it. Data: <a href='cells.csv'>cells.csv</a>.",
            f"Test accuracy by {knob}",
            wide=len(panels) > 1,
        )
        yield grid(
            (
                knob,
                *contexts,
                "test accuracy",
                "95 % interval",
                "against the label as it is, points",
                "95 %, paired",
                "seeds",
            ),
            [_edited(row, knob, contexts) for _, cells in panels for row in cells.to_dict("records")],
        )


def _edited(row: Mapping[Any, Any], knob: str, contexts: Sequence[str]) -> tuple[object, ...]:
    """One cell with an edit, as a row of the table."""
    difference = points(row["difference"]), interval(row["difference_low"], row["difference_high"])
    shown = percent(row["mean"]), interval(row["low"], row["high"])
    return f"{row[knob]:g}", *(row[name] for name in contexts), *shown, *difference, row["n"]


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
    return points(at.residual.abs().max()), f"{off} of {len(at)}"


def _estimate(law: PowerLaw, number: int) -> str:
    value, low, high = (
        0.0 if abs(x) < 1e-9 else x for x in (law.parameters[number], law.low[number], law.high[number])
    )
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
        "<p class='soft'>Between the numbers that were measured, by straight lines over the logarithm; 95 % jackknife interval over "
        "seeds. Beyond them nothing is said.</p>"
    )


def _images(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["images"]):
        return f"{row['bound']} than were measured"
    return f"{row['images']:.3g}" + ("" if pd.isna(row["low"]) else f" [{row['low']:.3g}, {row['high']:.3g}]")


def storage(found: Findings) -> Iterator[str]:
    """Accuracy against images and label bytes."""
    front = found.storage
    if front.empty or len(front[["images", "label_bytes"]].drop_duplicates()) < 3:
        return
    contexts = list(found.table.attrs.get("contexts", []))
    yield figure(
        storage_figure(front, contexts),
        "Test accuracy against the bytes of labels that have to be stored or sent, colour: images. Filled: on the Pareto front (nothing has "
        "as few images, as few bytes and as high an accuracy, and is better in one). Bars are 95 % t intervals over seeds. "
        "Data: <a href='storage.csv'>storage.csv</a>.",
        "Test accuracy by label bytes with the Pareto front",
    )
    rows = [
        (
            cell_name(row, contexts),
            f"{row['images']:,}",
            f"{row['label_bytes']:,}",
            percent(row["mean"]),
            interval(row["low"], row["high"]),
            "yes" if row["front"] else "",
            f"{row['front_share']:.0%}",
        )
        for row in front.sort_values(["images", "label_bytes"]).to_dict("records")
    ]
    yield grid(("cell", "images", "label bytes", "test accuracy", "95 % interval", "front", "of seeds"), rows)
    yield (
        "<p class='soft'>Bytes are those of the files of soft labels on disk (a file's header is 128); 0 where only hard labels "
        "are used. A projector counts the numbers that have to be sent, and its trunk where that is the teacher's own. Of seeds: the share in "
        "which a cell is on the front of that seed's accuracies.</p>"
    )
