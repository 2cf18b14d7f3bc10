"""What the study measured, drawn: its printed numbers read again, and the corrected triptych."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import pattern_panels
from codi_lens.plots.drawing.whiskers import NULL_MARKER, NULL_NAME, error_bar
from codi_lens.plots.study.bars import score_bars
from codi_lens.plots.study.figures import study_cells
from codi_lens.study.published import MODELS, published_heads, published_hubs, published_matrix

_SHORT = {"llama": "LLaMA", "gpt2": "GPT-2"}


def corrected_triptych(model: str, corrected: pd.DataFrame) -> go.Figure:
    """Hub ratios, sequential attention and attention by distance, each against the causal null.

    The counterpart of the study's hub, flow and skip figure, in the position view.

    Args:
        model: what to call the model.
        corrected: as from `corrected_quantities`.

    >>> corrected = pd.DataFrame({"quantity": ["hub ratio", "by distance"], "at": ["ct0", "1"],
    ...     "value": [1.2, 0.3], "low": [1.1, 0.2], "high": [1.4, 0.4], "null": [1.0, 0.25]})
    >>> figure = corrected_triptych("gpt2", corrected)
    >>> [trace.y.tolist() for trace in figure.data if len(trace.y)]
    [[1.2], [1.0], [0.3], [0.25]]
    """
    panels = (
        ("Hub ratio", "hub ratio", "thought (key)", "received / even spread", 2),
        ("Attention to the previous thought", "sequential", "query → key", "attention", 3),
        ("Attention by distance", "by distance", "thoughts back (0 = itself)", "attention", 3),
    )
    figure = make_subplots(
        rows=1, cols=3, horizontal_spacing=0.08, subplot_titles=[title for title, *_ in panels]
    )
    figure.update_layout(
        style.base_layout(
            f"{model}: the same questions, self-attention apart, against the causal null",
            "mean over heads and problems; whiskers: 95 % bootstrap interval over problems; "
            "diamonds: the same attention to earlier thoughts, spread evenly; × = impossible",
            width=1240,
            height=450,
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.2, "yanchor": "top"},
        )
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    figure.update_layout(margin={"t": 110, "b": 90})
    for place, (_, quantity, x_title, y_title, digits) in enumerate(panels, 1):
        _add_quantity(figure, corrected, place, quantity, digits, (x_title, y_title))
    return figure


def published_patterns() -> go.Figure:
    """The six mean matrices that the study printed, self-attention outlined.

    >>> [note.text.split(" · ")[0] for note in published_patterns().layout.annotations[:6]]
    ['GPT-2 L0H3', 'GPT-2 L5H3', 'GPT-2 L6H0', 'LLaMA L4H5', 'LLaMA L5H30', 'LLaMA L5H28']
    """
    panels: list[tuple[str, Any]] = []
    heads = published_heads()
    for row in heads.to_dict("records"):
        matrix = published_matrix(row["model"], row["name"])
        possible = np.tril(np.ones(matrix.shape, dtype=bool), -1)
        heading = (
            f"{_SHORT[row['model']]} {row['name']} · {row['at']} {row['strongest']:.2f}<br>"
            f"{row['functional_type']}<br>“sequential flow” {row['sequential_flow']:.2f}"
        )
        panels.append((heading, np.where(possible, matrix.values, np.nan)))
    first = published_matrix("gpt2", "L5H3").expand_dims(layer=[0], head=[0])
    return pattern_panels(
        panels,
        study_cells(first),
        "generation",
        title="The six heads whose matrices the study printed",
        subtitle="row = the query; outlined = self-attention, the study's “sequential flow”; "
        "× = impossible",
        columns=3,
        numbers=True,
        panel_height=280,
    )


def published_hub_bars() -> go.Figure:
    """The published column sums, divided by the number of steps that can see each thought.

    >>> figure = published_hub_bars()
    >>> [note.text for note in figure.layout.annotations[:2]]
    ['CODI LLaMA-3.2-1B', 'CODI GPT-2']
    """
    hubs = published_hubs()
    figure = make_subplots(
        rows=1, cols=len(MODELS), horizontal_spacing=0.08, subplot_titles=list(MODELS.values())
    )
    figure.update_layout(
        style.base_layout(
            "The published column sums, per step that can see the thought",
            "the study's hubs are ct0 in LLaMA and ct1 in GPT-2; × = impossible (only its own step "
            "sees ct4)",
            width=1000,
            height=430,
            barmode="group",
            bargap=0.25,
            legend={"orientation": "h", "x": 1, "xanchor": "right", "y": -0.18, "yanchor": "top"},
        )
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    figure.update_layout(margin={"t": 110, "b": 90})
    series = (
        ("per_step", "per step", style.SELF_BAR_COLOUR),
        ("per_step_without_self", "per step, self-attention left out", style.LATER_COLOUR),
    )
    for place, model in enumerate(MODELS, 1):
        rows = hubs[hubs["model"] == model]
        known = [each for each in series if rows[each[0]].notna().any()]
        for column, name, colour in known:
            # A group of two bars is 0.75 wide, so their middles are at a quarter of that.
            side = 0.0 if len(known) == 1 else 0.1875 * (-1 if column == "per_step" else 1)
            score_bars(
                figure,
                rows["thought"].tolist(),
                rows[column].tolist(),
                colour,
                row=1,
                col=place,
                shift=side,
                name=name,
                showlegend=place == 1,
            )
        figure.update_xaxes(style.cell_axis("thought (key)"), row=1, col=place)
        top = 1.12 * rows["per_step"].max()
        figure.update_yaxes(style.value_axis("attention per step", range=[0, top]), col=place)
    return figure


def _add_quantity(
    figure: go.Figure,
    corrected: pd.DataFrame,
    place: int,
    quantity: str,
    digits: int,
    titles: tuple[str, str],
) -> None:
    """Bars of one quantity in panel `place`, with their intervals and the causal null."""
    rows = corrected[(corrected["quantity"] == quantity) & (corrected["at"] != "mean")]
    labels = [str(at).replace("→", "→<br>") for at in rows["at"]]
    own = [style.SELF_BAR_COLOUR if at == "0" else style.LATER_COLOUR for at in rows["at"]]
    values = rows["value"].to_numpy()
    high = np.fmax(rows["high"].to_numpy(), values)
    low = np.fmin(rows["low"].to_numpy(), values)
    null = rows["null"].to_numpy()
    top = max([value for value in [*high, *null] if value > 0], default=1.0)
    # A number stands on its interval, but not on the null's marker.
    beside = (null > high - 0.03 * top) & (null < high + 0.1 * top)
    tops = np.where(beside, null, high)
    score_bars(
        figure,
        labels,
        values.tolist(),
        own,
        row=1,
        col=place,
        tops=tops.tolist(),
        digits=digits,
        showlegend=False,
        error_y=error_bar(values, low, high, type="data", thickness=1.5, width=4, color=style.INK),
    )
    figure.add_scatter(
        x=labels,
        y=null,
        mode="markers",
        name=NULL_NAME,
        showlegend=place == 1,
        marker=NULL_MARKER,
        hovertemplate="%{x}: even spread %{y:.3f}<extra></extra>",
        row=1,
        col=place,
    )
    figure.update_xaxes(style.cell_axis(titles[0]), row=1, col=place)
    figure.update_yaxes(style.value_axis(titles[1], range=[0, 1.14 * top]), row=1, col=place)
