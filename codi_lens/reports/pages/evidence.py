"""What stands behind the findings about one model: its figures, by name, and its part of a page."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from codi_lens.attention.evidence import Evidence
from codi_lens.attention.hubs import hub_verdict
from codi_lens.plots.attention import hubs, profiles
from codi_lens.plots.attention import probes as truth
from codi_lens.plots.attention import stability as structure
from codi_lens.plots.html import render
from codi_lens.reports.pages.page import ShownFigure

_FIRM = "How firm is the ranking?"
_HUB = "Is there a hub, and would more problems show one?"
_TYPES = "Do heads fall into types?"
_PARTS = {
    "Where attention goes": (
        "Most of a head's attention may lie outside the thoughts, where the study never looks.",
        ("destinations", "skip_profile"),
    ),
    _HUB: (
        "A ratio of 1 is no preference. A hub gets more than an even spread and than a smooth "
        "preference for early thoughts explain. A band that narrows around its line without "
        "moving says that the number of problems is not what decides.",
        ("hub_ratios", "hub_ratio_by_n_problems"),
    ),
    _FIRM: (
        "Ranks of heads with similar scores change places between samples of problems.",
        ("rank_intervals",),
    ),
    _TYPES: (
        "The study sets thresholds on three scores; clusters group heads by where their thoughts "
        "look, with nothing set by hand. Any heads can be grouped: whether there are groups, a "
        "comparison with heads that have none says.",
        ("clusters", "clusters_and_types"),
    ),
    "What the answer reads, and what it would find": (
        "Decodable is not used, and attended is not used either: only an intervention shows what "
        "the answer depends on.",
        ("answer_reads", "answer_reads_by_length", "decodable_totals"),
    ),
}


def evidence_figures(evidence: Evidence) -> dict[str, go.Figure]:
    """Every figure that this evidence allows, in the order in which to read them.

    Left out are those that nothing is known for: hubs and distances of a single thought, clusters
    of fewer than three heads, an answer without numbers, totals of other than built-in problems.

    Args:
        evidence: from `gather_evidence`.
    """
    figures = {"destinations": profiles.destinations(evidence.goes)}
    if evidence.n_thoughts > 1:
        figures |= {
            "hub_ratios": hubs.hub_ratios(evidence.hubs),
            "hub_ratio_by_n_problems": hubs.hub_ratio_by_n_problems(evidence.hubs_by_n),
            "skip_profile": profiles.by_distance(evidence.distances, evidence.distances_null),
        }
    figures["rank_intervals"] = structure.rank_intervals(evidence.heads)
    if evidence.clusters is not None:
        figures |= {
            "clusters": structure.clusters(evidence.clusters),
            "clusters_and_types": structure.clusters_and_types(evidence.clusters, evidence.types),
        }
    if len(evidence.answer):
        figures["answer_reads"] = profiles.answer_reads(evidence.answer)
    if evidence.probes is not None:
        figures["decodable_totals"] = truth.decodable_totals(evidence.probes, evidence.supervised)
    if evidence.answer_by_length is not None:
        figures["answer_reads_by_length"] = truth.answer_reads_by_length(
            evidence.answer_by_length, evidence.probes
        )
    return figures


def evidence_section(
    evidence: Evidence,
    shown: Mapping[str, ShownFigure],
    prefix: str,
    explorer: str | None = None,
) -> Markup:
    """The HTML of one model's section: figures two abreast where there is room, short captions.

    Args:
        evidence: from `gather_evidence`.
        shown: all figures of the page; this model's are `prefix` and a name of
            `evidence_figures`.
        prefix: of the names of this model's figures.
        explorer: the file of this model's explorer, which names of heads are linked to.
    """
    parts = [
        {
            "title": title,
            "caption": " ".join([caption, *_verdicts(evidence, title)]),
            "figures": [shown[prefix + name] for name in names if prefix + name in shown],
            "halves": _halves(evidence.halves) if title == _FIRM else [],
        }
        for title, (caption, names) in _PARTS.items()
    ]
    kept = [part for part in parts if part["figures"] or part["halves"]]
    return render("reports/pages/evidence.html", parts=kept, prefix=prefix, explorer=explorer)


def _verdicts(evidence: Evidence, title: str) -> list[str]:
    if title == _TYPES and evidence.clusters is not None:
        return [evidence.clusters.verdict]
    if title == _HUB and evidence.n_thoughts > 1:
        return [hub_verdict(evidence.hubs)]
    return []


def _halves(halves: pd.DataFrame | None) -> list[list[str]]:
    rows = []
    for row in [] if halves is None else halves.to_dict("records"):
        constant = pd.isna(row["correlation"])
        rows.append(
            [
                row["score"].replace("_", " "),
                "equal for all heads"
                if constant
                else f"{row['correlation']:.2f} [{row['low']:.2f}, {row['high']:.2f}]",
                "" if constant else f"{row['shared_top']:.1f}",
                f"{row['shared_by_chance']:.1f}",
            ]
        )
    return rows
