"""What writes the logit of the answer's number: heads as a map, all parts as bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from codi_lens.plots.causal.maps import EFFECT_SCALE
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.plots.drawing.whiskers import error_bar
from codi_lens.readout.attribution import answer_parts
from codi_lens.wording import fixed

_KINDS = {"embedding": "#6b3fa0", "attention": "#0072b2", "MLP": "#c2410c", "bias": style.MUTED}
_ROW, _NUMBERED = 24, 16  # pixels of a bar; heads up to which cells carry numbers


def answer_attribution(table: xr.Dataset, *, level: float = 0.95) -> go.Figure:
    """What each part adds to the logit of the answer's number, mean over problems.

    Args:
        table: of `codi_lens.readout.answer_attribution`.
        level: of the intervals.

    Raises:
        ProblemError: another table.

    >>> from codi_lens import CodiModel, readout
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = readout.answer_attribution(model, word_problems(4), progress=False)
    >>> figure = answer_attribution(table)
    >>> [trace.name for trace in figure.data if trace.type == "bar"]
    ['embedding', 'attention', 'MLP', 'bias']
    """
    parts = answer_parts(table, level=level)
    n, total = int(parts["n"].max()), float(table["total"].mean())
    against = "minus that of the runner-up" if table.attrs.get("against") == "runner-up" else ""
    figure = make_subplots(
        rows=1,
        cols=2,
        column_widths=[0.5, 0.5],
        horizontal_spacing=0.19,
        subplot_titles=["by head (logits)", "by part"],
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    for trace in _heads(table):
        figure.add_trace(trace, row=1, col=1)
    labels = [
        _LABELS[kind].format(part) for kind, part in zip(parts["kind"], parts["part"], strict=True)
    ]
    parts = parts.assign(label=labels)
    for kind, colour in _KINDS.items():
        some = parts[parts["kind"] == kind]
        figure.add_bar(
            x=some["mean"],
            y=some["label"],
            orientation="h",
            name=kind,
            marker_color=colour,
            error_x=error_bar(some["mean"], some["low"], some["high"], thickness=1.4, width=3),
            customdata=some[["low", "high"]],
            hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]"
            "<extra></extra>",
            showlegend=False,
            row=1,
            col=2,
        )
    figure.update_layout(
        style.base_layout(
            "What writes the answer's number",
            f"logit of the number's first token {against}: {total:.2f} on average over {n} "
            f"problems;<br>bars add up to it, with {level:.0%} intervals over problems. What a "
            "part writes, the answer need not rely on",
            width=1000,
            height=170 + max(_ROW * len(parts), 28 * table.sizes["layer"]),
        )
    )
    figure.update_layout(margin_t=128)
    figure.update_xaxes(style.cell_axis("head"), col=1)
    figure.update_yaxes(style.cell_axis("", rows=True), col=1)
    figure.update_xaxes(style.value_axis("logits", zeroline=True), col=2)
    figure.update_yaxes(style.cell_axis("", rows=True, tick_size=style.SMALL_FONT_SIZE), col=2)
    return figure


_LABELS = {
    "embedding": "embedding: {}",
    "attention": "heads, from {}",
    "MLP": "MLP {}",
    "bias": "bias: {}",
}


def _heads(table: xr.Dataset) -> list[Any]:
    """The map of heads, and its numbers where they fit."""
    values = table["by_head"].mean("problem").transpose("layer", "head").values
    rows = [f"L{layer}" for layer in table["layer"].values]
    columns = [f"H{head}" for head in table["head"].values]
    limit = float(np.nanmax(np.abs(values), initial=1e-12))
    heat = go.Heatmap(
        z=values,
        x=columns,
        y=rows,
        zmin=-limit,
        zmax=limit,
        colorscale=EFFECT_SCALE,
        showscale=False,
        xgap=1,
        ygap=1,
        hovertemplate="%{y}%{x}: %{z:.3f} logits<extra></extra>",
    )
    if len(columns) > _NUMBERED:
        return [heat.update(showscale=True, colorbar=style.colorbar_of("logits", x=0.42))]
    texts = np.array([fixed(float(value)) for value in values.flat]).reshape(values.shape)
    return [heat, cell_labels(texts, values, rows, columns, EFFECT_SCALE, -limit, limit)]
