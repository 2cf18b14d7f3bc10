"""What a person sees: nothing overlaps, nothing is cut, everybody can read it, and it is quick."""

from __future__ import annotations

import pytest
from support.accessibility import serious_findings
from support.explored import HEAD, recall

WIDTHS = [390, 900, 1500, 2560]
OVERLAPS = """() => {
  const root = document.querySelector('.codi-lens-explorer'), found = [];
  const shown = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length;
  const cut = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5 &&
                        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
  const check = (elements) => {
    const boxes = elements.filter(shown).map((e) => [e, e.getBoundingClientRect()]);
    boxes.forEach(([a, one], i) => boxes.slice(i + 1).forEach(([b, other]) => {
      if (!a.contains(b) && !b.contains(a) && cut(one, other)) found.push(
        `${a.tagName} ${a.textContent.slice(0, 30)} | ${b.tagName} ${b.textContent.slice(0, 30)}`);
    }));
  };
  const outside = '.tip, .spoken, dialog, .scroller, .strip, .lens';
  const texts = 'h1, h2, h3, h4, p, button, select, label, summary, output, li, dd, .card';
  check([...root.querySelectorAll(texts)].filter((e) => !e.closest(outside)));
  for (const figure of root.querySelectorAll('.map svg, .matrix svg, .strip svg')) {
    check([...figure.querySelectorAll('text:not([transform])')].filter((e) => e.textContent));
    const labels = [...figure.querySelectorAll('text[transform]')];
    const turned = labels.map((e) => Number(e.getAttribute('x')));
    turned.slice(1).forEach((x, i) => { if (x - turned[i] < 12) found.push('turned labels'); });
  }
  return found;
}"""
OUTSIDE = """() => [...document.querySelectorAll('.card, h1, button, select, .facts div')]
  .filter((e) => e.checkVisibility() && !e.closest('.scroller, dialog, .strip'))
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 80))"""
TIMES = """async (e) => {
  const best = async (act, n = 15) => {
    const times = [];
    for (let i = 0; i < n; i++) {
      const start = performance.now();
      act(i);
      document.body.offsetHeight;
      times.push(performance.now() - start);
      await new Promise((drawn) => requestAnimationFrame(drawn));
    }
    return times.sort((a, b) => a - b)[n >> 1];
  };
  const given = e.data.payload.quantities.filter(({ view }) => view !== 'generation');
  const names = given.map(({ name }) => name);
  const head = await best((i) => e.act.show((i * 37) % 512));
  const metric = await best((i) => e.store.set({ quantity: names[i % names.length] }));
  e.store.set({ problem: 40 });
  while (e.shown.problem !== 40) await new Promise((done) => setTimeout(done, 1));
  const withTokens = await best((i) => e.act.show((i * 37) % 512));
  return { head, metric, withTokens };
}"""


