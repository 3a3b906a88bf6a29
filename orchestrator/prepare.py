"""Have data prepared and costs probed in processes of their own, so that the driver never needs torch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGSEGV
from typing import Any, Final

from orchestrator.home import write_json
from orchestrator.judgement import doubts_about as doubts_about
from orchestrator.plan import Plan
from orchestrator.processes import command_of, safe_environment
from search_spaces import ConfigError
from trainables.arrays import entry_of, is_intact
from trainables.config import ANGLE_LOSSES, LOGIT_LOSSES, LOSS_KNOBS, TrialConfig, cost_class
from trainables.drafts import read_about

#: How a reader ends that crashes in native code, or that the system ends because memory ran out.
_CRASHES: Final = {-number: number.name for number in (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGKILL)}
Say = Callable[[str], None]
#: Losses that cannot use stored labels of a kind.
_ON_LOGITS: Final = (*LOGIT_LOSSES, *ANGLE_LOSSES)
UNUSABLE: Final[Mapping[str, Sequence[str]]] = {
    "prob": _ON_LOGITS,
    "logprob": _ON_LOGITS,
    "centred": tuple(name for name, knobs in LOSS_KNOBS.items() if "temperature" in knobs),
}


def prepare_data(plan: Plan, cache: Path, say: Say, *, leave_labels: bool = False) -> dict[str, dict[str, Any]]:
    """Make all that a plan's trials read; see `prepare_recipes`."""
    return prepare_recipes(plan.recipes, cache, say, leave_labels=leave_labels)


def prepare_recipes(
    recipes: Mapping[str, Mapping[str, Any]], cache: Path, say: Say, *, leave_labels: bool = False
) -> dict[str, dict[str, Any]]:
    """Make what recipes ask for, unless the cache has it; what is known about each, by key.

    Args:
        recipes: By key.
        cache: Folder of entries.
        say: Told what takes long.
        leave_labels: Leave drafts for `orchestrator.labelling` where a teacher has yet to label the views.

    Raises:
        ConfigError: If a recipe cannot be followed.
    """
    if all(is_intact(entry_of(key, cache)) for key in recipes):
        return {key: read_about(entry_of(key, cache)) for key in recipes}
    cache.mkdir(parents=True, exist_ok=True)
    options = ["--leave-labels"] if leave_labels else []
    about: dict[str, dict[str, Any]] = json.loads(run_module("trainables.prepare", recipes, cache, say, *options))
    return about


def fetch_real(wanted: Sequence[Mapping[str, Any]], cache: Path, say: Say) -> None:
    """Have real data with a name downloaded.

    Args:
        wanted: For each its `real` and `root`, as recipes have them.
        cache: Folder of entries.
        say: Told what takes long.

    Raises:
        ConfigError: If they cannot be had.
    """
    run_module("trainables.prepare.fetch", [dict(one) for one in wanted], cache, say)


def known_data(plan: Plan, cache: Path) -> dict[str, dict[str, Any]]:
    """What is known about those of a plan's data that are in the cache, by key; prepares nothing."""
    there = {key: cache / f"data-{key}" for key in plan.recipes}
    return {key: read_about(entry) for key, entry in there.items() if is_intact(entry)}


