"""The plan: which trials a space asks for, before any of them runs."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from orchestrator.cells import Cell, Cells, draws_per_replicate, enumerate_cells, without_effect
from orchestrator.rates import learned_rate
from orchestrator.recipes import key_of_replicate, recipe, recipe_key
from search_spaces import Space
from search_spaces.domains import Value
from trainables.config import KNOBS, TrialConfig, content_hash
from trainables.versions import VERSIONS, changed, of_trial

#: What `auto` means where nothing was measured, by setting and device.
AUTO: Final[Mapping[str, Mapping[str, Any]]] = {
    "precision": {"cpu": "fp32", "cuda": "bf16"},
    "engine": {"cpu": "eager", "cuda": "eager"},
    "threads": {"cpu": 1, "cuda": 1},
}


@dataclass(frozen=True)
class Plan:
    """Everything a sweep will do; a function of the space and of what `auto` settings were resolved to.

    Attributes:
        name: Of the sweep.
        space: Checked space.
        device: "cpu" or "cuda".
        resolved: What `auto` means for `precision`, `engine` and `threads` (`resources.cpus`), see `orchestrator.engines`; None: not found out yet.
        stored_keys: Data keys by cell, as the sweep was run: files that have been moved since need not be there to read it.
        stored_rates: Learned rates by cell, as the sweep was run; see `rates`.
        stored_versions: Versions of the code as the sweep was run, to read it; None: of this code, to run it.
    """

    name: str
    space: Space
    device: str
    stored_keys: Mapping[str, str] = field(default_factory=dict)
    resolved: Mapping[str, Any] | None = None
    stored_versions: Mapping[str, int] | None = None
    stored_rates: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def data_keys(self) -> dict[str, str]:
        """What the data of each cell's trials (of replicate 1, where each has its own) are identified by, by label."""
        if set(self.stored_keys) == {cell.label for cell in self.cells}:
            return dict(self.stored_keys)
        return {cell.label: recipe_key(recipe(cell)) for cell in self.cells}

    @cached_property
    def rates(self) -> dict[str, float]:
        """Learning rates that come with the distilled set (`lr: file`), by label of the cell.

        Raises:
            ConfigError: If a set has none.
        """
        paths = {c.label: str(c.settings.data.distilled.path) for c in self.cells if c.settings.fixed.lr == "file"}
        if set(self.stored_rates) == set(paths):
            return dict(self.stored_rates)
        return {label: learned_rate(path) for label, path in paths.items()}

    def data_key(self, cell: Cell, replicate: int) -> str:
        """What the data of a replicate's trials are identified by."""
        first = self.data_keys[cell.label]
        return key_of_replicate(first, replicate) if draws_per_replicate(cell.settings.fixed) else first

    @cached_property
    def enumeration(self) -> Cells:
        """Cells and what was merged."""
        return enumerate_cells(self.space)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """In the order in which they are tuned."""
        return self.enumeration.cells

    @cached_property
    def unit_points(self) -> list[list[float]]:
        """Points in the unit cube, (draws, nuisance factors), the same for every cell: scrambled Sobol, or all of a grid.

        Up to two lists with a power of two of combinations, Sobol points take each once, too.
        """
        is_power = self.space.draws & (self.space.draws - 1) == 0
        if self.space.takes_each_once and not (is_power and len(self.space.nuisance) <= 2):
            return grid_points(self.space.list_sizes)
        return sobol_points(self.space.draws, len(self.space.nuisance), self.space.settings.seed)

    @property
    def has_tune_stage(self) -> bool:
        """One draw needs no choosing."""
        return self.space.draws > 1

    @property
    def tune_replicates(self) -> tuple[int, ...]:
        """0, -1, ..."""
        return tuple(-k for k in range(self.space.settings.tune_replicates))

    @property
    def confirm_replicates(self) -> tuple[int, ...]:
        """1 to R."""
        return tuple(range(1, self.space.settings.replicates + 1))

    def draw_values(self, cell: Cell, draw: int) -> dict[str, Value]:
        """Nuisance values of a draw in a cell."""
        factors = {**cell.factors, **cell.settings.fixed.model_dump(exclude=set(KNOBS))}
        points = zip(self.space.nuisance, self.unit_points[draw], strict=True)
        return {factor.name: factor.domain(factors).at(u) for factor, u in points}

    def trial(self, cell: Cell, draw: int, replicate: int, stage: str) -> TrialConfig:
        """The configuration of one trial."""
        fixed = cell.settings.fixed
        values = {name: getattr(fixed, name) for name in _COPIED} | self.draw_values(cell, draw)
        if values["lr"] == "file":
            values["lr"] = self.rates[cell.label]
        values |= dict.fromkeys(without_effect(values["optimizer"], values["student"], values["schedule"]))
        return TrialConfig(
            **values,
            stage=stage,
            replicate=replicate,
            loss=cell.loss,
            knobs=dict(cell.knobs),
            test_every_evaluation=cell.settings.protocol == "paper",
            precision=self._resolve("precision", cell),
            engine=self._resolve("engine", cell),
            threads=self.cpus,
            device=self.resolve_device(cell),
            data=self.data_key(cell, replicate),
            versions=of_trial(cell.loss, values["schedule"], self.versions),
        )

    @property
    def versions(self) -> Mapping[str, int]:
        """Of all parts of the code."""
        return VERSIONS if self.stored_versions is None else self.stored_versions

    def resolve_device(self, cell: Cell) -> str:
        """The device of a cell's trials: the setting, or what `auto` means on this machine."""
        return self.device if cell.settings.fixed.device == "auto" else cell.settings.fixed.device

    @property
    def cpus(self) -> int:
        """Cores and threads of each trial."""
        return int(self._resolve("threads", self.cells[0]))

    def asked(self, key: str, cell: Cell) -> Any:
        """A key of AUTO as the space has it."""
        return cell.settings.resources.cpus if key == "threads" else getattr(cell.settings.fixed, key)

    def _resolve(self, key: str, cell: Cell) -> Any:
        """A setting, or what its `auto` means."""
        asked = self.asked(key, cell)
        return asked if asked != "auto" else (self.resolved or {}).get(key, AUTO[key][self.resolve_device(cell)])

    def tune_trials(self) -> Iterator[tuple[Cell, int, TrialConfig]]:
        """(cell, draw, trial), cell by cell, draw by draw; nothing without a tune stage."""
        if not self.has_tune_stage:
            return
        for cell in self.cells:
            for draw in range(self.space.draws):
                for replicate in self.tune_replicates:
                    yield cell, draw, self.trial(cell, draw, replicate, "tune")

    @property
    def trial_counts(self) -> dict[str, int]:
        """Trials per stage, with one confirmed draw per cell; what several cells share is counted once."""
        cells = len(self.cells) - len(self.repeated)
        tune = cells * self.space.draws * len(self.tune_replicates) if self.has_tune_stage else 0
        return {"tune": tune, "confirm": cells * len(self.confirm_replicates)}

    @cached_property
    def repeated(self) -> dict[str, str]:
        """Labels of cells that come to the same training as an earlier one, which is trained once for both, and of which."""
        first: dict[str, str] = {}
        same = {cell.label: first.setdefault(content_hash(_identity(self, cell)), cell.label) for cell in self.cells}
        return {label: earlier for label, earlier in same.items() if label != earlier}

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """Recipes of all prepared data, by key."""
        replicates = (*self.confirm_replicates, *self.tune_replicates)
        return {
            self.data_key(cell, r): recipe(cell, r)
            for cell in self.cells
            for r in (replicates if draws_per_replicate(cell.settings.fixed) else (1,))
        }

    def rung_epochs(self, cell: Cell) -> list[int]:
        """Epochs at which early stopping looks at a tune trial of a cell."""
        stopping = self.space.settings.early_stopping
        if stopping is None:
            return []
        return rungs(stopping.grace_period_epochs, stopping.reduction_factor, cell.settings.fixed.epochs)

    def signature(self) -> dict[str, Any]:
        """What must not change (or only grow) when a sweep of this name continues; kept in plan.json."""
        stopping = self.space.settings.early_stopping
        return {
            "cells": {content_hash(_identity(self, cell)): cell.label for cell in self.cells},
            "draws": self.unit_points,
            "replicates": self.space.settings.replicates,
            "tune_replicates": self.space.settings.tune_replicates,
            "confirm": sorted(self.space.settings.confirm),
            "early_stopping": stopping.model_dump() if stopping else None,
            "versions": self._used_versions(),
        }

    def _used_versions(self) -> dict[str, int]:
        """Of the parts that its data and trials rest on."""
        used: dict[str, int] = {}
        for cell in self.cells:
            used |= self.trial(cell, 0, 1, "confirm").versions
        for made in self.recipes.values():
            used |= made["versions"]
        return used


