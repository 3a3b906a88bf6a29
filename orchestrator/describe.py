"""A plan and the end of a sweep, in sentences for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from orchestrator.cells import Cell
from orchestrator.engines import choose_engine
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.power import assumed_sigma, minimum_detectable_effect, replicates_needed, smallest_p
from orchestrator.landscape.stopping import summarise_stopping
from orchestrator.landscape.values import levels_of, ranking
from orchestrator.plan import Plan
from orchestrator.prepare import Say, cached_costs, prepare_data, probe_costs, sweep_cost_s
from orchestrator.progress import format_duration
from orchestrator.sweep import Sweep
from orchestrator.table import tidy_table
from search_spaces import ConfigError, load_space
from search_spaces.files import image_tree
from search_spaces.settings import EarlyStopping
from trainables.config import KNOBS
from trainables.names import REAL_DATASETS

ASSUMED_ERRORS = (0.05, 0.2, 0.5)


def describe_plan(sweep: Sweep, *, probe: bool, say: Say) -> Iterator[str]:
    """What a space asks for; nothing is trained unless `probe` (then one short trial per class of cost)."""
    plan = sweep.plan
    enumeration, counts = plan.enumeration, plan.trial_counts
    yield f"{plan.name}: {len(plan.cells)} cells, {sum(counts.values())} trials"
    yield from _describe_stages(plan)
    yield f"\nA grid over all axes has {enumeration.grid_points} points; {sum(enumeration.merged.values())} repeat another:"
    yield from (f"  {count:4} {reason}" for reason, count in enumeration.merged.items())
    if plan.repeated:
        yield "\nThe same training as another cell, so trained once for both:"
        yield from (f"  {label} as {earlier}" for label, earlier in plan.repeated.items())
    yield "\nCells:"
    yield from (f"  {cell.label}  [{', '.join(cell.arms)}]" for cell in plan.cells)
    yield from _describe_draws(plan)
    yield from _describe_stopping(plan)
    yield from _describe_power(plan)
    yield from _describe_cost(sweep, probe=probe, say=say)


def _describe_stages(plan: Plan) -> Iterator[str]:
    counts, replicates = plan.trial_counts, plan.space.settings.replicates
    which = "the only draw"
    if plan.has_tune_stage:
        on = "replicate 0" if len(plan.tune_replicates) == 1 else f"replicates {plan.tune_replicates[-1]} to 0"
        yield f"  tune     {counts['tune']:5} trials: {plan.space.draws} draws per cell on {on} to find its best"
        which = "the best draw"
    yield f"  confirm  {counts['confirm']:5} trials: {which} of each cell on replicates 1 to {replicates}"
    if "shared" in plan.space.settings.confirm:
        yield f"  shared   up to {counts['confirm']} more: the best shared draw per optimizer, where it is another one"


def _describe_draws(plan: Plan) -> Iterator[str]:
    if plan.space.nuisance:
        yield "\nDraws (scrambled Sobol, the same points of the unit cube for every cell):"
    for factor in plan.space.nuisance:
        for level, domain in factor.domains.items():
            cell = next((c for c in plan.cells if factor.domain(_factors(c)) is domain), None)
            if cell:
                values = ", ".join(f"{plan.draw_values(cell, d)[factor.name]:.3g}" for d in range(plan.space.draws))
                yield f"  {factor.name}{f' ({factor.by} {level})' if factor.by else ''}: {values}"


def _factors(cell: Cell) -> dict[str, object]:
    return {**cell.factors, **cell.settings.fixed.model_dump(exclude=set(KNOBS))}


def _describe_stopping(plan: Plan) -> Iterator[str]:
    stopping = plan.space.settings.early_stopping
    levels = sorted({rung for cell in plan.cells for rung in plan.rung_epochs(cell)})
    if stopping is None or not plan.has_tune_stage:
        yield "\nEarly stopping: off; every trial ends."
    elif not levels:
        yield "\nEarly stopping never acts: grace_period_epochs is not below epochs."
    else:
        who = (
            "trials of one cell and replicate"
            if stopping.stratify == "cell"
            else f"trials alike in {stopping.stratify}"
        )
        yield f"\nEarly stopping: rungs at epochs {levels}, among {who}, from {stopping.min_rung_population} arrivals on."
        if stopping.stratify == "cell" and plan.space.draws < stopping.min_rung_population:
            yield f"  It never acts: a cell has {plan.space.draws} draws, fewer than min_rung_population."


def _describe_power(plan: Plan) -> Iterator[str]:
    """docs/method.md 4 and 5."""
    replicates = plan.space.settings.replicates
    levels = len(levels_of(tidy_table(plan, [])))
    settings = len({tuple(cell.context.values()) for cell in plan.cells})
    pairs = levels * (levels - 1) // 2 if levels > 1 else settings - 1
    compared = (
        f"{levels} distinct arms, {pairs} pairs" if levels > 1 else f"1 arm, {settings} settings against the best"
    )
    data = plan.space.settings.data
    tree = image_tree(data)
    n_test = len(tree.files["evaluation"]) if tree else REAL_DATASETS[data.real]
    yield f"\nDetectable at R = {replicates} replicates ({compared}, {n_test} test images):"
    if pairs == 0:
        yield "  one arm in one setting has nothing to be compared with."
        return
    if smallest_p(replicates) * pairs > 0.05:
        needed = replicates_needed(pairs)
        yield f"  smallest Holm-adjusted sign-flip p is {min(1.0, smallest_p(replicates) * pairs):.2g} > 0.05: not detectable at this R; R >= {needed} is needed."
    yield "  smallest difference found with power 0.8 (paired t test, rho 0.4 assumed, sigma from the error rate):"
    for error in ASSUMED_ERRORS:
        sigma = assumed_sigma(error, n_test)
        one, adjusted = (
            minimum_detectable_effect(sigma=sigma, replicates=replicates, alpha=a) for a in (0.05, 0.05 / pairs)
        )
        yield f"    if {error:.0%} of the test images are misclassified: {one:.2%} for one pair, {adjusted:.2%} for all {pairs}"


def _describe_cost(sweep: Sweep, *, probe: bool, say: Say) -> Iterator[str]:
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
        yield "\nTime: unknown; `lossatlas plan --probe` measures a trial."
        return
    seconds = max(cost["trial_s"] for cost in costs.values())
    peak = max(cost["peak_host_bytes"] for cost in costs.values()) / 2**20
    yield f"\nTime: {seconds:.2f} s and {peak:.0f} MiB per trial (probed); {format_duration(total)} on one slot, without early stopping."


def describe_end(sweep: Sweep, landscape: Landscape, page: Path, elapsed_s: float) -> Iterator[str]:
    """The ranking, what early stopping saved, and where to look next."""
    table = landscape.table
    counts = ", ".join(f"{count} {status}" for status, count in table.status.value_counts().items())
    yield f"\n{sweep.plan.name}: {counts}; {format_duration(elapsed_s)}"
    at = "each at its own best draw" if sweep.plan.has_tune_stage else "all at the same fixed settings"
    yield f"\nArms by test accuracy (mean over contexts, 95 % t interval over replicates, {at}):"
    ranked = ranking(table).to_dict("records")
    if not ranked:
        yield "  none: no cell has a confirmed trial" + (
            ", for all of its draws diverged." if _all_diverged(table) else "."
        )
    for rank, row in enumerate(ranked, 1):
        yield (
            f"  {rank:2} {row['level']:16} {row['mean']:7.2%}  {_interval(row['low'], row['high'])}  "
            f"n = {row['n']}, {row['cells']} cells"
        )
    summary = summarise_stopping(table, {cell.label: cell.settings.fixed.epochs for cell in sweep.plan.cells})
    if sweep.plan.space.settings.early_stopping:
        yield f"\nEarly stopping ended {summary.stopped} of {summary.trials} tune trials and saved {summary.epochs_saved_frac:.0%} of their epochs."
    for failed in table[table.status == "failed"].to_dict("records"):
        yield f"\nFAILED {failed['trial_id']} {failed['cell']}; its error is in {sweep.folder.journal}"
    yield f"\nReport        {page}"
    yield f"Table         lossatlas table {sweep.plan.name}{_home_option(sweep)}"
    if sweep.facts.get("tracking_uri") != "off":
        yield f"MLflow UI     lossatlas ui {sweep.plan.name}{_home_option(sweep)}"
    if dashboard := sweep.facts.get("dashboard"):
        yield f"Ray dashboard http://{dashboard} while a sweep runs (if it answers 401: `ray get-auth-token`)"


def _all_diverged(table: pd.DataFrame) -> bool:
    tune = table[(table.stage == "tune") & (table.status == "finished")]
    return len(tune) > 0 and bool(tune.diverged.all())


def _interval(low: float, high: float) -> str:
    return "(one replicate: no interval)" if math.isnan(low) else f"[{low:.2%}, {high:.2%}]"


def _home_option(sweep: Sweep) -> str:
    default = Path("lossatlas-home").absolute()
    return "" if sweep.home.path == default else f" --home {sweep.home.path}"


def describe_comparison(name_a: str, name_b: str, compared: pd.DataFrame) -> Iterator[str]:
    """Two sweeps cell by cell, in points of test accuracy."""
    yield f"{name_a} minus {name_b}, points of test accuracy, paired by replicate (p: sign-flip test, Holm over cells)"
    for row in compared.to_dict("records"):
        if row["n"] == 0:
            yield f"  no replicate in common: {row['cell']}"
            continue
        interval = "" if pd.isna(row["low"]) else f"[{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
        p = row["p_value"] if pd.isna(row["p_holm"]) else row["p_holm"]
        shown = "" if pd.isna(p) else f"p = {p:.3f}"
        yield f"  {100 * row['mean_difference']:+7.2f} {interval:18} {shown:10} n = {row['n']:<3} {row['cell']}"


def describe_replay(sweep: Sweep, overrides: Sequence[str], slots: int) -> Iterator[str]:
    """What another early-stopping rule would have saved and lost."""
    from orchestrator.records import read_records
    from orchestrator.replay import recorded_trials, replay

    other = [text for text in overrides if not text.startswith("early_stopping")]
    if other:
        raise ConfigError(f"--set {other[0]}: replay changes early_stopping and its keys alone.")
    changed = load_space(sweep.plan.space.document, overrides, check_files=False).settings.early_stopping
    rule = changed or sweep.plan.space.settings.early_stopping or EarlyStopping()
    trials = recorded_trials(sweep.plan, read_records(sweep.folder.journal), rule)
    if not trials:
        raise ConfigError(f"sweep {sweep.plan.name!r} has no tune trials that ended.")
    result = replay(trials, changed, slots=slots)
    shown = (
        "none"
        if changed is None
        else ", ".join(f"{k} {v}" for k, v in changed.model_dump().items() if k != "audit_frac")
    )
    yield f"{sweep.plan.name}: {result.trials} tune trials, {slots} at once; rule: {shown}"
    yield f"  stopped {result.stopped} of {result.trials}"
    for what, epochs in (("recorded", result.epochs_recorded), ("replayed", result.epochs_replayed)):
        yield f"  {what}: {epochs} of {result.epochs_full} epochs, {1 - epochs / result.epochs_full:.0%} saved"
    yield from (f"  rung {rung}: {arrived} arrived, {stopped} stopped" for rung, arrived, stopped in result.by_rung)
    cost = ""
    if result.points_lost:
        mean = sum(result.points_lost) / len(result.points_lost)
        cost = f"; they lose {100 * mean:.2f} points of validation accuracy on average, {100 * max(result.points_lost):.2f} at most"
    yield f"  lost: the best draw of {result.cells_lost} of {result.cells} cells{cost}"
    if result.epochs_recorded < result.epochs_full:
        yield "  Trials that were stopped when the sweep was run are no candidates for a best draw: what is lost is a lower bound."
