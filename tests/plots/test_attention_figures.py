import doctest
import re
from typing import Any

import numpy as np
import pytest
from plotly.colors import sample_colorscale
from support.constructed import make_attention, make_heads
from support.reading import traces_of

from codi_lens import plots
from codi_lens.errors import AttentionError, CodiLensError, PositionError
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.views import check_view
from codi_lens.positions import key_names, possible_cells


@pytest.fixture(scope="module")
def attention():
    return make_attention()


@pytest.fixture(scope="module")
def heads(attention):
    return make_heads(attention)


def cells_of(figure) -> np.ndarray:
    return np.array(figure.data[0].z, dtype=float)


def layout_of(figure) -> Any:
    return figure.layout


def bars_of(figure) -> dict[str, np.ndarray]:
    return {trace.name: np.array(trace.y, dtype=float) for trace in figure.data}


def headings_of(figure) -> str:
    return f"{layout_of(figure).title.text} {layout_of(figure).title.subtitle.text}"


@pytest.mark.parametrize("view", ["position", "generation", "run"])
@pytest.mark.parametrize("n_thoughts", [1, 3, 6, 9])
def test_impossible_cells_are_gaps_with_a_cross_and_not_zeros(view, n_thoughts):
    figure = plots.pattern(make_attention(1, 2, n_thoughts), 0, 1, view)
    drawn, impossible, numbers = traces_of(figure)
    gaps = np.isnan(cells_of(figure))
    np.testing.assert_array_equal(gaps, ~np.isnan(np.array(impossible.z, dtype=float)))
    np.testing.assert_array_equal(gaps, np.array(impossible.text) == "×")
    np.testing.assert_array_equal(gaps, np.reshape(numbers.text, gaps.shape) == "")
    later = {name: place for place, name in enumerate([*key_names(n_thoughts), "anchor"])}
    expected = [[later[key] > later[query] for key in drawn.x] for query in drawn.y]
    np.testing.assert_array_equal(gaps, expected)


def test_a_zero_that_is_possible_is_drawn_as_zero(attention):
    attention = attention.copy(deep=True)
    attention.loc[{"layer": 0, "head": 0, "query": "ct3", "key": "ct1"}] = 0
    figure = plots.pattern(attention, 0, 0)
    assert cells_of(figure)[3, 1] == 0 and traces_of(figure)[2].text[3 * 6 + 1] == ".00"


def test_rows_of_the_generation_view_are_the_steps_before(attention):
    position, generation = (
        plots.pattern(attention, 2, 5, view) for view in ("position", "generation")
    )
    assert list(traces_of(generation)[0].y) == ["bot", "ct0", "ct1", "ct2", "ct3", "ct4"]
    assert (
        list(traces_of(position)[0].y)
        == list(traces_of(position)[0].x)
        == list(traces_of(generation)[0].x)
    )
    assert np.isnan(cells_of(generation)[0]).all() and np.isnan(cells_of(generation)[:, -1]).all()
    np.testing.assert_array_equal(cells_of(generation)[1:, :-1], cells_of(position)[:-1, :-1])


@pytest.mark.parametrize(("view", "shift"), [("position", 0), ("generation", 1)])
def test_self_attention_is_outlined(attention, view, shift):
    figure = plots.pattern(attention, 0, 0, view)
    middles = {((s.y0 + s.y1) / 2, (s.x0 + s.x1) / 2) for s in layout_of(figure).shapes}
    assert middles == {(float(i + shift), float(i)) for i in range(6 - shift)}


def test_attention_is_always_drawn_from_0_to_1_on_the_same_scale(attention, heads):
    faint = attention / 100
    figures = [plots.pattern(faint, 0, 0, view) for view in ("position", "generation", "run")]
    figures.append(plots.top_heads(faint, heads))
    scales = [
        layout_of(plots.pattern(attention, 0, 0)).coloraxis,
        *(layout_of(f).coloraxis for f in figures),
    ]
    for scale in scales:
        assert (scale.cmin, scale.cmax) == (0, 1) == style.ATTENTION_RANGE
        assert scale.colorscale == scales[0].colorscale
    assert all(traces_of(figure)[0].coloraxis == "coloraxis" for figure in figures)


