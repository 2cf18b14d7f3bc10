"""Heads are ranked by what is in the attention, in both views, with honest intervals."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from support.constructed import label, random_attention

from codi_lens import (
    AttentionError,
    ConstantMetricWarning,
    generation_view,
    metrics,
    rank_heads,
    thought_view,
)
from codi_lens.attention.ranking import layer_band
from codi_lens.attention.views import VIEWS, View
from codi_lens.positions import key_names, query_names

THOUGHTS = [f"ct{i}" for i in range(6)]


def rank(attention: xr.DataArray, view: View, **options: int) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantMetricWarning)
        return rank_heads(attention, view, n_resamples=options.pop("n_resamples", 50), **options)


def test_views_take_the_queries_that_their_names_say() -> None:
    attention = random_attention()
    position, generation = thought_view(attention), generation_view(attention)
    assert list(position["query"].values) == THOUGHTS
    assert list(generation["query"].values) == ["bot", *THOUGHTS[:-1]]
    assert (generation.sel(query="bot") == 0).all(), "bot sees no thought"
    assert (generation.sel(key="ct5") == 0).all(), "no step sees the last thought"
    np.testing.assert_array_equal(
        generation.values[..., 1:, :5], position.values[..., :5, :5]
    )  # entry [i, i-1] of the study is [i-1, i-1] here: self-attention
    np.testing.assert_array_equal(
        np.diagonal(generation.values, -1, -2, -1),
        np.diagonal(position.values, 0, -2, -1)[..., :5],
    )


def test_generation_view_scores_are_the_studys_on_the_mean_matrix() -> None:
    attention = random_attention()
    heads = rank(attention, "generation").sort_values(["layer", "head"])
    mean = generation_view(attention).mean("problem").values.astype(float).reshape(-1, 6, 6)
    np.testing.assert_allclose(heads["flow"], 1, atol=1e-6)
    np.testing.assert_allclose(heads["hub"], mean.sum(axis=1).var(axis=1), rtol=1e-5)
    np.testing.assert_allclose(heads["skip"], mean[:, 5, :3].mean(axis=1), rtol=1e-5)
    hub, skip = (heads[name].to_numpy() for name in ("hub", "skip"))
    norm = [(x - x.min()) / (x.max() - x.min() + 1e-10) for x in (hub, skip)]
    np.testing.assert_allclose(heads["composite"], 0.4 * norm[0] + 0.2 * norm[1], rtol=1e-5)
    np.testing.assert_allclose(heads["max_attention"], mean.max(axis=(1, 2)), rtol=1e-5)
    hubs = [THOUGHTS[j] for j in mean.sum(axis=1).argmax(axis=1)]
    assert heads["hub_position"].tolist() == hubs


def test_position_view_scores_are_means_of_per_problem_scores() -> None:
    attention = random_attention()
    heads = rank(attention, "position").sort_values(["layer", "head"])
    blocks = thought_view(attention).values.astype(float).reshape(8, -1, 6, 6)
    np.testing.assert_allclose(heads["flow"], metrics.flow_score(blocks).mean(0), rtol=1e-6)
    np.testing.assert_allclose(heads["hub"], metrics.hub_excess_score(blocks).mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        heads["self"], np.diagonal(blocks, 0, 2, 3).mean(axis=(0, 2)), rtol=1e-6
    )


@pytest.mark.parametrize("view", VIEWS)
def test_table_is_complete_ordered_and_typed(view: View) -> None:
    heads = rank(random_attention(), view)
    assert heads["rank"].tolist() == list(range(1, 13))
    assert heads["composite"].is_monotonic_decreasing
    assert set(heads["name"]) == {f"L{layer}H{head}" for layer in range(3) for head in range(4)}
    assert set(heads["type"]) <= {
        "Multi-Purpose",
        "Forward Flow",
        "Hub Aggregator",
        "Skip Connection",
    }
    for name in ("flow", "hub", "skip"):
        assert (heads[f"{name}_low"] <= heads[name] + 1e-12).mean() > 0.9
        assert (heads[f"{name}_high"] >= heads[name] - 1e-12).mean() > 0.9


@pytest.mark.parametrize("view", VIEWS)
@settings(max_examples=10, deadline=None)
@given(order=st.permutations(range(8)))
def test_scores_do_not_depend_on_the_order_of_problems(view: View, order: list[int]) -> None:
    attention = random_attention()
    one, other = rank(attention, view), rank(attention.isel(problem=order), view)
    assert one["name"].tolist() == other["name"].tolist()
    for name in ("flow", "hub", "skip", "composite"):
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6)


def test_planted_head_is_found_with_its_query_and_key() -> None:
    attention = random_attention().copy()
    planted = attention.values[:, 2, 1]
    row, column = query_names(6).index("ct4"), key_names(6).index("ct1")
    planted[:, row] = 0
    planted[:, row, column] = 1
    for query in ("ct3", "ct5"):
        planted[:, query_names(6).index(query)] = planted[:, row]
    best = rank(attention, "position").iloc[0]
    assert best["name"] == "L2H1"
    assert best["hub_position"] == "ct1"
    assert (best["max_key"], best["max_attention"]) == ("ct1", 1)
    assert best["band"] == "late"


def test_constant_metrics_warn_flag_and_stay_out_of_the_corrected_composite() -> None:
    attention = random_attention()
    with pytest.warns(ConstantMetricWarning, match="flow score is 1 for every head.*study's"):
        heads = rank_heads(attention, "generation", n_resamples=10)
    assert heads["flow_constant"].all()
    assert not heads["hub_constant"].any()
    assert heads.attrs["constant"] == ["flow"]
    assert heads["composite"].max() <= 0.6
    no_self = attention.copy()
    for name in THOUGHTS:
        no_self.loc[{"query": name, "key": name}] = 0
    with pytest.warns(ConstantMetricWarning) as warned:
        corrected = rank_heads(no_self, "position", n_resamples=10)
    assert [str(warning.message).split(" score")[0] for warning in warned] == [
        "The flow",
        "The self",
    ]
    hub, skip = (metrics.normalise(corrected[name].to_numpy()) for name in ("hub", "skip"))
    np.testing.assert_allclose(
        corrected["composite"], (0.4 * np.asarray(hub) + 0.2 * np.asarray(skip)) / 0.6, rtol=1e-6
    )


def test_functional_types_follow_the_study() -> None:
    """Hub and skip at the top of their ranges: Multi-Purpose, as the published GPT-2 L0H3."""
    values = np.zeros((1, 1, 3, 9, 10), dtype=np.float32)
    values[..., 0] = 1
    row, ct0, ct3 = (
        query_names(6).index("ct4"),
        key_names(6).index("ct0"),
        key_names(6).index("ct3"),
    )
    values[0, 0, 0, row, [0, ct0]] = [0.1, 0.9]  # generation row 5: hub and skip
    values[0, 0, 1, row, [0, ct3]] = [0.1, 0.9]  # a hub outside the skip columns
    values[0, 0, 2, query_names(6).index("ct0"), [0, ct0]] = [0.9, 0.1]
    heads = rank(label(values), "generation").set_index("name")
    assert heads.loc["L0H0", "type"] == "Multi-Purpose"
    assert heads.loc["L0H1", "type"] == "Hub Aggregator"
    assert heads.loc["L0H0", "composite"] == pytest.approx(0.6)


def test_intervals_shrink_with_problems_and_are_absent_for_one() -> None:
    few, many = random_attention(6, seed=1), random_attention(200, seed=1)
    widths = [
        (heads["skip_high"] - heads["skip_low"]).mean()
        for heads in (
            rank(few, "position", n_resamples=200),
            rank(many, "position", n_resamples=200),
        )
    ]
    assert widths[1] < widths[0] / 2
    assert rank(random_attention(1), "position")["skip_low"].isna().all()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_any_number_of_thoughts_is_ranked(view: View, n: int) -> None:
    heads = rank(random_attention(n=n), view)
    assert len(heads) == 12
    assert heads["composite"].notna().all()


@pytest.mark.parametrize(
    ("layer", "n_layers", "band"),
    [
        (0, 3, "early"),
        (1, 3, "middle"),
        (2, 3, "late"),
        (4, 16, "early"),
        (5, 16, "middle"),
        (9, 16, "middle"),
        (10, 16, "late"),
        (0, 1, "late"),
        (0, 2, "middle"),
    ],
)
def test_layer_bands(layer: int, n_layers: int, band: str) -> None:
    assert layer_band(layer, n_layers) == band


def test_bad_attention_is_named() -> None:
    attention = random_attention()
    with pytest.raises(AttentionError, match="dimensions layer, head, query, key"):
        thought_view(attention.isel(layer=0, drop=True))
    with pytest.raises(AttentionError, match="labelled bot, ct0"):
        thought_view(attention.assign_coords(key=np.arange(10)))
    with pytest.raises(AttentionError, match="needs a problem dimension"):
        rank_heads(attention.mean("problem"))
    with pytest.raises(AttentionError, match="holds no problem"):
        rank_heads(attention.isel(problem=[]))
    broken = attention.copy()
    broken[3, 0, 0] = np.nan
    with pytest.raises(AttentionError, match="attention of problem p3 holds NaN"):
        rank_heads(broken)
