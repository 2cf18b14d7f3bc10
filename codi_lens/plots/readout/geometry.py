"""Thoughts as points: their lengths and likenesses, and the way they take."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import cmocean
from plotly.subplots import make_subplots

from codi_lens.errors import ProblemError, check_choice
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import SERIES_COLOURS, error_bar
from codi_lens.readout.geometry import TOKENS, ThoughtGeometry

By = Literal["total", "answer"]
TOTAL_SCALE: list[str] = list(cmocean.haline)
"""Totals are no attention and no score, so they get another hue: cmocean's "haline"."""
_LINES = 24


def thought_geometry(geometry: ThoughtGeometry) -> go.Figure:
    """Norms of thoughts beside those of token embeddings, and cosines that show collapse.

    Args:
        geometry: of `codi_lens.readout.thought_geometry`.

    >>> norms = pd.DataFrame({"of": ["ct0", TOKENS], "mean": 1.0, "low": 0.5, "median": 1.0,
    ...     "high": 2.0, "n": 8})
    >>> cosines = pd.DataFrame({"kind": "between problems", "of": ["ct0", TOKENS], "mean": 0.5,
    ...     "low": 0.4, "high": 0.6, "dimensions": 3.0, "n": 8})
    >>> figure = thought_geometry(ThoughtGeometry(norms, cosines, norms, (0.5, 0.3)))
    >>> [trace.name for trace in figure.data]
    ['norm', 'between problems']
    """
    norms, cosines = geometry.norms, geometry.cosines
    figure = make_subplots(
        rows=1,
        cols=3,
        horizontal_spacing=0.12,
        subplot_titles=["norm", "cosine: one thought and the next", "cosine: between problems"],
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    tables = {"norm": norms}
    tables |= {str(kind): some for kind, some in cosines.groupby("kind", sort=False)}
    columns = {"norm": 1, "successive": 2, "between problems": 3}
    for kind, some in tables.items():
        several = kind == "between problems"
        more = [
            f"; spread over {d:.1f} directions" if several else ""
            for d in some.get("dimensions", some["mean"])
        ]
        figure.add_scatter(
            x=some["mean"],
            y=[_short(of) for of in some["of"]],
            error_x=error_bar(some["mean"], some["low"], some["high"], thickness=1.6, width=4),
            mode="markers",
            marker={
                "size": 9,
                "color": [style.MUTED if of == TOKENS else SERIES_COLOURS[0] for of in some["of"]],
                "symbol": ["diamond" if of == TOKENS else "circle" for of in some["of"]],
            },
            name=kind,
            customdata=np.stack([some["low"], some["high"], more], axis=1).astype(object),
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "%{customdata[2]}<extra></extra>",
            showlegend=False,
            row=1,
            col=columns[kind],
        )
    n = int(norms["n"].iloc[0])
    figure.update_layout(
        style.base_layout(
            "How long thoughts are, and how alike",
            f"thoughts as fed, of {n} problems; ◆ = token embeddings (cosines: between tokens);<br>"
            "bars: norms 5 to 95 % of problems, cosines 95 % intervals; a cosine near 1 between "
            "problems: the thought has collapsed",
            width=1000,
            height=210 + 30 * len(norms),
        )
    )
    figure.update_layout(margin_t=128)
    figure.update_yaxes(style.cell_axis("", rows=True))
    figure.update_xaxes(style.value_axis("norm", rangemode="tozero"), col=1)
    for column in (2, 3):
        figure.update_xaxes(
            style.value_axis("cosine", range=[min(-0.1, float(cosines["low"].min())), 1.05]),
            col=column,
        )
    return figure


def thought_trajectories(
    geometry: ThoughtGeometry, *, by: By = "total", n_lines: int = _LINES
) -> go.Figure:
    """The thoughts of all problems in their first two principal components.

    Args:
        geometry: of `codi_lens.readout.thought_geometry`.
        by: what colours a thought: the running total after its own operation, or the answer.
        n_lines: how many problems, from the first, whose thoughts are joined by a line.

    Raises:
        ProblemError: another `by`, or problems without known totals or answers.

    >>> paths = pd.DataFrame({"problem": "a", "thought": ["ct0", "ct1"], "pc1": [0.0, 1.0],
    ...     "pc2": [0.0, 1.0], "total": [7.0, np.nan], "answer": 9.0})
    >>> figure = thought_trajectories(ThoughtGeometry(paths, paths, paths, (0.5, 0.3)))
    >>> [trace.name for trace in figure.data]
    ['path of a problem', 'no total', 'total']
    """
    check_choice("colour", by, By, ProblemError)
    table = geometry.trajectories
    known = table[table[by].notna()]
    if known.empty:
        raise ProblemError(f"No problem has a known {by}; nothing colours its thoughts.")
    first, second = geometry.explained
    n = table["problem"].nunique()
    what = "running total after operation i + 1 (of ct i)" if by == "total" else "answer"
    figure = go.Figure(
        layout=style.base_layout(
            "The way thoughts take",
            f"two principal components of all thoughts of {n} problems; colour = {what};<br>"
            f"labels: the mean of a thought; lines join those of {min(n_lines, n)} problems",
            xaxis=style.value_axis(f"component 1 ({first:.0%} of the variance)"),
            yaxis=style.value_axis(f"component 2 ({second:.0%})"),
            showlegend=False,
            width=820,
            height=640,
        )
    )
    _paths(figure, table, n_lines)
    unknown = table[table[by].isna()]
    for name, some in ((f"no {by}", unknown), (by, known)):
        if some.empty:
            continue
        colour = {"color": style.IMPOSSIBLE_COLOUR}
        if name == by:
            bar = style.colorbar_of(by)
            colour = {"color": some[by], "colorscale": TOTAL_SCALE, "colorbar": bar}
        figure.add_scatter(
            x=some["pc1"],
            y=some["pc2"],
            mode="markers",
            name=name,
            marker={"size": 7, "line": {"color": "white", "width": 0.5}, **colour},
            customdata=some[["problem", "thought", "total", "answer"]],
            hovertemplate="%{customdata[1]} of %{customdata[0]}<br>total %{customdata[2]}, answer "
            "%{customdata[3]}<extra></extra>",
        )
    for thought, some in table.groupby("thought", sort=False):
        figure.add_annotation(
            x=some["pc1"].mean(),
            y=some["pc2"].mean(),
            text=f"<b>{thought}</b>",
            showarrow=False,
            bgcolor="rgba(255,255,255,0.8)",
            font={"size": style.FONT_SIZE},
        )
    return figure


def _paths(figure: go.Figure, table: pd.DataFrame, n_lines: int) -> None:
    """Lines that join the thoughts of the first problems, in one trace."""
    x: list[float | None] = []
    y: list[float | None] = []
    for number, (_, some) in enumerate(table.groupby("problem", sort=False)):
        if number == n_lines:
            break
        x += [*some["pc1"], None]
        y += [*some["pc2"], None]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        name="path of a problem",
        line={"color": "#c9ced4", "width": 1},
        hoverinfo="skip",
    )


def _short(of: str) -> str:
    return "tokens" if of == TOKENS else of.replace(" to ", " → ")
