"""Sections about what searching bought: learning rates, draws, knobs, early stopping."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pandas as pd

from orchestrator.landscape.stopping import StoppingSummary, early_stopping_safety, rung_table, summarise_stopping
from orchestrator.report.figures import profile_figure, tuning_figure
from orchestrator.report.findings import Findings
from orchestrator.report.html import context_name, figure, grid, interval, percent, points

#: Below this many audits their share says next to nothing.
ENOUGH_AUDITS: Final = 20


def tuning(found: Findings) -> Iterator[str]:
    """Learning-rate profiles, one shared draw against own draws, equal search, tuning curves, knobs kept at a value."""
    if not found.landscape.plan.has_tune_stage:
        return
    levels = list(found.ranked.level)
    for factor in found.landscape.plan.space.nuisance:
        name = html.escape(factor.name)
        yield figure(
            profile_figure(found.table, factor.name, levels),
            f"Validation error in the tune stage against {name}, for the cell that represents each arm; up is better. A star "
            "is the chosen draw. A cross is a trial that early stopping ended, at the error it had then, which is not comparable "
            "with that of trials that ended. Data: <a href='table.csv'>table.csv</a>.",
            f"Validation error against {name}",
            wide=True,
        )
    yield from _own_or_shared(found)
    yield from _equal_search(found)
    yield from _kept(found)


def _own_or_shared(found: Findings) -> Iterator[str]:
    """The range over losses at own draws and at one draw for all."""
    contexts = found.table.attrs.get("contexts", [])
    rows = [
        (
            context_name([row[name] for name in contexts]),
            f"{row['best']}, {row['worst']}",
            _ranged(row, "tuned"),
            f"{row['shared_best']}, {row['shared_worst']}",
            _ranged(row, "shared"),
            _ranged(row, "gap"),
            {"confirm": "test", "tune": "validation", "none": "–"}[row["source"]],
            f"{row['n']}, {row['shared_n']}" if row["source"] == "confirm" else row["n"],
        )
        for row in found.sensitivity.to_dict("records")
    ]
    yield grid(
        ("context", "best, worst", "range, own draws", "best, worst", "range, one draw", "gap", "of", "seeds"), rows
    )
    yield (
        "<p class='soft'>Range over losses (best minus worst, points) with each loss at its own best draw, and with all at the "
        "one draw that is best for the cells on average; the same cells both times. The gap is what a shared learning rate "
        "adds to the seeming sensitivity to the loss (or hides of it). Without <code>confirm: [best, shared]</code> the second "
        "range and the gap are of validation accuracy, without intervals. Being best and worst makes a range larger than it is "
        "where losses hardly differ. Data: <a href='sensitivity.csv'>sensitivity.csv</a>.</p>"
    )


def _ranged(row: Mapping[Any, Any], name: str) -> str:
    return f"{points(row[name])} {interval(row[f'{name}_low'], row[f'{name}_high'])}"


def _equal_search(found: Findings) -> Iterator[str]:
    """Tuning curves, and the ranking where they all have the same number of draws."""
    curve, equal = found.tuning, found.equal_search
    bound = (
        " Stopped draws enter with their last value, so these are lower bounds." if (curve.stopped > 0).any() else ""
    )
    yield figure(
        tuning_figure(curve, list(found.ranked.level)),
        f"Expected best validation accuracy after k draws of an arm.{bound} The band is a bootstrap over "
        "draws. Curves that cross beyond their bands: a loss that wins only if it is tuned. Data: <a href='tuning.csv'>tuning.csv</a>.",
        "Expected best validation accuracy by number of draws",
    )
    place = {level: number for number, level in enumerate(found.ranked.level, 1)}
    robust = found.robustness.set_index("level")
    rows = [
        (
            row["level"],
            percent(row["expected"]),
            interval(row["low"], row["high"]),
            number,
            place[row["level"]],
            int(robust.draws[row["level"]]),
            f"{robust.close[row['level']]:.0%}",
            row["n"],
        )
        for number, row in enumerate(equal.to_dict("records"), 1)
    ]
    k = equal.draws.iloc[0]
    head = (
        f"validation after {k} draws",
        "95 % interval",
        "rank there",
        "rank by test",
        "draws tried",
        "within 1 point",
        "tune seeds",
    )
    yield grid(("arm", *head), rows)
    yield (
        f"<p class='soft'>At equal search: what {k} draws of an arm per context would have found, so that an arm with more "
        "cells has no more chances. The interval is over draws (bootstrap). A bootstrap of a best value "
        "cannot exceed it, so the upper ends are too low where draws are few. Within 1 point: the share of draws of the arm's "
        "chosen cells that come within one point of their best; stopped draws count as not.</p>"
    )


def _kept(found: Findings) -> Iterator[str]:
    """Tunability of knobs, as far as an arm had several values to choose from."""
    rows = [
        (row["level"], f"{row['knob']} = {row['value']:.3g}", *_lost(row))
        for row in found.tunability.to_dict("records")
    ]
    if not rows:
        return
    yield grid(("arm", "kept at", "points lost", "95 % interval"), rows)
    yield (
        "<p class='soft'>Tunability: what an arm loses by keeping one knob at a value while the rest is chosen as before, "
        "paired by replicate. Negative: the value kept did better on "
        "test than the one that validation chose; noise, where the interval contains 0. Data: <a href='tunability.csv'>tunability.csv</a>.</p>"
    )


def _lost(row: Mapping[Any, Any]) -> tuple[str, str]:
    """Points and interval; the value that was chosen everywhere loses nothing."""
    is_chosen = row["lost"] == row["low"] == row["high"] == 0
    return ("chosen", "") if is_chosen else (points(row["lost"]), interval(row["low"], row["high"]))


def stopping(found: Findings) -> Iterator[str]:
    """What early stopping cut, and whether that was safe."""
    landscape = found.landscape
    if landscape.plan.space.settings.early_stopping is None or not landscape.plan.has_tune_stage:
        yield "<p>It was off: every trial ended.</p>"
        return
    full = {cell.label: cell.settings.fixed.epochs for cell in landscape.plan.cells}
    s = summarise_stopping(landscape.table, full)
    yield (
        f"<p>{s.stopped} of {s.trials} tune trials were stopped, which saved {s.epochs_saved_frac:.0%} of the tune stage's "
        f"epochs; confirm trials are never stopped. {_audits(s)}</p>"
    )
    yield _by_draw(found.table)
    rungs = rung_table(landscape.records)
    if not rungs.empty:
        yield grid(list(rungs.columns), rungs.itertuples(index=False))
    safety = early_stopping_safety(landscape.table, landscape.records)
    if safety.n.sum():
        rows = [(r.rung_epochs, r.n, _rho(r.across), _rho(r.within), r.strata) for r in safety.itertuples()]
        yield grid(("rung (epochs)", "trials", "Spearman, all", "Spearman, within cells", "cells"), rows)
        yield (
            "<p class='soft'>Rank correlation between validation accuracy at a rung and at the end, over trials that were "
            "not stopped, so that what early stopping took for hopeless is missing; within cells (of at least 3 such trials) it is "
            "what early stopping relies on.</p>"
        )


def _rho(value: Any) -> str:
    return "not measurable" if pd.isna(value) else f"{value:.2f}"


def _by_draw(table: pd.DataFrame) -> str:
    """What became of each draw; ASHA judges by the order of arrival, which is the order of the draws."""
    tune = table[table.stage == "tune"]
    counts = tune.groupby(["draw", "status"]).size().unstack(fill_value=0)
    audited = tune.groupby("draw").audited.sum()
    rows = [
        (d, counts.get("finished", {}).get(d, 0), counts.get("stopped", {}).get(d, 0), audited[d]) for d in counts.index
    ]
    note = (
        "<p class='soft'>The first draws of a cell to arrive at a rung are judged against few others or none, so they end "
        "more often than later ones, whatever their merit.</p>"
    )
    return grid(("draw", "ended", "stopped", "audited"), rows) + note


def _audits(s: StoppingSummary) -> str:
    """What the audits say about safety, and whether they are enough to say anything."""
    if not s.audited:
        return "Whether stopping was safe is not measurable without audited stops."
    text = (
        f"{s.audited} stop decision(s) were recorded but not executed; {s.audited_won} of these trials went on to be their "
        f"cell's choice ({s.audited_won / s.audited:.0%}, 95 % interval {s.won_low:.0%} to {s.won_high:.0%}; chosen by "
        "validation, which need not be better on test)."
    )
    return text + (" So few audits cannot tell whether stopping was free." if s.audited < ENOUGH_AUDITS else "")
