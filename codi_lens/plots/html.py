"""Figures as parts of self-contained pages."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd


def fill(template: str, parts: Mapping[str, str]) -> str:
    """A template with each {{name}} replaced by its part, verbatim."""
    # One pass, so that braces inside the parts are never taken for placeholders.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def asset(package: str, name: str) -> str:
    """The text of a file that ships in a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def script_json(data: Any) -> str:
    """JSON for a script element; what is undefined or not finite becomes null.

    >>> script_json({"a": np.array([1.0, np.nan]), "b": "</script>"})
    '{"a":[1.0,null],"b":"\\\\u003c/script>"}'
    """
    # With every "<" escaped, no text can close the script element or open a comment in it.
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def text(value: Any) -> str:
    """A value as text that cannot become markup."""
    return html.escape(str(value))


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
