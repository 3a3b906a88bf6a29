"""Edits, power laws and the Pareto front, on tables whose truth is known."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.landscape.comparisons import against
from orchestrator.landscape.labels import edit_curve, label_costs, pareto_front, storage_front
from orchestrator.landscape.scaling import fit_power_law, hard_label_worth, scaling_laws
from orchestrator.report.figures import accuracy_range
from tests.orchestrator.landscapes import trials

IPC = "data.distilled.ipc"
X = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)


def law(floor: float, scale: float, exponent: float) -> np.ndarray:
    return 1 - (floor + scale * np.array(X) ** -exponent)


def noisy(accuracies: np.ndarray, *, sigma: float, seed: int, replicates: int = 10) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.asarray(accuracies[:, None] + sigma * random.normal(size=(len(accuracies), replicates)))


def test_a_power_law_without_noise_is_found() -> None:
    for truth in ((0.02, 0.4, 0.7), (0.0, 0.3, 0.3), (0.1, 0.5, 1.5)):
        found = fit_power_law(X, np.tile(law(*truth)[:, None], 4))
        assert found.parameters == pytest.approx(truth, abs=1e-4)
        assert found.points.residual.abs().max() < 1e-6
        assert found.at(3.0) == pytest.approx(1 - truth[0] - truth[1] * 3 ** -truth[2], abs=1e-5)


@pytest.mark.slow
def test_its_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """95 % nominal over 80 noisy laws; the exponent's interval between 88 and 100 %."""
    truth = (0.05, 0.4, 0.7)
    fits = [fit_power_law(X, noisy(law(*truth), sigma=0.01, seed=seed)) for seed in range(80)]
    for number in range(3):
        held = np.mean([f.low[number] <= truth[number] <= f.high[number] for f in fits])
        assert 0.88 <= held <= 1.0


