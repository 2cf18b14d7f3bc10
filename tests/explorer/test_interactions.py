"""Every interaction by click and by key; what is shown is what the arrays hold."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.explored import HEAD, recall, undefined

from codi_lens import rank_heads
from codi_lens.attention.extract import accuracy
from codi_lens.explorer.explore import explorer_of, heads_by_view
from codi_lens.explorer.packing import MAX_ERROR, as_text
from codi_lens.explorer.payload import Told
from codi_lens.plots.html import script_json
from codi_lens.positions import possible_cells

SHOWN = MAX_ERROR + 0.005  # two decimals
QUERIES = ["bot", *(f"ct{i}" for i in range(6)), "eot", "anchor"]
KEYS = ["question", "bot", *(f"ct{i}" for i in range(6)), "eot", "answer"]


def expected(name: str, problem: str | None = None, *, ablated: bool = False) -> np.ndarray:
    explored = recall()
    attention = explored.ablated if ablated else explored.attention
    one = attention.mean("problem") if problem is None else attention.sel(problem=problem)
    layer, head = map(int, re.findall(r"\d+", name))
    return np.where(possible_cells(6), one.sel(layer=layer, head=head), np.nan)


def same(shown: np.ndarray, wanted: np.ndarray, tolerance: float = SHOWN) -> None:
    np.testing.assert_allclose(shown, wanted, atol=tolerance, equal_nan=True)


def test_pointing_previews_a_head_clicking_locks_it_and_double_clicking_clears(open_explorer):
    view = open_explorer()
    view.head_cell("L1H2").hover()
    assert view.title() == "L1H2"
    same(view.matrix(), expected("L1H2"))
    view.head_cell("L0H6").click()
    assert view.title() == "L0H6 (locked)"
    view.head_cell("L1H2").hover()
    assert view.title() == "L0H6 (locked)", "a locked head stays while others are pointed at"
    same(view.matrix(), expected("L0H6"))
    view.head_cell("L1H5").click(modifiers=["Shift"])
    same(view.matrix(second=True), expected("L1H5"))
    assert view.page.locator(".matrices h3").nth(1).inner_text().startswith("L1H5, mean over 10")
    view.head_cell("L0H6").dblclick()
    state = view.state()
    assert (state["locked"], state["pin"]) == (False, -1)


def test_arrows_move_the_head_and_stop_at_the_edge(open_explorer):
    view = open_explorer("head=L1H1")
    moves = [("ArrowRight", "L1H2"), ("ArrowDown", "L2H2"), ("ArrowDown", "L2H2")]
    moves += [("ArrowLeft", "L2H1"), ("ArrowUp", "L1H1"), ("ArrowLeft", "L1H0")]
    for key, name in [*moves, ("ArrowLeft", "L1H0")]:
        view.press(key)
        assert view.title() == f"{name} (locked)"
        same(view.matrix(), expected(name))


def test_home_end_and_pages_go_along_the_ranking(open_explorer):
    ranking = rank_heads(recall().attention)["name"].tolist()
    view = open_explorer()
    for key, place in (("End", -1), ("PageUp", -2), ("Home", 0), ("PageDown", 1)):
        view.press(key)
        assert view.title() == f"{ranking[place]} (locked)"


def test_brackets_step_through_problems_and_head_zoom_and_scale_survive(open_explorer):
    view = open_explorer(f"head={HEAD}&zoom=1.5&scaled=1")
    ids = [problem.id for problem in recall().problems]
    view.press("]", "]")
    view.wait("e.shown.problem === 1")
    same(view.matrix(), expected(HEAD, ids[1]))
    assert view.note(".place") == f"2 of 10: {ids[1]}"
    state = view.state()
    assert (state["zoom"], state["scaled"], view.title()) == (1.5, True, f"{HEAD} (locked)")
    view.press("[", "[")
    view.wait("e.shown.problem === -1")
    same(view.matrix(), expected(HEAD))
    view.to_problem(ids[7])
    same(view.matrix(), expected(HEAD, ids[7]))
    view.press("m")
    view.wait("e.shown.problem === -1")


def test_searching_steps_only_through_what_it_finds(open_explorer):
    problems = recall().problems
    word = problems[6].question.split()[0]
    found = [i for i, each in enumerate(problems) if word.lower() in each.question.lower()]
    view = open_explorer()
    view.press("/")
    view.page.keyboard.type(word)
    told = "1 matches" if len(found) == 1 else f"{len(found)} match"
    assert view.page.get_by_text(told, exact=True).is_visible()
    for place in found:
        view.press("Enter")
        view.wait(f"e.shown.problem === {place}")
    view.press("Enter", "Escape")  # and round again
    view.wait(f"e.shown.problem === {found[0]}")
    view.page.get_by_label("Search the problems").fill("no such text")
    assert view.page.get_by_text("0 match", exact=True).is_visible()


def test_the_generation_view_names_what_each_row_makes(open_explorer):
    view = open_explorer(f"head={HEAD}")
    view.press("v")
    values = expected(HEAD)[:6, :]
    shown = view.matrix()
    same(shown, values[:, : shown.shape[1]])
    assert shown.shape == (6, 7)  # question, bot, ct0 … ct4: the last thought is not seen
    assert view.page.get_by_text("ct1 (at ct0)", exact=True).count() >= 1
    assert view.state()["quantity"] == "generation/composite"
    view.page.get_by_label("position", exact=True).check()
    assert view.matrix().shape == (9, 10)
    assert view.state()["quantity"] == "position/composite"


def test_differences_are_symmetric_shared_and_marked_where_clipped(open_explorer):
    explored = recall()
    id = explored.problems[2].id
    view = open_explorer(f"head={HEAD}&problem={id}")
    view.press("d")
    view.wait("e.shown.isDifference")
    same(view.matrix(), expected(HEAD, id) - expected(HEAD), 2 * SHOWN)
    limit = view.page.evaluate(f"{view.EXPLORER}.shown.limit")
    legend = view.page.locator(".panel-head .legend").first.inner_text()
    assert f"−{limit:.2f}" in legend and f"+{limit:.2f}" in legend
    view.head_cell("L0H0").click()
    assert view.page.evaluate(f"{view.EXPLORER}.shown.limit") == limit
    view.press("d")
    view.wait("e.shown.baselineName.includes('zeroed')")
    same(view.matrix(), expected("L0H0", id) - expected("L0H0", id, ablated=True), 2 * SHOWN)
    other = explored.problems[5].id
    view.choose("Compare with", f"problem/{other}")
    view.wait(f"e.shown.baselineName === 'problem {other}'")
    same(view.matrix(), expected("L0H0", id) - expected("L0H0", other), 2 * SHOWN)
    clipped = view.page.evaluate(
        """e => e.matrix.cells.map(cell => [
             Math.abs(e.shown.at(e.head, cell.query, cell.key)) > e.shown.limit,
             cell.clip.getAttribute('visibility') === 'visible'])""",
        view.page.evaluate_handle(view.EXPLORER),
    )
    assert all(beyond == marked for beyond, marked in clipped)
    view.press("m")
    view.choose("Compare with", "series/1")
    view.wait("e.shown.isDifference && e.shown.problem === -1")
    same(view.matrix(), expected("L0H0") - expected("L0H0", ablated=True), 2 * SHOWN)
    view.press("Escape")
    view.wait("!e.shown.isDifference")


def test_colours_have_one_fixed_scale_until_asked_otherwise(open_explorer):
    explored = recall()
    view = open_explorer("head=L1H0")
    weak = view.fill(view.cell("ct5", "ct1"))
    value = explored.attention.mean("problem").sel(layer=1, head=0, query="ct5", key="ct1")
    palette = f"{view.EXPLORER}.palette.attention({float(value)})"
    assert weak == view.page.evaluate(palette)
    assert "scaled to" not in view.page.locator(".panel-head .legend").first.inner_text()
    view.press("s")
    most = np.nanmax(expected("L1H0"))
    palette = f"{view.EXPLORER}.palette.attention({float(value / most)})"
    assert view.fill(view.cell("ct5", "ct1")) == view.page.evaluate(palette)
    assert "scaled to L1H0" in view.page.locator(".panel-head .legend").first.inner_text()
    view.page.get_by_label("Scaled to this head").uncheck()
    assert view.fill(view.cell("ct5", "ct1")) == weak


def test_hover_texts_say_everything_that_is_known(open_explorer):
    view = open_explorer(f"head={HEAD}")
    view.cell("anchor", "ct0").hover()
    title, *lines = view.tip()
    assert title == f"{HEAD}: anchor → ct0"
    values = recall().attention.sel(query="anchor", key="ct0")
    mean = values.mean("problem")
    own = float(mean.sel(layer=2, head=3))
    assert lines[0].startswith(f"attention {own:.3f} [")
    rank = int((mean > own).sum()) + 1
    assert f"rank {rank} of 24 heads in this cell" in lines
    view.choose("Quantity", "Ablation/effect, thinking")
    view.head_cell("L1H4").hover()
    title, *lines = view.tip()
    row = recall().effects.query("name == 'L1H4' and scope == 'thinking'").iloc[0]
    assert title == "L1H4" and f"{abs(row['effect']):.3f}" in lines[0] and "nats" in lines[0]
    assert "q " in lines[0] and any(line.startswith("rank") for line in lines)


def test_a_strip_shows_the_real_tokens_and_the_question_is_shaded(open_explorer):
    explored = recall()
    problem = explored.problems[1]
    view = open_explorer(f"head={HEAD}&problem={problem.id}&cell=ct0,question")
    texts = view.page.locator(".strip text").all_text_contents()
    tokens = [text.replace(" ", "␣") for text in explored.runs[0].tokens[1]]
    shown = [text for text in texts if text not in QUERIES]
    assert shown == [t if len(t) <= 16 else f"{t[:15]}…" for t in tokens if t][: len(shown)]
    assert problem.question in view.page.locator(".question").inner_text()
    place = int(explored.runs[0].index("ct0")[1])
    where = explored.runs[0].span("question")[1]
    pattern = explored.runs[0].cache()["blocks.2.attn.hook_pattern"][1, 3, place, where]
    strongest = int(pattern.argmax())
    view.page.locator(f".strip [data-cell='{len(shown) + strongest}']").hover()
    title, line = view.tip()
    assert f"token {strongest} " in title and line.startswith("attention ")
    assert abs(float(line.split()[1]) - float(pattern.max())) <= MAX_ERROR + 5e-4
    shaded = view.page.locator(".token[style]").all_inner_texts()
    assert explored.runs[0].tokens[1][where][strongest] in shaded


def test_the_problem_tells_answer_totals_edges_and_the_lens(open_explorer):
    explored = recall()
    problem = explored.problems[0]
    view = open_explorer(f"problem={problem.id}")
    text = view.note(".panel-problem")
    assert "✓ right" in text or "✗ wrong" in text
    for total in problem.totals:
        assert f" {total}" in text
    query, key = problem.edges[0]
    query = "anchor" if query == "answer" else query
    view.page.get_by_role("button", name=f"{query} → {key}").click()
    assert view.state()["cell"] == [QUERIES.index(query), KEYS.index(key)]
    tokens = view.page.locator("table.lens tbody tr").last.locator("td").all_inner_texts()
    wanted = explored.lens["token"].sel(problem=problem.id, layer=2, rank=1, position=QUERIES)
    assert [token.replace("␣", " ") for token in tokens] == [str(each) for each in wanted.values]


def test_the_mean_says_how_many_answers_are_right(open_explorer):
    found = accuracy(recall().attention)
    assert found is not None
    view = open_explorer()
    assert f"{found['correct']} of {found['n']} answers are right." in view.note(".panel-problem")
    view.page.evaluate(f"{view.EXPLORER}.data.payload.series[0].n = 500")
    view.to_problem(recall().problems[0].id)
    view.to_problem("")
    assert f"of {found['n']} answers shown one by one are right." in view.note(".panel-problem")


def test_a_chosen_cell_is_followed_across_all_heads(open_explorer):
    view = open_explorer(f"head={HEAD}")
    view.cell("anchor", "ct1").click()
    view.choose("Quantity", "cell")
    mean = recall().attention.mean("problem").sel(query="anchor", key="ct1")
    view.press("Home")
    layer, head = np.unravel_index(int(np.argmax(mean.values)), mean.shape)
    assert view.title() == f"L{layer}H{head} (locked)"
    values = view.page.evaluate(f"{view.EXPLORER}.quantity.quantity.values")
    np.testing.assert_allclose(values, mean.values.ravel(), atol=1e-6)


def test_filters_hide_heads_and_say_how_many(open_explorer):
    explored = recall()
    table = rank_heads(explored.attention)
    view = open_explorer()
    view.page.get_by_text("Filters", exact=True).click()
    view.choose("Layers from", "1")
    assert view.page.get_by_text("Filters hide 8 of 24 heads.").is_visible()
    view.choose("Type or band", "type/Multi-Purpose")
    passing = table[(table["layer"] >= 1) & (table["type"] == "Multi-Purpose")]
    hidden = 24 - len(passing)
    assert view.page.get_by_text(f"Filters hide {hidden} of 24 heads.").is_visible()
    rows = view.page.locator(".body .row:not([hidden]) button").all_inner_texts()
    assert sorted(rows) == sorted(passing["name"])
    view.choose("Best", "5")
    best = set(table.head(5)["name"]) & set(passing["name"])
    assert set(view.page.locator(".body .row:not([hidden]) button").all_inner_texts()) == best
    view.choose("Best", "0")
    view.choose("Type or band", "")
    view.choose("Layers from", "0")
    view.choose("Quantity", "Ablation/effect, anchor")
    view.page.get_by_label("q < 0.05 only").check()
    effects = explored.effects[explored.effects["scope"] == "anchor"]
    n = int((effects["q"] >= 0.05).sum())
    assert n and view.page.get_by_text(f"Filters hide {n} of 24 heads.").is_visible()


def test_a_link_restores_everything(open_explorer, saved: Path):
    id = recall().problems[3].id
    view = open_explorer(f"head={HEAD}&pin=L1H1@{id}&problem={id}")
    view.press("v", "s", "+")
    view.choose("Compare with", "mean")
    view.wait("e.shown.isDifference")
    view.choose("Quantity", "difference")
    view.cell("ct1", "ct0").click()
    address = view.address()
    assert "#head=L2H3" in address
    again = open_explorer(address.split("#")[1])
    mine, other = view.state(), again.state()
    assert {k: v for k, v in mine.items() if k != "preview"} == {
        k: v for k, v in other.items() if k != "preview"
    }
    same(again.matrix(), view.matrix(), 0)
    same(again.matrix(second=True), view.matrix(second=True), 0)


def test_what_a_link_names_and_the_page_lacks_is_left_out(open_explorer):
    odd = (
        "head=L99H0&problem=nobody&quantity=x&diff=series/9&cell=bot,ct5&layers=9-1&zoom=7&view=no"
    )
    view = open_explorer(odd)
    plain = open_explorer()
    assert view.state() == plain.state()


def test_heads_are_copied_as_ablate_heads_takes_them(open_explorer):
    view = open_explorer(f"head={HEAD}&pin=L0H4")
    view.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    view.page.get_by_role("button", name="Copy heads").click()
    view.page.get_by_text("copied [(2, 3), (0, 4)]").wait_for()
    assert view.page.evaluate("navigator.clipboard.readText()") == "[(2, 3), (0, 4)]"
    view.page.get_by_role("button", name="Copy link").click()
    view.page.get_by_text("link copied").wait_for()
    assert view.page.evaluate("navigator.clipboard.readText()") == view.address()


def test_the_table_is_saved_as_it_is_sorted_and_filtered(open_explorer):
    view = open_explorer("layers=1-2")
    view.page.locator("[data-column='position/hub'] button").click()
    with view.page.expect_download() as saving:
        view.page.get_by_role("button", name="CSV").click()
    text = Path(saving.value.path()).read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    table = rank_heads(recall().attention)
    wanted = table[table["layer"] >= 1].sort_values("hub", ascending=False)
    assert [row["head"] for row in rows] == wanted["name"].tolist()
    for column in ("hub", "hub_low", "hub_high"):
        values = [float(row[f"position/{column}"]) for row in rows]
        np.testing.assert_allclose(values, wanted[column], rtol=1e-5)


def test_the_panel_is_saved_as_picture_and_as_vectors(open_explorer):
    view = open_explorer(f"head={HEAD}")
    kinds = {"PNG": (b"\x89PNG", 20_000), "SVG": (b"<svg", 5_000)}
    for name, (start, least) in kinds.items():
        with view.page.expect_download() as saving:
            view.page.locator(".panel-head").get_by_role("button", name=name, exact=True).click()
        content = Path(saving.value.path()).read_bytes()
        assert saving.value.suggested_filename == f"{HEAD}.{name.lower()}"
        assert content.startswith(start) and len(content) > least


def test_the_table_sorts_and_its_rows_lock_heads(open_explorer):
    view = open_explorer()
    table = rank_heads(recall().attention)
    header = view.page.locator("[data-column='position/skip']")
    names = view.page.locator(".body .row:not([hidden])")

    def shown() -> list[str]:
        return names.evaluate_all(
            "rows => rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex)"
            ".map(row => row.querySelector('button').textContent)"
        )

    header.locator("button").click()
    ordered = table.sort_values(["skip", "layer", "head"], ascending=[False, True, True])[
        "name"
    ].tolist()
    assert shown() == ordered[: len(shown())] and header.get_attribute("aria-sort") == "descending"
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    worst = table.sort_values(["skip", "layer", "head"])["name"].iloc[0]
    names.get_by_role("button", name=worst, exact=True).click()
    assert view.title() == f"{worst} (locked)"


def test_keys_are_explained_and_every_one_does_something(open_explorer):
    view = open_explorer(f"head={HEAD}")
    view.press("?")
    dialog = view.page.get_by_role("dialog")
    assert dialog.is_visible() and dialog.locator("kbd").count() >= 20
    view.press("Escape")
    assert not dialog.is_visible()
    changes = {"q": "quantity", "s": "scaled", "+": "zoom", "p": "pin", "P": "pinProblem"}
    changes |= {"v": "view", "]": "problem", "d": "diff", "Enter": "locked"}
    for key, field in changes.items():
        before = view.page.evaluate(f"JSON.stringify({view.EXPLORER}.store.state.{field})")
        view.press(key)
        view.wait(f"JSON.stringify(e.store.state.{field}) !== {json.dumps(before)}")


def test_the_theme_follows_the_system_until_it_is_switched(open_explorer):
    for scheme, other in (("light", "dark"), ("dark", "light")):
        view = open_explorer(color_scheme=scheme)
        root = view.page.locator("#explorer")
        assert root.get_attribute("data-theme") == scheme
        view.page.get_by_role("button", name=f"{other} colours").click()
        assert root.get_attribute("data-theme") == other
        assert f"theme={other}" in view.address()
        view.page.goto(view.page.url.split("#")[0] + "?again")
        view.page.wait_for_selector(f"#explorer[data-theme={other}]")  # as reports do


def test_the_title_and_findings_are_shown_and_lead_to_heads(open_explorer, tmp_path):
    attention = recall().attention
    attack = "L1H1 <img src=x onerror=alert(1)> and L9H9"
    told = Told(attack, {"a": attack}, [attack])
    path = explorer_of(attention, told, heads=heads_by_view(attention, None)).save(
        tmp_path / "e.html"
    )
    view = open_explorer(path=path)
    assert view.page.locator("h1").inner_text() == attack
    assert view.page.locator("img").count() == 0
    view.page.get_by_role("button", name="L1H1").last.click()
    assert view.title() == "L1H1 (locked)"
    assert view.page.get_by_role("button", name="L9H9").count() == 0


def test_fast_steps_lose_no_change(open_explorer):
    view = open_explorer()
    explorer = view.page.evaluate_handle(view.EXPLORER)
    explorer.evaluate("e => { e.act.stepProblem(1); e.act.pin(3); e.act.stepProblem(1); }")
    view.wait("e.shown.problem === 1 && e.root.classList.contains('pinned')")
    id = recall().problems[1].id
    same(view.matrix(second=True), expected("L0H3", id))
    view.press("Escape", "[", "[")
    explorer.evaluate("""e => {
        e.act.restore('head=L1H2&problem=test-mixed-3-4&view=generation&quantity=generation/hub');
        e.act.stepProblem(1);
    }""")
    view.wait("e.shown.problem === 5")
    assert view.page.locator(".panel-map h2").inner_text() == "Hub"
    assert view.matrix().shape == (6, 7)
    explorer.evaluate("e => { e.store.set({ problem: 7, locked: false }); e.act.point(4); }")
    view.wait("e.shown.problem === 7")
    heading = view.page.locator(".matrices h3").first.inner_text()
    assert heading == "L0H4, problem test-mixed-3-7"
    same(view.matrix(), expected("L0H4", "test-mixed-3-7")[:6, :7])


def test_a_link_to_a_page_without_a_lock_locks_nothing(open_explorer):
    view = open_explorer(f"head={HEAD}")
    view.press("Escape")
    again = open_explorer(view.address().split("#")[1])
    assert again.title() == HEAD


def test_undefined_rows_are_not_zeros(open_explorer, tmp_path):
    path = undefined().save(tmp_path / "undefined.html")
    view = open_explorer("problem=p1&head=L0H0&cell=anchor,question", path=path)
    assert np.isnan(view.matrix()[-1]).all()
    view.cell("anchor", "ct0").hover()
    assert view.tip()[1:2] == ["undefined: no number in the answer"]
    assert not any("rank" in line and "cell" in line for line in view.tip())
    view.page.locator(".strip [data-cell]").last.hover()
    assert view.tip()[1] == "undefined: no number in the answer"
    assert view.page.get_by_text("Nothing to shade: anchor is undefined").is_visible()
    view = open_explorer("problem=p0&head=L0H0&diff=series/1", path=path)
    assert np.isnan(view.matrix()[-1]).all() and not np.isnan(view.matrix()[-2]).all()


def test_arrows_walk_through_cells_tokens_and_the_lens(open_explorer):
    id = recall().problems[1].id
    view = open_explorer(f"head={HEAD}&problem={id}")
    view.page.locator(".matrix").first.focus()
    view.press("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight")
    assert view.tip()[0] == f"{HEAD}: ct1 → bot"
    view.press("Enter")
    assert view.state()["cell"] == [QUERIES.index("ct1"), KEYS.index("bot")]
    assert view.title() == f"{HEAD} (locked)", "the head stays where it is"
    view.page.locator(".strip").focus()
    view.press("ArrowRight", "ArrowRight")
    assert "→ token 1 " in view.tip()[0]
    view.page.locator(".panel-problem .scroll").focus()
    view.press("ArrowRight", "ArrowDown")
    assert view.tip()[0] == "state at bot after layer 1" and len(view.tip()) == 6


def test_keys_work_after_a_control_was_used(open_explorer):
    view = open_explorer()
    view.page.get_by_label("Scaled to this head").check()
    view.press("]")
    view.wait("e.shown.problem === 0")
    view.page.get_by_label("Quantity", exact=True).focus()
    view.press("]")
    view.wait("e.shown.problem === 1")
    view.page.get_by_label("Problem", exact=True).focus()
    view.press("ArrowRight", "[")
    view.wait("e.shown.problem === 1")
    view.press("?", "?")
    assert not view.page.get_by_role("dialog").is_visible()


def test_arrows_reach_every_head_that_passes(open_explorer):
    view = open_explorer("head=L2H3&top=5")
    names = set(rank_heads(recall().attention).head(5)["name"])
    reached = set()
    for key in ["ArrowUp", *["ArrowRight"] * 4, "ArrowLeft", "ArrowDown"] * 2:
        view.press(key)
        reached.add(view.title().split()[0])
    assert reached == names


def test_a_type_that_the_other_view_lacks_is_no_filter_there(open_explorer):
    table = rank_heads(recall().attention)
    kind = table["type"].value_counts().index[-1]
    view = open_explorer(f"quantity=Ablation/effect, thinking&label=type/{kind}&top=7")
    assert view.page.get_by_label("Best").input_value() == "7"
    view.press("v")
    chosen = view.page.get_by_label("Type or band").input_value()
    assert chosen == view.state()["label"]
    assert chosen in ("", f"type/{kind}")


def test_a_slider_steps_through_what_a_search_finds(open_explorer):
    problems = recall().problems
    word = problems[6].question.split()[0]
    found = [i for i, each in enumerate(problems) if word.lower() in each.question.lower()]
    view = open_explorer(f"search={word}")
    view.page.get_by_label("Problem", exact=True).focus()
    for place in found:
        view.press("ArrowRight")
        view.wait(f"e.shown.problem === {place}")
    view.page.get_by_label("Search the problems").focus()
    view.press("Enter")
    view.wait(f"e.shown.problem === {found[0]}")
    view.page.get_by_label("Search the problems").fill("no such text")
    view.page.get_by_label("Problem", exact=True).focus()
    view.press("ArrowLeft")
    assert view.state()["problem"] == found[0]


def test_a_head_that_stays_in_its_problem_keeps_its_own_scale(open_explorer):
    ids = [problem.id for problem in recall().problems]
    view = open_explorer(f"head={HEAD}&pin={HEAD}@{ids[0]}&problem={ids[1]}&diff=mean")
    legends = view.page.locator(".panel-head .legend").all_inner_texts()
    assert "difference" in legends[0] and legends[1].startswith("attention 0")
    same(view.matrix(second=True), expected(HEAD, ids[0]))
    marks = view.page.locator(".matrix").nth(1).locator("path[visibility=visible]")
    assert marks.count() == 0


def test_what_is_exported_says_what_it_shows(open_explorer):
    id = recall().problems[1].id
    view = open_explorer(f"head={HEAD}&pin=L0H0&problem={id}&diff=mean")
    for place, wanted in (
        (
            ".panel-head",
            [f"{HEAD}, problem {id} less mean over problems", "L0H0, ", "difference −"],
        ),
        (".panel-map", ["Composite", "position view", "faded: wide interval"]),
    ):
        with view.page.expect_download() as saving:
            view.page.locator(place).get_by_role("button", name="SVG").click()
        text = Path(saving.value.path()).read_text(encoding="utf-8")
        assert [each for each in wanted if each not in text] == []
    view.choose("Quantity", "cell")
    with view.page.expect_download() as saving:
        view.page.get_by_role("button", name="CSV").click()
    header = Path(saving.value.path()).read_text(encoding="utf-8").splitlines()[0]
    assert f"problem {id}" in header and "less that of mean over problems" in header


def test_a_page_of_another_version_says_so(open_page, tmp_path):
    path = tmp_path / "newer.html"
    page = recall().explorer.page().replace('{"version":1,', '{"version":2,')
    path.write_text(page, encoding="utf-8")
    opened = open_page(path)
    told = opened.get_by_text("reads data of version 1, not 2; save the explorer again")
    told.wait_for()
    assert opened.locator("h1").inner_text() == "tiny-recall, explored"


WIDGET = """async ([payload, blocks, given]) => {
  const heard = {};
  const values = { payload, state: '', selected_heads: [], problem: null, ...given };
  values.blocks = Object.fromEntries(Object.entries(blocks).map(([name, text]) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return [name, new DataView(bytes.buffer)];
  }));
  const model = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; (heard[name] ?? []).forEach((f) => f()); },
    on: (name, f) => (heard[name.slice(7)] ??= []).push(f),
    off: () => {},
    save_changes: () => {},
  };
  document.body.replaceChildren();
  const el = document.createElement('div');
  document.body.append(el);
  await CodiLensExplorer.render({ model, el });
  Object.assign(window, { model, explorer: el.firstChild.explorer });
}"""


def test_the_widget_takes_what_python_has_chosen_and_tells_what_is_chosen(open_page, saved):
    explored = recall()
    ids = [problem.id for problem in explored.problems]
    texts = {name: as_text(each) for name, each in explored.explorer.blocks.items()}
    payload = script_json(explored.explorer.payload)
    page = open_page(saved)

    def shown(given):
        page.evaluate(WIDGET, [payload, texts, given])

    def told():
        return page.evaluate("[model.get('selected_heads'), model.get('problem')]")

    shown({"selected_heads": [[2, 3], [1, 0]], "problem": ids[4]})
    assert told() == [[[2, 3], [1, 0]], ids[4]]
    assert page.locator(".pinned").count() == 1
    state = page.evaluate("model.get('state')")
    page.evaluate("explorer.act.clear()")
    assert told() == [[], ids[4]]
    page.evaluate("explorer.act.pin(3)")
    assert told() == [[[0, 3]], ids[4]] and not page.evaluate("explorer.store.state.locked")
    page.evaluate("explorer.act.show(19); explorer.act.pinHere(); explorer.act.show(3)")
    page.wait_for_function("() => explorer.store.state.pinProblem === 4")
    page.evaluate("explorer.act.show(19)")
    assert page.evaluate("explorer.store.state.pin") == 19
    page.evaluate(
        "id => { model.set('selected_heads', [[0, 1], [0, 2]]); model.set('problem', id); }", ids[2]
    )
    page.wait_for_function("() => explorer.shown.problem === 2")
    assert page.locator(".pinned").count() == 1
    assert page.evaluate("explorer.second.cells.length") == possible_cells(6).sum()
    shown({"state": state, "selected_heads": [[2, 3], [1, 0]], "problem": ids[4]})
    assert told() == [[[2, 3], [1, 0]], ids[4]]
    shown({"state": "head=L2H3&locked=0&problem=" + ids[1], "problem": ids[1]})
    assert told() == [[], ids[1]]
    shown({"state": state, "selected_heads": [], "problem": ids[4]})
    assert told() == [[], ids[4]], "Python took the selection away while nothing was shown"
    assert page.locator(".panel-head h2").inner_text() == HEAD


@pytest.mark.parametrize("touch", [True])
def test_a_finger_locks_heads_and_reads_cells(open_explorer, touch: bool):
    view = open_explorer(width=390, height=800, has_touch=touch)
    view.head_cell("L1H3").tap()
    assert view.title() == "L1H3 (locked)"
    view.cell("ct1", "question").tap()
    assert view.tip()[0] == "L1H3: ct1 → question"
