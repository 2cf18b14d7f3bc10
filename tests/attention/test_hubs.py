"""Hubs are found where they were put, and only there; error rates are what they claim to be."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.constructed import GIVEN, block, from_blocks, noisy, of_shape, random_attention
from support.reading import number

from codi_lens import AttentionError, thought_view
from codi_lens.attention import hubs
from codi_lens.attention.hub_test import hub_test, permutation_test
from codi_lens.attention.hubs import head_hub_ratios, hub_ratio_by_n_problems, hub_ratios
from codi_lens.attention.repeats import chains_in, numbered
from codi_lens.problems import word_problems

THOUGHTS = [f"ct{i}" for i in range(6)]


def test_hub_ratio_is_the_formula_it_cites() -> None:
    """Sum over i > j of A[i, j], over the sum over i > j of m_i / i, by plain loops."""
    attention = random_attention()
    mean = thought_view(attention).mean(["problem", "layer", "head"]).values.astype(float)
    expected = []
    for j in range(5):
        received = sum(mean[i, j] for i in range(j + 1, 6))
        even = sum(sum(mean[i, k] for k in range(i)) / i for i in range(j + 1, 6))
        expected.append(received / even)
    table = hub_ratios(attention, n_resamples=20)
    np.testing.assert_allclose(table["ratio"][:5], expected, rtol=1e-5)
    np.testing.assert_allclose(table["given"], np.tril(mean, -1).sum(axis=1), rtol=1e-5)
    assert table["thought"].tolist() == THOUGHTS
    assert np.isnan(table["ratio"][5])


def test_uniform_attention_has_no_hub() -> None:
    table = hub_ratios(of_shape("uniform"), n_resamples=20)
    np.testing.assert_allclose(table["ratio"][:5], 1, rtol=1e-6)
    np.testing.assert_allclose(table["given"], [0] + [GIVEN] * 5, rtol=1e-6)
    assert (table["p"][:5] == 1).all()


@pytest.mark.parametrize("hub", THOUGHTS[:5])
def test_a_planted_hub_is_found_as_surely_as_the_test_can(hub: str) -> None:
    table = hub_ratios(of_shape(hub), n_resamples=20).set_index("thought")
    assert table["ratio"].idxmax() == hub
    assert table.loc[hub, "p"] == pytest.approx(table.loc[hub, "p_smallest"])
    assert table["p"].min() == table.loc[hub, "p"]
    if hub in ("ct0", "ct1"):
        assert number(table, hub, "p") < 0.05
    if hub == "ct4":  # one later thought only: no pattern can show it
        assert number(table, hub, "p_smallest") > 0.05


def test_pure_sequential_attention_gives_late_thoughts_the_higher_ratio() -> None:
    """Each thought receives GIVEN once, of an even share of GIVEN / i from every later one."""
    ratio = hub_ratios(of_shape("sequential"), n_resamples=20)["ratio"][:5]
    expected = [1 / sum(1 / i for i in range(j + 1, 6)) for j in range(5)]
    np.testing.assert_allclose(ratio, expected, rtol=1e-6)


def test_a_head_that_attends_only_to_itself_has_no_hub_ratio() -> None:
    table = hub_ratios(of_shape("self"), n_resamples=20)
    assert table["ratio"].isna().all()
    assert (table["given"] == 0).all()


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_any_number_of_thoughts_has_ratios(n: int) -> None:
    table = hub_ratios(random_attention(n=n), n_resamples=20)
    assert len(table) == n
    assert table["ratio"].isna().tolist() == [False] * (n - 1) + [True]
    assert table["p"].notna().sum() == (n - 1 if n > 2 else 0)


def test_enumerated_permutations_give_the_p_of_plain_loops() -> None:
    pattern = thought_view(random_attention(n=4, seed=3)).mean(["problem", "layer", "head"]).values
    pattern = pattern.astype(float)
    scale = [np.sqrt(sum(pattern[i, :i].var() for i in (2, 3) if i > j)) for j in range(3)]

    def statistics(rows: dict[int, np.ndarray]) -> list[float]:
        return [
            sum(row[j] - row.mean() for i, row in rows.items() if i > j) / scale[j]
            for j in range(3)
        ]

    observed = statistics({i: pattern[i, :i] for i in (2, 3)})
    largest = [
        max(statistics({2: pattern[2, list(two)], 3: pattern[3, list(three)]}))
        for two, three in product(permutations(range(2)), permutations(range(3)))
    ]
    expected = [np.mean([value >= statistic - 1e-9 for value in largest]) for statistic in observed]
    p, _ = permutation_test(pattern)
    np.testing.assert_allclose(p[:3], expected)


def test_drawn_permutations_agree_with_enumerated_ones() -> None:
    pattern = block("uniform") * np.random.default_rng(2).gamma(2, 0.5, (6, 6))
    exact, _ = permutation_test(pattern)
    drawn, _ = permutation_test(pattern, n_permutations=20_000, most_exact=0)
    error = 4 * np.sqrt(0.25 / 20_000)
    np.testing.assert_allclose(drawn[:5], exact[:5], atol=error)
    assert not np.array_equal(drawn[:5], exact[:5])


@pytest.mark.parametrize(("n", "alpha"), [(5, 0.2), (6, 0.05), (6, 0.2)])
def test_permutation_test_holds_its_level_when_problems_share_a_pattern(
    n: int, alpha: float
) -> None:
    """Rows without preference for a *place*, but alike on every problem: the hard null.

    With five thoughts no p is below 2/24, so 0.05 would be held without merit.
    """
    rng = np.random.default_rng(n)
    n_simulations = 400
    false = 0
    for _ in range(n_simulations):
        shared = np.tril(rng.gamma(0.5, size=(n, n)), -1)
        shared *= GIVEN / np.maximum(shared.sum(axis=1, keepdims=True), 1e-9)
        p, _ = permutation_test(noisy(shared, 20, rng).mean(axis=0))
        false += np.nanmin(p) <= alpha
    error = np.sqrt(alpha * (1 - alpha) / n_simulations)
    assert alpha / 4 < false / n_simulations <= alpha + 2 * error


def test_permuting_each_problem_alone_would_call_shared_patterns_hubs() -> None:
    """Why one permutation serves all problems: independent ones reject the same null."""
    rng = np.random.default_rng(1)
    n, n_problems, rejected = 6, 20, 0
    for _ in range(40):
        shared = np.tril(rng.gamma(0.5, size=(n, n)), -1)
        shared *= GIVEN / np.maximum(shared.sum(axis=1, keepdims=True), 1e-9)
        problems = noisy(shared, n_problems, rng)
        observed = problems.mean(axis=0).sum(axis=0)[:5].max()
        null = []
        for _ in range(100):
            permuted = problems.copy()
            for i in range(2, n):
                permuted[:, i, :i] = rng.permuted(permuted[:, i, :i], axis=1)
            null.append(permuted.mean(axis=0).sum(axis=0)[:5].max())
        rejected += np.mean(np.array(null) >= observed) <= 0.05
    assert rejected / 40 > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("hub", [None, "ct1"])
def test_the_interval_of_the_highest_ratio_covers_though_it_was_picked(hub: str | None) -> None:
    """Without a hub the percentile interval of the highest alone covers the truth in 88 %."""
    rng = np.random.default_rng(0)
    pattern = block("uniform") if hub is None else 0.5 * (block("uniform") + block(hub))
    many = from_blocks(noisy(pattern, 30_000, rng)[:, None, None])
    truth = hub_ratios(many, n_resamples=2)["ratio"][:5]
    n_simulations = 200
    covered, jointly, alone = [], [], []
    for _ in range(n_simulations):
        attention = from_blocks(noisy(pattern, 50, rng)[:, None, None])
        table = _ratios_only(attention)
        inside = ((table["low"] <= truth) & (truth <= table["high"])).to_numpy()
        best = int(table["ratio"].argmax())
        covered.append(inside[best])
        jointly.append(inside.all())
        single = hub_ratio_by_n_problems(attention, [50], n_resamples=400)
        alone.append(single["low"][best] <= truth[best] <= single["high"][best])
    error = 2 * np.sqrt(0.95 * 0.05 / n_simulations)
    assert np.mean(covered) >= 0.95 - error
    # The percentile bootstrap falls a few points short for all five at once.
    assert np.mean(jointly) >= 0.95 - error - 0.05
    if hub is None:
        assert np.mean(alone) < 0.92


def _ratios_only(attention: xr.DataArray) -> pd.DataFrame:
    """Without the permutations, which a simulation of intervals does not need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hubs, "hub_test", lambda mean, seed: {"p": np.ones(mean.shape[:2])})
        return hub_ratios(attention, n_resamples=400)[:5]


