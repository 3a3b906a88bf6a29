"""Functional ANOVA on landscapes whose truth is known, and against statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from statsmodels.stats.anova import anova_lm

from orchestrator.landscape.anova import effects
from tests.orchestrator.landscapes import design, trials

FACTORS = ["loss", "temperature", "refinement", "optimizer"]


def shares(table: pd.DataFrame, factors: list[str]) -> dict[str, float]:
    return effects(table, factors).set_index("term").share.to_dict()


def test_two_by_two_by_hand() -> None:
    """Cells 1, 2 / 3, 6: grand mean 3; loss effects -+1.5, optimizer -+1, interaction +-0.5: variances 2.25, 1, 0.25."""
    cells = design({"ce": (), "mse": ()})[["cell", "loss", "optimizer"]]
    found = effects(trials(cells, np.array([1.0, 2, 3, 6]), sigma=0), ["loss", "optimizer"]).set_index("term")
    assert found.variance.to_dict() == pytest.approx(
        {"loss": 2.25, "optimizer": 1, "loss:optimizer": 0.25, "block": 0, "residual": 0}
    )
    assert found.share["loss"] == pytest.approx(2.25 / 3.5)


def test_one_factor_takes_everything() -> None:
    cells = design({"ce": (), "mse": ()})
    cells = cells[cells.optimizer == "sgd"]
    assert shares(trials(cells, np.array([0.8, 0.9])), ["loss"])["loss"] == 1


def test_a_nested_factor_counts_with_zero_where_it_does_not_exist() -> None:
    """Temperature moves kl by -+0.3 around its mean (variance 0.06 over 3 levels: 0.3^2 * 2 / 3) and ce has none:
    averaged over the two losses 0.03. Both losses have the same mean, so the loss explains nothing."""
    cells = design({"kl": ("T",), "ce": ()})
    truth = 0.5 + 0.3 * cells.temperature.map({1.0: -1, 4.0: 0, 20.0: 1}).fillna(0).to_numpy()
    found = effects(trials(cells, truth, sigma=0), FACTORS).set_index("term")
    assert found.variance["temperature|loss"] == pytest.approx(0.03)
    assert found.share["temperature|loss"] == pytest.approx(1)
    assert found.variance["loss"] == pytest.approx(0, abs=1e-12)
    assert "refinement|loss" not in found.index, "no loss here has it"


def test_more_cells_do_not_give_a_loss_more_weight() -> None:
    """kl has 6 cells per optimizer, ce one: losses differ by +-0.1 and are equally weighted, so the variance is 0.01."""
    cells = design({"kl": ("T", "w"), "ce": ()})
    truth = np.where(cells.loss == "kl", 0.8, 0.6)
    assert effects(trials(cells, truth, sigma=0), FACTORS).set_index("term").variance["loss"] == pytest.approx(0.01)


@pytest.mark.slow
def test_no_effect_is_invented_where_there_is_none() -> None:
    """Noise alone: corrected variances are near 0, and in half of the landscapes exactly 0."""
    cells = design()
    means = [
        effects(trials(cells, np.full(len(cells), 0.9), seed=seed), FACTORS).variance[:-2].to_numpy()
        for seed in range(40)
    ]
    assert np.mean(means) < 0.05 * 0.01**2
    assert np.mean(np.array(means) == 0) > 0.4


@pytest.mark.slow
def test_block_and_residual_are_the_noise_that_was_put_in() -> None:
    cells = design()
    truth = np.random.default_rng(1).normal(0.8, 0.02, len(cells))
    found = [effects(trials(cells, truth, sigma=0.02, seed=s), FACTORS).set_index("term") for s in range(60)]
    assert np.mean([f.variance["residual"] for f in found]) == pytest.approx(0.5 * 0.02**2, rel=0.05)
    assert np.mean([f.variance["block"] for f in found]) == pytest.approx(0.5 * 0.02**2, rel=0.3)
    one_trial = found[0].variance.sum()
    assert found[0].share["residual"] == pytest.approx(found[0].variance["residual"] / one_trial)


def test_cell_terms_share_everything_among_themselves() -> None:
    cells = design()
    truth = np.random.default_rng(2).normal(0.8, 0.02, len(cells))
    found = effects(trials(cells, truth), FACTORS).set_index("term")
    assert found.share.drop(["block", "residual"]).sum() == pytest.approx(1)
    assert {"loss", "optimizer", "loss:optimizer", "temperature|loss", "temperature:refinement|loss"} <= set(
        found.index
    )


@pytest.mark.parametrize("missing", [0, 7])
def test_sums_of_squares_agree_with_statsmodels(missing: int) -> None:
    """A crossed 3 x 2 design with replicates as blocks: V + noise = SS / (R x cells), residual = mean square."""
    cells = design({"ce": (), "mse": (), "kl": ()})[["cell", "loss", "optimizer"]]
    table = trials(cells, np.array([0.1, 0.3, 0.2, 0.9, 0.5, 0.4]), sigma=0.2, seed=3)
    table = table.drop(index=range(0, 7 * missing, 7)) if missing else table
    complete = table.groupby("replicate").cell.transform("size") == len(cells)
    assert complete.all() == (missing == 0)
    found = effects(table, ["loss", "optimizer"]).set_index("term")
    anova = anova_lm(smf.ols("test_accuracy ~ C(loss) * C(optimizer) + C(replicate)", table[complete]).fit(), typ=2)
    residual = anova.sum_sq["Residual"] / anova.df["Residual"]
    assert found.variance["residual"] == pytest.approx(residual, rel=1e-6)
    seeds = table[complete].replicate.nunique()
    for term, name in (("loss", "C(loss)"), ("optimizer", "C(optimizer)"), ("loss:optimizer", "C(loss):C(optimizer)")):
        raw = anova.sum_sq[name] / (seeds * 6)
        noise = residual * anova.df[name] / (seeds * 6)
        assert found.variance[term] == pytest.approx(max(0, raw - noise), rel=1e-9)


@pytest.mark.slow
def test_shares_are_nearly_unbiased_and_intervals_cover() -> None:
    """A small version of `python -m benchmarks.statistics`: 150 landscapes, R = 10, seed sd 0.3 of the cell sd."""
    cells = design()
    truth = np.random.default_rng(5).normal(0.8, 0.03, len(cells))
    exact = shares(trials(cells, truth, sigma=0), FACTORS)
    found = [effects(trials(cells, truth, sigma=0.009, seed=s), FACTORS).set_index("term") for s in range(150)]
    for term, share in exact.items():
        if term in ("block", "residual"):
            continue
        estimates = np.array([f.share[term] for f in found])
        assert abs(estimates.mean() - share) < 0.02
        if share >= 0.05:
            covered = np.mean([f.low[term] <= share <= f.high[term] for f in found])
            assert covered > 0.85


def test_what_cannot_be_decomposed_is_said() -> None:
    cells = design({"kl": ("T", "w"), "ce": ()})
    table = trials(cells, np.full(len(cells), 0.5))
    with pytest.raises(ValueError, match="no column 'colour'"):
        effects(table, ["loss", "colour"])
    with pytest.raises(ValueError, match="full factorial: kl has 11 cells"):
        effects(table[table.cell != "kl,4.0,0.0,sgd"], FACTORS)
    with pytest.raises(ValueError, match="nested in the loss; give loss"):
        effects(table, ["temperature", "optimizer"])
    with pytest.raises(ValueError, match="at least 2 replicates, got 1"):
        effects(table[table.replicate == 1], FACTORS)
    assert math.isnan(effects(table[table.replicate <= 2], FACTORS).low[0]), "two replicates give no interval"
