"""Hard labels of sets that came with soft ones only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainables.formats.found import Found

#: Least share of soft labels whose largest entry is the class of their position, where positions are taken.
AGREEMENT: Final = 0.75
#: Layouts whose readers define positions as labels, class after class.
_BY_POSITION: Final = ("dd-ranking",)
#: Layouts whose code writes class after class and learns the soft labels further, so that their largest entries drift.
_CLASS_AFTER_CLASS: Final = ("datm", "tesla")

#: Classes that a message names.
_SHOWN: Final = 5


def hard_labels(found: Found, given: Mapping[str, Any], path: Path) -> tuple[Tensor, str]:
    """Hard labels, and where they are from if the file does not hold them, in a sentence.

    The largest entry of each soft label; the class of its position in layouts that are class after class, where nearly all
    largest entries agree with that and no class is exchanged for another, or where the user states `class_order: index`.

    Args:
        found: With `hard` or `soft`.
        given: Keys of STATED that the user gave.
        path: For messages.

    Raises:
        ValueError: If positions are asked for that cannot be.
    """
    if found.hard is not None:
        return found.hard, ""
    soft = found.soft
    assert soft is not None
    largest, positions = soft.argmax(dim=1), class_after_class(soft)
    if given.get("label_kind") == "hard":
        return largest, ""
    is_stated = given.get("class_order") == "index" and found.format in (*_BY_POSITION, *_CLASS_AFTER_CLASS)
    if positions is None:
        if is_stated:
            raise ValueError(
                f"{path}: {len(soft)} images cannot be the same number of each of {soft.shape[1]} classes."
            )
        return largest, "hard labels are the largest entries of the soft labels."
    agree, exchanged = (largest == positions).float().mean().item(), exchanged_classes(largest, soft.shape[1])
    may_be = found.format in (*_BY_POSITION, *_CLASS_AFTER_CLASS)
    if is_stated or (may_be and agree >= AGREEMENT and not exchanged):
        said = f"the largest soft label is another class for {1 - agree:.0%} of the images." if agree < 1 else ""
        return positions, f"hard labels are positions, class after class; {said}" if said else ""
    if found.format in _BY_POSITION:
        raise ValueError(
            f"{path}: {found.format} counts positions as labels, but the largest soft label is another class for "
            f"{1 - agree:.0%} of the images{_in_words(exchanged)}; state class_order: index (positions) or label_kind: hard "
            "(largest entries)."
        )
    said = f"hard labels are the largest entries of the soft labels{_in_words(exchanged) if may_be else ''}."
    return largest, said if agree < 1 else ""


def exchanged_classes(largest: Tensor, classes: int) -> dict[int, int]:
    """Classes, by position, most of whose images have one same other class as the largest entry: to that other class.

    A single image says little, because learned labels drift; classes of one image count where they lead back to themselves.

    Args:
        largest: (N,) largest entry of each soft label, N a multiple of `classes`.
        classes: C.
    """
    rows = largest.view(classes, -1)
    most = rows.mode(dim=1).values
    shares = (rows == most[:, None]).float().mean(dim=1)
    other = {k: int(most[k]) for k in range(classes) if int(most[k]) != k and shares[k] > 0.5}
    return other if rows.shape[1] > 1 else {k: other[k] for k in other if _leads_back(k, other)}


def _leads_back(start: int, other: Mapping[int, int]) -> bool:
    """Going from class to class, one comes to the first again."""
    place: int | None = other[start]
    for _ in other:
        if place is None or place == start:
            break
        place = other.get(place)
    return place == start


def _in_words(exchanged: Mapping[int, int]) -> str:
    """Which classes positions and soft labels disagree about; "" for none."""
    shown = ", ".join(f"{k} (soft labels: {other})" for k, other in list(exchanged.items())[:_SHOWN])
    more = f" and {len(exchanged) - _SHOWN} more" if len(exchanged) > _SHOWN else ""
    return f"; by position they would be another class for most images of class {shown}{more}" if exchanged else ""


def class_after_class(soft: Tensor) -> Tensor | None:
    """Labels by position, the same number of images of each class; None where that cannot be."""
    ipc, rest = divmod(len(soft), soft.shape[1])
    return None if rest or not ipc else torch.arange(soft.shape[1]).repeat_interleave(ipc)
