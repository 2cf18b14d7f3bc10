"""The explorer: one self-contained HTML page to look through the attention of every head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import xarray as xr

from codi_lens.explorer.data import Example, explorer_data
from codi_lens.plots.html import render


@dataclass(frozen=True, eq=False)
class Opening:
    """What the page shows before all heads: a head in a few problems, and what that says."""

    title: str
    sentences: Sequence[str]
    examples: Sequence[Example]


def explorer_page(
    attention: xr.DataArray,
    heads: Mapping[str, pd.DataFrame],
    *,
    title: str,
    facts: Mapping[str, str],
    findings: Sequence[str],
    opening: Opening | None = None,
) -> str:
    """One HTML page that needs no network: maps, patterns, charts and the table of all heads.

    Args:
        attention: (layer, head, query, key), the mean over problems.
        heads: the heads table of each view, under "position" and "generation" (or one of them).
        title: the page's heading.
        facts: short facts for the row of cards: {"model": "…", "problems": "100", …}.
        findings: plain sentences.
        opening: what the page shows first, if anything.

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
        opening=opening,
        data=explorer_data(attention, heads, opening.examples if opening else ()),
    )
    return str(page)
