"""Drive sweeps: plan, search, run on Ray Tune, track in MLflow, map the landscape. Never touches a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.sweep import RunOptions, Sweep

__all__ = ["RunOptions", "Sweep"]


def __getattr__(name: str) -> Any:
    """`from orchestrator import Sweep`, without loading pandas for those who only want a part."""
    if name in __all__:
        from orchestrator import sweep

        return getattr(sweep, name)
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
