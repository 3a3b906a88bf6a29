"""What tuning buys, and how much hangs on the loss, on tables small enough for hand arithmetic."""

from __future__ import annotations

import html
import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.pooled import pooled_iqm
from orchestrator.landscape.spread import factor_drops, rank_stability, sensitivity, tunability
from orchestrator.landscape.tuning import boundary_flags, equal_search, expected_best, robustness, tuning_curve
from orchestrator.landscape.values import ranking, read_table
from orchestrator.plan import Plan
from orchestrator.report import Findings, write_report
from search_spaces import load_space

LRS = (0.001, 0.01, 0.1, 1.0)


def landscape(truth: dict[tuple[str, str], list[float]], *, best: dict[tuple[str, str], int]) -> pd.DataFrame:
    """Arms x optimizers; `truth` is accuracy by draw, the same in validation and test; 4 replicates without noise."""
    rows = []
    for (arm, optimizer), accuracies in truth.items():
        base = {"cell": f"{arm},{optimizer}", "arms": arm, "loss": arm, "optimizer": optimizer, "diverged": False}
        for draw, (lr, value) in enumerate(zip(LRS, accuracies, strict=False)):
            tune = {"stage": "tune", "replicate": 0, "status": "finished", "selected": "", "val_accuracy": value}
            rows.append({**base, **tune, "draw": draw, "lr": lr, "test_accuracy": math.nan})
        draw = best[arm, optimizer]
        for replicate in (1, 2, 3, 4):
            test = accuracies[draw] + 0.001 * replicate
            confirm = {"stage": "confirm", "replicate": replicate, "status": "finished", "selected": "best"}
            rows.append({**base, **confirm, "draw": draw, "lr": LRS[draw], "test_accuracy": test, "val_accuracy": test})
    table = pd.DataFrame(rows)
    table["trial_id"] = [str(i) for i in range(len(table))]
    table.attrs["contexts"] = ["optimizer"]
    return table


TRUTH = {
    ("kl", "adamw"): [0.5, 0.7, 0.9, 0.1],
    ("kl", "sgd"): [0.5, 0.6, 0.7, 0.8],
    ("ce", "adamw"): [0.4, 0.6, 0.5, 0.2],
    ("ce", "sgd"): [0.3, 0.3, 0.6, 0.5],
}
BEST = {("kl", "adamw"): 2, ("kl", "sgd"): 3, ("ce", "adamw"): 1, ("ce", "sgd"): 2}
TABLE = landscape(TRUTH, best=BEST)


def test_expected_best_by_hand_and_by_enumeration() -> None:
    """Of 1, 2, 4: one draw 7/3; two draws (2 + 4 + 4) / 3; all three 4."""
    assert expected_best([4, 1, 2]).tolist() == pytest.approx([7 / 3, 10 / 3, 4])
    values = np.random.default_rng(0).normal(size=6)
    for k in range(1, 7):
        every = [max(chosen) for chosen in itertools.combinations(values, k)]
        assert expected_best(values)[k - 1] == pytest.approx(np.mean(every))


def test_tuning_curves_are_means_over_contexts_with_bands_around_them() -> None:
    """ce: one draw (0.425 + 0.425) / 2; four draws (0.6 + 0.6) / 2."""
    curve = tuning_curve(TABLE)
    ce = curve[curve.level == "ce"].set_index("draws")
    assert ce.expected[1] == pytest.approx(0.425)
    assert ce.expected[4] == pytest.approx(0.6)
    assert ((curve.low <= curve.expected + 1e-9) & (curve.expected <= curve.high + 1e-9)).all()
    assert (curve.stopped == 0).all()


def test_stopped_draws_enter_with_their_last_value_and_are_counted() -> None:
    table = TABLE.copy()
    table.loc[0, "status"] = "stopped"
    assert tuning_curve(table).groupby("level").stopped.first().to_dict() == {"kl": 0.125, "ce": 0}


def test_robustness_is_the_share_of_draws_close_to_the_best() -> None:
    """kl under adamw: 0.9 alone of 4; with a second draw at 0.895 it is 2 of 4; under sgd 1 of 4."""
    close = {**TRUTH, ("kl", "adamw"): [0.5, 0.895, 0.9, 0.1]}
    found = robustness(landscape(close, best=BEST)).set_index("level")
    assert found.close["kl"] == pytest.approx((0.5 + 0.25) / 2)
    assert found.draws["kl"] == 8


