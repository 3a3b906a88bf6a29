"""Cells: combinations of scientific factors in canonical form, each trained once whatever names it has."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search_spaces.settings import Fixed, SpaceSettings
from search_spaces.space import Arm, Space
from trainables.config import GIFT_SMOOTHING, KNOBS, LOSS_KNOBS, KnobValue, canonical_loss, round_float
from trainables.names import (
    BETAS_OPTIMIZERS,
    CLASSES,
    CONVNETS,
    MOMENTUM_OPTIMIZERS,
    STEP_SCHEDULES,
    STUDENTS,
    WITHOUT_NORM,
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One combination of scientific factors in canonical form.

    Attributes:
        label: Unique, readable: the loss, its knobs and the context, joined by commas.
        loss: Canonical loss.
        knobs: Canonical knobs, exactly those with an effect.
        context: Values of the scientific factors that no loss owns.
        arms: Names that own the cell, sorted.
        settings: Everything else, with the context in place.
    """

    label: str
    loss: str
    knobs: Mapping[str, KnobValue]
    context: Mapping[str, Any]
    arms: tuple[str, ...]
    settings: SpaceSettings

    @property
    def factors(self) -> dict[str, Any]:
        """Loss, knobs and context by name."""
        return {"loss": self.loss, **self.knobs, **self.context}


@dataclass(frozen=True, slots=True)
class Cells:
    """All cells of a space and how they came about.

    Attributes:
        cells: In the order of the loss list, then of the axes.
        grid_points: Combinations a naive grid over all axes would train.
        merged: Grid points that are the same training as another, by reason.
    """

    cells: tuple[Cell, ...]
    grid_points: int
    merged: Mapping[str, int]


def enumerate_cells(space: Space) -> Cells:
    """Every cell of a space, equivalent ones merged."""
    found: dict[str, tuple[Cell, set[str], list[str]]] = {}
    merged: Counter[str] = Counter()
    points = 0
    for context in _contexts(space):
        settings = _with_draw(space.at(context))
        classes = CLASSES.get(settings.data.real)
        context, dropped = _canonical_context(context, settings)
        for arm in space.arms:
            missing = _missing_axes(space, arm)
            for knobs in _knob_combinations(space, arm, settings):
                idle = [knob for knob in ("label_swap", "label_top_k") if knobs.get(knob) == classes]
                loss, owned, why = _canonical(arm.loss, knobs | dict.fromkeys(idle, 0), settings.fixed.labels)
                why += [f"{knob} {classes} is all classes" for knob in idle]
                label = cell_label({"loss": loss, **owned, **context})
                points += missing.size
                if missing.size > 1:
                    merged[missing.reason] += missing.size - 1
                if label in found:
                    merged[_why_same(arm, found[label][2], why + dropped)] += 1
                cell = Cell(label, loss, owned, context, (), settings)
                found.setdefault(label, (cell, set(), why))[1].add(arm.name)
    cells = tuple(replace(cell, arms=tuple(sorted(arms))) for cell, arms, _ in found.values())
    return Cells(cells, points, dict(merged))


def _canonical(name: str, knobs: dict[str, KnobValue], labels: str) -> tuple[str, dict[str, KnobValue], list[str]]:
    """`canonical_loss`; under hard labels the whole target is the smoothed hard label, whatever the refinement."""
    if labels != "hard" or (name != "gift" and "refinement" not in knobs):
        return canonical_loss(name, knobs)
    if name == "gift":
        name, knobs = "cosine", {"smoothing": GIFT_SMOOTHING}
    loss, owned, why = canonical_loss(name, {**knobs, "refinement": 1.0})
    return loss, owned, [*why, "hard labels are refinement 1"]


def cell_label(factors: Mapping[str, Any]) -> str:
    """Readable identity of a cell: kl,temperature=4,refinement=0,scale_t2=true,optimizer=adamw."""
    loss = factors["loss"]
    return ",".join([str(loss), *(f"{k}={format_value(v)}" for k, v in factors.items() if k != "loss")])


def format_value(value: object) -> str:
    """A setting in its one spelling: floats to 12 digits, booleans as YAML writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{round_float(float(value)):.12g}" if isinstance(value, int | float) else str(value)


@dataclass(frozen=True, slots=True)
class _MissingAxes:
    """Axes of knobs that an arm's loss does not have: how many grid points they would add, and the reason."""

    size: int
    reason: str


def _missing_axes(space: Space, arm: Arm) -> _MissingAxes:
    names = [k for k in space.axes if k in KNOBS and k not in LOSS_KNOBS[arm.loss]]
    size = 1
    for name in names:
        size *= len(space.axes[name])
    return _MissingAxes(size, f"{arm.loss} has no {' and no '.join(names)}")


