"""Where attention goes, with intervals: by kind of key, by distance, and from the answer.

Points are means over heads and problems, whiskers bootstrap intervals over problems, black diamonds
the causal null (the same attention to earlier thoughts, spread evenly). Value-weighted attention,
where given, stands beside plain attention as a second series.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.attention.profiles import FIRST_TOKEN, KINDS
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import (
    LEGEND,
    NULL_NAME,
    SERIES_COLOURS,
    add_points,
    labelled_series,
    shift_of,
)

KIND_COLOURS = {
    FIRST_TOKEN: "#8c959f",
    "question": "#c9d1d9",
    "bot": "#d8b365",
    "earlier thoughts": style.LATER_COLOUR,
    "self": style.SELF_BAR_COLOUR,
    "eot": "#7b6ca8",
    "answer": "#00795b",
}


def destinations(table: pd.DataFrame, *, weighted: bool = False) -> go.Figure:
    """Where each query's attention goes, as bars that sum to 1.

    Args:
        table: `with_intervals(destinations(…))`: query, kind, mean, low, high.
        weighted: whether it is value-weighted, for the title.

    >>> table = pd.DataFrame({"query": "ct1", "kind": ["question", "self"], "mean": [0.7, 0.3],
    ...     "low": [0.6, 0.2], "high": [0.8, 0.4]})
    >>> {trace.name: trace.text for trace in destinations(table).data}
    {'question': ('70%',), 'self': ('30%',)}
    """
    queries = [str(name) for name in table["query"].unique()]
    kinds = [kind for kind in (FIRST_TOKEN, *KINDS) if kind in set(table["kind"])]
    sink = FIRST_TOKEN in kinds
    figure = go.Figure(
        layout=style.base_layout(
            f"Where {'value-weighted attention' if weighted else 'attention'} goes, by query",
            "mean over all heads and problems;<br>the question "
            + ("without" if sink else "includes")
            + " its first token, where heads may park attention that they do not use",
            barmode="stack",
            xaxis=style.value_axis("share of the query's attention", range=[0, 1]),
            yaxis=style.cell_axis(style.QUERY_TITLE, rows=True),
            legend=LEGEND | {"traceorder": "normal"},
            width=760,
            height=170 + 34 * len(queries),
            bargap=0.2,
        )
    )
    figure.update_layout(margin_b=104)
    for kind in kinds:
        rows = table[table["kind"] == kind].set_index("query").reindex(queries)
        if not (rows["mean"] > 0).any():
            continue
        dark = kind in ("earlier thoughts", "self", "eot", "answer")
        figure.add_bar(
            x=rows["mean"],
            y=queries,
            orientation="h",
            name=kind,
            showlegend=True,
            marker={"color": KIND_COLOURS[kind], "line": {"color": "white", "width": 1}},
            text=[f"{value:.0%}" if value >= 0.045 else "" for value in rows["mean"]],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={
                "size": style.SMALL_FONT_SIZE,
                "color": "white" if dark else style.DARK_TEXT,
            },
            customdata=rows[["low", "high"]],
            hovertemplate="%{y} → " + kind + "<br>%{x:.3f} [%{customdata[0]:.3f}, "
            "%{customdata[1]:.3f}]<extra></extra>",
        )
    return figure


def by_distance(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, null: pd.DataFrame | None = None
) -> go.Figure:
    """The skip profile: attention by how many thoughts back the key lies, with intervals.

    Args:
        tables: `with_intervals(skip_profile(…))`, or several by name.
        null: `with_intervals(skip_null(…))` of the first, drawn as black diamonds.

    Raises:
        AttentionError: no table, or tables of different distances.

    >>> table = pd.DataFrame({"distance": [0, 1], "mean": [0.2, 0.4], "low": [0.1, 0.3],
    ...     "high": [0.3, 0.6]})
    >>> figure = by_distance(table)
    >>> figure.layout.xaxis.ticktext, figure.data[0].error_y.array.round(2).tolist()
    (('0 (self)', '1'), [0.1, 0.2])
    """
    series = labelled_series(tables, "distance")
    labels = next(iter(series.values()))["distance"].astype(str).replace({"0": "0 (self)"}).tolist()
    return _categories(
        series,
        labels,
        "Attention between thoughts, by distance",
        "mean over all heads and all pairs of thoughts so far apart;<br>whiskers: 95 % bootstrap "
        "interval",
        "thoughts back",
        "attention per pair",
        null,
    )


def sequential_intervals(
    tables: Mapping[str, pd.DataFrame] | pd.DataFrame, null: pd.DataFrame | None = None
) -> go.Figure:
    """Attention of each thought to the one before it, with intervals.

    Args:
        tables: `with_intervals(sequential_attention(…))`, or several by name.
        null: the same of the causal null (`mean` per query), drawn as black diamonds.

    Raises:
        AttentionError: no table, or tables of different thoughts.

    >>> table = pd.DataFrame({"query": ["ct1", "ct2"], "mean": [0.2, 0.4], "low": [0.1, 0.3],
    ...     "high": [0.3, 0.6]})
    >>> figure = sequential_intervals({"gpt2": table, "llama": table})
    >>> figure.layout.xaxis.ticktext, [trace.name for trace in figure.data]
    (('ct1→<br>ct0', 'ct2→<br>ct1'), ['gpt2', 'llama'])
    """
    series = labelled_series(tables, "query")
    queries = [str(query) for query in next(iter(series.values()))["query"]]
    return _categories(
        series,
        [f"{query}→<br>ct{int(query.removeprefix('ct')) - 1}" for query in queries],
        "Attention to the previous thought",
        "mean over all heads, self-attention excluded; whiskers: 95 % bootstrap interval",
        "query → key",
        "attention",
        null,
    )


def answer_reads(table: pd.DataFrame) -> go.Figure:
    """Which thoughts the answer reads: attention of `eot` and `anchor` to each thought.

    Args:
        table: `with_intervals(answer_view(…))`: query, key, mean, low, high.

    >>> table = pd.DataFrame({"query": "anchor", "key": ["question", "ct0"], "mean": [0.6, 0.3],
    ...     "low": [0.5, 0.2], "high": [0.7, 0.4]})
    >>> [trace.name for trace in answer_reads(table).data]
    ['anchor (60% to the question, 30% to thoughts)']
    """
    series = {}
    for query, rows in table.groupby("query", sort=False):
        parts = rows.set_index("key")["mean"]
        thoughts = rows["key"].str.match(r"ct\d+$")
        read = rows["mean"][thoughts].sum()
        name = f"{query} ({parts['question']:.0%} to the question, {read:.0%} to thoughts)"
        series[name] = rows[thoughts]
    labels = [str(key) for key in next(iter(series.values()))["key"]]
    return _categories(
        series,
        labels,
        "Which thoughts the answer reads",
        "attention of eot, and of the anchor, whose logits give the answer's number;<br>mean over "
        "all heads; whiskers: 95 % bootstrap interval",
        style.KEY_TITLE,
        "attention",
        None,
    )


def _categories(
    series: dict[str, pd.DataFrame],
    labels: list[str],
    title: str,
    subtitle: str,
    x_title: str,
    y_title: str,
    null: pd.DataFrame | None,
) -> go.Figure:
    ticks = {"tickvals": list(range(len(labels))), "ticktext": labels, "tickangle": 0}
    drawn = [table[["mean", "high"]].to_numpy(dtype=float).ravel() for table in series.values()]
    drawn += [] if null is None else [null["mean"].to_numpy(dtype=float)]
    top = float(np.nanmax(np.concatenate([*drawn, [0.001]])))
    figure = go.Figure(
        layout=style.base_layout(
            title,
            subtitle,
            xaxis=style.value_axis(
                x_title, showgrid=False, zeroline=False, range=[-0.5, len(labels) - 0.5], **ticks
            ),
            yaxis=style.value_axis(y_title, range=[0, 1.08 * top]),
            legend=LEGEND,
            showlegend=len(series) > 1 or null is not None,
            width=680,
            height=420,
        )
    )
    figure.update_layout(margin_b=108)
    for place, (name, table) in enumerate(series.items()):
        colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
        add_points(figure, table, "mean", name, colour, shift_of(place, len(series)))
    if null is not None:
        figure.add_scatter(
            x=np.arange(len(labels)) + shift_of(0, len(series)),
            y=null["mean"],
            mode="markers",
            name=NULL_NAME,
            showlegend=True,
            marker={
                "symbol": "diamond-open",
                "size": 10,
                "color": style.NULL_COLOUR,
                "line": {"width": 1.5},
            },
            hovertemplate="even spread over earlier thoughts %{y:.3f}<extra></extra>",
        )
    if not labels:
        figure.update_layout(xaxis_visible=False, yaxis_visible=False)
        figure.add_annotation(
            text="A run with 1 thought has no earlier thought.", showarrow=False, x=0.5, y=0.5
        )
    return figure
