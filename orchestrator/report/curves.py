"""Figures with a number on the horizontal axis: lines with intervals, fitted laws, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.landscape.scaling import PowerLaw
from orchestrator.report.figures import COLOURS, INK, LEAST_ERROR, SCALE, accuracy_range, line_style, styled
from orchestrator.report.html import cell_names, context_name
from orchestrator.report.panels import Panel

#: A logarithmic axis has no 0: no bytes are drawn at this many.
_NO_BYTES: Final = 8


def lines_figure(panels: Sequence[Panel], factor: str, title: str) -> go.Figure:
    """Test accuracy against a number, side by side by context.

    Args:
        panels: Cells of each, and references.
        factor: Column of the horizontal axis.
        title: Of that axis.
    """
    figure = make_subplots(
        cols=len(panels), subplot_titles=[escape(p.name) for p in panels], shared_yaxes=True, horizontal_spacing=0.04
    )
    names = list(dict.fromkeys(str(name) for panel in panels for name in panel.cells.line))
    for column, panel in enumerate(panels, 1):
        for number, name in enumerate(names):
            mine = panel.cells[panel.cells.line == name].sort_values(factor)
            trace = go.Scatter(
                x=mine[factor],
                y=100 * mine["mean"],
                error_y={"array": 100 * (mine.high - mine["mean"]), "color": INK, "thickness": 1},
                mode="lines+markers",
                line=line_style(number),
                name=escape(name),
                legendgroup=name,
                showlegend=column == 1,
                customdata=mine[["cell", "n"]],
                hovertemplate="%{customdata[0]}<br>%{y:.2f} %, n = %{customdata[1]}<extra></extra>",
            )
            figure.add_trace(trace, row=1, col=column)
    for column, panel in enumerate(panels, 1):
        for row in panel.beside.to_dict("records"):
            figure.add_hline(
                y=100 * row["mean"],
                line={"dash": "dash", "color": INK, "width": 1},
                annotation={"text": escape(row["arms"]), "font": {"size": 11}},
                annotation_position="bottom right",
                row=1,
                col=column,
            )
    figure.update_xaxes(title=title)
    every = pd.concat([panel.cells[factor] for panel in panels])
    if (every > 0).all() and every.max() >= 10 * every.min():
        figure.update_xaxes(type="log", tickvals=sorted(every.unique()))
    means = pd.concat([cells["mean"] for panel in panels for cells in (panel.cells, panel.beside)])
    figure.update_yaxes(range=accuracy_range(means))
    figure.update_yaxes(title="test accuracy, %", col=1)
    return styled(figure, height=460)


def scaling_figure(laws: Mapping[tuple[str, ...], PowerLaw]) -> go.Figure:
    """Error against images per class on logarithmic axes, points with intervals and the fitted line between them."""
    figure = go.Figure()
    for number, (key, law) in enumerate(laws.items()):
        name, at = escape(context_name(key)), law.points
        along = np.geomspace(at.x.min(), at.x.max(), 60)
        style = line_style(number)
        figure.add_scatter(
            x=at.x,
            y=(100 * (1 - at.accuracy)).clip(lower=LEAST_ERROR),
            error_y={"array": 100 * (at.high - at.accuracy), "color": INK, "thickness": 1},
            mode="markers",
            marker={"color": style["color"], "size": 9},
            name=name,
            legendgroup=name,
            hovertemplate=f"{name}<br>%{{x}} images per class: error %{{y:.2f}} %<extra></extra>",
        )
        fitted = [100 * (1 - law.at(float(x))) for x in np.clip(along, at.x.min(), at.x.max())]
        figure.add_scatter(
            x=along, y=fitted, mode="lines", line=style, name=name, legendgroup=name, showlegend=False, hoverinfo="skip"
        )
    figure.update_xaxes(
        title="images per class", type="log", tickvals=sorted({x for w in laws.values() for x in w.points.x})
    )
    figure.update_yaxes(title="test error, %", type="log", dtick="D2", autorange="reversed")
    return styled(figure, height=460)


def storage_figure(front: pd.DataFrame, contexts: Sequence[str]) -> go.Figure:
    """Accuracy against label bytes; what is on the Pareto front is filled and named."""
    figure = go.Figure()
    many, front = front.images.nunique() > 1, front.assign(name_shown=cell_names(front, contexts))
    for is_on, symbol in ((True, "circle"), (False, "circle-open")):
        mine = front[front.front == is_on]
        colour = {"color": mine.images, "coloraxis": "coloraxis"} if many else {"color": COLOURS[0]}
        figure.add_scatter(
            x=mine.label_bytes.clip(lower=_NO_BYTES),
            y=100 * mine["mean"],
            error_y={"array": 100 * (mine.high - mine["mean"]), "color": INK, "thickness": 1},
            mode="markers+text" if is_on else "markers",
            marker={"symbol": symbol, "size": 11, **colour},
            text=[escape(name) for name in mine.name_shown],
            textposition="top center",
            textfont={"size": 10},
            name="on the Pareto front" if is_on else "beaten",
            customdata=mine[["cell", "images", "label_bytes", "n"]],
            hovertemplate="%{customdata[0]}<br>%{y:.2f} %, %{customdata[1]} images, %{customdata[2]} label bytes, "
            "n = %{customdata[3]}<extra></extra>",
        )
    least, most = front.label_bytes.min(), front.label_bytes.max()
    ticks = [10.0**power for power in range(2, int(np.ceil(np.log10(max(most, 100)))) + 1)]
    shown = [_size(int(tick)) for tick in ticks]
    figure.update_xaxes(
        title="bytes of labels (log scale)",
        type="log",
        tickvals=([_NO_BYTES] if least == 0 else []) + ticks,
        ticktext=(["0"] if least == 0 else []) + shown,
    )
    figure.update_yaxes(title="test accuracy, %", range=accuracy_range(front["mean"]))
    figure.update_layout(coloraxis={"colorscale": SCALE, "colorbar": {"title": "images"}})
    return styled(figure, height=520)


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count} {unit}"
        count //= 1000
    return f"{count} TB"
