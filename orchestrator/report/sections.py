"""The page's sections, each a question; what each figure shows is said in a sentence."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from orchestrator.landscape.anova import effects
from orchestrator.landscape.comparisons import compare, significance_groups
from orchestrator.landscape.curves import learning_curves
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.power import replicates_needed
from orchestrator.landscape.spread import factor_drops, sensitivity
from orchestrator.landscape.stopping import StoppingSummary, early_stopping_safety, rung_table, summarise_stopping
from orchestrator.landscape.tuning import tuning_curve
from orchestrator.landscape.values import arm_values, ranking
from orchestrator.report.figures import (
    curves_figure,
    effects_figure,
    heatmap_figure,
    profile_figure,
    ranking_figure,
    tuning_figure,
)
from orchestrator.report.html import figure, grid, interval, percent, points, probability

MOST_PAIRS = 500
Section = tuple[str, str, Iterator[str]]


@dataclass(frozen=True)
class Findings:
    """A landscape and the statistics on it, each computed once."""

    landscape: Landscape

    @property
    def table(self) -> pd.DataFrame:
        """The tidy table."""
        return self.landscape.table

    @cached_property
    def ranked(self) -> pd.DataFrame:
        """Arms, best first; see `ranking`."""
        return ranking(self.table)

    @cached_property
    def arms(self) -> pd.DataFrame:
        """See `arm_values`."""
        return arm_values(self.table)

    @cached_property
    def compared(self) -> pd.DataFrame:
        """Every pair of arms; see `compare`."""
        return compare(self.table, aggregate="tuned" if self.landscape.plan.has_tune_stage else "mean")

    @cached_property
    def sensitivity(self) -> pd.DataFrame:
        """See `orchestrator.landscape.spread.sensitivity`."""
        return sensitivity(self.table)

    @cached_property
    def tuning(self) -> pd.DataFrame:
        """See `tuning_curve`."""
        return tuning_curve(self.table)

    @cached_property
    def effects(self) -> pd.DataFrame | str:
        """Functional ANOVA over the loss, its knobs and the contexts; or why there is none."""
        knobs = [k for k in ("temperature", "refinement", "smoothing", "scale_t2", "ce_weight") if k in self.table]
        spanned = [name for name in knobs if self.table[name].nunique() > 1]
        try:
            return effects(self.table, ["loss", *spanned, *self.table.attrs.get("contexts", [])])
        except ValueError as err:
            return str(err)


def headline(found: Findings) -> str:
    """The outcome in a few sentences."""
    landscape, ranked = found.landscape, found.ranked
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    text = (
        f"{_at(landscape)}, test accuracy ranges from {percent(worst['mean'])} ({html.escape(worst.level)}) to "
        f"{percent(best['mean'])} ({html.escape(best.level)}), mean over {best.contexts} context(s) and {best.n} "
        "replicates."
    )
    tied = [level for level in ranked.level[1:] if _p_of(found.compared, best.level, level) > 0.05]
    if (needed := _replicates_missing(found)) is not None:
        text += f" No difference can be significant with so few replicates; {needed} are needed for this many pairs."
    elif tied:
        text += f" Not found to differ from the best (sign-flip test, Holm, 5 %): {html.escape(', '.join(tied))}."
    terms = found.effects
    alone = isinstance(terms, pd.DataFrame) and set(terms.term) == {"loss", "block", "residual"}
    if isinstance(terms, pd.DataFrame) and not alone and terms.share[terms.term == "loss"].notna().any():
        row = terms.set_index("term").loc["loss"]
        text += f" The choice of loss explains {row.share:.0%} of the variance between cells"
        text += "." if pd.isna(row.low) else f" (95 % interval {row.low:.0%} to {row.high:.0%})."
    return text + _how_much_was_rate(found)


def _replicates_missing(found: Findings) -> int | None:
    """Replicates that the smallest adjusted p needs to reach 5 %; None if there are enough."""
    pairs = found.compared[found.compared.n > 0]
    needed = replicates_needed(len(pairs)) if len(pairs) else 0
    return needed if len(pairs) and pairs.n.max() < needed else None


def _how_much_was_rate(found: Findings) -> str:
    """The range over losses at one shared draw beside that at own draws, mean over contexts."""
    ranges = found.sensitivity.dropna(subset=["shared"])
    if not found.landscape.plan.has_tune_stage or ranges.empty:
        return ""
    kind = "test accuracy" if (ranges.source == "confirm").all() else "validation accuracy, no interval"
    return (
        f" At one shared draw for all losses the range would be {points(ranges.shared.mean())} points ({kind}) instead of "
        f"{points(ranges.tuned.mean())}."
    )


def sections(found: Findings) -> Iterator[Section]:
    """Key, title and content of each section."""
    yield "which", "Which loss?", _which(found)
    yield "plane", "Temperature and refinement", _plane(found)
    for factor in found.table.attrs.get("contexts", []):
        yield f"across-{factor}", f"Across {html.escape(factor)}", _across(found, factor)
    yield "effects", "What explains the differences?", _explained(found)
    yield "tuning", "How much does tuning matter?", _tuning(found)
    yield "curves", "Learning curves", _curves(found)
    yield "pairs", "Every pair of losses", _pairs(found)
    yield "stopping", "What early stopping did", _stopping(found)


def _which(found: Findings) -> Iterator[str]:
    yield figure(
        ranking_figure(found.table),
        f"Test accuracy per arm: {_represented(found.landscape)} in each context. Intervals are over replicates and conditional "
        "on the chosen draw. Data: <a href='ranking.csv'>ranking.csv</a>, <a href='arms.csv'>arms.csv</a>.",
        "Arms ranked by test accuracy with intervals",
    )
    ranked = found.ranked
    best = {}
    if "test_accuracy_max" in found.table:  # what papers report; it enters nothing else
        best = ranking(found.table, "test_accuracy_max").set_index("level")["mean"].to_dict()
    letters = significance_groups(dict(zip(ranked.level, ranked["mean"], strict=True)), found.compared)
    rows = [
        (
            row["level"],
            letters[row["level"]],
            percent(row["mean"]),
            interval(row["low"], row["high"]),
            "–" if row["behind"] == 0 else points(row["behind"]),
            interval(row["behind_low"], row["behind_high"]) if row["behind"] else "",
            row["n"],
            row["contexts"],
            row["cells"],
            *([percent(best[row["level"]])] if best else []),
        )
        for row in ranked.to_dict("records")
    ]
    head = ("arm", "group", "test accuracy", "95 % interval", "behind the best", "paired interval", "n", "contexts")
    yield grid((*head, "cells", *(["best of all evaluations"] if best else [])), rows)
    yield (
        "<p class='soft'>Arms that share a letter were not found to differ (exact sign-flip test on paired replicates, "
        "Holm over all pairs, 5 %). Differences are in points. An arm with more cells had more chances to be lucky in "
        "tuning; its representing cell is chosen on validation images only.</p>"
    )


def _plane(found: Findings) -> Iterator[str]:
    drawing = heatmap_figure(found.table)
    if drawing is not None:
        yield figure(
            drawing,
            "Test accuracy (%) over temperature T and refinement w, one panel per loss and context, one colour scale. "
            "Hover for n and interval. Data: <a href='cells.csv'>cells.csv</a>.",
            "Test accuracy over temperature and refinement for each loss",
        )


def _across(found: Findings, factor: str) -> Iterator[str]:
    """Arms x levels of a context factor, with the drop from best to worst."""
    values = found.arms.pivot_table(index="level", columns=factor, values="mean", sort=False)
    if values.shape[1] < 2:
        return
    drops = {row["level"]: row for row in factor_drops(found.table, factor).to_dict("records")}
    by_level = {str(level): list(row) for level, row in zip(values.index, values.to_numpy(), strict=True)}
    rows = [
        (level, *map(percent, by_level[level]), *_drop(drops.get(level)))
        for level in found.ranked.level
        if level in by_level
    ]
    yield grid(("arm", *map(str, values), "drop", "95 % interval"), rows)
    yield (
        f"<p class='soft'>Each arm at its own draw under each {html.escape(factor)}; the drop is from its best to its worst "
        "one, in points, paired by replicate. Being chosen as best and worst makes a drop larger than it is where the two "
        "hardly differ.</p>"
    )


def _drop(row: Mapping[Any, Any] | None) -> tuple[str, str]:
    return ("–", "") if row is None else (points(row["drop"]), interval(row["low"], row["high"]))


def _explained(found: Findings) -> Iterator[str]:
    terms = found.effects
    if isinstance(terms, str):
        yield f"<p>Not decomposed: {html.escape(terms)}</p>"
        return
    cells = terms[~terms.term.isin(["block", "residual"])].sort_values("share", ascending=False)
    if cells.share.isna().all() or len(cells) < 2:
        return
    yield figure(
        effects_figure(cells),
        "Share of the variance between cells that each factor and interaction explains (functional ANOVA, corrected for "
        "noise, losses weighted equally). <code>temperature|loss</code> is temperature within the losses that have one. "
        "95 % jackknife intervals over replicates. Data: <a href='effects.csv'>effects.csv</a>.",
        "Share of variance by factor",
    )
    noise = terms.set_index("term").share
    yield (
        f"<p>Of the variance of one trial, the replicate (shared by all cells) is {noise['block']:.0%} and what is left, "
        f"seed noise, {noise['residual']:.0%}.</p>"
    )


def _tuning(found: Findings) -> Iterator[str]:
    if not found.landscape.plan.has_tune_stage:
        return
    levels, curve = list(found.ranked.level), found.tuning
    for factor in found.landscape.plan.space.nuisance:
        name = html.escape(factor.name)
        yield figure(
            profile_figure(found.table, factor.name, levels),
            f"Validation accuracy in the tune stage against {name}. A star is the chosen draw, a cross a trial that early "
            "stopping ended. Data: <a href='table.csv'>table.csv</a>.",
            f"Validation accuracy against {name}",
        )
    bound = (
        " Stopped draws enter with their last value, so these are lower bounds." if (curve.stopped > 0).any() else ""
    )
    yield figure(
        tuning_figure(curve, levels),
        f"Expected best validation accuracy after k draws of an arm.{bound} Curves that cross: the loss wins only if it is "
        "tuned. Compare arms at equal k for a ranking at equal search. Data: <a href='tuning.csv'>tuning.csv</a>.",
        "Expected best validation accuracy by number of draws",
    )


def _curves(found: Findings) -> Iterator[str]:
    yield figure(
        curves_figure(learning_curves(found.table, found.landscape.records), list(found.ranked.level)),
        "Validation accuracy of confirm trials by epoch; the band is the 95 % t interval over replicates.",
        "Validation accuracy by epoch",
    )


def _pairs(found: Findings) -> Iterator[str]:
    compared = found.compared.sort_values("mean_difference", key=abs, ascending=False)
    if compared.empty:
        return
    rows = [
        (
            f"{row['a']} − {row['b']}",
            points(row["mean_difference"]),
            interval(row["low"], row["high"]),
            probability(row["p_value"]),
            probability(row["p_holm"]),
            f"{row['p_better']:.2f} [{row['p_better_low']:.2f}, {row['p_better_high']:.2f}]",
            row["n"],
        )
        for row in compared.head(MOST_PAIRS).to_dict("records")
    ]
    yield grid(("pair", "difference", "95 % interval", "p", "p (Holm)", "P(first is better)", "n"), rows)
    left = len(compared) - len(rows)
    more = f"{left} more in " if left > 0 else "Data: "
    yield (
        "<p class='soft'>Mean paired difference in points over the contexts that both have; exact sign-flip p, adjusted for "
        f"all {len(compared)} pairs; share of replicates in which the first is better. {more}"
        "<a href='comparisons.csv'>comparisons.csv</a>.</p>"
    )


def _stopping(found: Findings) -> Iterator[str]:
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


def _p_of(compared: pd.DataFrame, a: str, b: str) -> float:
    """Adjusted p of a pair; 1 where it is not defined, for nothing was found then."""
    mine = compared[((compared.a == a) & (compared.b == b)) | ((compared.a == b) & (compared.b == a))].p_holm
    return 1.0 if mine.empty or pd.isna(mine.iloc[0]) else float(mine.iloc[0])


def _at(landscape: Landscape) -> str:
    """At which settings losses are compared."""
    return "Each at its own best draw" if landscape.plan.has_tune_stage else "All at the same fixed settings"


def _represented(landscape: Landscape) -> str:
    """What stands for an arm."""
    tuned = "each arm is its cell with the best tune validation"
    return tuned if landscape.plan.has_tune_stage else "each arm is the mean of its cells, for nothing was tuned,"
