"""Figures of causal effects: which heads and edges an answer needs, and whether scores say so.

An effect is the mean change of the clean number's log-probability, in nats. Effects are drawn
on a symmetric diverging scale; a cell whose interval holds 0 is marked, not hidden.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import cmocean

from codi_lens.causal.dose import TOP, DoseResponse
from codi_lens.errors import InterventionError, needs
from codi_lens.head_names import check_rows
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.plots.drawing.whiskers import LEGEND, error_bar
from codi_lens.wording import fixed

EFFECT_SCALE: list[str] = list(cmocean.balance)
"""cmocean's "balance": diverging, equally light at both ends."""
UNIT = "effect (nats)"
_TABLE = "give what the sweep of this kind returns"


def causal_map(effects: pd.DataFrame) -> go.Figure:
    """The effect of ablating each head alone, layer by head.

    Args:
        effects: of `sweep_heads`.

    Raises:
        InterventionError: a table without heads.

    >>> effects = pd.DataFrame({"layer": 0, "head": [0, 1], "effect": [-2.0, 0.1],
    ...     "effect_low": [-3.0, -0.2], "effect_high": [-1.0, 0.3], "q": [0.01, 0.8]})
    >>> causal_map(effects).data[1].text.tolist()
    ['•<br>-2.00', '○<br>0.10']
    """
    needs(effects, "layer", "head", "effect", "effect_low", "effect_high", "q", advice=_TABLE)
    rows = [f"L{layer}" for layer in sorted(effects["layer"].unique())]
    columns = [f"H{head}" for head in sorted(effects["head"].unique())]
    table = effects.assign(
        row="L" + effects["layer"].astype(str), column="H" + effects["head"].astype(str)
    )
    return _matrix(
        table,
        rows,
        columns,
        title="What each head is needed for",
        subtitle="mean change of the clean number's log-probability when the head is ablated; "
        "<br>○ = 95 % interval holds 0, • = q < 0.05 (Benjamini-Hochberg), no mark: in between",
        axes=("layer", "head"),
    )


def edge_matrix(effects: pd.DataFrame) -> go.Figure:
    """The effect of knocking out the attention from each query to each key.

    Args:
        effects: of `sweep_edges`.

    Raises:
        InterventionError: a table without edges.

    >>> effects = pd.DataFrame({"query": ["ct0", "ct1"], "key": "bot", "effect": [-2.0, 0.1],
    ...     "effect_low": [-3.0, -0.2], "effect_high": [-1.0, 0.3], "q": [0.01, 0.8]})
    >>> figure = edge_matrix(effects)
    >>> figure.data[0].y, figure.data[0].z.tolist()
    (('ct0', 'ct1'), [[-2.0], [0.1]])
    """
    needs(effects, "query", "key", "effect", "effect_low", "effect_high", "q", advice=_TABLE)
    table = effects.assign(row=effects["query"], column=effects["key"])
    return _matrix(
        table,
        list(dict.fromkeys(effects["query"])),
        list(dict.fromkeys(effects["key"])),
        title="What each edge is needed for",
        subtitle="mean change of the clean number's log-probability when the edge is cut; "
        "<br>○ = 95 % interval holds 0, • = q < 0.05 (Benjamini-Hochberg), no mark: in between; "
        "× = not cut",
        axes=(style.QUERY_TITLE, style.KEY_TITLE),
    )


def dose_response_curves(dose: DoseResponse) -> go.Figure:
    """The answer's loss when the top k heads go, or alone stay, against random orders of heads.

    Args:
        dose: of `codi_lens.causal.dose.dose_response`.

    >>> curves = pd.DataFrame({"order": ["top", "random 1"], "k": 1, "effect": [-2.0, -0.5],
    ...     "effect_low": [-3.0, -1.0], "effect_high": [-1.0, 0.0]})
    >>> dose = DoseResponse(curves, 0.75, 0.2, 1.2, 0.5, n_random=1, keep=False, at_zero=0.0)
    >>> {trace.name: trace.y for trace in dose_response_curves(dose).data}
    {'random orders': (0.0, 0.5), "the ranking's top k": (0.0, 2.0)}
    """
    title, axis = "Are the top heads more necessary than others?", "heads ablated together (k)"
    if dose.keep:
        title, axis = "Do the top heads suffice?", "heads kept while all others are ablated (k)"
    figure = go.Figure(
        layout=style.base_layout(
            title,
            f"area between the curves {dose.area:.2f} nats [{dose.low:.2f}, {dose.high:.2f}], "
            f"permutation p = {dose.p:.3f}<br>random: orders of the same layers' heads, "
            f"{dose.n_random} drawn; bars: 95 % over problems",
            xaxis=style.value_axis(axis),
            yaxis=style.value_axis("loss (nats)", rangemode="tozero"),
            legend=LEGEND,
            width=640,
            height=460,
        )
    )
    orders = dict(list(dose.curves.groupby("order", sort=False)))
    for number, (name, curve) in enumerate(reversed(orders.items())):
        top = name == TOP
        figure.add_scatter(
            x=[0, *curve["k"]],
            y=[dose.at_zero, *(-curve["effect"])],
            error_y=error_bar(
                [dose.at_zero, *(-curve["effect"])],
                [dose.at_zero, *(-curve["effect_high"])],
                [dose.at_zero, *(-curve["effect_low"])],
                visible=top,
            ),
            mode="lines+markers" if top else "lines",
            line={"color": style.SELF_BAR_COLOUR if top else "#9aa2ab", "width": 2.5 if top else 1},
            name="the ranking's top k" if top else "random orders",
            legendgroup="top" if top else "random",
            showlegend=top or number == 0,
            hovertemplate="k = %{x}: %{y:.3f} nats<extra>" + str(name) + "</extra>",
        )
    return figure


