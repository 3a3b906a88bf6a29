"""The statistics that the page, the tables and the figures share, and the outcome in a few sentences."""

from __future__ import annotations

import html
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from orchestrator.landscape.anova import effects
from orchestrator.landscape.comparisons import compare
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.power import replicates_needed
from orchestrator.landscape.spread import rank_stability, sensitivity, tunability
from orchestrator.landscape.tuning import boundary_flags, equal_search, robustness, tuning_curve
from orchestrator.landscape.values import arm_values, ranking
from orchestrator.report.html import percent, points


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
    def stability(self) -> pd.DataFrame:
        """See `rank_stability`."""
        return rank_stability(self.table)

    @cached_property
    def tunability(self) -> pd.DataFrame:
        """See `orchestrator.landscape.spread.tunability`."""
        return tunability(self.table)

    @cached_property
    def equal_search(self) -> pd.DataFrame:
        """See `orchestrator.landscape.tuning.equal_search`."""
        return equal_search(self.tuning)

    @cached_property
    def robustness(self) -> pd.DataFrame:
        """See `orchestrator.landscape.tuning.robustness`."""
        return robustness(self.table)

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
        f"{percent(best['mean'])} ({html.escape(best.level)}), mean over {_contexts(found, best.contexts)}"
        f"{best.n} replicates."
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
    return text + _how_much_was_rate(found) + _at_the_edge(found)


def _contexts(found: Findings, count: int) -> str:
    """What a mean is over besides replicates, in words."""
    names = list(found.table.attrs.get("contexts", []))
    if count < 2:
        return ""
    return f"{count} settings of {html.escape(', '.join(names))} and "


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


def _at_the_edge(found: Findings) -> str:
    """A warning where most chosen draws are the lowest or highest that were drawn: the range was too narrow, or too few."""
    names = [factor.name for factor in found.landscape.plan.space.nuisance]
    flagged = set(boundary_flags(found.table, names).cell)
    cells = [cell for members in found.arms.members for cell in members]
    count = sum(cell in flagged for cell in cells)
    if 2 * count < len(cells) or not count:
        return ""
    return (
        f" In {count} of {len(cells)} cases the chosen {html.escape(', '.join(names))} is the lowest or highest that was "
        "drawn, so these accuracies may rise, and their order change, with a wider range or more draws."
    )


def _p_of(compared: pd.DataFrame, a: str, b: str) -> float:
    """Adjusted p of a pair; 1 where it is not defined, for nothing was found then."""
    mine = compared[((compared.a == a) & (compared.b == b)) | ((compared.a == b) & (compared.b == a))].p_holm
    return 1.0 if mine.empty or pd.isna(mine.iloc[0]) else float(mine.iloc[0])


def _at(landscape: Landscape) -> str:
    """At which settings losses are compared."""
    return "Each at its own best draw" if landscape.plan.has_tune_stage else "All at the same fixed settings"
