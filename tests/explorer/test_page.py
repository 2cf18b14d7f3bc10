import re

import numpy as np
import pytest
from support.constructed import make_attention, make_heads
from support.pages import Tags, data_of
from support.reading import traces_of

from codi_lens.errors import AttentionError
from codi_lens.plots import explorer_page, pattern

VIEWS = ("position", "generation")


def make_page(attention=None, *, title="tiny CODI", facts=None, findings=("No hub.",)) -> str:
    attention = make_attention() if attention is None else attention
    heads = {view: make_heads(attention, view) for view in VIEWS}
    facts = {"problems": "100"} if facts is None else facts
    return explorer_page(attention, heads, title=title, facts=facts, findings=findings)


def test_the_page_refers_to_nothing_outside_itself():
    for tag, attributes in Tags(make_page()).tags:
        assert tag not in ("link", "iframe", "img")
        assert not {"src", "href"} & attributes.keys(), (tag, attributes)


def test_the_page_forbids_the_browser_every_connection():
    policies = [a["content"] for t, a in Tags(make_page()).tags if "http-equiv" in a]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")


def test_nothing_offers_to_send_the_data_away(explorer):
    context = "return [...document.querySelectorAll('.js-plotly-plot')].map(p => p._context)"
    contexts = explorer.run(context)
    assert len(contexts) > 2
    found = [(each["showSendToCloud"], each["plotlyServerURL"]) for each in contexts]
    assert set(found) == {(False, "")}
    assert not explorer.run("return document.querySelectorAll('.modebar-btn').length")
    assert not explorer.errors()


def test_text_cannot_become_markup():
    attack = "</script><script>alert(1)</script><b>&{{js}}"
    page = make_page(title=attack, facts={attack: attack}, findings=[attack])
    tags = [tag for tag, _ in Tags(page).tags]
    assert tags.count("script") == 3
    assert "b" not in tags and "alert(1)</script>" not in page
    assert (
        page.count("&lt;script&gt;alert(1)") == 5
    )  # <title>, heading, card's name and value, finding


def test_labels_of_heads_cannot_close_the_data_block():
    attention = make_attention(1, 2)
    heads = {"position": make_heads(attention)}
    heads["position"]["type"] = "</script><!--<script>"
    page = explorer_page(attention, heads, title="t", facts={}, findings=[])
    assert data_of(page)["views"]["position"]["table"][0]["type"] == "</script><!--<script>"
    assert "<!--<script>" not in page


def test_the_page_holds_the_attention_that_it_was_given():
    attention = make_attention()
    data = data_of(make_page(attention))
    np.testing.assert_allclose(
        np.array(data["attention"], dtype=float)[2, 5, -1], attention[2, 5, -1], atol=5e-5
    )
    assert data["views"]["generation"]["pattern"]["queries"] == [
        "bot",
        "ct0",
        "ct1",
        "ct2",
        "ct3",
        "ct4",
    ]
    assert data["views"]["generation"]["constant"] == ["flow"]


def test_an_undefined_score_is_null_and_not_a_broken_page():
    attention = make_attention(1, 2)
    table = make_heads(attention)
    table.loc[0, ["hub", "hub_low", "hub_high"]] = np.nan
    table.loc[0, "hub_position"] = None
    page = explorer_page(attention, {"position": table}, title="t", facts={}, findings=[])
    assert data_of(page)["views"]["position"]["table"][0]["hub"] is None


def test_the_page_stays_small_enough_for_512_heads():
    assert len(make_page(make_attention(16, 32))) < 8_000_000


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (lambda a: {}, 'needs a heads table under "position" or "generation"'),
        (lambda a: {"thoughts": make_heads(a)}, 'must be one of "position", "generation"'),
        (lambda a: {"position": make_heads(a, "generation")}, "computed in the generation view"),
        (lambda a: {"position": make_heads(a)[1:]}, "24 heads, not 23"),
    ],
)
def test_wrong_heads_tables_are_refused(heads, message):
    attention = make_attention()
    with pytest.raises(AttentionError, match=message):
        explorer_page(attention, heads(attention), title="t", facts={}, findings=[])


@pytest.fixture
def explorer(browser, tmp_path):
    path = tmp_path / "explorer.html"
    path.write_text(make_page(), encoding="utf-8")
    return Explorer(browser, path.as_uri())


