"""Draws, intervals and tests: a bootstrap over problems that all heads share, and q-values."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, Float, Int, Real
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar

from codi_lens.errors import CodiLensError, check_seed, finite_number, whole_number


def seeded(seed: int, *what: str) -> int:
    """A number drawn from a seed and a text, the same on every machine and in every batch."""
    digest = hashlib.blake2b("\x1f".join((str(seed), *what)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


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
    check_seed(seed, CodiLensError)
    whole_number("n_resamples", n_resamples, 1, error=CodiLensError)
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
    check_level(level)
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

    Raises:
        CodiLensError: no number of successes out of a number of trials, or no level.

    >>> [round(bound, 3) for bound in wilson_interval(99, 100)]
    [0.946, 0.998]
    """
    n = whole_number("The number of trials", n, 1, error=CodiLensError)
    successes = whole_number("The number of successes", successes, 0, n, CodiLensError)
    check_level(level)
    return _wilson_interval(successes, n, level)


@cache
def _wilson_interval(successes: int, n: int, level: float) -> tuple[float, float]:
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


def mcnemar_p(before: Bool[np.ndarray, " problem"], after: Bool[np.ndarray, " problem"]) -> float:
    """The exact two-sided McNemar p-value of two binary outcomes of each problem (statsmodels).

    >>> before = np.array([True] * 10)
    >>> round(mcnemar_p(before, ~before), 5)
    0.00195
    """

    table = [[int((a & b).sum()) for b in (after, ~after)] for a in (before, ~before)]
    return float(mcnemar(table, exact=True).pvalue)  # type: ignore[union-attr]


def sign_flip_p(
    differences: Real[np.ndarray, "problem *statistic"], *, n_resamples: int = 9999, seed: int = 0
) -> Float[np.ndarray, "*statistic"]:
    """Two-sided permutation p-value of the mean paired difference, by flipping signs.

    Exact for up to 13 problems (all sign patterns), else by random flips that all statistics share,
    the observed one counted (Phipson and Smyth 2010). A NaN is left out of its statistic; without a
    value the p-value is NaN.

    Args:
        differences: one per problem; under the null hypothesis symmetric around 0.
        n_resamples: random sign patterns.
        seed: of the signs.

    >>> sign_flip_p(np.array([[1.0], [2.0], [3.0]]))
    array([0.25])
    """
    check_seed(seed, CodiLensError)
    n, *shape = differences.shape
    flat = differences.reshape(n, -1).astype(float)
    known = np.isfinite(flat)
    filled = np.where(known, flat, 0)
    observed = np.abs(filled.sum(axis=0))
    # Sums in another order differ in their last bits; what is equal must count as equal.
    threshold = observed - 1e-9 * (observed + np.abs(filled).max(axis=0, initial=0))
    exact = 2**n <= n_resamples + 1
    if exact:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (n_resamples, n))
    reached = (np.abs(signs @ filled) >= threshold).sum(axis=0)
    p = reached / 2**n if exact else (reached + 1) / (n_resamples + 1)
    return np.where(known.any(axis=0), p, np.nan).reshape(shape)


@dataclass(frozen=True)
class Association:
    """Spearman's rank correlation, its bootstrap interval, and a permutation p-value."""

    rho: float
    low: float
    high: float
    p: float
    n: int


