"""The page's sections, each a question; what each figure shows is said in a sentence."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.landscape.comparisons import significance_groups
from orchestrator.landscape.curves import learning_curves
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.pooled import pooled_iqm
from orchestrator.landscape.power import smallest_p
from orchestrator.landscape.spread import factor_drops
from orchestrator.landscape.values import confirmed, ranking
from orchestrator.report import labels
from orchestrator.report.figures import curves_figure, effects_figure, heatmap_figure, ranking_figure, settings_figure
from orchestrator.report.findings import Findings
from orchestrator.report.headline import MOST_CONTEXTS
from orchestrator.report.html import context_name, figure, grid, interval, percent, points, probability, share
from orchestrator.report.search import stopping, tuning

MOST_PAIRS = 500
#: Of a single loss, that are drawn one by one.
MOST_SETTINGS = 60
Section = tuple[str, str, Iterator[str]]


def sections(found: Findings) -> Iterator[Section]:
    """Key, title and content of each section."""
    alone = len(found.ranked) == 1 and len(found.arms) > 1
    yield "which", "Which setting?" if alone else "Which loss?", _which_setting(found) if alone else _which(found)
    yield "plane", "Temperature and refinement", _plane(found)
    yield "epoch", "Which epoch of the teacher?", labels.teacher_epoch(found)
    yield "structure", "Which part of a label matters?", labels.structure(found)
    yield "scaling", "How much do more images help?", labels.scaling(found)
    yield "storage", "Images, label bytes and accuracy", labels.storage(found)
    for factor in found.table.attrs.get("contexts", []):
        yield f"across-{factor}", f"Across {html.escape(factor)}", _across(found, factor)
    yield "stability", "How stable is the ranking?", _stable(found)
    yield "effects", "What explains the differences?", _explained(found)
    yield "tuning", "How much does tuning matter?", tuning(found)
    yield "curves", "Learning curves", _curves(found)
    yield "pairs", "Every pair of losses", _pairs(found)
    yield "stopping", "What early stopping did", stopping(found)


def _which(found: Findings) -> Iterator[str]:
    yield figure(
        ranking_figure(found.table),
        f"Test accuracy per arm: {_represented(found.landscape)} in each context. Intervals are over seeds{_given(found)}. "
        "Data: <a href='ranking.csv'>ranking.csv</a>, <a href='arms.csv'>arms.csv</a>.",
        "Arms ranked by test accuracy with intervals",
    )
    yield from _ranking(found)
    yield from _representatives(found)


def _which_setting(found: Findings) -> Iterator[str]:
    """One arm in all its contexts, best first."""
    if len(found.arms) <= MOST_SETTINGS:
        yield figure(
            settings_figure(found.arms, list(found.table.attrs["contexts"])),
            f"Test accuracy per setting: {_represented(found.landscape)} in each. Intervals are over seeds{_given(found)}. "
            "Data: <a href='arms.csv'>arms.csv</a>.",
            "Settings by test accuracy with intervals",
        )
    names = list(found.table.attrs["contexts"])
    rows = [
        (
            context_name([row[name] for name in names], names),
            percent(row["mean"]),
            interval(row["low"], row["high"]),
            points(row["mean_difference"]),
            interval(row["difference_low"], row["difference_high"]),
            probability(row["p_holm"]),
            row["n"],
        )
        for row in found.settings.to_dict("records")
    ]
    yield grid(
        ("setting", "test accuracy", "95 % interval", "against the first", "95 %, paired", "p (Holm)", "seeds"), rows
    )
    yield (
        "<p class='soft'>In the order of validation accuracy; the first was chosen on it, so it is no winner picked on test images. "
        "Differences in points, paired by seed; exact sign-flip p, adjusted for all rows.</p>"
    )
    yield from _representatives(found)


def _ranking(found: Findings) -> Iterator[str]:
    """Arms with intervals, letters and what they were chosen from."""
    ranked, best = found.ranked, {}
    if "test_accuracy_max" in found.table:  # what papers report; it enters nothing else
        best = ranking(found.table, "test_accuracy_max").set_index("level")["mean"].to_dict()
    letters = significance_groups(dict(zip(ranked.level, ranked["mean"], strict=True)), found.compared)
    draws = found.landscape.plan.space.draws
    rows = [
        (
            row["level"],
            letters[row["level"]],
            percent(row["mean"]),
            interval(row["low"], row["high"]),
            "–" if row["behind"] == 0 else points(row["behind"]),
            interval(row["behind_low"], row["behind_high"]) if row["behind"] else "",
            row["n"],
            row["cells"],
            row["cells"] * draws if found.landscape.plan.has_tune_stage else "–",
            *([percent(best[row["level"]])] if best else []),
        )
        for row in ranked.to_dict("records")
    ]
    head = (
        "arm",
        "group",
        "test accuracy",
        "95 % interval",
        "points behind",
        "95 %, paired",
        "seeds",
        "cells",
        "draws",
    )
    yield grid((*head, *(["best of all evaluations"] if best else [])), rows)
    yield (
        "<p class='soft'>Mean over contexts with equal weight. Arms that share a letter were not found to differ, which is "
        f"not the same as equal (exact sign-flip test on paired seeds, Holm over all pairs, 5 %{_floor(found)}). "
        f"{_searched(found)}</p>"
    )
    for names in dict.fromkeys(found.names.values()):
        if names not in found.names:
            yield f"<p class='soft'>{html.escape(names)}: represented by the same cells, so their numbers are equal.</p>"


def _given(found: Findings) -> str:
    return ", for the draw that was chosen" if found.landscape.plan.has_tune_stage else ""


def _searched(found: Findings) -> str:
    """What the columns after the seeds mean."""
    if found.landscape.plan.has_tune_stage:
        return (
            "Cells and draws: how many an arm was chosen from, over all contexts; more is more chances to be lucky in tuning, "
            "so see also the ranking <a href='#tuning'>at equal search</a>. The choice is made on validation images only."
        )
    maximum = (
        " Best of all evaluations: the highest of a trial's test accuracies, as many papers report it; it is chosen on test "
        "images, so it is too high, and enters nothing else here."
    )
    return "Nothing was tuned: an arm is the mean of its cells." + (
        maximum if "test_accuracy_max" in found.table else ""
    )


def _floor(found: Findings) -> str:
    """The smallest p there can be."""
    n, m = int(found.ranked.n.max()), len(found.compared)
    return (
        f"; with {n} seeds no p is below {smallest_p(n):.2g}, after Holm over {m} pairs {min(1, m * smallest_p(n)):.2g}"
    )


def _representatives(found: Findings) -> Iterator[str]:
    """Which cell at which draw stands for each arm in each context."""
    nuisance = [factor.name for factor in found.landscape.plan.space.nuisance]
    chosen = confirmed(found.table).drop_duplicates("cell").set_index("cell")
    rows = []
    for row in found.arms.to_dict("records"):
        one = row["members"][0] if len(row["members"]) == 1 else None
        at = ", ".join(f"{name} = {chosen[name][one]:.3g}" for name in nuisance) if one else "–"
        rows.append((row["level"], row["cell"], at, percent(row["mean"]), interval(row["low"], row["high"]), row["n"]))
    shown = grid(("arm", "cell", "at", "test accuracy", "95 % interval", "seeds"), rows)
    yield f"<details><summary>What represents each arm</summary>{shown}</details>"


def _plane(found: Findings) -> Iterator[str]:
    drawing = heatmap_figure(found.table)
    if drawing is not None:
        yield figure(
            drawing,
            "Test accuracy (%) over temperature T and refinement w, one panel per loss and context, one colour scale. "
            "Cells far below the others have the scale's lowest colour; each says its value. – : the loss has no temperature. "
            "Hover for n and interval. Data: <a href='cells.csv'>cells.csv</a>.",
            "Test accuracy over temperature and refinement for each loss",
            wide=True,
        )


def _across(found: Findings, factor: str) -> Iterator[str]:
    """Arms x levels of a context factor, with the drop from best to worst."""
    values = found.arms.pivot_table(index="level", columns=factor, values="mean", sort=False)
    seeds = found.arms.groupby("level").n.agg(["min", "max"])
    if values.shape[1] < 2:
        return
    drops = {row["level"]: row for row in factor_drops(found.table, factor).to_dict("records")}
    by_level = {str(level): list(row) for level, row in zip(values.index, values.to_numpy(), strict=True)}
    rows = [
        (level, *map(percent, by_level[level]), _counted(*seeds.loc[level]), *_drop(drops.get(level)))
        for level in found.ranked.level
        if level in by_level
    ]
    yield grid(("arm", *map(str, values), "seeds", "best", "drop, points", "95 % interval", "seeds of the drop"), rows)
    yield (
        f"<p class='soft'>Each arm as it is represented under each {html.escape(factor)}; the drop is from its best to "
        "its worst one, paired by seed, over the seeds that both have. Being chosen as best and worst makes a drop larger than it is where the two "
        "hardly differ.</p>"
    )

    if factor == "dataset":
        yield from _over_datasets(found)


def _over_datasets(found: Findings) -> Iterator[str]:
    """One number per arm over all datasets."""
    pooled = pooled_iqm(found.table)
    rows = [(r["level"], percent(r["iqm"]), interval(r["low"], r["high"]), r["n"]) for r in pooled.to_dict("records")]
    yield grid(("arm", "interquartile mean", "95 % interval", "runs"), rows)
    yield (
        "<p class='soft'>Interquartile mean over the runs on all datasets, with a bootstrap interval stratified by dataset "
        "(Agarwal et al. 2021); accuracies are pooled as they are.</p>"
    )


def _stable(found: Findings) -> Iterator[str]:
    """Kendall's tau between rankings."""
    if found.stability.empty:
        return
    rows = [
        (row["between"], row["pairs"], f"{row['tau']:.2f}", f"{row['lowest']:.2f}", row["n"])
        for row in found.stability.to_dict("records")
    ]
    yield grid(("between", "pairs", "Kendall's tau, mean", "lowest", "seeds"), rows)
    yield (
        "<p class='soft'>Rank correlation of two rankings of the arms: 1 is the same order, 0 no relation. Between "
        "replicates: of two seeds of the same cells and draws, do both order the arms alike? Another choice of draws is not in "
        "it.</p>"
    )


