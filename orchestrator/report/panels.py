"""What figures about labels are made of, on the page and on paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import pandas as pd

from orchestrator.landscape.labels import edit_curve
from orchestrator.landscape.values import cell_values
from orchestrator.report.figures import by_context
from orchestrator.report.findings import Findings
from orchestrator.report.html import context_name
from trainables.config import LOSS_KNOBS

EPOCH: Final = "teacher.epoch"
EDITS: Final = {
    "label_swap": "k: the k-th largest logit of each label and its smallest change places",
    "label_top_k": "k: classes that each label keeps",
}


@dataclass(frozen=True, slots=True)
class Panel:
    """What one panel of lines shows.

    Attributes:
        name: Of the context; "" where there is one.
        cells: With `line`, the name of the line that each belongs to.
        beside: Cells to draw as dashed references.
    """

    name: str
    cells: pd.DataFrame
    beside: pd.DataFrame


def epoch_panels(found: Findings) -> list[Panel]:
    """Cells by the teacher's epoch, a line per label temperature, a panel per other context; none where it does not vary."""
    values = cell_values(found.table)
    values = values[values.n > 0] if EPOCH in values else values.iloc[:0]
    if values.empty or values[EPOCH].nunique() < 2:
        return []
    values = values.assign(line=_lines(values))
    others = [name for name in found.table.attrs["contexts"] if name != EPOCH]
    return [
        Panel(context_name(key, others) if others else "", cells, values.iloc[:0])
        for key, cells in by_context(values, others)
    ]


def _lines(cells: pd.DataFrame) -> list[str]:
    """Names of lines: the arm where there are several, the label temperature where the loss has one and it varies."""
    softened = cells.get("label_temperature", pd.Series(math.nan, cells.index))
    several = cells.arms.nunique() > 1
    return [
        ", ".join(
            [arm] * several
            + [f"label temperature {1 if pd.isna(t) else t:g}"] * ("label_temperature" in LOSS_KNOBS[loss])
        )
        or arm
        for arm, loss, t in zip(cells.arms, cells.loss, softened, strict=True)
    ]


def edit_panels(found: Findings, knob: str) -> list[Panel]:
    """Cells by an edit of labels, a line per arm, beside those whose labels are as they are; none where it does not vary."""
    contexts = list(found.table.attrs.get("contexts", []))
    if knob not in found.table:
        return []
    values = cell_values(found.table)
    values = values[values.n > 0]
    plain = values[values[[name for name in EDITS if name in values]].isna().all(axis=1)]
    beside, curve = dict(by_context(plain, contexts)), edit_curve(found.table, knob)
    return [
        Panel(
            context_name(key, contexts) if contexts else "", cells.assign(line=cells.arms), beside.get(key, plain[:0])
        )
        for key, cells in by_context(curve, contexts)
        if cells[knob].nunique() > 1
    ]


def has_storage(front: pd.DataFrame) -> bool:
    """True if what is to be stored varies enough for a picture of it."""
    return not front.empty and len(front[["images", "label_bytes"]].drop_duplicates()) > 2
