"""Where attention goes: constructed patterns are recovered, and every row is accounted for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats
from support.constructed import GIVEN, OWN, from_blocks, noisy, of_shape, random_attention

from codi_lens import AttentionError
from codi_lens.attention.profiles import (
    FIRST_TOKEN,
    KINDS,
    answer_view,
    destinations,
    sequential_attention,
    skip_null,
    skip_profile,
    with_intervals,
)
from codi_lens.stats import mean_interval


def test_destinations_account_for_all_attention() -> None:
    attention = random_attention()
    shares = destinations(attention)
    assert shares["kind"].values.tolist() == list(KINDS)
    np.testing.assert_allclose(shares.sum("kind"), 1, atol=1e-6)
    for query, kind, keys in (
        ("ct2", "self", ["ct2"]),
        ("ct2", "earlier thoughts", ["ct0", "ct1"]),
        ("bot", "self", ["bot"]),
        ("bot", "bot", []),
        ("eot", "self", ["eot"]),
        ("eot", "earlier thoughts", [f"ct{i}" for i in range(6)]),
        ("anchor", "answer", ["answer"]),
        ("anchor", "eot", ["eot"]),
        ("anchor", "self", []),
    ):
        np.testing.assert_allclose(
            shares.sel(query=query, kind=kind),
            attention.sel(query=query, key=keys).sum("key"),
            atol=1e-6,
            err_msg=f"{query} → {kind}",
        )


def test_the_first_token_is_shown_apart_and_nothing_is_lost() -> None:
    attention = random_attention()
    sink = 0.7 * attention.sel(key="question", drop=True)
    shares = destinations(attention, sink)
    np.testing.assert_allclose(shares.sum("kind"), 1, atol=1e-6)
    np.testing.assert_allclose(shares.sel(kind=FIRST_TOKEN), sink)
    np.testing.assert_allclose(
        shares.sel(kind="question"), 0.3 * attention.sel(key="question"), atol=1e-6
    )
    with pytest.raises(AttentionError, match="sink exceeds the attention to the question"):
        destinations(attention, sink + 0.5)


def test_an_anchor_that_does_not_exist_stays_undefined() -> None:
    attention = random_attention()
    attention.loc[{"problem": "p1", "query": "anchor"}] = np.nan
    shares = destinations(attention).sel(query="anchor")
    assert shares.sel(problem="p1").isnull().all()
    assert shares.sel(problem="p0").notnull().all()
    table = with_intervals(answer_view(attention), n_resamples=50)
    rest = answer_view(attention).isel(problem=[0, 2, 3, 4, 5, 6, 7]).mean(["layer", "head"])
    expected = rest.sel(query="anchor", key="ct3").mean()
    found = table[(table["query"] == "anchor") & (table["key"] == "ct3")]
    np.testing.assert_allclose(found["mean"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("sequential", [GIVEN] * 5),
        ("uniform", [GIVEN / i for i in range(1, 6)]),
        ("self", [0] * 5),
        ("ct0", [GIVEN, 0, 0, 0, 0]),
    ],
)
def test_sequential_attention_of_pure_patterns(shape: str, expected: list[float]) -> None:
    values = sequential_attention(of_shape(shape))
    assert values["query"].values.tolist() == [f"ct{i}" for i in range(1, 6)]
    np.testing.assert_allclose(values[0, 0, 0], expected, atol=1e-6)


def test_skip_profile_of_pure_patterns() -> None:
    sequential, own = (skip_profile(of_shape(shape))[0, 0, 0] for shape in ("sequential", "self"))
    np.testing.assert_allclose(sequential, [OWN, GIVEN, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(own, [GIVEN + OWN, 0, 0, 0, 0, 0], atol=1e-6)
    uniform = of_shape("uniform")
    np.testing.assert_allclose(skip_profile(uniform)[..., 1:], skip_null(uniform)[..., 1:])
    assert skip_null(uniform).sel(distance=0).isnull().all()


def test_with_intervals_can_keep_every_head() -> None:
    attention = random_attention()
    table = with_intervals(sequential_attention(attention), over=(), n_resamples=20)
    assert len(table) == 3 * 4 * 5
    assert list(table.columns) == ["layer", "head", "query", "mean", "low", "high"]
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    with pytest.raises(AttentionError, match="problem dimension"):
        with_intervals(sequential_attention(attention).mean("problem"))


def test_intervals_agree_with_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).gamma(2, size=(80, 3))
    mean, low, high = mean_interval(values, n_resamples=5000)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, axis=0, n_resamples=5000, method="percentile", rng=1
    ).confidence_interval
    np.testing.assert_allclose(mean, values.mean(axis=0))
    width = theirs.high - theirs.low
    np.testing.assert_allclose(low, theirs.low, atol=0.05 * width.max())
    np.testing.assert_allclose(high, theirs.high, atol=0.05 * width.max())


@pytest.mark.slow
def test_intervals_cover_the_true_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(4)
    pattern = np.tril(rng.uniform(0.02, 0.2, (6, 6)), -1)
    truth = sequential_attention(from_blocks(noisy(pattern, 100_000, rng)[:, None, None])).mean(
        ["problem", "layer", "head"]
    )
    n_simulations, covered = 300, []
    for _ in range(n_simulations):
        attention = from_blocks(noisy(pattern, 100, rng)[:, None, None])
        table = with_intervals(sequential_attention(attention), n_resamples=400)
        covered.append((table["low"] <= truth.values) & (truth.values <= table["high"]))
    # The percentile bootstrap of a skewed quantity falls short by about a point at 100 problems.
    error = 2 * np.sqrt(0.95 * 0.05 / n_simulations)
    assert (np.abs(np.mean(covered, axis=0) - 0.95) <= error + 0.01).all()