_COPIED = (
    "optimizer",
    "lr",
    "weight_decay",
    "momentum",
    "betas",
    "schedule",
    "schedule_milestones",
    "schedule_gamma",
    "warmup_epochs",
    "clip_grad_norm",
    "ema_decay",
    "student",
    "width",
    "norm",
    "epochs",
    "batch_size",
    "evaluate_every_epochs",
    "labels",
)


def grid_points(sizes: Sequence[int]) -> list[list[float]]:
    """The middles of all boxes of a grid with so many intervals per dimension, the last one fastest."""
    return [
        [(at + 0.5) / size for at, size in zip(place, sizes, strict=True)]
        for place in itertools.product(*map(range, sizes))
    ]


def sobol_points(draws: int, dimensions: int, seed: int) -> list[list[float]]:
    """The first `draws` (a power of two) points of a scrambled Sobol sequence; more draws keep the first ones."""
    if dimensions == 0:
        return [[] for _ in range(draws)]
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The balance properties")
        points: list[list[float]] = qmc.Sobol(dimensions, scramble=True, rng=seed).random(draws).tolist()
    return points


def rungs(grace_period_epochs: int, reduction_factor: float, epochs: int) -> list[int]:
    """Epochs grace, grace * factor, grace * factor^2, ... below `epochs`."""
    levels, level = [], float(grace_period_epochs)
    while level < epochs:
        levels.append(int(level))
        level = max(level * reduction_factor, int(level) + 1)
    return levels


