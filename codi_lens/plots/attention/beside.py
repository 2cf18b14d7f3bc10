"""One head's attention in several problems, side by side on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap

import plotly.graph_objects as go
import xarray as xr

from codi_lens.errors import AttentionError
from codi_lens.head_names import head_name
from codi_lens.interventions.own_edges import Edge
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import needed_outlines, pattern_panels, self_outlines
from codi_lens.plots.drawing.views import cells

_MOST, _LINE = 3, 62


def patterns_beside(
    runs: Mapping[str, xr.DataArray],
    layer: int,
    head: int,
    needed: Mapping[str, Sequence[Edge]] | None = None,
) -> go.Figure:
    """One head's attention over the whole run in up to three problems; needed edges are outlined.

    Args:
        runs: by heading (the question, say), attention (layer, head, query, key) of one problem.
        layer: the layer, from 0.
        head: the head, from 0.
        needed: by heading, the edges that the problem needs (`WordProblem.edges`); those from the
            answer are drawn in the row `anchor`.

    Raises:
        AttentionError: no run or more than three, or attention with other dims or labels.
        PositionError: there is no such layer or head.

    >>> from codi_lens.attention.example import two_heads
    >>> one = two_heads().mean("problem")
    >>> figure = patterns_beside({"first": one, "second": one}, 0, 1, {"first": [("ct2", "ct0")]})
    >>> colours = [shape.line.color for shape in figure.layout.shapes]
    >>> [note.text for note in figure.layout.annotations[:2]], colours.count("#12a150")
    (['first', 'second'], 1)
    """
    if not 1 <= len(runs) <= _MOST:
        raise AttentionError(f"patterns_beside draws 1 to {_MOST} runs, not {len(runs)}.")
    shown = {heading: cells(each, "run") for heading, each in runs.items()}
    panels = [
        ("<br>".join(wrap(heading, _LINE)), each.of_head(layer, head))
        for heading, each in shown.items()
    ]
    first = next(iter(shown.values()))
    figure = pattern_panels(
        panels,
        first,
        "run",
        title=f"{head_name((layer, head))} in {len(panels)} problems",
        subtitle="rows are queries and sum to 1; green outline = the edge that the problem needs, "
        "orange = self-attention, × = impossible",
        columns=len(panels),
        numbers=True,
        panel_height=380,
    )
    shapes = []
    for place, (heading, each) in enumerate(shown.items()):
        suffix = "" if place == 0 else str(place + 1)
        shapes += self_outlines(each.is_self, suffix, width=1.5)
        shapes += needed_outlines(each, (needed or {}).get(heading, ()), suffix)
    figure.layout.shapes = shapes
    figure.update_layout(meta=style.sizes(120 + 460 * len(panels)))
    figure.update_xaxes(tickangle=-40, tickfont={"size": style.SMALL_FONT_SIZE})
    return figure
