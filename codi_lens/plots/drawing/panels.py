"""The cells of attention patterns, and small multiples of them on one fixed scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots

from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.views import Cells
from codi_lens.positions import row_of
from codi_lens.wording import fixed

PATTERN_NOTES = {
    "position": "row = the thought that is the query; the diagonal is self-attention",
    "generation": "row i = the step that generates ct{i}; its query is bot or ct{i−1}",
    "run": "every labelled query; each row sums to 1",
}


def pattern_panels(
    panels: Sequence[tuple[str, Float[np.ndarray, "query key"]]],
    shown: Cells,
    view: str,
    *,
    title: str,
    subtitle: str,
    columns: int = 5,
    numbers: bool = False,
    panel_height: int = 240,
) -> go.Figure:
    """Patterns of several heads or layers as small multiples, `columns` in a row.

    Args:
        panels: a heading (lines separated by `<br>`) and the cells of each.
        shown: labels, and which cells are possible and which self-attention.
        view: "position" or "generation", for what a pointer on a cell says.
        title: of the figure.
        subtitle: below it.
        columns: panels in a row.
        numbers: whether to print the numbers in the cells.
        panel_height: pixels from one row of panels to the next.
    """
    n_rows = max(1, -(-len(panels) // columns))
    lines = 1 + max((heading.count("<br>") for heading, _ in panels), default=0)
    above = 44 + 20 * (1 + subtitle.count("<br>")) + 16 * lines + 10
    plot_height = panel_height * n_rows
    figure = make_subplots(
        rows=n_rows,
        cols=columns,
        subplot_titles=[heading for heading, _ in panels],
        horizontal_spacing=0.225 / columns,
        vertical_spacing=(44 + 16 * lines) / plot_height if n_rows > 1 else 0,
    )
    tick_size = style.SMALL_FONT_SIZE
    figure.update_annotations(font={"size": tick_size})
    shapes: list[dict[str, Any]] = []
    for place, (_, values) in enumerate(panels):
        line, column = divmod(place, columns)
        for trace in cell_traces(values, shown, view, numbers=numbers):
            figure.add_trace(trace, row=line + 1, col=column + 1)
        shapes += self_outlines(shown.is_self, "" if place == 0 else str(place + 1), width=1.5)
    figure.update_layout(
        style.base_layout(
            title,
            subtitle,
            coloraxis=style.attention_axis(),
            width=max(720, 120 + 240 * columns),
            least_width=120 + 180 * columns,
            height=plot_height + above + 66,
        )
    )
    figure.update_layout(shapes=shapes, margin={"t": above, "b": 66, "l": 84})
    figure.update_xaxes(style.cell_axis("", tick_size=tick_size))
    figure.update_yaxes(style.cell_axis("", rows=True, tick_size=tick_size))
    figure.add_annotation(
        text=style.KEY_TITLE, x=0.5, y=0, yshift=-34, yanchor="top", **_OUTSIDE_TITLE
    )
    figure.add_annotation(
        text=style.QUERY_TITLE, x=0, y=0.5, xshift=-52, textangle=-90, **_OUTSIDE_TITLE
    )
    for place in range(len(panels), n_rows * columns):
        line, column = divmod(place, columns)
        figure.update_xaxes(visible=False, row=line + 1, col=column + 1)
        figure.update_yaxes(visible=False, row=line + 1, col=column + 1)
    return figure


def cell_traces(
    values: Float[np.ndarray, "query key"],
    shown: Cells,
    view: str,
    *,
    numbers: bool,
) -> list[go.Heatmap | go.Scatter]:
    """The cells of one pattern: attention, the grey × of impossible cells, and the numbers.

    Args:
        values: NaN where a cell is impossible or undefined.
        shown: labels, and which cells are possible and which self-attention.
        view: "position", "generation" or "run", for what a pointer on a cell says.
        numbers: whether to print the numbers.
    """
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
    texts = cell_numbers(values, shown.queries, shown.keys, scale, *style.ATTENTION_RANGE)
    return [drawn, impossible, texts]


def cell_numbers(
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    scale: list[str],
    low: float,
    high: float,
) -> go.Scatter:
    """The numbers of a heatmap, dark or light as its scale over `low` … `high` asks."""
    return cell_labels(cell_texts(values), values, rows, columns, scale, low, high)


def share_cells(
    values: np.ndarray, rows: list[str], columns: list[str], hover: str, name: str | None = None
) -> list[go.Heatmap | go.Scatter]:
    """A map of shares on the figure's colour axis, from 0 to 1, and its numbers.

    Args:
        values: shares; a cell without one is undefined, which is not 0, and gets a dash.
        rows: names of the rows.
        columns: names of the columns.
        hover: what a pointer on a cell says.
        name: of the map.
    """
    heat = go.Heatmap(
        z=values,
        x=columns,
        y=rows,
        name=name,
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hovertemplate=hover,
        hoverongaps=False,
    )
    texts = np.where(np.isnan(values), "–", cell_texts(values))
    return [heat, cell_labels(texts, values, rows, columns, style.SCORE_SCALE, 0.0, 1.0)]


def cell_labels(
    labels: np.ndarray,
    values: np.ndarray,
    rows: list[str],
    columns: list[str],
    scale: list[str],
    low: float,
    high: float,
    **axes: str,
) -> go.Scatter:
    """Texts on the cells of a heatmap, dark or light as its scale over `low` … `high` asks.

    A cell without a value takes dark text.
    """
    # A trace of its own, because a heatmap's own text is #444 on cells where that is too faint.
    return go.Scatter(
        x=columns * len(rows),
        y=np.repeat(rows, len(columns)),
        mode="text",
        name="numbers",
        text=labels.ravel(),
        textfont={
            "size": style.SMALL_FONT_SIZE,
            "color": style.text_on((values.ravel() - low) / (high - low), scale),
        },
        hoverinfo="skip",
        showlegend=False,
        cliponaxis=False,
        **axes,
    )


def self_outlines(
    is_self: Bool[np.ndarray, "query key"], suffix: str = "", width: float = 2
) -> list[dict[str, Any]]:
    """Outlines of the cells that are self-attention, on the axes with this suffix."""
    return outlines(np.argwhere(is_self).tolist(), suffix, width)


def needed_outlines(
    shown: Cells, edges: Iterable[tuple[str, str]], suffix: str = ""
) -> list[dict[str, Any]]:
    """Outlines of edges that a problem needs; those from the answer are in the row `anchor`."""
    named = [(row_of(query), key) for query, key in edges]
    places = [
        (shown.queries.index(query), shown.keys.index(key))
        for query, key in named
        if query in shown.queries and key in shown.keys
    ]
    return outlines(places, suffix, width=3.5, colour=style.NEEDED_COLOUR)


def outlines(
    cells: Iterable[Sequence[int]],
    suffix: str = "",
    width: int | float = 2.5,
    colour: str = style.SELF_COLOUR,
) -> list[dict[str, Any]]:
    """Outlines of cells (row, column), counted from 0, on the axes with this suffix."""
    return [
        {
            "type": "rect",
            "xref": f"x{suffix}",
            "yref": f"y{suffix}",
            "x0": column - 0.46,
            "x1": column + 0.46,
            "y0": row - 0.46,
            "y1": row + 0.46,
            "line": {"color": colour, "width": width},
        }
        for row, column in cells
    ]


def cell_texts(values: Float[np.ndarray, "query key"]) -> np.ndarray:
    """The numbers printed in cells, without the leading zero so that they fit narrow ones.

    >>> cell_texts(np.array([[0.123, 1.0, 2.5, -0.5, np.nan]])).tolist()
    [['.12', '1.0', '2.50', '−0.50', '']]
    """
    texts = ["" if np.isnan(value) else fixed(value).removeprefix("0") for value in values.flat]
    texts = ["1.0" if text == "1.00" else text for text in texts]
    return np.array(texts).reshape(values.shape)


_OUTSIDE_TITLE: dict[str, Any] = {
    "xref": "paper",
    "yref": "paper",
    "showarrow": False,
    "font": {"size": style.FONT_SIZE},
}


def _cell_notes(shown: Cells, view: str) -> np.ndarray:
    notes = np.full(shown.possible.shape, "", dtype=object)
    if view == "generation":
        for i, j in np.ndindex(*shown.possible.shape):
            notes[i, j] = f"<br>entry [{i}, {j}] of the study: the step that generates ct{i}"
    notes[shown.is_self] += "<br>self-attention"
    return notes