def _drop(row: Mapping[Any, Any] | None) -> tuple[Any, ...]:
    if row is None:
        return "–", "–", "", "–"
    return row["best"], points(row["drop"]), interval(row["low"], row["high"]), row["n"]


def _counted(least: int, most: int) -> str:
    """How many seeds several means are of."""
    return str(most) if least == most else f"{least} to {most}"


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
        "noise, losses weighted equally). <code>temperature|loss</code> is temperature within the losses that have one, averaged "
        "over all losses, so a knob of few losses explains little of the whole although it may matter to them. One loss far "
        "off in one context can make most of the shares of <code>loss</code> and of its interaction. 95 % jackknife intervals over replicates. Data: <a href='effects.csv'>effects.csv</a>.",
        "Share of variance by factor",
    )
    noise = terms.set_index("term").share
    yield (
        f"<p>Of the variance of single confirm trials, {noise['block']:.0%} is common to a seed in all cells, and "
        f"{noise['residual']:.0%} is what seeds do beyond that; the rest is between cells, which the figure divides.</p>"
    )


def _curves(found: Findings) -> Iterator[str]:
    curves = learning_curves(found.table, found.landscape.records)
    n = f" ({_counted(curves.n.min(), curves.n.max())} seeds; hover for n)" if len(curves) else ""
    yield figure(
        curves_figure(curves, list(found.ranked.level)),
        "Validation error of confirm trials by epoch, up is better, mean over contexts; the band is the 95 % t interval over "
        f"seeds{n}.",
        "Validation error by epoch",
    )


