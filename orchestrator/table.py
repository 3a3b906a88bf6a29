"""The tidy table: one row per planned trial, from the plan and the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from orchestrator.cells import Cell
from orchestrator.conductor import results_of
from orchestrator.plan import Plan
from orchestrator.search import FAILED, TrialResult, TwoStageSearch
from search_spaces.texts import as_cell
from trainables.config import KNOBS

_FIRST = ["trial_id", "cell", "arms", "stage", "replicate", "draw"]
_LAST = ["status", "stopped_by", "audited", "diverged", "selected", "epochs", "val_accuracy", "test_accuracy"]


def tidy_table(
    plan: Plan,
    records: Iterable[Mapping[str, Any]],
    *,
    run_ids: Mapping[str, str] | None = None,
    running: bool = False,
) -> pd.DataFrame:
    """One row per planned trial, in the order of the plan.

    Args:
        plan: Of the sweep.
        records: Of its journal.
        run_ids: MLflow run per trial id.
        running: The sweep is alive, so trials that started and have not ended are running.

    Returns:
        Columns as the report's dictionary.html says; `attrs["contexts"]` holds the factors that no loss owns.
    """
    records = list(records)
    every_result = results_of(records)
    search = TwoStageSearch(plan, every_result, retry_failed=False)
    started = {r["trial_id"] for r in records if r["kind"] == "start"} if running else set()
    confirmed = _confirmed_draws(records)
    rows = [
        _row(plan, cell, place)
        for cell in plan.cells
        for place in _places(plan, search, cell, confirmed.get(cell.label, set()))
    ]
    for row in rows:
        result = every_result.get(row["trial_id"])
        row |= _outcome(result, search.skipped(row.pop("_cell")) and row["stage"] == "confirm")
        if result is None and row["trial_id"] in started:
            row["status"] = "running"
        row["run_id"] = (run_ids or {}).get(row["trial_id"])
    table = pd.DataFrame(rows, columns=columns(plan))
    again = table.trial_id.notna() & table.duplicated(["cell", "trial_id"])
    table = table[~again].reset_index(drop=True)  # two draws with equal values are one trial
    table.attrs["contexts"] = list(plan.space.context_factors)
    return table


def as_csv(frame: pd.DataFrame) -> str:
    """A table as CSV in which no text is a formula to a spreadsheet, whoever named it."""
    texts = [name for name in frame if frame[name].dtype == object or isinstance(frame[name].dtype, pd.StringDtype)]
    return frame.assign(**{str(name): frame[name].map(as_cell) for name in texts}).to_csv(index=False)


def columns(plan: Plan) -> list[str]:
    """Names of the table's columns for a plan."""
    owned = [knob for knob in KNOBS if any(knob in cell.knobs for cell in plan.cells)]
    axes = [axis for axis in plan.space.axes if axis not in owned]
    nuisance = [factor.name for factor in plan.space.nuisance]
    maximum = ["test_accuracy_max"] if plan.space.settings.protocol == "paper" else []
    return [*_FIRST, "loss", *owned, *axes, *nuisance, *_LAST, *maximum, "train_s", "run_id"]


class _Place(NamedTuple):
    """Where in the plan a trial stands; the draw is None while it is not chosen."""

    draw: int | None
    replicate: int
    stage: str
    selected: str


def _confirmed_draws(records: Iterable[Mapping[str, Any]]) -> dict[str, set[int]]:
    """Draws of each cell that confirm trials were ever run for; later draws may have been chosen instead."""
    draws: dict[str, set[int]] = defaultdict(set)
    for record in records:
        if record["kind"] == "result" and record["config"]["stage"] == "confirm":
            draws[record["cell"]].add(record["draw"])
    return draws


def _places(plan: Plan, search: TwoStageSearch, cell: Cell, confirmed: set[int]) -> Iterator[_Place]:
    """Every trial of a cell."""
    if plan.has_tune_stage:
        for draw in range(plan.space.draws):
            for replicate in plan.tune_replicates:
                yield _Place(draw, replicate, "tune", "")
    chosen = search.selection(cell)
    places: list[tuple[int | None, str]] = [*chosen.items()] or [(None, "")]
    for chosen_draw, selected in places:
        for replicate in plan.confirm_replicates:
            yield _Place(chosen_draw, replicate, "confirm", selected)
    for other in sorted(confirmed - set(chosen)):
        for replicate in plan.confirm_replicates:
            if plan.trial(cell, other, replicate, "confirm").trial_id in search.results:
                yield _Place(other, replicate, "confirm", "")


def _row(plan: Plan, cell: Cell, place: _Place) -> dict[str, Any]:
    """What is known of a trial before it runs."""
    row: dict[str, Any] = {"_cell": cell, "trial_id": None, "cell": cell.label, "arms": "|".join(cell.arms)}
    row |= {**place._asdict(), **cell.factors}
    if place.draw is not None:
        row["trial_id"] = plan.trial(cell, place.draw, place.replicate, place.stage).trial_id
        row |= plan.draw_values(cell, place.draw)
    return row


def _outcome(result: TrialResult | None, skipped: bool) -> dict[str, Any]:
    """What is known of a trial after it ran."""
    if result is None:
        return {"status": "skipped" if skipped else "pending", "audited": False, "diverged": False}
    last = result.curve[-1] if result.curve and result.status != FAILED else {}
    tests = [point["test_accuracy"] for point in result.curve if point["test_accuracy"] is not None]
    return {
        "status": result.status,
        "stopped_by": result.stopped_by,
        "audited": result.audited,
        "diverged": result.diverged,
        "epochs": result.epochs,
        "val_accuracy": last.get("val_accuracy"),
        "test_accuracy": last.get("test_accuracy"),
        "test_accuracy_max": max(tests, default=None),
        "train_s": last.get("train_s"),
    }
