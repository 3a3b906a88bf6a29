"""A plan and the end of a sweep, in sentences for the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from orchestrator.facts import ALPHA, plan_facts
from orchestrator.judgement import stated_words
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.stopping import summarise_stopping
from orchestrator.landscape.values import TWO_SEEDS, ranking
from orchestrator.plan import Plan, why_nothing_stops
from orchestrator.prepare import Say
from orchestrator.progress import format_duration
from orchestrator.remarks import describe_datasets
from orchestrator.sweep import Sweep
from search_spaces import ConfigError, load_space
from search_spaces.settings import EarlyStopping

#: Values of a factor that a sentence lists.
MOST_NAMED: Final = 4


def describe_plan(sweep: Sweep, *, probe: bool, say: Say) -> Iterator[str]:
    """What a space asks for; nothing is trained unless `probe` (then one short trial per class of cost)."""
    facts = plan_facts(sweep, probe=probe, say=say)
    counts = facts["trials"]
    yield f"{facts['name']}: {len(facts['cells'])} cells, {sum(counts.values())} trials"
    yield "A cell is one setting that is compared (loss, temperature, ...); a trial is one training of a student."
    yield from _describe_stages(sweep.plan, counts)
    merged = facts["merged"]
    yield f"\nAll combinations of the axes are {facts['grid_points']}; {sum(merged.values())} of them repeat another:"
    yield from (f"  {count:4} {reason}" for reason, count in merged.items())
    if facts["repeated"]:
        yield "\nThe same training as another cell, so trained once for both:"
        yield from (f"  {label} as {earlier}" for label, earlier in facts["repeated"].items())
    yield "\nCells [and the names in the space's loss list that stand for them]:"
    yield from (f"  {cell['cell']}  [{', '.join(cell['arms'])}]" for cell in facts["cells"])
    yield from _describe_content(facts["data"])
    yield from describe_datasets(facts["datasets"])
    yield from _describe_data(facts["prepared"])
    yield from _describe_draws(facts)
    for rate in sorted(set(facts["learned_rates"].values())):
        cells = sum(value == rate for value in facts["learned_rates"].values())
        yield f"\nLearning rate: {rate:.6g} in {cells} cells, learned with the distilled set (lr: file)."
    yield from _describe_stopping(facts["early_stopping"])
    yield from _describe_power(facts["replicates"], facts["detectable"])
    yield _describe_cost(facts["cost"])


def _describe_stages(plan: Plan, counts: Mapping[str, int]) -> Iterator[str]:
    replicates = plan.space.settings.replicates
    which = "each cell"
    if plan.has_tune_stage:
        on = "seed 0" if len(plan.tune_replicates) == 1 else f"seeds {plan.tune_replicates[-1]} to 0"
        names = ", ".join(factor.name for factor in plan.space.nuisance)
        yield f"  tune     {counts['tune']:5} trials: each cell with {plan.space.draws} draws (values of {names}) on {on}, to find its best"
        which = "each cell with its best draw"
    yield f"  confirm  {counts['confirm']:5} trials: {which} on {_seeds(replicates)}"
    if "shared" in plan.space.settings.confirm:
        yield f"  shared   up to {counts['confirm']} more: the draw that is best for all cells of an optimizer, where it is another one"


def _describe_content(data: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for one in data:
        if one["identified_by"] == "sample":
            yield (
                f"\n{one['key']}: {one['files']} files of {one['bytes'] / 2**30:.1f} GiB, too many to read whole, so identified by "
                "names, sizes, times of change, and the ends of a sample of them."
            )
        else:
            yield f"\n{one['key']}: {one['of']} is not there yet; `run` downloads it first, and its content then identifies it."


def _seeds(replicates: int) -> str:
    return "seed 1" if replicates == 1 else f"seeds 1 to {replicates}"


def _describe_data(prepared: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What was found out when data were prepared; what was stated, before that."""
    lines = [line for one in prepared for line in one.get("facts", ())]
    for one in prepared:
        lines += [f"PROBLEM {line}" for line in one.get("problems", ())] + one.get("remarks", [])
    missing = [one for one in prepared if not one["is_prepared"]]
    lines += [f"Stated of the distilled set: {stated_words(one['stated'])}." for one in missing if one["stated"]]
    if any(one["has_teacher"] for one in missing):
        lines.append(
            "Not prepared yet: what the teacher sees, and whether classes fit, is found out by --probe or run."
        )
    if lines:
        yield "\nData:"
    yield from (f"  {line}" for line in dict.fromkeys(lines))


