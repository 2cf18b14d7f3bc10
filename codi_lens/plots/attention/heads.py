"""Heatmaps of heads: the layer × head map, one head's pattern, the patterns of the best heads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from codi_lens.attention.views import View
from codi_lens.errors import AttentionError
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import (
    PATTERN_NOTES,
    cell_labels,
    cell_texts,
    cell_traces,
    needed_outlines,
    pattern_panels,
    self_outlines,
)
from codi_lens.plots.drawing.views import (
    PatternView,
    best_heads,
    cells,
    check_metric,
    check_view,
    constant_metrics,
)
from codi_lens.wording import fixed, with_bounds

_NUMBERS_UP_TO = 8
_PATTERN_NAMES = {
    "position": "position view",
    "generation": "generation view",
    "run": "whole run",
}


def head_map(heads: pd.DataFrame, metric: str = "composite") -> go.Figure:
    """A layer × head heatmap of one metric, layer 0 at the top.

    Colours run from 0, or a lower lowest score, to the highest one; the lowest colour is a tint,
    and a head without a score is grey with an ×.

    Args:
        heads: one row per head, as from `rank_heads`.
        metric: any column of `heads` that has an interval (`flow`, `hub`, `skip`, `composite`, …).

    Raises:
        AttentionError: no such metric, or an empty table.

    >>> from codi_lens import rank_heads
    >>> from codi_lens.attention.example import two_heads
    >>> figure = head_map(rank_heads(two_heads()), "hub")
    >>> figure.layout.title.text, figure.data[0].x, figure.data[0].y
    ('Hub of every head', ('H0', 'H1'), ('L0',))
    """
    check_metric(heads, metric)
    table = heads.sort_values(["layer", "head"]).assign(hover=head_texts(heads, metric))
    grid = table.pivot(index="layer", columns="head", values=metric)
    hover = table.pivot(index="layer", columns="head", values="hover")
    values = grid.to_numpy(dtype=float)
    rows, columns = [f"L{layer}" for layer in grid.index], [f"H{head}" for head in grid.columns]
    low, high = np.nanmin([*table[metric], 0.0]), np.nanmax([*table[metric], 0.0])
    if not low < high:
        high = low + 1.0
    view = heads.attrs.get("view")
    notes = [f"{_PATTERN_NAMES[view]}" if view in _PATTERN_NAMES else ""]
    notes.append(f"colours from {fixed(low)} to the highest, {fixed(high)}")
    missing = np.isnan(values)
    if missing.any():
        notes.append("× = undefined")
    if metric in constant_metrics(heads):
        notes.append(f"{metric} is constant over all heads, so it ranks nothing")
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            customdata=hover.to_numpy(dtype=object),
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=style.MAP_SCALE,
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
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=max(640, 150 + 28 * len(columns)),
            height=round(150 + len(grid) * np.clip(400 / len(grid), 24, 80)),
        ),
    )
    texts = cell_texts(values) if len(columns) <= _NUMBERS_UP_TO else np.full(values.shape, "")
    texts = np.where(missing, "×", texts)
    if (texts != "").any():
        figure.add_trace(cell_labels(texts, values, rows, columns, style.MAP_SCALE, low, high))
    return figure


def pattern(
    attention: xr.DataArray,
    layer: int,
    head: int,
    view: PatternView = "position",
    needed: Iterable[tuple[str, str]] = (),
) -> go.Figure:
    """One head's attention, with the numbers in the cells.

    Cells that causality forbids are grey with an ×; self-attention is outlined. A possible cell
    that is blank is undefined (an `anchor` row of runs whose answers hold no number).

    Args:
        attention: (layer, head, query, key), the mean over problems.
        layer: the layer, from 0.
        head: the head, from 0.
        view: "position" or "generation" for the thought block; "run" for all labelled rows.
        needed: edges to outline in green, such as `WordProblem.edges`; those from the answer are
            in the row `anchor`, which only "run" shows.

    Raises:
        PositionError: there is no such layer or head.
        AttentionError: an unknown view, or attention with other dims or labels.

    >>> from codi_lens.attention.example import two_heads
    >>> figure = pattern(two_heads().mean("problem"), layer=0, head=1)
    >>> figure.layout.title.text, figure.data[0].z[2].round(2).tolist()
    ('L0H1 · position view', [0.6, 0.0, 0.1])
    """
    shown = cells(attention, view)
    values = shown.of_head(layer, head)
    figure = go.Figure(
        cell_traces(values, shown, view, numbers=True),
        layout=style.base_layout(
            f"L{layer}H{head} · {_PATTERN_NAMES[view]}",
            f"{PATTERN_NOTES[view]};<br>outlined = self-attention, × = impossible (the key is "
            "later than the query)",
            coloraxis=style.attention_axis(),
            # "question" and "answer" are wider than a cell of the whole run.
            xaxis=style.cell_axis(style.KEY_TITLE) | {"tickangle": -40 if view == "run" else 0},
            yaxis=style.cell_axis(style.QUERY_TITLE, rows=True),
            width=660 if view == "run" else 580,
            height=600 if view == "run" else 540,
        ),
    )
    figure.update_layout(shapes=self_outlines(shown.is_self) + needed_outlines(shown, needed))
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

    >>> from codi_lens import rank_heads
    >>> from codi_lens.attention.example import two_heads
    >>> attention = two_heads()
    >>> figure = top_heads(attention.mean("problem"), rank_heads(attention), metric="hub")
    >>> [note.text.split(" · ")[0] for note in figure.layout.annotations[:2]]
    ['1. L0H1', '2. L0H0']
    """
    best = best_heads(heads, metric, n)
    own_view = heads.attrs.get("view")
    if view is None:
        view = "generation" if own_view == "generation" else "position"
    check_view(view)
    if own_view not in (None, view):
        raise AttentionError(
            f"The heads table was computed in the {own_view} view, so its scores do not describe "
            f'the {view} view; use rank_heads(attention, view="{view}").'
        )
    shown = cells(attention, view)
    return pattern_panels(
        [
            (
                f"{place}. {row['name']} · {fixed(row[metric])}<br>{row['type']}",
                shown.of_head(int(row["layer"]), int(row["head"])),
            )
            for place, row in enumerate(best.to_dict("records"), 1)
        ],
        shown,
        view,
        title=f"Top {len(best)} heads by {metric} · {_PATTERN_NAMES[view]}",
        subtitle=f"{PATTERN_NOTES[view]}; outlined = self-attention, × = impossible",
    )


def head_texts(heads: pd.DataFrame, metric: str) -> pd.Series:
    """What a pointer on each head says: name, value with its interval, rank, type, hub position."""
    return heads.apply(lambda row: _head_text(row, metric), axis=1)


def _head_text(row: pd.Series, metric: str) -> str:
    value, low, high = (row.get(f"{metric}{end}", np.nan) for end in ("", "_low", "_high"))
    score = "undefined" if pd.isna(value) else fixed(value, 3)
    if not (pd.isna(value) or pd.isna(low) or pd.isna(high)):
        score = with_bounds(value, low, high, 3)
    lines = [f"<b>{row['name']}</b>", f"{metric} {score}"]
    lines += [f"{label} {row[label]}" for label in ("rank", "type") if label in row]
    if "hub_position" in row and not pd.isna(row["hub_position"]):
        lines.append(f"hub position {row['hub_position']}")
    return "<br>".join(lines)
