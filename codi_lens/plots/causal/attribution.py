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
    layer_marker,
    shift_of,
)
from codi_lens.stats import Association
from codi_lens.wording import p_text, with_bounds

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

    Each axis has its own range: estimates can be a thousand times smaller than what is measured,
    and on the range of the measurement all would lie on one line.

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
    spans = {name: _span(joined[name]) for name in ("attribution", "effect")}
    x, y = spans.values()
    equal = [max(x[0], y[0]), min(x[1], y[1])]
    figure = go.Figure(
        layout=style.base_layout(
            f"Do gradients predict the sweep? {method.capitalize()}",
            f"Spearman ρ = {with_bounds(association.rho, association.low, association.high)}, "
            f"{p_text(association.p)}, {association.n} heads; each axis has its own range;"
            "<br>bars: 95 % over problems, cut at the frame; dashed: estimate = measurement",
            xaxis=style.value_axis("estimated effect (nats)", range=x),
            yaxis=style.value_axis("measured effect (nats)", range=y),
            legend=LEGEND,
            width=620,
            least_width=320,
            height=560,
        )
    )
    figure.add_scatter(
        x=equal,
        y=equal,
        mode="lines",
        line={"color": style.MUTED, "dash": "dash", "width": 1},
        hoverinfo="skip",
        showlegend=False,
    )
    for number, (layer, some) in enumerate(joined.groupby("layer")):
        figure.add_scatter(
            x=some["attribution"],
            y=some["effect"],
            error_x=_whiskers(some, "attribution"),
            error_y=_whiskers(some, "effect"),
            mode="markers",
            marker=layer_marker(number),
            name=f"layer {layer}",
            text=some["name"],
            hovertemplate="%{text}: estimated %{x:.3f}, measured %{y:.3f} nats<extra></extra>",
        )
    # Each by its own range: by nats alone, only the larger kind would be named.
    size = pd.concat(
        [joined[name].abs() / (end[1] - end[0]) for name, end in spans.items()], axis=1
    )
    _label(figure, joined.loc[size.max(axis=1).nlargest(n_labels).index], x, y)
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
            least_width=320,
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


def _span(values: pd.Series) -> list[float]:
    """What an axis shows: the values and 0, with a margin."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = 0.08 * max(high - low, 1e-9)
    return [low - margin, high + margin]


def _label(figure: go.Figure, heads: pd.DataFrame, x: list[float], y: list[float]) -> None:
    """Name heads beside their points, in two columns whose labels keep their distance."""
    scale = 400 / (y[1] - y[0])  # pixels per nat, about
    middle = sum(x) / 2
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