def test_chosen_draws_at_an_edge_are_flagged() -> None:
    """Only kl under sgd chose the highest of the four rates."""
    assert boundary_flags(TABLE, ["lr"]).to_dict("records") == [
        {"cell": "kl,sgd", "factor": "lr", "edge": "highest", "value": 1.0}
    ]
    assert boundary_flags(TABLE[TABLE.stage == "tune"], ["lr"]).empty


def test_the_range_at_own_draws_and_at_a_shared_draw() -> None:
    """adamw: 0.9 against 0.6 at own draws; at the draw with the best mean (number 2: 0.7) 0.9 against 0.5."""
    adamw = sensitivity(TABLE).set_index("optimizer").loc["adamw"]
    assert (adamw.best, adamw.worst, adamw.source, adamw.left_out) == ("kl", "ce", "tune", 0)
    assert adamw.tuned == pytest.approx(0.3)
    assert adamw.tuned_low == pytest.approx(0.3)
    assert adamw.shared == pytest.approx(0.4)
    assert adamw.gap == pytest.approx(0.1)
    assert math.isnan(adamw.shared_low), "validation of one replicate has no interval"


def test_cells_that_did_not_reach_the_end_at_the_shared_draw_are_left_out() -> None:
    table = TABLE.copy()
    table.loc[(table.cell == "ce,adamw") & (table.draw == 2) & (table.stage == "tune"), "status"] = "stopped"
    adamw = sensitivity(table).set_index("optimizer").loc["adamw"]
    assert math.isnan(adamw.shared), "one arm alone has no range"


def test_confirmed_shared_draws_give_the_shared_range_an_interval() -> None:
    """Both optimizers' shared draw 2 is confirmed too; for kl under adamw and ce under sgd it is also the best."""
    table = TABLE.copy()
    best = (table.stage == "confirm") & (table.draw == 2)
    table.loc[best, "selected"] = "best|shared"
    more = TABLE[(TABLE.stage == "confirm") & ~best].copy()
    more["test_accuracy"] = more.cell.map({"kl,sgd": 0.7, "ce,adamw": 0.5}) + 0.001 * more.replicate
    both = pd.concat([table, more.assign(draw=2, selected="shared")], ignore_index=True)
    both.attrs = TABLE.attrs
    adamw = sensitivity(both).set_index("optimizer").loc["adamw"]
    assert adamw.source == "confirm"
    assert (adamw.shared, adamw.shared_low) == (pytest.approx(0.4), pytest.approx(0.4))
    assert adamw.tuned == pytest.approx(0.3), "shared rows do not enter cell values"


def test_drops_across_optimizers() -> None:
    """kl: 0.9 under adamw, 0.8 under sgd; ce: 0.6 under both."""
    drops = factor_drops(TABLE).set_index("level")
    assert drops["drop"].to_dict() == {"kl": pytest.approx(0.1), "ce": pytest.approx(0)}
    assert (drops.best["kl"], drops.worst["kl"], drops.n["kl"]) == ("adamw", "sgd", 4)


def test_rankings_that_agree_have_a_tau_of_one() -> None:
    stability = rank_stability(TABLE).set_index("between")
    assert stability.tau.to_dict() == {"replicates": 1, "optimizer": 1}
    assert stability.pairs.to_dict() == {"replicates": 6, "optimizer": 1}
    crossed = landscape({**TRUTH, ("kl", "sgd"): [0.1, 0.1, 0.1, 0.2]}, best=BEST)
    assert rank_stability(crossed).set_index("between").tau["optimizer"] == -1


def test_equal_search_ranks_after_as_many_draws_as_the_arm_with_the_fewest_has() -> None:
    """ce has 2 draws per optimizer: 0.6. kl after 2 of 4: (4.6 / 6 + 4.4 / 6) / 2 = 0.75, by the six pairs."""
    few = {**TRUTH, ("ce", "adamw"): [0.4, 0.6], ("ce", "sgd"): [0.3, 0.6]}
    table = landscape(few, best={**BEST, ("ce", "sgd"): 1})
    ranked = equal_search(tuning_curve(table))
    assert ranked.level.tolist() == ["kl", "ce"]
    assert ranked.draws.tolist() == [2, 2]
    assert ranked.expected.tolist() == pytest.approx([0.75, 0.6])


