"""Points with whiskers, one series beside the other: means with their bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.errors import AttentionError
from codi_lens.plots.drawing import style

SERIES_COLOURS = (style.LATER_COLOUR, style.SELF_BAR_COLOUR, "#00795b", "#a3367c")
LAYER_COLOURS = ("#0072b2", "#c2410c", "#00795b", "#a3367c", "#6b3fa0", "#8a6d00")
"""Of layers in turn; a layer's marker changes where the colours start again."""
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
LEGEND: dict[str, Any] = {
    "orientation": "h",
    "yref": "container",
    "y": 0,
    "yanchor": "bottom",
    "x": 0,
    "font": {"size": style.SMALL_FONT_SIZE},
}
"""A legend in one line below the figure."""
NULL_NAME = "even spread (causal null)"
NULL_MARKER: dict[str, Any] = {
    "symbol": "diamond",
    "size": 9,
    "color": style.NULL_COLOUR,
    "line": {"color": "white", "width": 1.5},
}
"""The black diamond that shows what `codi_lens.metrics.causal_null` would give."""


def labelled_series(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, axis: str
) -> dict[str, pd.DataFrame]:
    """Tables by name; a single one is named "attention".

    Raises:
        AttentionError: no table, or tables whose `axis` labels differ.
    """
    series = {"attention": tables} if isinstance(tables, pd.DataFrame) else dict(tables)
    labels = {tuple(table[axis]) for table in series.values()}
    if len(labels) != 1:
        raise AttentionError(
            f"Tables side by side need the same {axis} labels; there are {len(labels)} different "
            "ones."
        )
    return series


def error_bar(
    values: Any, low: Any, high: Any, *, clip: bool = True, **look: Any
) -> dict[str, Any]:
    """The whiskers of values, for plotly's `error_x` or `error_y`.

    Args:
        values: the points, [point].
        low: the lower ends of their intervals, [point].
        high: the upper ends.
        clip: whether a point outside its interval has no whisker on that side; otherwise the
            interval is drawn where it is.
        look: `thickness` and `width` in pixels, and whatever else plotly knows.

    >>> error_bar([2.0, 5.0], low=[1.0, 4.0], high=[4.0, 4.5], width=4)
    {'array': array([2., 0.]), 'arrayminus': array([1., 1.]), 'width': 4}
    """
    at, ends = np.asarray(values, dtype=float), np.asarray([low, high], dtype=float)
    below, above = at - ends[0], ends[1] - at
    if clip:
        below, above = np.maximum(below, 0), np.maximum(above, 0)
    return {"array": above, "arrayminus": below, **look}


def add_points(
    figure: go.Figure,
    table: pd.DataFrame,
    column: str,
    name: str,
    colour: str,
    shift: float,
    row: int | None = None,
) -> None:
    """Add the means of a table (`column`, `low`, `high`), `shift` beside their places."""
    where: dict[str, Any] = {} if row is None else {"row": row, "col": 1}
    figure.add_scatter(
        x=np.arange(len(table)) + shift,
        y=table[column],
        error_y=error_bar(table[column], table["low"], table["high"], thickness=1.6, width=5),
        mode="markers",
        name=name,
        showlegend=True,
        marker={"color": colour, "size": 9},
        customdata=table[["low", "high"]],
        hovertemplate="%{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra>"
        + name
        + "</extra>",
        **where,
    )


def layer_marker(number: int) -> dict[str, Any]:
    """How the heads of a figure's layer are drawn, by the number of the layer in it."""
    around, place = divmod(number, len(LAYER_COLOURS))
    return {
        "color": LAYER_COLOURS[place],
        "size": 9,
        "symbol": _SYMBOLS[around % len(_SYMBOLS)],
        "line": {"color": "white", "width": 1},
    }


def shift_of(place: int, n: int) -> float:
    """Where the points of series `place` of `n` stand, beside the middle of their label."""
    return 0.0 if n == 1 else 0.3 * (place / (n - 1) - 0.5)
