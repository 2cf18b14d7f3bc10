"""The folder of a causal experiment: tables, figures, sentences, and one page of sections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from codi_lens.explorer.folder import save_beside
from codi_lens.outputs import write_text
from codi_lens.reports.pages.page import write_figures
from codi_lens.reports.pages.section import CAUSAL, Section, report_page

Question = Callable[[Path], Section]
"""What is asked of a model and of problems: it gets a folder for its outcomes, which resumes."""


@dataclass(frozen=True, eq=False)
class CausalReport:
    """What interventions showed, and where it was written.

    Attributes:
        sections: one per question.
        folder: holds `index.html`, `explorer.html`, `findings.md`, every table as CSV, the figures
            as HTML in `figures`, and in `outcomes` those of every problem as parquet.
    """

    sections: list[Section]
    folder: Path

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables of all sections, by file name."""
        return {name: table for section in self.sections for name, table in section.tables.items()}

    @property
    def findings(self) -> list[str]:
        """The sentences of all sections."""
        return [sentence for section in self.sections for sentence in section.findings]


def ask(questions: Mapping[str, Question], folder: Path) -> list[Section]:
    """The sections of a report, from questions that are asked one after another.

    Args:
        questions: by the name of the folder in `outcomes` that gets each one's outcomes.
        folder: of `codi_lens.outputs.open_report`.
    """
    return [question(folder / "outcomes" / name) for name, question in questions.items()]


def write_report(
    sections: Sequence[Section],
    folder: Path,
    model: str,
    facts: Mapping[str, str],
    **page: str,
) -> CausalReport:
    """Write everything that the sections of a report found, and an explorer that heads link to.

    There is one where the folder keeps attention.

    Args:
        sections: in the order of the page.
        folder: where to.
        model: its name.
        facts: short facts for the page.
        page: `heading` and `lead` of a page that does not ask what is causal.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for name, table in section.tables.items():
            write_text(folder / f"{name}.csv", table.to_csv(index=False))
    text = f"# {page.get('heading', CAUSAL)} {model}\n"
    for section in sections:
        text += f"\n## {section.title}\n\n"
        text += "".join(f"- {sentence}\n" for sentence in section.findings)
    write_text(folder / "findings.md", text)
    figures = {name: figure for section in sections for name, figure in section.figures.items()}
    write_figures(folder / "figures", figures)
    html = report_page(model, facts, sections, explorer=save_beside(folder), **page)
    write_text(folder / "index.html", html)
    return CausalReport(list(sections), folder)
