"""The statistics of experiments: against published examples, brute force and simulated nulls."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from codi_lens.causal.dose import mean_over_dose
from codi_lens.causal.effects import summarise
from codi_lens.causal.measure import CLEAN
from codi_lens.causal.scores_vs_effects import score_vs_effect
from codi_lens.errors import CodiLensError
from codi_lens.stats import (
    area_p,
    benjamini_hochberg,
    mcnemar_p,
    mean_interval,
    rank_association,
    sign_flip_p,
    wilson_interval,
)

DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
"""Darwin's cross- minus self-fertilised Zea mays, in eighths of an inch (Fisher 1935, §17, §21)."""

BENJAMINI_1995 = [
    0.0001,
    0.0004,
    0.0019,
    0.0095,
    0.0201,
    0.0278,
    0.0298,
    0.0344,
    0.0459,
    0.3240,
    0.4262,
    0.5719,
    0.6528,
    0.7590,
    1.0000,
]
"""The fifteen p-values of Benjamini and Hochberg (1995), section 3.2: four are rejected."""


def paired(both: int, only_before: int, only_after: int, neither: int) -> list[np.ndarray]:
    counts = [both, only_before, only_after, neither]
    before = np.repeat([True, True, False, False], counts)
    return [before, np.repeat([True, False, True, False], counts)]


def test_mcnemar_is_the_binomial_test_of_the_pairs_that_disagree() -> None:
    before, after = paired(59, 6, 16, 80)
    assert mcnemar_p(before, after) == pytest.approx(scipy_stats.binomtest(6, 22).pvalue)
    assert mcnemar_p(before, before) == 1


def test_benjamini_hochberg_rejects_four_of_the_fifteen_in_its_paper() -> None:
    q = benjamini_hochberg(np.array(BENJAMINI_1995))
    assert (q <= 0.05).sum() == 4
    np.testing.assert_allclose(q[:4], [0.0015, 0.0030, 0.0095, 0.035625])


def test_fishers_permutation_test_of_darwins_plants() -> None:
    """Fisher (1935) counts 1,726 of the 32,768 sign patterns at least as extreme: p = 0.0527."""
    differences = np.array(DARWIN)
    assert sign_flip_p(differences, n_resamples=2**15) == pytest.approx(1726 / 32768)
    assert sign_flip_p(differences, n_resamples=20_000) == pytest.approx(0.0527, abs=0.006)


def test_sign_flips_equal_brute_force_and_scipy() -> None:
    differences = np.random.default_rng(0).normal(0.4, 1, (8, 3))
    flips = np.array(list(itertools.product([1, -1], repeat=8)))
    reached = np.abs(flips @ differences) >= np.abs(differences.sum(axis=0)) - 1e-9
    np.testing.assert_allclose(sign_flip_p(differences), reached.mean(axis=0))
    every: Any = np.inf  # resamples, which scipy annotates as a whole number
    scipys = scipy_stats.permutation_test(
        (differences[:, 0],), np.mean, permutation_type="samples", n_resamples=every
    )
    assert sign_flip_p(differences)[0] == pytest.approx(scipys.pvalue)


