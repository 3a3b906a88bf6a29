"""Stratified ASHA: early stopping that kills bad learning rates, never a loss. Pure Python, one decision at a time."""

from __future__ import annotations

import hashlib
import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from search_spaces.settings import EarlyStopping

CONTINUE: Final = "continue"
STOP: Final = "stop"
AUDIT: Final = "audit"


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about a trial at a rung.

    Attributes:
        trial_id: Of the trial that arrived.
        stratum: Who it competes with.
        rung_epochs: The rung.
        value: Validation accuracy there; NaN if diverged.
        cutoff: Values below it stop; None where too few trials had arrived.
        population: Trials at the rung, this one counted.
        action: "continue", "stop", or "audit" (a stop that is recorded but not executed).
        is_new: False where a trial that had died arrives once more: what was decided stands.
    """

    trial_id: str
    stratum: str
    rung_epochs: int
    value: float
    cutoff: float | None
    population: int
    action: str
    is_new: bool = True


class StratifiedAsha:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934), stopping variant, within strata.

    At a rung, a trial stops if its value is below the (1 - 1 / reduction_factor) quantile of all that reached this
    rung in its stratum, itself counted. Ties continue. NaN is the worst value and always stops. Nothing else stops
    before `min_rung_population` trials have arrived. A share `audit_frac` of stops is not executed; audited trials do
    not count at later rungs, where without the audit they would not have been.
    """

    def __init__(self, settings: EarlyStopping, *, seed: int = 0) -> None:
        """Nothing has arrived yet."""
        self._settings = settings
        self._seed = seed
        self._values: dict[tuple[str, int], list[float]] = defaultdict(list)  # sorted
        self._audited: set[str] = set()
        self._made: dict[tuple[str, int], Decision] = {}

    def judge(self, trial_id: str, *, stratum: str, rung_epochs: int, value: float) -> Decision:
        """Decide about a trial that reached a rung, and remember its value; once decided, it stays so."""
        made = self._made.get((trial_id, rung_epochs))
        if made is not None:
            return replace(made, is_new=False)
        decision = self._decide(trial_id, stratum, rung_epochs, value)
        self._made[trial_id, rung_epochs] = decision
        return decision

    def _decide(self, trial_id: str, stratum: str, rung_epochs: int, value: float) -> Decision:
        if trial_id in self._audited:
            return Decision(trial_id, stratum, rung_epochs, value, None, 0, CONTINUE)
        values = self._values[stratum, rung_epochs]
        insort(values, -math.inf if math.isnan(value) else value)
        cutoff = self._cutoff(values)
        action = self._action(trial_id, rung_epochs, value, cutoff)
        if action == AUDIT:
            self._audited.add(trial_id)
        return Decision(trial_id, stratum, rung_epochs, value, cutoff, len(values), action)

    def replay(self, decisions: Iterable[Mapping[str, Any]]) -> None:
        """Remember decisions of an earlier process, as the journal has them."""
        for decision in decisions:
            fields = {name: decision[name] for name in Decision.__dataclass_fields__ if name in decision}
            self._made[decision["trial_id"], decision["rung_epochs"]] = Decision(**fields)
            if decision["action"] == AUDIT:
                self._audited.add(decision["trial_id"])
            if decision["population"]:
                value = decision["value"]
                rung = self._values[decision["stratum"], decision["rung_epochs"]]
                insort(rung, -math.inf if value is None or math.isnan(value) else value)

    def _cutoff(self, values: list[float]) -> float | None:
        if len(values) < self._settings.min_rung_population:
            return None
        # by hand: np.quantile interpolates, which makes NaN of -inf, and 1 - 1/3 is not exact
        index = math.ceil((len(values) - 1) * (1 - 1 / self._settings.reduction_factor) - 1e-9)
        return values[index]

    def _action(self, trial_id: str, rung_epochs: int, value: float, cutoff: float | None) -> str:
        if math.isnan(value):
            return STOP
        if cutoff is None or value >= cutoff:
            return CONTINUE
        return AUDIT if self._draw(trial_id, rung_epochs) < self._settings.audit_frac else STOP

    def _draw(self, trial_id: str, rung_epochs: int) -> float:
        """A number in [0, 1) that depends on seed, trial and rung, not on the order of arrival."""
        digest = hashlib.sha256(f"audit/{self._seed}/{trial_id}/{rung_epochs}".encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64