def test_axes_say_which_side_attends(attention):
    for view in ("position", "generation", "run"):
        layout = layout_of(plots.pattern(attention, 0, 0, view))
        assert layout.yaxis.title.text == "query (attends)"
        assert layout.xaxis.title.text == "key (attended to)"


def test_attention_in_another_order_of_dims_draws_the_same(attention):
    turned = attention.transpose("key", "query", "head", "layer")
    np.testing.assert_array_equal(
        cells_of(plots.pattern(turned, 2, 5)), cells_of(plots.pattern(attention, 2, 5))
    )


def test_head_map_puts_each_head_in_its_cell_with_layer_0_at_the_top(heads):
    figure = plots.head_map(heads.sample(frac=1, random_state=0), "hub")
    np.testing.assert_array_equal(cells_of(figure), heads["hub"].to_numpy().reshape(3, 8))
    assert layout_of(figure).yaxis.autorange == "reversed"
    text = traces_of(figure)[0].customdata[2][5]
    row = heads[heads["name"] == "L2H5"].iloc[0]
    for part in ("L2H5", f"{row['hub']:.3f} [{row['hub_low']:.3f}, {row['hub_high']:.3f}]"):
        assert part in text
    assert f"rank {row['rank']}" in text and row["type"] in text and row["hub_position"] in text


def test_a_constant_metric_is_flagged(attention):
    table = make_heads(attention, "generation")
    assert "constant over all heads" in headings_of(plots.head_map(table, "flow"))
    assert "constant over all heads" in headings_of(plots.score_intervals(table, "flow"))
    assert "constant" not in headings_of(plots.head_map(table, "hub"))


def test_an_undefined_score_leaves_a_gap(heads):
    table = heads.copy()
    table.loc[0, "hub"] = np.nan
    figure = plots.head_map(table, "hub")
    assert (
        np.isnan(cells_of(figure)[0, 0])
        and "hub undefined" in traces_of(figure)[0].customdata[0][0]
    )
    assert "L0H0" not in layout_of(plots.score_intervals(table, "hub", 24)).yaxis.categoryarray


def test_top_heads_are_in_order_and_share_one_colour_bar(attention, heads):
    figure = plots.top_heads(attention, heads, n=20, metric="skip")
    best = heads.sort_values("skip", ascending=False).head(20)
    titles = [a.text for a in layout_of(figure).annotations if a.text[0].isdigit()]
    assert titles == [
        f"{place}. {row.name} · {row.skip:.2f}<br>{row.type}"
        for place, row in enumerate(
            best.drop(columns="name")
            .assign(id=best["name"])
            .rename(columns={"id": "name"})
            .itertuples(index=False, name="Head"),
            1,
        )
    ]
    drawn = [trace for trace in traces_of(figure) if trace.name == "attention"]
    assert len(drawn) == 20 and {trace.coloraxis for trace in drawn} == {"coloraxis"}
    first = best.iloc[0]
    np.testing.assert_array_equal(
        np.array(drawn[0].z, dtype=float),
        cells_of(plots.pattern(attention, int(first["layer"]), int(first["head"]))),
    )


def test_top_heads_follow_the_view_of_the_heads_table(attention):
    table = make_heads(attention, "generation")
    assert traces_of(plots.top_heads(attention, table))[0].y[0] == "bot"
    with pytest.raises(AttentionError, match="computed in the generation view"):
        plots.top_heads(attention, table, view="position")


