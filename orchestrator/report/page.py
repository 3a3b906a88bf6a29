"""The report: one HTML page that needs no network, with the data of every figure beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from plotly.offline import get_plotlyjs

from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.values import cell_values
from orchestrator.report.caveats import caveats, how_to_reproduce
from orchestrator.report.dictionary import write_dictionary
from orchestrator.report.findings import Findings
from orchestrator.report.headline import headline, qualifications
from orchestrator.report.sections import sections
from orchestrator.table import as_csv
from trainables.paths import permitted

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --paper: #fff; --line: #d9d9e0; --link: #0b57d0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #a1a5ad; --paper: #111316; --line: #34373d; --link: #8ab4f8; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1100px; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { margin-top: 2.5rem; } p.lead { font-size: 1.1rem; } a { color: var(--link); }
.soft, figcaption { color: var(--soft); } figure { margin: 1rem 0; overflow-x: auto; } figure.wide > .plot { min-width: 720px; }
table { border-collapse: collapse; font-size: .9rem; margin: 1.5rem 0 .5rem; } td, th { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
td:first-child, th:first-child { text-align: left; } .wide { overflow-x: auto; } code { font-size: .9em; }
dt { font-weight: 600; } summary { cursor: pointer; color: var(--link); } nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; } :focus-visible { outline: 2px solid var(--link); }
"""
#: The words of the page; spelled out once, folded away.
_GLOSSARY = """<details><summary>Words</summary><dl>
<dt>arm</dt><dd>A loss as the space names it; it may own several cells. Equations: <code>lossatlas losses</code>.</dd>
<dt>cell</dt><dd>One combination of loss, its knobs (temperature T, refinement w: the weight of the hard label in the target,
and others) and the context. A knob that a loss lacks is empty.</dd>
<dt>context</dt><dd>What no loss owns: optimizer, student, dataset.</dd>
<dt>draw</dt><dd>One setting of what is tuned, such as the learning rate; the same draws for every cell.</dd>
<dt>tune, confirm</dt><dd>Tune trains every draw of a cell on seeds of its own and judges by validation images. Confirm trains
the chosen draw again, on fresh seeds, and looks at the test images once, at the end.</dd>
<dt>n, replicate, seed</dt><dd>Confirm trainings per cell; the same seeds in every cell, so that differences are paired.</dd>
<dt>points</dt><dd>Differences of accuracies in percent.</dd></dl>
<p>Columns of the data: <a href='dictionary.html'>dictionary.html</a>; the whole table, typed:
<a href='landscape.parquet'>landscape.parquet</a>.</p></details>"""
#: Figures are drawn when they come into view, so that a page with many opens at once.
_DRAW = """
const seen = new IntersectionObserver(entries => entries.filter(e => e.isIntersecting).forEach(e => {
  seen.unobserve(e.target);
  const figure = JSON.parse(e.target.nextElementSibling.textContent);
  Plotly.newPlot(e.target, figure.data, figure.layout, {responsive: true, displayModeBar: false})
    .then(() => e.target.dataset.drawn = "yes");
}), {rootMargin: "200px"});
document.querySelectorAll(".plot").forEach(plot => seen.observe(plot));
"""


def write_report(found: Findings, folder: Path) -> Path:
    """Write index.html and the data behind its figures; the path of the page.

    Args:
        found: On a sweep, finished or not.
        folder: Made if need be; files of the same names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, frame in _data(found).items():
        _write(folder / f"{name}.csv", as_csv(frame))
    write_dictionary(found.table, folder)
    page = folder / "index.html"
    _write(page, "\n".join(_page(found)))
    return page


def _data(found: Findings) -> dict[str, pd.DataFrame]:
    """What figures are made of, by file name."""
    data = {"table": found.table, "cells": cell_values(found.table), "arms": found.arms, "ranking": found.ranked}
    if not found.ranked.empty:
        data |= {"comparisons": found.compared, "sensitivity": found.sensitivity}
        data |= {"effects": found.effects} if isinstance(found.effects, pd.DataFrame) else {}
        data |= {"storage": found.storage} if not found.storage.empty else {}
        data |= {"tuning": found.tuning, "tunability": found.tunability} if found.landscape.plan.has_tune_stage else {}
    return data


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(permitted(0o666))
    Path(file.name).replace(path)


def _page(found: Findings) -> Iterator[str]:
    landscape = found.landscape
    name = html.escape(landscape.plan.name)
    scripts = [get_plotlyjs(), _DRAW]
    yield f"<!doctype html><html lang='en'><head><meta charset='utf-8'>{_policy(scripts)}"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>"
    yield f"<title>Loss landscape: {name}</title><style>{_STYLE}</style></head><body>"
    yield f"<h1>Loss landscape: {name}</h1>"
    if found.ranked.empty:
        yield f"<p class='lead'>{_nothing(landscape)}</p>"
    else:
        yield f"<p class='lead'>{headline(found)}</p><ul class='soft'>"
        yield from (f"<li>{sentence}</li>" for sentence in qualifications(found))
        yield f"</ul>{_GLOSSARY}"
        yield from _main(found)
    yield "<h2 id='caveats'>Caveats</h2><ul>"
    yield from (f"<li>{html.escape(text)}</li>" for text in caveats(landscape))
    yield "</ul><h2 id='reproduce'>How to reproduce</h2>"
    yield f"<pre class='wide'>{html.escape(how_to_reproduce(landscape))}</pre>"
    yield "".join(f"<script>{script}</script>" for script in scripts) + "</body></html>"


def _policy(scripts: Iterable[str]) -> str:
    """What a browser lets the page do: run these scripts, known by their hashes, and load nothing from anywhere."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{value}'" for value in hashes)
    rules = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f'<meta http-equiv="Content-Security-Policy" content="{rules}">'


def _nothing(landscape: Landscape) -> str:
    """Why there is nothing to show."""
    confirm = landscape.table[landscape.table.stage == "confirm"]
    if len(confirm) and (confirm.status == "skipped").all():
        return "All draws of all cells diverged, so there is nothing to confirm; lower the learning rates."
    return "No cell has been confirmed yet; run <code>lossatlas resume</code> and look again."


def _main(found: Findings) -> Iterator[str]:
    """Every section that has something to say, after links to them."""
    made = [(key, title, list(parts)) for key, title, parts in sections(found)]
    made = [(key, title, parts) for key, title, parts in made if parts]
    links = [(key, title) for key, title, _ in made] + [("caveats", "Caveats"), ("reproduce", "How to reproduce")]
    yield "<nav aria-label='Sections'>" + "".join(f"<a href='#{key}'>{title}</a>" for key, title in links) + "</nav>"
    for key, title, parts in made:
        yield f"<section aria-labelledby='{key}'><h2 id='{key}'>{title}</h2>"
        yield from parts
        yield "</section>"
