"""Pieces of the page: figures that are drawn when scrolled to, tables, numbers in words."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from numbers import Number
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from trainables.config import LABEL_EDITS


def figure(drawing: go.Figure, caption: str, label: str, *, wide: bool = False) -> str:
    """A figure with its caption.

    Args:
        drawing: Of plotly; its layout says how high it is.
        caption: HTML; what it shows and where its data are.
        label: What a screen reader says.
        wide: Has panels that need 720 pixels; on a phone it is scrolled.
    """
    data = drawing.to_json().replace("</", "<\\/")
    return (
        f"<figure class='{'wide' if wide else 'narrow'}'><div class='plot' role='img' aria-label='{html.escape(label, quote=True)}' "
        f"style='height:{drawing.layout.height}px'></div><script type='application/json'>{data}</script>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def grid(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell is escaped."""
    top = "".join(f"<th scope='col'>{html.escape(str(title))}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(x))}</td>" for x in row) + "</tr>" for row in rows)
    return f"<div class='wide' tabindex='0'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def context_name(values: Iterable[Any], names: Sequence[str] = ()) -> str:
    """A context in words: the values of its factors, numbers with the last part of the factor's name where that is given."""
    words = []
    for name, value in zip_longest(names, values):
        is_number = isinstance(value, Number) and not isinstance(value, bool)
        short = f"{name.rpartition('.')[2]} {value:g}" if name and is_number else str(value)
        words.append("–" if pd.isna(value) else short)
    return ", ".join(words) or "all"


def cell_names(cells: pd.DataFrame, contexts: Sequence[str]) -> list[str]:
    """Cells in a few words each: their arms, the label edits that vary among them, and context; a variant's name says it all."""
    edits = [knob for knob in LABEL_EDITS if knob in cells and cells[knob].nunique() > 1]
    told = [name for name in edits if "variant" not in contexts]
    arms = [str(arm) for arm in cells.arms] if "variant" not in contexts else [""] * len(cells)
    words = [
        (arm, *(f"{knob} {row[knob]:g}" for knob in told if not pd.isna(row[knob])), _told(row, contexts))
        for arm, row in zip(arms, cells.to_dict("records"), strict=True)
    ]
    return [", ".join(word for word in mine if word) for mine in words]


def _told(row: Mapping[Any, Any], contexts: Sequence[str]) -> str:
    return context_name([row[name] for name in contexts], contexts) if contexts else ""


def percent(value: float) -> str:
    """0.1234 as 12.34 %."""
    return "–" if pd.isna(value) else f"{100 * value:.2f} %"


def points(value: float) -> str:
    """A difference of accuracies in points."""
    return "–" if pd.isna(value) else f"{100 * value:.2f}"


def interval(low: float, high: float) -> str:
    """In points, in brackets; nothing where it is not defined."""
    return "" if pd.isna(low) else f"[{100 * low:.2f}, {100 * high:.2f}]"


def probability(p: float) -> str:
    """A p value."""
    return "–" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def share(value: float, low: float, high: float) -> str:
    """A share and its interval."""
    return "–" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