def test_incoming_of_the_generation_view_is_the_study_s_column_sums(attention):
    series = bars_of(plots.incoming(attention, "generation"))
    sums = attention.sel(query=["bot", *(f"ct{i}" for i in range(5))]).mean(("layer", "head"))
    mask = np.tril(np.ones((6, 6)), -1)
    sums = (sums.sel(key=[f"ct{i}" for i in range(6)]).to_numpy() * mask).sum(axis=0)
    total = series["from later thoughts"] + series["self-attention"]
    np.testing.assert_allclose(total[:5], sums[:5])
    assert np.isnan(series["from later thoughts"][5]), "ct5 is impossible in this view, not zero"
    np.testing.assert_allclose(series["uniform 1/6 = 0.167"], 1 / 6)


def test_uniform_causal_attention_has_no_hub_in_the_position_view():
    attention = make_attention(2, 2)
    possible = possible_cells(6)
    attention[:] = possible / possible.sum(axis=1, keepdims=True)
    series = bars_of(plots.incoming(attention))
    np.testing.assert_allclose(
        series["from later thoughts"][:5], series["even spread (causal null)"][:5]
    )
    assert np.isnan(series["from later thoughts"][5])
    for chart in (plots.sequential, plots.skips):
        _, bars, null = ("", *bars_of(chart(attention)).values())
        np.testing.assert_allclose(bars, null)


def test_incoming_of_the_position_view_excludes_self_attention(attention):
    block = attention.sel(query=[f"ct{i}" for i in range(6)], key=[f"ct{i}" for i in range(6)])
    block = block.mean(("layer", "head")).to_numpy()
    series = bars_of(plots.incoming(attention))
    np.testing.assert_allclose(series["from later thoughts"][2], block[3:, 2].mean())
    np.testing.assert_allclose(series["self-attention"], np.diag(block))


def test_sequential_of_the_generation_view_says_that_it_is_self_attention(attention):
    figure = plots.sequential(attention, "generation")
    assert "self-attention" in layout_of(figure).title.text
    assert layout_of(figure).yaxis.title.text == "self-attention"
    diagonal = [attention.sel(query=f"ct{i}", key=f"ct{i}").mean().item() for i in range(5)]
    series = bars_of(figure)
    np.testing.assert_allclose(series["self-attention"], diagonal)
    np.testing.assert_allclose(series["study's threshold 0.3"], 0.3)


def test_sequential_of_the_position_view_is_attention_to_the_previous_thought(attention):
    figure = plots.sequential(attention)
    expected = [attention.sel(query=f"ct{i + 1}", key=f"ct{i}").mean().item() for i in range(5)]
    np.testing.assert_allclose(bars_of(figure)["previous thought"], expected)


def test_skips_are_the_study_s_entries_in_one_view_and_distances_in_the_other(attention):
    study = bars_of(plots.skips(attention, "generation"))
    expected = [attention.sel(query="ct4", key=f"ct{j}").mean().item() for j in range(3)]
    np.testing.assert_allclose(study["skip entry"], expected)
    np.testing.assert_allclose(study["study's threshold 0.1"], 0.1)
    back = bars_of(plots.skips(attention))["that far back"]
    assert len(back) == 5
    np.testing.assert_allclose(back[-1], attention.sel(query="ct5", key="ct0").mean().item())


def test_score_intervals_draws_whiskers_from_low_to_high(heads):
    figure = plots.score_intervals(heads, "hub", n=10)
    table = heads.set_index("name")
    assert sum(len(trace.y) for trace in traces_of(figure)) == 10
    for trace in traces_of(figure):
        rows = table.loc[list(trace.y)]
        np.testing.assert_allclose(trace.x + trace.error_x.array, rows["hub_high"])
        np.testing.assert_allclose(trace.x - trace.error_x.arrayminus, rows["hub_low"])
    best = heads.sort_values("hub", ascending=False)["name"].head(10)
    assert list(layout_of(figure).yaxis.categoryarray) == list(best)