def _describe_draws(facts: Mapping[str, Any]) -> Iterator[str]:
    how = "a scrambled Sobol sequence, spread evenly over the range"
    if facts["draws_are"] == "each value once":
        how = (
            "each combination of the given values once" if len(facts["draws"]) > 1 else "each of the given values once"
        )
    if facts["draws"]:
        yield f"\nDraws: the same {facts['draws_per_cell']} for every cell ({how}):"
    for draw in facts["draws"]:
        values = ", ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in draw["values"])
        where = f" ({draw['by']} {draw['level']})" if draw["by"] else ""
        left_out = ", ".join(f"{value:g}" for value in draw["left_out"])
        missing = f"; never {left_out}, see nuisance.draws" if left_out else ""
        yield f"  {draw['factor']}{where}: {values}{missing}"


def _describe_stopping(rule: Mapping[str, Any] | None) -> Iterator[str]:
    if rule is None:
        yield "\nEarly stopping: off; every trial ends."
    elif rule["stops_nothing_because"]:
        yield f"\nEarly stopping is asked for, but stops nothing: {rule['stops_nothing_because']}."
    else:
        cell = rule["stratify"] == "cell"
        who = "draws of a cell" if cell else f"trials that are alike in {', '.join(rule['stratify']) or 'nothing'}"
        epochs = " and ".join(map(str, rule["looks_at_epochs"]))
        yield (
            f"\nEarly stopping: at epochs {epochs} the worst {who} are stopped, once {rule['min_rung_population']} have got "
            f"there; about one in {rule['reduction_factor']:g} goes on. In the tune stage only."
        )


def _describe_power(replicates: int, facts: Mapping[str, Any]) -> Iterator[str]:
    """docs/method.md 4 and 5."""
    pairs = facts["pairs"]
    compared = (
        f"{facts['levels']} losses that differ, {pairs} pairs"
        if facts["levels"] > 1
        else f"1 loss, {facts['settings']} settings, each against the best"
    )
    yield f"\nHow small a difference this plan can find ({compared}, {replicates} seeds, {facts['test_images']} test images):"
    if pairs == 0:
        yield "  one loss in one setting has nothing to be compared with."
        return
    if facts["smallest_p"] > ALPHA:
        needed = facts["replicates_needed"]
        yield (
            f"  With {replicates} seeds no difference can become significant (the smallest p, adjusted for {pairs} pairs, is "
            f"{facts['smallest_p']:.2g}); use at least {needed}: --set replicates={needed}."
        )
    yield "  Points of test accuracy that 8 of 10 such sweeps would find. Assumed noise (from the error rate; correlation 0.4"
    yield "  between losses at the same seed); the real noise is known after the run:"
    for row in facts["differences"]:
        yield (
            f"    if {row['error']:.0%} of the test images are misclassified: {100 * row['one_pair']:.2f} for one pair, "
            f"{100 * row['all_pairs']:.2f} for all {pairs}"
        )


def _describe_cost(cost: Mapping[str, Any]) -> str:
    if cost["total_s"] is None:
        return "\nTime: unknown; `lossatlas plan --probe` measures a trial."
    together = (
        f", about {format_duration(cost['total_s'] / cost['trials_at_once'])} with {cost['trials_at_once']} at a time, as here"
        if (cost["trials_at_once"] or 1) > 1
        else ""
    )
    return (
        f"\nTime: {cost['trial_s']:.2f} s and {cost['peak_host_bytes'] / 2**20:.0f} MiB per trial (probed); about "
        f"{format_duration(cost['total_s'])} with one trial at a time{together}; less with early stopping."
    )


