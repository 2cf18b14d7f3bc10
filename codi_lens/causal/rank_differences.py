"""Whether one score of heads goes with their effects more than another: paired over heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from codi_lens.errors import CodiLensError, check_seed
from codi_lens.stats import centred_ranks, correlations, percentile_interval, resampled


@dataclass(frozen=True)
class Differences:
    """How much more one quantity goes with another than a baseline does: differences of rho."""

    difference: Float[np.ndarray, " score"]
    low: Float[np.ndarray, " score"]
    high: Float[np.ndarray, " score"]
    p: Float[np.ndarray, " score"]


def rank_differences(
    scores: Real[np.ndarray, "score head"],
    baseline: Real[np.ndarray, " head"],
    y: Real[np.ndarray, " head"],
    strata: Int[np.ndarray, " head"] | None = None,
    *,
    n_resamples: int = 5000,
    level: float = 0.95,
    seed: int = 0,
) -> Differences:
    """Spearman's rho of each score with y minus that of a baseline with y, paired over heads.

    Both correlations are taken on the same resamples of heads; strata are as in
    `rank_association`. `p` is two-sided: twice the share of resamples in which the difference is
    not on the side of the most (itself counted), which the percentile interval inverts.

    Args:
        scores: of the heads.
        baseline: another quantity of the heads.
        y: what both are correlated with, a causal effect say.
        strata: the stratum of each head; one for all by default.
        n_resamples: bootstrap resamples.
        level: of the percentile interval.
        seed: of the bootstrap.

    Returns:
        NaN where a score, the baseline or y is constant.

    >>> heads = np.arange(8.0)
    >>> found = rank_differences(np.stack([heads, -heads]), heads[[1, 0, 3, 2, 5, 4, 7, 6]], heads)
    >>> found.difference.round(2), bool(found.high[1] < 0 < found.difference[0])
    (array([ 0.1, -1.9]), True)
    """
    rng = np.random.default_rng(check_seed(seed, CodiLensError))
    groups = np.zeros(len(y), dtype=int) if strata is None else np.asarray(strata)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    order = np.concatenate(members)
    drawn = np.concatenate([order[None], resampled(members, n_resamples, rng)])  # as it is, first
    groups, known = groups[order], [np.asarray(each, dtype=float) for each in (*scores, baseline)]
    ranks = centred_ranks(np.asarray(y, dtype=float)[drawn], groups)
    *rhos, base = [correlations(centred_ranks(each[drawn], groups), ranks) for each in known]
    rows = np.full((4, len(scores)), np.nan)
    for i, rho in enumerate(rhos):
        found, *samples = rho - base
        samples = np.array(samples)[np.isfinite(samples)]
        if np.isfinite(found) and len(samples):
            low, high = percentile_interval(samples, level=level)
            aside = min((samples <= 0).sum(), (samples >= 0).sum())
            rows[:, i] = found, low, high, min(1.0, 2 * (1 + aside) / (1 + len(samples)))
    return Differences(*rows)
