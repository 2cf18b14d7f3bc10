"""Pages of reports: where one is, how one gets on, and light and dark."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup
from support.browser import Pages
from support.constructed import make_attention, make_heads
from support.pages import Tags

from codi_lens import CodiModel, extract, plots
from codi_lens.attention.opening import AMONG_OUTCOMES
from codi_lens.plots.html import linked, slug
from codi_lens.problems import word_problems
from codi_lens.reports.pages.folder import write_report
from codi_lens.reports.pages.page import sections_page
from codi_lens.reports.pages.section import Section, report_page

LONG = [f"Sentence {i} of many that make a section long enough to scroll." for i in range(40)]


def sections() -> list[Section]:
    heads = make_heads(make_attention())
    figures = {"hub": plots.head_map(heads, "hub"), "flow": plots.score_intervals(heads, "flow")}
    shown = {"In numbers": (["head", "note"], [["L1H2", "<L0H1> & more"], ["L0H0", 3]])}
    named = ["L1H2 is needed; L0H1 <is> not."]
    return [
        Section("first", "Which heads, & why?", "Asked of L0H0.", named, figures, {}, shown),
        Section("second", "What then?", "Asked so.", LONG),
        Section("third", "And then?", "Asked so.", LONG),
    ]


@pytest.fixture
def page_at(open_page: Pages, tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "explorer.html").write_text("<title>The explorer</title>", encoding="utf-8")
    html = report_page("tiny", {"Model": "tiny"}, sections(), explorer="explorer.html")
    (tmp_path / "index.html").write_text(html, encoding="utf-8")

    def open_(width: int = 1400, **settings: Any) -> Any:
        given = {"reduced_motion": "reduce", "height": 800, **settings}
        page = open_page(tmp_path / "index.html", width, **given)
        page.set_default_timeout(8000)
        page.wait_for_selector(".main-svg")
        return page

    return open_


def current(page: Any) -> list[str]:
    return page.locator("nav a[aria-current=location]").all_inner_texts()


def test_anchors_are_named_after_headings_and_each_is_there_once() -> None:
    tags = Tags(report_page("tiny", {}, sections())).tags
    anchors = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert {"which-heads-why", "what-then", "and-then"} <= {*anchors}
    links = [found["href"] for tag, found in tags if tag == "a" and found["href"].startswith("#")]
    assert [link for link in links if link[1:] not in anchors] == []
    assert links[1:6] == [
        "#which-heads-why",
        "#figure-hub",
        "#figure-flow",
        "#which-heads-why-in-numbers",
        "#what-then",
    ]


def test_two_sections_of_one_title_have_anchors_of_their_own() -> None:
    page = sections_page("t", "h", "l", [], {"A b": Markup("<p>1"), "a B?": Markup("<p>2")}, {})
    assert re.findall(r'<h2 id="([^"]*)"', page) == ["a-b", "a-b-"]


def test_heads_are_links_only_where_there_is_an_explorer_and_text_stays_escaped() -> None:
    assert "explorer" not in re.sub(
        "(?s)<(script|style)>.*?</", "", report_page("t", {}, sections())
    )
    page = report_page("tiny", {}, sections(), explorer="my explorer.html")
    for head in ("L1H2", "L0H1", "L0H0"):
        assert f'<a href="my%20explorer.html#head={head}">{head}</a>' in page
    assert "<is>" not in page and "</a> &lt;is&gt; not." in page
    assert "&lt;<a" in page and "&amp; more" in page
    assert '<a class="explorer" href="my%20explorer.html">Open the explorer</a>' in page


@pytest.mark.parametrize("text", ["XL1H2", "L1H2b", "L1", "H2", "l1h2"])
def test_only_names_of_heads_are_links(text: str) -> None:
    assert linked(text, "explorer.html") == text


def test_no_text_or_file_name_gets_out_of_its_link() -> None:
    got = str(linked('<b>"L1H2"', 'a"><script>.html'))
    assert got.startswith("&lt;b&gt;&#34;<a href=") and "<script" not in got
    assert slug("???") == "section" and slug("“Sequential” flow") == "sequential-flow"


def test_explorers_of_two_models_are_told_apart() -> None:
    files = {"gpt2": "gpt2.html", "llama": "llama.html"}
    page = sections_page("t", "h", "l", [], {}, {}, files)
    assert re.findall(r'class="explorer" href="([^"]*)">([^<]*)<', page) == [
        (file, f"Open the explorer of {name}") for name, file in files.items()
    ]


def test_a_written_report_links_to_the_explorer_beside_it(tmp_path: Path) -> None:
    write_report(sections(), tmp_path, "tiny", {})
    assert "explorer.html" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    model = CodiModel.from_pretrained("tiny-gpt2")
    extract(model, word_problems(4), tmp_path / AMONG_OUTCOMES, progress=False)
    write_report(sections(), tmp_path, "tiny", {})
    assert (tmp_path / "explorer.html").is_file()
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "explorer.html#head=L1H2" in page
    assert "explorer.html" not in (tmp_path / "findings.md").read_text(encoding="utf-8")


def test_the_list_of_contents_stays_and_marks_where_one_is(page_at: Callable[..., Any]) -> None:
    page = page_at()
    assert current(page) == ["Which heads, & why?"]
    page.get_by_role("link", name="What then?").click()
    page.wait_for_timeout(200)
    assert current(page) == ["What then?"]
    top = page.locator("nav.contents").bounding_box()["y"]
    assert 0 <= top < 10, "the list is still in sight"
    inside = page.locator("nav li.open li")
    assert inside.count() == 0, "only the current section shows its own headings"


def test_on_a_phone_the_list_folds_into_a_bar_that_stays(page_at: Callable[..., Any]) -> None:
    page = page_at(390)
    details = page.locator("nav.contents details")
    assert details.get_attribute("open") is None
    page.locator("nav.contents summary").click()
    page.get_by_role("link", name="And then?").click()
    page.wait_for_timeout(200)
    assert details.get_attribute("open") is None, "it closes behind one"
    assert 0 <= page.locator("nav.contents").bounding_box()["y"] < 10
    assert "And then?" in page.locator("nav.contents summary").inner_text()
    bar = page.locator("nav.contents").bounding_box()
    heading = page.locator("#and-then").bounding_box()
    assert heading["y"] >= bar["height"], "the bar does not lie over the heading"
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_first_tab_skips_to_the_content(page_at: Callable[..., Any]) -> None:
    page = page_at()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the first section"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_click_on_a_cell_opens_its_head(page_at: Callable[..., Any]) -> None:
    page = page_at()
    box = page.locator("[data-figure=hub]")
    box.scroll_into_view_if_needed()
    box.locator(".main-svg").first.wait_for()
    place = box.locator(".nsewdrag").bounding_box()
    at = (place["x"] + place["width"] * 0.99, place["y"] + place["height"] * 0.99)
    page.mouse.move(at[0] - 5, at[1])
    page.mouse.move(*at)
    page.wait_for_timeout(200)
    page.mouse.click(*at)
    page.wait_for_url("**/explorer.html#head=*")
    last = make_heads(make_attention()).sort_values(["layer", "head"])["name"].iloc[-1]
    assert page.url.endswith(f"#head={last}")


BACKGROUND = "getComputedStyle(document.body).backgroundColor"
PAPER = "document.querySelector('[data-figure=hub]').layout.paper_bgcolor"


def test_pages_follow_the_system_and_the_switch_goes_before_it(page_at: Callable[..., Any]) -> None:
    light, dark = page_at(color_scheme="light"), page_at(color_scheme="dark")
    light_paper, dark_paper = light.evaluate(PAPER), dark.evaluate(PAPER)
    assert (light_paper, light.evaluate(BACKGROUND)) == ("white", "rgb(245, 246, 248)")
    assert dark_paper != "white" and dark.evaluate(BACKGROUND) == "rgb(14, 18, 23)"
    light.get_by_role("button", name="Dark").click()
    assert light.evaluate(PAPER) == dark_paper, "figures follow without a reload"
    assert light.evaluate(BACKGROUND) == "rgb(14, 18, 23)"
    light.reload()
    assert light.evaluate(BACKGROUND) == "rgb(14, 18, 23)", "the choice is kept"
    pressed = light.locator(".theme button[aria-pressed=true]")
    assert pressed.all_inner_texts() == ["Dark"]
    light.get_by_role("button", name="Auto").click()
    assert light.evaluate(BACKGROUND) == "rgb(245, 246, 248)"
    light.emulate_media(color_scheme="dark")
    light.wait_for_timeout(300)
    assert light.evaluate(BACKGROUND) == "rgb(14, 18, 23)"


def test_a_page_works_where_nothing_is_kept(page_at: Callable[..., Any]) -> None:
    page = page_at()
    page.add_init_script(
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('no'); }})"
    )
    page.reload()
    page.wait_for_selector(".main-svg")
    page.get_by_role("button", name="Dark").click()
    assert page.evaluate(BACKGROUND) == "rgb(14, 18, 23)"


def test_nothing_glides_for_those_who_ask_for_less_motion(page_at: Callable[..., Any]) -> None:
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert page_at(reduced_motion="no-preference").evaluate(behaviour) == "smooth"
    assert page_at(reduced_motion="reduce").evaluate(behaviour) == "auto"


def test_a_box_that_scrolls_says_so_on_the_side_where_more_is(page_at: Callable[..., Any]) -> None:
    page = page_at(390)
    box = page.locator(".scroller:has([data-figure=hub])")
    assert "more-right" in (box.get_attribute("class") or "")
    box.locator(".scroll").evaluate("box => box.scrollLeft = box.scrollWidth")
    page.wait_for_timeout(200)
    classes = (box.get_attribute("class") or "").split()
    assert "more-left" in classes and "more-right" not in classes
    assert page_at().locator("[data-figure=hub]").locator("..").get_attribute("tabindex") == "-1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_a_page_can_be_read(page_at: Callable[..., Any], scheme: str) -> None:
    page = page_at(color_scheme=scheme)
    page.wait_for_timeout(300)
    faint = page.evaluate(
        """() => {
          const luminance = (rgb) => rgb.map((part) => part / 255)
            .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
            .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
          const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
          const behind = (node) => {
            for (; node; node = node.parentElement) {
              const [red, green, blue, alpha = 1] = parts(getComputedStyle(node).backgroundColor);
              if (alpha > 0.5) return [red, green, blue];
            }
            return [255, 255, 255];
          };
          const found = [];
          const texts = "h1, h2, h3, p, a, li, th, td, dt, dd, button, summary";
          const drawn = ".xtick text, .ytick text, .g-xtitle text, .cbaxis text";
          for (const node of document.querySelectorAll(`${texts}, ${drawn}`)) {
            const style = getComputedStyle(node);
            const ink = parts(node.closest("svg") ? style.fill : style.color).slice(0, 3);
            const pair = [luminance(ink), luminance(behind(node))].sort((a, b) => a - b);
            if ((pair[1] + 0.05) / (pair[0] + 0.05) < 4.5) found.push([node.textContent, ink]);
          }
          return found;
        }"""
    )
    assert faint == []
