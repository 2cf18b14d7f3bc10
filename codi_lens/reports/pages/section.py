"""The page of a report on one model: one section per question that was put to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from codi_lens.plots.html import render
from codi_lens.reports.pages.page import sections_page, shown_figures

CAUSAL = "Is it causal?"
_LEAD = (
    "Attention shows where a head looks; only an intervention shows what an answer needs. "
    "Unless a section says otherwise, its outcome is the log-probability of the number that the "
    "clean run gives (where problems ask for a choice, a truth value or a text: of that), read "
    "where it is written, as the paired difference from the clean run of the same problem in "
    "nats; intervals are 95 % intervals over problems, and allow for skewed "
    "effects."
)


@dataclass(frozen=True, eq=False)
class Section:
    """One question, how it was asked, and what came out.

    Attributes:
        name: short, for file names.
        title: the question, as a heading.
        lead: how it was asked, in a sentence or two.
        findings: plain sentences with their numbers.
        figures: by file name.
        tables: every number behind the figures, by file name.
        shown: tables as the page shows them, by title: column names, and rows of text.
    """

    name: str
    title: str
    lead: str
    findings: list[str]
    figures: Mapping[str, go.Figure] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    shown: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]] = field(default_factory=dict)


def report_page(
    model: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    heading: str = CAUSAL,
    lead: str = _LEAD,
    explorer: str | None = None,
) -> str:
    """The page for one model; it needs no network.

    Args:
        model: its name.
        facts: short facts for the row of cards.
        sections: in order.
        heading: what the page asks.
        lead: what it is about, in a sentence or two.
        explorer: the file of the model's explorer, which names of heads are linked to.
    """
    bodies = {
        section.title: render(
            "reports/pages/section.html",
            section=section,
            figures=shown_figures(section.figures, explorer).values(),
            explorer=explorer,
        )
        for section in sections
    }
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    title = f"{heading} {model}"
    return sections_page(title, heading, lead, [(model, facts)], bodies, figures, explorer)