def _contexts(space: Space) -> Iterator[dict[str, Any]]:
    names = space.context_factors
    for values in itertools.product(*(space.axes[name] for name in names)):
        yield dict(zip(names, values, strict=True))


def _canonical_context(context: Mapping[str, Any], settings: SpaceSettings) -> tuple[dict[str, Any], list[str]]:
    """A context without factors that have no effect in it."""
    fixed = settings.fixed
    dropped = [name for name in without_effect(fixed.optimizer, fixed.student, fixed.schedule) if name in context]
    owners = {"momentum": fixed.optimizer, "schedule_gamma": fixed.schedule}
    reasons = [f"{owners.get(name, fixed.student)} has no {name}" for name in dropped]
    idle = {name: why for name, why in _idle(settings).items() if name in context}
    if fixed.labels != "projector":
        idle |= {key: f"labels {fixed.labels} have no projector" for key in context if key.startswith("projector.")}
    return {**context, **dict.fromkeys([*dropped, *idle])}, [*reasons, *idle.values()]


def _idle(settings: SpaceSettings) -> dict[str, str]:
    """Factors of the views that change nothing here, and why."""
    fixed, distilled = settings.fixed, settings.data.distilled
    idle = {}
    if fixed.augment != "rrc":
        idle["crop_area_min"] = f"augment {fixed.augment} has no crop_area_min"
    if not can_blank(fixed.augment):
        idle["augment_fill"] = f"augment {fixed.augment} blanks nothing"
    if fixed.augment in ("rrc", "none"):
        strengths = (key for key in Fixed.model_fields if key.startswith("dsa_"))
        idle |= {key: f"augment {fixed.augment} has no {key}" for key in strengths}
    if not has_choice(fixed):
        idle["augment_draw"] = f"augment {fixed.augment} has nothing to draw per batch"
    if fixed.augment == fixed.mix == "none":
        idle["view_draw"] = "views that are all the same are drawn once"
    if fixed.mix == "none":
        idle |= {name: f"mix none has no {name}" for name in ("mix_alpha", "mix_prob", "mix_labels")}
    if fixed.labels in ("hard", "online"):
        idle["label_format"] = f"labels {fixed.labels} are not kept"
    if distilled.label_store and fixed.labels == "stored":
        idle["data_seed"] = "a label store has one draw of the data"
    return idle


def can_blank(augment: str) -> bool:
    """True if an augmentation has an operation that leaves blank pixels."""
    return augment == "dsa" or bool(set(re.split("[_+]", augment)) & {"crop", "cutout", "scale", "rotate"})


def has_choice(fixed: Fixed) -> bool:
    """True if a view's batches have something drawn for them: one operation of several, or how images are mixed."""
    return fixed.augment == "dsa" or "_" in fixed.augment or fixed.mix != "none"


def draws_per_replicate(fixed: Fixed) -> bool:
    """True if each replicate has views of its own."""
    return fixed.view_draw == "replicate" and (fixed.augment, fixed.mix) != ("none", "none")


def draws_per_batch(fixed: Fixed) -> bool:
    """True if views have batches of their own."""
    return has_choice(fixed) and fixed.augment_draw != "image"


def _with_draw(settings: SpaceSettings) -> SpaceSettings:
    """With `augment_draw: image` where the size of a batch is tuned, for a view's batches have one size."""
    if "batch_size" not in settings.nuisance:
        return settings
    return settings.model_copy(update={"fixed": settings.fixed.model_copy(update={"augment_draw": "image"})})


def without_effect(optimizer: str, student: str, schedule: str) -> list[str]:
    """Settings of a trial that its optimizer, its student or its schedule does not have."""
    lacks = [] if optimizer in MOMENTUM_OPTIMIZERS else ["momentum"]
    lacks += [] if optimizer in BETAS_OPTIMIZERS else ["betas"]
    lacks += [] if schedule in STEP_SCHEDULES else ["schedule_gamma"]
    lacks += [] if schedule == "multistep" else ["schedule_milestones"]
    lacks += [] if student in CONVNETS else ["width"]
    return lacks if student in STUDENTS and student not in WITHOUT_NORM else [*lacks, "norm"]


def _knob_combinations(space: Space, arm: Arm, settings: SpaceSettings) -> Iterator[dict[str, KnobValue]]:
    values = space.knob_values(arm, settings.fixed)
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def _why_same(arm: Arm, first: list[str], second: list[str]) -> str:
    """The rewritings that only one of two equal cells went through."""
    reasons = [reason for reason in (*first, *second) if (reason in first) != (reason in second)]
    return "; ".join(reasons) if reasons else f"{arm.name} asks for a cell that another entry has"
