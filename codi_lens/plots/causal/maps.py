"""Maps of causal effects: which heads, where in a run, and which edges an answer needs.

An effect is the mean change of the clean number's log-probability, in nats. Effects are drawn
on a symmetric diverging scale; a cell whose interval holds 0 is marked, not hidden.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.colors import cmocean
from plotly.subplots import make_subplots

from codi_lens.causal.effects import needed
from codi_lens.causal.means import MIN_EFFECT
from codi_lens.errors import InterventionError, needs
from codi_lens.head_names import check_rows
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.wording import fixed, p_text

EFFECT_SCALE: list[str] = [*cmocean.balance[:5], "rgb(247,247,247)", *cmocean.balance[7:]]
"""cmocean's "balance", equally dark at both ends. Its own middle is the grey of cells that are not
there, so nothing is lighter here."""
UNIT = "effect (nats)"
_TABLE = "give what the sweep of this kind returns"
_COLUMNS = ("effect", "effect_low", "effect_high", "effect_median", "affected", "beyond_q")
_COLUMNS += ("min_effect", "matters")
_ABREAST, _BESIDE, _BETWEEN = 3, 44, 60  # panels; pixels beside and between them
_HOVER = (
    "%{y} %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<br>median "
    "%{customdata[2]:.3f}; at least %{customdata[4]:g} nats on %{customdata[3]:.0f} % of problems"
    "<br>%{customdata[5]} that the mean is more<extra></extra>"
)


def causal_map(effects: pd.DataFrame) -> go.Figure:
    """The effect of ablating each head alone, layer by head; a panel for each scope of several.

    Args:
        effects: of `sweep_heads`.

    Raises:
        InterventionError: a table without heads or scopes, or without rows.

    >>> effects = pd.DataFrame({"layer": 0, "head": [0, 1], "effect": [-2.0, 0.1],
    ...     "effect_low": [-3.0, -0.2], "effect_high": [-1.0, 0.3], "effect_median": [-1.5, 0.0],
    ...     "affected": [0.9, 0.1], "min_effect": 0.1, "beyond_q": [0.01, 1.0],
    ...     "matters": [True, False], "scope": "thinking"})
    >>> causal_map(effects).data[1].text.tolist()
    ['•<br>−2.00', '○<br>0.10']
    """
    _check(effects, "layer", "head", "scope")
    rows = [f"L{layer}" for layer in sorted(effects["layer"].unique())]
    columns = [f"H{head}" for head in sorted(effects["head"].unique())]
    table = effects.assign(
        row="L" + effects["layer"].astype(str), column="H" + effects["head"].astype(str)
    )
    scopes = list(dict.fromkeys(effects["scope"]))
    if len(scopes) > 1:
        return _panels(table, scopes, rows, columns)
    return _matrix(
        table,
        rows,
        columns,
        title=f"What each head is needed for at {', '.join(scopes)}",
        subtitle="mean change of the clean number's log-probability when the head is ablated; "
        f"<br>{_marks(effects)}",
        axes=("layer", "head"),
    )


def edge_matrix(effects: pd.DataFrame) -> go.Figure:
    """The effect of knocking out the attention from each query to each key.

    Args:
        effects: of `sweep_edges`.

    Raises:
        InterventionError: a table without edges, or without rows.

    >>> effects = pd.DataFrame({"query": ["ct0", "ct1"], "key": "bot", "effect": [-2.0, 0.1],
    ...     "effect_low": [-3.0, -0.2], "effect_high": [-1.0, 0.3], "effect_median": [-1.5, 0.0],
    ...     "affected": [0.9, 0.1], "min_effect": 0.1, "beyond_q": [0.01, 1.0],
    ...     "matters": [True, False]})
    >>> figure = edge_matrix(effects)
    >>> figure.data[0].y, figure.data[0].z.tolist()
    (('ct0', 'ct1'), [[-2.0], [0.1]])
    """
    _check(effects, "query", "key")
    table = effects.assign(row=effects["query"], column=effects["key"])
    return _matrix(
        table,
        list(dict.fromkeys(effects["query"])),
        list(dict.fromkeys(effects["key"])),
        title="What each edge is needed for",
        subtitle="mean change of the clean number's log-probability when the edge is cut; "
        f"<br>{_marks(effects)}; × = not cut",
        axes=(style.QUERY_TITLE, style.KEY_TITLE),
    )


def _check(effects: pd.DataFrame, *columns: str) -> None:
    """Refuse a table that lacks columns, or has no row."""
    needs(effects, *columns, *_COLUMNS, advice=_TABLE)
    if not len(effects):
        raise InterventionError(f"The table has no row; {_TABLE}.")


def _panels(
    table: pd.DataFrame, scopes: list[str], rows: list[str], columns: list[str]
) -> go.Figure:
    """The map of every scope, on one scale; three side by side."""
    check_rows(table, "scope", "row", "column", numbers=_COLUMNS)
    n_rows, limit = -(-len(scopes) // _ABREAST), _limit(table)
    cell = 26 if len(columns) <= 8 else 18
    across = _ABREAST * (cell * len(columns) + _BESIDE)
    down = n_rows * (cell * len(rows) + _BETWEEN) - _BETWEEN
    groups = {scope: table[table["scope"] == scope] for scope in scopes}
    figure = make_subplots(
        rows=n_rows,
        cols=_ABREAST,
        subplot_titles=[f"{each}: {len(needed(some))} needed" for each, some in groups.items()],
        horizontal_spacing=_BESIDE / across,
        vertical_spacing=_BETWEEN / down if n_rows > 1 else 0,
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    for place, some in enumerate(groups.values()):
        line, column = divmod(place, _ABREAST)
        at: dict[str, Any] = {"row": line + 1, "col": column + 1}
        effect, notes, signs = _cells(some, rows, columns)
        cells = {"x": columns, "y": rows, "z": effect, "xgap": 1, "ygap": 1}
        figure.add_heatmap(
            **cells, coloraxis="coloraxis", customdata=notes, hovertemplate=_HOVER, **at
        )
        marks = np.where(signs == "•", signs, "")
        labels = cell_labels(marks, effect, rows, columns, EFFECT_SCALE, -limit, limit)
        figure.add_trace(labels, **at)
    layout = style.base_layout(
        "What each head is needed for, by where it is ablated",
        "mean change of the clean number's log-probability when the head is ablated there alone;"
        f"<br>{_marks(table).partition(',')[0]}; needed: what matters and costs",
        coloraxis={"colorscale": EFFECT_SCALE, "cmin": -limit, "cmax": limit}
        | {"colorbar": style.colorbar_of(UNIT)},
        width=across + 150,
        least_width=across + 150,
        height=down + 180,
    )
    figure.update_layout(layout).update_layout(margin={"t": 120, "b": 60, "l": 60, "r": 90})
    size = style.SMALL_FONT_SIZE - (2 if cell < 20 else 0)
    figure.update_xaxes(style.cell_axis("", tick_size=size))
    figure.update_yaxes(style.cell_axis("", rows=True, tick_size=size))
    for place in range(len(scopes), n_rows * _ABREAST):
        line, column = divmod(place, _ABREAST)
        figure.update_xaxes(visible=False, row=line + 1, col=column + 1)
        figure.update_yaxes(visible=False, row=line + 1, col=column + 1)
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

    check_rows(table, "row", "column", numbers=_COLUMNS)
    effect, notes, signs = _cells(table, rows, columns)
    limit, missing = _limit(table), np.isnan(effect)
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
        customdata=notes,
        hovertemplate=_HOVER,
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


def _cells(
    table: pd.DataFrame, rows: list[str], columns: list[str]
) -> tuple[Float[np.ndarray, "row column"], np.ndarray, np.ndarray]:
    """Effects as a matrix, what a pointer says of each, and its mark."""

    def wide(column: str) -> Float[np.ndarray, "row column"]:
        pivoted = table.pivot(index="row", columns="column", values=column)
        return pivoted.reindex(index=rows, columns=columns).to_numpy(dtype=float)

    effect, low, high = (wide(name) for name in _COLUMNS[:3])
    notes = [low, high, wide("effect_median"), 100 * wide("affected"), wide("min_effect")]
    q = np.array([[p_text(each, "q") for each in row] for row in wide("beyond_q")])
    clear = np.where(wide("matters") == 1, "•", "")
    unsure = (low <= 0) & (high >= 0)
    signs = np.where(np.isnan(effect), "×", np.where(unsure, "○", clear))
    return effect, np.stack([*notes, q], axis=-1, dtype=object), signs


def _limit(table: pd.DataFrame) -> float:
    """The end of the scale that is symmetric around 0."""
    return float(np.nanmax(np.abs(table["effect"].to_numpy(dtype=float)), initial=1e-12))


def _marks(effects: pd.DataFrame) -> str:
    """What the marks on cells say."""
    least = effects["min_effect"].iloc[0] if len(effects) else MIN_EFFECT
    return (
        f"• = matters: more than {least:g} nats (q < 0.05), ○ = 95 % interval holds 0,<br>"
        "no mark: in between"
    )
