"""Versions of the code that results depend on, part by part; they belong to the ids of data and trials.

A part whose numbers change gets a higher version, so that what rests on it is made anew and nothing else is. A test holds every
part to the numbers of its version (CONTRIBUTING.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trainables.config import LOSS_KNOBS
from trainables.names import SCHEDULES

VERSIONS: Final[Mapping[str, int]] = {
    "real": 2,  # readers of real data, their split, normalisation and whitening
    "distilled": 3,  # readers and makers of distilled sets
    "augmentation": 1,  # drawing and rendering of views
    "labels": 1,  # labelling, rounding and projecting
    "teachers": 1,  # training of teachers
    "readings": 1,  # how a checkpoint is meant: its layers, operations and pixels
    "networks": 1,
    "loop": 1,  # of students: steps, streams, evaluation
    "targets": 1,  # refinement and edits of labels
    "optimizers": 1,
    **dict.fromkeys((f"loss/{name}" for name in LOSS_KNOBS if name not in ("soft_ce", "gift")), 1),
    **dict.fromkeys((f"schedule/{name}" for name in SCHEDULES), 1),
}
#: Parts that all prepared data rest on, and those that only data with a network do: trained here, or from a file.
OF_DATA: Final = ("real", "distilled", "augmentation", "labels")
OF_TEACHERS: Final = ("teachers", "networks")
OF_CHECKPOINTS: Final = ("readings", "networks")
#: Parts that all trials rest on, besides their loss and schedule.
OF_TRIALS: Final = ("loop", "networks", "targets", "optimizers")


def of_trial(loss: str, schedule: str, versions: Mapping[str, int] = VERSIONS) -> dict[str, int]:
    """Versions of the parts that a trial rests on; parts that `versions` lacks are left out.

    Args:
        loss: Canonical loss.
        schedule: A name of SCHEDULES.
        versions: All that are known, of this LossAtlas or of the one that ran a sweep.
    """
    parts = (*OF_TRIALS, f"loss/{loss}", f"schedule/{schedule}")
    return {part: versions[part] for part in parts if part in versions}


def of_data(teacher: Mapping[str, Any] | None, projector: Mapping[str, Any] | None = None) -> dict[str, int]:
    """Versions of the parts that prepared data rest on.

    Args:
        teacher: How it is made, as a recipe has it; None: there is none.
        projector: Likewise.
    """
    used = [*OF_DATA]
    if teacher is not None:
        used += OF_CHECKPOINTS if "weights" in teacher else OF_TEACHERS
    if projector is not None:
        used += OF_CHECKPOINTS if "weights" in projector else ("networks",)
    return {part: VERSIONS[part] for part in used}


def changed(old: Mapping[str, int], new: Mapping[str, int] = VERSIONS) -> list[str]:
    """Parts of which `old` has another version, or none, in words."""
    return [f"{part} {old.get(part, 'unknown')} -> {new[part]}" for part in sorted(new) if old.get(part) != new[part]]