class Explorer:
    """The page in a browser, with the few things that a visitor does."""

    def __init__(self, driver, address: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        self.driver = driver
        self.wait = WebDriverWait(driver, 30)
        driver.get(address)
        self.wait.until(lambda d: d.execute_script("return document.body.dataset.ready === 'yes'"))

    def run(self, script: str):
        return self.driver.execute_script(script)

    def title(self) -> str:
        return self.run("return document.getElementById('detail-title').textContent")

    def numbers(self, plot: str = "detail") -> np.ndarray:
        cells = self.run(
            f"return document.getElementById('{plot}').calcdata[0][0].z.map(row => Array.from(row,"
            " z => (z === undefined || Number.isNaN(z)) ? null : z))"
        )
        return np.array(cells, dtype=float)

    def point_at(self, layer: int, head: int, *, click: bool = False) -> None:
        from selenium.webdriver import ActionChains

        box = self.run(
            "const map = document.getElementById('map'); map.scrollIntoView({block: 'center'});"
            f"const {{xaxis: x, yaxis: y}} = map._fullLayout, box = map.getBoundingClientRect();"
            f"return [box.left + x._offset + x.r2p({head}), box.top + y._offset + y.r2p({layer})]"
        )
        actions = ActionChains(self.driver, duration=20)
        actions.w3c_actions.pointer_action.move_to_location(*(round(at) for at in box))
        if click:
            actions.click()
        actions.perform()

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def choose(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def shows(self, name: str) -> None:
        self.wait.until(lambda _: self.title().startswith(f"{name},"), f"{name}: {self.title()}")

    def errors(self) -> list:
        return [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


def test_pointing_previews_a_head_and_clicking_locks_it(explorer):
    attention = make_attention()
    explorer.point_at(1, 2)
    explorer.shows("L1H2")
    block = traces_of(pattern(attention, 1, 2))[0].z
    np.testing.assert_allclose(explorer.numbers(), block, atol=5e-5)
    explorer.point_at(0, 6, click=True)
    explorer.shows("L0H6")
    assert explorer.title().endswith("(locked)")
    explorer.point_at(2, 3)
    assert explorer.title().startswith("L0H6,"), "a locked head stays while others are pointed at"
    explorer.point_at(0, 6, click=True)
    explorer.wait.until(lambda _: "locked" not in explorer.title())
    assert not explorer.errors()


def test_arrow_keys_move_between_heads_and_escape_releases(explorer):
    from selenium.webdriver import Keys

    explorer.point_at(1, 2, click=True)
    explorer.shows("L1H2")
    before = explorer.numbers()
    for key, name in (
        (Keys.ARROW_RIGHT, "L1H3"),
        (Keys.ARROW_DOWN, "L2H3"),
        (Keys.ARROW_DOWN, "L2H3"),
    ):
        explorer.press(key)
        explorer.shows(name)
    assert not np.allclose(explorer.numbers(), before, equal_nan=True)
    assert explorer.run("return document.activeElement.id") == "map"
    explorer.press(Keys.ESCAPE)
    assert explorer.title() == "L2H3, position view"
    assert not explorer.errors()


def test_metric_and_view_change_the_map(explorer):
    heads = {view: make_heads(make_attention(), view) for view in VIEWS}

    def expected(view, metric):
        return heads[view][metric].to_numpy().reshape(3, 8)

    np.testing.assert_allclose(explorer.numbers("map"), expected("position", "composite"))
    explorer.choose("#metric option[value=sequential]")
    np.testing.assert_allclose(explorer.numbers("map"), expected("position", "sequential"))
    best = heads["position"].sort_values("sequential").iloc[-1]
    first = explorer.run("return document.querySelector('#top button').textContent")
    assert first.startswith(f"1. {best['name']} · {best['type']}")
    explorer.choose("input[value=generation]")
    np.testing.assert_allclose(explorer.numbers("map"), expected("generation", "composite"))
    assert "self-attention" in explorer.run(
        "return document.querySelectorAll('.charts h2')[1].textContent"
    )
    explorer.choose("#metric option[value=flow]")
    assert "ranks nothing" in explorer.run("return document.getElementById('map-note').textContent")
    assert not explorer.errors()


def test_whole_run_shows_every_labelled_row(explorer):
    explorer.point_at(1, 2, click=True)
    explorer.choose("input[value=run]")
    explorer.wait.until(lambda _: explorer.numbers().shape == (9, 10))
    np.testing.assert_allclose(np.nansum(explorer.numbers(), axis=1), 1, atol=1e-3)
    possible = np.isfinite(explorer.numbers()).sum()
    printed = "return document.querySelectorAll('#detail .scatterlayer .textpoint text').length"
    assert explorer.run(printed) == possible, "every possible cell has its number"
    explorer.choose("input[value=thoughts]")
    explorer.wait.until(lambda _: explorer.numbers().shape == (6, 6))
    assert explorer.run(printed) == 21


def test_a_small_multiple_selects_its_head(explorer):
    explorer.choose("#top button:nth-child(3)")
    name = explorer.run("return document.querySelector('#top button:nth-child(3)').textContent")
    explorer.shows(re.findall(r"L\d+H\d+", name)[0])


def test_the_table_sorts_by_the_column_that_is_clicked(explorer):
    def column(i):
        return explorer.run(
            "return [...document.getElementById('table').tBodies[0].rows]"
            f".map(row => parseFloat(row.cells[{i}].textContent))"
        )

    i = explorer.run(
        "return [...document.querySelectorAll('#table th')]"
        ".findIndex(cell => cell.dataset.column === 'hub')"
    )
    explorer.choose("th[data-column=hub] button")
    assert column(i) == sorted(column(i), reverse=True)
    explorer.choose("th[data-column=hub] button")
    assert column(i) == sorted(column(i)) and len(column(i)) == 24


@pytest.mark.parametrize("width", [600, 900, 1600])
def test_the_page_never_scrolls_sideways(explorer, width):
    explorer.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    try:
        explorer.wait.until(
            lambda d: d.execute_script(
                "return document.documentElement.scrollWidth <= window.innerWidth"
            ),
            f"the page is wider than {width} px",
        )
    finally:
        explorer.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