def test_a_law_refuses_to_extrapolate_silently() -> None:
    found = fit_power_law(X, np.tile(law(0.02, 0.4, 0.7)[:, None], 4))
    for x in (0.5, 51.0):
        with pytest.raises(ValueError, match=r"`1 <= x <= 50` must hold, got .*: nothing was measured there"):
            found.at(x)
    assert found.at(100.0, extrapolate=True) == pytest.approx(1 - 0.02 - 0.4 * 100**-0.7, abs=1e-4)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ((1, 2, 5), np.ones((3, 4)), "at least 4 levels"),
        ((0, 1, 2, 5), np.ones((4, 4)), "above 0"),
        ((1, 2, 5, 10), np.full((4, 4), math.nan), "without holes"),
        ((1, 2, 5, 10), np.ones((3, 4)), r"must be \(4, R\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(x: Any, y: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_power_law(x, y)


def scaling_table(hard: np.ndarray, soft: np.ndarray, **how: Any) -> pd.DataFrame:
    rows = [{"loss": arm, "arms": arm, IPC: x, "cell": f"{arm},{x:g}"} for arm in ("ce", "soft_ce") for x in X]
    table = trials(pd.DataFrame(rows), np.concatenate([hard, soft]), **how)
    table.attrs["contexts"] = [IPC]
    return table


def test_scaling_laws_are_fitted_per_arm() -> None:
    laws = scaling_laws(scaling_table(law(0.02, 0.5, 0.5), law(0.01, 0.2, 0.9), sigma=0), IPC)
    assert set(laws) == {("ce",), ("soft_ce",)}
    assert laws["soft_ce",].parameters == pytest.approx((0.01, 0.2, 0.9), abs=1e-3)


def test_what_a_label_is_worth_by_hand() -> None:
    """Hard labels: 0.1 per doubling from 0.3; a soft label with 0.35 at one image is worth 2^0.5 of them."""
    table = scaling_table(0.3 + 0.1 * np.log2(X), np.array([0.35, 0.4, 0.5, 0.6, 0.9, 0.25]), sigma=0)
    worth = hard_label_worth(table, IPC).set_index(IPC)
    assert worth.images[:10.0].tolist() == pytest.approx([2**0.5, 2, 4, 8])
    for end in (worth.low, worth.high):
        assert end[:10.0].tolist() == pytest.approx(worth.images[:10.0].tolist())
    assert worth.beyond.tolist() == ["", "", "", "", "more", "fewer"]
    assert worth.images[[20.0, 50.0]].isna().all()
    assert hard_label_worth(table[table.loss != "ce"], IPC).empty


def test_numbers_that_are_no_better_than_smaller_ones_are_passed_over() -> None:
    """0.5 is reached by 2 images, although 5 and 10 have it too; a little more needs a little more than 2."""
    hard = np.array([0.3, 0.5, 0.45, 0.5, 0.7, 0.8])
    table = scaling_table(hard, np.array([0.5, 0.5001, 0.6, 0.3, 0.3, 0.8]), sigma=0)
    worth = hard_label_worth(table, IPC).images.tolist()
    assert worth == pytest.approx([2, 2.0, math.sqrt(2 * 20), 1, 1, 50], rel=2e-3)


def test_a_label_is_worth_what_the_shared_seeds_say() -> None:
    """A seed that one of the arms lacks is left out, and never paired with another."""
    table = scaling_table(0.3 + 0.1 * np.log2(X), np.full(6, 0.4), replicates=6, sigma=0.02)
    holes = ((table.loss == "ce") & (table.replicate == 2)) | ((table.loss == "soft_ce") & (table.replicate == 5))
    found = hard_label_worth(table[~holes], IPC)
    expected = hard_label_worth(table[~table.replicate.isin([2, 5])], IPC)
    assert found.n.tolist() == [4] * 6
    pd.testing.assert_frame_equal(found, expected)
    apart = table[(table.loss == "ce") == (table.replicate <= 3)]
    assert hard_label_worth(apart, IPC).empty


def test_a_law_at_its_bound_claims_no_certainty() -> None:
    """Steeper than any power law with a floor of 0 or more: the floor stays at 0 whatever is left out, the rest has intervals."""
    found = fit_power_law(X, noisy(law(-0.05, 0.4, 0.5), sigma=1e-3, seed=1))
    assert found.parameters[0] < 1e-6
    assert np.isnan([found.low[0], found.high[0]]).all()
    assert np.isfinite([*found.low[1:], *found.high[1:]]).all()


def test_an_edit_is_compared_with_the_label_as_it_is_under_the_same_settings() -> None:
    """Paired differences: block noise of a replicate cancels, so -0.1 is found exactly; ce is no base."""
    cells = pd.DataFrame(
        [
            {"loss": "kl", "arms": "a", "label_swap": math.nan, "optimizer": "sgd", "cell": "kl,sgd"},
            {"loss": "kl", "arms": "b", "label_swap": 1.0, "optimizer": "sgd", "cell": "kl,1,sgd"},
            {"loss": "kl", "arms": "b", "label_swap": 1.0, "optimizer": "adam", "cell": "kl,1,adam"},
            {"loss": "ce", "arms": "ce", "label_swap": math.nan, "optimizer": "adam", "cell": "ce,adam"},
        ]
    )
    table = trials(cells, np.array([0.8, 0.7, 0.6, 0.5]), rho=1.0)
    table.attrs["contexts"] = ["optimizer"]
    curve = edit_curve(table, "label_swap").set_index("optimizer")
    assert curve.difference["sgd"] == pytest.approx(-0.1)
    assert curve.difference_high["sgd"] - curve.difference_low["sgd"] == pytest.approx(0, abs=1e-12)
    assert math.isnan(curve.difference["adam"])
    assert curve["mean"]["adam"] == pytest.approx(0.6, abs=0.02)


POINTS = pd.DataFrame(
    [
        ("cheap and bad", 10, 0, 0.5, True),
        ("as cheap and worse", 10, 0, 0.4, False),
        ("more bytes, better", 10, 100, 0.7, True),
        ("more images, fewer bytes", 20, 50, 0.6, True),
        ("more of both and no better", 20, 100, 0.7, False),
        ("twin", 10, 100, 0.7, True),
        ("best", 100, 1000, 0.9, True),
        ("as good for more bytes", 100, 2000, 0.9, False),
    ],
    columns=["cell", "images", "label_bytes", "mean", "front"],
)


def test_the_front_of_a_table_with_a_known_front() -> None:
    front = pareto_front(POINTS, costs=["images", "label_bytes"], gain="mean")
    assert front.tolist() == POINTS.front.tolist()


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=30))
def test_every_point_off_the_front_is_beaten_by_one_on_it(values: list[tuple[int, int, int]]) -> None:
    points = pd.DataFrame(values, columns=["a", "b", "gain"])
    front = pareto_front(points, costs=["a", "b"], gain="gain")
    on = points[front]
    assert len(on)
    for row in points[~front].itertuples():
        assert ((on.a <= row.a) & (on.b <= row.b) & (on.gain >= row.gain)).any()
    for row in on.itertuples():
        beats = (points.a <= row.a) & (points.b <= row.b) & (points.gain >= row.gain)
        better = (points.a < row.a) | (points.b < row.b) | (points.gain > row.gain)
        assert not (beats & better).any()


