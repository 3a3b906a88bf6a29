"""Statistics on synthetic landscapes whose truth is known."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.landscape.curves import learning_curves
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.power import assumed_sigma, minimum_detectable_effect, replicates_needed, smallest_p
from orchestrator.landscape.stopping import early_stopping_safety, rung_table, summarise_stopping
from orchestrator.landscape.values import arm_values, cell_values, levels_of, mean_interval, ranking
from orchestrator.plan import Plan
from orchestrator.report import Findings, write_paper, write_report
from orchestrator.report.figures import heatmap_figure, profile_figure, ranking_figure
from orchestrator.report.headline import qualifications
from search_spaces import load_space


def synthetic(truth: dict[str, float], *, replicates: int = 10, sigma: float = 0.01, seed: int = 0) -> pd.DataFrame:
    """Cells `kl1`, `kl2` (arms kl|soft_ce), `ce` (arm ce) with common random numbers (rho = 0.5)."""
    random = np.random.default_rng(seed)
    block = random.normal(size=replicates) * sigma * math.sqrt(0.5)
    rows = []
    for cell, mean in truth.items():
        arms = "ce" if cell == "ce" else "kl|soft_ce"
        base = {"cell": cell, "arms": arms, "loss": cell[:2], "diverged": False, "audited": False}
        for draw in range(2):
            tune = {"stage": "tune", "replicate": 0, "status": "finished", "val_accuracy": mean - 0.1 * draw}
            rows.append({**base, **tune, "draw": draw, "selected": ""})
        own = random.normal(size=replicates) * sigma * math.sqrt(0.5)
        for r in range(replicates):
            test = mean + block[r] + own[r]
            confirm = {"stage": "confirm", "replicate": r + 1, "status": "finished", "test_accuracy": test}
            rows.append({**base, **confirm, "draw": 0, "selected": "best", "val_accuracy": mean})
    return pd.DataFrame(rows)


def test_mean_interval_by_hand() -> None:
    """1, 2, 3: mean 2, sd 1, t_{0.975, 2} = 4.302653: 2 +- 4.302653 / sqrt 3."""
    mean, low, high = mean_interval([1, 2, 3])
    assert (mean, low, high) == pytest.approx((2, 2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)))


def test_intervals_of_accuracies_end_at_0_and_1_and_hold_the_mean() -> None:
    """Two seeds, 0.90 and 1.00: uncut, the interval would be 0.95 +- 0.64."""
    assert mean_interval([0.9, 1.0], (0.0, 1.0)) == (
        pytest.approx(0.95),
        pytest.approx(0.95 - 12.706 * 0.05, abs=1e-3),
        1,
    )
    truth = {"ce": 0.999, "kl": 0.001}
    for name, values in {"cells": cell_values(synthetic(truth)), "ranking": ranking(synthetic(truth))}.items():
        assert ((values.low >= 0) & (values.low <= values["mean"])).all(), name
        assert ((values.high <= 1) & (values.high >= values["mean"])).all(), name


def test_mean_interval_of_one_and_of_none() -> None:
    assert mean_interval([3.0])[0] == 3
    assert math.isnan(mean_interval([3.0])[1])
    assert all(math.isnan(x) for x in mean_interval([]))


def test_interval_covers_the_truth_95_times_in_100() -> None:
    truth = {"kl1": 0.8}
    covered = [
        low <= 0.8 <= high
        for seed in range(1000)
        for _, low, high in [mean_interval(synthetic(truth, seed=seed).test_accuracy.dropna())]
    ]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_arms_with_equal_cells_are_one_level() -> None:
    assert levels_of(synthetic({"kl1": 0.8, "kl2": 0.9, "ce": 0.7})) == {"kl = soft_ce": ["kl1", "kl2"], "ce": ["ce"]}


def test_an_arm_is_represented_by_its_cell_with_the_best_tune_validation_not_the_best_test() -> None:
    table = synthetic({"kl1": 0.8, "kl2": 0.9, "ce": 0.7})
    table.loc[(table.cell == "kl2") & (table.stage == "tune"), "val_accuracy"] = 0.1
    arms = arm_values(table).set_index("level")
    assert arms.cell["kl = soft_ce"] == "kl1"
    assert arms.cells["kl = soft_ce"] == 2


def test_cell_values_count_what_is_there() -> None:
    table = synthetic({"kl1": 0.8, "ce": 0.7})
    table.loc[(table.cell == "ce") & (table.replicate > 7), "status"] = "failed"
    values = cell_values(table).set_index("cell")
    assert values.n.to_dict() == {"kl1": 10, "ce": 7}
    assert values.validation["ce"] == 0.7


def test_unselected_and_tune_rows_never_enter_a_cell_value() -> None:
    table = synthetic({"kl1": 0.8})
    table.loc[table.replicate == 1, "selected"] = "shared"
    assert cell_values(table).n[0] == 9


def test_ranking_orders_levels_and_pairs_the_differences() -> None:
    table = synthetic({"kl1": 0.80, "kl2": 0.81, "ce": 0.79}, replicates=200)
    ranked = ranking(table)
    assert list(ranked.level) == ["kl = soft_ce", "ce"]
    ce = ranked.set_index("level").loc["ce"]
    rows = table[table.stage == "confirm"].pivot_table(index="replicate", columns="cell", values="test_accuracy")
    assert (ce.behind, ce.behind_low, ce.behind_high) == pytest.approx(mean_interval(rows["kl2"] - rows["ce"]))
    unpaired = math.hypot(*(rows[c].std() for c in ("kl2", "ce")))
    assert (rows["kl2"] - rows["ce"]).std() < unpaired, "common random numbers make the paired difference less noisy"


def test_contexts_are_averaged_per_replicate() -> None:
    parts = []
    for optimizer, shift in (("adamw", 0.0), ("sgd", -0.1)):
        part = synthetic({"kl1": 0.8 + shift, "ce": 0.7 + shift}).assign(optimizer=optimizer)
        parts.append(part.assign(cell=part.cell + optimizer))
    table = pd.concat(parts, ignore_index=True)
    table.attrs["contexts"] = ["optimizer"]
    ranked = ranking(table).set_index("level")
    assert ranked["mean"].to_dict() == pytest.approx({"kl = soft_ce": 0.75, "ce": 0.65}, abs=0.01)
    assert set(ranked.contexts) == {2}
    assert set(ranked.n) == {10}


def test_settings_that_vary_between_cells_are_kept_and_tuned_ones_are_not() -> None:
    table = synthetic({"kl1": 0.8, "ce": 0.7})
    table["weight_decay"] = table.cell.map({"kl1": 0.0, "ce": 0.1})
    table["lr"] = table.draw + 0.5
    values = cell_values(table).set_index("cell")
    assert values.weight_decay.to_dict() == {"kl1": 0.0, "ce": 0.1}
    assert "lr" not in values


def test_a_level_that_lacks_a_context_comes_last_and_is_not_compared() -> None:
    table = pd.concat(
        [
            synthetic({"kl1": 0.8}).assign(optimizer="adamw"),
            synthetic({"kl2": 0.6}).assign(optimizer="sgd"),
            synthetic({"ce": 0.75}).assign(optimizer="adamw"),
        ],
        ignore_index=True,
    )
    table.attrs["contexts"] = ["optimizer"]
    ranked = ranking(table)
    assert list(ranked.level) == ["kl = soft_ce", "ce"]
    assert math.isnan(ranked.behind[1])


def test_an_empty_table_has_an_empty_ranking() -> None:
    table = synthetic({"kl1": 0.8})
    assert ranking(table[table.stage == "tune"]).empty


def test_minimum_detectable_effect_by_the_power_of_the_t_test() -> None:
    """R = 10, alpha 0.05, power 0.8 need a standardised difference of 0.996 (tables of the paired t test)."""
    effect = minimum_detectable_effect(sigma=1.0, replicates=10, rho=0.5)
    assert effect == pytest.approx(0.996, abs=0.001)
    assert math.isnan(minimum_detectable_effect(sigma=1.0, replicates=1))


def test_minimum_detectable_effect_is_found_80_times_in_100() -> None:
    from scipy import stats

    sigma, rho, replicates = 0.01, 0.4, 10
    delta = minimum_detectable_effect(sigma=sigma, replicates=replicates, rho=rho)
    random = np.random.default_rng(0)
    differences = delta + random.normal(size=(20000, replicates)) * sigma * math.sqrt(2 * (1 - rho))
    found = stats.ttest_1samp(differences, 0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(0.8, abs=0.01)


def test_smallest_p_and_the_replicates_it_asks_for() -> None:
    assert smallest_p(6) == 2 / 64
    assert [replicates_needed(pairs) for pairs in (1, 15, 25)] == [6, 10, 10]
    for pairs in range(1, 60):
        needed = replicates_needed(pairs)
        assert smallest_p(needed) * pairs <= 0.05 < smallest_p(needed - 1) * pairs


def test_assumed_sigma_by_hand() -> None:
    assert assumed_sigma(0.5, 100) == 0.05


def test_stopping_is_summed_up_by_hand() -> None:
    """Two tune trials of 100 epochs, one stopped at 25: 75 of 200 epochs saved; the audited one was chosen."""
    base = {"cell": "a", "diverged": False, "selected": ""}
    table = pd.DataFrame(
        [
            {**base, "stage": "tune", "status": "finished", "epochs": 100, "audited": True, "draw": 0},
            {**base, "stage": "tune", "status": "stopped", "epochs": 25, "audited": False, "draw": 1},
            {
                **base,
                "stage": "confirm",
                "status": "finished",
                "epochs": 100,
                "audited": False,
                "draw": 0,
                "selected": "best",
            },
        ]
    )
    summary = summarise_stopping(table, {"a": 100})
    assert (summary.trials, summary.stopped, summary.audited, summary.audited_won) == (2, 1, 1, 1)
    assert summary.epochs_saved_frac == 75 / 200
    assert (summary.won_low, summary.won_high) == pytest.approx((0.025, 1.0))


def test_rungs_are_counted() -> None:
    records = [{"kind": "decision", "rung_epochs": 25, "action": a} for a in ("continue", "stop", "stop", "audit")]
    assert rung_table(records).to_dict("records") == [{"rung_epochs": 25, "arrived": 4, "stopped": 2, "audited": 1}]
    assert rung_table([]).empty


def test_learning_curves_average_replicates() -> None:
    table = synthetic({"ce": 0.7}, replicates=2).assign(trial_id=lambda t: [str(i) for i in t.index])
    records = [
        {"kind": "result", "trial_id": i, "curve": [{"epoch": 5, "val_accuracy": v}]}
        for i, v in zip(table[table.stage == "confirm"].trial_id, (0.2, 0.4), strict=True)
    ]
    (point,) = learning_curves(table, records).to_dict("records")
    assert (point["level"], point["epoch"], point["mean"]) == ("ce", 5, pytest.approx(0.3))


def test_a_report_of_a_sweep_that_has_just_begun_says_so(tiny: dict[str, Any], tmp_path: Path) -> None:
    from orchestrator.table import tidy_table

    plan = Plan("tiny", load_space(tiny), "cpu")
    page = write_report(Findings(Landscape(plan, tidy_table(plan, []), [], {})), tmp_path)
    text = page.read_text()
    assert "No cell has been confirmed yet" in text
    assert "24 of 24 planned trials are pending" in text
    assert "src=" not in text.split("</script>")[-1], "the page needs no network"


def test_an_arm_is_chosen_by_the_draw_that_was_confirmed_not_by_a_better_one_that_was_not() -> None:
    """Draw 1 of kl1 looks best, but the search confirmed draw 0 (draw 1 lacks replicates, say)."""
    table = synthetic({"kl1": 0.7, "kl2": 0.8})
    table.loc[(table.cell == "kl1") & (table.draw == 1), "val_accuracy"] = 0.99
    assert cell_values(table).set_index("cell").validation.to_dict() == {"kl1": 0.7, "kl2": 0.8}
    assert arm_values(table).cell.tolist() == ["kl2"]


@pytest.mark.parametrize("order", [["kl1", "kl2", "ce"], ["kl2", "kl1", "ce"]])
def test_where_nothing_was_tuned_an_arm_is_the_mean_of_its_cells(order: list[str]) -> None:
    truth = {"kl1": 0.8, "kl2": 0.9, "ce": 0.7}
    table = synthetic(truth)
    table = table[table.stage == "confirm"]
    table = pd.concat([table[table.cell == cell] for cell in order])
    arms = arm_values(table).set_index("level")
    assert arms.cell["kl = soft_ce"] == "mean of 2 cells"
    values = table[table.cell != "ce"].groupby("replicate").test_accuracy.mean()
    expected = mean_interval(values.to_numpy())
    assert tuple(arms.loc["kl = soft_ce", ["mean", "low", "high"]]) == pytest.approx(expected)
    ranked = ranking(table).set_index("level")
    assert ranked["mean"]["kl = soft_ce"] == pytest.approx(expected[0])


def test_stopping_does_not_take_credit_for_divergence_nor_for_shared_draws() -> None:
    base = {"cell": "a", "diverged": False, "selected": "", "stage": "tune", "status": "finished"}
    table = pd.DataFrame(
        [
            {**base, "epochs": 3, "diverged": True, "audited": False, "draw": 0},
            {**base, "epochs": 100, "audited": True, "draw": 1},
            {**base, "epochs": 40, "status": "stopped", "audited": False, "draw": 2},
            {**base, "stage": "confirm", "epochs": 100, "audited": False, "draw": 1, "selected": "shared"},
        ]
    )
    summary = summarise_stopping(table, {"a": 100})
    assert summary.epochs_saved_frac == 60 / 300
    assert summary.audited_won == 0


@pytest.mark.parametrize("contexts", [1, 12, 30])
def test_figures_of_many_contexts_and_of_those_without_a_factor(contexts: int) -> None:
    """The first context has no momentum; all are shown."""
    parts = []
    for number in range(contexts):
        momentum = math.nan if number == 0 else number / 100
        part = synthetic({"kl1": 0.8, "ce": 0.7}).assign(momentum=momentum, lr=0.1, epochs=8, temperature=4.0)
        cold = part[part.loss != "ce"].assign(temperature=1.0, cell=part.cell + "cold")
        parts += [each.assign(cell=each.cell + str(number)) for each in (part, cold)]
    table = pd.concat(parts, ignore_index=True)
    table.loc[table.loss == "ce", "temperature"] = math.nan
    table.attrs["contexts"] = ["momentum"]
    heatmap = heatmap_figure(table)
    assert heatmap is not None
    assert heatmap_figure(table[table.temperature != 1.0]) is None, "nothing varies"
    assert len(heatmap.data) == contexts
    profile = profile_figure(table, "lr", list(ranking(table).level))
    assert len(profile.data) == contexts * 2 * 2
    assert len(ranking_figure(table).data) == 1 + contexts
    assert heatmap.layout.annotations[-1].text == ("–" if contexts == 1 else f"{(contexts - 1) / 100}")


def stored_landscape(table: pd.DataFrame) -> Landscape:
    """A synthetic table as if a sweep that tuned lr had made it."""
    space = {
        "name": "x",
        "data": {"real": "digits"},
        "teacher": {"model": "convnet2"},
        "scientific": {"loss": ["kl", "soft_ce", "ce"]},
        "nuisance": {"lr": {"loguniform": [0.001, 0.1]}, "draws": 2},
        "fixed": {"student": "convnet2"},
    }
    table = table.assign(lr=0.01 * (table.draw + 1), epochs=10, stopped_by=None, run_id=None)
    table["trial_id"] = [f"t{i}" for i in range(len(table))]
    return Landscape(Plan("x", load_space(space), "cpu"), table, [], {})


def test_latex_escapes_names_and_prints_a_bold_winner_only_where_it_differs(tmp_path: Path) -> None:
    landscape = stored_landscape(synthetic({"kl1": 0.9, "ce": 0.7}))
    (path,) = write_paper(Findings(landscape), tmp_path, latex=True, figures=None)
    text = path.read_text()
    assert r"\textbf{89.74" in text
    assert r"kl = soft\_ce" in text
    assert text.count(r" \\") == 3, "a head and two arms"
    alike = stored_landscape(synthetic({"kl1": 0.9, "ce": 0.9}))
    assert "textbf" not in write_paper(Findings(alike), tmp_path, latex=True, figures=None)[0].read_text()


@pytest.mark.parametrize("kind", ["pdf", "png"])
def test_figures_for_papers_are_files(kind: str, tmp_path: Path) -> None:
    table = synthetic({"kl1": 0.8, "kl2": 0.9, "ce": 0.7}).assign(temperature=math.nan, refinement=math.nan)
    table.loc[table.cell == "kl1", ["temperature", "refinement"]] = [1.0, 0.0]
    table.loc[table.cell == "kl2", ["temperature", "refinement"]] = [4.0, 0.0]
    written = write_paper(Findings(stored_landscape(table)), tmp_path, latex=False, figures=kind)
    assert [path.name for path in written] == [f"ranking.{kind}", f"plane.{kind}", f"tuning.{kind}"]
    assert all(path.stat().st_size > 3000 for path in written)


def test_the_report_writes_a_typed_table_and_says_what_its_columns_mean(tmp_path: Path) -> None:
    landscape = stored_landscape(synthetic({"kl1": 0.9, "ce": 0.7}))
    write_report(Findings(landscape), tmp_path)
    stored = pd.read_parquet(tmp_path / "landscape.parquet")
    assert len(stored) == len(landscape.table)
    assert stored.test_accuracy.mean() == pytest.approx(landscape.table.test_accuracy.mean())
    dictionary = (tmp_path / "dictionary.html").read_text()
    assert all(f"<code>{name}</code>" in dictionary for name in landscape.table)
    assert {"comparisons.csv", "effects.csv", "sensitivity.csv", "tuning.csv"} <= {p.name for p in tmp_path.iterdir()}


def test_cell_values_of_a_table_from_anywhere_need_few_columns() -> None:
    table = synthetic({"kl1": 0.8, "ce": 0.7})
    few = table[table.stage == "confirm"][["cell", "stage", "status", "replicate", "test_accuracy"]]
    assert cell_values(few).n.tolist() == [10, 10]
    assert cell_values(few).diverged.sum() == 0


def test_safety_of_early_stopping_is_the_rank_correlation_of_then_and_last() -> None:
    """Cell a: 1, 2, 3 become 2, 4, 6 (rho 1); cell b: 1, 2, 3 become 3, 2, 1 (rho -1); a stopped trial does not count."""
    then, last = [0.1, 0.2, 0.3] * 2, [0.2, 0.4, 0.6, 0.3, 0.2, 0.1]
    table = pd.DataFrame({"trial_id": list("uvwxyz"), "cell": ["a"] * 3 + ["b"] * 3, "stage": "tune"})
    table["status"] = "finished"
    records: list[dict[str, Any]] = [{"kind": "decision", "rung_epochs": 25}]
    for trial, a, b in zip(table.trial_id, then, last, strict=True):
        curve = [
            {"epoch": 20, "val_accuracy": 0.9},
            {"epoch": 25, "val_accuracy": a},
            {"epoch": 100, "val_accuracy": b},
        ]
        records.append({"kind": "result", "trial_id": trial, "curve": curve})
    (row,) = early_stopping_safety(table, records).to_dict("records")
    assert (row["rung_epochs"], row["n"], row["strata"]) == (25, 6, 2)
    assert row["within"] == pytest.approx(0)
    one = table.assign(status=["finished"] * 3 + ["stopped"] * 3)
    assert early_stopping_safety(one, records).within[0] == pytest.approx(1)
    few = table.assign(status=["finished"] * 2 + ["stopped"] * 4)
    assert math.isnan(early_stopping_safety(few, records).across[0]), "not measurable"


def test_the_statistics_can_be_imported_from_one_place() -> None:
    from orchestrator import landscape

    assert all(callable(getattr(landscape, name)) for name in landscape.__all__)
    with pytest.raises(AttributeError, match="no attribute 'compere'"):
        landscape.compere  # noqa: B018


def test_the_best_evaluation_of_the_literature_is_a_column_of_its_own(tmp_path: Path) -> None:
    table = synthetic({"kl1": 0.9, "ce": 0.7})
    landscape = stored_landscape(table.assign(test_accuracy_max=table.test_accuracy + 0.05))
    page = write_report(Findings(landscape), tmp_path / "paper").read_text()
    assert "best of all evaluations" in page
    mean = 100 * table[(table.cell == "ce") & (table.stage == "confirm")].test_accuracy.mean()
    assert f"{mean + 5:.2f} %" in page
    assert f"{mean:.2f} %" in page
    plain = write_report(Findings(stored_landscape(table)), tmp_path / "tuned").read_text()
    assert "best of all evaluations" not in plain
    assert "loss explains" not in plain, "one factor explains all, which says nothing"


def test_arms_that_chose_the_same_cells_are_named(tmp_path: Path) -> None:
    table = synthetic({"kl1": 0.7, "kl2": 0.9, "ce": 0.7})
    table.loc[table.cell == "kl2", "arms"] += "|warm"
    page = write_report(Findings(stored_landscape(table)), tmp_path).read_text()
    assert "kl = soft_ce = warm: represented by the same cells" in page


@pytest.mark.parametrize(("chosen", "warned"), [(3, True), (1, False)])
def test_the_headline_warns_of_draws_at_the_edge_of_their_range(chosen: int, warned: bool) -> None:
    table = synthetic({"kl1": 0.7, "ce": 0.8})
    tune = table[table.stage == "tune"]
    more = [tune.assign(draw=draw, val_accuracy=0.1) for draw in (2, 3)]
    table = pd.concat([table, *more], ignore_index=True)
    table.loc[table.stage == "confirm", "draw"] = chosen
    text = " ".join(qualifications(Findings(stored_landscape(table))))
    edge = "In 2 of 2 chosen cells the chosen draw is at the edge of what was drawn (highest lr in 2)"
    assert (edge in text) == warned
