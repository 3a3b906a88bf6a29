"""Paired comparisons on tables whose truth is known, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from orchestrator.landscape.comparisons import (
    COLUMNS,
    compare,
    compare_tables,
    holm,
    probability_better,
    sign_flip_p,
    significance_groups,
)
from tests.orchestrator.landscapes import design, trials


def minimal(values: dict[str, list[float]], factor: str = "loss") -> pd.DataFrame:
    """One cell per level; only the columns that the contract asks for."""
    rows = [
        {"trial_id": f"{level}{r}", "cell": level, "stage": "confirm", "status": "finished", "replicate": r}
        | {factor: level, "test_accuracy": value}
        for level, series in values.items()
        for r, value in enumerate(series, 1)
    ]
    return pd.DataFrame(rows)


def test_two_levels_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, half width 4.302653 / sqrt 3; of 8 sign patterns 2 are as extreme: p = 1/4."""
    (row,) = compare(minimal({"a": [2.0, 4, 6], "b": [1.0, 2, 3]})).to_dict("records")
    assert list(row) == list(COLUMNS)
    assert (row["a"], row["b"], row["n"], row["mean_difference"]) == ("a", "b", 3, 2)
    assert row["low"] == pytest.approx(2 - 4.302653 / math.sqrt(3))
    assert (row["p_value"], row["p_holm"], row["p_better"]) == (0.25, 0.25, 1)


