"""The explorer: one self-contained HTML page to look through the attention of every head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr

from codi_lens.explorer.data import explorer_data
from codi_lens.plots.html import render


def explorer_page(
    attention: xr.DataArray,
    heads: Mapping[str, pd.DataFrame],
    *,
    title: str,
    facts: Mapping[str, str],
    findings: Sequence[str],
) -> str:
    """One HTML page that needs no network: maps, patterns, charts and the table of all heads.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        heads: the heads table of each view, under "position" and "generation" (or one of them).
        title: the page's heading.
        facts: short facts for the row of cards: {"model": "…", "problems": "100", …}.
        findings: plain sentences.

    Raises:
        AttentionError: no heads table, one under an unknown view or computed in another, one that
            does not list the heads of `attention`, or attention with other dims or labels.
    """
    page = render(
        "explorer/explorer.html",
        title=title,
        heading=title,
        facts=facts,
        findings=findings,
        data=explorer_data(attention, heads),
    )
    return str(page)
