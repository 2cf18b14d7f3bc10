"""The page "What the study measured": one self-contained HTML page for one or two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from codi_lens.attention.evidence import Evidence
from codi_lens.plots.html import render
from codi_lens.plots.study.comparison import model_comparison
from codi_lens.plots.study.figures import study_figures
from codi_lens.plots.study.published import (
    corrected_triptych,
    published_hub_bars,
    published_patterns,
)
from codi_lens.reports.pages.evidence import evidence_figures, evidence_section
from codi_lens.reports.pages.page import ShownFigure, sections_page, shown_figures
from codi_lens.study.comparison import compare_corrected, compare_studies
from codi_lens.study.heads import N_TOP
from codi_lens.study.measured import Measured
from codi_lens.study.published import MODELS, published_heads, published_spread
from codi_lens.study.run import Study

_LEAD = (
    "A published study of attention between continuous thoughts asked which thought is a hub, "
    "whether thoughts are processed in sequence, and which heads matter. This page repeats all "
    "that it computes, on {models}, and puts beside each quantity the one that answers the "
    "question."
)


def report_figures(
    studies: Sequence[Study],
    corrected: Mapping[str, pd.DataFrame],
    evidence: Mapping[str, Evidence],
) -> dict[str, go.Figure]:
    """Every figure of one or two studied models, by its path in the folder of figures.

    Args:
        studies: one or two.
        corrected: `corrected_quantities` of each model, by its name.
        evidence: `gather_evidence` of each model, by its name.
    """
    figures: dict[str, go.Figure] = {}
    for study in studies:
        drawn = study_figures(study)
        drawn["corrected_hub_analysis"] = corrected_triptych(study.model, corrected[study.model])
        figures |= {f"{study.model}/{name}": figure for name, figure in drawn.items()}
        behind = evidence_figures(evidence[study.model])
        figures |= {f"{study.model}/evidence/{name}": figure for name, figure in behind.items()}
    if len(studies) == 2:
        figures["model_comparison"] = model_comparison(*studies)
    return figures


def study_page(
    studies: Sequence[Study],
    figures: Mapping[str, go.Figure],
    corrected: Mapping[str, pd.DataFrame],
    measured: Mapping[str, Sequence[Measured]],
    evidence: Mapping[str, Evidence],
    facts: Mapping[str, Mapping[str, str]],
    explorers: Mapping[str, str] | None = None,
) -> str:
    """The page for one or two studied models; it needs no network.

    Args:
        studies: one or two.
        figures: `report_figures` of them.
        corrected: `corrected_quantities` of each model, by its name.
        measured: `what_the_study_measured` of each model, by its name.
        evidence: `gather_evidence` of each model, by its name.
        facts: short facts of each model for the row of cards, by its name.
        explorers: files of explorers by name of the model, which names of its heads are linked to.
    """
    published = {"published/heads": published_patterns(), "published/hubs": published_hub_bars()}
    figures = {**figures, **published}
    names = [study.model for study in studies]
    explorers = explorers or {}
    shown = shown_figures(figures)
    for name in names:
        own = {path: figure for path, figure in figures.items() if path.startswith(f"{name}/")}
        shown |= shown_figures(own, explorers.get(name))
    sections = {"Published beside corrected": _beside(names, measured, shown, explorers)}
    for name in names:
        title = f"What stands behind the findings on {name}"
        sections[title] = evidence_section(
            evidence[name], shown, f"{name}/evidence/", explorers.get(name)
        )
    sections["In the study's own numbers"] = _own_numbers(shown)
    if len(studies) == 2:
        sections[f"{names[0]} and {names[1]}"] = _comparison(studies, shown, corrected)
    for study in studies:
        sections[f"The study on {study.model}"] = _reproduction(
            study, shown, explorers.get(study.model)
        )
    return sections_page(
        "What the study measured: " + ", ".join(names),
        "What the study measured",
        _LEAD.format(models=" and ".join(names)),
        [(name, facts[name]) for name in names],
        sections,
        figures,
        explorers,
    )


def _beside(
    names: Sequence[str],
    measured: Mapping[str, Sequence[Measured]],
    shown: Mapping[str, ShownFigure],
    explorers: Mapping[str, str],
) -> Markup:
    rows = {
        name: [[row.question, row.study, row.measures, row.corrected] for row in measured[name]]
        for name in names
    }
    return render(
        "reports/pages/study_beside.html", measured=rows, shown=shown, explorers=explorers
    )


def _own_numbers(shown: Mapping[str, ShownFigure]) -> Markup:
    published = published_heads().to_dict("records")
    heads = [
        [
            MODELS[row["model"]],
            row["name"],
            row["functional_type"],
            f"{row['sequential_flow']:.3f}",
            f"{row['previous']:.3f}",
            f"{row['at']} {row['strongest']:.2f}",
            row["hub"],
            f"{row['hub_ratio_at']} {row['hub_ratio']:.2f}",
        ]
        for row in published
    ]
    spread = [
        [
            MODELS[row["model"]],
            f"{row['mean_std']:.4f}",
            f"{row['mean_std_possible']:.4f}",
            f"{row['relative']:.0%}",
        ]
        for row in published_spread().to_dict("records")
    ]
    example = next(row for row in published if row["name"] == "L5H3")
    return render(
        "reports/pages/study_own_numbers.html",
        shown=shown,
        example=example,
        heads=heads,
        spread=spread,
    )


def _comparison(
    studies: Sequence[Study],
    shown: Mapping[str, ShownFigure],
    corrected: Mapping[str, pd.DataFrame],
) -> Markup:
    names = [study.model for study in studies]
    beside = []
    both = compare_corrected({name: corrected[name] for name in names})
    for (quantity, at), values in both.iterrows():  # pyright: ignore[reportGeneralTypeIssues]
        cells = [_value(values[name]) for name in names]
        if quantity != "given" and any(cells):
            beside.append([quantity, at, *cells])
    return render(
        "reports/pages/study_comparison.html",
        shown=shown,
        names=names,
        statistics=_statistics(compare_studies(*studies), names),
        corrected=beside,
    )


def _statistics(table: dict[str, Any], names: Sequence[str]) -> list[list[str]]:
    """The study's own numbers: a row of each, a column of each model."""
    columns = []
    for name in names:
        sizes, metrics = table["models"][name], table["attention_metrics"][name]
        columns.append(
            {
                "layers × heads": f"{sizes['n_layers']} × {sizes['n_heads']}",
                "thoughts": str(sizes["n_thoughts"]),
                "problems": str(sizes["n_problems"]),
                "hub position": str(table["key_findings"]["hub_position"][name]),
                "hub ratio": f"{table['hub_analysis'][name]['hub_ratio']:.2f}",
                "mean std over problems": f"{table['consistency'][name]['mean_std']:.4f}",
            }
            | {
                f"{metric.replace('_', ' ')}, {kind}": f"{metrics[metric][kind]:.3f}"
                for metric in ("flow_score", "hub_score", "skip_score")
                for kind in ("mean", "max")
            }
        )
    return [[label, *(column[label] for column in columns)] for label in columns[0]]


