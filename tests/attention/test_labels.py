"""Layers, heads, positions and problems are known by their labels, in whatever order they come."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.constructed import random_attention

from codi_lens import AttentionError, ConstantMetricWarning, plots, rank_heads, run_study
from codi_lens.attention.clusters import cluster_heads
from codi_lens.attention.evidence import gather_evidence
from codi_lens.attention.hubs import head_hub_ratios, hub_ratios
from codi_lens.attention.labels import labelled, labelled_steps
from codi_lens.attention.profiles import (
    answer_view,
    average_heads,
    destinations,
    sequential_attention,
    skip_profile,
    with_intervals,
)
from codi_lens.attention.quantities import corrected_quantities
from codi_lens.attention.scores import score_problems
from codi_lens.attention.stability import split_halves
from codi_lens.attention.views import VIEWS, View, generation_view, thought_view
from codi_lens.causal.transplants import mean_block
from codi_lens.errors import CodiLensError, PositionError
from codi_lens.study.heads import study_heads
from codi_lens.study.settings import StudyThresholds

N_LAYERS, N_HEADS = 3, 6
FULL = random_attention(4, N_LAYERS, N_HEADS).assign_attrs(n_layers=N_LAYERS)
RAW = ["flow", "hub", "skip", "hub_position", "max_attention", "max_query", "max_key", "band"]

SELECTIONS: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
    "one layer": lambda a: a.isel(layer=[2]),
    "one layer, as a scalar": lambda a: a.sel(layer=2),
    "heads out of order": lambda a: a.sel(head=[5, 3]),
    "layers reversed": lambda a: a.isel(layer=slice(None, None, -1)),
    "one head, as a scalar": lambda a: a.sel(layer=1, head=4),
    "dimensions transposed": lambda a: a.transpose("key", "head", "problem", "query", "layer"),
    "queries and keys reversed": lambda a: a.isel(
        query=slice(None, None, -1), key=slice(None, None, -1)
    ),
    "numbers as floats": lambda a: a.assign_coords(layer=a["layer"].values.astype(float)),
}
ORDERS = ["layers reversed", "dimensions transposed", "queries and keys reversed"]
"""Selections that hold every head, so that whatever is computed of them is the same."""


def rank(attention: xr.DataArray, view: View = "position") -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantMetricWarning)
        return rank_heads(attention, view, n_resamples=20)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", SELECTIONS)
def test_a_selection_has_the_raw_scores_of_the_full_grid_under_its_names(
    name: str, view: View
) -> None:
    chosen = SELECTIONS[name](FULL)
    full, part = rank(FULL, view).set_index("name"), rank(chosen, view).set_index("name")
    layers, heads = (np.atleast_1d(chosen[dim].values).astype(int) for dim in ("layer", "head"))
    assert set(part.index) == {f"L{layer}H{head}" for layer in layers for head in heads}
    pd.testing.assert_frame_equal(part[RAW], full.loc[part.index, RAW])
    pd.testing.assert_frame_equal(part[["layer", "head"]], full.loc[part.index, ["layer", "head"]])
    assert sorted(part["rank"]) == list(range(1, len(part) + 1)), "ranks are among the selected"
    assert rank(chosen, view).attrs["n_ranked"] == len(part)


def test_bands_are_those_of_the_model() -> None:
    last = FULL.isel(layer=[2])
    assert set(rank(last)["band"]) == {"late"}
    first = FULL.isel(layer=[0])
    assert set(rank(first)["band"]) == {"early"}
    assert set(run_study(first).heads["layer_type"]) == {"early"}
    deeper = first.assign_coords(layer=[4]).assign_attrs(n_layers=12)
    assert set(rank(deeper)["band"]) == {"middle"}
    assert set(rank(deeper.assign_attrs(n_layers=None))["band"]) == {"late"}, "the last there is"


QUANTITIES: dict[str, Callable[[xr.DataArray], Any]] = {
    "hubs": lambda a: hub_ratios(a, n_resamples=20),
    "hubs of heads": lambda a: head_hub_ratios(a, n_resamples=20),
    "corrected": lambda a: corrected_quantities(a, n_resamples=20),
    "clusters": lambda a: cluster_heads(a, n_splits=5).heads,
    "halves": lambda a: split_halves(a, n_splits=5),
    "scores": lambda a: score_problems(a).to_dataframe(),
    "goes": lambda a: with_intervals(destinations(a), over=(), n_resamples=20),
    "sequential": lambda a: with_intervals(sequential_attention(a), n_resamples=20),
    "distances": lambda a: with_intervals(skip_profile(a), over=(), n_resamples=20),
    "answer": lambda a: with_intervals(answer_view(a), n_resamples=20),
    "averages": lambda a: average_heads(a)[1].to_dataframe("value"),
    "views": lambda a: thought_view(a).transpose(*FULL.dims).to_dataframe("value"),
    "steps": lambda a: generation_view(a).transpose(*FULL.dims).to_dataframe("value"),
    "study": lambda a: run_study(a).heads,
    "stats": lambda a: pd.json_normalize(run_study(a).stats),
    "summary": lambda a: pd.json_normalize(run_study(a).summary),
    "ranks": rank,
}


@pytest.mark.slow
@pytest.mark.parametrize("quantity", QUANTITIES)
def test_the_order_of_labels_changes_no_number(quantity: str) -> None:
    expected = QUANTITIES[quantity](FULL)
    for name in ORDERS:
        found = QUANTITIES[quantity](SELECTIONS[name](FULL))
        pd.testing.assert_frame_equal(found, expected, check_exact=False, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_every_table_of_a_selection_names_its_heads() -> None:
    for name in ("heads out of order", "one layer", "one layer, as a scalar"):
        chosen = SELECTIONS[name](FULL)
        names = set(rank(chosen)["name"])
        assert set(head_hub_ratios(chosen, n_resamples=20)["name"]) == names
        clusters = cluster_heads(chosen, 2, n_splits=2).heads
        assert set(clusters["name"]) == names
        assert set(run_study(chosen).heads["name"]) == names
        table = corrected_quantities(chosen, n_resamples=20)
        link = table.loc[table["quantity"] == "strongest link", "at"].item()
        assert link.split()[0] in names
        layer, head = map(int, link.split()[0].removeprefix("L").split("H"))
        late, early = link.split()[1].split("→")
        value = FULL.sel(layer=layer, head=head, query=late, key=early).astype(float).mean()
        assert table.loc[table["quantity"] == "strongest link", "value"].item() == pytest.approx(
            float(value)
        )
        types = rank(chosen).set_index("name")["type"]
        evidence = gather_evidence(chosen, rank(chosen), types, n_resamples=20)
        assert evidence.n_thoughts == 6


def test_the_study_of_a_selection_states_the_full_grid_s_numbers() -> None:
    full = run_study(FULL).heads.set_index("name")
    study = run_study(FULL.isel(layer=[2, 1]).sel(head=[5, 3]))
    columns = ["layer", "head", "layer_type", "flow_score", "hub_score", "skip_score"]
    columns += ["max_position", "mean_attention"]
    part = study.heads.set_index("name")
    pd.testing.assert_frame_equal(part[columns], full.loc[part.index, columns])
    for head in study.stats["top_20_heads"]:
        own = full.loc[f"L{head['layer']}H{head['head']}"]
        assert head["max_attention"] == own["max_attention"]
        assert head["max_position"] == own["max_position"]


def test_pictures_of_a_selection_show_the_heads_that_they_name() -> None:
    chosen = FULL.isel(layer=[2, 0]).sel(head=[5, 3])
    study = run_study(chosen, "x")
    for figure in (plots.strongest_heads(study), plots.critical_heads(study)):
        check_panels(figure, generation_view(FULL).mean("problem"))
    by_layer = cast(Any, plots.attention_by_layer(study))
    assert [note.text for note in by_layer.layout.annotations[:2]] == ["layer 0", "layer 2"]
    heads = rank(chosen)
    for attention in (chosen, FULL):
        figure = plots.top_heads(attention.mean("problem"), heads)
        check_panels(figure, thought_view(FULL).mean("problem"))
    one = FULL.sel(layer=2, head=4).mean("problem")
    z = cast(Any, plots.pattern(one, 2, 4)).data[0].z
    np.testing.assert_allclose(np.nan_to_num(z), thought_view(FULL).mean("problem")[2, 4])
    with pytest.raises(PositionError, match=r"no layer 0; the attention has layers 2 only"):
        plots.pattern(one, 0, 4)


def check_panels(figure: Any, mean: xr.DataArray) -> None:
    named = [re.search(r"L(\d+)H(\d+)", str(note.text)) for note in figure.layout.annotations]
    titles = [found for found in named if found]
    maps = [trace for trace in figure.data if trace.type == "heatmap" and trace.coloraxis]
    assert len(titles) == len(maps) == 4
    for title, drawn in zip(titles, maps, strict=True):
        layer, head = map(int, title.groups())
        expected = mean.sel(layer=layer, head=head).values
        np.testing.assert_allclose(np.nan_to_num(drawn.z), expected, atol=1e-12, err_msg=title[0])


def test_the_sink_is_matched_by_its_labels() -> None:
    sink = 0.5 * FULL.sel(key="question", drop=True)
    expected = destinations(FULL, sink)
    turned = destinations(FULL, sink.isel(layer=[2, 1, 0], problem=[3, 1, 0, 2]))
    xr.testing.assert_identical(turned, expected)
    part = destinations(FULL.sel(layer=2), sink)
    xr.testing.assert_allclose(part, expected.sel(layer=[2]).transpose(*part.dims))
    with pytest.raises(AttentionError, match="must have the labels of the attention"):
        destinations(FULL, sink.isel(layer=[0]))


def test_a_mean_block_is_that_of_the_head_asked_for() -> None:
    expected = mean_block(FULL, (2, 3))
    for turned in (FULL.isel(layer=[2, 1, 0]), FULL.sel(head=[5, 3]), FULL.sel(layer=2)):
        assert np.array_equal(mean_block(turned, (2, 3)), expected)
    with pytest.raises(PositionError, match="no head L0H3"):
        mean_block(FULL.sel(layer=2), (0, 3))


@pytest.mark.parametrize(
    ("attention", "message"),
    [
        (np.zeros((3, 6, 9, 10)), "not a ndarray"),
        (FULL.to_dataset(name="attention"), 'not a Dataset; give its "attention"'),
        (FULL.isel(layer=[2]).drop_vars("layer"), "no labels along layer"),
        (FULL.drop_vars("head"), "no labels along head"),
        (FULL.drop_vars("query"), "must be labelled bot"),
        (FULL.isel(layer=0, drop=True), "needs the dimensions layer"),
        (FULL.stack(unit=("layer", "head")), "needs the dimensions layer"),
        (FULL.isel(layer=[1, 1]), r"each once, and be at least one, not \[1, 1\]"),
        (FULL.isel(head=[]), r"at least one, not \[\]"),
        (FULL.assign_coords(layer=[0, 1, -2]), r"not \[0, 1, -2\]"),
        (FULL.assign_coords(layer=[0, 1, 1.5]), r"not \[0.0, 1.0, 1.5\]"),
        (FULL.assign_coords(layer=[0, 1, np.nan]), "not .*nan"),
        (FULL.assign_coords(layer=["a", "b", "c"]), r"not \[a, b, c\]"),
        (FULL.isel(query=[1, 1, 2, 3, 4, 5, 6, 7, 8]), "each once"),
        (FULL.sel(query=["ct0", "ct1"]), "must be labelled bot"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_what_names_no_heads_is_refused_in_a_sentence(attention: Any, message: str) -> None:
    with pytest.raises(AttentionError, match=message) as raised:
        labelled(attention)
    assert "\n" not in str(raised.value)


def test_the_study_takes_its_own_view_only() -> None:
    mean = FULL.mean("problem")
    for other in (mean, thought_view(mean), generation_view(FULL)):
        with pytest.raises(AttentionError, match="takes the generation view"):
            labelled_steps(other)
    turned = generation_view(mean).isel(layer=[2, 1, 0], key=slice(None, None, -1))
    pd.testing.assert_frame_equal(study_heads(turned), study_heads(generation_view(mean)))


def test_a_dimension_too_many_is_named() -> None:
    with pytest.raises(AttentionError, match="select one of seed first"):
        rank_heads(FULL.expand_dims(seed=[0, 1]))


@pytest.mark.parametrize("name", ["strong_hub", "multi_purpose", "strong_share"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True])
def test_thresholds_that_decide_nothing_are_refused(name: str, value: float) -> None:
    with pytest.raises(AttentionError, match=f"threshold {name} is a finite number"):
        StudyThresholds(**{name: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"n_resamples": 0}, "n_resamples must be at least 1"),
        ({"level": 1.5}, "between 0 and 1"),
        ({"level": float("nan")}, "level of an interval is a finite number"),
    ],
)
def test_absurd_numbers_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    for function in (rank_heads, hub_ratios, corrected_quantities):
        with pytest.raises(CodiLensError, match=message):
            function(FULL, **options)
