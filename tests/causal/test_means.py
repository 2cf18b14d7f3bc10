"""Means of skewed effects: intervals cover, tests hold their size, on effects like those of heads.

The effects are measured ones: `tests/fixtures/effects_of_heads.json` says how.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from codi_lens.causal.means import MIN_EFFECT, MeanTest, mean_test
from codi_lens.errors import CodiLensError
from codi_lens.stats import percentile_interval, resample_weights, sign_flip_p

FIXTURE = Path(__file__).parents[1] / "fixtures" / "effects_of_heads.json"
EFFECTS = {
    name: np.array(values)
    for name, values in json.loads(FIXTURE.read_text(encoding="utf-8"))["effects"].items()
}
AFFECTED = {name: float((abs(each) >= MIN_EFFECT).mean()) for name, each in EFFECTS.items()}
COMMON = sorted(name for name, share in AFFECTED.items() if share >= 0.25)
RARE = sorted(name for name, share in AFFECTED.items() if share < 0.2)
N, DRAWS = 50, 4000


@cache
def samples(name: str, mean: float) -> np.ndarray:
    """Samples of N problems, as columns, of effects like this head's but with this mean."""
    rng = np.random.default_rng(sorted(EFFECTS).index(name))
    drawn = rng.choice(EFFECTS[name], (N, DRAWS))
    return drawn - EFFECTS[name].mean() + mean


def error_of(share: float) -> float:
    """Three standard errors of a share of all draws."""
    return 3 * float(np.sqrt(share * (1 - share) / DRAWS))


def test_the_effects_are_skewed_as_measured_ones_are() -> None:
    assert len(COMMON) >= 5 and len(RARE) >= 3
    assert all(
        scipy_stats.skew(EFFECTS[name]) < -2 for name in [*COMMON, *RARE] if "L1H7" not in name
    )


@pytest.mark.parametrize("name", COMMON)
def test_where_a_quarter_of_the_problems_is_affected_intervals_cover(name: str) -> None:
    found = mean_test(samples(name, 0.0))
    covered = float(((found.low <= 0) & (found.high >= 0)).mean())
    assert 0.93 - error_of(0.93) <= covered <= 0.98
    rejected = float((found.p < 0.05).mean())
    assert rejected <= 0.07 + error_of(0.07)


@pytest.mark.parametrize("name", RARE)
def test_where_few_problems_are_affected_they_err_less_than_percentiles_and_sign_flips(
    name: str,
) -> None:
    drawn = samples(name, 0.0)[:, :1500]
    found = mean_test(drawn)
    low, high = percentile_interval(resample_weights(N) @ drawn)
    missed = float(((found.low > 0) | (found.high < 0)).mean())
    before = float(((low > 0) | (high < 0)).mean())
    flipped = float((sign_flip_p(drawn, n_resamples=999) < 0.05).mean())
    assert before > 0.15 and flipped > 0.15
    assert missed <= 0.2
    assert missed <= 0.62 * before
    assert float((found.p < 0.05).mean()) <= 0.62 * flipped


@pytest.mark.parametrize("name", sorted(EFFECTS))
@pytest.mark.parametrize("mean", [-MIN_EFFECT, 0.0])
def test_a_loss_of_no_more_than_the_least_is_seldom_said_to_matter(name: str, mean: float) -> None:
    found = mean_test(samples(name, mean), beyond=MIN_EFFECT)
    said = float(((found.beyond_p < 0.05) & (found.mean < 0)).mean())
    assert said <= 0.05 + error_of(0.05)


def test_losses_that_are_common_and_large_are_found() -> None:
    for name in COMMON:
        found = mean_test(samples(name, float(EFFECTS[name].mean())), beyond=MIN_EFFECT)
        assert (found.beyond_p < 0.05).mean() > 0.9


def test_p_and_interval_are_one_statement() -> None:
    rng = np.random.default_rng(1)
    drawn = -rng.gamma(0.5, 1, (20, 3000)) + 0.3
    found = mean_test(drawn, beyond=0.1)
    np.testing.assert_array_equal(found.p < 0.05, (found.low > 0) | (found.high < 0))
    np.testing.assert_array_equal(found.beyond_p < 0.05, (found.low > 0.1) | (found.high < -0.1))
    assert 0.05 < (found.beyond_p < 0.05).mean() < 0.95


def test_without_skew_it_is_students_t() -> None:
    values = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) + 1.5
    found = mean_test(values, level=0.9)
    interval = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)  # type: ignore[union-attr]
    assert (float(found.low), float(found.high)) == pytest.approx(tuple(interval))
    many = np.tile(values, 8)
    assert float(mean_test(many).p) == pytest.approx(scipy_stats.ttest_1samp(many, 0).pvalue)  # type: ignore[union-attr]


def test_it_is_halls_transformation() -> None:
    """Hall (1992), equation 2.2: the third power of what is linear in t, by hand."""
    values = np.random.default_rng(2).exponential(1, 30)
    deviation, skew = values.std(ddof=1), scipy_stats.skew(values)
    t = values.mean() / deviation
    bent = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / (6 * 30)
    p = 2 * scipy_stats.t.sf(np.sqrt(30) * abs(bent), 29)
    assert float(mean_test(values).p) == pytest.approx(max(p, 2.0**-29))


def test_few_and_equal_and_missing_values() -> None:
    nan = np.nan
    values = np.array([[-1.0, 0.0, nan, 2.0], [-1.0, 0.0, nan, nan], [-1.0, 0.0, nan, nan]])
    found: MeanTest = mean_test(values, beyond=0.1)
    np.testing.assert_array_equal(found.mean, [-1, 0, nan, 2])
    np.testing.assert_array_equal(found.low, [-1, 0, nan, nan])
    np.testing.assert_array_equal(found.p, [0.25, 1, nan, 1])  # three signs give no less
    np.testing.assert_array_equal(found.beyond_p, [0.25, 1, nan, 1])
    with pytest.raises(CodiLensError, match="between 0 and 1"):
        mean_test(values, level=1.0)
