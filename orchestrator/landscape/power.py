"""What a design with R replicates can detect, before anything is trained."""

from __future__ import annotations

import math

DEFAULT_RHO = 0.4


def minimum_detectable_effect(
    *, sigma: float, replicates: int, rho: float = DEFAULT_RHO, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest true difference of two cells that a paired, two-sided t test finds with the given power.

    The paired differences have sd sigma sqrt(2 (1 - rho)); delta solves
    P(|T'| > t_{1 - alpha / 2, R - 1}) = power for T' noncentral t with noncentrality delta sqrt(R) / sd.

    Args:
        sigma: Standard deviation of one accuracy over replicates, > 0.
        replicates: R >= 2.
        rho: Correlation of two cells at the same replicate, < 1.
        alpha: Two-sided level of the test.
        power: Wanted probability of detection.

    Returns:
        The difference, in the unit of sigma; NaN for R < 2.

    Source: textbook; Jordan 2023, arXiv:2304.01910, for sigma from the size of the test split.
    """
    if replicates < 2:
        return math.nan
    from statsmodels.stats.power import TTestPower  # takes a second to load

    in_sd = TTestPower().solve_power(nobs=replicates, alpha=alpha, power=power, alternative="two-sided")
    return float(in_sd * sigma * math.sqrt(2 * (1 - rho)))


def assumed_sigma(error: float, n_test: int) -> float:
    """sqrt(err / (2 n_test)): a floor for the sd of test accuracy over trainings (Jordan 2023, arXiv:2304.01910)."""
    return math.sqrt(error / (2 * n_test))


def smallest_p(replicates: int) -> float:
    """The smallest two-sided p of an exact sign-flip test on R pairs: 2 / 2^R."""
    return float(2 / 2**replicates)


def replicates_needed(pairs: int, alpha: float = 0.05) -> int:
    """R at which the smallest Holm-adjusted sign-flip p can reach alpha: ceil(1 + log2(m / alpha))."""
    return math.ceil(1 + math.log2(pairs / alpha))
