"""The statistics that the page, the tables and the figures share, each computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import pandas as pd

from orchestrator.landscape.anova import effects
from orchestrator.landscape.comparisons import against, compare
from orchestrator.landscape.labels import storage_front
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.scaling import PowerLaw, scaling_laws
from orchestrator.landscape.spread import rank_stability, sensitivity, tunability
from orchestrator.landscape.tuning import equal_search, robustness, tuning_curve
from orchestrator.landscape.values import arm_values, ranking
from orchestrator.report.html import context_name
from trainables.config import KNOBS

#: The axis of images per class.
IPC: Final = "data.distilled.ipc"


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
        return compare(self.table, aggregate=self._aggregate)

    @property
    def _aggregate(self) -> str:
        """How an arm's cells count in a comparison."""
        return "tuned" if self.landscape.plan.has_tune_stage else "mean"

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
    def settings(self) -> pd.DataFrame:
        """Where one arm is all there is: its contexts, the one with the best validation first; see `against`.

        Columns of `arms`, and mean_difference, difference_low, difference_high, p_holm against the first, for which they are NaN.
        """
        by = "validation" if self.arms.validation.notna().all() else "mean"
        ordered = self.arms.assign(key=[members[0] for members in self.arms.members]).sort_values(by, ascending=False)
        compared = against(self.table, ordered.key.iloc[0], list(ordered.key)).rename(
            columns={"cell": "key", "low": "difference_low", "high": "difference_high"}
        )
        wanted = ["key", "mean_difference", "difference_low", "difference_high", "p_holm"]
        return ordered.merge(compared[wanted], on="key", how="left")

    @cached_property
    def scaling(self) -> dict[tuple[str, ...], PowerLaw]:
        """Power laws over images per class, where those were varied; see `scaling_laws`."""
        return scaling_laws(self.table, IPC) if IPC in self.table.attrs.get("contexts", []) else {}

    @cached_property
    def storage(self) -> pd.DataFrame:
        """See `storage_front`."""
        return storage_front(self.landscape)

    @cached_property
    def effects(self) -> pd.DataFrame | str:
        """Functional ANOVA over the loss, its knobs and the contexts; or why there is none."""
        knobs = [k for k in KNOBS if k in self.table]
        spanned = [name for name in knobs if self.table[name].nunique() > 1]
        try:
            return effects(self.table, ["loss", *spanned, *self.table.attrs.get("contexts", [])])
        except ValueError as err:
            return str(err)

    @cached_property
    def by_context(self) -> dict[str, pd.DataFrame]:
        """Every pair of arms within each context, by the context's name; see `compare`. Empty where there is one alone."""
        contexts = list(self.table.attrs.get("contexts", []))
        groups = list(self.table.groupby(contexts, sort=False, dropna=False)) if contexts else []
        if len(groups) < 2:
            return {}
        return {context_name(key): compare(rows, aggregate=self._aggregate, contexts=[]) for key, rows in groups}

    @cached_property
    def names(self) -> dict[str, str]:
        """What to call an arm in a sentence: with those that are represented by the same cells."""
        by_members: dict[tuple[tuple[str, ...], ...], list[str]] = {}
        for level, mine in self.arms.groupby("level", sort=False):
            by_members.setdefault(tuple(mine.members), []).append(str(level))
        return {level: " = ".join(levels) for levels in by_members.values() for level in levels}
