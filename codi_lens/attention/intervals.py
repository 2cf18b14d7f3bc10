"""Intervals for what is picked among several thoughts, and for problems that repeat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import stats as scipy_stats

from codi_lens.stats import check_level, resample_weights


def grouped_weights(
    groups: Int[np.ndarray, " problem"],
    *,
    n_resamples: int = 1000,
    size: int | None = None,
    seed: int = 0,
) -> Float[np.ndarray, "resample problem"]:
    """`resample_weights` where problems of one group are one problem, drawn together.

    A question that was asked twice is no second observation; drawn as two, it makes intervals too
    narrow. Without repeats the weights are those of `resample_weights`.

    Args:
        groups: the group of each problem, numbered from 0.
        n_resamples: how many times to draw.
        size: how many groups to draw each time; as many as there are by default.
        seed: the same seed gives the same draws.

    >>> weights = grouped_weights(np.array([0, 0, 1]), n_resamples=50)
    >>> bool((weights[:, 0] == weights[:, 1]).all()), weights.sum(axis=1).round(6).min()
    (True, np.float64(1.0))
    """
    n_groups = int(groups.max()) + 1
    drawn = resample_weights(n_groups, n_resamples=n_resamples, size=size, seed=seed)[:, groups]
    return drawn if n_groups == len(groups) else drawn / drawn.sum(axis=1, keepdims=True)


def simultaneous_interval(
    samples: Float[np.ndarray, "resample *family statistic"], *, level: float = 0.95
) -> tuple[Float[np.ndarray, "*family statistic"], Float[np.ndarray, "*family statistic"]]:
    """Percentile intervals that hold for all statistics of a family at once (Beran 1988).

    Each statistic is cut at the same tail, and the tail is the one at which `level` of the
    resamples lie within *all* intervals. Whichever statistic is then singled out, the largest say,
    its interval has allowed for the choice.

    Args:
        samples: bootstrap resamples; a family is the last axis. A statistic with a NaN among its
            samples gets none, and does not widen the others.
        level: of the family.

    >>> draws = np.random.default_rng(0).normal(size=(4000, 5))
    >>> low, high = simultaneous_interval(draws)
    >>> bool((high > 2.3).all()), bool((np.abs(low + high) < 0.4).all())
    (True, True)
    """
    check_level(level)
    n_resamples = len(samples)
    known = np.isfinite(samples).all(axis=0)
    filled = np.where(known, samples, 0)
    depth = np.abs((scipy_stats.rankdata(filled, axis=0) - 0.5) / n_resamples - 0.5)
    worst = np.where(known, depth, 0).max(axis=-1)
    tail = 0.5 - np.quantile(worst, level, axis=0)
    place = np.floor(tail * (n_resamples - 1)).astype(int)[None, ..., None]
    ordered = np.sort(filled, axis=0)
    low = np.take_along_axis(ordered, place, axis=0)[0]
    high = np.take_along_axis(ordered, n_resamples - 1 - place, axis=0)[0]
    return np.where(known, low, np.nan), np.where(known, high, np.nan)
