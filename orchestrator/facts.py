"""What `plan`, `status` and `compare` know, as JSON; the sentences of `orchestrator.describe` are made from it.

Keys are part of the command line's contract: they are added to, never renamed.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from orchestrator.cells import Cell
from orchestrator.engines import choose_engine
from orchestrator.judgement import UNTESTED, describe_data, doubts_about, mistakes_in, remarks_on
from orchestrator.landscape.power import assumed_sigma, minimum_detectable_effect, replicates_needed, smallest_p
from orchestrator.landscape.values import levels_of
from orchestrator.plan import Plan, why_nothing_stops
from orchestrator.prepare import Say, cached_costs, known_data, prepare_data, probe_costs, sweep_cost_s
from orchestrator.readable import require_readable
from orchestrator.remarks import data_facts
from orchestrator.students import require_buildable
from orchestrator.sweep import Sweep
from orchestrator.table import tidy_table
from search_spaces.files import real_content, sampled, test_images
from search_spaces.space import flatten
from trainables.config import KNOBS
from trainables.findings import Findings

ASSUMED_ERRORS: Final = (0.05, 0.2, 0.5)
ALPHA: Final = 0.05


def plan_facts(sweep: Sweep, *, probe: bool, say: Say) -> dict[str, Any]:
    """What a space asks for; nothing is trained unless `probe` (then one short trial per class of cost)."""
    plan = sweep.plan
    require_buildable(plan, sweep.home.cache, say)
    datasets = data_facts(plan)
    require_readable(plan, sweep.home.cache, say)
    cost = _cost(sweep, probe=probe, say=say)  # a probe prepares the data
    return {
        "name": plan.name,
        "trials": plan.trial_counts,
        "replicates": plan.space.settings.replicates,
        "tune_replicates": len(plan.tune_replicates),
        "draws_per_cell": plan.space.draws,
        "draws_are": "each value once" if plan.space.takes_each_once else "scrambled Sobol",
        "grid_points": plan.enumeration.grid_points,
        "merged": dict(plan.enumeration.merged),
        "repeated": plan.repeated,
        "cells": [{"cell": cell.label, "arms": list(cell.arms), **cell.factors} for cell in plan.cells],
        "data": _data(plan),
        "datasets": datasets,
        "prepared": prepared_facts(plan, sweep.home.cache),
        "draws": _draws(plan),
        "learned_rates": plan.rates,
        "early_stopping": _stopping(plan),
        "detectable": _detectable(plan),
        "cost": cost,
    }


def _data(plan: Plan) -> list[dict[str, Any]]:
    """Data that are not, or not yet, identified by all bytes in their files."""
    found: list[dict[str, Any]] = []
    for one in {str(cell.settings.data.model_dump()): cell.settings.data for cell in plan.cells}.values():
        if real_content(one) is None:
            found.append({"key": "data.real", "of": one.real, "identified_by": "nothing yet"})
        for key, content in sampled(one).items():
            size = {"files": content.files, "bytes": content.size_bytes}
            found.append({"key": key, "of": one.real, "identified_by": "sample", **size})
    return found


def prepared_facts(plan: Plan, cache: Path) -> list[dict[str, Any]]:
    """What was found out when data were prepared; of data that are not prepared yet, what is stated of their distilled set."""
    known = known_data(plan, cache)
    found = []
    for key, recipe in plan.recipes.items():
        if (about := known.get(key)) is None:
            distilled, has_teacher = recipe["data"]["distilled"], bool(recipe["teacher"])
            facts = {"has_teacher": has_teacher, "stated": distilled.get("stated", {})}
            remarks = [UNTESTED] if "path" in distilled and not has_teacher else []
            found.append({"data": key, "is_prepared": False, **facts, "remarks": remarks})
            continue
        accuracies = {name: value for name, value in about.items() if name.startswith("teacher_")}
        said = {"facts": [*describe_data(about)], "problems": [*mistakes_in(about), *doubts_about(about)]}
        said |= {"remarks": remarks_on(about)}
        findings = Findings.of(about).as_dict()
        found.append({"data": key, "is_prepared": True, **accuracies, **findings, **said})
    return found


def _draws(plan: Plan) -> list[dict[str, Any]]:
    """Values that every cell is tried with, by tuned factor and the level that its range depends on."""
    found = []
    for factor in plan.space.nuisance:
        for level, domain in factor.domains.items():
            cell = next((c for c in plan.cells if factor.domain(_factors(c)) is domain), None)
            if cell:
                values = [plan.draw_values(cell, draw)[factor.name] for draw in range(plan.space.draws)]
                n = len(domain.arguments) if domain.kind == "choice" else 0
                left_out = {domain.at((place + 0.5) / n) for place in range(n)} - set(values)
                one = {"factor": factor.name, "by": factor.by, "level": level, "values": values}
                found.append(one | {"left_out": sorted(map(float, left_out))})
    return found


def _factors(cell: Cell) -> dict[str, object]:
    return {**cell.factors, **cell.settings.fixed.model_dump(exclude=set(KNOBS))}


def _stopping(plan: Plan) -> dict[str, Any] | None:
    """The rule, the epochs at which it looks, and why it stops nothing, if it cannot."""
    rule = plan.space.settings.early_stopping
    if rule is None:
        return None
    looks = sorted({rung for cell in plan.cells for rung in plan.rung_epochs(cell)})
    return {**rule.model_dump(), "looks_at_epochs": looks, "stops_nothing_because": why_nothing_stops(plan)}


def _detectable(plan: Plan) -> dict[str, Any]:
    """How small a difference the plan can find; docs/method.md 4 and 5."""
    replicates = plan.space.settings.replicates
    levels = len(levels_of(tidy_table(plan, [])))
    settings = len({tuple(cell.context.values()) for cell in plan.cells})
    pairs = levels * (levels - 1) // 2 if levels > 1 else settings - 1
    n_test = test_images(plan.space.settings.data, plan.space.settings.validation)
    facts: dict[str, Any] = {"levels": levels, "settings": settings, "pairs": pairs, "test_images": n_test}
    if pairs == 0:
        return facts | {"smallest_p": None, "replicates_needed": None, "differences": []}
    needed = replicates_needed(pairs, ALPHA)
    facts |= {"smallest_p": min(1.0, smallest_p(replicates) * pairs), "replicates_needed": needed}
    return facts | {"differences": [_difference(error, n_test, replicates, pairs) for error in ASSUMED_ERRORS]}


def _difference(error: float, n_test: int, replicates: int, pairs: int) -> dict[str, float]:
    sigma = assumed_sigma(error, n_test)
    one, adjusted = (
        minimum_detectable_effect(sigma=sigma, replicates=replicates, alpha=alpha) for alpha in (ALPHA, ALPHA / pairs)
    )
    return {"error": error, "one_pair": one, "all_pairs": adjusted}


def _cost(sweep: Sweep, *, probe: bool, say: Say) -> dict[str, Any]:
    """Seconds and memory, where they were measured; `total_s` is with one trial at a time, without early stopping."""
    plan, cache = sweep.plan, sweep.home.cache
    if probe:
        sweep.home.require_writable()
        about = prepare_data(plan, cache, say)
        plan = replace(plan, resolved=choose_engine(plan, about, cache, say))
        costs = probe_costs(plan, cache, say)
    else:
        costs = cached_costs(plan, cache)
    total = sweep_cost_s(plan, costs)
    if total is None:
        return {"trial_s": None, "peak_host_bytes": None, "total_s": None, "trials_at_once": None}
    at_once = max(1, len(os.sched_getaffinity(0)) // plan.cpus) if plan.device == "cpu" else None
    return {
        "trial_s": max(cost["trial_s"] for cost in costs.values()),
        "peak_host_bytes": max(cost["peak_host_bytes"] for cost in costs.values()),
        "total_s": total,
        "trials_at_once": at_once,
    }


def status_facts(sweep: Sweep) -> dict[str, Any]:
    """What a sweep is doing: trials by stage and status, and whether MLflow lacks some."""
    table, running = sweep.landscape().table, sweep.folder.is_running
    stages = {str(stage): rows.status.value_counts().to_dict() for stage, rows in table.groupby("stage", sort=False)}
    behind = not running and not sweep.facts.get("tracked") and sweep.facts.get("tracking_uri") != "off"
    return {"name": sweep.plan.name, "running": running, "trials": stages, "tracker_is_behind": behind}


def comparison_facts(a: Sweep, b: Sweep, compared: pd.DataFrame) -> dict[str, Any]:
    """Two sweeps: the settings in which they differ, and the rows of `compare_tables`."""
    rows = [{str(key): _plain(value) for key, value in row.items()} for row in compared.to_dict("records")]
    return {"a": a.plan.name, "b": b.plan.name, "settings": differing_settings(a.plan, b.plan), "cells": rows}


def differing_settings(a: Plan, b: Plan) -> list[dict[str, Any]]:
    """Settings in which two plans differ, by dotted key; None where one has no such key.

    What `auto` was resolved to counts too, and so does the content of files under equal paths.
    """
    mine, other = _all_settings(a), _all_settings(b)
    keys = [key for key in dict.fromkeys([*mine, *other]) if mine.get(key) != other.get(key)]
    found = [{"key": key, "a": mine.get(key), "b": other.get(key)} for key in keys]
    shared = {cell.label for cell in a.cells} & {cell.label for cell in b.cells}
    data = {tuple(plan.data_keys[label] for label in sorted(shared)) for plan in (a, b)}
    if (
        not any(key.startswith(("data", "teacher", "fixed", "projector", "validation")) for key in keys)
        and len(data) > 1
    ):
        found.append({"key": "content of the files under data, teacher or projector", "a": "one", "b": "another"})
    return found


def _all_settings(plan: Plan) -> dict[str, Any]:
    settings = plan.space.settings.model_dump(by_alias=True, exclude={"name"})
    if plan.space.datasets:
        settings |= {"data": plan.space.datasets}
    resolved = {f"resolved.{key}": value for key, value in (plan.resolved or {}).items()}
    return flatten(settings) | resolved


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