PRIMACY = {
    "exponential, weak": lambda i, j: np.exp(-0.1 * j),
    "exponential": lambda i, j: np.exp(-0.3 * j),
    "exponential, strong": lambda i, j: np.exp(-1.0 * j),
    "power, weak": lambda i, j: (1.0 + j) ** -0.3,
    "power": lambda i, j: (1.0 + j) ** -1.0,
    "linear": lambda i, j: 6.0 - j,
    "by distance": lambda i, j: np.maximum(i - j, 1.0),
    "bell-shaped": lambda i, j: np.exp(-(j**2) / 8),
}


def preferring(profile: str, rng: np.random.Generator, hub: int | None = None) -> np.ndarray:
    """The mean block of 50 problems whose rows share a preference; a hub gets fourfold weight."""
    weight = np.tril(np.fromfunction(PRIMACY[profile], (6, 6)), -1)
    weight = weight * np.exp(0.1 * rng.normal(size=weight.shape))
    if hub is not None:
        weight[:, hub] *= 4
    weight *= GIVEN / np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    return noisy(weight, 50, rng).mean(axis=0)


@pytest.mark.parametrize("profile", PRIMACY)
def test_smooth_primacy_is_no_hub(profile: str) -> None:
    rng = np.random.default_rng(3)
    tests = [hub_test(preferring(profile, rng)) for _ in range(40)]
    called, called_by_even = (
        np.mean([np.nanmin(test[p]) < 0.05 for test in tests]) for p in ("p", "p_even")
    )
    assert called <= 0.1
    if profile in ("exponential", "power"):
        assert called_by_even > 0.5, "which is why an even spread is not enough of a null"


