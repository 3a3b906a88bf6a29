"""Figures of a landscape, as plotly figures that read well on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.landscape.values import arm_values, cell_values, ranking, selected_for
from orchestrator.report.html import context_name

INK = "#8a8f98"  # readable on white and on near-black
_GRID = "rgba(138, 143, 152, 0.25)"
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")  # Paul Tol, colour-blind safe
_DASHES = ("solid", "dash", "dot")  # when there are more lines than colours
_SYMBOLS = ("diamond-open", "square-open", "triangle-up-open", "cross-open", "star-open", "pentagon-open")
SCALE = "Viridis"
#: A logarithmic axis has no 0; an error of 0 is drawn here, in %.
LEAST_ERROR = 0.05
PANELS_PER_ROW = 3
#: The lowest value is off an axis if the next is further from it than this many times the range of all others.
FAR_BELOW = 2


def ranking_figure(table: pd.DataFrame) -> go.Figure:
    """Arms by test accuracy: their mean over contexts with intervals, and each context as a small mark."""
    ranked, arms = ranking(table), arm_values(table)
    contexts = list(table.attrs.get("contexts", []))
    figure = go.Figure(
        go.Scatter(
            x=100 * ranked["mean"],
            y=ranked.level.map(escape),
            error_x={"array": 100 * (ranked.high - ranked["mean"]), "color": INK},
            mode="markers",
            marker={"size": 12, "color": COLOURS[0]},
            name="mean over contexts",
            customdata=ranked[["low", "high", "n", "cells"]].to_numpy() * [100, 100, 1, 1],
            hovertemplate="%{y}: %{x:.2f} % [%{customdata[0]:.2f}, %{customdata[1]:.2f}], "
            "n = %{customdata[2]}, %{customdata[3]} cells searched<extra></extra>",
        )
    )
    for number, (key, group) in enumerate(by_context(arms, contexts) if contexts else []):
        figure.add_scatter(
            x=100 * group["mean"],
            y=group.level.map(escape),
            mode="markers",
            error_x={"array": 100 * (group.high - group["mean"]), "color": INK, "thickness": 1, "width": 3},
            marker={"size": 8, "symbol": _SYMBOLS[number % len(_SYMBOLS)], "color": COLOURS[1 + number % 6]},
            name=escape(context_name(key)),
            customdata=group[["cell"]],
            hovertemplate="%{y}: %{x:.2f} %<br>%{customdata[0]}<extra></extra>",
        )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="test accuracy, % (95 % t interval over replicates)")
    return styled(figure, height=120 + 40 * len(ranked))


def settings_figure(arms: pd.DataFrame, contexts: Sequence[str]) -> go.Figure:
    """One arm's contexts by test accuracy, best first, with intervals."""
    arms = arms.sort_values("mean", ascending=False)
    figure = go.Figure(
        go.Scatter(
            x=100 * arms["mean"],
            y=[escape(context_name(key, contexts)) for key in arms[list(contexts)].itertuples(index=False)],
            error_x={"array": 100 * (arms.high - arms["mean"]), "color": INK},
            mode="markers",
            marker={"size": 10, "color": COLOURS[0]},
            customdata=arms[["cell", "n"]],
            hovertemplate="%{customdata[0]}<br>%{x:.2f} %, n = %{customdata[1]}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", type="category")
    figure.update_xaxes(title="test accuracy, % (95 % t interval over replicates)")
    return styled(figure, height=120 + 26 * len(arms)).update_layout(margin={"l": 160})


def heatmap_figure(table: pd.DataFrame) -> go.Figure | None:
    """Temperature x refinement, one panel per loss and context, all on one colour scale; None where neither varies."""
    values = cell_values(table)
    knobs = [k for k in ("temperature", "refinement") if k in values and values[k].notna().any()]
    within = ["loss", *table.attrs.get("contexts", [])]
    if not knobs or values.groupby(within, dropna=False)[knobs].nunique().to_numpy().max() < 2:
        return None
    values = values[values[knobs].notna().any(axis=1)]
    contexts = list(table.attrs.get("contexts", []))
    rows = by_context(values, contexts)
    losses = list(values.loss.drop_duplicates())
    figure = make_subplots(
        rows=len(rows),
        cols=len(losses),
        column_titles=[escape(str(loss)) for loss in losses],
        row_titles=[escape(context_name(key)) for key, _ in rows],
        horizontal_spacing=min(0.03, 0.5 / len(losses)),
        vertical_spacing=min(0.12, 0.5 / len(rows)),
        column_widths=[
            max(1, values[values.loss == loss].get("temperature", pd.Series()).nunique()) for loss in losses
        ],
    )
    for i, (_, group) in enumerate(rows, 1):
        for j, loss in enumerate(losses, 1):
            figure.add_trace(_heatmap(group[group.loss == loss]), row=i, col=j)
    figure.update_yaxes(type="category", showgrid=False, showticklabels=False)
    figure.update_yaxes(title="w", showticklabels=True, col=1)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title="T", row=len(rows))
    low, high = colour_range(100 * values["mean"].dropna())
    figure.update_layout(coloraxis={"colorscale": SCALE, "cmin": low, "cmax": high, "colorbar": {"title": "test, %"}})
    return styled(figure, height=120 + 180 * len(rows))


