"""Shares of problems in which a value is read, answered or moved, as maps beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codi_lens.errors import ProblemError, needs
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import share_cells

_ABREAST, _WIDE = 3, 6  # panels in a row, and columns above which there is one fewer
_ROW, _AROUND = 34, 110  # pixels of a cell, and of what stands around a panel


def readable_and_used(table: pd.DataFrame) -> go.Figure:
    """What the lens reads, a probe reads and a swap moves, per thought and running total.

    Args:
        table: of `codi_lens.readout.readable_and_used`.

    Raises:
        ProblemError: another table.

    >>> table = pd.DataFrame({"thought": ["ct0", "ct1"], "operation": 1, "lens": [1.0, 0.2],
    ...     "probe": [0.9, 0.8], "swap": [0.0, float("nan")], "lens_n": 60})
    >>> [trace.name for trace in readable_and_used(table).data][::2]
    ['the lens reads', 'a probe reads', 'a swap moves']
    """
    columns = ("lens", "probe", "swap")
    advice = "give what readable_and_used returns"
    needs(table, "thought", "operation", "lens_n", *columns, advice=advice, error=ProblemError)
    headings = ("the lens reads", "a probe reads", "a swap moves")
    panels = _pivoted(table, "thought", "operation", dict(zip(headings, columns, strict=True)))
    return _maps(
        panels,
        [str(name) for name in table["thought"].unique()],
        "Readable beside used",
        f"share of {int(table['lens_n'].max())} problems; the answer relies only on what a swap "
        "moves;<br>– = not tested (probes take 50 problems for a total; a swap cannot tell the "
        "last total from the answer)",
        axis="running total after operation",
    )


def stopped_answers(table: pd.DataFrame) -> go.Figure:
    """What is answered when thinking stops after each thought, beside what the lens reads there.

    Args:
        table: of `codi_lens.readout.stopped_answers`.

    Raises:
        ProblemError: another table.

    >>> table = pd.DataFrame({"last": ["bot", "ct0"], "target": "answer", "answered": [0.1, 0.9],
    ...     "state": [0.2, 0.3], "thought": [float("nan"), 1.0], "n": 60})
    >>> [trace.name for trace in stopped_answers(table).data][::2]
    ['answered', 'read in the state', 'read in the thought as fed']
    """
    columns = ("answered", "state", "thought")
    advice = "give what stopped_answers returns"
    needs(table, "last", "target", "n", *columns, advice=advice, error=ProblemError)
    headings = ("answered", "read in the state", "read in the thought as fed")
    panels = _pivoted(table, "last", "target", dict(zip(headings, columns, strict=True)))
    targets = [str(name) for name in table["target"].unique()]
    return _maps(
        [(heading, grid[targets]) for heading, grid in panels],
        [str(name) for name in table["last"].unique()],
        "Where thinking may stop",
        f"share of {int(table['n'].max())} problems; answers when nothing is thought after the "
        "position of the row;<br>read = first of all tokens there (state: after the last layer, "
        "before the projection)",
        axis="",
        rows_title="last position",
    )


def rank_trajectories(table: pd.DataFrame, *, column: str = "first") -> go.Figure:
    """Where each target is read, over layers and positions.

    Args:
        table: of `codi_lens.readout.rank_trajectories`.
        column: "first", or another share of the table.

    Raises:
        ProblemError: another table, or one without this column.

    >>> table = pd.DataFrame({"target": "total 1", "layer": [0, None], "position": "ct0",
    ...     "first": [0.2, 1.0], "n": 60})
    >>> rank_trajectories(table).data[0].y
    ('L0', 'as fed')
    """
    advice = "give what rank_trajectories returns"
    needs(table, "target", "layer", "position", "n", column, advice=advice, error=ProblemError)
    rows = ["as fed" if pd.isna(layer) else f"L{int(layer)}" for layer in table["layer"]]
    named = table.assign(row=rows)
    places = [str(name) for name in table["position"].unique()]
    panels = [
        (str(target), some.pivot(index="row", columns="position", values=column)[places])
        for target, some in named.groupby("target", sort=False)
    ]
    return _maps(
        panels,
        list(dict.fromkeys(rows)),
        "Where known values are read",
        f"share of {int(table['n'].max())} problems in which the value is the likeliest token "
        "after each layer;<br>as fed = the thought after the projection",
        axis="position",
        rows_title="after layer",
    )


def _maps(
    panels: Sequence[tuple[str, pd.DataFrame]],
    rows: Sequence[str],
    title: str,
    subtitle: str,
    *,
    axis: str,
    rows_title: str = "thought",
) -> go.Figure:
    """Maps on one scale from 0 to 1, in rows of two or three."""
    abreast = _ABREAST - (len(panels[0][1].columns) > _WIDE)
    lines = -(-len(panels) // abreast)
    height = lines * (_AROUND + _ROW * len(rows))
    figure = make_subplots(
        rows=lines,
        cols=abreast,
        subplot_titles=[heading for heading, _ in panels],
        horizontal_spacing=0.09,
        vertical_spacing=_AROUND / height if lines > 1 else 0,
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    for place, (heading, grid) in enumerate(panels):
        at: dict[str, Any] = {"row": place // abreast + 1, "col": place % abreast + 1}
        columns = [str(name) for name in grid.columns]
        values = grid.reindex(index=list(rows)).to_numpy(dtype=float)
        hover = f"%{{y}}, %{{x}}: %{{z:.2f}}<extra>{heading}</extra>"
        for trace in share_cells(values, list(rows), columns, hover, heading):
            figure.add_trace(trace, **at)
        # Ranges are given, as a panel without values has none of its own.
        figure.update_xaxes(style.cell_axis(axis, tick_size=style.SMALL_FONT_SIZE), **at)
        figure.update_xaxes(range=[-0.5, len(columns) - 0.5], **at)
        first = rows_title if at["col"] == 1 else ""
        figure.update_yaxes(style.cell_axis(first), range=[len(rows) - 0.5, -0.5], **at)
    for place in range(len(panels), lines * abreast):
        figure.update_xaxes(visible=False, row=lines, col=place % abreast + 1)
        figure.update_yaxes(visible=False, row=lines, col=place % abreast + 1)
    figure.update_layout(
        style.base_layout(
            title,
            subtitle,
            coloraxis={
                "colorscale": style.SCORE_SCALE,
                "cmin": 0,
                "cmax": 1,
                "colorbar": style.colorbar_of("share of problems"),
            },
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=1080,
            height=height + 110,
        )
    )
    figure.update_layout(margin_t=132)
    return figure


def _pivoted(
    table: pd.DataFrame, rows: str, columns: str, values: dict[str, str]
) -> list[tuple[str, pd.DataFrame]]:
    """A grid of each of these columns, by its heading."""
    return [
        (heading, table.pivot(index=rows, columns=columns, values=column))
        for heading, column in values.items()
    ]