def unusable_labels(plan: Plan, known: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Losses that cannot use the kind of labels that came with a set.

    log p has lost the norm that losses on logits and angles compare; the softmax of centred labels (one-hot less 1 / C) is
    nearly uniform, so they are for losses on logits and angles, and for hard labels.
    """
    bad = {
        ("|".join(cell.arms), kind)
        for cell in plan.cells
        if cell.settings.fixed.labels == "stored"
        for kind in [str(known[plan.data_keys[cell.label]].get("label_kind"))]
        if cell.loss in UNUSABLE.get(kind, ())
    }
    whats = {
        "prob": "compares logits, the stored labels are probabilities",
        "logprob": "compares logits, the stored labels are logarithms of probabilities",
        "centred": "compares probabilities, the stored labels are centred (one-hot less 1 / C)",
    }
    return [f"scientific.loss: {name} {whats[kind]}; leave it out, or labels: bank." for name, kind in sorted(bad)]


def probe_costs(plan: Plan, cache: Path, say: Say) -> dict[str, dict[str, float]]:
    """Measured cost of each class of trials, by cost class; measures what the cache lacks.

    A trial that cannot be probed has no entry: it will say what is wrong with it when it is run.
    """
    cache.mkdir(parents=True, exist_ok=True)
    costs = cached_costs(plan, cache)
    for name, config in cost_classes(plan).items():
        if name not in costs:
            say(f"probe: seconds and memory of one {config.student} trial")
            try:
                costs[name] = json.loads(run_module("trainables.probe", config.as_dict(), cache, lambda text: None))
            except RuntimeError as err:
                say(f"the probe failed, so the cost is unknown: {str(err).splitlines()[-1]}")
                continue
            write_json(cache / f"probe-{name}.json", costs[name])
    return costs


def seconds_together(config: TrialConfig, trials: int, cache: Path) -> float | None:
    """Seconds per trial where so many alike run side by side, each in a process of its own; None if that fails. Cached."""
    path = cache / f"probe-{cost_class(config)}-x{trials}.json"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(trials) as pool:
            runs = [
                pool.submit(run_module, "trainables.probe", config.as_dict(), cache, lambda text: None)
                for _ in range(trials)
            ]
        if any(run.exception() is not None for run in runs):
            return None
        write_json(path, {"trial_s": sum(json.loads(run.result())["trial_s"] for run in runs) / trials})
    return float(json.loads(path.read_text())["trial_s"])


def cached_costs(plan: Plan, cache: Path) -> dict[str, dict[str, float]]:
    """What is already known of costs, by cost class."""
    paths = {name: cache / f"probe-{name}.json" for name in cost_classes(plan)}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.exists()}


def cost_classes(plan: Plan) -> dict[str, TrialConfig]:
    """One representative trial per class of cost."""
    classes: dict[str, TrialConfig] = {}
    for cell in plan.cells:
        config = plan.trial(cell, 0, 0, "tune")
        classes.setdefault(cost_class(config), config)
    return classes


def sweep_cost_s(plan: Plan, costs: Mapping[str, Mapping[str, float]]) -> float | None:
    """Seconds of training in the whole sweep on one slot without early stopping; None if a cost is unknown."""
    per_cell = sum(plan.trial_counts.values()) / len(plan.cells)
    names = [cost_class(plan.trial(cell, 0, 0, "tune")) for cell in plan.cells]
    if not all(name in costs for name in names):
        return None
    return sum(costs[name]["trial_s"] * per_cell for name in names)


def run_module(module: str, request: object, cache: Path, say: Say, *options: str) -> str:
    """Run a module of ours in a process of its own.

    Args:
        module: Its name.
        request: Written as JSON to its standard input.
        cache: Its first argument.
        say: Told each line of its standard error.
        options: Its further arguments.

    Returns:
        The last line of its output.

    Raises:
        ConfigError: With that line, if the module refuses the request, or if it crashed while it prepared data.
        RuntimeError: If it ended in another way, with its last lines.
    """
    process = subprocess.Popen(
        command_of(module, str(cache), *options),
        env=safe_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        told: list[str] = []
        try:
            process.stdin.write(json.dumps(request))
            process.stdin.close()
            for line in process.stderr:
                told.append(line.rstrip())
                say(line.rstrip())
            output = process.stdout.read()
        except BaseException:
            process.terminate()  # SIGTERM reaches this process alone: it must not leave one behind that trains a teacher
            raise
    if process.returncode == 2:
        raise ConfigError(output.strip().splitlines()[-1])
    if process.returncode in _CRASHES and module == "trainables.prepare":
        raise ConfigError(
            f"{module} was ended by {_CRASHES[process.returncode]}: a file that it read is damaged or made to harm, or memory "
            f"ran out; `lossatlas inspect` looks at a file on its own. It last said: {(told or ['nothing'])[-1]}"
        )
    if process.returncode:
        last = "\n".join(told[-20:])
        raise RuntimeError(f"{module} ended with status {process.returncode}; its last lines:\n{last}")
    return output.strip().splitlines()[-1]
