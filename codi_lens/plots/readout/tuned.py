"""How far each layer is from what the model ends with, to the logit lens and to a tuned one."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from codi_lens.errors import ProblemError, needs
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.whiskers import LEGEND, SERIES_COLOURS


def tuned_lens_losses(training: pd.DataFrame) -> go.Figure:
    """Held-out divergence from the final distribution, layer by layer.

    Args:
        training: of a `codi_lens.readout.TunedLens`.

    Raises:
        ProblemError: another table.

    >>> training = pd.DataFrame({"layer": [0, 1], "logit_lens": [2.0, 1.0],
    ...     "tuned_lens": [0.5, 0.2], "n_problems": 8, "n_states": 104})
    >>> [trace.name for trace in tuned_lens_losses(training).data]
    ['logit lens', 'tuned lens']
    """
    columns = ("layer", "logit_lens", "tuned_lens", "n_problems", "n_states")
    advice = "give the `training` of a tuned lens"
    needs(training, *columns, advice=advice, error=ProblemError)
    first = training.iloc[0]
    figure = go.Figure(
        layout=style.base_layout(
            "How early the answer of each state is settled",
            "divergence from the final distribution at the same position, mean over "
            f"{int(first['n_states'])} states<br>of {int(first['n_problems'])} problems that "
            "played no part in training; 0 = the layer says what the model will say",
            xaxis=style.value_axis("after layer", dtick=max(1, len(training) // 12)),
            yaxis=style.value_axis("divergence (nats)", rangemode="tozero"),
            legend=LEGEND,
            width=720,
            height=420,
        )
    )
    for place, column in enumerate(("logit_lens", "tuned_lens")):
        figure.add_scatter(
            x=training["layer"],
            y=training[column],
            mode="lines+markers",
            name=column.replace("_", " "),
            line={"color": SERIES_COLOURS[place], "dash": "dot" if place == 0 else "solid"},
            marker={"size": 8, "symbol": "diamond" if place == 0 else "circle"},
            hovertemplate="L%{x}: %{y:.3f} nats<extra>%{fullData.name}</extra>",
        )
    return figure
