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

#: How far below 0 and above 1 probabilities are taken to be that were learned further, and their sums from 1.
_LEARNED_FAR: Final = 0.2
_LEARNED_SUM: Final = 0.25
#: Relative difference of the sums of rows that are shares of one whole, such as percent.
_WHOLE: Final = 0.01
#: Of centred labels that were learned further: how far they went, and the least median distance of the two largest entries.
_CENTRED_LEARNED: Final = 0.6
_GAP: Final = 0.3


@dataclass(frozen=True, slots=True)
class Rows:
    """What rows of soft labels are.

    Attributes:
        kind: "prob", "logprob", "logit" or "centred"; None if the values cannot tell.
        remark: What is done to them or doubtful about them, a sentence; "" if nothing is.
    """

    kind: str | None
    remark: str = ""


def kind_of_rows(soft: Tensor, *, may_be_learned: bool = True) -> Rows:
    """What rows of soft labels are.

    Args:
        soft: (N, C), finite.
        may_be_learned: They may have been learned, so that they are no more what they began as; False for a network's outputs.
    """
    rows = soft.double()
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(dim=1)
    if low >= -1e-3 and high <= 1 + ROUNDING:
        return _of_unit_range(rows, sums)
    if high <= 1e-2:
        return _of_negative(rows)
    if _is_centred(rows):
        return Rows("centred", "soft labels are centred (one-hot less 1 / C): for squared errors and angles.")
    doubt = _doubt_about_logits(rows, sums) if may_be_learned else ""
    return Rows(None, f"{doubt}; state label_kind.") if doubt else Rows("logit")


def possible_kinds(soft: Tensor) -> dict[str, str]:
    """Kinds that a user may state of rows: by kind "" if it is possible, else why it is not."""
    rows = soft.double()
    low, high, sums = float(rows.min()), float(rows.max()), rows.sum(dim=1)
    found, most = kind_of_rows(soft).kind, 1 + max(ROUNDING, _TWO_DECIMALS * rows.shape[1])
    shown = f"they are {low:.3g} to {high:.3g}, their sums {float(sums.min()):.3g} to {float(sums.max()):.3g}"
    are_shares = low >= -1e-3 and high <= 1 + ROUNDING and bool(((sums > 0) & (sums < most)).all())
    are_shares = are_shares or _are_nearly_shares(rows, sums) or _are_of_one_whole(rows, sums)
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


def correction(soft: Tensor, kind: str) -> str:
    """What `as_kind` changes in rows that a user states to be probabilities, a sentence; "" where it is rounding or nothing."""
    if kind != "prob":
        return ""
    rows = soft.double()
    whole = float(rows.sum(dim=1).median())
    scaled = rows / whole if whole > 0 and abs(whole - 1) > _LEARNED_SUM else rows
    change = float((as_kind(scaled, kind).double() - scaled).abs().max())
    said = "" if scaled is rows else f" their sum (about {whole:.4g}), and so by"
    if change < ROUNDING / 2 and scaled is rows:
        return ""
    return (
        f"soft labels are stated to be probabilities: negative ones become 0 and rows are divided by{said} what makes them "
        f"sum to 1; the largest correction of a probability is {change:.2g}."
    )


def _doubt_about_logits(rows: Tensor, sums: Tensor) -> str:
    """Why rows may be something else than logits, without a full stop; "" if nothing speaks for that."""
    shown = f"soft labels are {float(rows.min()):.3g} to {float(rows.max()):.3g}"
    if _are_nearly_shares(rows, sums):
        return f"{shown} and sum to {float(sums.min()):.3g} to {float(sums.max()):.3g}, as probabilities that were learned do"
    if _are_of_one_whole(rows, sums):
        return f"{shown} and every row sums to about {float(sums.median()):.4g}, as shares of one whole do (prob)"
    if _are_two_numbers(rows):
        return f"{shown} and have one large number per row, all others equal: one-hot rows, moved or scaled (centred or hard)"
    scale = (rows.shape[1] / 10) ** 0.5  # by which FRePo divides
    if _may_be_centred(rows) or _may_be_centred(rows * scale):
        return f"{shown} with one entry far above the others and small sums, as one-hot rows less 1 / C that were learned do"
    return ""


def _are_nearly_shares(rows: Tensor, sums: Tensor) -> bool:
    """Probabilities that were learned further, without what keeps them probabilities."""
    inside = float(rows.min()) >= -_LEARNED_FAR and float(rows.max()) <= 1 + _LEARNED_FAR
    return inside and bool(((sums - 1).abs() <= _LEARNED_SUM).all())


def _are_of_one_whole(rows: Tensor, sums: Tensor) -> bool:
    """Numbers that are not negative and sum to one constant, up to the rounding of whole numbers (percent, bytes)."""
    whole = float(sums.median())
    rounding = 0.1 * rows.shape[1] if bool((rows == rows.round()).all()) else 0.0
    is_uneven = float(rows.min()) < 0.5 * whole / rows.shape[1]  # logits far above 0 have steady sums, too
    is_share = whole > 0 and is_uneven and float(rows.min()) >= -_WHOLE * whole
    return is_share and bool(((sums - whole).abs() <= _WHOLE * whole + rounding).all())


def _are_two_numbers(rows: Tensor) -> bool:
    """The same large number in every row, the same small one in all other places."""
    ordered = rows.sort(dim=1).values
    small, large = ordered[:, :-1], ordered[:, -1]
    width = float(large.max() - small.min())
    return width > 0 and float(large.max() - large.min()) + float(small.max() - small.min()) < 1e-3 * width


def _may_be_centred(rows: Tensor) -> bool:
    """One-hot less 1 / C, learned further than `_is_centred` takes for granted."""
    classes = rows.shape[1]
    if float(rows.min()) < -1 / classes - _CENTRED_LEARNED or float(rows.max()) > 1 + _CENTRED_LEARNED:
        return False
    first, second = rows.topk(2, dim=1).values.unbind(dim=1)
    return float((first - second).median()) >= _GAP and float(rows.sum(dim=1).abs().median()) < 0.15 * classes**0.5


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
