"""Intervals and multiplicity: a bootstrap over problems that all heads share, and q-values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Real
from scipy import stats as scipy_stats


def resample_weights(
    n_problems: int, *, n_resamples: int = 1000, size: int | None = None, seed: int = 0
) -> Float[np.ndarray, "resample problem"]:
    """How much each problem weighs in each bootstrap resample; a row sums to 1.

    One draw serves all heads, so that a difference between heads is resampled as a difference.

    Args:
        n_problems: how many problems there are.
        n_resamples: how many times to draw.
        size: how many problems to draw each time, with replacement; all by default.
        seed: the same seed gives the same draws.

    >>> resample_weights(4, n_resamples=2, seed=0).sum(axis=1)
    array([1., 1.])
    """
    size = n_problems if size is None else size
    draws = np.random.default_rng(seed).multinomial(
        size, np.full(n_problems, 1 / n_problems), size=n_resamples
    )
    return draws / size


def percentile_interval(
    samples: Real[np.ndarray, "resample *statistic"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "*statistic"], Float[np.ndarray, "*statistic"]]:
    """The percentile bootstrap interval of each statistic.

    >>> low, high = percentile_interval(np.arange(101.0))
    >>> round(float(low), 6), round(float(high), 6)
    (2.5, 97.5)
    """
    tail = (1 - level) / 2
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0)
    return np.asarray(low), np.asarray(high)


def mean_interval(
    values: Real[np.ndarray, "problem *statistic"],
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[
    Float[np.ndarray, "*statistic"],
    Float[np.ndarray, "*statistic"],
    Float[np.ndarray, "*statistic"],
]:
    """Mean over problems and its percentile bootstrap interval; all share one draw of problems.

    A NaN (the anchor row of an answer without a number, say) is left out of that statistic; with
    fewer than two values the interval is NaN.

    >>> mean, low, high = mean_interval(np.array([[0.1], [0.2], [0.3], [np.nan]]))
    >>> mean.round(3), bool(low < 0.2 < high)
    (array([0.2]), True)
    """
    n_problems, *shape = values.shape
    flat = values.reshape(n_problems, -1).astype(float)
    known = np.isfinite(flat)
    filled = np.where(known, flat, 0)
    n_known = known.sum(axis=0)
    mean = np.where(n_known, filled.sum(axis=0) / np.maximum(n_known, 1), np.nan)
    weights = resample_weights(n_problems, n_resamples=n_resamples, seed=seed)
    weight = weights @ known
    drawn = weight > 0
    sampled = np.where(drawn, weights @ filled / np.where(drawn, weight, 1), mean)
    low, high = percentile_interval(sampled, level=level)
    low, high = (np.where(n_known > 1, bound, np.nan) for bound in (low, high))
    return mean.reshape(shape), low.reshape(shape), high.reshape(shape)


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion (scipy).

    >>> [round(bound, 3) for bound in wilson_interval(99, 100)]
    [0.946, 0.998]
    """
    interval = scipy_stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def benjamini_hochberg(p: Float[np.ndarray, "*test"]) -> Float[np.ndarray, "*test"]:
    """Benjamini-Hochberg q-values (statsmodels) over an array of any shape.

    A NaN stays one and does not count as a test.

    >>> benjamini_hochberg(np.array([0.01, 0.04, np.nan, 0.03])).round(3)
    array([0.03, 0.04,  nan, 0.04])
    """
    from statsmodels.stats.multitest import multipletests  # takes long to import

    q = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = multipletests(p[known], method="fdr_bh")[1]
    return q
