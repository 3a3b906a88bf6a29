"""A sweep's outcome, as the Python way gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from orchestrator.plan import Plan


@dataclass(frozen=True, slots=True)
class Landscape:
    """What is known of a sweep.

    Attributes:
        plan: What was asked for.
        table: One row per planned trial.
        records: The journal: curves and decisions.
        facts: What was found out while running: data, costs, seconds.
    """

    plan: Plan
    table: pd.DataFrame
    records: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any]
