"""The explorer's page from a mean and tables that are there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr

from codi_lens.errors import AttentionError
from codi_lens.explorer.explore import explorer_of
from codi_lens.explorer.payload import Told


def explorer_page(
    attention: xr.DataArray,
    heads: Mapping[str, pd.DataFrame],
    *,
    title: str,
    facts: Mapping[str, str],
    findings: Sequence[str],
) -> str:
    """One HTML page that needs no network; `explore` makes the same with more in it.

    Args:
        attention: (layer, head, query, key), the mean over problems; or with problems.
        heads: the heads table of each view, under "position" and "generation" (or one of them).
        title: the page's heading.
        facts: short facts: {"model": "…", "problems": "100", …}.
        findings: plain sentences.

    Raises:
        AttentionError: no heads table, one under an unknown view or computed in another, one that
            does not list the heads of `attention`, or attention with other dims or labels.

    >>> from codi_lens import rank_heads
    >>> from codi_lens.attention.example import two_heads
    >>> attention = two_heads()
    >>> tables = {"position": rank_heads(attention)}
    >>> page = explorer_page(attention, tables, title="Two heads", facts={}, findings=[])
    >>> "<title>Two heads</title>" in page
    True
    """
    if not heads:
        raise AttentionError('The explorer needs a heads table under "position" or "generation".')
    told = Told(title, facts, findings)
    return explorer_of(attention, told, heads=heads).page()