@pytest.mark.parametrize("n", [2, 3, 6, 12])
def test_sign_flips_agree_with_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    expected = stats.permutation_test(
        (d,), lambda x: abs(np.sum(x)), permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue
    assert sign_flip_p(d) == pytest.approx(expected)


def test_many_replicates_are_flipped_at_random_the_same_each_time() -> None:
    """n = 25: against the normal approximation of the null distribution."""
    d = np.random.default_rng(0).normal(0.3, 1, 25)
    approximate = 2 * stats.norm.sf(abs(d.sum()) / math.sqrt((d**2).sum()))
    assert sign_flip_p(d) == pytest.approx(approximate, abs=0.02)
    assert sign_flip_p(d) == sign_flip_p(d)
    assert sign_flip_p(np.full(25, 1.0)) == pytest.approx(1 / 100_001)


def test_ties_count_half_and_the_interval_is_clopper_pearsons() -> None:
    assert probability_better(np.array([1.0, 1, 0, -1]))[0] == 0.625
    exact = stats.binomtest(7, 10).proportion_ci()
    assert probability_better(np.array([1.0] * 7 + [-1.0] * 3))[1:] == pytest.approx((exact.low, exact.high))
    assert probability_better(np.array([1.0] * 4))[2] == 1


def test_holm_ignores_what_was_not_tested() -> None:
    """0.01 of two tests is 0.02; 0.04 of one is 0.04."""
    adjusted = holm(np.array([0.04, math.nan, 0.01]))
    assert adjusted[[0, 2]].tolist() == pytest.approx([0.04, 0.02])
    assert math.isnan(adjusted[1])
    p = np.random.default_rng(0).uniform(size=30) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_only_replicates_that_both_have_count() -> None:
    table = minimal({"a": [0.9, 0.8, 0.7], "b": [0.5, 0.6, 0.7]})
    table.loc[(table.cell == "b") & (table.replicate == 2), "status"] = "failed"
    assert compare(table).n[0] == 2


def test_contexts_are_averaged_within_a_replicate() -> None:
    """Differences 0.1 under adamw and 0.3 under sgd at every replicate: 0.2."""
    cells = design({"kl": (), "ce": ()})
    truth = np.array([0.9, 0.9, 0.8, 0.6])
    table = trials(cells, truth, sigma=0)
    row = compare(table, contexts=["optimizer"]).iloc[0]
    assert row.mean_difference == pytest.approx(0.2)
    table.attrs["contexts"] = ["optimizer"]
    assert compare(table).mean_difference[0] == pytest.approx(0.2)


def test_contexts_that_only_one_level_has_do_not_count() -> None:
    cells = design({"kl": (), "ce": ()})
    table = trials(cells, np.array([0.9, 0.9, 0.8, 0.6]), sigma=0)
    table = table[table.cell != "ce,nan,nan,sgd"]
    assert compare(table, contexts=["optimizer"]).mean_difference[0] == pytest.approx(0.1)


def test_several_cells_are_chosen_by_tune_validation_or_averaged() -> None:
    cells = design({"kl": ("T",), "ce": ()})
    cells = cells[cells.optimizer == "sgd"].drop(columns="optimizer")
    table = trials(cells, np.array([0.7, 0.9, 0.5, 0.6]), sigma=0)
    with pytest.raises(ValueError, match='aggregate="mean"'):
        compare(table)
    assert compare(table, aggregate="mean").mean_difference[0] == pytest.approx(0.1)
    tune = cells.assign(stage="tune", status="finished", diverged=False, replicate=0, draw=0)
    tune = tune.assign(val_accuracy=[0.1, 0.2, 0.9, 0.5], test_accuracy=math.nan)
    both = pd.concat([tune, table.assign(draw=0)], ignore_index=True)
    assert compare(both).mean_difference[0] == pytest.approx(0.5 - 0.6), "the best validation, not the best test"
    with pytest.raises(ValueError, match=r"unknown aggregate 'best'; valid"):
        compare(both, aggregate="best")


def test_arms_with_equal_cells_are_one_level_and_arms_are_contexts_of_other_factors() -> None:
    """Optimizers are compared within each arm; kl and soft_ce own the same cells and count once."""
    cells = design({"kl": (), "ce": ()})
    cells["arms"] = cells.loss.map({"kl": "kl|soft_ce", "ce": "ce"})
    table = trials(cells, np.array([0.9, 0.7, 0.8, 0.5]), sigma=0)
    table.attrs["contexts"] = ["optimizer"]
    losses = compare(table)
    assert losses[["a", "b"]].to_numpy().tolist() == [["kl = soft_ce", "ce"]]
    optimizers = compare(table, "optimizer")
    assert optimizers.mean_difference[0] == pytest.approx((0.2 + 0.3) / 2)


@pytest.mark.slow
def test_under_no_effect_false_positives_are_nominal_and_intervals_cover() -> None:
    """200 landscapes of 4 equal levels, R = 10: coverage 0.95, family-wise error below 0.05, within 3 standard errors."""
    cells = design(dict.fromkeys(("a", "b", "c", "d"), ()))
    cells = cells[cells.optimizer == "sgd"]
    found = [compare(trials(cells, np.full(4, 0.8), seed=seed)) for seed in range(200)]
    covered = np.mean([((f.low <= 0) & (f.high >= 0)).mean() for f in found])
    assert covered == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / 200))
    assert np.mean([(f.p_holm <= 0.05).any() for f in found]) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_letters_join_levels_that_were_not_found_to_differ() -> None:
    """a > c only: a and b share a letter, b and c another."""
    pairs = pd.DataFrame({"a": ["a", "a", "b"], "b": ["b", "c", "c"], "p_holm": [0.5, 0.01, 0.2]})
    assert significance_groups({"a": 0.9, "b": 0.85, "c": 0.8}, pairs) == {"a": "a", "b": "ab", "c": "b"}
    alike = pairs.assign(p_holm=1.0)
    assert set(significance_groups({"a": 0.9, "b": 0.85, "c": 0.8}, alike).values()) == {"a"}
    apart = pairs.assign(p_holm=0.0)
    assert significance_groups({"a": 0.9, "b": 0.85, "c": 0.8}, apart) == {"a": "a", "b": "b", "c": "c"}


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'colour'"):
        compare(minimal({"a": [1.0], "b": [2.0]}), "colour")


def test_two_sweeps_are_compared_cell_by_cell_and_together() -> None:
    """b is a minus 0.1 in the first cell and the same in the second: 0.05 together; a third cell is in a alone."""
    cells = design({"kl": (), "ce": ()})
    a = trials(cells, np.array([0.9, 0.8, 0.7, 0.6]), seed=1)
    b = trials(cells[:2], np.array([0.8, 0.8]), seed=1, replicates=8)
    b["test_accuracy"] = a.merge(b, on=["cell", "replicate"]).test_accuracy_x.to_numpy() - np.repeat([0.1, 0.0], 8)
    found = compare_tables(a, b).set_index("cell")
    assert found.mean_difference.to_dict() == {
        "all shared cells": pytest.approx(0.05),
        "kl,nan,nan,adamw": pytest.approx(0.1),
        "kl,nan,nan,sgd": pytest.approx(0),
    }
    assert (found.n == 8).all()
    assert found.p_holm["kl,nan,nan,adamw"] == pytest.approx(2 * 2 / 2**8)
    with pytest.raises(ValueError, match="no confirmed cell in common"):
        compare_tables(a, trials(cells[:1].assign(cell="other"), np.array([0.5])))


def test_one_level_has_no_pair() -> None:
    assert compare(minimal({"a": [1.0, 2.0]})).empty
