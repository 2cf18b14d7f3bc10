"""Self-contained HTML pages: their templates, and data that cannot close its script.

Templates stand beside the Python that fills them and are named by their path in the package:
`explorer/explorer.html`. Whatever is put into one is escaped, unless it is a `Markup`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

PLOT_CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "showSendToCloud": False,
    "plotlyServerURL": "",
}
"""How plotly draws in every page and written figure: nothing in it offers to send data away."""

_HEAD = re.compile(r"\bL\d+H\d+\b")


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


def linked(text: Any, explorer: str | None) -> Markup:
    """Text as HTML, in which every head that it names opens in the explorer.

    Args:
        text: what stands in a page; a `Markup` is a mistake, as it may name heads in its tags.
        explorer: the explorer's file, as a page beside it names it; None for no links.

    >>> str(linked("L4H5 < L0H1", "explorer.html")).count(' href="explorer.html#head=L4H5"')
    1
    >>> linked("L4H5 <b>", None)
    Markup('L4H5 &lt;b&gt;')
    """
    shown = escape(str(text))
    if explorer is None:
        return shown
    link = f'<a href="{escape(quote(explorer))}#head=\\g<0>">\\g<0></a>'
    return Markup(_HEAD.sub(link, str(shown)))


def slug(text: str) -> str:
    """Text as an anchor: its letters and digits.

    >>> slug("What's L4H5 needed for, at ct0→ct1?")
    'what-s-l4h5-needed-for-at-ct0-ct1'
    """
    return re.sub(r"\W+", "-", text.lower()).strip("-") or "section"


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
    made.filters |= {"linked": linked, "slug": slug}
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
