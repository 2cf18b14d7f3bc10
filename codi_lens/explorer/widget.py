"""The explorer as a widget of anywidget: the page's own script and style, in a notebook."""

from __future__ import annotations

import anywidget
import traitlets

from codi_lens.plots.html import asset_text


class ExplorerWidget(anywidget.AnyWidget):
    """What Jupyter shows: data goes to the browser once, the selection both ways."""

    _esm = f"{asset_text('explorer/explorer.bundle.js')}\nexport default CodiLensExplorer;"
    _css = asset_text("explorer/explorer.css")
    payload = traitlets.Unicode().tag(sync=True)
    blocks = traitlets.Dict(value_trait=traitlets.Bytes()).tag(sync=True)
    state = traitlets.Unicode().tag(sync=True)
    selected_heads = traitlets.List().tag(sync=True)
    problem = traitlets.Unicode(None, allow_none=True).tag(sync=True)