def _value(row: pd.Series) -> str:
    if np.isnan(row["value"]):
        return ""
    shown = f"{row['value']:.3f}"
    if not np.isnan(row["low"]):
        shown += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return shown if np.isnan(row["null"]) else f"{shown} | {row['null']:.3f}"


def _reproduction(study: Study, shown: Mapping[str, ShownFigure], explorer: str | None) -> Markup:
    above = {f"{study.model}/3_hub_analysis", f"{study.model}/corrected_hub_analysis"}
    figures = [
        shown[name]
        for name in shown
        if name.startswith(f"{study.model}/")
        and not name.startswith(f"{study.model}/evidence/")
        and name not in above
    ]
    heads = [
        [
            row["rank"],
            row["name"],
            row["functional_type"],
            row["layer_type"],
            *(f"{row[f'{name}_score']:.3f}" for name in ("composite", "flow", "hub")),
            row["hub_position"],
            f"{row['skip_score']:.3f}",
            f"{row['max_attention']:.3f}",
            row["max_position"],
        ]
        for row in study.heads.head(N_TOP).to_dict("records")
    ]
    checks = [
        [check.name, "passed" if check.passed else "failed", check.detail] for check in study.checks
    ]
    return render(
        "reports/pages/study_reproduction.html",
        model=study.model,
        explorer=explorer,
        figures=figures,
        heads=heads,
        checks=checks,
        findings=study.findings,
    )
