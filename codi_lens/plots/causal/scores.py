"""Which scores of heads go with their effects, beside the baseline and the ceiling."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.errors import needs
from codi_lens.plots.causal.effects import effect_points
from codi_lens.plots.drawing.whiskers import SERIES_COLOURS

_SERIES = {"": "over all heads", "within_": "within layers"}
_ENDS = {"rho": "", "low": "_low", "high": "_high"}


def rankings_figure(table: pd.DataFrame, ceilings: Mapping[str, float]) -> go.Figure:
    """Spearman's rho of every score with the loss, over all heads and within layers.

    Args:
        table: of `codi_lens.causal.scores_vs_effects.rankings_vs_effect`, with a column `label`.
        ceilings: what a score that equals the true effects is expected to reach, by the prefix of
            the columns ("" and "within_"); NaN where it is not known.

    Raises:
        InterventionError: a column that the table does not have.

    >>> row = {"label": ["hub"], "rho": 0.5, "low": 0.1, "high": 0.8}
    >>> row |= {f"within_{name}": row[name] for name in ("rho", "low", "high")}
    >>> figure = rankings_figure(pd.DataFrame(row), {"": 0.9, "within_": float("nan")})
    >>> [trace.name for trace in figure.data], figure.layout.shapes[0].x0
    (['over all heads', 'within layers'], 0.9)
    """
    columns = [f"{prefix}{name}" for prefix in _SERIES for name in ("rho", "low", "high")]
    needs(table, "label", *columns)
    drawn = pd.concat(
        [
            pd.DataFrame(
                {"label": table["label"], "where": where}
                | {f"rho{end}": table[f"{prefix}{name}"] for name, end in _ENDS.items()}
            )
            for prefix, where in _SERIES.items()
        ]
    ).dropna(subset=["rho"])
    figure = effect_points(
        drawn,
        "label",
        "where",
        column="rho",
        title="Which score predicts the loss?",
        subtitle="Spearman's ρ with 95 % bootstrap intervals over heads;<br>dashed: what a score "
        "equal to the true effects is expected to reach",
        axis="Spearman ρ with the loss when ablated",
    )
    for colour, ceiling in zip(SERIES_COLOURS, (ceilings[each] for each in _SERIES), strict=False):
        if np.isfinite(ceiling):
            figure.add_vline(x=ceiling, line={"color": colour, "width": 1.5, "dash": "dash"})
    figure.update_layout(xaxis_range=[-1.02, 1.02])
    return figure
