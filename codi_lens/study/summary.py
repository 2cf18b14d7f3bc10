"""The study's two JSON files and its findings text, under its own names of fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens import metrics
from codi_lens.attention.labels import heads_in, labelled_steps
from codi_lens.study.heads import BANDS, N_TOP, counts, largest_entries
from codi_lens.study.settings import StudyThresholds


def attention_stats(
    mean: xr.DataArray,
    std: xr.DataArray,
    model: str,
    n_problems: int,
    thresholds: StudyThresholds | None = None,
) -> dict[str, Any]:
    """The study's `attention_stats.json`: consistency, the top 20 heads, sums per position.

    The deviations are over all cells of the matrix, those that are always 0 included, as there.
    """
    thresholds = thresholds or StudyThresholds()
    mean, std = labelled_steps(mean), labelled_steps(std)
    values, deviations = mean.values, std.values
    heads = heads_in(mean)
    patterns, spreads = (each.reshape(-1, *each.shape[2:]) for each in (values, deviations))
    largest = patterns.max(axis=(1, 2))
    return {
        "model": model,
        "n_problems": n_problems,
        "n_layers": mean.sizes["layer"],
        "n_heads": mean.sizes["head"],
        "consistency": {
            "mean_std": float(deviations.mean()),
            "max_std": float(deviations.max()),
            "min_std": float(deviations.min()),
            "consistent": bool(deviations.mean() < thresholds.consistent_std),
        },
        "top_20_heads": [
            {
                "layer": heads[place][0],
                "head": heads[place][1],
                "max_attention": float(largest[place]),
                "max_position": largest_entries(patterns[place][None])[0],
                "mean_attention": float(patterns[place].mean()),
                "std_attention": float(spreads[place].mean()),
            }
            for place in np.argsort(-largest, kind="stable")[:N_TOP].tolist()
        ],
        "position_stats": [
            {
                "position": position,
                "avg_incoming_attention": float(values[..., position].sum(axis=-1).mean()),
                "avg_outgoing_attention": float(values[..., position, :].sum(axis=-1).mean()),
            }
            for position in range(mean.sizes["key"])
        ],
        "overall_stats": {
            "mean_attention": float(values.mean()),
            "max_attention": float(values.max()),
            "min_attention": float(values.min()),
        },
    }


def attention_summary(
    mean: xr.DataArray, model: str, thresholds: StudyThresholds | None = None
) -> dict[str, Any]:
    """The study's `attention_summary.json`: hub, sequential flow, skips, and its four answers.

    At n thoughts, "position 5 to 4" becomes n-1 to n-2 and the skips are to the first half.
    With a single thought there are no steps, and what needs one is None.
    """
    thresholds = thresholds or StudyThresholds()
    matrix = labelled_steps(mean).mean(("layer", "head")).values
    n = len(matrix)
    incoming = metrics.incoming_attention(matrix)
    hub = int(incoming.argmax())
    ratio = float(incoming[hub] * n)
    steps = [float(value) for value in np.diagonal(matrix, -1)]
    skips = [float(value) for value in matrix[-1, : n // 2]]
    flow, skip = (float(np.mean(x)) if x else None for x in (steps, skips))
    has_flow, has_skips = (
        None if x is None else x > limit
        for x, limit in ((flow, thresholds.sequential), (skip, thresholds.skip))
    )
    last = steps[-1] if steps else None
    return {
        "model": model,
        "hub_analysis": {
            "hub_position": hub,
            "hub_score": float(incoming[hub]),
            "uniform_baseline": 1 / n,
            "hub_ratio": ratio,
            "is_strong_hub": ratio > thresholds.strong_hub,
            "all_hub_scores": [float(value) for value in incoming],
        },
        "sequential_flow": {
            "has_sequential_flow": has_flow,
            "avg_sequential_attention": flow,
            "sequential_scores": steps,
            f"position_{n - 1}_to_{n - 2}": last,
        },
        "skip_connections": {
            "has_skip_connections": has_skips,
            "avg_skip_attention": skip,
            "skip_scores": skips,
        },
        "answers": {
            "which_position_is_hub": hub,
            "is_there_sequential_flow": has_flow,
            f"does_pos{n - 1}_attend_to_pos{n - 2}": (
                None if last is None else last > thresholds.last_step
            ),
            "are_there_skip_connections": has_skips,
        },
    }


def findings_text(
    heads: pd.DataFrame, model: str, thresholds: StudyThresholds | None = None
) -> str:
    """The study's `critical_heads_findings.txt`: top 3 heads, counts, score statistics."""
    thresholds = thresholds or StudyThresholds()
    rule = "=" * 80
    lines = [rule, f"{model.upper()} - CRITICAL HEADS FINDINGS", rule, ""]
    lines += ["TOP 3 CRITICAL HEADS:", ""]
    for row in heads.head(3).to_dict("records"):
        lines += [
            f"{row['rank']}. {row['name']} - {row['functional_type']}",
            f"   Composite score: {row['composite_score']:.3f}",
            f"   - Flow: {row['flow_score']:.3f} (forward information flow)",
            f"   - Hub: {row['hub_score']:.3f} (creates hub at position {row['hub_position']})",
            f"   - Skip: {row['skip_score']:.3f} (long-range connections)",
            f"   - Max attention: {row['max_attention']:.3f} at [{row['max_position']}]",
            "",
        ]
    for title, column in (
        ("FUNCTIONAL TYPE DISTRIBUTION", "functional_type"),
        ("LAYER DISTRIBUTION", "layer_type"),
    ):
        lines.append(f"{title} (Top {min(N_TOP, len(heads))} heads):")
        lines += [
            f"  {kind.capitalize() if kind in BANDS else kind}: {count}"
            for kind, count in counts(heads, column).items()
        ]
        lines.append("")
    lines.append("SCORE STATISTICS (All heads):")
    for name in ("flow", "hub", "skip"):
        scores = heads[f"{name}_score"]
        lines.append(f"  {name.capitalize()}: mean={scores.mean():.3f}, max={scores.max():.3f}")
    critical = heads.loc[heads["composite_score"] > thresholds.critical, "name"]
    lines += ["", f"CRITICAL HEADS (composite > {thresholds.critical}): {len(critical)}"]
    if len(critical):
        lines.append("  Layers: " + ", ".join(critical))
    return "\n".join(lines) + "\n"