def describe_end(sweep: Sweep, landscape: Landscape, page: Path, elapsed_s: float) -> Iterator[str]:
    """The ranking, what early stopping saved, and where to look next."""
    table = landscape.table
    counts = ", ".join(f"{count} {status}" for status, count in table.status.value_counts().items())
    yield f"\n{sweep.plan.name}: {counts}; {format_duration(elapsed_s)}"
    at = (
        "each with the draw that was best for it on validation images"
        if sweep.plan.has_tune_stage
        else "all at the same fixed settings"
    )
    yield f"\nLosses by test accuracy ({_averaged(sweep.plan)}95 % t interval over seeds, {at}):"
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
    if any(row["n"] == 2 for row in ranked):
        yield f"  {TWO_SEEDS}"
    yield from _describe_stopped(sweep.plan, table)
    for failed in table[table.status == "failed"].to_dict("records"):
        yield f"\nFAILED {failed['trial_id']} {failed['cell']}; its error is in {sweep.folder.journal}"
    yield f"\nReport        {page}"
    yield f"Table         lossatlas table {sweep.plan.name}{_home_option(sweep)}"
    if sweep.facts.get("tracking_uri") != "off":
        yield f"MLflow UI     lossatlas ui {sweep.plan.name}{_home_option(sweep)}"
    if dashboard := sweep.facts.get("dashboard"):
        yield f"Ray dashboard http://{dashboard} while a sweep runs (if it answers 401: `ray get-auth-token`)"


def _averaged(plan: Plan) -> str:
    """What a mean is over besides seeds."""
    contexts = {tuple(cell.context.items()) for cell in plan.cells}
    if len(contexts) < 2:
        return ""
    names = list(plan.space.context_factors)
    if len(names) == 1 and len(contexts) <= MOST_NAMED:
        return f"mean of {' and '.join(str(value) for value in plan.space.axes[names[0]])}, "
    return f"mean of {len(contexts)} combinations of {', '.join(names)}, "


def _describe_stopped(plan: Plan, table: pd.DataFrame) -> Iterator[str]:
    if not plan.space.settings.early_stopping:
        return
    if reason := why_nothing_stops(plan):
        yield f"\nEarly stopping was asked for, but could stop nothing: {reason}."
        return
    summary = summarise_stopping(table, {cell.label: cell.settings.fixed.epochs for cell in plan.cells})
    if summary.trials:
        yield (
            f"\nEarly stopping ended {summary.stopped} of {summary.trials} tune trials and saved "
            f"{summary.epochs_saved_frac:.0%} of the epochs of the tune stage."
        )


def _all_diverged(table: pd.DataFrame) -> bool:
    tune = table[(table.stage == "tune") & (table.status == "finished")]
    return len(tune) > 0 and bool(tune.diverged.all())


def _interval(low: float, high: float) -> str:
    return "(one replicate: no interval)" if math.isnan(low) else f"[{low:.2%}, {high:.2%}]"


def _home_option(sweep: Sweep) -> str:
    default = Path("lossatlas-home").absolute()
    return "" if sweep.home.path == default else f" --home {sweep.home.path}"


def describe_comparison(facts: Mapping[str, Any]) -> Iterator[str]:
    """Two sweeps, as `comparison_facts` has them: where their settings differ, then cell by cell."""
    if facts["settings"]:
        yield f"Settings that differ ({facts['a']} | {facts['b']}):"
        yield from (f"  {row['key']}: {_shown(row['a'])} | {_shown(row['b'])}" for row in facts["settings"])
    else:
        yield "No setting differs."
    yield ""
    yield f"{facts['a']} minus {facts['b']}, points of test accuracy, paired by replicate (p: sign-flip test, Holm over cells)"
    for row in facts["cells"]:
        if row["n"] == 0:
            yield f"  no replicate in common: {row['cell']}"
            continue
        interval = "" if row["low"] is None else f"[{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
        p = row["p_value"] if row["p_holm"] is None else row["p_holm"]
        shown = "" if p is None else f"p = {p:.3f}"
        yield f"  {100 * row['mean_difference']:+7.2f} {interval:18} {shown:10} n = {row['n']:<3} {row['cell']}"
    if any(row["n"] == 2 for row in facts["cells"]):
        yield f"  {TWO_SEEDS}"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


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
