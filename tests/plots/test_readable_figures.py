"""Figures read right: zeros look like nothing, what is missing looks missing, and texts fit."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import pytest
from plotly.colors import unlabel_rgb
from support.constructed import make_attention, make_heads, random_attention
from support.reading import traces_of

from codi_lens import plots
from codi_lens.attention.hubs import hub_ratios
from codi_lens.causal.dose import DoseResponse
from codi_lens.causal.running_totals import ALONE, COUNTERPART
from codi_lens.plots.causal.attribution import attribution_scatter
from codi_lens.plots.causal.maps import EFFECT_SCALE
from codi_lens.plots.causal.pairs import FRACTION_SCALE
from codi_lens.plots.drawing import style
from codi_lens.plots.images import show_images_too
from codi_lens.plots.study.figures import study_figures
from codi_lens.plots.study.published import corrected_triptych, published_hub_bars
from codi_lens.reports.pages.page import figure_data
from codi_lens.reports.questions.heads import sweep_section
from codi_lens.reports.questions.pairs import _reaches
from codi_lens.stats import Association
from codi_lens.study.run import run_study

ATTENTION = make_attention()
HEADS = make_heads(ATTENTION)
_LETTER = 6.6
"""Points of a letter of the panels' titles, on average."""


def sweep(n_layers: int = 3, n_heads: int = 8) -> pd.DataFrame:
    """A table of effects of all heads, the last the largest loss."""
    n = n_layers * n_heads
    effect = -np.arange(n) / 10.0
    table = pd.DataFrame({"layer": np.arange(n) // n_heads, "head": np.arange(n) % n_heads})
    names = [f"L{i // n_heads}H{i % n_heads}" for i in range(n)]
    table = table.assign(name=names, scope="thinking", effect=effect)
    table = table.assign(effect_low=effect - 1, effect_high=effect + 1, effect_median=effect)
    table = table.assign(affected=0.5, affected_low=0.4, affected_high=0.6, min_effect=0.1)
    table = table.assign(q=1e-9, beyond_q=[*[1e-9] * (n - 1), np.nan], matters=False, n_known=30)
    table = table.assign(accuracy=0.5, accuracy_low=0.4, accuracy_high=0.6, mcnemar_p=0.5)
    return table.assign(changed=0.2, thought_change=0.1, n_right=20, n_wrong=0)


def swaps(n: int = 3) -> pd.DataFrame:
    """A table of operand swaps of few pairs."""
    table = pd.DataFrame({"thought": ["ct0", "ct1"], "operand": [0, 1]})
    table = table.assign(donor=COUNTERPART, swapped=ALONE, n_operations=2, n=n, chance=0.1)
    return table.assign(donor_share=1.0, donor_share_low=0.4, donor_share_high=1.0)


def estimates(scale: float) -> go.Figure:
    """Estimates that are so many times the measured effects, which are -9 … -1."""
    heads = pd.DataFrame({"name": [f"L0H{i}" for i in range(9)], "layer": 0})
    effect = -np.arange(1.0, 10.0)
    ends = {"_low": -0.1, "_high": 0.1}
    measured = heads.assign(effect=effect, **{f"effect{e}": effect + d for e, d in ends.items()})
    guess = scale * effect
    given = heads.assign(attribution=guess)
    given = given.assign(**{f"attribution{e}": guess + scale * d for e, d in ends.items()})
    return attribution_scatter(given, measured, Association(1.0, 1.0, 1.0, 0.00001, 9))


@cache
def figures() -> dict[str, go.Figure]:
    curves = {"order": ["top", "random 1"], "k": 1, "effect": [-2.0, -0.5]}
    curves |= {"effect_low": [-3.0, -1.0], "effect_high": [-1.0, 0.0]}
    dose = DoseResponse(pd.DataFrame(curves), 0.75, -0.2, 1.2, 1e-5, 1, keep=False, at_zero=0.0)
    quantities = pd.DataFrame(
        {"quantity": ["hub ratio", "hub ratio"], "at": ["ct0", "ct1"], "value": [1.0, 1.2]}
    ).assign(low=0.5, high=1.5, null=1.0)
    return {
        **study_figures(run_study(random_attention(n_layers=6, n_heads=5), "some model")),
        "map": plots.head_map(HEADS, "hub"),
        "top": plots.top_heads(ATTENTION, HEADS),
        "ranks": plots.score_intervals(HEADS, "hub"),
        "incoming": plots.incoming(ATTENTION),
        "published": published_hub_bars(),
        "corrected": corrected_triptych("a model", quantities),
        "hubs": plots.hub_ratios(hub_ratios(random_attention())),
        "effects": plots.causal_map(sweep()),
        "places": plots.causal_map(
            pd.concat([sweep(), sweep().assign(scope="ct0")], ignore_index=True)
        ),
        "points": plots.effect_points(sweep(), "name", title="Points"),
        "swaps": plots.thought_swap_matrix(swaps()),
        "dose": plots.dose_response_curves(dose),
        "estimates": estimates(0.5),
        "costs": plots.edge_costs_figure(edge_costs()),
        "edges": plots.edge_matrix(
            sweep(3, 3).assign(query="ct1", key=[f"k{i}" for i in range(9)])
        ),
        **corpora_figures(),
    }


def corpora_figures() -> dict[str, go.Figure]:
    """Two corpora, of more heads than a map draws."""
    pair = {"quantity": ["hub", "results read"], "a": "x", "b": "y", "n_units": 24}
    pair |= {"corrected": [0.5, np.nan], "corrected_low": 0.1, "corrected_high": 0.9}
    both = [sweep(5, 10).assign(corpus=name) for name in ("x", "y")]
    share = {"corpus": ["x", "y"], "position": "bot", "share": 0.8, "low": 0.7, "high": 0.9}
    return {
        "agreement": plots.corpora_agreement(pd.DataFrame(pair)),
        "corpora": plots.effects_by_corpus(pd.concat(both, ignore_index=True)),
        "results": plots.results_by_corpus(pd.DataFrame(share | {"control_share": 0.1})),
    }


def edge_costs() -> pd.DataFrame:
    """What cutting two edges costs, of which one kind of reference needs the first."""
    row = {"n_operations": 3, "step": 3, "refers_to": 1, "n": 20, "cost": 2.0}
    row |= {"cost_low": 1.0, "cost_high": 3.0, "query": "answer"}
    return pd.DataFrame(
        [row | {"key": "ct0", "known": True}, row | {"key": "ct1", "known": False, "cost": 1.0}]
    )


def test_subtitles_end_within_the_figure() -> None:
    for name, figure in figures().items():
        layout: Any = figure.layout
        room = style.width_of(figure) - layout.margin.l
        lines = (layout.title.subtitle.text or "").split("<br>")
        assert [line for line in lines if 6.3 * len(line) > room] == [], name


def luminance(colour: str) -> float:
    text = colour.lstrip("#")
    whole = tuple(int(text[i : i + 2], 16) for i in (0, 2, 4))
    parts = np.array(whole) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def colours_in(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("colorscale", "coloraxis", "textfont"):
                yield from colours_in(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from colours_in(item, name)
    elif name.endswith("color") and isinstance(value, str):
        yield value


@pytest.mark.parametrize(
    ("scale", "zero"),
    [(style.SCORE_SCALE, 0), (FRACTION_SCALE, 0), (EFFECT_SCALE, len(EFFECT_SCALE) // 2)],
)
def test_zero_is_neutral_and_lighter_than_what_is_missing(scale: list[str], zero: int) -> None:
    parts = np.array(unlabel_rgb(scale[zero]))
    assert np.ptp(parts) <= 4, "no hue"
    assert parts.min() > int(style.IMPOSSIBLE_COLOUR[1:3], 16) + 20
    if zero:
        assert len(scale) == 2 * zero + 1, "zero is a colour of the scale, not between two"


def test_the_lowest_head_of_a_map_is_tinted_and_a_missing_one_is_not() -> None:
    heads = HEADS.copy()
    heads.loc[heads["name"] == "L1H2", "hub"] = np.nan
    figure: Any = plots.head_map(heads, "hub")
    cells, texts = traces_of(figure)
    lowest = np.array(unlabel_rgb(cells.colorscale[0][1]))
    assert lowest.max() < 235, "white would look like a gap"
    assert (cells.zmin, cells.zmax) == (0, heads["hub"].max())
    found = {(y, x): text for y, x, text in zip(texts.y, texts.x, texts.text, strict=True)}
    assert [place for place, text in found.items() if text == "×"] == [("L1", "H2")]
    assert figure.layout.plot_bgcolor == style.IMPOSSIBLE_COLOUR
    assert "× = undefined" in figure.layout.title.subtitle.text
    assert "×" not in plots.head_map(HEADS, "hub").layout.title.subtitle.text  # pyright: ignore


def test_missing_heads_are_marked_in_maps_too_wide_for_numbers() -> None:
    heads = pd.concat([HEADS, HEADS.assign(head=HEADS["head"] + 8)], ignore_index=True)
    heads["name"] = [
        f"L{layer}H{head}" for layer, head in zip(heads.layer, heads["head"], strict=True)
    ]
    assert len(traces_of(plots.head_map(heads, "hub"))) == 1
    heads.loc[3, "hub"] = np.nan
    marks = traces_of(plots.head_map(heads, "hub"))[1]
    assert sorted(set(marks.text)) == ["", "×"] and list(marks.text).count("×") == 1


def test_cells_without_a_value_are_grey_on_a_dark_page_too() -> None:
    """Their dashes and crosses are dark, as is a page's card in the dark."""
    shares = pd.DataFrame({"thought": ["ct0", "ct1"], "operation": 1, "lens": [1.0, 0.2]})
    shares = shares.assign(probe=[0.9, np.nan], swap=np.nan, lens_n=60)
    costs = pd.DataFrame({"n_operations": 3, "step": [2, 3, 3], "refers_to": 1, "query": "answer"})
    costs = costs.assign(key=["ct0", "ct0", "ct1"], known=[True, True, False], n=9, cost=3.0)
    costs = costs.assign(cost_low=2.0, cost_high=4.0)
    missing = 0
    for figure in (plots.readable_and_used(shares), plots.edge_costs_figure(costs)):
        texts = [
            text
            for trace in traces_of(figure)
            for text in np.ravel([] if trace.text is None else trace.text)
        ]
        missing += sum(text in ("–", "×") for text in texts)
        assert figure_data(figure)["layout"]["plot_bgcolor"] == style.IMPOSSIBLE_COLOUR
    assert missing == 4


def test_estimates_far_smaller_than_effects_do_not_lie_on_one_line() -> None:
    figure: Any = estimates(0.001)
    x, y = figure.layout.xaxis.range, figure.layout.yaxis.range
    points = np.array(traces_of(figure)[1].x)
    assert np.ptp(points) > 0.7 * (x[1] - x[0])
    line = traces_of(figure)[0]
    assert list(line.x) == list(line.y), "estimate = measurement"
    assert x[0] <= line.x[0] < line.x[1] <= x[1] and y[0] <= line.y[0] < line.y[1] <= y[1]


def test_no_p_and_no_q_is_said_to_be_zero() -> None:
    for name, figure in figures().items():
        shown = str(figure.to_json())
        assert not re.search(r"\b[pq] = 0\.0+\b", shown), name
        assert not re.search(r"\b[pq] = %{", shown), name
    notes = traces_of(figures()["effects"])[0].customdata
    assert notes[0][0][-1] == "q < 0.001" and notes[2][7][-1] == "q is not known"


def test_numbers_have_a_true_minus_and_none_before_zero() -> None:
    for name, figure in figures().items():
        for trace in traces_of(figure):
            texts = [str(text) for text in np.ravel(trace.text if trace.text is not None else [])]
            assert [text for text in texts if re.search(r"-\d|−0\.0+$", text)] == [], name


def test_a_figure_takes_the_width_of_where_it_stands() -> None:
    for name, figure in figures().items():
        layout: Any = figure.layout
        assert layout.width is None and layout.autosize and layout.height, name
        assert 0 < style.least_width_of(figure) <= style.width_of(figure), name


def test_titles_of_panels_do_not_run_into_each_other() -> None:
    """At the least width, below which a page lets the figure scroll."""
    for name, figure in figures().items():
        layout: Any = figure.layout
        inner = style.least_width_of(figure) - layout.margin.l - layout.margin.r
        titles = [
            (
                round(note.y, 3),
                note.x,
                max(map(len, re.sub("<(?!br).*?>", "", note.text).split("<br>"))),
            )
            for note in layout.annotations
            if note.xref == "paper" and note.yref == "paper" and not note.textangle and note.x > 0
        ]
        for (y, x, long), (next_y, next_x, next_long) in pairwise(titles):
            if y == next_y:
                assert (next_x - x) * inner > _LETTER * (long + next_long) / 2, (name, x)


def test_every_colour_of_a_figure_can_be_seen_on_a_dark_page() -> None:
    card = style.DARK_COLOURS["white"]
    faint = {"#e6e8eb", "white"}  # lines of the grid, and what is filled with the page's colour
    for name, figure in figures().items():
        for colour in set(colours_in(figure_data(figure))) - faint:
            if colour.startswith("rgba"):
                assert colour in style.DARK_COLOURS, name
                continue
            assert contrast(style.DARK_COLOURS.get(colour, colour), card) >= 3, (name, colour)


def test_text_colours_of_dark_figures_have_the_contrast_of_text() -> None:
    card = style.DARK_COLOURS["white"]
    for colour in (style.INK, style.MUTED, style.THRESHOLD_COLOUR):
        assert contrast(style.DARK_COLOURS[colour], card) >= 4.5
        assert contrast(colour, "#ffffff") >= 4.5


def test_a_table_of_some_heads_says_of_how_many() -> None:
    (title,) = sweep_section(sweep(), "resample").shown
    assert title == "In numbers: 12 of 24 heads, those with the largest losses"
    (title,) = sweep_section(sweep(1, 4), "resample").shown
    assert title == "In numbers"


def test_too_few_pairs_to_tell_are_not_called_none() -> None:
    carried = {"n_operations": 2, "thought": "ct0", "reaches": pd.NA, "clear": False}
    assert _reaches(carried, swaps(3)) == "not clear (n = 3)"
    assert _reaches(carried | {"clear": True}, swaps()) == "none"
    assert _reaches(carried | {"reaches": 0}, swaps()) == "the start"


def test_notebooks_keep_an_image_beside_each_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kaleido")
    if not shutil.which("chromium"):
        pytest.skip("kaleido needs a browser")
    monkeypatch.delenv("PLOTLY_RENDERER", raising=False)
    before = plotly.io.renderers.default
    try:
        assert show_images_too(scale=1) is None
        bundle = plotly.io.renderers._build_mime_bundle(figures()["map"].to_dict())
    finally:
        plotly.io.renderers.default = before
    assert {"application/vnd.plotly.v1+json", "image/png"} <= {*bundle}


def test_notebooks_show_figures_where_nothing_draws_images(monkeypatch: pytest.MonkeyPatch) -> None:
    before = plotly.io.renderers.default
    monkeypatch.setenv("PLOTLY_RENDERER", "json")
    assert "PLOTLY_RENDERER names json" in str(show_images_too())
    monkeypatch.delenv("PLOTLY_RENDERER")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "kaleido is not installed" in str(show_images_too())
    assert plotly.io.renderers.default == before
