from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.plan import Plan
from orchestrator.search import Assignment, TrialResult, TwoStageSearch
from search_spaces import load_space

Outcome = Callable[[Assignment], TrialResult]


def result(
    assignment: Assignment, values: list[float], *, diverged: bool = False, status: str = "finished"
) -> TrialResult:
    """A curve with one evaluation every two epochs."""
    curve = [
        {
            "epoch": 2 * (n + 1),
            "train_loss": 1.0,
            "val_accuracy": v,
            "test_accuracy": None,
            "train_s": 1.0,
            "diverged": False,
        }
        for n, v in enumerate(values)
    ]
    curve[-1]["diverged"] = diverged
    return TrialResult(assignment.trial_id, status, curve=curve)


def run(search: TwoStageSearch, outcome: Outcome, parallel: int = 1) -> list[Assignment]:
    """Run until nothing is left, `parallel` trials at a time, first in first out; the order of starts."""
    started: list[Assignment] = []
    running: list[Assignment] = []
    while not search.finished:
        while len(running) < parallel and (assignment := search.next_trial()):
            running.append(assignment)
            started.append(assignment)
        search.complete(outcome(running.pop(0)))
    return started


@pytest.fixture
def plan(tiny: dict[str, Any]) -> Plan:
    return Plan("tiny", load_space(tiny), "cpu")


def last(*values: float) -> Outcome:
    """Draw d ends with values[d] after 8 epochs."""
    return lambda a: result(a, [0.1, 0.2, 0.3, values[a.draw]])


@pytest.mark.parametrize("parallel", [1, 2, 7])
def test_every_planned_trial_runs_once_and_confirm_takes_the_best_draw(plan: Plan, parallel: int) -> None:
    started = run(TwoStageSearch(plan), last(0.5, 0.9, 0.8, 0.1), parallel)
    assert len({a.trial_id for a in started}) == len(started) == 24
    confirms = [a for a in started if a.config.stage == "confirm"]
    assert {a.draw for a in confirms} == {1}
    assert {a.config.replicate for a in confirms} == {1, 2}
    assert all(a.config.lr == plan.draw_values(a.cell, 1)["lr"] for a in confirms)


def test_a_cell_is_confirmed_before_the_next_is_tuned(plan: Plan) -> None:
    started = run(TwoStageSearch(plan), last(0.5, 0.9, 0.8, 0.1))
    assert [a.config.stage for a in started[:6]] == ["tune"] * 4 + ["confirm"] * 2
    assert len({a.cell.label for a in started[:6]}) == 1


def test_ties_go_to_the_higher_late_mean_then_to_the_lower_index(plan: Plan) -> None:
    cell = plan.cells[0]
    late = TwoStageSearch(plan)
    run(late, lambda a: result(a, [0.1, 0.5 if a.draw == 2 else 0.4, 0.4, 0.7]))
    assert late.selection(cell) == {2: "best"}
    index = TwoStageSearch(plan)
    run(index, last(0.7, 0.7, 0.7, 0.7))
    assert index.selection(cell) == {0: "best"}


def test_a_stopped_draw_loses_against_any_that_reached_full_budget(plan: Plan) -> None:
    search = TwoStageSearch(plan)
    run(search, lambda a: result(a, [0.99], status="stopped") if a.draw == 0 else result(a, [0.1] * 4))
    assert search.selection(plan.cells[0]) == {1: "best"}
    assert not search.furthest_only(plan.cells[0])


def test_without_a_full_budget_draw_the_furthest_is_confirmed_and_flagged(plan: Plan) -> None:
    curves = {0: [0.9], 1: [0.2, 0.3], 2: [0.2, 0.4], 3: [0.8]}

    def outcome(a: Assignment) -> TrialResult:
        stopped = a.config.stage == "tune"
        return result(a, curves[a.draw] if stopped else [0.5] * 4, status="stopped" if stopped else "finished")

    search = TwoStageSearch(plan)
    run(search, outcome)
    assert search.selection(plan.cells[0]) == {2: "best"}
    assert search.furthest_only(plan.cells[0])


def test_a_diverged_draw_is_never_chosen_and_a_cell_of_them_is_skipped(plan: Plan) -> None:
    bad = plan.cells[0].label
    search = TwoStageSearch(plan)
    started = run(search, lambda a: result(a, [0.9] * 4, diverged=a.cell.label == bad or a.draw == 0))
    assert search.skipped(plan.cells[0])
    assert search.selection(plan.cells[0]) == {}
    assert not any(a.cell.label == bad for a in started if a.config.stage == "confirm")
    assert search.selection(plan.cells[1]) == {1: "best"}


