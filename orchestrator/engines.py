"""What `auto` means for a sweep's number format and engine: measured on its own trials, where they take long enough to matter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from orchestrator.plan import AUTO, Plan
from orchestrator.prepare import Say, probe_costs, sweep_cost_s

#: A sweep that takes less, on all cores of this machine, is not worth measuring more than once.
WORTH_S: Final = 300.0
#: Image sides, channels, images, epochs and trials multiplied: below this nothing is measured at all.
WORTH_PIXELS: Final = 1e9
#: Plain fp32 is left only for what takes less than this share of its time.
GAIN: Final = 0.9
CANDIDATES: Final = (("fp32", "compiled"), ("bf16", "compiled"), ("bf16", "eager"))


def choose_engine(plan: Plan, about: Mapping[str, Mapping[str, Any]], cache: Path, say: Say) -> dict[str, str]:
    """Number format and engine for every `auto` of a sweep, the same for all of its cells.

    Trials in another number format are other trials, so this is decided once, when a sweep is first run, and kept in its plan.

    Args:
        plan: Its data are prepared.
        about: What is known of the data, by key.
        cache: Where costs are kept.
        say: Told what is measured, and what came out.
    """
    default = {key: by_device["cpu"] for key, by_device in AUTO.items()}
    fixed = [cell.settings.fixed for cell in plan.cells]
    is_open = any("auto" in (f.precision, f.engine) for f in fixed)
    on_cpu = all(plan.resolve_device(cell) == "cpu" for cell in plan.cells)
    if not is_open or not on_cpu or _pixels(plan, about) < WORTH_PIXELS:
        return {}
    slots = max(1, (os.cpu_count() or 1) // plan.space.settings.resources.cpus)
    plain_s = sweep_cost_s(plan, probe_costs(plan, cache, say))
    if plain_s is None or plain_s / slots < WORTH_S:
        return {}
    say(f"engine: measuring what is faster than {default['precision']}, {default['engine']}")
    taken = {(default["precision"], default["engine"]): plain_s}
    for precision, engine in CANDIDATES:
        other = replace(plan, resolved={"precision": precision, "engine": engine})
        if (seconds := sweep_cost_s(other, probe_costs(other, cache, lambda text: None))) is not None:
            taken[precision, engine] = seconds
    best = min(taken, key=lambda kind: taken[kind])
    if taken[best] > GAIN * plain_s:
        return default
    say(f"engine: {', '.join(best)}, {plain_s / taken[best]:.1f} times as fast")
    return dict(zip(("precision", "engine"), best, strict=True))


def _pixels(plan: Plan, about: Mapping[str, Mapping[str, Any]]) -> float:
    """Pixels that all students see in training, an upper bound on what can be gained."""
    per_cell = sum(plan.trial_counts.values()) / len(plan.cells)
    pixels = {key: int(known["distilled_pixels"]) for key, known in about.items()}
    return sum(per_cell * cell.settings.fixed.epochs * pixels[plan.data_keys[cell.label]] for cell in plan.cells)
