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

SCORE_SCALE: list[str] = list(cmocean.tempo)
"""Scores are not attention, so they get another hue: cmocean's "tempo"."""

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


def base_layout(title: str, subtitle: str = "", **layout: Any) -> go.Layout:
    """A white layout with the house fonts, a left-aligned title and an optional subtitle."""
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
    }
    return go.Layout(settings | layout)


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
