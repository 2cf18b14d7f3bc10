"""Figures of the corrected analysis show the numbers they are given, named and within limits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from support.constructed import of_shape, random_attention
from support.reading import layout_of, traces_of

from codi_lens import AttentionError, rank_heads
from codi_lens.attention.clusters import cluster_heads
from codi_lens.attention.hubs import hub_ratio_by_n_problems, hub_ratios
from codi_lens.attention.profiles import (
    FIRST_TOKEN,
    answer_view,
    destinations,
    sequential_attention,
    skip_null,
    skip_profile,
    with_intervals,
)
from codi_lens.plots.attention import hubs, profiles
from codi_lens.plots.attention import probes as truth
from codi_lens.plots.attention import stability as structure
from codi_lens.plots.drawing import style

THOUGHTS = [f"ct{i}" for i in range(6)]


@pytest.fixture(scope="module")
def attention():
    return random_attention(20)


@pytest.fixture(scope="module")
def probes() -> pd.DataFrame:
    rows = [
        {"thought": f"ct{i}", "step": step, "accuracy": 0.9 if step == i + 1 else 0.2}
        for i in range(3)
        for step in range(4)
    ]
    table = pd.DataFrame(rows).assign(control=0.04)
    table.loc[table["step"] == 3, ["accuracy", "control"]] = np.nan
    return table


def traces(figure: go.Figure, name: str) -> list:
    return [trace for trace in traces_of(figure) if trace.name == name]


def texts(figure: go.Figure) -> list[str]:
    return [annotation.text for annotation in layout_of(figure).annotations]


def limits(axis) -> tuple[float, float]:
    return float(axis.range[0]), float(axis.range[1])


def test_hub_figure_draws_ratios_intervals_and_what_is_given(attention) -> None:
    table = hub_ratios(attention, n_resamples=50)
    figure = hubs.hub_ratios(table)
    points, bars = traces(figure, "attention")
    np.testing.assert_array_equal(points.y, table["ratio"])
    np.testing.assert_allclose(points.y + points.error_y.array, table["high"])
    np.testing.assert_allclose(points.y - points.error_y.arrayminus, table["low"])
    np.testing.assert_array_equal(bars.y, table["given"])
    assert list(layout_of(figure).xaxis.ticktext) == THOUGHTS
    low, high = limits(layout_of(figure).yaxis)
    assert low == 0 and high > table["high"].max()
    assert [text for text in texts(figure) if text == "×"] == ["×"], "the last thought only"
    assert sum("p" in text for text in texts(figure)) == 5
    assert any(shape.y0 == shape.y1 == 1 for shape in layout_of(figure).shapes)


def test_hub_figure_marks_where_the_test_cannot_find_a_hub(attention) -> None:
    figure = hubs.hub_ratios(hub_ratios(attention, n_resamples=20))
    starred = [text for text in texts(figure) if text.endswith("*")]
    assert 1 <= len(starred) < 5
    assert "* where too few" in layout_of(figure).title.subtitle.text


def test_value_weighted_attention_stands_beside_plain(attention) -> None:
    table = hub_ratios(attention, n_resamples=20)
    figure = hubs.hub_ratios({"attention": table, "value-weighted": table})
    plain, weighted = traces(figure, "attention")[0], traces(figure, "value-weighted")[0]
    assert (np.array(plain.x) < np.array(weighted.x)).all()
    assert plain.marker.color != weighted.marker.color
    with pytest.raises(AttentionError, match="same thought labels"):
        hubs.hub_ratios({"a": table, "b": table[:3]})


def test_band_against_problems_has_a_panel_per_thought(attention) -> None:
    table = hub_ratio_by_n_problems(attention, [5, 20], n_resamples=20)
    figure = hubs.hub_ratio_by_n_problems(table)
    assert texts(figure)[:5] == THOUGHTS[:5], "the last thought has no ratio"
    rows = table[table["thought"] == "ct2"]
    (line,) = traces(figure, "ct2")
    np.testing.assert_array_equal(line.y, rows["ratio"])
    band = traces(figure, "band")[2]
    np.testing.assert_array_equal(band.y, [*rows["high"], *rows["low"][::-1]])


@pytest.mark.parametrize("with_sink", [False, True])
def test_bars_of_destinations_fill_each_row(attention, with_sink: bool) -> None:
    sink = 0.5 * attention.sel(key="question", drop=True) if with_sink else None
    table = with_intervals(destinations(attention, sink), n_resamples=20)
    figure = profiles.destinations(table)
    np.testing.assert_allclose(sum(np.array(trace.x) for trace in traces_of(figure)), 1, atol=1e-5)
    assert (FIRST_TOKEN in [trace.name for trace in traces_of(figure)]) == with_sink
    assert list(traces_of(figure)[0].y) == ["bot", *THOUGHTS, "eot", "anchor"]
    assert limits(layout_of(figure).xaxis) == (0, 1)


def test_distances_show_the_null_beside_them(attention) -> None:
    table = with_intervals(skip_profile(attention), n_resamples=20)
    null = with_intervals(skip_null(attention), n_resamples=20)
    figure = profiles.by_distance(table, null)
    assert list(layout_of(figure).xaxis.ticktext) == ["0 (self)", "1", "2", "3", "4", "5"]
    (even,) = traces(figure, "even spread (causal null)")
    np.testing.assert_array_equal(even.y, null["mean"])
    assert np.isnan(even.y[0]), "the null does not move self-attention"
    assert limits(layout_of(figure).yaxis)[1] > table["high"].max()


def test_sequential_figure_names_query_and_key(attention) -> None:
    figure = profiles.sequential_intervals(
        with_intervals(sequential_attention(attention), n_resamples=20)
    )
    assert layout_of(figure).xaxis.ticktext[0] == "ct1→<br>ct0"
    assert len(traces_of(figure)[0].y) == 5
    empty = profiles.sequential_intervals(
        with_intervals(sequential_attention(of_shape("self", n=1)), n_resamples=20)
    )
    assert "no earlier thought" in texts(empty)[0]


def test_answer_figure_has_both_queries_and_says_what_the_question_gets(attention) -> None:
    table = with_intervals(answer_view(attention), n_resamples=20)
    figure = profiles.answer_reads(table)
    eot, anchor = traces_of(figure)
    assert eot.name.startswith("eot (") and anchor.name.startswith("anchor (")
    question = table[(table["query"] == "eot") & (table["key"] == "question")]["mean"].item()
    assert f"{question:.0%} to the question" in eot.name
    assert list(layout_of(figure).xaxis.ticktext) == THOUGHTS


def test_rank_figure_has_whiskers_and_the_share_in_the_top_ten(attention) -> None:
    heads = rank_heads(attention, n_resamples=50)
    figure = structure.rank_intervals(heads, 8)
    points = traces_of(figure)[0]
    assert list(points.y) == heads["name"][:8].tolist()
    np.testing.assert_allclose(points.x + points.error_x.array, heads["rank_high"][:8])
    assert texts(figure) == [f"{share:.0%}" for share in heads["in_top_10"][:8]]
    low, high = limits(layout_of(figure).xaxis)
    assert low == 0.5 and high >= heads["rank_high"][:8].max()
    with pytest.raises(AttentionError, match="at least 1 head"):
        structure.rank_intervals(heads, 0)
    with pytest.raises(AttentionError, match="with rows"):
        structure.rank_intervals(heads[:0])


def test_clusters_draw_impossible_cells_as_impossible(attention) -> None:
    found = cluster_heads(attention, 3, n_splits=3)
    figure = structure.clusters(found)
    drawn, impossible = traces(figure, "attention"), traces(figure, "impossible")
    assert len(drawn) == len(impossible) == 3
    above = np.triu(np.ones((6, 6), dtype=bool), 1)
    for pattern, cells, name in zip(drawn, impossible, "ABC", strict=True):
        values = np.array(pattern.z, dtype=float)
        np.testing.assert_array_equal(np.isnan(values), above)
        np.testing.assert_array_equal(np.array(cells.text) == "×", above)
        np.testing.assert_allclose(
            np.nan_to_num(values), np.tril(found.patterns.sel(cluster=name).values)
        )
    assert (
        layout_of(figure).coloraxis.cmin,
        layout_of(figure).coloraxis.cmax,
    ) == style.ATTENTION_RANGE


def test_clusters_beside_types_count_every_head_once(attention) -> None:
    found = cluster_heads(attention, 3)
    names = found.heads["name"]
    same = found.heads.set_index("name")["cluster"]
    figure = structure.clusters_and_types(found, same)
    np.testing.assert_array_equal(traces_of(figure)[0].z, np.diag(same.value_counts().sort_index()))
    assert "agreement 1.00" in layout_of(figure).title.subtitle.text
    alike = structure.clusters_and_types(found, pd.Series("Hub Aggregator", index=names))
    np.testing.assert_array_equal(np.sum(traces_of(alike)[0].z), len(names))
    assert [int(n) for n in traces(alike, "numbers")[0].text] == list(
        np.ravel(traces_of(alike)[0].z)
    )
    with pytest.raises(AttentionError, match=f"no type for the head {names[0]}"):
        structure.clusters_and_types(found, same.drop(names[0]))


def test_probe_figure_says_what_training_supervised(probes: pd.DataFrame) -> None:
    figure = truth.decodable_totals(probes, supervised=["ct0", "ct1", "ct2"])
    outlined = [(shape.x0 + 0.46, shape.y0 + 0.46) for shape in layout_of(figure).shapes]
    np.testing.assert_allclose(outlined, [(1, 0), (2, 1), (3, 2)])
    assert "training supervised" in layout_of(figure).title.subtitle.text
    assert "no discovery" in layout_of(figure).title.subtitle.text
    assert "ct0, ct1, ct2" in layout_of(figure).title.subtitle.text
    unknown = truth.decodable_totals(probes)
    assert "does not say" in layout_of(unknown).title.subtitle.text
    free = truth.decodable_totals(probes, supervised=[])
    assert len(layout_of(free).shapes) == 0
    assert "no thought was supervised" in layout_of(free).title.subtitle.text


def test_probe_figure_draws_accuracy_and_control_on_one_scale(probes: pd.DataFrame) -> None:
    figure = truth.decodable_totals(probes)
    accuracy, control = (trace for trace in traces_of(figure) if trace.type == "heatmap")
    assert accuracy.coloraxis == control.coloraxis
    assert (layout_of(figure).coloraxis.cmin, layout_of(figure).coloraxis.cmax) == (0, 1)
    assert list(accuracy.x) == ["start", "1", "2", "3"]
    values = np.array(accuracy.z, dtype=float)
    assert values[1, 2] == 0.9 and np.isnan(values[:, 3]).all()
    numbers = np.reshape(traces(figure, "numbers")[0].text, values.shape)
    assert (numbers[:, 3] == "–").all(), "undefined is not zero"


def test_length_figure_outlines_the_thought_that_holds_the_total(probes: pd.DataFrame) -> None:
    table = pd.DataFrame(
        {
            "n_operations": np.repeat([1, 2, 3], 3),
            "n": 10,
            "thought": ["ct0", "ct1", "ct2"] * 3,
            "mean": np.linspace(0, 0.4, 9),
        }
    )
    figure = truth.answer_reads_by_length(table, probes)
    np.testing.assert_allclose(np.ravel(traces_of(figure)[0].z), table["mean"])
    outlined = [(shape.x0 + 0.46, shape.y0 + 0.46) for shape in layout_of(figure).shapes]
    np.testing.assert_allclose(outlined, [(0, 1), (1, 2)])
    assert list(traces_of(figure)[0].y) == [f"{k} (10 problems)" for k in (1, 2, 3)]
    assert len(layout_of(truth.answer_reads_by_length(table)).shapes) == 0


def test_truth_figure_marks_supervision_and_the_impossible_ratio() -> None:
    table = pd.DataFrame({"thought": ["ct0", "ct1"], "supervised": [True, False], "step": [1, 0]})
    for name in ("accuracy", "hub_ratio", "from_eot", "from_anchor"):
        table[name], table[f"{name}_low"], table[f"{name}_high"] = 0.5, 0.4, 0.6
    table["control"] = 0.03
    table.loc[1, ["hub_ratio", "hub_ratio_low", "hub_ratio_high"]] = np.nan
    figure = truth.thoughts_and_attention(table)
    (ring,) = traces(figure, "supervised in training")
    assert list(ring.x) == [0]
    assert "×" in texts(figure) and "total<br>after 1" in texts(figure)
    assert "no discovery" in layout_of(figure).title.subtitle.text
    free = truth.thoughts_and_attention(table.assign(supervised=False))
    assert not traces(free, "supervised in training")
    assert "no discovery" not in layout_of(free).title.subtitle.text