def why_nothing_stops(plan: Plan) -> str | None:
    """Why early stopping, though asked for, cannot stop any trial of a plan; None if it can, or was not asked for."""
    stopping = plan.space.settings.early_stopping
    if stopping is None:
        return None
    if not plan.has_tune_stage:
        return "it acts in the tune stage only, and nothing is tuned here"
    epochs = max(cell.settings.fixed.epochs for cell in plan.cells)
    if stopping.grace_period_epochs >= epochs:
        return f"grace_period_epochs, {stopping.grace_period_epochs}, is not below epochs, {epochs}"
    if stopping.stratify == "cell" and plan.space.draws < stopping.min_rung_population:
        return f"a cell has {plan.space.draws} draws, fewer than min_rung_population, {stopping.min_rung_population}"
    return None


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Why a plan with signature `new` cannot continue a sweep with signature `old`; empty if equal or larger."""
    problems = []
    known = old.get("versions")  # sweeps from before code had versions have none
    missing = [label for key, label in old["cells"].items() if key not in new["cells"]]
    # of parts that it did not use, those of data may be newer than it, where its cells are not found
    used = {p: n for p, n in new["versions"].items() if known is None or p in known or (missing and "/" not in p)}
    if parts := changed(known or {}, used):
        problems.append(
            f"it was run by a LossAtlas that computes otherwise ({', '.join(parts[:6])}); its table and report can still be read"
        )
    if missing:
        shown = "; ".join(missing[:3]) + ("; ..." if len(missing) > 3 else "")
        problems.append(f"{len(missing)} cells of the sweep are missing or have other fixed settings: {shown}")
    if new["draws"][: len(old["draws"])] != old["draws"]:
        problems.append(f"draws: {len(old['draws'])} -> {len(new['draws'])}, and the first ones must stay")
    for key in ("replicates", "tune_replicates"):
        if new[key] < old[key]:
            problems.append(f"{key}: {old[key]} -> {new[key]}; it can only grow")
    if not set(old["confirm"]) <= set(new["confirm"]):
        problems.append(f"confirm: {old['confirm']} -> {new['confirm']}; it can only grow")
    if old["early_stopping"] != new["early_stopping"]:
        problems.append(f"early_stopping: {old['early_stopping']} -> {new['early_stopping']}")
    return problems


def _identity(plan: Plan, cell: Cell) -> dict[str, Any]:
    """A cell's trials without stage, replicate and nuisance values, with the ranges those come from."""
    config = plan.trial(cell, 0, 0, "tune").as_dict()
    del config["versions"]  # a signature has them by themselves
    if config["engine"] == "eager":
        del config["engine"]  # sweeps from before there were others
    for key in ("betas", "schedule_milestones", "schedule_gamma"):
        if config[key] is None:  # sweeps from before there were such settings
            del config[key]
    factors = {**cell.factors, **cell.settings.fixed.model_dump(exclude=set(KNOBS))}
    ranges = {factor.name: [d.kind, *d.arguments] for factor in plan.space.nuisance for d in [factor.domain(factors)]}
    return {key: value for key, value in config.items() if key not in ranges} | {"ranges": ranges}
