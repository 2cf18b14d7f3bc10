"""Figures of attention and heads as plotly values, and the explorer page.

Every function returns a `plotly.graph_objects.Figure` and shows nothing; `explorer_page` returns
one self-contained HTML page. Figures of a table have the name of the function that makes it, so
they read well with their module: `plots.hub_ratios(hubs.hub_ratios(attention))`.
"""

from __future__ import annotations

from codi_lens.explorer.page import explorer_page
from codi_lens.plots.attention.charts import incoming, sequential, skips
from codi_lens.plots.attention.heads import head_map, pattern, top_heads
from codi_lens.plots.attention.hubs import hub_ratio_by_n_problems, hub_ratios
from codi_lens.plots.attention.probes import (
    answer_reads_by_length,
    decodable_totals,
    thoughts_and_attention,
)
from codi_lens.plots.attention.profiles import (
    answer_reads,
    by_distance,
    destinations,
    sequential_intervals,
)
from codi_lens.plots.attention.stability import (
    clusters,
    clusters_and_types,
    rank_intervals,
    score_intervals,
)
from codi_lens.plots.causal.attribution import attribution_scatter, thought_attributions_figure
from codi_lens.plots.causal.effects import effect_points, redundancy_matrix
from codi_lens.plots.causal.pairs import restoration_map, thought_swap_matrix, total_swap_matrix
from codi_lens.plots.causal.sweeps import (
    causal_map,
    dose_response_curves,
    edge_matrix,
    score_effect_scatter,
)
from codi_lens.plots.study.comparison import model_comparison
from codi_lens.plots.study.figures import (
    attention_by_layer,
    critical_heads,
    hub_flow_skip,
    metric_distributions,
    strongest_heads,
)
from codi_lens.plots.study.published import (
    corrected_triptych,
    published_hub_bars,
    published_patterns,
)

__all__ = [
    "answer_reads",
    "answer_reads_by_length",
    "attention_by_layer",
    "attribution_scatter",
    "by_distance",
    "causal_map",
    "clusters",
    "clusters_and_types",
    "corrected_triptych",
    "critical_heads",
    "decodable_totals",
    "destinations",
    "dose_response_curves",
    "edge_matrix",
    "effect_points",
    "explorer_page",
    "head_map",
    "hub_flow_skip",
    "hub_ratio_by_n_problems",
    "hub_ratios",
    "incoming",
    "metric_distributions",
    "model_comparison",
    "pattern",
    "published_hub_bars",
    "published_patterns",
    "rank_intervals",
    "redundancy_matrix",
    "restoration_map",
    "score_effect_scatter",
    "score_intervals",
    "sequential",
    "sequential_intervals",
    "skips",
    "strongest_heads",
    "thought_attributions_figure",
    "thought_swap_matrix",
    "thoughts_and_attention",
    "top_heads",
    "total_swap_matrix",
]