@pytest.mark.parametrize("n_thoughts", [1, 2, 3, 8])
@pytest.mark.parametrize("view", ["position", "generation"])
def test_every_figure_exists_for_one_head_and_any_number_of_thoughts(n_thoughts, view):
    attention = make_attention(1, 1, n_thoughts)
    table = make_heads(attention, view)
    figures = [
        plots.head_map(table),
        plots.pattern(attention, 0, 0, view),
        plots.top_heads(attention, table),
        plots.score_intervals(table),
        *(chart(attention, view) for chart in (plots.incoming, plots.sequential, plots.skips)),
    ]
    assert all(figure.to_json() for figure in figures)
    if n_thoughts == 1:
        assert "1 thought" in layout_of(figures[-1]).annotations[0].text


@pytest.mark.parametrize("scale", [style.ATTENTION_SCALE, style.SCORE_SCALE])
def test_numbers_in_cells_have_the_contrast_that_wcag_asks_for(scale):
    def luminance(colour):
        rgb = np.array(colour) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    for value in np.linspace(0, 1, 200):
        cell = luminance(sample_colorscale(scale, [value], colortype="tuple")[0] * np.array(255))
        light = value >= style.light_text_from(scale)
        contrast = 1.05 / (cell + 0.05) if light else (cell + 0.05) / 0.05
        assert contrast >= 4.5, (value, contrast)


def test_no_text_of_a_figure_is_smaller_than_12_px(attention, heads):
    def sizes(value, path=""):
        if isinstance(value, dict):
            for name, item in value.items():
                yield from sizes(item, f"{path}.{name}")
        elif isinstance(value, list | tuple):
            for item in value:
                yield from sizes(item, path)
        elif path.endswith("font.size"):
            yield value

    for figure in (
        plots.head_map(heads),
        plots.pattern(attention, 0, 0, "run"),
        plots.top_heads(attention, heads),
        plots.incoming(attention),
        plots.score_intervals(heads),
    ):
        found = list(sizes(figure.to_plotly_json()))
        assert found and min(found) >= 12


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a, h: plots.pattern(a, 3, 0), PositionError, r"no layer 3; .* has layers 0\.\.2"),
        (lambda a, h: plots.pattern(a, 0, -1), PositionError, r"no head -1; .* has heads 0\.\.7"),
        (
            # Not through a figure: in the tests beartype refuses another view before codi_lens can.
            lambda a, h: check_view("study"),
            AttentionError,
            'must be one of "position", "generation", not \'study\'',
        ),
        (
            lambda a, h: plots.head_map(h, "flwo"),
            AttentionError,
            "no metric 'flwo' .* there are composite, flow, hub, skip, sequential, self",
        ),
        (lambda a, h: plots.head_map(h[:0]), AttentionError, "no rows"),
        (lambda a, h: plots.top_heads(a, h, n=0), AttentionError, "at least 1, not 0"),
        (lambda a, h: plots.top_heads(a[:1], h), PositionError, "has layers 0 only"),
        (
            lambda a, h: plots.skips(a.expand_dims("problem")),
            AttentionError,
            r"average first: attention\.mean\('problem'\)",
        ),
        (lambda a, h: plots.skips(a.drop_vars("query")), AttentionError, "must be labelled bot"),
    ],
)
def test_errors_say_what_was_wrong_and_what_is_valid(attention, heads, call, error, message):
    with pytest.raises(error, match=message) as raised:
        call(attention, heads)
    assert isinstance(raised.value, CodiLensError)


FIGURES: list[str] = getattr(plots, "__all__")  # noqa: B009  (its stub declares names only)


@pytest.mark.parametrize("name", sorted(set(FIGURES) - {"explorer_page"}))
def test_every_figure_has_an_example_that_runs(name: str) -> None:
    function = getattr(plots, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(function, globs={})
    assert any(re.search(rf"\b{name}\(", example.source) for example in found.examples)
    assert found.examples[-1].want