def colour_range(values: pd.Series) -> tuple[float, float]:
    """Ends of the colour scale: a few cells far below the rest must not make all others look alike."""
    if values.empty:
        return 0.0, 100.0
    low = max(values.min(), 4 * values.median() - 3 * values.max())
    return float(min(low, values.max())), float(values.max())


def accuracy_range(means: pd.Series) -> tuple[float, float]:
    """Ends of an axis of accuracies, in %: a few far below the rest must not press all others together."""
    shown = sorted(100 * means.dropna())
    while len(shown) > 2 and shown[1] - shown[0] > FAR_BELOW * (shown[-1] - shown[1]):
        shown = shown[1:]
    low, high = (shown[0], shown[-1]) if shown else (0.0, 100.0)
    spare = max(0.2, (high - low) / 10)
    return float(low - spare), float(high + spare)


def _heatmap(cells: pd.DataFrame) -> go.Heatmap:
    """One panel; where several cells share T and w, the best is shown."""
    cells = cells.assign(
        x=[_tick(v) for v in cells.get("temperature", [math.nan] * len(cells))],
        y=[_tick(v) for v in cells.get("refinement", [math.nan] * len(cells))],
    )
    cells = cells.sort_values("mean").drop_duplicates(["x", "y"], keep="last")
    cells = cells.sort_values([knob for knob in ("temperature", "refinement") if knob in cells])
    text = [f"{100 * m:.1f}" if n else "not trained" for m, n in zip(cells["mean"], cells.n, strict=True)]
    return go.Heatmap(
        x=cells.x,
        y=cells.y,
        z=100 * cells["mean"],
        text=text,
        texttemplate="%{text}",
        customdata=cells[["n", "low", "high", "diverged", "cell"]].to_numpy() * [1, 100, 100, 1, 1],
        hovertemplate="%{customdata[4]}<br>%{z:.2f} % [%{customdata[1]:.2f}, %{customdata[2]:.2f}], "
        "n = %{customdata[0]}, diverged %{customdata[3]}<extra></extra>",
        coloraxis="coloraxis",
    )


def _tick(value: float) -> str:
    """A knob's value as a category; a loss without the knob has one unnamed column or row."""
    return "–" if pd.isna(value) else f"{value:.3g}"


