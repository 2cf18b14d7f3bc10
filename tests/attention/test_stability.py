"""Scores in one pass, rankings that hold or do not, and clusters that were put there."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import adjusted_rand_score, silhouette_samples
from support.constructed import block, from_blocks, noisy, of_shape, random_attention
from support.reading import number

from codi_lens import AttentionError, metrics, rank_heads, thought_view
from codi_lens.attention import scores
from codi_lens.attention.cluster_null import grouped, null_clusters, silhouettes
from codi_lens.attention.clusters import cluster_heads
from codi_lens.attention.ranking import ConstantMetricWarning, ranks
from codi_lens.attention.scores import POSITION_SCORES, HeadScores, score_problems
from codi_lens.attention.stability import half_weights, split_halves
from codi_lens.attention.views import VIEWS, View

SHAPES = ("uniform", "sequential", "self", "ct1")


def model_of_shapes(n_problems: int = 30, seed: int = 0) -> xr.DataArray:
    """Four layers of three heads; the heads of a layer have one shape, with noise."""
    rng = np.random.default_rng(seed)
    blocks = [[noisy(block(shape), n_problems, rng) for _ in range(3)] for shape in SHAPES]
    return from_blocks(np.moveaxis(np.array(blocks), 2, 0))


def graded_model(n_problems: int, seed: int = 0) -> xr.DataArray:
    """Twelve heads, each more sequential and less to itself than the one before, with noise."""
    rng = np.random.default_rng(seed)
    shares = np.linspace(0, 1, 12).reshape(4, 3, 1, 1)
    blocks = shares * block("sequential") + (1 - shares) * block("self")
    heads = [[noisy(head, n_problems, rng) for head in layer] for layer in blocks]
    return from_blocks(np.moveaxis(np.array(heads), 2, 0))


def test_every_score_of_every_problem_is_that_of_its_own_matrix() -> None:
    attention = random_attention(n_problems=3, n_layers=2, n_heads=2)
    found = score_problems(attention)
    assert set(found.data_vars) == set(POSITION_SCORES)
    blocks = thought_view(attention).values.astype(float)
    for name, function in POSITION_SCORES.items():
        for place in np.ndindex(3, 2, 2):
            assert found[name].values[place] == pytest.approx(float(function(blocks[place])))


@pytest.mark.parametrize("view", VIEWS)
def test_chunks_change_nothing(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    attention = random_attention(n_problems=7)
    whole = HeadScores.of(attention, view)
    monkeypatch.setattr(scores, "CHUNK_BYTES", 1)
    chunked = HeadScores.of(attention, view)
    weights = np.random.default_rng(0).dirichlet(np.ones(7), size=3)
    for name in whole.values:
        np.testing.assert_allclose(chunked.values[name], whole.values[name], rtol=1e-12)
        np.testing.assert_allclose(
            chunked.reweighted(weights)[name], whole.reweighted(weights)[name], rtol=1e-9
        )


@pytest.mark.parametrize("view", VIEWS)
def test_attention_on_disk_is_scored_some_problems_at_a_time(
    view: View, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = random_attention(n_problems=9)
    attention.to_netcdf(tmp_path / "attention.nc", engine="scipy")
    monkeypatch.setattr(scores, "CHUNK_BYTES", 8 * 2 * attention[0].size)
    with xr.open_dataarray(tmp_path / "attention.nc", engine="scipy") as lazy:
        largest = max(len(blocks) for _, blocks in scores.problem_blocks(lazy, view))
        from_disk = HeadScores.of(lazy, view).values
    assert largest < 9
    for name, values in HeadScores.of(attention, view).values.items():
        np.testing.assert_allclose(from_disk[name], values)


@pytest.mark.parametrize("view", VIEWS)
def test_equal_weights_give_the_scores_and_a_doubled_problem_counts_twice(view: View) -> None:
    attention = random_attention(n_problems=5)
    found = HeadScores.of(attention, view)
    twice = HeadScores.of(attention.isel(problem=[0, 0, 1, 2, 3, 4]), view)
    weights = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 0, 0], [2, 1, 1, 1, 1]], dtype=float)
    samples = found.reweighted(weights / weights.sum(axis=1, keepdims=True))
    single = HeadScores.of(attention.isel(problem=[2]), view)
    for name in found.values:
        np.testing.assert_allclose(samples[name][0], found.values[name], rtol=1e-9)
        np.testing.assert_allclose(samples[name][1], single.values[name], rtol=1e-9)
        np.testing.assert_allclose(samples[name][2], twice.values[name], rtol=1e-9)


@pytest.mark.parametrize(
    ("shape", "zero", "positive"),
    [
        ("uniform", ["hub", "skip", "sequential_excess"], ["flow", "sequential", "self"]),
        ("sequential", [], ["hub", "sequential", "sequential_excess", "flow"]),
        ("self", ["hub", "skip", "sequential", "sequential_excess", "flow"], ["self"]),
        ("ct0", [], ["hub", "skip", "flow"]),
    ],
)
def test_pure_patterns_score_only_where_they_should(
    shape: str, zero: list[str], positive: list[str]
) -> None:
    values = score_problems(of_shape(shape)).mean()
    for name in zero:
        assert float(values[name]) == pytest.approx(0, abs=1e-6), name
    for name in positive:
        assert float(values[name]) > 0.01, name
    if shape == "sequential":
        assert float(values["skip"]) < 0, "less than an even spread goes to early thoughts"


def test_ranks_come_with_intervals_and_a_share_in_the_top_ten() -> None:
    attention = model_of_shapes()
    heads = rank_heads(attention, n_resamples=200)
    assert (heads["rank_low"] <= heads["rank"]).all() and (
        heads["rank"] <= heads["rank_high"]
    ).all()
    # Every resample has exactly ten heads in its top ten.
    assert heads["in_top_10"].sum() == pytest.approx(10)
    single = rank_heads(attention.isel(problem=[0]))
    assert single["rank_low"].isna().all() and single["in_top_10"].isna().all()


def test_ranks_break_ties_by_the_order_of_heads() -> None:
    np.testing.assert_array_equal(ranks(np.array([[1.0, 3, 1], [0, 0, 0]])), [[2, 1, 3], [1, 2, 3]])


@pytest.mark.parametrize("n_problems", [2, 7, 10])
def test_halves_are_disjoint_and_equal(n_problems: int) -> None:
    first, second = half_weights(n_problems, n_splits=20)
    assert ((first > 0) & (second > 0)).sum() == 0
    for half in (first, second):
        np.testing.assert_allclose(half.sum(axis=1), 1)
        assert ((half > 0).sum(axis=1) == n_problems // 2).all()
    with pytest.raises(AttentionError, match="at least 2 problems, not 1"):
        half_weights(1, n_splits=1)


def test_halves_agree_on_signal_and_not_on_noise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantMetricWarning)
        signal = split_halves(graded_model(60), n_splits=50).set_index("score")
        noise = split_halves(random_attention(60, n_layers=6, n_heads=8), n_splits=50)
    assert number(signal, "sequential", "correlation") > 0.8
    assert number(signal, "self", "correlation") > 0.8
    noise = noise.set_index("score")
    assert noise["correlation"].abs().max() < 0.5
    assert (noise["low"] < 0).all() and (noise["high"] > 0).all()
    np.testing.assert_allclose(noise["shared_top"], noise["shared_by_chance"], atol=1.5)


def test_a_constant_score_has_no_agreement() -> None:
    table = split_halves(random_attention(), "generation", n_splits=5).set_index("score")
    assert table.loc[["flow"], ["correlation", "shared_top"]].isna().to_numpy().all()
    assert table.loc["hub", "correlation"] is not np.nan


def test_clusters_recover_the_shapes_that_were_put_there() -> None:
    found = cluster_heads(model_of_shapes(), n_splits=10)
    truth = [SHAPES[layer] for layer in found.heads["layer"]]
    assert adjusted_rand_score(truth, found.heads["cluster"]) == 1
    assert found.stability == 1
    assert max(found.silhouette, key=lambda k: found.silhouette[k]) == 4
    look = ["outside", "self", "previous", "further"]
    np.testing.assert_allclose(found.heads[look].sum(axis=1), 1, atol=1e-6)
    sequential = found.heads[found.heads["layer"] == SHAPES.index("sequential")]
    assert (sequential["previous"] > 3 * sequential["further"].abs()).all()
    own = found.heads[found.heads["layer"] == SHAPES.index("self")]
    np.testing.assert_allclose(own[["previous", "further"]], 0, atol=1e-6)
    names = found.heads.set_index("name")["layer"].astype(str)
    assert found.agreement(names) == 1
    assert found.found and found.null.p < 0.01 and found.verdict.startswith("Clusters: ")


def structureless(kind: str, seed: int) -> xr.DataArray:
    """Twenty-four heads of one spread, over 30 problems that differ little."""
    rng = np.random.default_rng(seed)
    if kind == "gradient":
        share = rng.uniform(size=(24, 1, 1))
        blocks = share * block("sequential") + (1 - share) * block("self")
    else:
        weight = np.tril(np.exp(rng.normal(size=(24, 6, 6))))
        outside = np.exp(rng.normal(size=(24, 6, 1)))
        blocks = weight / (weight.sum(axis=-1, keepdims=True) + outside)
    heads = np.array([noisy(each, 30, rng) for each in blocks]).reshape(4, 6, 30, 6, 6)
    return from_blocks(np.moveaxis(heads, 2, 0))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gradient", "random"])
def test_heads_without_groups_are_no_clusters_however_stable(kind: str) -> None:
    found = [cluster_heads(structureless(kind, s), n_splits=5, n_draws=49) for s in range(10)]
    assert np.mean([each.found for each in found]) <= 0.1
    assert max(each.stability for each in found) > 0.6, "which says nothing of groups"
    assert sum("No clusters: " in each.verdict for each in found) >= 9


def test_groups_that_halves_do_not_agree_on_are_no_clusters() -> None:
    found = cluster_heads(model_of_shapes(), n_splits=5, n_draws=49)
    assert found.found and not replace(found, stability=found.null.stability - 0.1).found
    assert replace(found, stability=np.nan).found, "one problem has no halves"
    assert not replace(found, null=found.null.against(0.0)).found


def test_own_silhouettes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(20, 6))
    for n_groups in (2, 5, 9):
        labels = grouped(shapes, n_groups)
        np.testing.assert_allclose(silhouettes(shapes, labels), silhouette_samples(shapes, labels))
    assert (silhouettes(np.zeros((3, 2)), np.array([1, 1, 1])) == -1).all()


def test_drawn_heads_have_the_spread_of_the_real_ones_and_are_distributions() -> None:
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.full(7, 20.0), size=(40, 6))
    shapes = np.sqrt(rows.reshape(40, 42))
    null = null_clusters(shapes, [2, 3], None, n_draws=20)
    assert null.best.shape == (2, 20) and np.isnan(null.stability)
    assert null.against(1.0).p == pytest.approx(1 / 21)
    assert null.against(-1.0).p == 1
    again = null_clusters(shapes, [2, 3], None, n_draws=20)
    np.testing.assert_array_equal(null.best, again.best)


def test_clusters_are_named_by_size_and_their_number_can_be_given() -> None:
    found = cluster_heads(model_of_shapes(), 2, n_splits=5)
    counts = found.heads["cluster"].value_counts()
    assert set(counts.index) == {"A", "B"} and counts["A"] >= counts["B"]
    assert found.patterns.dims == ("cluster", "query", "key")
    with pytest.raises(AttentionError, match="12 heads cannot form 12 clusters"):
        cluster_heads(model_of_shapes(), 12)
    with pytest.raises(AttentionError, match="no type for the head L0H0"):
        found.agreement(rank_heads(model_of_shapes()).set_index("name")["type"].drop("L0H0"))


def test_excess_scores_are_the_score_of_what_exceeds_the_null() -> None:
    pattern = block("ct0")
    null = metrics.causal_null(pattern)
    assert metrics.skip_excess_score(pattern) == pytest.approx(
        np.subtract(metrics.skip_score(pattern), metrics.skip_score(null))
    )
    assert metrics.sequential_excess_score(pattern) == pytest.approx(
        np.subtract(metrics.sequential_score(pattern), metrics.sequential_score(null))
    )
    np.testing.assert_allclose(
        metrics.attention_to_earlier(null), metrics.attention_to_earlier(pattern)
    )
