"""The landscape: a tidy table of trials and the statistics on it. Pandas and scipy; no Ray, no MLflow.

`from orchestrator.landscape import compare, effects` works in a notebook on a table from anywhere.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.landscape.anova import effects
    from orchestrator.landscape.comparisons import against, compare, compare_tables
    from orchestrator.landscape.labels import edit_curve, label_costs, pareto_front, storage_front
    from orchestrator.landscape.pooled import pooled_iqm
    from orchestrator.landscape.power import minimum_detectable_effect
    from orchestrator.landscape.scaling import fit_power_law, hard_label_worth, scaling_laws
    from orchestrator.landscape.spread import factor_drops, rank_stability, sensitivity, tunability
    from orchestrator.landscape.stopping import early_stopping_safety
    from orchestrator.landscape.tuning import boundary_flags, equal_search, robustness, tuning_curve
    from orchestrator.landscape.values import arm_values, cell_values, ranking, read_table

__all__ = [
    "against",
    "arm_values",
    "boundary_flags",
    "cell_values",
    "compare",
    "compare_tables",
    "early_stopping_safety",
    "edit_curve",
    "effects",
    "equal_search",
    "factor_drops",
    "fit_power_law",
    "hard_label_worth",
    "label_costs",
    "minimum_detectable_effect",
    "pareto_front",
    "pooled_iqm",
    "rank_stability",
    "ranking",
    "read_table",
    "robustness",
    "scaling_laws",
    "sensitivity",
    "storage_front",
    "tunability",
    "tuning_curve",
]
_HOME = {
    "comparisons": ("against", "compare", "compare_tables"),
    "anova": ("effects",),
    "labels": ("edit_curve", "label_costs", "pareto_front", "storage_front"),
    "pooled": ("pooled_iqm",),
    "power": ("minimum_detectable_effect",),
    "scaling": ("fit_power_law", "hard_label_worth", "scaling_laws"),
    "spread": ("factor_drops", "rank_stability", "sensitivity", "tunability"),
    "stopping": ("early_stopping_safety",),
    "tuning": ("boundary_flags", "equal_search", "robustness", "tuning_curve"),
    "values": ("arm_values", "cell_values", "ranking", "read_table"),
}


def __dir__() -> list[str]:
    """What a notebook completes."""
    return __all__


def __getattr__(name: str) -> Any:
    """Load a function's module when it is asked for: scipy takes a second, and most commands need none of it."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
