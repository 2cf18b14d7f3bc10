"""Figures of attributions: what gradients estimate beside what interventions measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.errors import InterventionError, needs
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import (
    LEGEND,
    SERIES_COLOURS,
    add_points,
    error_bar,
    shift_of,
)
from codi_lens.stats import Association

LAYER_COLOURS = ("#0072b2", "#c2410c", "#00795b", "#a3367c", "#6b3fa0", "#8a6d00")
"""Of layers in turn; a layer's marker changes where the colours start again."""
_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
_LINE = 17  # pixels between the middles of two labels


def attribution_scatter(
    attributions: pd.DataFrame,
    effects: pd.DataFrame,
    association: Association,
    *,
    method: str = "attribution",
    n_labels: int = 6,
) -> go.Figure:
    """The estimated effect of every head against the measured one; on the line they are equal.

    Args:
        attributions: of `attribute_heads`.
        effects: of `sweep_heads`, on the same problems.
        association: of the two, from `compare_with_exact`.
        method: what the estimates are called.
        n_labels: how many heads are named: those with the largest effects or attributions.

    Raises:
        InterventionError: a table of another kind, or no head in both.

    >>> heads = pd.DataFrame({"name": ["L0H0", "L0H1"], "layer": 0})
    >>> ends = {"attribution_low": -1.0, "attribution_high": 0.0}
    >>> estimated = heads.assign(attribution=[-0.5, -0.2], **ends)
    >>> measured = heads.assign(effect=[-0.6, -0.1], effect_low=-1.0, effect_high=0.0)
    >>> figure = attribution_scatter(estimated, measured, Association(1.0, 1.0, 1.0, 0.5, 2))
    >>> figure.data[1].name, figure.data[1].text.tolist()
    ('layer 0', ['L0H0', 'L0H1'])
    """
    joined = _both(attributions, effects)
    both = joined[["attribution", "effect"]].to_numpy()
    low, high = min(0.0, float(both.min())), max(0.0, float(both.max()))
    margin = 0.08 * max(high - low, 1e-9)
    span = [low - margin, high + margin]
    figure = go.Figure(
        layout=style.base_layout(
            f"Do gradients predict the sweep? {method.capitalize()}",
            f"Spearman ρ = {association.rho:.2f} [{association.low:.2f}, {association.high:.2f}], "
            f"p = {association.p:.4f}, {association.n} heads;<br>bars: 95 % over problems, "
            "cut at the frame; dashed: estimate = measurement",
            xaxis=style.value_axis("estimated effect (nats)", range=span),
            yaxis=style.value_axis("measured effect (nats)", range=span),
            legend=LEGEND,
            width=620,
            height=560,
        )
    )
    figure.add_scatter(
        x=span,
        y=span,
        mode="lines",
        line={"color": style.MUTED, "dash": "dash", "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for number, (layer, some) in enumerate(joined.groupby("layer")):
        colour = LAYER_COLOURS[number % len(LAYER_COLOURS)]
        figure.add_scatter(
            x=some["attribution"],
            y=some["effect"],
            error_x=_whiskers(some, "attribution"),
            error_y=_whiskers(some, "effect"),
            mode="markers",
            marker={
                "color": colour,
                "size": 9,
                "symbol": _SYMBOLS[number // len(LAYER_COLOURS) % len(_SYMBOLS)],
                "line": {"color": "white", "width": 1},
            },
            name=f"layer {layer}",
            text=some["name"],
            hovertemplate="%{text}: estimated %{x:.3f}, measured %{y:.3f} nats<extra></extra>",
        )
    size = joined[["attribution", "effect"]].abs().max(axis=1)
    _label(figure, joined.loc[size.nlargest(n_labels).index], span)
    return figure


def thought_attributions_figure(
    attributions: Mapping[str, pd.DataFrame], effects: pd.DataFrame, mode: str = "resample"
) -> go.Figure:
    """The effect of replacing each thought, as measured and as estimated.

    Args:
        attributions: tables of `attribute_thoughts`, by what they are called.
        effects: of `sweep_thoughts`, on the same problems.
        mode: which mode of the tables.

    Raises:
        InterventionError: a table of another kind, or one without this mode.

    >>> thoughts = pd.DataFrame({"thought": ["ct0", "ct1"], "mode": "resample"})
    >>> measured = thoughts.assign(effect=[-2.0, -0.1], effect_low=-3.0, effect_high=0.0)
    >>> guess = thoughts.assign(attribution=[-1.0, 0.0], attribution_low=-2.0, attribution_high=0.0)
    >>> figure = thought_attributions_figure({"gradients": guess}, measured)
    >>> [trace.name for trace in figure.data], figure.layout.xaxis.ticktext
    (['measured', 'gradients'], ('ct0', 'ct1'))
    """
    named = {"measured": effects.rename(columns={"effect": "attribution"}), **attributions}
    tables: dict[str, pd.DataFrame] = {}
    for name, table in named.items():
        needs(table, "thought", "mode", "attribution", advice=_TABLES)
        ends = {f"{kind}_{end}": end for kind in ("effect", "attribution") for end in _ENDS}
        tables[name] = table[table["mode"] == mode].rename(columns=ends).reset_index(drop=True)
        if not len(tables[name]):
            raise InterventionError(f"The table {name!r} holds no thought in mode {mode!r}.")
    thoughts = list(tables["measured"]["thought"])
    figure = go.Figure(
        layout=style.base_layout(
            "Do gradients predict what each thought is needed for?",
            f"change of the clean number's log-probability when the thought is replaced ({mode});"
            "<br>means with 95 % intervals over problems",
            xaxis=style.value_axis(
                "thought",
                tickvals=list(range(len(thoughts))),
                ticktext=thoughts,
                showgrid=False,
                zeroline=False,
            ),
            yaxis=style.value_axis("effect (nats)"),
            legend=LEGEND,
            width=620,
            height=460,
        )
    )
    for place, (name, table) in enumerate(tables.items()):
        ordered = table.set_index("thought").loc[thoughts].reset_index()
        shift = shift_of(place, len(tables))
        colour = SERIES_COLOURS[place % len(SERIES_COLOURS)]
        add_points(figure, ordered, "attribution", name, colour, shift)
    return figure


_ENDS = ("low", "high")
_TABLES = "give attributions and the sweep of the same kind"


def _both(attributions: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """The heads of both tables, with what is estimated and what is measured of each."""
    estimated = ["name", "attribution", "attribution_low", "attribution_high", "layer"]
    measured = ["name", "effect", "effect_low", "effect_high"]
    needs(attributions, *estimated, advice=_TABLES)
    needs(effects, *measured, advice=_TABLES)
    joined = attributions[estimated].merge(effects[measured], on="name")
    if not len(joined):
        raise InterventionError("No head is in both tables; give the attributions and the sweep.")
    return joined


def _whiskers(table: pd.DataFrame, column: str) -> dict[str, Any]:
    ends = table[f"{column}_low"], table[f"{column}_high"]
    return error_bar(table[column], *ends, thickness=1, width=3)


def _label(figure: go.Figure, heads: pd.DataFrame, span: list[float]) -> None:
    """Name heads beside their points, in two columns whose labels keep their distance."""
    scale = 400 / (span[1] - span[0])  # pixels per nat, about
    middle = sum(span) / 2
    for left in (True, False):
        # A label stands on the inner side of its point, where there is room.
        some = heads[(heads["attribution"] > middle) == left].sort_values("effect")
        natural = some["effect"].to_numpy() * scale
        placed = _spread(natural)
        for (_, row), at, was in zip(some.iterrows(), placed, natural, strict=True):
            figure.add_annotation(
                x=row["attribution"],
                y=row["effect"],
                ax=-46 if left else 46,
                ay=float(was - at),
                text=str(row["name"]),
                xanchor="right" if left else "left",
                arrowwidth=1,
                arrowhead=0,
                arrowcolor=style.MUTED,
                standoff=6,
                font={"size": style.SMALL_FONT_SIZE, "color": style.INK},
                bgcolor="rgba(255,255,255,0.8)",
            )


def _spread(heights: np.ndarray) -> np.ndarray:
    """Heights in rising order, moved apart until each pair is a line apart, lower ones first."""
    placed = heights.astype(float).copy()
    for i in range(len(placed) - 2, -1, -1):
        placed[i] = min(placed[i], placed[i + 1] - _LINE)
    return placed
