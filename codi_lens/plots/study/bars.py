"""The bars of the study's figures, with their numbers on top and its thresholds across."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.plots.drawing import style
from codi_lens.study.heads import counts

BAND_COLOURS = {"early": "#0072b2", "middle": "#b07500", "late": "#a3367c"}


def count_bars(
    figure: go.Figure,
    heads: pd.DataFrame,
    column: str,
    colours: dict[str, str],
    *,
    row: int,
    col: int,
) -> None:
    """Bars of how many heads have each type or band, the number on top, in one subplot."""
    found = counts(heads, column, len(heads))
    figure.add_bar(
        x=[kind.replace(" ", "<br>") for kind in found],
        y=list(found.values()),
        text=list(found.values()),
        textposition="outside",
        cliponaxis=False,
        marker={"color": [colours[kind] for kind in found]},
        hovertemplate="%{x}: %{y} heads<extra></extra>",
        name=column,
        showlegend=False,
        row=row,
        col=col,
    )
    figure.update_xaxes(style.cell_axis(""), row=row, col=col)
    top = max(1, *found.values())
    figure.update_yaxes(style.value_axis("heads", range=[0, 1.18 * top]), row=row, col=col)


def score_bars(
    figure: go.Figure,
    labels: Sequence[str],
    values: Sequence[float],
    colour: Any,
    *,
    row: int,
    col: int,
    shift: float = 0,
    tops: Sequence[float] | None = None,
    digits: int = 3,
    **settings: Any,
) -> None:
    """Bars with their numbers on top, × where a NaN says that causality leaves nothing.

    Args:
        figure: made by `make_subplots`.
        labels: the categories.
        values: one per label.
        colour: of all bars, or one for each.
        row, col: the subplot, from 1.
        shift: where the bars of one group stand beside the middle of their category.
        tops: what the numbers stand above, where that is not the bar (an interval, say).
        digits: decimals of the numbers.
        settings: for the bars.
    """
    figure.add_bar(
        x=labels,
        y=np.nan_to_num(values),
        customdata=["impossible" if np.isnan(value) else f"{value:.4f}" for value in values],
        hovertemplate="%{x}: %{customdata}",
        marker={"color": colour},
        row=row,
        col=col,
        **settings,
    )
    for place, (value, top) in enumerate(zip(values, tops or values, strict=True)):
        # Annotations, not bar texts: those shrink in narrow bars and lie under threshold lines.
        figure.add_annotation(
            x=place + shift,
            y=float(np.nan_to_num(top)),
            yshift=2 if tops is None else 7,
            yanchor="bottom",
            text="×" if np.isnan(value) else f"{value:.{digits}f}".removeprefix("0"),
            font={"size": style.SMALL_FONT_SIZE},
            bgcolor="rgba(255,255,255,0.85)",
            borderpad=0,
            showarrow=False,
            row=row,
            col=col,
        )


def limit_line(figure: go.Figure, column: int, value: float, text: str) -> None:
    """A dashed line at a threshold or baseline of one panel, named at its right end."""
    figure.add_hline(
        y=value,
        line={"color": style.THRESHOLD_COLOUR, "width": 2, "dash": "dash"},
        annotation={
            "text": text,
            "font": {"size": style.SMALL_FONT_SIZE, "color": style.THRESHOLD_COLOUR},
            "bgcolor": "rgba(255,255,255,0.85)",
        },
        annotation_position="top right",
        row=1,  # pyright: ignore[reportArgumentType]
        col=column,  # pyright: ignore[reportArgumentType]
    )