def knobs() -> pd.DataFrame:
    """One arm whose best temperature differs between optimizers; 20 is there under adamw alone."""
    truth = {("1", "adamw"): 0.5, ("4", "adamw"): 0.9, ("20", "adamw"): 0.7, ("1", "sgd"): 0.8, ("4", "sgd"): 0.6}
    table = landscape({cell: [0.1, value] for cell, value in truth.items()}, best=dict.fromkeys(truth, 1))
    table["temperature"] = table.loss.astype(float)
    return table.assign(loss="kl", arms="kl")


def test_tunability_is_what_keeping_a_knob_at_a_value_costs() -> None:
    """Chosen: 4 under adamw (0.9), 1 under sgd (0.8): 0.85. Kept at 1: 0.65; at 4: 0.75; 20 is not there under sgd."""
    found = tunability(knobs())
    assert found[["level", "knob", "value", "n"]].to_numpy().tolist() == [
        ["kl", "temperature", 1.0, 4],
        ["kl", "temperature", 4.0, 4],
    ]
    assert found.lost.tolist() == pytest.approx([0.2, 0.1])
    assert found.low.tolist() == pytest.approx([0.2, 0.1])
    assert tunability(TABLE).empty, "no arm has a knob"


def test_pooling_over_datasets_is_the_interquartile_mean_of_all_runs() -> None:
    """kl: 0.901 to 0.904 and 0.801 to 0.804; without two at either end (0.803 + 0.804 + 0.901 + 0.902) / 4."""
    table = TABLE.rename(columns={"optimizer": "dataset"})
    table.attrs["contexts"] = ["dataset"]
    pooled = pooled_iqm(table).set_index("level")
    assert pooled.iqm["kl"] == pytest.approx(0.8525)
    assert pooled.iqm["ce"] == pytest.approx(0.6025)
    assert pooled.n.tolist() == [8, 8]
    assert pooled.low["kl"] < 0.8525 < pooled.high["kl"]
    assert pooled.low["ce"] >= 0.601
    partly = table[(table.loss != "ce") | (table.dataset == "sgd")]
    partly.attrs = table.attrs
    assert pooled_iqm(partly).level.tolist() == ["kl"], "an arm that lacks a dataset is not ranked with the others"


def test_both_ranges_are_over_the_same_cells() -> None:
    """kl is represented by kl1 (0.9), ce by 0.6: 0.3 at own draws. At the shared draw 0.5 - 0.4 = 0.1, so the gap is -0.2."""
    cells = {("kl1", "adamw"): [0.9, 0.5], ("kl2", "adamw"): [0.2, 0.1], ("ce", "adamw"): [0.6, 0.4]}
    table = landscape(cells, best=dict.fromkeys(cells, 0))
    shared = table[table.stage == "confirm"].assign(draw=1, selected="shared")
    shared["test_accuracy"] = shared.cell.map({f"{a},{o}": v[1] for (a, o), v in cells.items()})
    table = pd.concat([table, shared], ignore_index=True)
    table["arms"] = table.arms.replace({"kl1": "kl", "kl2": "kl"})
    table.attrs["contexts"] = ["optimizer"]
    (row,) = sensitivity(table).to_dict("records")
    assert (row["shared_best"], row["shared_worst"]) == ("kl", "ce")
    assert (row["shared"], row["gap"]) == (pytest.approx(0.1), pytest.approx(-0.2))


def test_two_tune_replicates_are_one_draw() -> None:
    """The second replicate of draw 2 of kl under adamw has 0.5 instead of 0.9: the draw is worth 0.7, as draw 1 is."""
    second = TABLE[TABLE.stage == "tune"].assign(replicate=-1)
    second.loc[(second.cell == "kl,adamw") & (second.draw == 2), "val_accuracy"] = 0.5
    table = pd.concat([TABLE, second], ignore_index=True)
    table.attrs = TABLE.attrs
    curve = tuning_curve(table)
    assert curve.groupby("level").draws.max().to_dict() == {"ce": 4, "kl": 4}
    assert curve[(curve.level == "kl") & (curve.draws == 4)].expected.item() == pytest.approx((0.7 + 0.8) / 2)
    assert robustness(table).set_index("level").draws["kl"] == 8


