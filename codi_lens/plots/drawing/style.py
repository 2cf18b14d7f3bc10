"""What every figure shares: scales, colours, fonts and the layout they go into."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import cmocean, unlabel_rgb

ATTENTION_SCALE: list[str] = list(cmocean.dense)
"""The one scale of attention: cmocean's "dense", perceptually uniform, light (0) to dark (1)."""

ATTENTION_RANGE = (0.0, 1.0)
"""Attention is always drawn over this range, so that colours compare across figures."""

SCORE_SCALE: list[str] = ["rgb(247,247,247)", *cmocean.tempo[1:]]
"""Scores are not attention, so they get another hue: cmocean's "tempo", from a neutral 0."""

MAP_SCALE: list[str] = SCORE_SCALE[1:]
"""Scores of all heads in one map: the same hue, whose lowest colour is a tint. White would look
like a head that is missing."""

DARK_TEXT, LIGHT_TEXT = "#000000", "#ffffff"
"""Numbers in cells: whichever of the two reads better, so the contrast is 4.5 or more (WCAG AA)."""

IMPOSSIBLE_COLOUR = "#dcdcdc"
"""Fill of a cell that causality forbids; it also carries an ×, and no step of a scale is grey."""

SELF_COLOUR = "#d9480f"
"""Outline of self-attention, orange because no step of the scale is."""

NEEDED_COLOUR = "#12a150"
"""Outline of an edge that a problem is known to need: green, as no step of the scale is."""

SELF_BAR_COLOUR = "#c2410c"

LATER_COLOUR = "#2f5d9b"
NULL_COLOUR = "#1f1f1f"
THRESHOLD_COLOUR = "#6b3fa0"
INK = "#1b1f24"
MUTED = "#57606a"

DARK_COLOURS = {
    "white": "#171c23",
    INK: "#e6edf3",
    MUTED: "#9fa9b4",
    NULL_COLOUR: "#f0f3f6",
    LATER_COLOUR: "#79aef2",
    SELF_BAR_COLOUR: "#f58a5b",
    SELF_COLOUR: SELF_COLOUR,
    THRESHOLD_COLOUR: "#b99af0",
    NEEDED_COLOUR: NEEDED_COLOUR,
    IMPOSSIBLE_COLOUR: IMPOSSIBLE_COLOUR,
    "#0072b2": "#56b4e9",
    "#00795b": "#2fbf95",
    "#a3367c": "#e58cc4",
    "#8a6d00": "#d9b42c",
    "#b07500": "#e0a63a",
    "#7b6ca8": "#a99be0",
    "#9aa2ab": "#6f7a85",
    "#c9ced4": "#4a535d",
    "#e6e8eb": "#303740",
    "rgba(255,255,255,0.8)": "rgba(23,28,35,0.8)",
    "rgba(255,255,255,0.85)": "rgba(23,28,35,0.85)",
    "rgba(255,255,255,0.9)": "rgba(23,28,35,0.9)",
    "rgba(47,93,155,0.22)": "rgba(121,174,242,0.25)",
}
"""What stands for each colour on a dark page. Scales of cells, and their numbers, stay as they are,
so that colours compare; so do outlines of cells, and grey and × of what is impossible."""

TYPE_COLOURS = {
    "Forward Flow": "#0072b2",
    "Hub Aggregator": "#c2410c",
    "Skip Connection": "#00795b",
    "Multi-Purpose": "#a3367c",
}

_BUTTONS = [
    # All buttons together would lie over the title of a figure of ordinary width.
    *("zoom", "pan", "select", "lasso", "zoomin", "zoomout", "autoscale"),
    "sendChartToCloud",  # it offers to upload the data, in notebooks too
]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
FONT_SIZE = 13
SMALL_FONT_SIZE = 12

QUERY_TITLE = "query (attends)"
KEY_TITLE = "key (attended to)"


