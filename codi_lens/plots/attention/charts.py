"""Bar charts over all heads: hubs, steps from thought to thought, skips.

Each chart exists in both views. In the position view self-attention is a series of its own, and
black diamonds show the causal null: the same attention to earlier thoughts, spread evenly over the
thoughts each query could see. The generation view draws what the published study drew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from codi_lens import metrics
from codi_lens.attention.thresholds import SEQUENTIAL_THRESHOLD, SKIP_THRESHOLD
from codi_lens.attention.views import View
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.views import cells, check_view
from codi_lens.plots.drawing.whiskers import LEGEND, NULL_MARKER, NULL_NAME

Matrix = Float[np.ndarray, "query key"]


def incoming(attention: xr.DataArray, view: View = "position") -> go.Figure:
    """The hub chart: attention that each thought receives, averaged over all heads.

    Position view: the mean over the later thoughts that can see it, self-attention beside it.
    Generation view: the study's column sums, in two parts, with its line at 1/n_thoughts.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        view: "position" or "generation".

    Raises:
        AttentionError: an unknown view, or attention with other dims or labels.

    >>> from codi_lens.attention.example import two_heads
    >>> figure = incoming(two_heads().mean("problem"))
    >>> dict(zip(figure.layout.xaxis.ticktext, figure.data[0].y.round(3).tolist()))
    {'ct0': 0.4, 'ct1': 0.2, 'ct2': nan}
    """
    check_view(view)
    shown = cells(attention, view)
    matrix, thoughts = shown.mean(), shown.keys
    if view == "generation":
        own = np.nansum(np.where(shown.is_self, matrix, 0), axis=0)
        totals = np.where(shown.possible.any(axis=0), np.nansum(matrix, axis=0), np.nan)
        figure = _chart(
            "Incoming attention, the study's column sums",
            "mean over all heads; earlier thoughts can be seen by more steps, so their sums are "
            "<br>larger even without a hub; × = impossible, the last thought is no query's key",
            "thought (key)",
            "sum of attention over steps",
        )
        figure.update_layout(barmode="stack")
        _bars(figure, thoughts, totals - own, "from later thoughts", style.LATER_COLOUR)
        _bars(figure, thoughts, own, "self-attention", style.SELF_BAR_COLOUR)
        _numbers(figure, totals)
        n = len(thoughts)
        _threshold(figure, n, 1 / n, f"uniform 1/{n} = {1 / n:.3f}")
        return figure
    received = _mean_over_rows(np.where(shown.is_self, np.nan, matrix))
    figure = _chart(
        "Attention that each thought receives",
        "mean over all heads and over the later thoughts that can see it; "
        "<br>× = impossible, the last thought has no later one",
        "thought (key)",
        "attention per query",
    )
    figure.update_layout(barmode="group")
    _bars(figure, thoughts, received, "from later thoughts", style.LATER_COLOUR)
    _bars(figure, thoughts, np.diag(matrix), "self-attention", style.SELF_BAR_COLOUR)
    later = np.tril(np.ones_like(matrix, dtype=bool), -1)
    null = _mean_over_rows(np.where(later, metrics.causal_null(np.tril(matrix)), np.nan))
    # A group of two bars is 0.85 wide, so the middles of the two are at -0.2125 and 0.2125.
    _null(figure, thoughts, null, shift=-0.2125)
    _numbers(figure, received, over=null, shift=-0.2125)
    _numbers(figure, np.diag(matrix), shift=0.2125)
    return figure


def sequential(attention: xr.DataArray, view: View = "position") -> go.Figure:
    """Attention from one thought to the one before, averaged over all heads.

    Position view: `ct{i+1}` → `ct{i}`. Generation view: the study's entries [i, i−1], which are
    self-attention (the query of row i is `ct{i-1}`), with its threshold of 0.3.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        view: "position" or "generation".

    Raises:
        AttentionError: an unknown view, or attention with other dims or labels.

    >>> from codi_lens.attention.example import two_heads
    >>> figure = sequential(two_heads().mean("problem"))
    >>> dict(zip(figure.layout.xaxis.ticktext, figure.data[0].y.round(3).tolist()))
    {'ct1→<br>ct0': 0.5, 'ct2→<br>ct1': 0.2}
    """
    check_view(view)
    matrix = cells(attention, view).mean()
    steps = range(1, len(matrix))
    values = np.diag(matrix, -1)
    if view == "generation":
        figure = _chart(
            "“Sequential flow” of the study: self-attention",
            "mean over all heads of the entries [i, i−1]; their query and key are the same thought",
            "entry [step, thought]: query → key",
            "self-attention",
        )
        labels = [f"[{i}, {i - 1}]<br>ct{i - 1}→ct{i - 1}" for i in steps]
        _bars(figure, labels, values, "self-attention", style.SELF_BAR_COLOUR)
        _numbers(figure, values)
        _threshold(
            figure, len(labels), SEQUENTIAL_THRESHOLD, f"study's threshold {SEQUENTIAL_THRESHOLD}"
        )
    else:
        figure = _chart(
            "Attention to the previous thought",
            "mean over all heads, self-attention excluded",
            "query → key",
            "attention",
        )
        labels = [f"ct{i}→<br>ct{i - 1}" for i in steps]
        _bars(figure, labels, values, "previous thought", style.LATER_COLOUR)
        null = np.diag(metrics.causal_null(np.tril(matrix)), -1)
        _null(figure, labels, null)
        _numbers(figure, values, over=null)
    if not labels:
        _empty(figure, "A run with 1 thought has no step from thought to thought.")
    return figure


def skips(attention: xr.DataArray, view: View = "position") -> go.Figure:
    """Attention over longer distances, averaged over all heads.

    Position view: by how many thoughts back the key lies. Generation view: the study's entries of
    the last row over the first half of the columns ([5, 0..2] at six thoughts), threshold 0.1.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        view: "position" or "generation".

    Raises:
        AttentionError: an unknown view, or attention with other dims or labels.

    >>> from codi_lens.attention.example import two_heads
    >>> figure = skips(two_heads().mean("problem"))
    >>> dict(zip(figure.layout.xaxis.ticktext, figure.data[0].y.round(3).tolist()))
    {'1': 0.35, '2': 0.3}
    """
    check_view(view)
    shown = cells(attention, view)
    matrix = shown.mean()
    last = len(matrix) - 1
    if view == "generation":
        figure = _chart(
            "Skip connections of the study",
            "mean over all heads of the last step's entries in the first half of the columns",
            "entry [step, thought]: query → key",
            "attention",
        )
        labels = [
            f"[{last}, {j}]<br>ct{last - 1}→ct{j}" + (" (self)" if shown.is_self[last, j] else "")
            for j in range((last + 1) // 2)
        ]
        values = matrix[last, : len(labels)]
        _bars(figure, labels, values, "skip entry", style.LATER_COLOUR)
        _numbers(figure, values)
        _threshold(figure, len(labels), SKIP_THRESHOLD, f"study's threshold {SKIP_THRESHOLD}")
    else:
        figure = _chart(
            "Attention by distance",
            "mean over all heads and all pairs of thoughts that far apart",
            "thoughts back",
            "attention per pair",
        )
        even = metrics.causal_null(np.tril(matrix))
        labels = [str(back) for back in range(1, last + 1)]
        values = np.array([np.diag(matrix, -back).mean() for back in range(1, last + 1)])
        null = np.array([np.diag(even, -back).mean() for back in range(1, last + 1)])
        _bars(figure, labels, values, "that far back", style.LATER_COLOUR)
        _null(figure, labels, null)
        _numbers(figure, values, over=null)
    if not labels:
        _empty(figure, "A run with 1 thought has no skip.")
    return figure


def _mean_over_rows(matrix: Matrix) -> Float[np.ndarray, " key"]:
    # Not np.nanmean, which warns about the last thought's empty column.
    counts = (~np.isnan(matrix)).sum(axis=0)
    sums = np.nansum(matrix, axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def _chart(title: str, subtitle: str, x_title: str, y_title: str) -> go.Figure:
    return go.Figure(
        layout=style.base_layout(
            title,
            subtitle,
            # Numeric with named ticks, so that a marker can stand beside the middle of a group.
            xaxis=style.value_axis(x_title, showgrid=False, zeroline=False, tickangle=0),
            yaxis=style.value_axis(y_title, rangemode="tozero"),
            legend=LEGEND,
            bargap=0.15,
            height=400,
        )
    ).update_layout(margin_b=104)


def _bars(figure: go.Figure, labels: list[str], y: np.ndarray, name: str, colour: str) -> None:
    figure.update_xaxes(tickvals=np.arange(len(labels)), ticktext=labels)
    figure.add_bar(
        x=np.arange(len(labels)),
        y=y,
        customdata=labels,
        name=name,
        showlegend=True,
        marker={"color": colour},
        hovertemplate="%{customdata}<br>" + name + " %{y:.3f}<extra></extra>",
    )


def _numbers(
    figure: go.Figure, values: np.ndarray, *, over: np.ndarray | None = None, shift: float = 0
) -> None:
    # Annotations, not bar texts: those shrink in narrow bars and lie under the null's markers.
    above = np.fmax(values, over) if over is not None else values
    digits = 2 if np.nanmax(above, initial=0) >= 0.1 else 3
    for place, (value, top) in enumerate(zip(values, above, strict=True)):
        impossible = np.isnan(value)
        figure.add_annotation(
            x=place + shift,
            y=0 if impossible else top,
            yshift=2 if over is None else 7,
            text="×" if impossible else f"{value:.{digits}f}".removeprefix("0"),
            font={"size": style.SMALL_FONT_SIZE},
            bgcolor="rgba(255,255,255,0.9)",
            borderpad=0,
            showarrow=False,
            yanchor="bottom",
        )


def _null(figure: go.Figure, labels: list[str], y: np.ndarray, shift: float = 0) -> None:
    figure.add_scatter(
        x=np.arange(len(labels)) + shift,
        y=y,
        mode="markers",
        name=NULL_NAME,
        showlegend=True,
        customdata=labels,
        marker=NULL_MARKER,
        hovertemplate="%{customdata}<br>even spread over earlier thoughts %{y:.3f}<extra></extra>",
    )


def _threshold(figure: go.Figure, n_bars: int, value: float, text: str) -> None:
    # A legend entry, because a label on the line would lie over the bars of a narrow chart.
    figure.add_scatter(
        x=[-0.5, n_bars - 0.5],
        y=[value, value],
        mode="lines",
        name=text,
        showlegend=True,
        line={"color": style.THRESHOLD_COLOUR, "width": 2, "dash": "dash"},
        hovertemplate=text + "<extra></extra>",
    )


def _empty(figure: go.Figure, text: str) -> None:
    settings: dict[str, Any] = {"xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5}
    figure.data = ()
    figure.update_layout(shapes=[], annotations=[], xaxis_visible=False, yaxis_visible=False)
    figure.add_annotation(text=text, showarrow=False, font={"size": style.FONT_SIZE}, **settings)
