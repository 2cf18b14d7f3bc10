"""Intervals: a bootstrap over problems that all heads share, and binomial proportions."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats as scipy_stats


def resample_weights(
    n_problems: int, *, n_resamples: int = 1000, seed: int = 0
) -> Float[np.ndarray, "resample problem"]:
    """How much each problem weighs in each bootstrap resample; a row sums to 1.

    One draw serves all heads, so that a difference between heads is resampled as a difference.

    >>> resample_weights(4, n_resamples=2, seed=0).sum(axis=1)
    array([1., 1.])
    """
    draws = np.random.default_rng(seed).multinomial(
        n_problems, np.full(n_problems, 1 / n_problems), size=n_resamples
    )
    return draws / n_problems


def percentile_interval(
    samples: Float[np.ndarray, "resample *statistic"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "*statistic"], Float[np.ndarray, "*statistic"]]:
    """The percentile bootstrap interval of each statistic.

    >>> low, high = percentile_interval(np.arange(101.0))
    >>> round(float(low), 6), round(float(high), 6)
    (2.5, 97.5)
    """
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (scipy).

    >>> [round(bound, 3) for bound in wilson_interval(99, 100)]
    [0.946, 0.998]
    """
    interval = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
