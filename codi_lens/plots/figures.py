"""Heatmaps of heads: the layer × head map, one head's pattern, the patterns of the best heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots

from codi_lens.errors import AttentionError
from codi_lens.plots import style
from codi_lens.plots.views import (
    Cells,
    PatternView,
    View,
    best_heads,
    cells,
    check_metric,
    check_view,
    constant_metrics,
)

_NUMBERS_UP_TO = 8
_COLUMNS = 5
_PATTERN_NAMES = {
    "position": "position view",
    "generation": "generation view",
    "run": "whole run",
}
_PATTERN_NOTES = {
    "position": "row = the thought that is the query; the diagonal is self-attention",
    "generation": "row i = the step that generates ct{i}; its query is bot or ct{i−1}",
    "run": "every labelled query; each row sums to 1",
}


def head_map(heads: pd.DataFrame, metric: str = "composite") -> go.Figure:
    """A layer × head heatmap of one metric, layer 0 at the top.

    Args:
        heads: one row per head, as from `rank_heads`.
        metric: any column of `heads` that has an interval (`flow`, `hub`, `skip`, `composite`, …).

    Raises:
        AttentionError: no such metric, or an empty table.
    """
    check_metric(heads, metric)
    table = heads.sort_values(["layer", "head"]).assign(hover=head_texts(heads, metric))
    grid = table.pivot(index="layer", columns="head", values=metric)
    hover = table.pivot(index="layer", columns="head", values="hover")
    low, high = np.nanmin([*table[metric], np.inf]), np.nanmax([*table[metric], -np.inf])
    if not low < high:
        low, high = (low - 0.5, high + 0.5) if np.isfinite(low) else (0.0, 1.0)
    view = heads.attrs.get("view")
    notes = [f"{_PATTERN_NAMES[view]}" if view in _PATTERN_NAMES else ""]
    if metric in constant_metrics(heads):
        notes.append(f"{metric} is constant over all heads, so it ranks nothing")
    figure = go.Figure(
        go.Heatmap(
            z=grid.to_numpy(dtype=float),
            x=[str(head) for head in grid.columns],
            y=[str(layer) for layer in grid.index],
            customdata=hover.to_numpy(dtype=object),
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=style.SCORE_SCALE,
            zmin=low,
            zmax=high,
            showscale=bool(table[metric].nunique() > 1),
            xgap=1,
            ygap=1,
            colorbar={
                "title": {"text": metric, "side": "right"},
                "tickfont": {"size": style.SMALL_FONT_SIZE},
                "thickness": 14,
                "outlinewidth": 0,
            },
        ),
        layout=style.base_layout(
            f"{metric.capitalize()} of every head",
            "; ".join(note for note in notes if note),
            xaxis=style.cell_axis("head", tick_size=style.SMALL_FONT_SIZE),
            yaxis=style.cell_axis("layer", rows=True, tick_size=style.SMALL_FONT_SIZE),
            height=round(150 + len(grid) * np.clip(400 / len(grid), 24, 80)),
        ),
    )
    if grid.shape[1] <= _NUMBERS_UP_TO:
        values = grid.to_numpy(dtype=float)
        rows, columns = [str(layer) for layer in grid.index], [str(head) for head in grid.columns]
        numbers = _numbers(values, rows, columns, style.SCORE_SCALE, low, high)
        figure.add_trace(numbers.update(text=[text or "–" for text in cell_texts(values).flat]))
    return figure


def pattern(
    attention: xr.DataArray, layer: int, head: int, view: PatternView = "position"
) -> go.Figure:
    """One head's attention, with the numbers in the cells.

    Cells that causality forbids are grey with an ×; self-attention is outlined. A possible cell
    that is blank is undefined (an `anchor` row of runs whose answers hold no number).

    Args:
        attention: (layer, head, query, key), the mean over problems.
        layer: the layer, from 0.
        head: the head, from 0.
        view: "position" or "generation" for the thought block; "run" for all labelled rows.

    Raises:
        PositionError: there is no such layer or head.
        AttentionError: an unknown view, or attention with other dims or labels.
    """
    shown = cells(attention, view)
    values = shown.of_head(layer, head)
    figure = go.Figure(
        _cell_traces(values, shown, view, numbers=True),
        layout=style.base_layout(
            f"L{layer}H{head} · {_PATTERN_NAMES[view]}",
            f"{_PATTERN_NOTES[view]};<br>outlined = self-attention, × = impossible (the key is "
            "later than the query)",
            coloraxis=style.attention_axis(),
            # "question" and "answer" are wider than a cell of the whole run.
            xaxis=style.cell_axis(style.KEY_TITLE) | {"tickangle": -40 if view == "run" else 0},
            yaxis=style.cell_axis(style.QUERY_TITLE, rows=True),
            width=660 if view == "run" else 580,
            height=600 if view == "run" else 540,
        ),
    )
    figure.update_layout(shapes=_outlines(shown.is_self))
    return figure


def top_heads(
    attention: xr.DataArray,
    heads: pd.DataFrame,
    n: int = 20,
    view: View | None = None,
    metric: str = "composite",
) -> go.Figure:
    """The thought blocks of the `n` best heads as small multiples, five in a row.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        heads: one row per head, as from `rank_heads`.
        n: how many heads (all of them if there are fewer).
        view: "position" or "generation"; by default the view `heads` was computed in.
        metric: what the heads are ordered by, a column of `heads` that has an interval.

    Raises:
        AttentionError: no such metric or view, `n` below 1, or `heads` computed in another view.
        PositionError: `heads` names a head that `attention` does not have.
    """
    own_view = heads.attrs.get("view")
    if view is None:
        view = "generation" if own_view == "generation" else "position"
    check_view(view)
    if own_view not in (None, view):
        raise AttentionError(
            f"The heads table was computed in the {own_view} view, so its scores do not describe "
            f'the {view} view; use rank_heads(attention, view="{view}").'
        )
    best = best_heads(heads, metric, n)
    shown = cells(attention, view)
    n_rows = max(1, -(-len(best) // _COLUMNS))
    height = 150 + 240 * n_rows
    figure = make_subplots(
        rows=n_rows,
        cols=_COLUMNS,
        subplot_titles=[
            f"{place}. {row['name']} · {row['type']} · {row[metric]:.2f}"
            for place, row in enumerate(best.to_dict("records"), 1)
        ],
        horizontal_spacing=0.045,
        vertical_spacing=60 / (height - 150) if n_rows > 1 else 0,
    )
    figure.update_annotations(font={"size": style.SMALL_FONT_SIZE})
    shapes: list[dict[str, Any]] = []
    for place, row in enumerate(best.to_dict("records")):
        line, column = divmod(place, _COLUMNS)
        values = shown.of_head(int(row["layer"]), int(row["head"]))
        for trace in _cell_traces(values, shown, view, numbers=False):
            figure.add_trace(trace, row=line + 1, col=column + 1)
        suffix = "" if place == 0 else str(place + 1)
        shapes += _outlines(shown.is_self, suffix, width=1.5)
    figure.update_layout(
        style.base_layout(
            f"Top {len(best)} heads by {metric} · {_PATTERN_NAMES[view]}",
            f"{_PATTERN_NOTES[view]}; outlined = self-attention, × = impossible",
            coloraxis=style.attention_axis(),
            width=1320,
            height=height,
        )
    )
    figure.update_layout(shapes=shapes, margin={"t": 104, "b": 66, "l": 84})
    tick_size = style.SMALL_FONT_SIZE
    figure.update_xaxes(style.cell_axis("", tick_size=tick_size))
    figure.update_yaxes(style.cell_axis("", rows=True, tick_size=tick_size))
    figure.add_annotation(
        text=style.KEY_TITLE, x=0.5, y=0, yshift=-34, yanchor="top", **_OUTSIDE_TITLE
    )
    figure.add_annotation(
        text=style.QUERY_TITLE, x=0, y=0.5, xshift=-52, textangle=-90, **_OUTSIDE_TITLE
    )
    for place in range(len(best), n_rows * _COLUMNS):
        line, column = divmod(place, _COLUMNS)
        figure.update_xaxes(visible=False, row=line + 1, col=column + 1)
        figure.update_yaxes(visible=False, row=line + 1, col=column + 1)
    return figure


_OUTSIDE_TITLE: dict[str, Any] = {
    "xref": "paper",
    "yref": "paper",
    "showarrow": False,
    "font": {"size": style.FONT_SIZE},
}


def head_texts(heads: pd.DataFrame, metric: str) -> pd.Series:
    """What a pointer on each head says: name, value with its interval, rank, type, hub position."""
    return heads.apply(lambda row: _head_text(row, metric), axis=1)


def cell_texts(values: Float[np.ndarray, "query key"]) -> np.ndarray:
    """The numbers printed in cells, without the leading zero so that they fit narrow ones.

    >>> cell_texts(np.array([[0.123, 1.0, 2.5, -0.5, np.nan]])).tolist()
    [['.12', '1.0', '2.50', '-0.50', '']]
    """
    texts = ["" if np.isnan(value) else f"{value:.2f}".removeprefix("0") for value in values.flat]
    texts = ["1.0" if text == "1.00" else text for text in texts]
    return np.array(texts).reshape(values.shape)


def _head_text(row: pd.Series, metric: str) -> str:
    value, low, high = (row.get(f"{metric}{end}", np.nan) for end in ("", "_low", "_high"))
    score = "undefined" if pd.isna(value) else f"{value:.3f}"
    if not (pd.isna(value) or pd.isna(low) or pd.isna(high)):
        score += f" [{low:.3f}, {high:.3f}]"
    lines = [f"<b>{row['name']}</b>", f"{metric} {score}"]
    lines += [f"{label} {row[label]}" for label in ("rank", "type") if label in row]
    if "hub_position" in row and not pd.isna(row["hub_position"]):
        lines.append(f"hub position {row['hub_position']}")
    return "<br>".join(lines)


def _cell_traces(
    values: Float[np.ndarray, "query key"], shown: Cells, view: str, *, numbers: bool
) -> list[go.Heatmap | go.Scatter]:
    common: dict[str, Any] = {"x": shown.keys, "y": shown.queries, "xgap": 1, "ygap": 1}
    drawn = go.Heatmap(
        z=values,
        name="attention",
        coloraxis="coloraxis",
        customdata=_cell_notes(shown, view),
        hovertemplate="query %{y} → key %{x}<br>attention %{z:.3f}%{customdata}<extra></extra>",
        hoverongaps=False,
        **common,
    )
    grey = style.IMPOSSIBLE_COLOUR
    impossible = go.Heatmap(
        z=np.where(shown.possible, np.nan, 0.0),
        name="impossible",
        colorscale=[[0, grey], [1, grey]],
        showscale=False,
        hovertemplate="query %{y} → key %{x}<br>impossible: the key comes after the query"
        "<extra></extra>",
        hoverongaps=False,
        text=np.where(shown.possible, "", "×"),
        texttemplate="%{text}",
        textfont={"size": style.SMALL_FONT_SIZE, "color": "#595959"},
        **common,
    )
    if not numbers:
        return [drawn, impossible]
    scale = style.ATTENTION_SCALE
    texts = _numbers(values, shown.queries, shown.keys, scale, *style.ATTENTION_RANGE)
    return [drawn, impossible, texts]


def _numbers(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    scale: list[str],
    low: float,
    high: float,
) -> go.Scatter:
    # A trace of its own, because a heatmap's own text is #444 on cells where that is too faint.
    switch = low + style.light_text_from(scale) * (high - low)
    return go.Scatter(
        x=columns * len(rows),
        y=np.repeat(rows, len(columns)),
        mode="text",
        name="numbers",
        text=cell_texts(values).ravel(),
        textfont={
            "size": style.SMALL_FONT_SIZE,
            "color": np.where(values.ravel() >= switch, style.LIGHT_TEXT, style.DARK_TEXT),
        },
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
    )


def _cell_notes(shown: Cells, view: str) -> np.ndarray:
    notes = np.full(shown.possible.shape, "", dtype=object)
    if view == "generation":
        for i, j in np.ndindex(*shown.possible.shape):
            notes[i, j] = f"<br>entry [{i}, {j}] of the study: the step that generates ct{i}"
    notes[shown.is_self] += "<br>self-attention"
    return notes


def _outlines(
    is_self: Bool[np.ndarray, "query key"], suffix: str = "", width: float = 2
) -> list[dict[str, Any]]:
    return [
        {
            "type": "rect",
            "xref": f"x{suffix}",
            "yref": f"y{suffix}",
            "x0": column - 0.46,
            "x1": column + 0.46,
            "y0": row - 0.46,
            "y1": row + 0.46,
            "line": {"color": style.SELF_COLOUR, "width": width},
        }
        for row, column in np.argwhere(is_self).tolist()
    ]
