from __future__ import annotations

import json
import re
from typing import Any

import pytest

from orchestrator.cells import cell_label, enumerate_cells
from orchestrator.describe import describe_plan
from orchestrator.home import Home
from orchestrator.plan import Plan, difference, rungs, sobol_points
from orchestrator.recipes import recipe, recipe_key
from orchestrator.run_fields import settings_of, tracked_cell
from orchestrator.sweep import Sweep
from search_spaces import ConfigError, load_space
from search_spaces.trials import check_trial


def plan_of(space: Any, *overrides: str) -> Plan:
    checked = load_space(space, overrides)
    return Plan(checked.settings.name, checked, "cpu")


def test_digits_has_38_cells_and_532_trials() -> None:
    plan = plan_of("digits")
    assert len(plan.cells) == 38
    assert plan.trial_counts == {"tune": 152, "confirm": 380}
    assert len({config.trial_id for _, _, config in plan.tune_trials()}) == 152


def test_every_grid_point_is_a_cell_or_has_a_reason() -> None:
    cells = enumerate_cells(load_space("digits"))
    assert cells.grid_points == 8 * 3 * 2 * 2
    assert sum(cells.merged.values()) == cells.grid_points - len(cells.cells)
    assert cells.merged["soft_ce and kl differ by a constant, so their gradients are equal"] == 12


def test_equivalent_cells_are_one_cell_with_all_its_arms() -> None:
    arms = {cell.label: cell.arms for cell in plan_of("digits").cells}
    assert arms["kl,temperature=1,refinement=0,optimizer=adamw"] == ("kl", "soft_ce")
    assert arms["cosine,refinement=0.0909090909091,smoothing=0.1,optimizer=sgd"] == ("cosine", "gift")


def test_an_arm_with_its_own_knobs_is_a_cell_of_its_own(tiny: dict[str, Any]) -> None:
    tiny["scientific"]["loss"] = ["kl", {"kl_t20": {"loss": "kl", "temperature": 20, "scale_t2": True}}]
    labels = {cell.label: cell.arms for cell in plan_of(tiny).cells}
    assert labels["kl,temperature=20,refinement=0,scale_t2=true"] == ("kl_t20",)
    assert len(labels) == 3


def test_momentum_is_no_factor_of_adamw(tiny: dict[str, Any]) -> None:
    tiny["scientific"] = {"loss": ["ce"], "optimizer": ["adamw", "sgd"], "momentum": [0.0, 0.9]}
    assert len(plan_of(tiny).cells) == 3


def test_a_dotted_axis_makes_data_of_its_own(tiny: dict[str, Any]) -> None:
    del tiny["data"]["distilled"]["ipc"]
    tiny["scientific"]["data.distilled.ipc"] = [1, 4]
    plan = plan_of(tiny)
    assert len(plan.recipes) == 2
    assert len(plan.cells) == 8
    assert {plan.trial(c, 0, 0, "tune").data for c in plan.cells} == set(plan.recipes)


def test_labels_compare_floats_at_12_digits() -> None:
    assert cell_label({"loss": "kl", "refinement": 1 / 11}) == cell_label(
        {"loss": "kl", "refinement": 0.090909090909090}
    )


def test_draws_are_nested_and_the_same_for_every_cell() -> None:
    assert sobol_points(8, 2, 0)[:4] == sobol_points(4, 2, 0)
    assert sobol_points(4, 2, 0) != sobol_points(4, 2, 1)
    plan = plan_of("digits")
    by_optimizer = {c.context["optimizer"]: [plan.draw_values(c, d)["lr"] for d in range(4)] for c in plan.cells}
    assert [10 * float(lr) for lr in by_optimizer["adamw"]] == pytest.approx([float(lr) for lr in by_optimizer["sgd"]])


def test_one_draw_in_every_quarter_of_the_range() -> None:
    positions = sorted(point[0] for point in sobol_points(4, 1, 0))
    assert [int(4 * p) for p in positions] == [0, 1, 2, 3]


def test_trial_id_depends_on_what_the_metrics_depend_on_and_on_nothing_else(tiny: dict[str, Any]) -> None:
    def ids(*overrides: str) -> list[str]:
        return [config.trial_id for _, _, config in plan_of(tiny, *overrides).tune_trials()]

    assert ids() == ids("name=other", "replicates=7", "early_stopping={}", "resources.gpus=0.5")
    for changed in ("fixed.width=5", "fixed.views=9", "teacher.width=9", "fixed.batch_size=9", "resources.cpus=2"):
        assert ids() != ids(changed), changed


def recipe_of(space: Any, *overrides: str) -> dict[str, Any]:
    (recipe,) = plan_of(space, *overrides).recipes.values()
    return recipe["augment"]


