"""Synthetic landscapes whose truth is known: nested knobs, common random numbers, unequal numbers of cells per arm."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd

TEMPERATURES, REFINEMENTS, OPTIMIZERS = (1.0, 4.0, 20.0), (0.0, 0.1), ("adamw", "sgd")
#: Knobs each loss has: 12 + 12 + 4 + 2 cells per... of two optimizers.
KNOBS = {"kl": ("T", "w"), "soft_ce_ce": ("T", "w"), "mse": ("w",), "cosine": ("w",), "ce": (), "brier": ("T", "w")}


def design(losses: dict[str, tuple[str, ...]] = KNOBS) -> pd.DataFrame:
    """Cells: every loss with every value of its own knobs under every optimizer."""
    rows = []
    for loss, knobs in losses.items():
        temperatures = TEMPERATURES if "T" in knobs else (math.nan,)
        refinements = REFINEMENTS if "w" in knobs else (math.nan,)
        for t, w, optimizer in itertools.product(temperatures, refinements, OPTIMIZERS):
            rows.append({"loss": loss, "temperature": t, "refinement": w, "optimizer": optimizer})
    cells = pd.DataFrame(rows)
    cells["cell"] = [f"{r.loss},{r.temperature},{r.refinement},{r.optimizer}" for r in cells.itertuples()]
    return cells


def trials(
    cells: pd.DataFrame,
    truth: np.ndarray,
    *,
    replicates: int = 10,
    sigma: float = 0.01,
    rho: float = 0.5,
    seed: int = 0,
) -> pd.DataFrame:
    """Confirm trials: truth + block of the replicate + own noise, correlated at rho within a replicate."""
    random = np.random.default_rng(seed)
    block = random.normal(size=replicates) * sigma * math.sqrt(rho)
    own = random.normal(size=(len(cells), replicates)) * sigma * math.sqrt(1 - rho)
    table = cells.loc[cells.index.repeat(replicates)].reset_index(drop=True)
    table["replicate"] = np.tile(np.arange(1, replicates + 1), len(cells))
    table["test_accuracy"] = (truth[:, None] + block[None, :] + own).ravel()
    table["trial_id"] = [str(i) for i in range(len(table))]
    return table.assign(stage="confirm", status="finished", diverged=False)
