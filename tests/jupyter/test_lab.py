"""The widget in a real JupyterLab, driven by a browser; `make test-jupyter` runs this."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest
from support.lab import kernel_value, wait_for_value

from codi_lens.attention.example import two_heads

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.jupyter
RunNotebook = Callable[[Sequence[str]], "Page"]

COUNTER = '''
import anywidget
import traitlets


class Counter(anywidget.AnyWidget):
    _esm = """
    function render({ model, el }) {
      const button = document.createElement("button");
      const show = () => { button.textContent = `count ${model.get("count")}`; };
      button.className = "counter";
      button.onclick = () => { model.set("count", model.get("count") + 1); model.save_changes(); };
      model.on("change:count", show);
      show();
      el.append(button);
    }
    export default { render };
    """
    count = traitlets.Int(3).tag(sync=True)


counter = Counter()
counter
'''
EXPLORE = """
from codi_lens import explore
from codi_lens.attention.example import two_heads

shown = explore(two_heads())
shown
"""
IDS = [str(id) for id in two_heads()["problem"].values]


def test_a_widget_and_its_kernel_hear_of_each_other(run_notebook: RunNotebook) -> None:
    page = run_notebook(["import json", COUNTER])
    button = page.locator(".counter")
    assert button.inner_text() == "count 3"
    button.click()
    wait_for_value(page, "counter.count", 4)
    kernel_value(page, "setattr(counter, 'count', 9)")
    page.wait_for_function("() => document.querySelector('.counter').textContent === 'count 9'")
    assert kernel_value(page, "[counter.count, (1, 'a'), {2}]") == [9, [1, "a"], "{2}"]


def test_an_error_in_a_cell_fails(run_notebook: RunNotebook) -> None:
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        run_notebook(["1 / 0"])


def test_the_explorer_shows_itself_and_its_selection_goes_both_ways(
    run_notebook: RunNotebook,
) -> None:
    page = run_notebook([EXPLORE])
    page.wait_for_selector(".codi-lens-explorer[data-ready=yes]")
    assert kernel_value(page, "[shown.selected_heads, shown.problem]") == [[], None]
    page.locator(".map [data-head='1']").click()
    page.locator(".map [data-head='0']").click(modifiers=["Shift"])
    wait_for_value(page, "shown.selected_heads", [[0, 1], [0, 0]])
    page.locator(".codi-lens-explorer").press("]")
    wait_for_value(page, "shown.problem", IDS[0])
    assert page.locator(".panel-head h2").inner_text() == "L0H1 (locked)"
    kernel_value(page, "setattr(shown, 'selected_heads', 'L0H0')")
    page.wait_for_function(
        "() => document.querySelector('.panel-head h2').textContent.startsWith('L0H0')"
    )
    kernel_value(page, f"setattr(shown, 'problem', {IDS[1]!r})")
    page.wait_for_function(
        "id => document.querySelector('.place').textContent.endsWith(id)", arg=IDS[1]
    )
    text = page.locator(".matrix").first.locator("text").all_text_contents()
    value = float(two_heads().sel(problem=IDS[1], head=0, query="ct1", key="ct0").item())
    assert f"{value:.2f}".lstrip("0") in text


def test_keys_of_the_explorer_are_not_jupyter_s(run_notebook: RunNotebook) -> None:
    page = run_notebook([EXPLORE])
    root = page.locator(".codi-lens-explorer[data-ready=yes]")
    root.focus()
    for key in ("d", "d", "m", "v", "End"):  # dd deletes a cell, m makes it Markdown
        page.keyboard.press(key)
    cells = "window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
    assert page.evaluate(f"{cells}.map(cell => cell.cell_type)") == ["code"]
    assert root.locator(".panel-head h2").inner_text().endswith("(locked)")
