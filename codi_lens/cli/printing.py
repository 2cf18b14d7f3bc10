"""What commands print: a table, sentences, and where the page is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from codi_lens.wording import fixed, with_interval

if TYPE_CHECKING:
    import pandas as pd

    from codi_lens.reports.pages.folder import CausalReport


def print_table(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    folded: Sequence[str] = (),
) -> None:
    """A table of texts; the `folded` columns break lines, the others do not."""
    lines = len(folded) == len(columns)
    table = Table(title=Text(title), box=SIMPLE_HEAD, title_style="bold", show_lines=lines)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column not in folded)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def print_findings(console: Console, sentences: Iterable[str]) -> None:
    """One sentence per line."""
    for sentence in sentences:
        console.print(f"• {sentence}", highlight=False, markup=False)


def print_folder(console: Console, folder: Path) -> None:
    """Where the page of a folder is."""
    print_page(console, folder / "index.html")


def print_page(console: Console, page: Path) -> None:
    """Where a page is."""
    path = escape(str(page.resolve()))
    console.print(f"\nOpen [bold]{path}[/bold]", soft_wrap=True)


def print_report(
    console: Console, report: CausalReport, main: str = "", label: str = "", title: str = ""
) -> None:
    """The sentences of a causal report, after the first rows of its main table."""
    if main:
        table = report.tables[main]
        least = f"{table['min_effect'].iloc[0]:g}"
        columns = ("heads", "nats [95 %]", "median", f"≥ {least}", f"q > {least}")
        columns += ("right",)
        rows = _effects(table.head(15), label)
        print_table(console, title, columns, rows, folded=columns[:1])
    for section in report.sections:
        console.print(f"\n[bold]{escape(section.title)}[/bold]")
        print_findings(console, section.findings)
    print_folder(console, report.folder)


def _effects(table: pd.DataFrame, label: str) -> Iterable[tuple[str, ...]]:
    for row in table.to_dict("records"):
        affected, right = (_percent(row[name]) for name in ("affected", "accuracy"))
        numbers = (fixed(row["effect_median"]), affected, f"{row['beyond_q']:.4f}")
        yield row[label], with_interval(row, "effect"), *numbers, right


def _percent(share: Any) -> str:
    return "" if share != share else f"{100 * share:.0f} %"  # NaN