@pytest.mark.parametrize(("profile", "hub"), [("exponential, weak", 0), ("exponential", 0)])
@pytest.mark.parametrize("seed", range(3))
def test_a_hub_on_top_of_primacy_is_found(profile: str, hub: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = [hub_test(preferring(profile, rng, hub))["p"] for _ in range(10)]
    assert np.mean([p[hub] < 0.05 for p in found]) >= 0.7
    assert np.mean([np.nanmin(np.delete(p, hub)) < 0.05 for p in found]) <= 0.1


@pytest.mark.parametrize("hub", [1, 2])
def test_a_later_hub_on_top_of_weak_primacy_is_found(hub: int) -> None:
    rng = np.random.default_rng(hub)
    found = [hub_test(preferring("exponential", rng, hub))["p"][hub] for _ in range(10)]
    assert np.mean(np.array(found) < 0.05) >= 0.8


def test_what_a_profile_explains_has_ratio_one_and_a_hub_its_odds() -> None:
    primacy = np.tril(np.exp(-0.5 * np.arange(6.0)) * np.ones((6, 6)), -1)
    primacy /= np.maximum(primacy.sum(axis=1, keepdims=True), 1e-9)
    found = hub_test(primacy)
    assert found["ratio_smooth"][0] <= 1 + 1e-6 and found["p"][0] > 0.05 > found["p_even"][0]
    assert hub_test(block("ct0"))["ratio_smooth"][0] > 1.5


def test_a_problem_asked_twice_narrows_no_interval() -> None:
    attention = random_attention(20)
    twice = attention.isel(problem=[*range(20), *range(20)])
    once, again = (hub_ratios(each, n_resamples=200) for each in (attention, twice))
    pd.testing.assert_frame_equal(once, again, rtol=1e-6)
    assert (again.attrs["n_problems"], again.attrs["n_distinct"]) == (40, 20)
    with pytest.raises(AttentionError, match=r"1\.\.20, all distinct ones"):
        hub_ratio_by_n_problems(twice, [21])


def test_chains_in_other_words_are_one() -> None:
    """By their text, as by their start and operations."""
    problems = word_problems(300, seed=1)
    attention = random_attention(300, 1, 1).assign_coords(
        question=("problem", [problem.question for problem in problems])
    )
    told = chains_in(attention)
    known = numbered(
        [
            repr((p.start, [(step.kind, step.amount, step.threshold) for step in p.operations]))
            for p in problems
        ]
    )
    np.testing.assert_array_equal(told, known)
    assert told.max() + 1 < 300


def test_head_table_equals_the_model_table_of_each_head() -> None:
    attention = random_attention(n_layers=2, n_heads=2)
    table = head_hub_ratios(attention, n_resamples=30)
    for (layer, head), rows in table.groupby(["layer", "head"]):
        single = hub_ratios(attention.isel(layer=[layer], head=[head]), n_resamples=30)
        for column in ("ratio", "low", "high", "given", "ratio_smooth", "p", "p_smallest", "hub"):
            np.testing.assert_allclose(rows[column], single[column], err_msg=column)
    assert (table["q"].dropna() >= table["p"].dropna()).all()


def test_bands_narrow_with_more_problems_and_end_within_the_interval() -> None:
    attention = random_attention(n_problems=60)
    table = hub_ratio_by_n_problems(attention, [5, 20, 60], n_resamples=500)
    width = (table["high"] - table["low"]).groupby(table["n_problems"]).mean()
    assert width[5] > 1.5 * width[20] > 1.5 * width[60]
    full = hub_ratios(attention, n_resamples=500)
    last = table[table["n_problems"] == 60].reset_index()
    known = full["ratio"].notna()
    # A band is of one thought alone, an interval of all at once.
    assert (full["low"] <= last["low"])[known].all() and (last["high"] <= full["high"])[known].all()
    assert hub_ratio_by_n_problems(attention, n_resamples=5)["n_problems"].unique().tolist() == [
        5,
        10,
        20,
        50,
        60,
    ]
    with pytest.raises(AttentionError, match=r"must lie in 1\.\.60.*not 61"):
        hub_ratio_by_n_problems(attention, [61])
