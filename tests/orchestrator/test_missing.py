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


def tuned_twice_more() -> pd.DataFrame:
    """The landscape with three tune replicates, of which one is far harder than the others."""
    random, tune = np.random.default_rng(1), FULL[FULL.stage == "tune"]
    offsets = {0: -0.3, -1: 0.1, -2: 0.0}
    parts = [
        tune.assign(replicate=r, val_accuracy=tune.val_accuracy + offset + random.normal(0, 0.02, len(tune)))
        for r, offset in offsets.items()
    ]
    table = pd.concat([*parts, FULL[FULL.stage == "confirm"]], ignore_index=True)
    table.attrs = dict(FULL.attrs)
    return table.assign(trial_id=[f"t{i}" for i in range(len(table))])


TUNED = tuned_twice_more()


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lost=st.sets(st.sampled_from(list(CONFIRMED)), min_size=1, max_size=3))
def test_a_ranking_with_missing_confirm_trials_is_that_of_one_complete_sub_table(lost: set[int]) -> None:
    touched = sorted(set(FULL.replicate[list(lost)]))
    subsets = [part for size in range(len(touched) + 1) for part in itertools.combinations(touched, size)]
    found = ranking(FULL.assign(status=FULL.status.mask(FULL.index.isin(list(lost)), "failed")))
    complete = [ranking(without(FULL, part)) for part in subsets]
    assert any(found.round(12).equals(table.round(12)) for table in complete), found
    assert (found.behind >= 0).all()


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(lost=st.sets(st.sampled_from(list(TUNED.index[TUNED.stage == "tune"])), min_size=1, max_size=2))
def test_arms_choose_with_missing_tune_trials_as_in_the_complete_sub_table(lost: set[int]) -> None:
    holes = TUNED.assign(status=TUNED.status.mask(TUNED.index.isin(list(lost)), "failed"))
    touched = set(TUNED.replicate[list(lost)])
    complete = TUNED[~((TUNED.stage == "tune") & TUNED.replicate.isin(touched))]
    for statistic in (arm_values, ranking, compare, tunability):
        pd.testing.assert_frame_equal(statistic(holes), statistic(complete))


def seeds_of(stage: str, quality: dict[str, float], seeds: dict[int, float], draw: int = 0) -> pd.DataFrame:
    """Trials of cells "arm,knob": their quality plus what each seed adds."""
    rows = [
        {
            "cell": cell,
            "arms": cell[:2],
            "loss": cell[:2],
            "replicate": r,
            "val_accuracy": q + shift,
            "test_accuracy": q + shift,
        }
        for (cell, q), (r, shift) in itertools.product(quality.items(), seeds.items())
    ]
    selected = "best" if stage == "confirm" else ""
    return pd.DataFrame(rows).assign(stage=stage, draw=draw, status="finished", diverged=False, selected=selected)


def test_an_arm_does_not_win_by_a_hard_seed_that_it_lacks() -> None:
    """kl is better than ce by 0.005 at every seed; the mean of ce over its own seeds, 0.675, is above that of kl, 0.64."""
    table = seeds_of("confirm", {"kl": 0.64, "ce": 0.635}, {1: -0.2, 2: 0.05, 3: 0.04, 4: 0.03, 5: 0.04, 6: 0.04})
    table = table.assign(
        dataset="one", status=table.status.mask((table.cell == "ce") & (table.replicate == 1), "failed")
    )
    table.attrs["contexts"] = ["dataset"]
    ranked = ranking(table)
    assert ranked.level.tolist() == ["kl", "ce"]
    assert ranked.behind.tolist() == pytest.approx([0, 0.005])
    assert ranked.n.tolist() == [5, 5]
    assert pooled_iqm(table).level.tolist() == ["kl", "ce"]
    assert arm_values(table).n.tolist() == [6, 5]


def test_an_arm_without_seeds_in_common_comes_last_and_is_not_compared() -> None:
    """With seed 3 alone, ce would leave the others one seed to be compared on."""
    table = seeds_of("confirm", {"kl": 0.6, "js": 0.5, "ce": 0.9}, {1: 0.0, 2: 0.1, 3: 0.2})
    table.loc[(table.cell == "ce") & (table.replicate < 3), "status"] = "failed"
    ranked = ranking(table)
    assert ranked.level.tolist() == ["kl", "js", "ce"]
    assert ranked.n.tolist() == [3, 3, 1]
    assert ranked.behind.tolist() == pytest.approx([0, 0.1, math.nan], nan_ok=True)
    assert ranking(table[table.replicate == 3]).behind.tolist() == pytest.approx([0, 0.3, 0.4]), (
        "one seed is all there is"
    )


def test_the_shared_draw_is_not_chosen_by_a_hard_seed_that_it_lacks() -> None:
    """Draw 0 is better than draw 1 by 0.1 at every seed; at draw 0 kl and ce are 0.1 apart, also where ce lacks the hard seed."""
    quality, seeds = {"kl": 0.7, "ce": 0.6}, {0: -0.3, -1: 0.1}
    worse = {"kl": 0.6, "ce": 0.5}
    parts = [
        seeds_of("confirm", quality, {1: 0.0, 2: 0.1}),
        seeds_of("tune", quality, seeds),
        seeds_of("tune", worse, seeds, 1),
    ]
    table = pd.concat(parts, ignore_index=True)
    hard = (table.stage == "tune") & (table.replicate == 0)
    for lost in (hard & (table.draw == 1), hard & (table.draw == 0) & (table.cell == "ce")):
        (row,) = sensitivity(table.assign(status=table.status.mask(lost, "failed"))).to_dict("records")
        assert (row["shared_best"], row["shared"], row["gap"]) == (
            "kl",
            pytest.approx(0.1),
            pytest.approx(0, abs=1e-12),
        )


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