def _pairs(found: Findings) -> Iterator[str]:
    compared = found.compared.sort_values("mean_difference", key=abs, ascending=False)
    if compared.empty:
        return
    contexts = found.by_context if len(found.by_context) <= MOST_CONTEXTS else {}
    within = {name: pairs.set_index(["a", "b"]).mean_difference for name, pairs in contexts.items()}
    rows = [
        (
            f"{row['a']} − {row['b']}",
            points(row["mean_difference"]),
            interval(row["low"], row["high"]),
            probability(row["p_value"]),
            probability(row["p_holm"]),
            share(row["p_better"], row["p_better_low"], row["p_better_high"]),
            row["n"],
            *(points(pairs.get((row["a"], row["b"]), math.nan)) for pairs in within.values()),
        )
        for row in compared.head(MOST_PAIRS).to_dict("records")
        if found.names[row["a"]] != found.names[row["b"]]
    ]
    head = ("pair", "points", "95 % interval", "p", "p (Holm)", "share of seeds", "seeds")
    yield grid((*head, *(f"in {name}" for name in within)), rows)
    left = max(0, len(compared) - MOST_PAIRS)
    more = f"{left} more in " if left else "Data: "
    yield (
        "<p class='soft'>Mean paired difference in points over the contexts that both have; exact sign-flip p, adjusted for "
        f"all {len(compared)} pairs; share of seeds in which the first is better (ties count half, Clopper-Pearson interval); "
        f"the mean difference within each context, where they are few. {more}"
        "<a href='comparisons.csv'>comparisons.csv</a>.</p>"
    )


def _represented(landscape: Landscape) -> str:
    """What stands for an arm."""
    tuned = "each arm is its cell with the best tune validation"
    return tuned if landscape.plan.has_tune_stage else "each arm is the mean of its cells, for nothing was tuned,"
