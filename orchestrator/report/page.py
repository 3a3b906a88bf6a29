"""The report: one HTML page that needs no network, with the table and the figures' data beside it."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from orchestrator.landscape.curves import learning_curves
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.stopping import StoppingSummary, rung_table, summarise_stopping
from orchestrator.landscape.values import arm_values, cell_values, ranking
from orchestrator.report.caveats import caveats, how_to_reproduce
from orchestrator.report.figures import curves_figure, heatmap_figure, profile_figure, ranking_figure

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fff; --line: #d9d9e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #edeef0; --soft: #a1a5ad; --paper: #111316; --line: #34373d; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1100px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.5rem; } p.lead { font-size: 1.1rem; }
.soft, figcaption { color: var(--soft); } figure { margin: 1rem 0; overflow-x: auto; } figure > div { min-width: 720px; }
table { border-collapse: collapse; font-size: .9rem; } td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; } .wide { overflow-x: auto; } code { font-size: .9em; }
"""


def write_report(landscape: Landscape, folder: Path) -> Path:
    """Write index.html and the data behind its figures; the path of the page.

    Args:
        landscape: Of a sweep, finished or not.
        folder: Made if need be; files of the same names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "table.csv", landscape.table.to_csv(index=False))
    _write(folder / "cells.csv", cell_values(landscape.table).to_csv(index=False))
    _write(folder / "arms.csv", arm_values(landscape.table).to_csv(index=False))
    _write(folder / "ranking.csv", ranking(landscape.table).to_csv(index=False))
    page = folder / "index.html"
    _write(page, "\n".join(_page(landscape)))
    return page


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def _page(landscape: Landscape) -> Iterator[str]:
    name = html.escape(landscape.plan.name)
    yield "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>Loss landscape: {name}</title><style>{_STYLE}</style><script>{get_plotlyjs()}</script></head><body>"
    yield f"<h1>Loss landscape: {name}</h1>"
    ranked = ranking(landscape.table)
    if ranked.empty:
        yield "<p class='lead'>No cell has been confirmed yet; run <code>lossatlas resume</code> and look again.</p>"
    else:
        yield f"<p class='lead'>{_headline(landscape, ranked)}</p>"
        yield from _sections(landscape, ranked)
    yield "<h2>Caveats</h2><ul>"
    yield from (f"<li>{html.escape(text)}</li>" for text in caveats(landscape))
    yield "</ul><h2>How to reproduce</h2>"
    yield f"<pre class='wide'>{html.escape(how_to_reproduce(landscape))}</pre></body></html>"


def _headline(landscape: Landscape, ranked: pd.DataFrame) -> str:
    """The outcome in two sentences."""
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    text = (
        f"{_at(landscape)}, test accuracy ranges from {_percent(worst['mean'])} "
        f"({html.escape(worst.level)}) to {_percent(best['mean'])} ({html.escape(best.level)}), "
        f"mean over {best.contexts} context(s) and {best.n} replicates."
    )
    tied = ranked[(ranked.behind_low <= 0) & (ranked.index > 0)].level.tolist()
    if tied:
        text += f" Not distinguishable from the best by a paired 95 % interval: {html.escape(', '.join(tied))}."
    return text


def _sections(landscape: Landscape, ranked: pd.DataFrame) -> Iterator[str]:
    table = landscape.table
    yield "<h2>Which loss?</h2>"
    yield _figure(
        ranking_figure(table),
        f"Test accuracy per arm: {_represented(landscape)} in each context. "
        "Intervals are over replicates and conditional on the chosen draw. Data: <a href='ranking.csv'>ranking.csv</a>, "
        "<a href='arms.csv'>arms.csv</a>.",
    )
    yield _ranking_table(ranked)
    heatmap = heatmap_figure(table)
    if heatmap is not None:
        yield "<h2>Temperature and refinement</h2>"
        yield _figure(
            heatmap,
            "Test accuracy (%) over temperature T and refinement w, one panel per loss and context, one colour scale. "
            "Hover for n and interval. Data: <a href='cells.csv'>cells.csv</a>.",
        )
    for factor in landscape.plan.space.nuisance if landscape.plan.has_tune_stage else ():
        yield f"<h2>How much tuning {html.escape(factor.name)} matters</h2>"
        yield _figure(
            profile_figure(table, factor.name, list(ranked.level)),
            f"Validation accuracy in the tune stage against {html.escape(factor.name)}. A star is the chosen draw, a "
            "cross a trial that early stopping ended. Data: <a href='table.csv'>table.csv</a>.",
        )
    curves = learning_curves(table, landscape.records)
    yield "<h2>Learning curves</h2>"
    yield _figure(
        curves_figure(curves, list(ranked.level)),
        "Validation accuracy of confirm trials by epoch; the band is the 95 % t interval over replicates.",
    )
    yield from _stopping(landscape)


def _at(landscape: Landscape) -> str:
    """At which settings losses are compared."""
    return "Each at its own best draw" if landscape.plan.has_tune_stage else "All at the same fixed settings"


def _represented(landscape: Landscape) -> str:
    """What stands for an arm."""
    tuned = "each arm is its cell with the best tune validation"
    return tuned if landscape.plan.has_tune_stage else "each arm is the mean of its cells, for nothing was tuned,"


def _figure(figure: go.Figure, caption: str) -> str:
    config = {"responsive": True, "displayModeBar": False}
    body = figure.to_html(full_html=False, include_plotlyjs=False, config=config)
    return f"<figure>{body}<figcaption>{caption}</figcaption></figure>"


def _ranking_table(ranked: pd.DataFrame) -> str:
    head = "<tr><th>arm</th><th>test accuracy</th><th>95 % interval</th><th>behind the best</th><th>n</th><th>contexts</th><th>cells searched</th></tr>"
    rows = [
        f"<tr><td>{html.escape(r['level'])}</td><td>{_percent(r['mean'])}</td>"
        f"<td>{_percent(r['low'])} to {_percent(r['high'])}</td><td>{_behind(r)}</td>"
        f"<td>{r['n']}</td><td>{r['contexts']}</td><td>{r['cells']}</td></tr>"
        for r in ranked.to_dict("records")
    ]
    return (
        f"<div class='wide'><table>{head}{''.join(rows)}</table></div><p class='soft'>“Behind the best” is the paired "
        "difference in points with its 95 % t interval. Arms with more cells had more chances to be lucky in tuning.</p>"
    )


def _behind(row: Mapping[Any, Any]) -> str:
    """Points behind the best arm, with the paired interval."""
    if row["behind"] == 0:
        return "–"
    interval = "" if pd.isna(row["behind_low"]) else f" [{100 * row['behind_low']:.2f}, {100 * row['behind_high']:.2f}]"
    return f"{100 * row['behind']:.2f}{interval}"


def _stopping_verdict(s: StoppingSummary) -> str:
    """What the audits say about safety."""
    if not s.audited:
        return "Whether stopping was safe is not measurable without audited stops."
    share = f"{s.audited_won / s.audited:.0%} (95 % interval {s.won_low:.0%} to {s.won_high:.0%})"
    return f"So an estimated {share} of the stopped trials would have won their cell: " + (
        "stopping was not free here; a later grace period is safer." if s.audited_won else "no harm was seen."
    )


def _stopping(landscape: Landscape) -> Iterator[str]:
    yield "<h2>What early stopping did</h2>"
    if landscape.plan.space.settings.early_stopping is None or not landscape.plan.has_tune_stage:
        yield "<p>It was off: every trial ended.</p>"
        return
    full = {cell.label: cell.settings.fixed.epochs for cell in landscape.plan.cells}
    s = summarise_stopping(landscape.table, full)
    yield (
        f"<p>{s.stopped} of {s.trials} tune trials were stopped, which saved {s.epochs_saved_frac:.0%} of the tune stage's "
        f"epochs; confirm trials are never stopped. {s.audited} stop decision(s) were recorded but not executed; of these "
        f"trials, {s.audited_won} became their cell's best draw after all. {_stopping_verdict(s)}</p>"
    )
    rungs = rung_table(landscape.records)
    if not rungs.empty:
        yield f"<div class='wide'>{rungs.to_html(index=False, border=0)}</div>"


def _percent(value: float) -> str:
    return "–" if pd.isna(value) else f"{100 * value:.2f} %"
