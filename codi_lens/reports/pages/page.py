"""What the HTML pages of reports share: the page of sections, and figures in its cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from codi_lens.outputs import write_text
from codi_lens.plots.drawing import style
from codi_lens.plots.html import PLOT_CONFIG, render, slug

_HALF_WIDTH = 780
"""Figures up to so many points wide stand two abreast."""
_FEW = 1
"""Headings up to so many are not listed below their section."""
_OPEN = "Open the explorer"


@dataclass(frozen=True)
class ShownFigure:
    """What a page's template says around a figure, whose headings it sets as text.

    Attributes:
        name: by which the page's script finds what to draw.
        title: its heading.
        note: what stands below that.
        least_width: in points, below which it scrolls in its box.
        height: in points, without the headings.
        wide: whether it takes both columns of a grid.
        anchor: by which a link finds it.
        explorer: the file in which its heads open; None for nowhere.
    """

    name: str
    title: str
    note: str
    least_width: int
    height: int
    wide: bool
    anchor: str
    explorer: str | None


def sections_page(
    title: str,
    heading: str,
    lead: str,
    facts: Sequence[tuple[str, Mapping[str, str]]],
    sections: Mapping[str, Markup],
    figures: Mapping[str, go.Figure],
    explorer: str | Mapping[str, str] | None = None,
) -> str:
    """A self-contained page of sections, which needs no network.

    Args:
        title: of the window.
        heading: of the page.
        lead: what the page is about, in a sentence or two.
        facts: short facts of each model, beside its name, for the rows of cards.
        sections: HTML by heading.
        figures: what the sections' figures show, by name.
        explorer: the file of the explorer beside the page, or of each model's, by its name.
    """
    page = render(
        "reports/pages/sections.html",
        title=title,
        heading=heading,
        lead=lead,
        facts=facts,
        sections=_parts(sections),
        explorers=_explorers(explorer),
        data={
            "figures": {name: figure_data(figure) for name, figure in figures.items()},
            "dark": style.DARK_COLOURS,
        },
    )
    return str(page)


def shown_figures(
    figures: Mapping[str, go.Figure], explorer: str | None = None
) -> dict[str, ShownFigure]:
    """What the macros of `parts.html` need to know of figures, by name.

    Args:
        figures: by name.
        explorer: the file in which their heads open.
    """
    return {name: _shown(name, figure, explorer) for name, figure in figures.items()}


def figure_data(figure: go.Figure) -> dict[str, Any]:
    """What the page's script draws into a figure's box: no title, no width of its own."""
    data = figure.to_plotly_json()
    layout = data["layout"]
    height, cut = _height(figure), layout["height"] - _height(figure)
    for name in ("title", "template", "width", "meta"):
        layout.pop(name, None)
    layout["height"] = height
    layout["margin"] = {**layout["margin"], "t": layout["margin"]["t"] - cut}
    return {"data": data["data"], "layout": layout}


def write_figures(folder: Path, figures: Mapping[str, go.Figure]) -> None:
    """Each figure as an HTML file of its own; one copy of plotly for all, no network either way.

    The same figures give the same bytes.

    Args:
        folder: where to, with the subfolders that the names ask for.
        figures: by path in the folder, without an ending.
    """
    for name, figure in figures.items():
        path = folder / f"{name}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        script: Any = "../" * name.count("/") + "plotly.min.js"
        layout: Any = figure.layout
        drawn = plotly.io.to_html(
            figure,
            config=dict(PLOT_CONFIG),  # plotly takes entries out of it
            include_plotlyjs=script,
            full_html=False,
            div_id="figure",  # a random one by default
        )
        title = Markup(layout.title.text or name).striptags()
        page = render("reports/pages/figure.html", title=title, figure=Markup(drawn))
        write_text(path, f"{page}\n")
    write_text(folder / "plotly.min.js", get_plotlyjs())


@dataclass(frozen=True)
class _Part:
    """A section: its heading, by which link it is found, its HTML, and headings inside it."""

    title: str
    anchor: str
    body: Markup
    entries: list[tuple[str, str]]


class _Headings(HTMLParser):
    """The anchors and texts of a section's own headings: every h3 that a link can find."""

    def __init__(self, body: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._inside = False
        self.feed(body)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        anchor = dict(attrs).get("id")
        if tag == "h3" and anchor:
            self._inside = True
            self.found.append((anchor, ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "h3"

    def handle_data(self, data: str) -> None:
        if self._inside:
            anchor, text = self.found[-1]
            self.found[-1] = (anchor, text + data)


def _parts(sections: Mapping[str, Markup]) -> list[_Part]:
    """Sections with their anchors; headings inside are listed where there are several."""
    made: list[_Part] = []
    taken: set[str] = set()
    for title, body in sections.items():
        anchor = slug(title)
        while anchor in taken:
            anchor += "-"
        taken.add(anchor)
        inside = _Headings(body).found
        made.append(_Part(title, anchor, body, inside if len(inside) > _FEW else []))
    return made


def _explorers(explorer: str | Mapping[str, str] | None) -> dict[str, str]:
    """The files of explorers, by what their links say."""
    if explorer is None:
        return {}
    if isinstance(explorer, str):
        return {_OPEN: explorer}
    several = len(explorer) > 1
    return {f"{_OPEN} of {name}" if several else _OPEN: file for name, file in explorer.items()}


def _shown(name: str, figure: go.Figure, explorer: str | None) -> ShownFigure:
    layout: Any = figure.layout
    return ShownFigure(
        name,
        title=layout.title.text,
        note=(layout.title.subtitle.text or "").replace("<br>", " "),
        least_width=style.least_width_of(figure),
        height=_height(figure),
        wide=style.width_of(figure) > _HALF_WIDTH,
        anchor=f"figure-{slug(name)}",
        explorer=explorer,
    )


def _height(figure: go.Figure) -> int:
    """The height without the title and subtitle, which the page sets as text."""
    layout: Any = figure.layout
    lines = 1 + (layout.title.subtitle.text or "").count("<br>")
    return round(layout.height - min(40 + 20 * lines, layout.margin.t - 30))
