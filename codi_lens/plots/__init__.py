"""Figures of attention and heads as plotly values, and the explorer page.

Every function returns a `plotly.graph_objects.Figure` and shows nothing; `explorer_page` returns
one self-contained HTML page.
"""

from __future__ import annotations

from codi_lens.plots.charts import incoming, score_intervals, sequential, skips
from codi_lens.plots.explorer import explorer_page
from codi_lens.plots.figures import head_map, pattern, top_heads

__all__ = [
    "explorer_page",
    "head_map",
    "incoming",
    "pattern",
    "score_intervals",
    "sequential",
    "skips",
    "top_heads",
]
