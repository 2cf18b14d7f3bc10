"""Effects of named interventions as points with intervals, and of pairs of heads as a matrix."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.errors import InterventionError, needs
from codi_lens.plots.causal.maps import EFFECT_SCALE, UNIT
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.plots.drawing.whiskers import LEGEND, SERIES_COLOURS, error_bar, shift_of
from codi_lens.wording import fixed

_ROW, _AROUND = 30, 130
_LINE = 26  # characters of the axis' title, so that a phone has room for it
_MORE = (
    "<br>median %{customdata[3]:.3f}; at least %{customdata[5]:g} nats on %{customdata[4]:.0%} of "
    "problems"
)


def effect_points(
    effects: pd.DataFrame,
    label: str,
    series: str | None = None,
    *,
    column: str = "effect",
    title: str,
    subtitle: str = "",
    axis: str = UNIT,
) -> go.Figure:
    """One effect per label, with its interval; several series stand beside each other.

    Args:
        effects: with the columns `label`, `series`, and `column` with its `_low` and `_high`.
        label: the column of the rows' names.
        series: the column that tells series apart; None for a single one.
        column: what is drawn.
        title: of the figure.
        subtitle: of the figure.
        axis: title of the value axis.

    Raises:
        InterventionError: a column that the table does not have, or more series than colours.

    >>> effects = pd.DataFrame({"heads": ["L0H0", "L0H1"], "effect": [-2.0, -0.1],
    ...     "effect_low": [-3.0, -0.5], "effect_high": [-1.0, 0.2]})
    >>> figure = effect_points(effects, "heads", title="What two heads are needed for")
    >>> figure.layout.yaxis.ticktext, figure.data[0].error_x.array.round(2).tolist()
    (('L0H0', 'L0H1'), [1.0, 0.3])
    """
    low, high = f"{column}_low", f"{column}_high"
    needs(effects, label, column, low, high, *([] if series is None else [series]))
    labels = list(dict.fromkeys(effects[label]))
    kinds = _kinds(effects, series)
    figure = go.Figure(
        layout=style.base_layout(
            title,
            subtitle,
            xaxis=style.value_axis("<br>".join(wrap(axis, _LINE)), zeroline=True),
            yaxis={
                **style.value_axis(""),
                "tickvals": list(range(len(labels))),
                "ticktext": labels,
                "range": [len(labels) - 0.5, -0.5],
                "zeroline": False,
            },
            legend=LEGEND,
            width=760,
            least_width=320,
            height=_AROUND
            + 20 * (1 + subtitle.count("<br>"))
            + _ROW * len(labels) * _spread(kinds),
        )
    )
    more = ["effect_median", "affected", "min_effect"]
    more = more if column == "effect" and set(more) <= set(effects) else []
    for place, kind in enumerate(kinds):
        some = effects if kind is None else effects[effects[series] == kind]
        figure.add_scatter(
            x=some[column].to_numpy(dtype=float),
            y=[labels.index(name) + shift_of(place, len(kinds)) for name in some[label]],
            error_x=error_bar(some[column], some[low], some[high], thickness=1.6, width=4),
            mode="markers",
            marker={"color": SERIES_COLOURS[place], "size": 8},
            name="" if kind is None else str(kind),
            showlegend=kind is not None,
            customdata=some[[label, low, high, *more]],
            hovertemplate="%{customdata[0]}: %{x:.3f} [%{customdata[1]:.3f}, %{customdata[2]:.3f}]"
            + (_MORE if more else "")
            + f"<extra>{'' if kind is None else kind}</extra>",
        )
    return figure


def redundancy_matrix(pairs: pd.DataFrame) -> go.Figure:
    """How much more, or less, two heads cost together than the sum of each alone, in logits.

    Args:
        pairs: of `codi_lens.causal.redundancy.redundancy`. The diagonal shows the effects alone.

    Raises:
        InterventionError: a table without interactions.

    >>> pairs = pd.DataFrame({"a": "L0H0", "b": ["L0H1", "L1H0"], "logit_a": -1.0,
    ...     "logit_b": [-0.5, -0.2], "logit_interaction": [-0.8, 0.1], "logit_q": [0.01, 0.7],
    ...     "logit_interaction_low": [-1.0, -0.1], "logit_interaction_high": [-0.6, 0.3]})
    >>> figure = redundancy_matrix(pairs)
    >>> list(figure.data[-1].text[::3])
    ['alone<br>−1.00', '•<br>−0.80', '○<br>0.10']
    """
    needs(pairs, "logit_interaction", advice="give `redundancy`'s")
    names = list(dict.fromkeys([*pairs["a"], *pairs["b"]]))
    place = {name: i for i, name in enumerate(names)}
    shape = (len(names), len(names))
    interaction = np.full(shape, np.nan)
    text = np.full(shape, "", dtype=object)
    for row in pairs.to_dict("records"):
        i, j = place[row["a"]], place[row["b"]]
        value = row["logit_interaction"]
        unsure = row["logit_interaction_low"] <= 0 <= row["logit_interaction_high"]
        sign = "○" if unsure else "•" if row["logit_q"] < 0.05 else ""
        interaction[j, i] = value
        text[j, i] = f"{sign}<br>{fixed(value)}"
        for k, effect in ((i, row["logit_a"]), (j, row["logit_b"])):
            text[k, k] = f"alone<br>{fixed(effect)}"
    limit = float(np.nanmax(np.abs(interaction), initial=1e-12))
    figure = go.Figure(
        layout=style.base_layout(
            "Do the heads cover for each other?",
            "joint effect on the logit difference minus the sum of both alone: below 0 the pair "
            "costs more than its parts<br>(redundant), above 0 less (both break the same thing); "
            "○ = 95 % interval holds 0, • = q < 0.05, no mark: in between",
            xaxis=style.cell_axis(""),
            yaxis=style.cell_axis("", rows=True),
            width=760,
            height=180 + 52 * len(names),
        )
    )
    cells: dict[str, Any] = {"xgap": 1, "ygap": 1, "x": names, "y": names}
    figure.add_heatmap(
        z=interaction,
        zmin=-limit,
        zmax=limit,
        colorscale=EFFECT_SCALE,
        colorbar={"title": {"text": "interaction (logits)", "side": "right"}, "thickness": 14},
        hovertemplate="%{x} and %{y}: %{z:.3f} logits<extra></extra>",
        **cells,
    )
    figure.add_heatmap(
        z=np.where(np.eye(len(names)), 0.0, np.nan),
        colorscale=[[0, "#f0f2f5"], [1, "#f0f2f5"]],
        showscale=False,
        hoverinfo="skip",
        **cells,
    )
    values = np.where(np.isfinite(interaction), interaction, 0)
    figure.add_trace(cell_labels(text, values, names, names, EFFECT_SCALE, -limit, limit))
    return figure


def _kinds(effects: pd.DataFrame, series: str | None) -> list[Any]:
    """The names of the series in their order; a None where there is a single one."""
    kinds = [None] if series is None else list(dict.fromkeys(effects[series]))
    if len(kinds) > len(SERIES_COLOURS):
        raise InterventionError(
            f"There are {len(kinds)} series; a figure holds up to {len(SERIES_COLOURS)}."
        )
    return kinds


def _spread(kinds: list[Any]) -> int:
    """Rows with several series need more room."""
    return 1 if len(kinds) < 3 else 2
