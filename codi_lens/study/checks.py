"""The study's validation checks and success criteria, run on whatever model is studied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.attention.labels import labelled
from codi_lens.study.settings import StudyThresholds

_AT_ONCE = 256


@dataclass(frozen=True)
class Check:
    """One of the study's validation checks.

    Attributes:
        name: what is checked.
        passed: whether it holds.
        detail: the numbers behind it.
    """

    name: str
    passed: bool
    detail: str


def study_checks(
    attention: xr.DataArray,
    heads: pd.DataFrame,
    stats: dict[str, Any],
    thresholds: StudyThresholds | None = None,
) -> list[Check]:
    """Every check that the two reports name, with the numbers behind its verdict.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        heads: the study's table of heads.
        stats: the study's `attention_stats.json`.
        thresholds: the study's own if None.
    """
    return [*_data_checks(attention), *_score_checks(heads, stats, thresholds or StudyThresholds())]


def _data_checks(attention: xr.DataArray) -> list[Check]:
    attention = labelled(attention)
    ids = [str(name) for name in attention["problem"].values]
    thoughts = [name for name in attention["query"].values if str(name).startswith("ct")]
    whole = 0
    for start in range(0, len(ids), _AT_ONCE):  # attention that lies on disk stays there
        some = attention.isel(problem=slice(start, start + _AT_ONCE)).sel(query=thoughts)
        sums = some.sum("key", skipna=False).transpose("problem", ...).values
        whole += int((np.abs(sums - 1) < 1e-3).all(axis=tuple(range(1, sums.ndim))).sum())
    checks = [
        Check(
            "every problem extracted",
            whole == len(ids),
            f"{whole}/{len(ids)} problems have finite attention whose rows sum to 1",
        ),
        Check("ids unique", len(set(ids)) == len(ids), f"{len(set(ids))} unique ids"),
    ]
    if "question" in attention.coords:
        filled = sum(bool(str(text).strip()) for text in attention["question"].values)
        checks.append(
            Check("questions present", filled == len(ids), f"{filled}/{len(ids)} are not empty")
        )
    if "expected" in attention.coords:
        known = int(np.isfinite(attention["expected"].values).sum())
        checks.append(
            Check("answers present", known == len(ids), f"{known}/{len(ids)} problems have one")
        )
    return checks


def _score_checks(
    heads: pd.DataFrame, stats: dict[str, Any], thresholds: StudyThresholds
) -> list[Check]:
    checks = [_in_range(heads, name) for name in ("flow", "hub", "skip", "composite")]
    ones = bool(np.allclose(heads["flow_score"], 1, atol=1e-6))
    spread = stats["consistency"]["mean_std"]
    largest = heads["max_attention"]
    strong = float((largest > thresholds.strong_head).mean())
    top = [head["max_attention"] for head in stats["top_20_heads"]]
    return [
        *checks,
        Check(
            "flow is 1 for every head",
            ones,
            "as its formula makes it in this view" if ones else "a head gives thoughts nothing",
        ),
        Check(
            "patterns consistent across problems",
            stats["consistency"]["consistent"],
            f"mean std {spread:.4f}, threshold {thresholds.consistent_std}",
        ),
        Check(
            "patterns not random",
            strong > thresholds.strong_share,
            f"{strong:.1%} of heads have an entry above {thresholds.strong_head}, threshold "
            f"{thresholds.strong_share:.0%}",
        ),
        Check(
            "top heads strong",
            min(top) > thresholds.strong_top,
            f"largest entries of the top {len(top)}: {min(top):.3f} to {max(top):.3f}, threshold "
            f"{thresholds.strong_top}",
        ),
    ]


def _in_range(heads: pd.DataFrame, name: str) -> Check:
    scores = heads[f"{name}_score"]
    low, high = float(scores.min()), float(scores.max())
    bound = "0 or more" if name == "hub" else "0 to 1"
    passed = low >= -1e-6 and (name == "hub" or high <= 1 + 1e-6)
    return Check(f"{name} scores in range", passed, f"{low:.3f} to {high:.3f}; {bound} is possible")
