"""What the HTML pages share: templates, and data that cannot close its script element."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A template of this package with each {{name}} replaced by its part, verbatim."""
    # One pass, so that braces inside the parts are never taken for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], asset(template))


def asset(name: str) -> str:
    """The text of a file that ships beside this module."""
    return resources.files("codi_lens.plots").joinpath(name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON for a script element; what is undefined or not finite becomes null.

    >>> script_json({"a": np.array([1.0, np.nan]), "b": "</script>"})
    '{"a":[1.0,null],"b":"\\\\u003c/script>"}'
    """
    # With every "<" escaped, no text can close the script element or open a comment in it.
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


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
