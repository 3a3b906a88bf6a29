"""How accuracy grows with a number, such as images per class: a power law with intervals, which does not extrapolate silently.

Notations: x_1 < ... < x_k the levels of the number, k >= 4; R replicates, the same seeds at every level; y (k, R) accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from orchestrator.landscape.values import arm_values, by_replicate, confirmed, jackknife, mean_interval

#: Three parameters need a fourth level to be wrong about.
FEWEST_LEVELS: Final = 4
PARAMETERS: Final = ("floor", "scale", "exponent")
#: A parameter below this is at its bound, 0.
AT_BOUND: Final = 1e-6


@dataclass(frozen=True)
class PowerLaw:
    """Error as floor + scale * x^-exponent, fitted to the mean error of each level by least squares.

    Attributes:
        parameters: (3,): floor >= 0, the error that no number of images goes below; scale >= 0; exponent >= 0.
        low, high: (3,): 95 % jackknife intervals over replicates; NaN with fewer than 3, and where a fit stays at its bound.
        points: A row per level: x, accuracy, low, high (t interval), fitted, residual (accuracy - fitted).
    """

    parameters: np.ndarray
    low: np.ndarray
    high: np.ndarray
    points: pd.DataFrame

    def at(self, x: float, *, extrapolate: bool = False) -> float:
        """Fitted accuracy at x.

        Raises:
            ValueError: If x lies outside the levels that were measured, unless `extrapolate`.
        """
        lowest, highest = self.points.x.min(), self.points.x.max()
        if not lowest <= x <= highest and not extrapolate:
            raise ValueError(
                f"`{lowest:g} <= x <= {highest:g}` must hold, got {x:g}: nothing was measured there; extrapolate=True says "
                "what the fit would be."
            )
        return float(1 - _error(self.parameters, np.array([float(x)]))[0])


def fit_power_law(x: Sequence[float], y: np.ndarray) -> PowerLaw:
    """Fit the mean error of k levels.

    1 - y = floor + scale * x^-exponent

    Args:
        x: Levels, (k,), all > 0.
        y: Accuracies (k, R), complete.

    Raises:
        ValueError: If there are fewer than 4 levels, or y has another shape or holes.

    Source: Rosenfeld et al. 2020, arXiv:1909.12673, in one dimension; the delete-one jackknife as in docs/method.md.
    """
    levels = np.asarray(x, dtype=float)
    if len(levels) < FEWEST_LEVELS or (levels <= 0).any():
        raise ValueError(f"a power law needs at least {FEWEST_LEVELS} levels above 0, got {list(x)}.")
    if y.ndim != 2 or len(y) != len(levels) or np.isnan(y).any():
        raise ValueError(f"accuracies must be ({len(levels)}, R) without holes, got {y.shape}.")
    parameters = _fit(levels, 1 - y.mean(axis=1))
    low, high = jackknife(y, lambda part: _fit(levels, 1 - part.mean(axis=1), parameters), parameters)
    stuck = (parameters < AT_BOUND).any() & (high - low < AT_BOUND)  # at 0 whatever is left out: that is no certainty
    low, high = np.where(stuck, np.nan, low), np.where(stuck, np.nan, high)
    points = pd.DataFrame([mean_interval(row, (0.0, 1.0)) for row in y], columns=["accuracy", "low", "high"])
    fitted = 1 - _error(parameters, levels)
    frame = points.assign(x=levels, fitted=fitted, residual=points.accuracy - fitted)
    return PowerLaw(parameters, np.maximum(low, 0), high, frame)


def _error(parameters: np.ndarray, x: np.ndarray) -> np.ndarray:
    floor, scale, exponent = parameters
    return np.asarray(floor + scale * x**-exponent)


def _fit(x: np.ndarray, error: np.ndarray, near: np.ndarray | None = None) -> np.ndarray:
    """Least squares from several exponents, for the sum of squares has more than one minimum; or from a fit that is near."""
    starts = [np.array([error.min() / 2, error[0], exponent]) for exponent in (0.1, 0.3, 1.0, 3.0)]
    starts = starts if near is None else [np.maximum(near, 1e-6)]
    bounds = ([0, 0, 0], [1, np.inf, 20])
    fits = [least_squares(lambda p: _error(p, x) - error, start, bounds=bounds, xtol=1e-12) for start in starts]
    return np.asarray(min(fits, key=lambda fit: fit.cost).x)


def scaling_laws(table: pd.DataFrame, factor: str) -> dict[tuple[str, ...], PowerLaw]:
    """A power law per arm and combination of the other contexts, over a context factor of numbers.

    Each arm is represented at every level by its cell with the best `tune` validation.

    Returns:
        By (arm, values of the other contexts); only what was measured at 4 levels or more, on the same replicates.
    """
    measured = _accuracies(table, factor)
    return {
        key: fit_power_law(list(x), y.to_numpy())
        for key, (x, y) in measured.items()
        if len(x) >= FEWEST_LEVELS and y.shape[1]
    }


def hard_label_worth(table: pd.DataFrame, factor: str) -> pd.DataFrame:
    """How many images with hard labels (`ce`) reach the accuracy of a number of images with soft ones.

    Between measured numbers accuracy is taken as linear in the number's logarithm; numbers of hard labels that are no better than
    a smaller one are passed over; beyond the measured numbers nothing is said. Replicates count that both have.

    Returns:
        One row per soft arm, other context and level: level, other contexts, the factor, accuracy, n, images (NaN beyond the
        measured numbers), low, high (95 % jackknife interval over replicates, computed on logarithms and cut at the measured
        numbers; NaN where leaving out a replicate leads beyond them), beyond ("more" or "fewer" where images is NaN, else "").
        Empty without `ce`.
    """
    others = [name for name in table.attrs.get("contexts", []) if name != factor]
    measured, rows = _accuracies(table, factor), []
    for (level, *rest), (x, y) in measured.items():
        if level == "ce" or ("ce", *rest) not in measured:
            continue
        hard_x, hard_y = measured["ce", *rest]
        for number, at in enumerate(x):
            both = pd.concat([y.iloc[number], hard_y.T], axis=1, join="inner").to_numpy().T
            if both.size:
                row = {"level": level, **dict(zip(others, rest, strict=True)), factor: at, "accuracy": both[0].mean()}
                rows.append(row | _worth(both, hard_x))
    columns = ["level", *others, factor, "accuracy", "n", "images", "low", "high", "beyond"]
    return pd.DataFrame(rows, columns=columns)


def _worth(accuracies: np.ndarray, x: np.ndarray) -> dict[str, float | int | str]:
    """Of row 0 of accuracies (1 + k, R) among rows 1 to k, which belong to x."""
    log = _log_images(accuracies, x)
    low, high = jackknife(accuracies, lambda part: _log_images(part, x), log)
    beyond = (
        "" if np.isfinite(log[0]) else "more" if accuracies[0].mean() > accuracies[1:].mean(axis=1).max() else "fewer"
    )
    cut = np.exp(np.clip([low[0], high[0]], np.log(x.min()), np.log(x.max())))
    images = float(np.exp(log[0]))
    return {"n": accuracies.shape[1], "images": images, "low": cut[0], "high": cut[1], "beyond": beyond}


def _log_images(accuracies: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Logarithm of the x at which rows 1 to k (of accuracies (1 + k, R)) reach row 0; NaN outside."""
    wanted, *levels = accuracies.mean(axis=1)
    best = np.maximum.accumulate(levels)
    better = np.concatenate([[True], best[1:] > best[:-1]])
    inside = best[0] <= wanted <= best[-1]
    return np.array([np.interp(wanted, best[better], np.log(x[better])) if inside else np.nan])


def _accuracies(table: pd.DataFrame, factor: str) -> dict[tuple[str, ...], tuple[np.ndarray, pd.DataFrame]]:
    """Levels of a number (k,) and accuracies (k rows, a column per replicate that all have), by arm and other contexts."""
    others = [name for name in table.attrs.get("contexts", []) if name != factor]
    rows, found = confirmed(table), {}
    for key, arm in arm_values(table).groupby(["level", *others], sort=False, dropna=False):
        arm = arm[arm[factor] > 0].sort_values(factor)
        series = [by_replicate(rows[rows.cell.isin(members)], "test_accuracy") for members in arm.members]
        if series:
            together = pd.concat(series, axis=1, join="inner").T
            found[tuple(map(str, key))] = arm[factor].to_numpy(dtype=float), together
    return found