def profile_figure(table: pd.DataFrame, factor: str, levels: Sequence[str]) -> go.Figure:
    """Validation error against a nuisance factor in `tune`, one line per arm (its representing cell), one panel per context."""
    arms = arm_values(table)
    contexts = list(table.attrs.get("contexts", []))
    panels = by_context(arms, contexts)
    columns = min(len(panels), PANELS_PER_ROW)
    rows = math.ceil(len(panels) / columns)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[escape(context_name(key)) for key, _ in panels],
        shared_yaxes=True,
        horizontal_spacing=0.05,
        vertical_spacing=min(0.12, 0.5 / rows),
    )
    tune = table[(table.stage == "tune") & table.status.isin(["finished", "stopped"])]
    chosen = selected_for("best", table).groupby("cell").draw.first()
    for number, (_, group) in enumerate(panels):
        place = {"row": 1 + number // columns, "col": 1 + number % columns}
        for row in group.to_dict("records"):
            draws = tune[tune.cell == row["cell"]].sort_values(factor)
            colour = COLOURS[levels.index(row["level"]) % len(COLOURS)]
            for trace in _profile(draws, factor, row["level"], colour, chosen.get(row["cell"])):
                figure.add_trace(trace.update(showlegend=bool(trace.showlegend) and number == 0), **place)
    if (tune[factor] > 0).all():
        figure.update_xaxes(type="log", dtick="D2")
        figure.update_xaxes(title=f"{factor} (log scale)", row=rows)
    else:
        figure.update_xaxes(title=factor, row=rows)
    figure.update_yaxes(type="log", dtick="D2", autorange="reversed")
    figure.update_yaxes(title="validation error, %", col=1)
    return styled(figure, height=140 + 300 * rows)


def by_context(frame: pd.DataFrame, contexts: Sequence[str]) -> list[tuple[Any, pd.DataFrame]]:
    """Rows of each context; a factor that has no effect somewhere is a context's value too."""
    return list(frame.groupby(list(contexts), sort=False, dropna=False)) if contexts else [((), frame)]


def _profile(draws: pd.DataFrame, factor: str, level: str, colour: str, chosen: object) -> Iterator[go.Scatter]:
    """A line through the draws that ended (the chosen one a star), and a cross for each that was stopped."""
    hover = (
        "%{customdata[2]}<br>%{x:.3g}: error %{y:.2f} % after %{customdata[1]} epochs (%{customdata[0]})<extra></extra>"
    )
    for status, mode in (("finished", "lines+markers"), ("stopped", "markers")):
        mine = draws[draws.status == status]
        stars = [draw == chosen for draw in mine.draw]
        plain = "circle" if status == "finished" else "x-thin-open"
        yield go.Scatter(
            x=mine[factor],
            y=_error(mine.val_accuracy),
            mode=mode,
            name=escape(level),
            legendgroup=level,
            showlegend=status == "finished",
            line={"color": colour, "width": 1.5},
            marker={
                "color": colour,
                "symbol": ["star" if star else plain for star in stars],
                "size": [15 if star else 8 for star in stars],
            },
            customdata=mine[["status", "epochs", "cell"]],
            hovertemplate=hover,
        )


def curves_figure(curves: pd.DataFrame, levels: Sequence[str]) -> go.Figure:
    """Validation error by epoch in `confirm`: mean over replicates and contexts of each arm's representing cells.

    Args:
        curves: Columns level, epoch, mean, low, high, n.
        levels: In the order of the legend.
    """
    figure = go.Figure()
    for number, level in enumerate(levels):
        mine = curves[curves.level == level]
        figure.add_traces(list(_band(mine.epoch, _error(mine.low), _error(mine.high), level, number)))
        line = line_style(number)
        figure.add_scatter(
            x=mine.epoch,
            y=_error(mine["mean"]),
            mode="lines",
            line=line,
            name=escape(level),
            legendgroup=level,
            customdata=mine[["n"]],
            hovertemplate=f"{escape(level)}, epoch %{{x}}: %{{y:.2f}} %, n = %{{customdata[0]}}<extra></extra>",
        )
    figure.update_xaxes(title="epoch")
    figure.update_yaxes(title="validation error, %", type="log", dtick="D2", autorange="reversed")
    return styled(figure, height=440)


def effects_figure(cells: pd.DataFrame) -> go.Figure:
    """Shares of variance as bars with intervals, largest first.

    Args:
        cells: Columns term, share, low, high.
    """
    figure = go.Figure(
        go.Bar(
            x=100 * cells.share,
            y=cells.term,
            orientation="h",
            marker={"color": COLOURS[0]},
            error_x={
                "array": 100 * (cells.high - cells.share),
                "arrayminus": 100 * (cells.share - cells.low),
                "symmetric": False,
                "color": INK,
            },
            customdata=100 * cells[["low", "high"]].to_numpy(),
            hovertemplate="%{y}: %{x:.1f} % [%{customdata[0]:.1f}, %{customdata[1]:.1f}]<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="share of the variance between cells, %")
    figure = styled(figure, height=120 + 28 * len(cells))
    return figure.update_layout(margin={"l": 220})


def tuning_figure(curve: pd.DataFrame, levels: Sequence[str]) -> go.Figure:
    """Expected best validation accuracy by number of draws, one line per arm.

    Args:
        curve: Columns level, draws, expected, low, high.
        levels: In the order of the legend.
    """
    figure = go.Figure()
    for number, level in enumerate(levels):
        mine = curve[curve.level == level]
        figure.add_traces(list(_band(mine.draws, 100 * mine.low, 100 * mine.high, level, number)))
        figure.add_scatter(
            x=mine.draws,
            y=100 * mine.expected,
            mode="lines+markers",
            name=escape(level),
            legendgroup=level,
            line=line_style(number),
            customdata=100 * mine[["low", "high"]].to_numpy(),
            hovertemplate="%{x} draws: %{y:.2f} % [%{customdata[0]:.2f}, %{customdata[1]:.2f}]",
        )
    figure.update_xaxes(title="draws k")
    if len(curve) and curve.draws.max() > 10:
        figure.update_xaxes(type="log", dtick="D2")
    figure.update_yaxes(title="expected best validation accuracy, %")
    return styled(figure, height=440)


def _error(accuracy: pd.Series) -> pd.Series:
    """Error in %, for a logarithmic axis."""
    return (100 * (1 - accuracy)).clip(lower=LEAST_ERROR)


def _band(x: pd.Series, low: pd.Series, high: pd.Series, level: str, number: int) -> Iterator[go.Scatter]:
    """The area between two lines, two traces, in the colour of arm `number`."""
    quiet = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": level}
    yield go.Scatter(x=x, y=high, **quiet)
    fill = _faint(COLOURS[number % len(COLOURS)])
    yield go.Scatter(x=x, y=low, fill="tonexty", fillcolor=fill, **quiet)


def line_style(number: int) -> dict[str, Any]:
    """How the line of arm number `number` looks: by colour, then by dash."""
    dash = _DASHES[number // len(COLOURS) % len(_DASHES)]
    return {"color": COLOURS[number % len(COLOURS)], "width": 2, "dash": dash}


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.15)"


def styled(figure: go.Figure, *, height: int) -> go.Figure:
    """As all figures of the page look."""
    figure.update_layout(
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "family": "system-ui, sans-serif", "size": 13},
        margin={"l": 60, "r": 40, "t": 40, "b": 50},
        legend={"orientation": "h", "yanchor": "top", "y": -70 / max(1, height - 90)},
    )
    figure.update_xaxes(gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False)
    return figure
