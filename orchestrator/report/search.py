"""Sections about what searching bought: learning rates, draws, knobs, early stopping."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from orchestrator.landscape.stopping import StoppingSummary, early_stopping_safety, rung_table, summarise_stopping
from orchestrator.report.figures import profile_figure, tuning_figure
from orchestrator.report.findings import Findings
from orchestrator.report.html import figure, grid, interval, percent, points


def tuning(found: Findings) -> Iterator[str]:
    """Learning-rate profiles, one shared draw against own draws, equal search, tuning curves, knobs kept at a value."""
    if not found.landscape.plan.has_tune_stage:
        return
    levels = list(found.ranked.level)
    for factor in found.landscape.plan.space.nuisance:
        name = html.escape(factor.name)
        yield figure(
            profile_figure(found.table, factor.name, levels),
            f"Validation accuracy in the tune stage against {name}. A star is the chosen draw, a cross a trial that early "
            "stopping ended. Data: <a href='table.csv'>table.csv</a>.",
            f"Validation accuracy against {name}",
        )
    yield from _own_or_shared(found)
    yield from _equal_search(found)
    yield from _kept(found)


def _own_or_shared(found: Findings) -> Iterator[str]:
    """The range over losses at own draws and at one draw for all."""
    ranges, contexts = found.sensitivity, found.table.attrs.get("contexts", [])
    rows = [
        (
            ", ".join(str(row[name]) for name in contexts) or "all",
            f"{row['best']}, {row['worst']}",
            points(row["tuned"]),
            interval(row["tuned_low"], row["tuned_high"]),
            points(row["shared"]),
            interval(row["shared_low"], row["shared_high"]),
            {"confirm": "test", "tune": "validation", "none": "–"}[row["source"]],
        )
        for row in ranges.to_dict("records")
    ]
    head = ("context", "best, worst", "range, own draws", "95 % interval", "range, shared draw", "95 % interval", "on")
    yield grid(head, rows)
    yield (
        "<p class='soft'>Range over losses (best minus worst, points) when each loss has its own best draw, and when all "
        "have the one draw that is best for them on average: the gap is sensitivity to the learning rate, not to the "
        "loss. <code>confirm: [best, shared]</code> gives the second one test accuracies and an interval. Being chosen as "
        "best and worst makes a range larger than it is where losses hardly differ. Data: "
        "<a href='sensitivity.csv'>sensitivity.csv</a>.</p>"
    )


def _equal_search(found: Findings) -> Iterator[str]:
    """Tuning curves, and the ranking where they all have the same number of draws."""
    curve, equal = found.tuning, found.equal_search
    bound = (
        " Stopped draws enter with their last value, so these are lower bounds." if (curve.stopped > 0).any() else ""
    )
    yield figure(
        tuning_figure(curve, list(found.ranked.level)),
        f"Expected best validation accuracy after k draws of an arm.{bound} Curves that cross: the loss wins only if it is "
        "tuned. Data: <a href='tuning.csv'>tuning.csv</a>.",
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
    )
    yield grid(("arm", *head), rows)
    yield (
        f"<p class='soft'>At equal search: what {k} draws of an arm per context would have found, so that an arm with more "
        "cells has no more chances. The interval is over draws (bootstrap). Within 1 point: the share of draws of the arm's "
        "chosen cell that come within one point of its best, so how forgiving it is. Draws tried are those of the chosen "
        "cells.</p>"
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
        "paired by replicate. A negative loss means that "
        "validation chose another value than test would have. Data: <a href='tunability.csv'>tunability.csv</a>.</p>"
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
        f"epochs; confirm trials are never stopped. {s.audited} stop decision(s) were recorded but not executed; of these "
        f"trials, {s.audited_won} became their cell's best draw after all. {_stopping_verdict(s)}</p>"
    )
    rungs = rung_table(landscape.records)
    if not rungs.empty:
        yield grid(list(rungs.columns), rungs.itertuples(index=False))
    safety = early_stopping_safety(landscape.table, landscape.records)
    if safety.n.sum():
        rows = [(r.rung_epochs, r.n, _rho(r.across), _rho(r.within), r.strata) for r in safety.itertuples()]
        yield grid(("rung (epochs)", "trials", "Spearman, all", "Spearman, within cells", "cells"), rows)
        yield (
            "<p class='soft'>Rank correlation between validation accuracy at a rung and at the end, over trials that were "
            "not stopped; within cells it is what early stopping relies on.</p>"
        )


def _rho(value: Any) -> str:
    return "not measurable" if pd.isna(value) else f"{value:.2f}"


def _stopping_verdict(s: StoppingSummary) -> str:
    """What the audits say about safety."""
    if not s.audited:
        return "Whether stopping was safe is not measurable without audited stops."
    share = f"{s.audited_won / s.audited:.0%} (95 % interval {s.won_low:.0%} to {s.won_high:.0%})"
    return f"So an estimated {share} of the stopped trials would have won their cell: " + (
        "stopping was not free here; a later grace period is safer." if s.audited_won else "no harm was seen."
    )
