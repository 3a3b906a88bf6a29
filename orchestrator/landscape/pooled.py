"""One number per arm over several datasets, where runs of unequal scale and spread are pooled."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats

from orchestrator.landscape.values import CONFIDENCE, arm_values, confirmed, in_common, paired

BOOTSTRAPS: Final = 2000
_SEED: Final = 0


def pooled_iqm(table: pd.DataFrame, factor: str = "dataset", metric: str = "test_accuracy") -> pd.DataFrame:
    """Interquartile mean of each arm over the runs on all datasets.

    The runs are the replicates of the arm's representing cells that all arms have everywhere; a quarter of them is cut off at
    either end.

    Args:
        table: The tidy table.
        factor: Column whose values are the datasets.
        metric: Column that is pooled.

    Returns:
        level, datasets, n (runs), iqm, low, high (95 %, bootstrap of the replicates within each dataset and other
        context), best first; only levels that are there in every dataset, with replicates in common (see `ranking`).

    Source: docs/method.md 2; Agarwal et al. 2021 (NeurIPS), arXiv:2108.13264. Scores are accuracies as they are, not normalised.
    """
    arms, rows, most = arm_values(table, metric), confirmed(table), table[factor].nunique()
    members_of = {
        str(level): list(mine.members)
        for level, mine in arms.groupby("level", sort=False)
        if mine[factor].nunique() == most
    }
    means = paired(rows, {level: itertools.chain(*members) for level, members in members_of.items()}, metric)
    together, values = in_common({str(level): means[level] for level in means}), []
    known = rows[rows.replicate.isin(together.index)]
    for level in map(str, together) if len(together) else ():
        strata = [known[known.cell.isin(members)][metric].to_numpy() for members in members_of[level]]
        random = np.random.default_rng(_SEED)
        again = np.concatenate([random.choice(x, (BOOTSTRAPS, len(x))) for x in strata], axis=1)
        low, high = np.quantile(_iqm(again), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        runs = np.concatenate(strata)
        values.append((level, most, len(runs), float(_iqm(runs)), low, high))
    found = pd.DataFrame(values, columns=["level", "datasets", "n", "iqm", "low", "high"])
    return found.sort_values("iqm", ascending=False, ignore_index=True)


def _iqm(runs: np.ndarray) -> np.ndarray:
    """Mean of what is left when a quarter is cut off at either end of the last axis."""
    return np.asarray(stats.trim_mean(runs, 0.25, axis=-1))
