"""Static images of figures, where kaleido and a browser are there to draw them."""

from __future__ import annotations

import importlib.util
import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.io.base_renderers import MimetypeRenderer

from codi_lens.plots.drawing.style import width_of

_NAME = "codi_lens_png"


def drawn_or_why(draw: Callable[[], Any]) -> str | None:
    """Draw images; if that cannot be done, why.

    Args:
        draw: calls kaleido.

    Returns:
        None, or one sentence: kaleido is not installed, or it found no browser.
    """
    if importlib.util.find_spec("kaleido") is None:
        return "No static images: kaleido is not installed (pip install kaleido)."
    try:
        draw()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        return f"No static images: kaleido could not draw with a browser ({reason})."
    return None


def show_images_too(scale: float | int = 1.5) -> str | None:
    """From here on, a notebook keeps an image beside each interactive figure that it shows.

    Where no script runs, on GitHub say, the image is what a reader sees. A renderer that the
    environment names (PLOTLY_RENDERER) stays, and with it there are no images.

    Args:
        scale: pixels per point of the images.

    Returns:
        None; or, where kaleido or a browser is missing, why there are no images. Figures are then
        shown as before.
    """
    if renderer := os.environ.get("PLOTLY_RENDERER"):
        return f"No static images: PLOTLY_RENDERER names {renderer}."
    missing = drawn_or_why(lambda: go.Figure().to_image("png"))
    if missing is None:
        plotly.io.renderers[_NAME] = _Image(scale)
        plotly.io.renderers.default = f"plotly_mimetype+{_NAME}"
    return missing


class _Image(MimetypeRenderer):
    """An image as wide as the figure was drawn to be; plotly's own is 700 points wide."""

    def __init__(self, scale: float | int) -> None:
        self._scale = scale

    def to_mimebundle(self, fig_dict: dict[str, Any]) -> dict[str, str]:
        figure = go.Figure(fig_dict, skip_invalid=True)
        image = figure.to_image("png", width=width_of(figure), scale=self._scale)
        return {"image/png": b64encode(image).decode("ascii")}
