"""Kinds of soft labels: what rows of numbers are, decided where their values decide it.

Notations: l rows of soft labels, (N, C).

==========  ==================================================================================================
prob        0 <= l <= 1 and every row sums to 1, within the rounding of the numbers
logprob     l <= 0 and log sum exp l = 0: logarithms of probabilities
logit       a network's outputs, before any softmax
centred     one-hot rows less 1 / C, perhaps learned further: targets of a squared error (RFAD, FRePo)
hard        class indices; the kind of soft labels of which only the largest entry is to count
==========  ==================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

#: Largest difference from 1 of a row of probabilities that were stored in few bits.
ROUNDING: Final = 0.02
#: Largest rounding of one probability that was written with two decimals, with room for floats.
_TWO_DECIMALS: Final = 0.0051
#: Least sum of a row of probabilities that was cut to its largest classes.
_LEAST_KEPT: Final = 0.3
#: Largest sum of a row of centred labels, and the distance of its entries from one-hot less 1 / C.
_CENTRED_SUM: Final = 0.2
_CENTRED_FAR: Final = 0.3


@dataclass(frozen=True, slots=True)
class Rows:
    """What rows of soft labels are.

    Attributes:
        kind: "prob", "logprob", "logit" or "centred"; None if the values cannot tell.
        remark: What is done to them or doubtful about them, a sentence; "" if nothing is.
    """

    kind: str | None
    remark: str = ""


def kind_of_rows(soft: Tensor) -> Rows:
    """What rows of soft labels are.

    Args:
        soft: (N, C), finite.
    """
    rows = soft.double()
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(dim=1)
    if low >= -1e-3 and high <= 1 + ROUNDING:
        return _of_unit_range(rows, sums)
    if high <= 1e-2:
        return _of_negative(rows)
    if _is_centred(rows):
        return Rows("centred", "soft labels are centred (one-hot less 1 / C): for squared errors and angles.")
    return Rows("logit")


def possible_kinds(soft: Tensor) -> dict[str, str]:
    """Kinds that a user may state of rows: by kind "" if it is possible, else why it is not."""
    rows = soft.double()
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(dim=1)
    found, most = kind_of_rows(soft).kind, 1 + max(ROUNDING, _TWO_DECIMALS * rows.shape[1])
    shown = f"they are {low:.3g} to {high:.3g}, their sums {float(sums.min()):.3g} to {float(sums.max()):.3g}"
    are_shares = low >= -1e-3 and high <= 1 + ROUNDING and bool(((sums > 0) & (sums < most)).all())
    are_logs = high <= 1e-2 and bool((rows.logsumexp(dim=1) < 0.1).all())
    is_taken = {"prob": "every row is a distribution", "logprob": "rows are logarithms of probabilities"}
    return {
        "prob": "" if are_shares else f"rows are negative or do not sum to 1 ({shown})",
        "logprob": "" if are_logs else f"rows are above 0, or their exponentials are no shares ({shown})",
        "logit": is_taken["prob"] if found == "prob" else "",
        "centred": is_taken.get(found or "", ""),
        "hard": "",
    }


def as_kind(soft: Tensor, kind: str) -> Tensor:
    """Rows as float32; probabilities renormalised, so that each row sums to 1."""
    rows = soft.float()
    if kind != "prob":
        return rows
    rows = rows.clamp_min(0)
    return rows / rows.sum(dim=1, keepdim=True)


def _of_unit_range(rows: Tensor, sums: Tensor) -> Rows:
    """Rows in [0, 1]: probabilities, if what they lack of 1 is their rounding, or classes that were cut off."""
    off = float((sums - 1).abs().max())
    if off < 1e-3:
        return Rows("prob")
    said = f"soft labels are probabilities whose rows sum to {float(sums.min()):.4g} to {float(sums.max()):.4g}"
    if off < ROUNDING or (_has_few_decimals(rows) and off <= min(_TWO_DECIMALS * rows.shape[1], 1 - _LEAST_KEPT)):
        return Rows("prob", f"{said} (rounded); they are divided by the sums.")
    zeros = (rows == 0).any(dim=1)
    if bool((zeros & (sums > _LEAST_KEPT) & (sums < 1 + ROUNDING)).all()):
        return Rows("prob", f"{said} (cut to the largest classes); they are divided by the sums.")
    return Rows(None, f"soft labels are 0 to 1, but {said.partition('whose ')[2]}; state label_kind (prob or logit).")


def _of_negative(rows: Tensor) -> Rows:
    """Rows at most 0: logarithms of probabilities, if their exponentials sum to 1."""
    sums = rows.exp().sum(dim=1)
    if bool(((sums - 1).abs() < ROUNDING).all()):
        return Rows("logprob", "soft labels are logarithms of probabilities.")
    if bool(((sums > _LEAST_KEPT) & (sums < 1 + ROUNDING)).all()):
        shown = f"exponentials sum to {float(sums.min()):.3g} to {float(sums.max()):.3g}"
        return Rows(None, f"soft labels are at most 0 and their {shown}; state label_kind (logprob or logit).")
    return Rows("logit")


def _has_few_decimals(rows: Tensor) -> bool:
    """Every number has at most two decimals."""
    return bool(((rows * 100).round() / 100 - rows).abs().max() < 1e-3)


def _is_centred(rows: Tensor) -> bool:
    """Near one-hot less 1 / C, for each row's largest class."""
    classes = rows.shape[1]
    one_hot = torch.nn.functional.one_hot(rows.argmax(dim=1), classes).double() - 1 / classes
    near = float((rows - one_hot).abs().max()) < _CENTRED_FAR
    return near and bool((rows.sum(dim=1).abs() < _CENTRED_SUM).all())