def test_cells_are_compared_with_one_of_them_by_seed() -> None:
    cells = pd.DataFrame({"loss": "kl", "cell": ["a", "b", "c"]})
    table = trials(cells, np.array([0.5, 0.6, 0.4]), rho=1.0)
    found = against(table, "a", ["a", "b", "c"]).set_index("cell")
    assert found.mean_difference.to_dict() == pytest.approx({"b": 0.1, "c": -0.1})
    assert found.p_value.tolist() == pytest.approx([2 / 2**10] * 2)
    assert found.p_holm.tolist() == pytest.approx([4 / 2**10] * 2)


def sweep_of(costs: dict[str, tuple[int, int]], table: pd.DataFrame) -> Any:
    """As much of a landscape as costs need: each cell's data have a key and are known."""
    cells = [SimpleNamespace(label=label, loss=label.split(",")[0]) for label in costs]
    plan = SimpleNamespace(cells=cells, data_keys={label: label for label in costs})
    known = {label: {"n_distilled": images, "label_bytes": size} for label, (images, size) in costs.items()}
    return SimpleNamespace(plan=plan, table=table, facts={"data": known})


def test_the_front_counts_seeds_and_leaves_hard_labels_without_bytes() -> None:
    """soft beats ce in the mean and in 3 of 4 seeds; ce needs no bytes, whatever its bank has."""
    cells = pd.DataFrame({"loss": ["ce", "kl", "kl"], "cell": ["ce,x", "kl,x", "kl,big"]}).assign(arms=lambda t: t.loss)
    table = trials(cells, np.array([0.5, 0.6, 0.6]), replicates=4, sigma=0)
    table.loc[(table.cell == "kl,x") & (table.replicate == 4), "test_accuracy"] = 0.45
    table.loc[(table.cell == "kl,big") & (table.replicate == 1), "test_accuracy"] = 0.7
    landscape = sweep_of({"ce,x": (10, 800), "kl,x": (10, 800), "kl,big": (10, 900)}, table)
    assert label_costs(landscape).label_bytes.tolist() == [0, 800, 900]
    front = storage_front(landscape).set_index("cell")
    assert front.front.to_dict() == {"ce,x": True, "kl,x": True, "kl,big": True}
    assert front.front_share.to_dict() == {"ce,x": 1.0, "kl,x": 0.75, "kl,big": 0.5}


def test_every_dataset_has_a_front_of_its_own() -> None:
    cells = pd.DataFrame({"loss": "kl", "cell": ["kl,a", "kl,b"], "dataset": ["a", "b"]}).assign(arms="kl")
    table = trials(cells, np.array([0.5, 0.9]), sigma=0)
    table.attrs["contexts"] = ["dataset"]
    front = storage_front(sweep_of({"kl,a": (10, 800), "kl,b": (10, 800)}, table))
    assert front.front.tolist() == [True, True]


def test_a_sweep_from_before_bytes_were_counted_has_no_front() -> None:
    table = trials(pd.DataFrame({"loss": ["kl"], "cell": ["kl"]}), np.array([0.5]))
    landscape = sweep_of({"kl": (10, 800)}, table)
    del landscape.facts["data"]["kl"]["label_bytes"]
    assert storage_front(landscape).empty


@pytest.mark.parametrize(
    ("accuracies", "low"),
    [
        ([0.03, 0.94, 0.95, 0.97], 0.94),
        ([0.24, 0.333, 0.4, 0.42], 0.24),
        ([0.5, 0.5], 0.5),
        ([0.1, 0.8, 0.95, 0.97], 0.95),
    ],
)
def test_a_few_far_below_do_not_press_the_others_together(accuracies: list[float], low: float) -> None:
    ends = accuracy_range(pd.Series([*accuracies, math.nan]))
    spare = max(0.2, 10 * (max(accuracies) - low))
    assert ends == pytest.approx((100 * low - spare, 100 * max(accuracies) + spare))