def test_failed_trials_are_not_chosen_and_are_tried_again_next_time(plan: Plan) -> None:
    search = TwoStageSearch(plan)
    run(search, lambda a: TrialResult(a.trial_id, "failed") if a.draw == 1 else last(0.5, 0.9, 0.8, 0.1)(a))
    assert search.selection(plan.cells[0]) == {2: "best"}
    again = run(TwoStageSearch(plan, search.results), last(0.5, 0.9, 0.8, 0.1))
    assert {a.draw for a in again} == {1}
    assert len([a for a in again if a.config.stage == "tune"]) == 4


def test_a_reader_of_the_outcome_keeps_failed_trials_and_so_the_choice(plan: Plan) -> None:
    search = TwoStageSearch(plan)
    run(search, lambda a: TrialResult(a.trial_id, "failed") if a.draw == 1 else last(0.5, 0.9, 0.8, 0.1)(a))
    reader = TwoStageSearch(plan, search.results, retry_failed=False)
    assert reader.selection(plan.cells[0]) == {2: "best"}
    assert reader.finished


@pytest.mark.parametrize("done", range(0, 25, 4))
def test_a_rebuilt_search_runs_only_what_is_missing(plan: Plan, done: int) -> None:
    whole = TwoStageSearch(plan)
    order = run(whole, last(0.5, 0.9, 0.8, 0.1))
    known = {a.trial_id: whole.results[a.trial_id] for a in order[:done]}
    rest = run(TwoStageSearch(plan, known), last(0.5, 0.9, 0.8, 0.1))
    assert [a.trial_id for a in rest] == [a.trial_id for a in order[done:]]


def test_more_draws_may_choose_another_and_unselect_the_older(plan: Plan, tiny: dict[str, Any]) -> None:
    values = (0.5, 0.9, 0.8, 0.1, 0.2, 0.95, 0.3, 0.4)
    first = TwoStageSearch(plan)
    run(first, last(*values))
    larger = TwoStageSearch(Plan("tiny", load_space(tiny, ["nuisance.draws=8"]), "cpu"), first.results)
    again = run(larger, last(*values))
    assert larger.selection(plan.cells[0]) == {5: "best"}
    assert {a.draw for a in again} == {4, 5, 6, 7}


def test_the_shared_draw_has_the_best_mean_and_waits_for_all_of_its_optimizer(tiny: dict[str, Any]) -> None:
    """Draw 0 wins cell 0, draw 1 the others; means over 4 cells: draw 0 0.55, draw 1 0.7."""
    plan = Plan("tiny", load_space(tiny, ["confirm=[best,shared]"]), "cpu")
    first = plan.cells[0].label

    def outcome(a: Assignment) -> TrialResult:
        values = (1.0, 0.4, 0.2, 0.2) if a.cell.label == first else (0.4, 0.8, 0.2, 0.2)
        return last(*values)(a)

    search = TwoStageSearch(plan)
    started = run(search, outcome)
    assert search.selection(plan.cells[0]) == {0: "best", 1: "shared"}
    assert search.selection(plan.cells[1]) == {1: "best|shared"}
    assert len(started) == 16 + 8 + 2
    assert len({a.trial_id for a in started}) == len(started)


def test_without_a_tune_stage_the_only_draw_is_confirmed(tiny: dict[str, Any]) -> None:
    del tiny["nuisance"]
    started = run(TwoStageSearch(Plan("tiny", load_space(tiny), "cpu")), lambda a: result(a, [0.5] * 4))
    assert len(started) == 8
    assert {a.config.stage for a in started} == {"confirm"}


def test_tune_replicates_rank_by_replicates_at_full_budget_first(tiny: dict[str, Any]) -> None:
    plan = Plan("tiny", load_space(tiny, ["tune_replicates=2"]), "cpu")

    def outcome(a: Assignment) -> TrialResult:
        if a.draw == 0 and a.config.replicate == -1 and a.config.stage == "tune":
            return result(a, [0.99], status="stopped")
        return last(0.99, 0.5, 0.4, 0.3)(a)

    search = TwoStageSearch(plan)
    run(search, outcome)
    assert plan.trial_counts["tune"] == 32
    assert search.selection(plan.cells[0]) == {1: "best"}
