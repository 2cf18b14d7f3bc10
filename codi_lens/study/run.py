"""All that the study computes of one model, in one call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from codi_lens.errors import AttentionError, shown
from codi_lens.study.checks import Check, study_checks
from codi_lens.study.heads import mean_and_std, study_heads
from codi_lens.study.settings import StudyThresholds
from codi_lens.study.summary import attention_stats, attention_summary, findings_text


@dataclass(frozen=True, eq=False)
class Study:
    """All that the study reports of one model.

    Attributes:
        model: what to call the model.
        mean: [layer, head, query, key], the generation view averaged over problems.
        std: the same shape, the population deviation over problems.
        heads: one row per head, best composite first (the study's `ranked_heads.csv`).
        stats: the study's `attention_stats.json`.
        summary: the study's `attention_summary.json`.
        findings: the study's `critical_heads_findings.txt`.
        checks: its validation checks and success criteria.
        thresholds: what the verdicts were reached with.
    """

    model: str
    mean: xr.DataArray
    std: xr.DataArray
    heads: pd.DataFrame
    stats: dict[str, Any]
    summary: dict[str, Any]
    findings: str
    checks: list[Check]
    thresholds: StudyThresholds


def run_study(
    attention: xr.DataArray,
    model: str = "model",
    thresholds: StudyThresholds | None = None,
) -> Study:
    """Everything the study computes of one model.

    Args:
        attention: labelled attention [problem, layer, head, query, key], as `extract` gives it.
        model: what to call the model.
        thresholds: the study's own if None.

    Raises:
        AttentionError: not labelled attention, no problem in it, a name that is no text, or
            thresholds that are none.

    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> study.heads[["rank", "name", "functional_type"]].values.tolist()
    [[1, 'L0H1', 'Multi-Purpose'], [2, 'L0H0', 'Forward Flow']]
    """
    thresholds = StudyThresholds() if thresholds is None else thresholds
    if not isinstance(model, str):
        raise AttentionError(f"model= is what to call the model, a text, not {shown(model)}.")
    if not isinstance(thresholds, StudyThresholds):
        raise AttentionError(f"thresholds= takes StudyThresholds or None, not {shown(thresholds)}.")
    mean, std = mean_and_std(attention)
    heads = study_heads(mean, thresholds)
    stats = attention_stats(mean, std, model, attention.sizes["problem"], thresholds)
    return Study(
        model=model,
        mean=mean,
        std=std,
        heads=heads,
        stats=stats,
        summary=attention_summary(mean, model, thresholds),
        findings=findings_text(heads, model, thresholds),
        checks=study_checks(attention, heads, stats, thresholds),
        thresholds=thresholds,
    )
