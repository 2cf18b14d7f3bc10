"""How firm the findings are: scores and ranks with intervals, and heads clustered by shape."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.attention.clusters import HeadClusters
from codi_lens.errors import AttentionError
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_numbers, pattern_panels
from codi_lens.plots.drawing.views import Cells, best_heads, constant_metrics
from codi_lens.plots.drawing.whiskers import error_bar
from codi_lens.wording import count, p_text


def score_intervals(heads: pd.DataFrame, metric: str = "composite", n: int = 20) -> go.Figure:
    """The `n` best heads by a metric, with their 95 % bootstrap intervals over problems.

    Args:
        heads: one row per head, as from `rank_heads`.
        metric: any column of `heads` that has an interval.
        n: how many heads (all of them if there are fewer).

    Raises:
        AttentionError: no such metric, an empty table, or `n` below 1.

    >>> from codi_lens import rank_heads
    >>> from codi_lens.attention.example import two_heads
    >>> figure = score_intervals(rank_heads(two_heads()), "hub")
    >>> figure.layout.title.text, figure.layout.yaxis.categoryarray
    ('Top 2 heads by hub', ('L0H1', 'L0H0'))
    """
    best = best_heads(heads, metric, n)
    note = f"{heads.attrs['view']} view; " if "view" in heads.attrs else ""
    note += "whiskers: 95 % bootstrap interval over problems"
    if metric in constant_metrics(heads):
        note += f"<br>{metric} is constant over all heads, so it ranks nothing"
    figure = go.Figure(
        layout=style.base_layout(
            f"Top {len(best)} heads by {metric}",
            f"{note}<br>&nbsp;",  # room for the legend
            xaxis=style.value_axis(metric),
            yaxis=style.cell_axis("", rows=True)
            | {"categoryorder": "array", "categoryarray": best["name"].tolist(), "dtick": 1},
            legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0},
            height=max(260, 150 + 24 * len(best)),
        )
    )
    for kind, colour in style.TYPE_COLOURS.items():
        rows = best[best["type"] == kind]
        if rows.empty:
            continue
        whiskers = None
        if f"{metric}_low" in rows:
            ends = rows[f"{metric}_low"], rows[f"{metric}_high"]
            whiskers = error_bar(rows[metric], *ends, thickness=1.5, width=4)
        figure.add_scatter(
            x=rows[metric],
            y=rows["name"],
            error_x=whiskers,
            mode="markers",
            name=kind,
            showlegend=True,
            marker={"color": colour, "size": 9},
            hovertemplate="%{y}<br>" + metric + " %{x:.3f}<extra>" + kind + "</extra>",
        )
    return figure


def rank_intervals(heads: pd.DataFrame, n: int = 20) -> go.Figure:
    """How firm the ranking is: rank with its bootstrap interval, and how often in the top ten.

    Args:
        heads: from `rank_heads`.
        n: how many heads, from the best on (all of them if there are fewer).

    Raises:
        AttentionError: an empty table, or `n` below 1.

    >>> heads = pd.DataFrame({"name": ["L0H0", "L0H1"], "rank": [2, 1], "rank_low": [1, 1],
    ...     "rank_high": [2, 2], "in_top_10": [0.6, 1.0]})
    >>> figure = rank_intervals(heads)
    >>> list(zip(figure.data[0].y, [note.text for note in figure.layout.annotations]))
    [('L0H1', '100%'), ('L0H0', '60%')]
    """
    if heads.empty or n < 1:
        raise AttentionError("Ranks need a heads table with rows, and at least 1 head to draw.")
    best = heads.sort_values("rank").head(n)
    last = float(np.nanmax([*best["rank"], *best["rank_high"], 10]))
    view = f"{heads.attrs['view']} view; " if "view" in heads.attrs else ""
    figure = go.Figure(
        layout=style.base_layout(
            f"How firm the ranking is: the top {len(best)} of {len(heads)} heads",
            f"{view}whiskers: 95 % bootstrap interval of the rank; right: how often among the "
            "best 10",
            xaxis=style.value_axis("rank by composite", zeroline=False, range=[0.5, last + 0.5]),
            yaxis=style.cell_axis("", rows=True)
            | {"categoryorder": "array", "categoryarray": best["name"].tolist(), "dtick": 1},
            width=720,
            height=max(260, 150 + 24 * len(best)),
        )
    )
    figure.update_layout(margin_r=72)
    figure.add_vline(x=10.5, line={"color": style.THRESHOLD_COLOUR, "width": 1.5, "dash": "dash"})
    figure.add_scatter(
        x=best["rank"],
        y=best["name"],
        error_x=error_bar(
            best["rank"], best["rank_low"], best["rank_high"], clip=False, thickness=1.6, width=4
        ),
        mode="markers",
        marker={"color": style.LATER_COLOUR, "size": 8},
        customdata=best[["rank_low", "rank_high", "in_top_10"]],
        hovertemplate="%{y}: rank %{x} [%{customdata[0]:.0f}, %{customdata[1]:.0f}]<br>among the "
        "best 10 in %{customdata[2]:.0%} of resamples<extra></extra>",
        showlegend=False,
    )
    for name, share in zip(best["name"], best["in_top_10"], strict=True):
        figure.add_annotation(
            x=1,
            xref="paper",
            y=name,
            xanchor="left",
            xshift=8,
            text="–" if pd.isna(share) else f"{share:.0%}",
            showarrow=False,
            font={"size": style.SMALL_FONT_SIZE},
        )
    return figure


def clusters(found: HeadClusters) -> go.Figure:
    """The mean pattern of each cluster of heads, and where its thoughts look.

    Args:
        found: from `cluster_heads`.

    >>> import xarray as xr
    >>> from codi_lens.attention.cluster_null import NullClusters
    >>> heads = pd.DataFrame({"cluster": ["A", "B"], "silhouette": 0.5, "outside": 0.4,
    ...     "self": [0.6, 0.0], "previous": [0.0, 0.6], "further": 0.0})
    >>> patterns = xr.DataArray(np.stack([np.eye(2), np.eye(2, k=-1)]), {"cluster": ["A", "B"]},
    ...     ("cluster", "query", "key"))
    >>> null = NullClusters(p=0.4, silhouette=0.6, stability=0.9, best=np.zeros((2, 1)))
    >>> found = HeadClusters(heads, patterns, {2: 0.5}, 1.0, 50, null)
    >>> clusters(found).layout.title.text
    'No clusters of heads by the shape of their attention'
    """
    patterns = found.patterns
    n = patterns.sizes["key"]
    possible = np.tril(np.ones((n, n), dtype=bool))
    shown = Cells(patterns, possible, np.eye(n, dtype=bool))
    look = ["outside", "self", "previous", "further"]
    panels = []
    for name, rows in found.heads.groupby("cluster"):
        shares = rows[look].mean()
        heading = f"<b>{name}</b> · {len(rows)} head{'s' if len(rows) > 1 else ''}<br>" + (
            f"self {shares['self']:.0%}, previous {shares['previous']:.0%},"
            f"<br>further {shares['further']:.0%}"
        )
        panels.append((heading, np.where(possible, patterns.sel(cluster=name).values, np.nan)))
    null = found.null
    halves = (
        f"disjoint halves of the problems agree to {found.stability:.2f} (Rand), on groups of such "
        f"heads to {null.stability:.2f};<br>"
    )
    groups = f"{len(panels)} clusters" if found.found else "No clusters"
    return pattern_panels(
        panels,
        shown,
        "position",
        title=f"{groups} of heads by the shape of their attention",
        subtitle=f"mean silhouette {max(found.silhouette.values()):.2f}; heads without groups "
        f"reach {null.silhouette:.2f} in 5 % of draws, {p_text(null.p)};<br>"
        + ("" if np.isnan(found.stability) else halves)
        + f"mean patterns over {count(found.n_problems, 'distinct problem')}; the rest "
        "of each row<br>is question and bot; outlined = self-attention, × = impossible",
        columns=min(4, len(panels)),
        numbers=True,
        panel_height=270,
    )


def clusters_and_types(found: HeadClusters, types: pd.Series) -> go.Figure:
    """How many heads of each cluster have which type: do the study's types follow the shapes?

    Args:
        found: from `cluster_heads`.
        types: a label of each head (the study's type), by head name.

    Raises:
        AttentionError: a head without a label.

    >>> import xarray as xr
    >>> from codi_lens.attention.cluster_null import NullClusters
    >>> heads = pd.DataFrame({"name": ["L0H0", "L0H1"], "cluster": ["A", "B"]})
    >>> null = NullClusters(p=0.005, silhouette=0.4, stability=0.9, best=np.zeros((2, 1)))
    >>> found = HeadClusters(heads, xr.DataArray(), {2: 0.5}, 1.0, 50, null)
    >>> types = pd.Series({"L0H0": "Forward Flow", "L0H1": "Hub Aggregator"})
    >>> clusters_and_types(found, types).data[0].z.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    agreement = found.agreement(types)
    own = types[found.heads["name"]].to_numpy()
    counts = pd.crosstab(found.heads["cluster"].to_numpy(), own)
    values = counts.to_numpy(dtype=float)
    group = "cluster" if found.found else "group"
    rows = [f"{group} {name}" for name in counts.index]
    columns = [str(name).replace(" ", "<br>") for name in counts.columns]
    figure = go.Figure(
        go.Heatmap(
            z=values,
            x=columns,
            y=rows,
            colorscale=style.SCORE_SCALE,
            zmin=0,
            zmax=float(values.max()),
            showscale=False,
            xgap=1,
            ygap=1,
            hovertemplate="%{y}, %{x}: %{z} heads<extra></extra>",
        ),
        layout=style.base_layout(
            "Clusters of heads beside the study's types"
            if found.found
            else "No clusters of heads; their groups beside the study's types",
            f"number of heads; agreement {agreement:.2f} (adjusted Rand index: 1 = the same "
            "grouping,<br>0 = chance)",
            xaxis=style.cell_axis("type by the study's thresholds"),
            yaxis=style.cell_axis("", rows=True),
            width=620,
            height=220 + 40 * len(rows),
        ),
    )
    numbers = cell_numbers(values, rows, columns, style.SCORE_SCALE, 0.0, float(values.max()))
    return figure.add_trace(numbers.update(text=values.astype(int).astype(str).ravel()))