RING = """() => {
  const e = document.activeElement;
  if (e === document.body) return ['', ''];
  const ring = e.type === 'radio' ? e.nextSibling : e;
  return [e.getAttribute('aria-label') || e.textContent || e.value,
          getComputedStyle(ring).outlineStyle];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overlaps_or_leaves_the_page(open_explorer, width: int, scheme: str) -> None:
    id = recall().problems[2].id
    for fragment in ("", f"head={HEAD}&pin=L0H0&problem={id}&diff=mean&layers=1-2&view=generation"):
        view = open_explorer(fragment, width=width, color_scheme=scheme)
        assert view.page.evaluate(OVERLAPS) == []
        assert view.page.evaluate(OUTSIDE) == []
        wide = "document.documentElement.scrollWidth <= innerWidth"
        assert view.page.evaluate(wide), f"the page scrolls sideways at {width} px"


@pytest.mark.parametrize("width", WIDTHS)
def test_labels_of_512_heads_do_not_overlap(open_explorer, saved_large, width: int) -> None:
    view = open_explorer("problem=p3&head=L3H7", path=saved_large, width=width)
    assert view.page.evaluate(OVERLAPS) == []
    assert view.page.evaluate(OUTSIDE) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1500])
def test_axe_has_no_serious_findings(open_explorer, scheme: str, width: int) -> None:
    id = recall().problems[2].id
    view = open_explorer(f"head={HEAD}&pin=L0H0&problem={id}", width=width, color_scheme=scheme)
    view.page.wait_for_timeout(300)  # the table for screen readers is written when things are calm
    assert serious_findings(view.page) == []


def test_screen_readers_get_the_matrix_as_a_table_and_hear_of_a_lock(open_explorer) -> None:
    view = open_explorer()
    view.press("Home", "ArrowLeft")
    name = view.title().split()[0]
    view.page.wait_for_function(
        "name => document.querySelector('.spoken caption')?.textContent.startsWith(name)", arg=name
    )
    cells = view.page.locator(".spoken td").all_text_contents()
    assert len(cells) == 90 and cells.count("impossible") == sum(
        text == "impossible" for text in cells
    )
    layer, head = (int(part) for part in name[1:].split("H"))
    mean = recall().attention.mean("problem").sel(layer=layer, head=head)
    assert cells[0] == f"{float(mean[0, 0]):.3f}"
    live = view.page.locator("[aria-live].spoken").last.text_content() or ""
    assert live.startswith(f"{name}, mean over 10 problems. Composite")


def test_focus_can_be_seen_and_reaches_every_control(open_explorer) -> None:
    view = open_explorer()
    reached: list[str] = []
    for _ in range(80):
        view.press("Tab")
        name, ring = view.page.evaluate(RING)
        if name == "":
            break  # back at the document itself
        reached.append(name)
        assert ring != "none", f"no ring around {name}"
    for name in ("Quantity", "Compare with", "Problem", "Search the problems", "Heads", "SVG"):
        assert name in reached


@pytest.mark.parametrize(("width", "below"), [(1500, False), (900, False), (390, True)])
def test_what_a_click_changes_is_in_sight(open_explorer, width: int, below: bool) -> None:
    view = open_explorer(width=width, height=900, reduced_motion="reduce")
    view.page.locator(".scroller").scroll_into_view_if_needed()
    name = view.page.locator(".body .row button").nth(3)
    name.scroll_into_view_if_needed()
    name.click()
    view.page.wait_for_timeout(100)
    box = view.page.locator(".matrix").first.bounding_box()
    assert box and -50 < box["y"] < 850, "the matrix of the locked head is in the window"
    head, table = (
        view.page.evaluate(f"document.querySelector('{each}').getBoundingClientRect().left")
        for each in (".panel-head", ".panel-table")
    )
    assert (head == table) == below


def test_it_is_quick_with_512_heads(open_explorer, saved_large) -> None:
    view = open_explorer(path=saved_large)
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    assert view.page.evaluate(paint) < 1500
    times = view.page.evaluate(TIMES, view.page.evaluate_handle(view.EXPLORER))
    assert times["head"] < 50 and times["withTokens"] < 50 and times["metric"] < 100, times
    rows = view.page.locator(".body .row").count()
    assert rows < 40, "only rows in sight exist"
    assert saved_large.stat().st_size < 15_000_000


def test_the_last_of_512_rows_can_be_reached(open_explorer, saved_large) -> None:
    view = open_explorer(path=saved_large)
    view.page.locator(".scroller").evaluate("box => { box.scrollTop = box.scrollHeight }")
    view.page.wait_for_function(
        "() => document.querySelector('.body [aria-rowindex=\"513\"]') !== null"
    )


def test_strips_that_are_left_out_are_said_to_be(open_explorer, saved_large) -> None:
    view = open_explorer("problem=p1", path=saved_large)
    script = "e => e.data.names.filter((_, head) => !e.shown.strip.keeps(head))"
    explorer = view.page.evaluate_handle(view.EXPLORER)
    left_out = view.page.evaluate(script, explorer)
    explorer.evaluate("(e, name) => e.act.show(e.data.headOf(name))", left_out[0])
    kept = 512 - len(left_out)
    told = f"Token strips are kept for {kept} of 512 heads, so that the page stays small; "
    assert view.page.get_by_text(f"{told}{left_out[0]} is not among them.").is_visible()
