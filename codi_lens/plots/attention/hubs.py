"""Hub ratios with their intervals, what thoughts give, and whether more data strengthen a hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import (
    LEGEND,
    SERIES_COLOURS,
    add_points,
    labelled_series,
    shift_of,
)


def hub_ratios(tables: Mapping[str, pd.DataFrame] | pd.DataFrame) -> go.Figure:
    """Hub ratio of each thought with its interval, and below it m_i, what the thought gives.

    Args:
        tables: from `codi_lens.attention.hubs.hub_ratios`; several, by name ("attention",
            "value-weighted", models with equally many thoughts), stand side by side.

    Raises:
        AttentionError: no table, or tables of different thoughts.

    >>> table = pd.DataFrame({"thought": ["ct0", "ct1"], "ratio": [1.2, np.nan], "low": 1.1,
    ...     "high": 1.4, "given": [0.0, 0.3], "p": [0.04, np.nan], "p_smallest": 0.01})
    >>> figure = hub_ratios(table)
    >>> [note.text for note in figure.layout.annotations]
    ['p = .040', '×']
    """
    series = labelled_series(tables, "thought")
    thoughts = [str(name) for name in next(iter(series.values()))["thought"]]
    figure = make_subplots(rows=2, cols=1, row_heights=[0.68, 0.32], vertical_spacing=0.16)
    figure.update_layout(
        style.base_layout(
            "Hub ratio: attention from later thoughts over an even spread",
            "1 = no preference among the thoughts that a query can see; whiskers: 95 % bootstrap "
            "intervals<br>over problems, for all thoughts at once; p: permutation test against an "
            "even spread and smooth<br>primacy, * where too few come later for it to reach .05; × "
            "= impossible, no thought comes later",
            width=720,
            height=600,
            legend=LEGEND,
            barmode="group",
        )
    )
    figure.update_layout(margin_b=96)
    for place, (name, table) in enumerate(series.items()):
        shift = shift_of(place, len(series))
        colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
        add_points(figure, table, "ratio", name, colour, shift, row=1)
        figure.add_bar(
            x=np.arange(len(thoughts)) + shift,
            y=table["given"],
            width=0.5 / len(series),
            marker_color=colour,
            name=name,
            showlegend=False,
            customdata=thoughts,
            hovertemplate="%{customdata} gives %{y:.3f}<extra>" + name + "</extra>",
            row=2,
            col=1,
        )
    figure.add_hline(y=1, line={"color": style.NULL_COLOUR, "width": 1.5, "dash": "dash"}, row=1)  # type: ignore
    top = max(1.0, *(float(np.nanmax(table[["ratio", "high"]])) for table in series.values()))
    for place, thought in enumerate(thoughts):
        texts = [_p_text(table, place) for table in series.values()]
        impossible = all(pd.isna(table["ratio"].iloc[place]) for table in series.values())
        figure.add_annotation(
            x=place,
            y=0 if impossible else 1.12 * top,
            text="×" if impossible else "<br>".join(texts),
            yanchor="bottom" if impossible else "middle",
            showarrow=False,
            font={"size": style.SMALL_FONT_SIZE},
            name=thought,
        )
    ticks = {"tickvals": list(range(len(thoughts))), "ticktext": thoughts}
    ticks["range"] = [-0.5, len(thoughts) - 0.5]
    figure.update_xaxes(style.value_axis("", showgrid=False, zeroline=False, **ticks))
    figure.update_xaxes(title_text="thought", row=2)
    figure.update_yaxes(style.value_axis("hub ratio", range=[0, 1.24 * top]), row=1)
    figure.update_yaxes(style.value_axis("given to<br>earlier ones", rangemode="tozero"), row=2)
    return figure


def hub_ratio_by_n_problems(table: pd.DataFrame) -> go.Figure:
    """Does a hub strengthen with more data? The hub ratio against the number of problems.

    Args:
        table: from `codi_lens.attention.hubs.hub_ratio_by_n_problems`.

    >>> table = pd.DataFrame({"thought": "ct0", "n_problems": [10, 20], "ratio": [1.5, 1.2],
    ...     "low": [1.0, 1.1], "high": [2.0, 1.3]})
    >>> figure = hub_ratio_by_n_problems(table)
    >>> [trace.name for trace in figure.data], figure.layout.xaxis.ticktext
    (['band', 'ct0'], ('10', '20'))
    """
    known = table.dropna(subset="ratio")
    thoughts = [str(name) for name in known["thought"].unique()]
    figure = make_subplots(
        rows=1,
        cols=max(1, len(thoughts)),
        shared_yaxes=True,
        subplot_titles=thoughts,
        horizontal_spacing=0.02,
    )
    figure.update_layout(
        style.base_layout(
            "Hub ratio against the number of problems",
            "line: median of samples of that size; band: 95 % of them; dashed: no preference",
            width=max(420, 120 + 190 * len(thoughts)),
            height=380,
        )
    )
    figure.update_layout(margin_t=104)
    figure.update_annotations(font={"size": style.FONT_SIZE})
    for place, thought in enumerate(thoughts):
        _add_curve(figure, known[known["thought"] == thought], thought, place + 1)
    figure.add_hline(y=1, line={"color": style.NULL_COLOUR, "width": 1.5, "dash": "dash"})
    sizes = sorted(int(size) for size in known["n_problems"].unique())
    shown = sizes if len(sizes) < 4 else [sizes[0], sizes[len(sizes) // 2], sizes[-1]]
    figure.update_xaxes(
        style.value_axis(
            "", type="log", tickvals=shown, ticktext=[str(size) for size in shown], showgrid=False
        )
    )
    figure.update_xaxes(title_text="problems", col=max(1, (len(thoughts) + 1) // 2))
    figure.update_yaxes(style.value_axis("", rangemode="tozero"))
    figure.update_yaxes(title_text="hub ratio", col=1)
    return figure


def _add_curve(figure: go.Figure, rows: pd.DataFrame, thought: str, column: int) -> None:
    """The ratios of one thought in its panel, over the band of the samples."""
    where: dict[str, Any] = {"row": 1, "col": column}
    figure.add_scatter(
        x=[*rows["n_problems"], *rows["n_problems"][::-1]],
        y=[*rows["high"], *rows["low"][::-1]],
        mode="lines",
        fill="toself",
        fillcolor="rgba(47,93,155,0.22)",
        line={"width": 0},
        hoverinfo="skip",
        name="band",
        showlegend=False,
        **where,
    )
    figure.add_scatter(
        x=rows["n_problems"],
        y=rows["ratio"],
        mode="lines+markers",
        line={"color": style.LATER_COLOUR, "width": 2},
        marker={"size": 5},
        customdata=rows[["low", "high"]],
        hovertemplate="%{x} problems<br>ratio %{y:.2f} [%{customdata[0]:.2f}, "
        "%{customdata[1]:.2f}]<extra>" + thought + "</extra>",
        name=thought,
        showlegend=False,
        **where,
    )


def _p_text(table: pd.DataFrame, place: int) -> str:
    p, smallest = table["p"].iloc[place], table["p_smallest"].iloc[place]
    if pd.isna(p):
        return ""
    text = "p < .001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
    return f"{text.replace('0.', '.')}{' *' if smallest > 0.05 else ''}"
