"""Figures of rankings held against effects: top heads against random ones, scores and losses."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from codi_lens.causal.dose import TOP, DoseResponse
from codi_lens.errors import InterventionError, needs
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import LEGEND, error_bar, layer_marker
from codi_lens.wording import p_text, with_bounds

_TABLE = "give what the sweep of this kind returns"


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
            f"area between the curves {with_bounds(dose.area, dose.low, dose.high)} nats, "
            f"permutation {p_text(dose.p)}<br>random: orders of the same layers' heads, "
            f"{dose.n_random} drawn; bars: 95 % over problems",
            xaxis=style.value_axis(axis),
            yaxis=style.value_axis("loss (nats)", rangemode="tozero"),
            legend=LEGEND,
            width=640,
            least_width=320,
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
        heads: of `rank_heads`, or of `output_changes`.
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
    name = metric.replace("_", " ") if metric == "output_change" else f"{metric} score"
    scopes = list(dict.fromkeys(effects["scope"])) if "scope" in effects else []
    where = f" at {scopes[0]}" if len(scopes) == 1 else ""
    joined = heads[["name", "layer", metric]].merge(
        effects[["name", "effect", "effect_low", "effect_high"]], on="name"
    )
    figure = go.Figure(
        layout=style.base_layout(
            f"Does the {name} predict the effect?",
            f"Spearman ρ = {with_bounds(row['rho'], row['low'], row['high'])}, "
            f"{p_text(row['p'])};<br>within layers "
            f"{with_bounds(row['within_rho'], row['within_low'], row['within_high'])}, "
            f"{p_text(row['within_p'])}",
            xaxis=style.value_axis(name),
            yaxis=style.value_axis(f"loss when ablated{where} (nats)"),
            legend=LEGEND,
            width=640,
            least_width=320,
            height=460,
        )
    )
    for number, (layer, some) in enumerate(joined.groupby("layer")):
        figure.add_scatter(
            x=some[metric],
            y=-some["effect"],
            error_y=error_bar(
                -some["effect"], -some["effect_high"], -some["effect_low"], thickness=1
            ),
            mode="markers",
            marker=layer_marker(number),
            name=f"layer {layer}",
            text=some["name"],
            hovertemplate="%{text}: score %{x:.3f}, loss %{y:.3f} nats<extra></extra>",
        )
    return figure
