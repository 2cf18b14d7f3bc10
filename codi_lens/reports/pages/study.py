"""The page "What the study measured": one self-contained HTML page for one or two models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.attention.evidence import Evidence
from codi_lens.plots.html import text
from codi_lens.plots.study.comparison import model_comparison
from codi_lens.plots.study.figures import study_figures
from codi_lens.plots.study.published import (
    corrected_triptych,
    published_hub_bars,
    published_patterns,
)
from codi_lens.reports.pages.evidence import evidence_figures, evidence_section
from codi_lens.reports.pages.page import card, figure_card, plain_table, sections_page
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
) -> str:
    """The page for one or two studied models; it needs no network.

    Args:
        studies: one or two.
        figures: `report_figures` of them.
        corrected: `corrected_quantities` of each model, by its name.
        measured: `what_the_study_measured` of each model, by its name.
        evidence: `gather_evidence` of each model, by its name.
        facts: short facts of each model for the row of cards, by its name.
    """
    published = {"published/heads": published_patterns(), "published/hubs": published_hub_bars()}
    figures = {**figures, **published}
    names = [study.model for study in studies]
    sections = {
        "Published beside corrected": _beside(names, measured, figures),
    }
    for name in names:
        title = f"What stands behind the findings on {name}"
        sections[title] = evidence_section(evidence[name], figures, f"{name}/evidence/")
    sections["In the study's own numbers"] = _own_numbers(figures)
    if len(studies) == 2:
        sections[f"{names[0]} and {names[1]}"] = _comparison(studies, figures, corrected)
    for study in studies:
        sections[f"The study on {study.model}"] = _reproduction(study, figures)
    return sections_page(
        "What the study measured: " + ", ".join(names),
        "What the study measured",
        _LEAD.format(models=" and ".join(names)),
        [(name, facts[name]) for name in names],
        sections,
        figures,
    )


def _beside(
    names: Sequence[str],
    measured: Mapping[str, Sequence[Measured]],
    figures: Mapping[str, go.Figure],
) -> str:
    body = (
        "<p>The study works in the <em>generation view</em>: row i is the step that generates "
        "thought i, whose query is bot or ct{i−1}. The corrected quantities are in the "
        "<em>position view</em>: the row is the thought that attends, scores are taken per problem "
        "and averaged, brackets are 95 % bootstrap intervals over problems. Both describe the same "
        "attention. Attention shows where heads look, not what is causal.</p>"
    )
    for name in names:
        rows = [[row.question, row.study, row.measures, row.corrected] for row in measured[name]]
        heads = ["Question", "The study's answer", "What that number is", "What answers it"]
        body += card(name, plain_table(heads, rows, "prose"))
        body += figure_card(figures, f"{name}/3_hub_analysis")
        body += figure_card(figures, f"{name}/corrected_hub_analysis")
    return body


def _own_numbers(figures: Mapping[str, go.Figure]) -> str:
    heads = published_heads().to_dict("records")
    head = next(row for row in heads if row["name"] == "L5H3")
    intro = (
        "<p>Some of this needs no model, only the numbers that the study printed. Its GPT-2 head "
        f"L5H3, a “{head['functional_type']}”, has {head['sequential_flow']:.3f} on average in the "
        f"entries [i, i−1], the study's sequential flow, but {head['strongest']:.2f} at "
        f"{head['at']}: a thought reading the one before it. Entries [i, i−1] cannot show that, "
        "because their query and key are the same thought.</p>"
    )
    columns = [
        "Model",
        "Head",
        "Study's type",
        "“Sequential flow” [i, i−1]: self-attention",
        "ct{i} → ct{i−1}",
        "Strongest link",
        "Study's hub",
        "Highest hub ratio to the causal null",
    ]
    rows = [
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
        for row in heads
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
    spread_heads = [
        "Model",
        "Mean std as published, 36 cells",
        "Over the 15 cells that a step can fill",
        "Relative to the mean there",
    ]
    return (
        intro
        + figure_card(figures, "published/heads")
        + card(
            "The same six heads, read in both views",
            "<p>Means are over the entries that the study's steps see, so ct5 as a query is "
            "missing. Six heads chosen by their scores do not stand for a model.</p>"
            + plain_table(columns, rows),
        )
        + figure_card(figures, "published/hubs")
        + card(
            "“Highly consistent across problems”",
            "<p>Twenty-one of the 36 cells are 0 on every problem by construction, and lower the "
            "mean deviation.</p>" + plain_table(spread_heads, spread),
        )
    )


def _comparison(
    studies: Sequence[Study],
    figures: Mapping[str, go.Figure],
    corrected: Mapping[str, pd.DataFrame],
) -> str:
    first, second = studies
    table = compare_studies(first, second)
    names = [first.model, second.model]

    def row(label: str, what: Any) -> list[str]:
        return [label, *(str(what(name)) for name in names)]

    rows = [
        row(
            "layers × heads", lambda name: "{n_layers} × {n_heads}".format(**table["models"][name])
        ),
        row("thoughts", lambda name: table["models"][name]["n_thoughts"]),
        row("problems", lambda name: table["models"][name]["n_problems"]),
        row("hub position", lambda name: table["key_findings"]["hub_position"][name]),
        row("hub ratio", lambda name: f"{table['hub_analysis'][name]['hub_ratio']:.2f}"),
        row(
            "mean std over problems",
            lambda name: f"{table['consistency'][name]['mean_std']:.4f}",
        ),
    ]
    for metric in ("flow_score", "hub_score", "skip_score"):
        for kind in ("mean", "max"):
            rows.append(
                row(
                    f"{metric.replace('_', ' ')}, {kind}",
                    lambda name, metric=metric, kind=kind: (
                        f"{table['attention_metrics'][name][metric][kind]:.3f}"
                    ),
                )
            )
    beside = []
    both = compare_corrected({name: corrected[name] for name in names})
    for (quantity, at), values in both.iterrows():  # pyright: ignore[reportGeneralTypeIssues]
        cells = [_value(values[name]) for name in names]
        if quantity != "given" and any(cells):
            beside.append([quantity, at, *cells])
    return (
        figure_card(figures, "model_comparison")
        + card("Statistical summary, as the study defines it", plain_table(["", *names], rows))
        + card(
            "The corrected quantities side by side",
            "<p>Averaged over heads, with 95 % bootstrap intervals over the same problems; after "
            "the bar, what an even spread over earlier thoughts would give.</p>"
            + plain_table(["Quantity", "At", *names], beside),
        )
    )


def _value(row: pd.Series) -> str:
    if np.isnan(row["value"]):
        return ""
    shown = f"{row['value']:.3f}"
    if not np.isnan(row["low"]):
        shown += f" [{row['low']:.3f}, {row['high']:.3f}]"
    return shown if np.isnan(row["null"]) else f"{shown} | {row['null']:.3f}"


def _reproduction(study: Study, figures: Mapping[str, go.Figure]) -> str:
    shown_above = {f"{study.model}/3_hub_analysis", f"{study.model}/corrected_hub_analysis"}
    body = "".join(
        figure_card(figures, name)
        for name in figures
        if name.startswith(f"{study.model}/")
        and not name.startswith(f"{study.model}/evidence/")
        and name not in shown_above
    )
    best = study.heads.head(N_TOP).to_dict("records")
    columns = ["Rank", "Head", "Type", "Band", "Composite", "Flow", "Hub", "Hub position", "Skip"]
    columns += ["Largest entry", "at [step→thought]"]
    rows = [
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
        for row in best
    ]
    body += card(f"Top {len(best)} heads by composite score", plain_table(columns, rows))
    checks = [
        [check.name, "passed" if check.passed else "failed", check.detail] for check in study.checks
    ]
    body += card("Its validation checks", plain_table(["Check", "Result", "Numbers"], checks))
    return body + card("Its findings text", f"<pre>{text(study.findings)}</pre>")
