"""The outcome in a few sentences, and what a reader must know to believe them."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.power import replicates_needed
from orchestrator.landscape.tuning import boundary_flags
from orchestrator.landscape.values import levels_of
from orchestrator.report.findings import Findings
from orchestrator.report.html import context_name, percent, points

#: Contexts that are named one by one; more are summed up.
MOST_CONTEXTS: Final = 4


def headline(found: Findings) -> str:
    """The outcome in a few sentences."""
    if len(found.ranked) == 1 and len(found.arms) > 1:
        return _of_one_arm(found)
    landscape, ranked = found.landscape, found.ranked[found.ranked.contexts == found.ranked.contexts.max()]
    best, worst = ranked.iloc[0], ranked.iloc[-1]
    at = _on_what(landscape) + _at(landscape)
    text = (
        f"{at[0].upper()}{at[1:]}, test accuracy ranges from {percent(worst['mean'])} "
        f"({html.escape(found.names[str(worst.level)])}) to {percent(best['mean'])} ({html.escape(found.names[str(best.level)])}), "
        f"mean over {_contexts(found, best.contexts)}{best.n} seeds."
    )
    tied = [row for row in ranked[1:].to_dict("records") if _p_of(found.compared, best.level, row["level"]) > 0.05]
    if (needed := _replicates_missing(found)) is not None:
        text += f" No difference can be significant with so few replicates; {needed} are needed for this many pairs."
    elif tied:
        behind = [f"{html.escape(r['level'])} ({points(r['behind'])} points behind)" for r in tied]
        text += f" Not found to differ from the best (sign-flip test, Holm, 5 %): {', '.join(behind)}."
    return text + _explained(found) + _how_much_was_rate(found)


def _of_one_arm(found: Findings) -> str:
    """The outcome where the loss does not vary, but its contexts do."""
    names = list(found.table.attrs["contexts"])
    arms = found.arms.sort_values("mean").to_dict("records")
    worst, best = (
        f"{percent(a['mean'])} ({html.escape(context_name([a[n] for n in names], names))})" for a in (arms[0], arms[-1])
    )
    seeds = int(found.ranked.n.iloc[0])
    text = f"With the loss {html.escape(str(found.ranked.level.iloc[0]))}{_at_own_draw(found.landscape)}, test accuracy ranges from "
    text += f"{worst} to {best} over {len(arms)} settings of {html.escape(', '.join(names))}, mean over {seeds} seeds."
    settings = found.settings
    base = html.escape(context_name([settings[name].iloc[0] for name in names], names))
    differ = int((settings.p_holm <= 0.05).sum())
    if (needed := replicates_needed(len(settings) - 1)) > seeds:
        return f"{text} No difference to one of them can be significant with so few replicates; {needed} are needed."
    return f"{text} {differ} of the others differ from {base}, which has the best validation accuracy (sign-flip test, Holm, 5 %)."


def _at_own_draw(landscape: Landscape) -> str:
    return ", each setting at its own best draw" if landscape.plan.has_tune_stage else ""


def _explained(found: Findings) -> str:
    """Shares of the loss and of its interactions with contexts, where there is more to explain than the loss alone."""
    terms = found.effects
    if not isinstance(terms, pd.DataFrame) or set(terms.term) == {"loss", "block", "residual"}:
        return ""
    share = terms.set_index("term")
    if "loss" not in share.index or pd.isna(share.share["loss"]):
        return ""
    row = share.loc["loss"]
    text = f" The choice of loss explains {row.share:.0%} of the variance between cells"
    text += "" if pd.isna(row.low) else f" (95 % interval {row.low:.0%} to {row.high:.0%})"
    contexts = found.table.attrs.get("contexts", [])
    crossed = [f"loss:{name}" for name in contexts if f"loss:{name}" in share.index]
    more = [f"its interaction with {html.escape(t[5:])} {share.share[t]:.0%}" for t in crossed if share.share[t] > 0.05]
    return text + (", " + ", ".join(more) if more else "") + "."


def qualifications(found: Findings) -> Iterator[str]:
    """What a reader of the headline must know, a sentence each."""
    yield from _partial(found)
    chosen = "not the choice of draw and cell (made on validation), " if found.landscape.plan.has_tune_stage else ""
    yield (
        f"Intervals and tests cover the training seeds alone: {chosen}not the test images, the teacher, or the distilled set."
    )
    yield from _reversed(found)
    yield from _per_context(found)
    if edge := _at_the_edge(found):
        yield edge
    if few := _few_draws(found):
        yield few


def _partial(found: Findings) -> Iterator[str]:
    """What is not there yet of a sweep that is not complete."""
    table, ranked = found.table, found.ranked
    missing = int(table.status.isin(["pending", "running", "failed"]).sum())
    if not missing:
        return
    text = f"This sweep is not complete: {missing} of {len(table)} planned trials are not there"
    partly = list(ranked.level[ranked.contexts < ranked.contexts.max()])
    absent = [level for level in levels_of(table) if level not in set(ranked.level)]
    text += f"; arms without any confirmed cell: {', '.join(absent)}" if absent else ""
    text += f"; arms that lack a context, ranked last: {', '.join(partly)}" if partly else ""
    yield html.escape(text) + "."


def _per_context(found: Findings) -> Iterator[str]:
    """Best and worst in each context, where they are few enough to name and differ."""
    ranges, contexts = found.sensitivity, list(found.table.attrs.get("contexts", []))
    if not 1 < len(ranges) <= MOST_CONTEXTS or len({*zip(ranges.best, ranges.worst, strict=True)}) == 1:
        return
    parts = [
        f"{context_name([row[name] for name in contexts], contexts)}: best {found.names[str(row['best'])]}, worst "
        f"{found.names[str(row['worst'])]}, {points(row['tuned'])} points apart"
        for row in ranges.to_dict("records")
    ]
    yield html.escape("; ".join(parts)) + "."


def _reversed(found: Findings) -> Iterator[str]:
    """Pairs that one context orders one way and another the other way, both beyond their intervals."""
    if not found.by_context:
        return
    every = pd.concat(found.by_context.values())
    names = {
        tuple(sorted((found.names[str(a)], found.names[str(b)])))
        for (a, b), rows in every.groupby(["a", "b"])
        if (rows.low > 0).any() and (rows.high < 0).any()
    }
    if names:
        shown = "; ".join(f"{a} and {b}" for a, b in sorted(names)[:5]) + ("; ..." if len(names) > 5 else "")
        yield (
            f"The order reverses between contexts (95 % intervals on either side of 0) for {html.escape(shown)}: there the "
            "mean over contexts is no ranking."
        )


def _few_draws(found: Findings) -> str:
    """A warning where early stopping left hardly anything to choose from."""
    tune = found.table[found.table.stage == "tune"]
    ended = tune[tune.status == "finished"].groupby("cell").draw.nunique()
    drawn = found.landscape.plan.space.draws
    few = int((ended <= 2).sum())
    if not (tune.status == "stopped").any() or 2 * few < len(ended):
        return ""
    return (
        f"Early stopping left at most 2 of {drawn} draws to the end in {few} of {len(ended)} cells, so these chose between "
        "two; without early stopping, or with a later grace period, they would have chosen among more."
    )


def _on_what(landscape: Landscape) -> str:
    """What students were trained on, if it is one set."""
    known = list(landscape.facts.get("data", {}).values())
    if len(known) != 1:
        return ""
    about, real = known[0], html.escape(str(landscape.plan.space.settings.data.real))
    made = about.get("distilled", "random")
    what = "random real images: nothing is distilled" if made == "random" else html.escape(str(made))
    teacher = about.get("teacher_test_accuracy")
    taught = "" if teacher is None else f"; teacher at {percent(teacher)}"
    return f"On {about['n_distilled']} images of {real} ({what}{taught}), " if "n_distilled" in about else ""


def _contexts(found: Findings, count: int) -> str:
    """What a mean is over besides replicates, in words."""
    names = list(found.table.attrs.get("contexts", []))
    if count < 2:
        return ""
    if 1 < len(found.sensitivity) <= MOST_CONTEXTS:
        values = [context_name([row[name] for name in names], names) for row in found.sensitivity.to_dict("records")]
        return f"{html.escape(' and '.join(values))} and "
    return f"{count} settings of {html.escape(', '.join(names))} and "


def _replicates_missing(found: Findings) -> int | None:
    """Replicates that the smallest adjusted p needs to reach 5 %; None if there are enough."""
    pairs = found.compared[found.compared.n > 0]
    needed = replicates_needed(len(pairs)) if len(pairs) else 0
    return needed if len(pairs) and pairs.n.max() < needed else None


def _how_much_was_rate(found: Findings) -> str:
    """The range over losses at one shared draw beside that at own draws, mean over contexts."""
    ranges = found.sensitivity.dropna(subset=["shared"])
    if not found.landscape.plan.has_tune_stage or ranges.empty or not (ranges.source == "confirm").all():
        return ""
    return (
        f" The range over losses within a context is {points(ranges.tuned.mean())} points on average; with one learning "
        f"rate (draw) for all losses it is {points(ranges.shared.mean())}."
    )


def _at_the_edge(found: Findings) -> str:
    """A warning where most chosen draws are the lowest or highest that were drawn: the range was too narrow, or too few."""
    names = [factor.name for factor in found.landscape.plan.space.nuisance]
    cells = {cell for members in found.arms.members for cell in members}
    flagged = boundary_flags(found.table, names)
    flagged = flagged[flagged.cell.isin(cells)]
    if 2 * flagged.cell.nunique() < len(cells) or flagged.empty:
        return ""
    edges = ", ".join(f"{edge} {html.escape(name)} in {n}" for (edge, name), n in _count_edges(flagged))
    return (
        f"In {flagged.cell.nunique()} of {len(cells)} chosen cells the chosen draw is at the edge of what was drawn "
        f"({edges}), so accuracies may rise, and their order change, with more draws or a wider range."
    )


def _count_edges(flagged: pd.DataFrame) -> list[tuple[Any, int]]:
    return [(key, len(rows)) for key, rows in flagged.groupby(["edge", "factor"])]


def _p_of(compared: pd.DataFrame, a: str, b: str) -> float:
    """Adjusted p of a pair; 1 where it is not defined, for nothing was found then."""
    mine = compared[((compared.a == a) & (compared.b == b)) | ((compared.a == b) & (compared.b == a))].p_holm
    return 1.0 if mine.empty or pd.isna(mine.iloc[0]) else float(mine.iloc[0])


def _at(landscape: Landscape) -> str:
    """At which settings losses are compared."""
    return (
        "each loss at its own best draw" if landscape.plan.has_tune_stage else "all losses at the same fixed settings"
    )