def score_effect_scatter(
    heads: pd.DataFrame, effects: pd.DataFrame, associations: pd.DataFrame, metric: str
) -> go.Figure:
    """A score of every head against its causal effect, with the rank correlation.

    Args:
        heads: of `rank_heads`.
        effects: of `sweep_heads`.
        associations: of `codi_lens.causal.scores_vs_effects.score_vs_effect`.
        metric: which score.

    Raises:
        InterventionError: a score that a table does not have.

    >>> heads = pd.DataFrame({"name": ["L0H0", "L0H1"], "layer": 0, "hub": [0.1, 0.4]})
    >>> effects = heads.assign(effect=[-0.1, -2.0], effect_low=-3.0, effect_high=0.0)
    >>> found = {"metric": ["hub"], "rho": 1.0, "low": 1.0, "high": 1.0, "p": 0.5}
    >>> found |= {f"within_{name}": found[name] for name in ("rho", "low", "high", "p")}
    >>> figure = score_effect_scatter(heads, effects, pd.DataFrame(found), "hub")
    >>> figure.layout.xaxis.title.text, figure.data[0].y.tolist()
    ('hub score', [0.1, 2.0])
    """
    needs(heads, "name", "layer", metric, advice=_TABLE)
    needs(effects, "name", "effect", "effect_low", "effect_high", advice=_TABLE)
    found = associations[associations["metric"] == metric]
    if not len(found):
        raise InterventionError(f"The associations hold no metric {metric!r}.")
    row = found.iloc[0]
    joined = heads[["name", "layer", metric]].merge(
        effects[["name", "effect", "effect_low", "effect_high"]], on="name"
    )
    figure = go.Figure(
        layout=style.base_layout(
            f"Does the {metric} score predict the effect?",
            f"Spearman ρ = {row['rho']:.2f} [{row['low']:.2f}, {row['high']:.2f}], p = "
            f"{row['p']:.3f};<br>within layers {row['within_rho']:.2f} [{row['within_low']:.2f}, "
            f"{row['within_high']:.2f}], p = {row['within_p']:.3f}",
            xaxis=style.value_axis(f"{metric} score"),
            yaxis=style.value_axis("loss when ablated (nats)"),
            legend=LEGEND,
            width=640,
            height=460,
        )
    )
    for layer, some in joined.groupby("layer"):
        figure.add_scatter(
            x=some[metric],
            y=-some["effect"],
            error_y=error_bar(
                -some["effect"], -some["effect_high"], -some["effect_low"], thickness=1
            ),
            mode="markers",
            name=f"layer {layer}",
            text=some["name"],
            hovertemplate="%{text}: score %{x:.3f}, loss %{y:.3f} nats<extra></extra>",
        )
    return figure


def _matrix(
    table: pd.DataFrame,
    rows: list[str],
    columns: list[str],
    *,
    title: str,
    subtitle: str,
    axes: tuple[str, str],
) -> go.Figure:
    """Effects as cells, on a scale that is symmetric around 0."""

    check_rows(table, "row", "column", numbers=["effect", "effect_low", "effect_high", "q"])

    def wide(column: str) -> np.ndarray:
        pivoted = table.pivot(index="row", columns="column", values=column)
        return pivoted.reindex(index=rows, columns=columns).to_numpy(dtype=float)

    effect, low, high, q = (wide(name) for name in ("effect", "effect_low", "effect_high", "q"))
    limit = float(np.nanmax(np.abs(effect), initial=1e-12))
    unsure, missing = (low <= 0) & (high >= 0), np.isnan(effect)
    signs = np.where(missing, "×", np.where(unsure, "○", np.where(q < 0.05, "•", "")))
    figure = go.Figure(
        layout=style.base_layout(
            title,
            subtitle,
            xaxis=style.cell_axis(axes[1]),
            yaxis=style.cell_axis(axes[0], rows=True),
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=max(640, 190 + 56 * min(len(columns), 16)),
            height=190 + 52 * len(rows),
        )
    )
    figure.add_heatmap(
        x=columns,
        y=rows,
        z=effect,
        zmin=-limit,
        zmax=limit,
        colorscale=EFFECT_SCALE,
        colorbar={"title": {"text": UNIT, "side": "right"}, "thickness": 14, "outlinewidth": 0},
        customdata=np.stack([low, high, q], axis=-1),
        hovertemplate="%{y} %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "q = %{customdata[2]:.3f}<extra></extra>",
        xgap=1,
        ygap=1,
    )
    if len(columns) <= 16:
        labels = np.array(
            [
                f"{sign}<br>{fixed(value)}" if np.isfinite(value) else sign
                for value, sign in zip(effect.ravel(), signs.ravel(), strict=True)
            ]
        )
        effect = np.where(missing, 0, effect)  # on grey, as dark as on the middle of the scale
        figure.add_trace(cell_labels(labels, effect, rows, columns, EFFECT_SCALE, -limit, limit))
    return figure