def test_views_have_batches_where_something_is_drawn_for_them(tiny: dict[str, Any]) -> None:
    """As published by default; not for one operation alone, nor where the size of a batch is tuned."""
    assert recipe_of(tiny)["batch_size"] == 20
    assert "batch_size" not in recipe_of(tiny, "fixed.augment_draw=image")
    assert "batch_size" not in recipe_of(tiny, "fixed.augment=flip")
    assert recipe_of(tiny, "fixed.augment=none", "fixed.mix=cutmix")["batch_size"] == 20
    tiny["nuisance"]["batch_size"] = [10, 20]
    del tiny["fixed"]["batch_size"]
    assert "batch_size" not in recipe_of(tiny)
    plan = plan_of(tiny)
    config = plan.trial(plan.cells[0], 0, 1, "confirm")
    assert recipe_key(recipe(tracked_cell(settings_of(plan.cells[0]), config), 1)) == config.data, (
        "what a run remembers"
    )
    with pytest.raises(ConfigError, match="batch_size is tuned"):
        plan_of(tiny, "fixed.augment_draw=batch")


def test_the_fill_is_part_of_the_recipe_where_something_is_blank(tiny: dict[str, Any]) -> None:
    assert "fill" not in recipe_of(tiny)
    assert recipe_of(tiny, "fixed.augment_fill=black")["fill"] == "black"
    assert recipe_of(tiny, "fixed.augment=flip", "fixed.augment_fill=black") == recipe_of(tiny, "fixed.augment=flip")


def test_views_of_each_replicate_are_data_of_its_own_shared_by_all_cells(tiny: dict[str, Any]) -> None:
    """Two confirm replicates and one of tune; a larger plan keeps the first ones' keys."""
    plan, larger = (plan_of(tiny, "fixed.view_draw=replicate", f"replicates={r}") for r in (2, 5))
    assert len(plan.recipes) == 3
    assert set(plan.recipes) < set(larger.recipes)
    for replicate in (0, 1, 2):
        keys = {plan.trial(cell, 0, replicate, "confirm").data for cell in plan.cells}
        assert len(keys) == 1
        assert plan.recipes[keys.pop()]["replicate"] == replicate
    assert not difference(plan.signature(), larger.signature())
    assert all(recipe_key(recipe) == key for key, recipe in larger.recipes.items()), "as `rerun` computes them"
    assert len(plan_of(tiny).recipes) == 1
    assert len(plan_of(tiny, "fixed.view_draw=replicate", "fixed.augment=none").recipes) == 1


def test_strengths_and_unmixed_labels_are_part_of_the_recipe_where_they_act(tiny: dict[str, Any]) -> None:
    assert recipe_of(tiny, "fixed.dsa_rotate=15") == recipe_of(tiny)
    assert recipe_of(tiny, "fixed.dsa_rotate=30")["strengths"] == {"rotate": 30}
    assert recipe_of(tiny, "fixed.augment=rrc", "fixed.dsa_rotate=30") == recipe_of(tiny, "fixed.augment=rrc")
    assert recipe_of(tiny, "fixed.mix_labels=own") == recipe_of(tiny)
    assert recipe_of(tiny, "fixed.mix=mixup", "fixed.mix_labels=own")["own_labels"]
    assert "batch_size" not in recipe_of(tiny, "fixed.augment=crop+flip"), "nothing to choose from"


def test_the_students_own_normalisation_is_part_of_the_recipe(tiny: dict[str, Any]) -> None:
    """Both constants or none."""
    (recipe,) = plan_of(tiny, "data.mean=[0.5]", "data.std=[0.25]").recipes.values()
    assert (recipe["data"]["mean"], recipe["data"]["std"]) == ([0.5], [0.25])
    with pytest.raises(ConfigError, match="mean and std belong together"):
        plan_of(tiny, "data.mean=[0.5]")


def test_without_nuisance_there_is_no_tune_stage(tiny: dict[str, Any]) -> None:
    del tiny["nuisance"]
    plan = plan_of(tiny, "protocol=paper")
    assert plan.trial_counts == {"tune": 0, "confirm": 8}
    assert plan.trial(plan.cells[0], 0, 1, "confirm").test_every_evaluation


def test_rungs() -> None:
    assert rungs(25, 3, 100) == [25, 75]
    assert rungs(100, 3, 100) == []
    assert rungs(5, 1.1, 10) == [5, 6, 7, 8, 9]
    assert len(rungs(1, 1.0000001, 100)) == 99


def test_automatic_precision_follows_the_device(tiny: dict[str, Any]) -> None:
    space = load_space(tiny)
    for device, precision in (("cpu", "fp32"), ("cuda", "bf16")):
        plan = Plan("tiny", space, device)
        config = plan.trial(plan.cells[0], 0, 0, "tune")
        assert (config.device, config.precision) == (device, precision)