def test_draws_are_compared_over_the_tune_replicates_that_all_have() -> None:
    """Replicate -1 is 0.2 worse everywhere. One trial of it failed: the draw that lacks it does not become the best for that."""
    second = TABLE[TABLE.stage == "tune"].assign(replicate=-1)
    second["val_accuracy"] -= 0.2
    gone = (second.cell == "kl,adamw") & (second.draw == 1)
    table = pd.concat([TABLE, second[~gone]], ignore_index=True)
    table.attrs = TABLE.attrs
    curve, alone = tuning_curve(table), tuning_curve(TABLE)
    assert curve.expected.tolist() == pytest.approx(alone.expected.tolist())
    assert (curve.n == 1).all()
    whole = pd.concat([TABLE, second], ignore_index=True)
    whole.attrs = TABLE.attrs
    assert (tuning_curve(whole).n == 2).all()
    assert tuning_curve(whole).expected.tolist() == pytest.approx((alone.expected - 0.1).tolist())


def test_ranges_are_over_the_replicates_that_all_arms_have() -> None:
    """Without replicate 4 of kl, best and worst are of replicates 1 to 3: never a negative range."""
    gone = (TABLE.cell == "kl,adamw") & (TABLE.stage == "confirm") & (TABLE.replicate > 1)
    table = TABLE[~gone].copy()
    table.loc[(table.cell == "ce,adamw") & (table.replicate > 1), "test_accuracy"] = 1.0
    adamw = sensitivity(table).set_index("optimizer").loc["adamw"]
    assert (adamw.best, adamw.tuned) == ("kl", pytest.approx(0.3))


def test_a_table_from_disk_knows_its_contexts(tmp_path: Path) -> None:
    """Read with pandas alone, a best cell would be chosen over both optimizers."""
    table = TABLE.assign(cell=TABLE.loss + ",optimizer=" + TABLE.optimizer, temperature=math.nan)
    table.to_csv(tmp_path / "table.csv", index=False)
    table.to_parquet(tmp_path / "table.parquet")
    for name in ("table.csv", "table.parquet"):
        read = read_table(tmp_path / name)
        assert read.attrs["contexts"] == ["optimizer"]
        assert ranking(read).contexts.tolist() == [2, 2]


def test_a_table_without_arms_has_its_losses_as_arms_and_a_missing_column_is_named() -> None:
    table = TABLE.drop(columns="arms")
    table.attrs = TABLE.attrs
    assert ranking(table).level.tolist() == ["kl", "ce"]
    with pytest.raises(ValueError, match="the table has no column 'stage'; it has"):
        ranking(TABLE.drop(columns="stage"))


def test_the_page_says_of_how_many_seeds_its_means_are(tmp_path: Path) -> None:
    """Without one trial of kl under sgd its means are of 3 seeds there and 4 elsewhere; the drop and the rankings are of 3."""
    space = {
        "name": "x",
        "data": {"real": "digits"},
        "teacher": {"model": "convnet2"},
        "scientific": {"loss": ["kl", "ce"], "optimizer": ["adamw", "sgd"]},
        "nuisance": {"lr": {"loguniform": [0.001, 0.1]}, "draws": 4},
        "fixed": {"student": "convnet2"},
    }
    seeds = TABLE[TABLE.stage == "confirm"].replicate.max()
    gone = (TABLE.cell == "kl,sgd") & (TABLE.stage == "confirm") & (TABLE.replicate == seeds)
    table = TABLE[~gone].assign(lr=0.01, epochs=10, stopped_by=None, run_id=None, audited=False)
    table["trial_id"] = [f"t{i}" for i in range(len(table))]
    table.attrs = TABLE.attrs
    page = write_report(Findings(Landscape(Plan("x", load_space(space), "cpu"), table, [], {})), tmp_path).read_text()
    parts = page.split("<section")
    across = next(part for part in parts if "Across optimizer" in part and "drop, points" in part)
    assert f"<td>{seeds - 1} to {seeds}</td>" in across
    assert f"<td>{seeds - 1}</td>" in across
    stable = next(part for part in parts if "Kendall's tau, mean" in html.unescape(part))
    assert ">seeds</th>" in stable
    assert f"<td>{seeds - 1}</td>" in stable
