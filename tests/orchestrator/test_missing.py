"""Trials that are missing: every number is one of complete data, of those replicates that all it is made of have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.landscape import (
    arm_values,
    compare,
    effects,
    factor_drops,
    pooled_iqm,
    rank_stability,
    ranking,
    sensitivity,
    tunability,
)
from orchestrator.landscape.curves import learning_curves
from orchestrator.landscape.values import paired
from tests.orchestrator.landscapes import design

REPLICATES, EPOCHS = 5, (1, 2)
FACTORS = ["loss", "temperature", "refinement", "optimizer"]
#: A statistic, and the columns that tell its rows apart. p_holm is of all pairs together, so it has no replicates of its own.
STATISTICS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], list[str]]] = {
    "arm_values": (arm_values, ["level", "optimizer"]),
    "ranking": (ranking, ["level"]),
    "compare": (lambda table: compare(table).drop(columns="p_holm"), ["a", "b"]),
    "compare factor": (lambda table: compare(table, "optimizer"), ["a", "b"]),
    "sensitivity": (sensitivity, ["optimizer"]),
    "factor_drops": (factor_drops, ["level"]),
    "tunability": (tunability, ["level", "knob", "value"]),
    "rank_stability": (rank_stability, ["between"]),
    "pooled_iqm": (lambda table: pooled_iqm(table, "optimizer"), ["level"]),
    "effects": (lambda table: effects(table, FACTORS), ["term"]),
    "learning_curves": (lambda table: learning_curves(table, records_of(table)), ["level", "epoch"]),
}


def landscape() -> pd.DataFrame:
    """12 cells, one draw each; the optimizers differ by far more than seeds do."""
    cells = design({"kl": ("T",), "mse": ("w",), "ce": ()})
    random = np.random.default_rng(0)
    truth = random.uniform(0.5, 0.6, len(cells)) - 0.2 * (cells.optimizer == "sgd") + 0.1 * (cells.loss == "kl")
    rows = []
    for cell, mean in zip(cells.to_dict("records"), truth, strict=True):
        base = {**cell, "arms": cell["loss"], "draw": 0, "status": "finished", "diverged": False}
        rows.append(base | {"stage": "tune", "replicate": 0, "val_accuracy": mean, "selected": ""})
        for r in range(1, REPLICATES + 1):
            value = mean + 0.02 * r + random.normal(0, 0.01)
            confirm = {"stage": "confirm", "replicate": r, "val_accuracy": value, "test_accuracy": value}
            rows.append(base | confirm | {"selected": "best|shared"})
    table = pd.DataFrame(rows).assign(trial_id=[f"t{i}" for i in range(len(rows))])
    table.attrs["contexts"] = ["optimizer"]
    return table


FULL = landscape()
CONFIRMED = FULL.index[FULL.stage == "confirm"]


def records_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    points = lambda last: [{"epoch": e, "val_accuracy": last * e / EPOCHS[-1]} for e in EPOCHS]  # noqa: E731
    return [
        {"kind": "result", "trial_id": t, "curve": points(v)} for t, v in table[["trial_id", "val_accuracy"]].to_numpy()
    ]


def without(table: pd.DataFrame, replicates: Sequence[int]) -> pd.DataFrame:
    return table[~((table.stage == "confirm") & table.replicate.isin(replicates))]


def is_one_of(value: Any, candidates: Sequence[Any]) -> bool:
    if isinstance(value, float):
        return any(math.isclose(value, c, rel_tol=1e-9) or (math.isnan(value) and math.isnan(c)) for c in candidates)
    return value in candidates


@pytest.mark.parametrize("name", STATISTICS)
@settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lost=st.sets(st.sampled_from(list(CONFIRMED)), min_size=1, max_size=3))
def test_a_statistic_with_missing_trials_is_that_of_a_complete_sub_table(name: str, lost: set[int]) -> None:
    statistic, keys = STATISTICS[name]
    touched = sorted(set(FULL.replicate[list(lost)]))
    subsets = [part for size in range(len(touched) + 1) for part in itertools.combinations(touched, size)]
    complete = [statistic(without(FULL, part)).set_index(keys) for part in subsets]
    holes = FULL.assign(status=FULL.status.mask(FULL.index.isin(list(lost)), "failed"))
    found = statistic(holes).set_index(keys)
    assert set(found.index) == set(complete[0].index)
    for row, column in itertools.product(found.index, found.columns):
        candidates = [table.loc[row, column] for table in complete]
        assert is_one_of(found.loc[row, column], candidates), (row, column, found.loc[row, column], candidates)


def test_one_failed_trial_does_not_make_a_drop() -> None:
    """Two data sets far apart and no difference between optimizers: a seed that lacks the hard one is no better seed."""
    rows = []
    for optimizer, dataset, r in itertools.product(("adamw", "sgd"), ("easy", "hard"), range(1, 11)):
        mean = 0.9 if dataset == "easy" else 0.5
        cell = f"ce,dataset={dataset},optimizer={optimizer}"
        rows.append({"cell": cell, "arms": "ce", "loss": "ce", "optimizer": optimizer, "dataset": dataset})
        rows[-1] |= {"stage": "confirm", "replicate": r, "status": "finished", "test_accuracy": mean + 0.001 * r}
    table = pd.DataFrame(rows)
    table.attrs["contexts"] = ["optimizer", "dataset"]
    table.loc[13, "status"] = "failed"
    (row,) = factor_drops(table).to_dict("records")
    assert row["drop"] == pytest.approx(0)
    assert row["n"] == 9


def test_a_context_that_one_optimizer_lacks_is_in_no_drop() -> None:
    table = FULL.assign(dataset="one")
    hard = FULL.assign(dataset="hard", test_accuracy=FULL.test_accuracy - 0.3, cell=FULL.cell + ",hard")
    hard.loc[hard.optimizer == "sgd", "status"] = "failed"
    both = pd.concat([table, hard], ignore_index=True)
    both.attrs["contexts"] = ["optimizer", "dataset"]
    expected, found = (factor_drops(t).set_index("level").drop_duplicates() for t in (FULL, both))
    assert found["drop"].to_dict() == pytest.approx(expected["drop"].to_dict())


def test_diverged_seeds_stay_in_a_learning_curve() -> None:
    """Of two seeds at 0.9 and one that diverges to 0.1 after the first epoch, the mean is 1.9 / 3 to the end."""
    rows = [
        {"cell": "a", "loss": "ce", "arms": "ce", "stage": "confirm", "replicate": r, "status": "finished"}
        | {"trial_id": f"t{r}", "diverged": r == 3, "val_accuracy": 0.1 if r == 3 else 0.9, "test_accuracy": 0.5}
        for r in (1, 2, 3)
    ]
    points = {r: [{"epoch": e, "val_accuracy": 0.9} for e in (1, 2, 3)] for r in (1, 2)}
    points[3] = [{"epoch": 1, "val_accuracy": 0.1}]
    records = [{"kind": "result", "trial_id": f"t{r}", "curve": curve} for r, curve in points.items()]
    curve = learning_curves(pd.DataFrame(rows), records)
    assert curve.epoch.tolist() == [1, 2, 3]
    assert curve["mean"].tolist() == pytest.approx([1.9 / 3] * 3)
    assert curve.n.tolist() == [3] * 3


def test_a_mean_over_cells_needs_all_of_them() -> None:
    rows = pd.DataFrame({"cell": ["a", "a", "b"], "replicate": [1, 2, 1], "x": [1.0, 2.0, 3.0]})
    means = paired(rows, {"both": ["a", "b"], "one": ["a"], "none": ["c"]}, "x")
    assert means.both.tolist()[0] == 2
    assert math.isnan(means.both[2])
    assert means.one.tolist() == [1, 2]
    assert means.none.isna().all()
