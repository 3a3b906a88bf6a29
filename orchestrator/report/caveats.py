"""What a landscape does not say, and how to make it again."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.conductor import results_of
from orchestrator.extras import versions_of
from orchestrator.judgement import doubts_about, mistakes_in, remarks_on, stated_words
from orchestrator.landscape.landscape import Landscape
from orchestrator.landscape.tuning import boundary_flags
from orchestrator.landscape.values import confirmed
from orchestrator.remarks import remarks_about
from orchestrator.search import TwoStageSearch
from trainables.findings import Findings


def caveats(landscape: Landscape) -> Iterator[str]:
    """One sentence per thing that limits the conclusions (docs/method.md 12)."""
    settings, table, tuned = landscape.plan.space.settings, landscape.table, landscape.plan.has_tune_stage
    known = landscape.facts.get("data", {})
    for about in [known[key] for key in dict.fromkeys(landscape.plan.data_keys.values()) if key in known]:
        error = 1 - confirmed(table).test_accuracy.mean()
        yield from _of_data(about, error=error, chosen="Draws and cells were chosen" if tuned else "Curves are")
        yield from remarks_about(about)
    axes = {*landscape.plan.space.axes, *(factor.name for factor in landscape.plan.space.nuisance)}
    fixed = {key: value for key, value in settings.fixed.model_dump().items() if key not in axes}
    if fixed.get("lr") == "file":
        rates = sorted(set(landscape.plan.rates.values()))
        fixed["lr"] = f"{', '.join(f'{rate:.6g}' for rate in rates)} (of the file{'s' * (len(rates) > 1)})"
    yield "Fixed and not varied: " + ", ".join(f"{key} = {value}" for key, value in fixed.items()) + "."
    if fixed.get("weight_decay") and "sgd" in str(landscape.plan.space.document):
        yield "A fixed weight decay is not neutral to the scale of a loss under SGD."
    if landscape.plan.has_tune_stage:
        yield "Intervals are over replicates (seeds) and conditional on the draw chosen in the tune stage."
    else:
        yield "Nothing was tuned: losses are compared at settings that may suit one better than another."
    if settings.fixed.view_draw == "shared":
        yield "All replicates share one draw of augmented views, whose luck is in no interval (view_draw: replicate)."
    else:
        yield "Each replicate has augmented views of its own (view_draw: replicate), the same in every cell."
    if settings.protocol == "paper":
        yield "protocol: paper evaluates the test split at every evaluation; test_accuracy is that of the last one."
    ran = sorted(
        {
            (c.precision, c.engine, c.threads)
            for cell in landscape.plan.cells
            for c in [landscape.plan.trial(cell, 0, 1, "confirm")]
        }
    )
    how = (f"{precision} ({engine}, {threads} CPU thread{'s' * (threads > 1)})" for precision, engine, threads in ran)
    yield f"Students were trained in {' and '.join(how)}."
    if landscape.plan.space.settings.early_stopping and landscape.plan.has_tune_stage:
        yield (
            "Early stopping decides by the order in which trials arrive, so a second run of this sweep may stop other "
            "trials and choose other draws; the metrics of a trial do not depend on it."
        )
    yield from _missing(landscape)


def _of_data(about: Mapping[str, Any], *, error: float, chosen: str) -> Iterator[str]:
    """What one prepared set of data limits conclusions to."""
    standard_error = 100 * math.sqrt(max(error * (1 - error), 0) / about["n_test"]) if error == error else math.nan
    how_sure = (
        f" (binomial standard error {standard_error:.2f} points at the mean accuracy of all cells; in no interval here)"
        if error == error
        else ""
    )
    teacher = about.get("teacher_test_accuracy")
    labels = "no teacher" if teacher is None else f"this teacher (test accuracy {teacher:.2%})"
    made = about.get("distilled", "random")
    yield (
        f"Conclusions hold for this distilled set ({made}, {about['n_distilled']} images), {labels}, this bank of "
        f"{about['views']} views, this split, and these {about['n_test']} test images{how_sure}."
    )
    if "projector_left" in about:
        trunk = "the teacher's own trunk" if about["trunk_is_sent"] else "a backbone that costs no label bytes"
        yield f"Labels are said by a projector on {trunk}; it leaves {about['projector_left']:.1%} of the variance of the teacher's logits."
    yield from (f"Run by --force although {problem}" for problem in (*mistakes_in(about), *doubts_about(about)))
    yield from remarks_on(about)
    if stated := stated_words(Findings.of(about).stated):
        yield f"Stated of the distilled set, in the space or in the file beside it: {stated}."
    if about.get("label_rounding"):
        yield f"Soft labels are kept in {about['label_format']}; no logit is rounded by more than {about['label_rounding']:.2g}."
    held_out = f"{chosen} on {about['n_validation']} validation images, held out from the "
    if about.get("validation_from", "train") == "train":
        yield held_out + (
            "training split; a teacher or distilled set that was made elsewhere may have seen them."
            if made not in ("random", "rded")
            else "training split: neither the teacher nor the distilled set was made from them."
        )
    else:
        yield held_out + "evaluation split (there is no training split); the rest of it is the test split."


def _missing(landscape: Landscape) -> Iterator[str]:
    table = landscape.table
    for status in ("failed", "pending", "running", "skipped"):
        if count := int((table.status == status).sum()):
            yield f"{count} of {len(table)} planned trials are {status}; means are over those that are there."
    diverged = confirmed(table)
    diverged = diverged[diverged.diverged.astype(bool)]
    for label, rows in diverged.groupby("cell"):
        yield f"{label}: diverged in {len(rows)} of {landscape.plan.space.settings.replicates} replicates, counted at chance level."
    search = TwoStageSearch(landscape.plan, results_of(landscape.records), retry_failed=False)
    for cell in landscape.plan.cells:
        if search.furthest_only(cell):
            yield f"{cell.label}: no draw reached full budget in the tune stage; the one that got furthest was confirmed."
    yield from _boundaries(landscape)


def _boundaries(landscape: Landscape) -> Iterator[str]:
    """Where the chosen draw is the lowest or highest that was drawn (docs/method.md 11)."""
    names = [factor.name for factor in landscape.plan.space.nuisance]
    contexts = {cell.label: ", ".join(map(str, cell.context.values())) or "all" for cell in landscape.plan.cells}
    flagged = boundary_flags(landscape.table, names)
    for (factor, edge), rows in flagged.groupby(["factor", "edge"], sort=False):
        by_context = Counter(contexts[cell] for cell in rows.cell)
        where = "; ".join(f"{context}: {count}" for context, count in by_context.items())
        yield (
            f"In {len(rows)} of {len(contexts)} cells the best draw has the {edge} {factor} that was drawn ({where}): "
            "their optimum may lie beyond; widen the range on that side, or raise `draws`."
        )


def how_to_reproduce(landscape: Landscape) -> str:
    """Commands, versions, hardware and the space itself."""
    packages = versions_of("lossatlas", "torch", "ray", "mlflow", "numpy", "scipy")
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    seconds = landscape.facts.get("wall_s")
    return "\n".join(
        [
            f"lossatlas run SPACE.yaml --name {landscape.plan.name}     # the space is below",
            "lossatlas rerun RUN_ID     # one trial; run ids are in table.csv",
            "",
            f"versions: {versions}, Python {platform.python_version()}",
            f"hardware: {platform.machine()}, {os.cpu_count()} CPUs, device {landscape.plan.device}",
            f"wall time: {seconds:.0f} s" if seconds else "wall time: unknown",
            f"data: {', '.join(dict.fromkeys(landscape.plan.data_keys.values()))}",
            "",
            json.dumps(dict(landscape.plan.space.document), indent=2),
        ]
    )
