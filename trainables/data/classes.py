"""Are classes mixed up? A test of labels against a teacher, class by class.

Notations: C classes; K (C, C) counts of images by label and by the class that the teacher says; pi a permutation of classes;
R (C, C) how often the teacher says each class for real images of a class, rows sum to 1.

Model: an image that is labelled y and shows class pi(y) is taken for class k with probability
(1 - u) R[pi(y), k] + u / C, with u in [0, 1] the share of images that the teacher cannot make out. The likelihood of the labels
as they are (pi the identity) is compared with that of the best permutation, each at its own best u. Images of one class of a
distilled set are alike and err together, so n of them count as n / (1 + (n - 1) rho).

The evidence for a circle of l classes is the gain in log-likelihood that it alone brings, less the logarithm of the number of
such circles, C! / ((C - l)! l): the price of having searched for it. Above log 10^4 it is sure, above log 10 it is doubtful.
Besides, the images of a circle must look like the other class, and all images like the classes of the permutation: 0.6 of
them where it is sure, 0.4 where it is doubtful. Errors of a teacher that recognises fewer follow the class too closely to tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from trainables.findings import MixUp

#: Evidence, in nats.
SURE: Final = math.log(1e4)
DOUBTFUL: Final = math.log(10)
#: Share of the images that must look like a class of the permutation, all of them and those of a circle.
KNOWN_SURE: Final = 0.6
KNOWN_DOUBTFUL: Final = 0.4
#: Correlation of errors within a class.
RHO: Final = 0.1
#: Values of u that are tried.
NOISE: Final = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
#: Images of each class and prediction that R is smoothed by.
SMOOTHING: Final = 0.1


def find_mix_ups(
    counts: np.ndarray, real: np.ndarray | None, names: Sequence[str], *, images: str
) -> tuple[list[MixUp], str]:
    """Circles of classes that look like each other, and what the test could tell.

    Args:
        counts: K of the images in question.
        real: K of real images, whose labels are taken to be right; None: every class is taken for itself.
        names: Names of the classes.
        images: What the images are called.

    Returns:
        Mix-ups; and "failed", "doubtful", "passed", or a sentence that says why it cannot tell.
    """
    effective = _effective(counts)
    rates = _rates(real, len(names))
    right, _ = _likelihood(effective, rates, np.arange(len(names)))
    permutation = _best_permutation(effective, rates)
    known = float(counts[np.arange(len(names)), permutation].sum() / max(counts.sum(), 1))
    found = []
    for circle in _circles(permutation):
        alone = np.arange(len(names))
        alone[circle] = permutation[circle]
        gain = _likelihood(effective, rates, alone)[0] - right
        evidence = gain - _log_circles(len(names), len(circle))
        hits, own = int(counts[circle, permutation[circle]].sum()), int(counts[circle, circle].sum())
        share = hits / counts[circle].sum()
        is_sure = evidence > SURE and min(share, known) >= KNOWN_SURE and hits >= 4 * own
        if evidence > DOUBTFUL and min(share, known) >= KNOWN_DOUBTFUL and hits >= 2 * own:
            found.append(_mix_up(circle, permutation, counts, names, images, is_sure=is_sure))
    found.sort(key=lambda mix_up: not mix_up.is_sure)
    if found:
        return found, "failed" if found[0].is_sure else "doubtful"
    return [], _power(effective, rates)


def _effective(counts: np.ndarray) -> np.ndarray:
    """Counts of as many independent images as those of each class are worth."""
    n = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / (1 + np.maximum(n - 1, 0) * RHO))


def _rates(real: np.ndarray | None, classes: int) -> np.ndarray:
    """R."""
    if real is None:
        return np.eye(classes)
    smoothed = real + SMOOTHING / classes
    return np.asarray(smoothed / smoothed.sum(axis=1, keepdims=True))


def _likelihood(counts: np.ndarray, rates: np.ndarray, permutation: np.ndarray) -> tuple[float, float]:
    """The largest log-likelihood over u, and that u."""
    shown = rates[permutation]
    values = [(float((counts * np.log((1 - u) * shown + u / len(shown))).sum()), u) for u in NOISE]
    return max(values)


def _best_permutation(counts: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Permutation of the largest likelihood, by assignment at each u."""
    best, found = -math.inf, np.arange(len(counts))
    for u in NOISE[:-1]:
        gains = counts @ np.log((1 - u) * rates + u / len(rates)).T  # [label, class shown]
        gains[np.diag_indices(len(gains))] += 1e-9  # ties stay as they are labelled
        rows, columns = linear_sum_assignment(gains, maximize=True)
        value = float(gains[rows, columns].sum())
        if value > best:
            best, found = value, columns
    return found


def _circles(permutation: np.ndarray) -> list[np.ndarray]:
    """Cycles of a permutation that move something, each as the classes in order."""
    left, circles = set(np.flatnonzero(permutation != np.arange(len(permutation))).tolist()), []
    while left:
        circle = [min(left)]
        while (following := int(permutation[circle[-1]])) != circle[0]:
            circle.append(following)
        left -= set(circle)
        circles.append(np.array(circle))
    return circles


def _log_circles(classes: int, length: int) -> float:
    """Logarithm of C! / ((C - l)! l)."""
    return math.lgamma(classes + 1) - math.lgamma(classes - length + 1) - math.log(length)


def _mix_up(  # noqa: PLR0913 (what it names)
    circle: np.ndarray, permutation: np.ndarray, counts: np.ndarray, names: Sequence[str], images: str, *, is_sure: bool
) -> MixUp:
    return MixUp(
        images=images,
        labelled=tuple(names[c] for c in circle),
        looks_like=tuple(names[permutation[c]] for c in circle),
        hits=tuple(int(counts[c, permutation[c]]) for c in circle),
        counts=tuple(int(counts[c].sum()) for c in circle),
        is_sure=is_sure,
    )


def _power(counts: np.ndarray, rates: np.ndarray) -> str:
    """The word "passed", or why an exchange of two classes could have been missed: what it would have shown, at the noise there is."""
    _, u = _likelihood(counts, rates, np.arange(len(rates)))
    seen = (1 - u) * rates + u / len(rates)
    n = counts.sum(axis=1)
    logs = np.log(seen)
    gains = n * (np.diag(seen @ logs.T) - (seen * np.roll(logs, 1, axis=0)).sum(axis=1))
    expected = 2 * float(np.median(gains)) - _log_circles(len(rates), 2)
    if expected > SURE:
        return "passed"
    accuracy = float(np.trace(counts) / max(counts.sum(), 1e-9))
    return f"cannot tell single classes: too few images, or too few that the teacher recognises ({accuracy:.0%})"