def test_wilson_interval_of_a_published_example() -> None:
    """Newcombe (1998), table I: 81 of 263 gives .2553 to .3662."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"successes": 3, "n": 2}, "number of successes must be at most 2, not 3"),
        ({"successes": 0, "n": 0}, "number of trials must be at least 1, not 0"),
        ({"successes": 1, "n": 2, "level": 1.0}, "lies between 0 and 1, not at 1.0"),
        (
            {"successes": 1, "n": 2, "level": math.nan},
            "level of an interval is a finite number, not",
        ),
    ],
)
def test_what_has_no_wilson_interval_is_one_sentence(given: Any, message: str) -> None:
    with pytest.raises(CodiLensError, match=message):
        wilson_interval(**given)


def test_spearman_equals_scipy_with_ties_and_one_stratum() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)
    scipys: Any = scipy_stats.spearmanr(x, y)
    ours = rank_association(x, y)
    assert ours.rho == pytest.approx(scipys.statistic)
    assert ours.p == pytest.approx(scipys.pvalue, abs=0.03)
    assert ours.low < ours.rho < ours.high


def test_what_differs_only_between_layers_does_not_count_within_them() -> None:
    rng = np.random.default_rng(2)
    layers = np.repeat(np.arange(6), 12)
    x, y = layers + 0.1 * rng.normal(size=(2, 72))
    assert rank_association(x, y).rho > 0.9
    within = rank_association(x, y, layers)
    assert abs(within.rho) < 0.3
    assert within.p > 0.05
    assert rank_association(x, x + 0 * y, layers).rho == pytest.approx(1)


@pytest.mark.parametrize("n_problems", [8, 40])
def test_sign_flips_reject_a_true_null_no_more_often_than_they_say(n_problems: int) -> None:
    rng = np.random.default_rng(n_problems)
    null = rng.standard_t(3, (n_problems, 2000))
    for alpha in (0.05, 0.01):
        share = (sign_flip_p(null, n_resamples=999) <= alpha).mean()
        assert share <= alpha + 2 * np.sqrt(alpha * (1 - alpha) / 2000)
    assert (sign_flip_p(null + 1.5, n_resamples=999) <= 0.05).mean() > 0.3


def test_mcnemar_rejects_a_true_null_no_more_often_than_it_says() -> None:
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 600, 50)) < 0.7
    share = np.mean([mcnemar_p(*pair) <= 0.05 for pair in zip(before, after, strict=True)])
    assert share <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 600)


@pytest.mark.parametrize("stratified", [False, True])
def test_rank_association_rejects_a_true_null_no_more_often_than_it_says(
    stratified: bool,
) -> None:
    rng = np.random.default_rng(4)
    layers = np.repeat(np.arange(3), 8)
    rejected, covered = [], []
    for seed in range(300):
        x, y = layers * stratified + rng.normal(size=(2, 24))
        found = rank_association(x, y, layers if stratified else None, n_resamples=199, seed=seed)
        rejected.append(found.p <= 0.05)
        covered.append(found.low <= 0 <= found.high)
    assert np.mean(rejected) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)
    assert np.mean(covered) >= 0.9


def simulated(rng: np.random.Generator, n_problems: int, shifts: np.ndarray) -> pd.DataFrame:
    """Outcomes of arms that shift the log-probability by a known amount, correlated as in a sweep.

    All arms share each problem's clean value, so that their differences are dependent.
    """
    clean = rng.normal(-1, 1, n_problems)
    arms = clean + shifts[:, None] + 0.5 * rng.normal(size=(len(shifts), n_problems))
    noisy_clean = clean + 0.3 * rng.normal(size=n_problems)
    names = [CLEAN, *(f"arm {i}" for i in range(len(shifts)))]
    values = np.concatenate([noisy_clean[None], arms])
    return pd.DataFrame(
        {
            "problem": np.tile([f"p{i}" for i in range(n_problems)], len(names)),
            "arm": np.repeat(names, n_problems),
            "log_prob": values.ravel(),
            "logit_difference": values.ravel(),
            "logit_margin": values.ravel(),
            "changed": False,
            "correct": np.nan,
            "change_ct0": 0.0,
        }
    )


@pytest.mark.slow
def test_null_sweeps_find_something_at_most_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    found = [
        bool((summarise(simulated(rng, 30, np.zeros(24)))["q"] < 0.05).any()) for _ in range(120)
    ]
    assert np.mean(found) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 120)


def test_a_sweep_finds_the_arms_that_matter_and_their_size() -> None:
    shifts = np.where(np.arange(24) < 3, -1.0, 0.0)
    table = summarise(simulated(np.random.default_rng(6), 60, shifts))
    assert set(table.index[table["q"] < 0.01]) == {0, 1, 2}
    assert (table["effect_low"] <= shifts).mean() > 0.85
    np.testing.assert_allclose(table["effect"], shifts, atol=0.35)


@pytest.mark.slow
def test_the_paired_interval_covers_a_known_difference() -> None:
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(300):
        _, low, high = mean_interval(rng.exponential(1, (60, 1)) - 1)
        covered.append(bool(low[0] <= 0 <= high[0]))
    assert np.mean(covered) >= 0.90  # percentile intervals of skewed data fall a little short


def test_area_of_a_curve_and_its_rank_among_random_ones() -> None:
    assert mean_over_dose(np.array([0.0, 2.0, 2.0]), [0, 1, 3]) == pytest.approx((1 + 4) / 3)
    assert area_p(5.0, np.arange(5.0)) == pytest.approx(1 / 6)
    rng = np.random.default_rng(8)
    draws = rng.normal(size=(3000, 20))
    share = np.mean([area_p(row[0], row[1:]) <= 0.05 for row in draws])
    assert share <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 3000)


def test_constant_scores_predict_nothing_and_say_so() -> None:
    names = [f"L{i // 4}H{i % 4}" for i in range(8)]
    heads = pd.DataFrame({"name": names, "layer": [0] * 4 + [1] * 4, "flow": 1.0, "hub": range(8)})
    effects = pd.DataFrame({"name": names, "effect": -np.arange(8.0)})
    table = score_vs_effect(heads, effects, ["flow", "hub"]).set_index("metric")
    assert table.loc[["flow"], ["rho", "p", "q"]].isna().to_numpy().all()
    assert table.loc["hub", "rho"] == pytest.approx(1)


def test_an_undefined_correlation_has_no_p() -> None:
    found = rank_association(np.ones(6), np.arange(6.0))
    assert np.isnan([found.rho, found.low, found.high, found.p]).all()


def test_a_correlation_of_two_heads_is_refused() -> None:
    with pytest.raises(CodiLensError, match="at least 3 heads; there are 2 and 2"):
        rank_association(np.arange(2.0), np.arange(2.0))
