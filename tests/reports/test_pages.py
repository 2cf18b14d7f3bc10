"""Pages and written figures: the same bytes every time, and nothing in them sends data away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
import pytest
from support.browser import Pages
from support.constructed import make_attention, make_heads
from support.pages import Tags

from codi_lens import plots
from codi_lens.reports.pages.page import write_figures
from codi_lens.reports.pages.section import Section, report_page

if TYPE_CHECKING:
    from playwright.sync_api import Page

FORBIDDEN = ("default-src 'none'", "connect-src 'none'", "form-action 'none'", "base-uri 'none'")


def figures() -> dict[str, go.Figure]:
    attention = make_attention()
    heads = make_heads(attention)
    return {
        "map": plots.head_map(heads, "composite").update_layout(width=700),
        "a model/pattern <b>\"'": plots.pattern(attention, 1, 2),
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(folder, figures())
    return folder


@pytest.fixture(scope="module")
def page(written: Path) -> Path:
    path = written / "index.html"
    section = Section("s", "Heads?", "Asked so.", ["Found."], {"map": figures()["map"]})
    path.write_text(report_page("tiny", {}, [section]), encoding="utf-8")
    return path


def test_figures_are_the_same_bytes_every_time(written: Path, tmp_path: Path) -> None:
    write_figures(tmp_path, figures())
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    assert names == ["a model/pattern <b>\"'.html", "map.html", "plotly.min.js"]
    for name in names:
        assert (tmp_path / name).read_bytes() == (written / name).read_bytes(), name


def test_the_policy_forbids_every_request_and_form(written: Path, page: Path) -> None:
    for path in written.rglob("*.html"):
        tags = Tags(path.read_text(encoding="utf-8")).tags
        (policy,) = (found["content"] for _, found in tags if "http-equiv" in found)
        assert [rule for rule in FORBIDDEN if rule not in policy] == []
        assert "http:" not in policy
        assert [tag for tag, _ in tags if tag in ("link", "iframe", "form", "base")] == []
    assert "cloud.plotly.com" not in (written / "map.html").read_text(encoding="utf-8")


def test_a_figure_cannot_be_sent_away_from_a_notebook_either() -> None:
    layout: Any = figures()["map"].layout
    assert "sendChartToCloud" in layout.modebar.remove


def drawn(open_page: Pages, path: Path) -> Page:
    opened = open_page(path)
    opened.wait_for_selector(".js-plotly-plot .main-svg", state="attached")
    return opened


def test_no_button_sends_the_chart_away(open_page: Pages, written: Path, page: Path) -> None:
    for path in sorted(written.rglob("*.html")):
        opened = drawn(open_page, path)
        titles = opened.evaluate(
            "[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
        )
        assert titles, "there is a bar of buttons"
        assert [title for title in titles if "hare" in title or "loud" in title] == []
        keys = ("showSendToCloud", "displaylogo", "responsive")
        context = "keys => keys.map(k => document.querySelector('.js-plotly-plot')._context[k])"
        assert opened.evaluate(context, keys) == [False, False, True]


def test_the_browser_refuses_to_send_anything(open_page: Pages, written: Path, page: Path) -> None:
    for path in (written / "map.html", page):
        refused = drawn(open_page, path).evaluate(
            """() => new Promise((done) => {
              const refused = [];
              document.addEventListener("securitypolicyviolation", (event) => {
                refused.push(event.effectiveDirective);
                if (refused.length === 4) done(refused.sort());
              });
              fetch("http://127.0.0.1:9/").catch(() => {});
              new Image().src = "http://127.0.0.1:9/a.png";
              const script = document.createElement("script");
              script.src = "http://127.0.0.1:9/a.js";
              document.head.append(script);
              const form = document.createElement("form");
              form.action = "http://127.0.0.1:9/";
              document.body.append(form);
              form.submit();
            })"""
        )
        assert refused == ["connect-src", "form-action", "img-src", "script-src-elem"]
        assert open_page.complaints, "what was refused is said"
        open_page.complaints.clear()
