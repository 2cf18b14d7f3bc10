"""What the HTML pages share: templates, cards, tables, and data that cannot close its script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from codi_lens.outputs import write_text
from codi_lens.plots.html import asset, fill, script_json, text

_HALF_WIDTH = 780
"""Figures up to so many points wide stand two abreast."""


def sections_page(
    title: str,
    heading: str,
    lead: str,
    facts: Sequence[tuple[str, Mapping[str, str]]],
    sections: Mapping[str, str],
    figures: Mapping[str, go.Figure],
) -> str:
    """A self-contained page of sections, which needs no network.

    Args:
        title: of the window.
        heading: of the page.
        lead: what the page is about, in a sentence or two.
        facts: short facts of each model, beside its name, for the rows of cards.
        sections: HTML by heading.
        figures: what the sections' figure cards show.
    """
    ids = [f"section-{place}" for place in range(len(sections))]
    return fill(
        asset("codi_lens.reports.pages", "sections.html"),
        {
            "title": text(title),
            "heading": text(heading),
            "lead": text(lead),
            "facts": "".join(_facts(name, values) for name, values in facts),
            "navigation": "\n".join(
                f'<a href="#{place}">{text(name)}</a>'
                for place, name in zip(ids, sections, strict=True)
            ),
            "sections": "\n".join(
                f'<section aria-labelledby="{place}"><h2 id="{place}">{text(name)}</h2>{body}'
                "</section>"
                for place, (name, body) in zip(ids, sections.items(), strict=True)
            ),
            "css": asset("codi_lens.explorer", "page.css")
            + asset("codi_lens.reports.pages", "sections.css"),
            "js": asset("codi_lens.reports.pages", "sections.js"),
            "plotly": get_plotlyjs(),
            "data": script_json({name: figure_data(figure) for name, figure in figures.items()}),
        },
    )


def figure_card(figures: Mapping[str, go.Figure], name: str) -> str:
    """A card for a figure whose headings are HTML text and whose size follows its box."""
    figure = figures[name]
    heading: Any = figure.layout.title  # pyright: ignore[reportAttributeAccessIssue]
    layout: Any = figure.layout
    title, note = heading.text, (heading.subtitle.text or "").replace("<br>", " ")
    key = text(name)
    return card(
        title,
        f'<p class="note">{text(note)}</p><div class="scroll" tabindex="0">'
        f'<div class="plot" role="img" aria-label="{text(title)}" data-figure="{key}" '
        f'style="min-width:{round(0.75 * layout.width)}px;height:{_height(figure)}px"></div></div>',
    )


def abreast_card(figures: Mapping[str, go.Figure], name: str) -> str:
    """A figure's card for a grid of two columns, across both if the figure is wide."""
    layout: Any = figures[name].layout
    drawn = figure_card(figures, name)
    return drawn if layout.width <= _HALF_WIDTH else f'<div class="wide">{drawn}</div>'


def figure_data(figure: go.Figure) -> dict[str, Any]:
    """What the page's script draws into a `figure_card`: no title, no width of its own."""
    data = figure.to_plotly_json()
    layout = data["layout"]
    height, cut = _height(figure), layout["height"] - _height(figure)
    for name in ("title", "template", "width"):
        layout.pop(name, None)
    layout["height"] = height
    layout["margin"] = {**layout["margin"], "t": layout["margin"]["t"] - cut}
    return {"data": data["data"], "layout": layout}


def write_figures(folder: Path, figures: Mapping[str, go.Figure]) -> None:
    """Each figure as an HTML file of its own; one copy of plotly for all, no network either way.

    Args:
        folder: where to, with the subfolders that the names ask for.
        figures: by path in the folder, without an ending.
    """
    for name, figure in figures.items():
        path = folder / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        script: Any = "../" * name.count("/") + "plotly.min.js"
        write_text(path, plotly.io.to_html(figure, include_plotlyjs=script))
    write_text(folder / "plotly.min.js", get_plotlyjs())


def card(title: str, body: str) -> str:
    """A white box with a heading around HTML."""
    return f'<div class="card"><h3>{text(title)}</h3>{body}</div>\n'


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], kind: str = "") -> str:
    """A table that scrolls in its own box; a cell that says "failed" stands out."""
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in columns)
    lines = []
    for row in rows:
        cells = "".join(
            f'<td class="failed">{text(cell)}</td>'
            if cell == "failed"
            else f"<td>{text(cell)}</td>"
            for cell in row
        )
        lines.append(f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table class="plain {kind}">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _facts(name: str, facts: Mapping[str, str]) -> str:
    cards = "".join(
        f"<div><dt>{text(key)}</dt><dd>{text(value)}</dd></div>" for key, value in facts.items()
    )
    return f'<dl class="facts">{cards}</dl>\n' if cards else f"<p>{text(name)}</p>"


def _height(figure: go.Figure) -> int:
    """The height without the title and subtitle, which the page sets as text."""
    layout: Any = figure.layout
    lines = 1 + (layout.title.subtitle.text or "").count("<br>")
    return round(layout.height - min(40 + 20 * lines, layout.margin.t - 30))
