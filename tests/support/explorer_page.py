"""The explorer in a browser, with what a visitor sees and does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


class ExplorerPage:
    """An opened page of the explorer."""

    EXPLORER = "document.getElementById('explorer').explorer"

    def __init__(self, page: Page) -> None:
        self.page = page
        page.set_default_timeout(10_000)
        page.wait_for_selector(".codi-lens-explorer[data-ready=yes]")

    def state(self) -> dict[str, Any]:
        return self.page.evaluate(f"{self.EXPLORER}.store.state")

    def names(self) -> list[str]:
        return self.page.evaluate(f"{self.EXPLORER}.data.names")

    def address(self) -> str:
        """The link to what is shown, once the page has written it down."""
        self.wait("location.hash.slice(1) === e.fragment")
        return self.page.url

    def wait(self, condition: str) -> None:
        """Until a condition on the explorer `e` holds."""
        script = f"() => {{ const e = {self.EXPLORER}; return {condition} }}"
        self.page.wait_for_function(script, timeout=10_000)

    def title(self) -> str:
        return self.page.locator(".panel-head h2").inner_text()

    def note(self, selector: str) -> str:
        return self.page.locator(selector).inner_text()

    def head_cell(self, name: str) -> Locator:
        return self.page.locator(f".map [data-head='{self.names().index(name)}']")

    def matrix(self, second: bool = False) -> np.ndarray:
        """The numbers in the cells, row by row as drawn; NaN where there is no number."""
        box = self.page.locator(".matrix").nth(int(second))
        texts: list[list[Any]] = box.evaluate(
            """box => [...box.querySelectorAll('[data-cell]')].map(cell => [
                 cell.getAttribute('y'), cell.getAttribute('x'), cell.nextSibling.textContent])"""
        )
        lines = sorted({float(y) for y, _, _ in texts})
        columns = sorted({float(x) for _, x, _ in texts})
        cells = np.full((len(lines), len(columns)), np.nan)
        for y, x, text in texts:
            where = lines.index(float(y)), columns.index(float(x))
            cells[where] = number(text)
        return cells

    def cell(self, query: str, key: str) -> Locator:
        """A cell of the first matrix."""
        place: int = self.page.evaluate(
            """([query, key]) => {
                 const e = document.getElementById('explorer').explorer;
                 const { queries, keys } = e.data.payload;
                 return e.matrix.cells.findIndex(cell =>
                   queries[cell.query] === query && keys[cell.key] === key) }""",
            [query, key],
        )
        return self.page.locator(".matrix").first.locator(f"[data-cell='{place}']")

    def fill(self, cell: Locator) -> str:
        return cell.get_attribute("fill") or ""

    def tip(self) -> list[str]:
        box = self.page.locator(".tip")
        box.wait_for(state="visible")
        return [*box.locator("b, span").all_inner_texts()]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def choose(self, label: str, value: str) -> None:
        self.page.get_by_label(label, exact=True).select_option(value)

    def to_problem(self, id: str) -> None:
        """Move the slider, as a visitor's keys do."""
        self.page.evaluate(
            """id => { const e = document.getElementById('explorer').explorer;
                       const slider = e.controls.slider;
                       slider.value = e.data.problemOf(id);
                       slider.dispatchEvent(new Event('input', { bubbles: true })) }""",
            id,
        )
        self.wait(f"e.shown.problem === e.data.problemOf('{id}')")


def number(text: str) -> float:
    """A number as the page writes it."""
    plain = text.replace("−", "-").replace("+", "")
    return np.nan if plain in ("", "–") else float(plain)
