"""Two studied models side by side, with the study's own `model_comparison.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from codi_lens.errors import AttentionError
from codi_lens.study.heads import counts
from codi_lens.study.run import Study

METRICS = ("flow", "hub", "skip")


def compare_studies(first: Study, second: Study) -> dict[str, Any]:
    """The study's `model_comparison.json` for any two models.

    The models may differ in layers, heads and thoughts; a position means the same thought in both,
    and the uniform baseline of each hub is its own 1 / n_thoughts.

    Args:
        first: the study of one model.
        second: the study of the other; its name must differ.

    Returns:
        The study's fields `models`, `hub_analysis`, `top_heads`,
        `functional_type_distribution_top20`, `layer_distribution_top20`, `key_findings`, and
        `attention_metrics` and `consistency`, which its report tabulates.

    Raises:
        AttentionError: both models have the same name.
    """
    if first.model == second.model:
        raise AttentionError(
            f"Both models are called {first.model!r}; give them different names to compare them."
        )
    studies = {study.model: study for study in (first, second)}

    def each(what: Any) -> dict[str, Any]:
        return {name: what(study) for name, study in studies.items()}

    return {
        "models": each(_architecture),
        "hub_analysis": each(lambda study: study.summary["hub_analysis"]),
        "top_heads": each(lambda study: _top_head(study.heads)),
        "functional_type_distribution_top20": each(
            lambda study: counts(study.heads, "functional_type")
        ),
        "layer_distribution_top20": each(lambda study: counts(study.heads, "layer_type")),
        "attention_metrics": each(lambda study: _metrics(study.heads)),
        "consistency": each(lambda study: study.stats["consistency"]),
        "key_findings": {
            "hub_position": each(lambda study: study.summary["hub_analysis"]["hub_position"]),
            "hub_strength": each(_hub_strength),
            "sequential_flow": each(
                lambda study: study.summary["sequential_flow"]["has_sequential_flow"]
            ),
            "skip_connections": each(
                lambda study: study.summary["skip_connections"]["has_skip_connections"]
            ),
        },
    }


def compare_corrected(corrected: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The corrected quantities of several models side by side.

    Args:
        corrected: `corrected_quantities` of each model, by its name.

    Returns:
        One row per quantity and place that any model has (`quantity`, `at`), with `value`, `low`,
        `high` and `null` of each model in columns (model, name); NaN where a model lacks it. The
        strongest links are left out, since they are other heads in every model.
    """
    tables = {
        name: table[table["quantity"] != "strongest link"].set_index(["quantity", "at"])[
            ["value", "low", "high", "null"]
        ]
        for name, table in corrected.items()
    }
    joined = pd.concat(tables, axis=1)
    quantities = joined.index.get_level_values("quantity")
    order = {name: place for place, name in enumerate(dict.fromkeys(quantities))}
    # What only a later model has (more thoughts, say) goes to the rest of its quantity.
    return joined.iloc[np.argsort([order[name] for name in quantities], kind="stable")]


def _architecture(study: Study) -> dict[str, Any]:
    sizes = study.mean.sizes
    return {
        "n_layers": sizes["layer"],
        "n_heads": sizes["head"],
        "total_heads": sizes["layer"] * sizes["head"],
        "n_thoughts": sizes["key"],
        "n_problems": study.stats["n_problems"],
    }


def _top_head(heads: pd.DataFrame) -> dict[str, Any]:
    best = heads.iloc[0]
    scores = ["composite_score", *(f"{name}_score" for name in METRICS), "max_attention"]
    return {
        "layer": int(best["layer"]),
        "head": int(best["head"]),
        "functional_type": str(best["functional_type"]),
        **{name: float(best[name]) for name in scores},
    }


def _metrics(heads: pd.DataFrame) -> dict[str, dict[str, float]]:
    return {
        f"{name}_score": {
            "mean": float(heads[f"{name}_score"].mean()),
            "max": float(heads[f"{name}_score"].max()),
        }
        for name in METRICS
    }


def _hub_strength(study: Study) -> dict[str, Any]:
    hub = study.summary["hub_analysis"]
    return {"score": hub["hub_score"], "ratio": hub["hub_ratio"], "strong": hub["is_strong_hub"]}