def test_a_larger_plan_continues_and_another_is_refused_with_the_difference(tiny: dict[str, Any]) -> None:
    old = plan_of(tiny).signature()
    for larger in ("replicates=3", "nuisance.draws=8", "scientific.loss=[ce,kl,gift,mse]", "confirm=[best,shared]"):
        assert difference(old, plan_of(tiny, larger).signature()) == [], larger
    for other, message in {
        "replicates=1": "replicates: 2 -> 1",
        "nuisance.draws=2": "draws: 4 -> 2",
        "scientific.loss=[ce]": "3 cells of the sweep are missing",
        "fixed.width=5": "4 cells of the sweep are missing or have other fixed settings",
        "nuisance.lr.loguniform=[0.001,0.1]": "4 cells",
        "early_stopping={}": "early_stopping: None ->",
    }.items():
        (problem,) = difference(old, plan_of(tiny, other).signature())
        assert message in problem


def test_description_says_what_is_merged_and_what_is_detectable(tiny: dict[str, Any], tmp_path: Any) -> None:
    sweep = Sweep(plan_of(tiny, "early_stopping.grace_period_epochs=2"), Home.at(tmp_path))
    text = "\n".join(describe_plan(sweep, probe=False, say=print))
    assert "4 cells, 24 trials" in text
    assert "ce has no temperature" in text
    assert "With 2 seeds no difference can become significant" in text
    assert "use at least 7: --set replicates=7" in text
    assert "at epochs 2 and 6 the worst draws of a cell are stopped, once 3 have got there" in text
    assert "Time: unknown" in text
    assert not list(tmp_path.iterdir()), "a plan leaves nothing behind"


RATES = [0.001, 0.005, 0.01, 0.05, 0.1]


@pytest.mark.parametrize(
    ("nuisance", "combinations"),
    [
        ({"lr": RATES, "draws": 5}, 5),
        ({"lr": [0.1, 0.2, 0.3, 0.4], "draws": 4}, 4),
        ({"lr": RATES[:3], "weight_decay": [0.0, 0.1], "draws": 6}, 6),
        ({"lr": RATES[:4], "weight_decay": [0.0, 0.1], "draws": 8}, 8),
        ({"lr": RATES[:2], "weight_decay": [0.0, 0.1, 0.2, 0.3], "batch_size": [20, 40], "draws": 16}, 16),
    ],
)
def test_as_many_draws_as_given_values_take_each_once(
    nuisance: dict[str, Any], combinations: int, tiny: dict[str, Any]
) -> None:
    tiny["fixed"] = {key: value for key, value in tiny["fixed"].items() if key not in nuisance}
    plan = plan_of(tiny | {"nuisance": nuisance})
    tried = {tuple(plan.draw_values(plan.cells[0], draw).values()) for draw in range(plan.space.draws)}
    assert len(tried) == plan.space.draws == combinations
    assert {values[0] for values in tried} == set(nuisance["lr"])


def test_a_plan_says_which_given_values_are_tried_and_which_never(tiny: dict[str, Any], tmp_path: Any) -> None:
    def said(draws: int) -> str:
        checked = load_space(tiny | {"nuisance": {"lr": RATES, "draws": draws}})
        sweep = Sweep(Plan("tiny", checked, "cpu"), Home.at(tmp_path))
        return "\n".join(describe_plan(sweep, probe=False, say=lambda text: None))

    assert "the same 5 for every cell (each of the given values once)" in said(5)
    assert "lr: 0.001, 0.005, 0.01, 0.05, 0.1\n" in said(5)
    assert "a scrambled Sobol sequence" in said(4)
    assert re.search(r"lr: .*; never [0-9., ]+, see nuisance.draws", said(4))


def test_settings_of_optimizer_and_schedule_reach_their_trials_and_no_others(tiny: dict[str, Any]) -> None:
    given = {"betas": [0.9, 0.95], "schedule_milestones": [0.5, 0.75], "schedule_gamma": 0.3}
    del tiny["nuisance"]
    tiny["scientific"] = {
        "loss": ["ce"],
        "optimizer": ["adamw", "sgd"],
        "schedule": ["multistep", "step_half", "cosine"],
    }
    before = [plan_of(tiny).trial(cell, 0, 1, "confirm") for cell in plan_of(tiny).cells]
    tiny["fixed"] |= given
    plan = plan_of(tiny)
    assert len(plan.cells) == 6
    for cell, old in zip(plan.cells, before, strict=True):
        config = plan.trial(cell, 0, 1, "confirm")
        has = {key: getattr(config, key) is not None for key in given}
        steps = config.schedule in ("multistep", "step_half")
        assert has == {
            "betas": config.optimizer == "adamw",
            "schedule_gamma": steps,
            "schedule_milestones": config.schedule == "multistep",
        }
        assert (config.trial_id == old.trial_id) == (not any(has.values()))
        assert check_trial(json.loads(json.dumps(config.as_dict())), "config").trial_id == config.trial_id


def test_a_step_factor_is_no_factor_of_a_schedule_without_steps(tiny: dict[str, Any]) -> None:
    tiny["scientific"] = {"loss": ["ce"], "schedule": ["multistep", "cosine"], "schedule_gamma": [0.1, 0.2]}
    assert len(plan_of(tiny).cells) == 3
