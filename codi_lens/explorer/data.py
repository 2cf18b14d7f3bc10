"""What the explorer shows: the numbers of every head, and the figures that they are put into.

Figures come from the plotting functions; the page's script only puts one head's numbers into them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from codi_lens.attention.views import View
from codi_lens.errors import AttentionError
from codi_lens.head_names import Head
from codi_lens.plots.attention.charts import incoming, sequential, skips
from codi_lens.plots.attention.heads import head_map, pattern
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.views import (
    PatternView,
    cells,
    check_view,
    constant_metrics,
    metric_names,
)

_DECIMALS = 4
_VIEWS: dict[View, tuple[str, str]] = {
    "position": (
        "Position view",
        "Each row is the thought that attends (the query), so the diagonal is a thought attending "
        "to itself.",
    ),
    "generation": (
        "Generation view",
        "The published study's rows: row i is the step that generates ct{i}, and its query is the "
        "position before it (bot or ct{i−1}); the entry [i, i−1] is self-attention.",
    ),
}


@dataclass(frozen=True, eq=False)
class Example:
    """One head in one problem.

    Attributes:
        heading: of its figure, the question say.
        attention: (layer, head, query, key), of the problem.
        head: which one.
        needed: edges to outline.
    """

    heading: str
    attention: xr.DataArray
    head: Head
    needed: Sequence[tuple[str, str]] = ()


def explorer_data(
    attention: xr.DataArray,
    heads: Mapping[str, pd.DataFrame],
    examples: Sequence[Example] = (),
) -> dict[str, Any]:
    """Numbers of all heads, and figures that the page's script puts them into.

    Args:
        attention: see `explorer_page`.
        heads: see `explorer_page`.
        examples: see `explorer_page`.

    Returns:
        What the script reads, for `codi_lens.plots.html.script_json`.

    Raises:
        AttentionError: see `explorer_page`.
    """
    if not heads:
        raise AttentionError('The explorer needs a heads table under "position" or "generation".')
    run = cells(attention, "run")
    layers = [int(layer) for layer in run.attention["layer"].values]
    numbers = [int(head) for head in run.attention["head"].values]
    everyone = {(layer, head) for layer in layers for head in numbers}
    for view, table in heads.items():
        check_view(view)
        if table.attrs.get("view", view) != view:
            raise AttentionError(
                f"The heads table given as {view!r} was computed in the {table.attrs['view']} view."
            )
        if set(zip(table["layer"], table["head"], strict=True)) != everyone:
            raise AttentionError(
                f"The heads table of the {view} view must list each head of the attention once: "
                f"{len(everyone)} heads, not {len(table)}."
            )
    first = (layers[0], numbers[0])
    return {
        "layers": layers,
        "heads": numbers,
        "attention": np.round(run.attention.to_numpy(), _DECIMALS),
        "queries": run.queries,
        "keys": run.keys,
        "views": {
            view: _view_data(attention, heads[view], view, first)
            for view in _VIEWS
            if view in heads
        },
        "run": _pattern_data(attention, "run", first),
        "examples": [
            _figure(pattern(each.attention, *each.head, "run", each.needed)) for each in examples
        ],
        "style": {
            "scale": style.ATTENTION_SCALE,
            "lightTextFrom": style.light_text_from(style.ATTENTION_SCALE),
            "darkText": style.DARK_TEXT,
            "lightText": style.LIGHT_TEXT,
            "impossible": style.IMPOSSIBLE_COLOUR,
            "self": style.SELF_COLOUR,
            "ink": style.INK,
        },
    }


def _view_data(
    attention: xr.DataArray, table: pd.DataFrame, view: View, first: tuple[int, int]
) -> dict[str, Any]:
    table = table.sort_values(["layer", "head"])
    metrics = metric_names(table)
    label, explanation = _VIEWS[view]
    columns = ["layer", "head", "name", "band", "rank", "type", "hub_position"]
    columns += ["max_attention", "max_query", "max_key"]
    columns += [name + end for name in metrics for end in ("", "_low", "_high")]
    return {
        "label": label,
        "explanation": explanation,
        "metrics": metrics,
        "constant": constant_metrics(table),
        "table": table[[name for name in columns if name in table]].to_dict("records"),
        "maps": {name: _figure(head_map(table, name)) for name in metrics},
        "charts": [_figure(chart(attention, view)) for chart in (incoming, sequential, skips)],
        "pattern": _pattern_data(attention, view, first),
    }


def _pattern_data(
    attention: xr.DataArray, view: PatternView, first: tuple[int, int]
) -> dict[str, Any]:
    shown = cells(attention, view)
    return {
        "queries": shown.queries,
        "keys": shown.keys,
        "possible": shown.possible,
        "self": shown.is_self,
        "figure": _figure(pattern(attention, *first, view=view)),
    }


def _figure(figure: go.Figure) -> dict[str, Any]:
    """A figure for the page: its headings become HTML text, its size follows its box."""
    drawn = figure.to_plotly_json()
    heading = drawn["layout"].pop("title", {})
    drawn["title"] = heading.get("text", "")
    drawn["subtitle"] = heading.get("subtitle", {}).get("text", "").replace("<br>", " ")
    drawn["layout"].pop("width", None)
    drawn["layout"].pop("template", None)
    drawn["layout"]["margin"] = {**drawn["layout"]["margin"], "t": 16, "r": 12, "l": 56}
    return drawn