def base_layout(
    title: str,
    subtitle: str = "",
    *,
    width: int = 700,
    least_width: int | None = None,
    **layout: Any,
) -> go.Layout:
    """A white layout with the house fonts, a left-aligned title and an optional subtitle.

    A figure takes the width of the notebook cell or page that it stands in. How wide it was drawn
    to be is in its `meta`, for images and for pages that lay figures out.

    Args:
        title: of the figure.
        subtitle: below it.
        width: that the figure is drawn for, in points.
        least_width: below which its texts collide; seven tenths of `width` by default.
        layout: whatever else plotly knows.
    """
    heading: dict[str, Any] = {
        "text": title,
        "x": 0,
        "xref": "paper",
        "xanchor": "left",
        "font": {"size": 16},
    }
    n_lines = 0
    if subtitle:
        heading["subtitle"] = {"text": subtitle, "font": {"size": FONT_SIZE, "color": MUTED}}
        n_lines = 1 + subtitle.count("<br>")
    top = 48 + 20 * n_lines
    # Anchored to the container's top: an automatic y would centre a tall title in the margin.
    heading |= {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 14}}
    settings: dict[str, Any] = {
        "template": "none",
        "title": heading,
        "font": {"family": FONT, "size": FONT_SIZE, "color": INK},
        "hoverlabel": {"font": {"family": FONT, "size": FONT_SIZE}},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 72, "r": 24, "t": top, "b": 60},
        "modebar": {"remove": _BUTTONS},
        "autosize": True,
        "meta": sizes(width, least_width),
    }
    return go.Layout(settings | layout)


def sizes(width: int, least_width: int | None = None) -> dict[str, int]:
    """What a figure's `meta` says of its width: see `base_layout`."""
    return {"width": width, "least_width": least_width or round(0.7 * width)}


def width_of(figure: go.Figure) -> int:
    """How wide a figure was drawn to be, in points; what its layout sets comes first."""
    given: Any = figure.layout
    return int(given.width or (given.meta or {}).get("width", 700))


def least_width_of(figure: go.Figure) -> int:
    """The width in points below which a figure's texts collide."""
    given: Any = figure.layout
    least = round(0.7 * width_of(figure))
    return least if given.width else int((given.meta or {}).get("least_width", least))


def light_text_from(scale: list[str]) -> float:
    """Where on a scale that darkens from 0 to 1 light text starts to read better than dark."""
    fine = np.linspace(0, 1, 1001)
    return float(fine[np.argmax(_is_dark(fine, scale))])


def text_on(at: np.ndarray, scale: list[str]) -> np.ndarray:
    """The colour of text at places (0 to 1) of a scale: light where that reads better than dark."""
    return np.where(_is_dark(np.clip(np.nan_to_num(at), 0, 1), scale), LIGHT_TEXT, DARK_TEXT)


def _is_dark(at: np.ndarray, scale: list[str]) -> np.ndarray:
    channels = np.array([unlabel_rgb(colour) for colour in scale]) / 255
    rgb = np.stack([np.interp(at, np.linspace(0, 1, len(scale)), one) for one in channels.T])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = np.tensordot([0.2126, 0.7152, 0.0722], linear, axes=1)
    # Contrast with white equals contrast with black where (L + 0.05)² = 1.05 · 0.05 (WCAG 2).
    return luminance + 0.05 < np.sqrt(1.05 * 0.05)


def attention_axis(colorbar: bool = True) -> dict[str, Any]:
    """The colour axis that every attention heatmap uses."""
    low, high = ATTENTION_RANGE
    return {
        "colorscale": ATTENTION_SCALE,
        "cmin": low,
        "cmax": high,
        "showscale": colorbar,
        "colorbar": colorbar_of("attention", tickvals=[0, 0.25, 0.5, 0.75, 1]),
    }


def colorbar_of(title: str, **settings: Any) -> dict[str, Any]:
    """A narrow colour bar with its title along the side."""
    return {
        "title": {"text": title, "side": "right", "font": {"size": FONT_SIZE}},
        "tickfont": {"size": SMALL_FONT_SIZE},
        "thickness": 14,
        "outlinewidth": 0,
    } | settings


def cell_axis(title: str, *, rows: bool = False, tick_size: int = FONT_SIZE) -> dict[str, Any]:
    """A categorical axis of heatmap cells; rows count from the top."""
    axis: dict[str, Any] = {
        "type": "category",
        "title": {"text": title, "standoff": 8, "font": {"size": FONT_SIZE}},
        "tickfont": {"size": tick_size},
        "tickangle": 0,
        "showgrid": False,
        "zeroline": False,
        "ticks": "",
        "ticklabelstandoff": 3,
        "automargin": True,
    }
    if rows:
        axis["autorange"] = "reversed"
    return axis


def value_axis(title: str, **settings: Any) -> dict[str, Any]:
    """A numeric axis with light grid lines."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": FONT_SIZE}},
        "tickfont": {"size": SMALL_FONT_SIZE},
        "gridcolor": "#e6e8eb",
        "zerolinecolor": "#9aa2ab",
        "automargin": True,
    } | settings
