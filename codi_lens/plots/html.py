"""Self-contained HTML pages: their templates, and data that cannot close its script.

Templates stand beside the Python that fills them and are named by their path in the package:
`explorer/explorer.html`. Whatever is put into one is escaped, unless it is a `Markup`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

PLOT_CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
}
"""How plotly draws in every page and written figure: nothing in it offers to send data away."""


def render(template: str, **values: Any) -> Markup:
    """A template, filled; a name that it asks for and `values` lack is an error.

    >>> render("plots/page.html", title="<a>", heading="<b>", data={}).count("&lt;b&gt;")
    1
    """
    return Markup(_environment().get_template(template).render(values))


def script_json(data: Any) -> str:
    """JSON for a script element; what is undefined or not finite becomes null.

    >>> script_json({"a": np.array([1.0, np.nan]), "b": "</script>"})
    '{"a":[1.0,null],"b":"\\\\u003c/script>"}'
    """
    # With every "<" escaped, no text can close the script element or open a comment in it.
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("codi_lens", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals |= {"asset": _asset, "plotly": _plotly, "script_json": _script_json}
    made.globals["plot_config"] = PLOT_CONFIG
    return made


def asset_text(name: str) -> str:
    """The style or script in a file of the package, as it stands."""
    return resources.files("codi_lens").joinpath(name).read_text(encoding="utf-8")


def _asset(name: str) -> Markup:
    return Markup(asset_text(name))


def _plotly() -> Markup:
    return Markup(get_plotlyjs())


def _script_json(data: Any) -> Markup:
    return Markup(script_json(data))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, pd.Series | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value