def rank_association(
    x: Real[np.ndarray, " head"],
    y: Real[np.ndarray, " head"],
    strata: Int[np.ndarray, " head"] | None = None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Association:
    """Whether one quantity of the heads goes with another: Spearman's rho, stratified if asked.

    With strata (layers), ranks are centred within each stratum before they are correlated, and
    resamples and permutations stay within strata: what differs only between layers does not count.

    Args:
        x: one value per head, a score say.
        y: another, a causal effect say.
        strata: the stratum of each head, its layer say; one for all by default.
        n_resamples: bootstrap resamples, and permutations.
        level: of the percentile interval.
        seed: of both.

    Returns:
        NaN for all but `n` where one side is constant.

    Raises:
        CodiLensError: lengths that differ, or fewer than three heads.

    >>> heads = np.arange(6.0)
    >>> rank_association(heads, heads**3).rho
    1.0
    """
    if len(x) != len(y) or len(x) < 3:
        raise CodiLensError(
            f"A rank correlation needs two values of at least 3 heads; there are {len(x)} and "
            f"{len(y)}."
        )
    rng = np.random.default_rng(check_seed(seed, CodiLensError))
    groups = np.zeros(len(x), dtype=int) if strata is None else np.asarray(strata)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    drawn = resampled(members, n_resamples, rng)
    shuffled = np.concatenate(
        [rng.permuted(np.tile(m, (n_resamples, 1)), axis=1) for m in members], 1
    )
    order = np.concatenate(members)
    groups, x, y = groups[order], np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    rho = rank_correlations(x[None, order], y[None, order], groups)[0]
    sampled = rank_correlations(x[drawn], y[drawn], groups)
    low, high = percentile_interval(_known(sampled), level=level)
    ranks = centred_ranks(x[None, order], groups), centred_ranks(y[None, order], groups)[0]
    null = correlations(ranks[0], ranks[1][np.argsort(order)[shuffled]])
    p = (1 + (np.abs(null) >= abs(rho) - 1e-9).sum()) / (n_resamples + 1)
    p = p if np.isfinite(rho) else np.nan
    return Association(float(rho), float(low), float(high), float(p), len(x))


def area_p(observed: float, null: Float[np.ndarray, " draw"]) -> float:
    """One-sided permutation p-value of an area against areas of random draws, itself counted.

    >>> area_p(3.0, np.array([1.0, 2.0, 4.0]))
    0.5
    """
    return float((1 + (null >= observed - 1e-12).sum()) / (len(null) + 1))


def check_level(level: float) -> None:
    """Refuse a level that is none.

    Raises:
        CodiLensError: not between 0 and 1.
    """
    if not 0 < finite_number("The level of an interval", level, CodiLensError) < 1:
        raise CodiLensError(f"The level of an interval lies between 0 and 1, not at {level}.")


def resampled(
    members: Sequence[Int[np.ndarray, " _member"]], n_resamples: int, rng: np.random.Generator
) -> Int[np.ndarray, "resample head"]:
    """Heads drawn with replacement, as many in each stratum as it has, stratum by stratum.

    >>> resampled([np.array([0]), np.array([1])], 2, np.random.default_rng(0))
    array([[0, 1],
           [0, 1]])
    """
    some = [rng.choice(each, size=(n_resamples, len(each))) for each in members]
    return np.concatenate(some, axis=1)


def rank_correlations(
    x: Float[np.ndarray, "draw head"],
    y: Float[np.ndarray, "draw head"],
    groups: Int[np.ndarray, " head"],
) -> Float[np.ndarray, " draw"]:
    """Correlation of the ranks, centred within groups; NaN where one side is constant.

    >>> heads = np.array([[0.0, 1.0, 2.0, 3.0]])
    >>> rank_correlations(heads, heads**2, np.array([0, 0, 1, 1]))
    array([1.])
    """
    return correlations(centred_ranks(x, groups), centred_ranks(y, groups))


def centred_ranks(
    values: Float[np.ndarray, "draw head"], groups: Int[np.ndarray, " head"]
) -> Float[np.ndarray, "draw head"]:
    """The ranks of each draw, less their mean in each group.

    >>> centred_ranks(np.array([[0.1, 0.3, 0.2]]), np.array([0, 0, 1]))
    array([[-1.,  1.,  0.]])
    """
    ranked = scipy_stats.rankdata(values, axis=1)
    for group in np.unique(groups):
        some = groups == group
        ranked[:, some] -= ranked[:, some].mean(axis=1, keepdims=True)
    return ranked


def correlations(
    x: Float[np.ndarray, "#draw head"], y: Float[np.ndarray, "#draw head"]
) -> Float[np.ndarray, " draw"]:
    """Correlation of what is centred, draw by draw; NaN where one side is constant.

    >>> correlations(np.array([[-1.0, 0.0, 1.0]]), np.array([[-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]]))
    array([ 1., nan])
    """
    over = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    product = (x * y).sum(axis=1)
    return np.divide(product, over, out=np.full(len(over), np.nan), where=over > 1e-9)


def _known(values: np.ndarray) -> np.ndarray:
    known = values[np.isfinite(values)]
    return known if len(known) else np.array([np.nan])
