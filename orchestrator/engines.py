"""What `auto` means for a sweep's number format, engine and threads: measured on its own trials, where they take long enough to matter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from orchestrator.plan import AUTO, Plan
from orchestrator.prepare import Say, cost_classes, probe_costs, seconds_together, sweep_cost_s

#: A sweep that takes less, on all cores of this machine, is not worth measuring more than once.
WORTH_S: Final = 300.0
#: Image sides, channels, images, epochs and trials multiplied: below this nothing is measured at all.
WORTH_PIXELS: Final = 1e9
#: Plain fp32 is left only for what takes less than this share of its time.
GAIN: Final = 0.9
CANDIDATES: Final = (("fp32", "compiled"), ("bf16", "compiled"), ("bf16", "eager"))


def choose_engine(plan: Plan, about: Mapping[str, Mapping[str, Any]], cache: Path, say: Say) -> dict[str, Any]:
    """Number format, engine and threads for every `auto` of a sweep, the same for all of its cells.

    Trials in another number format, or with other threads, are other trials, so this is decided once, when a sweep is first
    run, and kept in its plan.

    Args:
        plan: Its data are prepared.
        about: What is known of the data, by key.
        cache: Where costs are kept.
        say: Told what is measured, and what came out.
    """
    open_keys = [key for key in AUTO if any(plan.asked(key, cell) == "auto" for cell in plan.cells)]
    on_cpu = all(plan.resolve_device(cell) == "cpu" for cell in plan.cells)
    if not open_keys or not on_cpu or _pixels(plan, about) < WORTH_PIXELS:
        return {}
    slots = max(1, (os.cpu_count() or 1) // plan.cpus)
    plain_s = sweep_cost_s(plan, probe_costs(plan, cache, say))
    if plain_s is None or plain_s / slots < WORTH_S:
        return {}
    say(f"measuring what is faster: {' and '.join(open_keys)}")
    best = _fastest_engine(plan, [key for key in open_keys if key != "threads"], plain_s, cache, say)
    threads = {"threads": _fastest_threads(replace(plan, resolved=best), cache, say)} if "threads" in open_keys else {}
    return best | threads


def _fastest_engine(plan: Plan, open_keys: Sequence[str], plain_s: float, cache: Path, say: Say) -> dict[str, Any]:
    """Number format and engine, as far as they are open."""
    default = {key: AUTO[key]["cpu"] for key in open_keys}
    best, least_s = default, GAIN * plain_s
    for candidate in _candidates(open_keys):
        other = replace(plan, resolved=candidate)
        seconds = sweep_cost_s(other, probe_costs(other, cache, lambda text: None))
        if seconds is None:
            say(f"{_named(candidate)} cannot be measured here" + _MISSING.get(candidate.get("engine", ""), ""))
        elif seconds < least_s:
            best, least_s = candidate, seconds
    gain = f", {plain_s / least_s:.1f} times as fast" if best != default else ""
    if open_keys:
        say(f"students run with {_named(best)}{gain}")
    return best


def _fastest_threads(plan: Plan, cache: Path, say: Say) -> int:
    """Threads per trial that give the most trials per hour on all cores: one each side by side, or fewer trials with more."""
    cores = os.cpu_count() or 1
    classes, costs = cost_classes(plan), probe_costs(plan, cache, say)
    costliest = classes[max(classes, key=lambda name: costs.get(name, {}).get("trial_s", 0.0))]
    rates = {}
    for threads in (2**power for power in range(cores.bit_length())):
        seconds = seconds_together(replace(costliest, threads=threads), cores // threads, cache)
        if seconds is not None:
            rates[threads] = 3600 * (cores // threads) / seconds
    if 1 not in rates:
        return 1
    best = max(rates, key=lambda threads: rates[threads])
    chosen = best if rates[1] < GAIN * rates[best] else 1
    shown = ", ".join(f"{rate:.0f} with {threads}" for threads, rate in rates.items())
    say(f"trials per hour on {cores} cores by threads per trial: {shown}; taking {chosen}")
    return chosen


_MISSING: Final = {"compiled": " (is there a C++ compiler, such as g++?)"}


def _candidates(open_keys: Sequence[str]) -> list[dict[str, Any]]:
    """Other values of the keys that are open, each combination once."""
    found = []
    for values in CANDIDATES:
        candidate = {key: value for key, value in zip(AUTO, values, strict=False) if key in open_keys}
        if candidate not in found and any(candidate[key] != AUTO[key]["cpu"] for key in open_keys):
            found.append(candidate)
    return found


def _named(resolved: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in resolved.items())


def _pixels(plan: Plan, about: Mapping[str, Mapping[str, Any]]) -> float:
    """Pixels that all students see in training, an upper bound on what can be gained."""
    per_cell = sum(plan.trial_counts.values()) / len(plan.cells)
    pixels = {key: int(known["distilled_pixels"]) for key, known in about.items()}
    return sum(per_cell * cell.settings.fixed.epochs * pixels[plan.data_keys[cell.label]] for cell in plan.cells)
