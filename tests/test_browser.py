"""What the tests of pages lean on notices what goes wrong in a page."""

from __future__ import annotations

from pathlib import Path

from support.accessibility import serious_findings
from support.browser import Pages

POLICY = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; {}\">"
LOUD = """<!doctype html><title>t</title><script>
console.error("said");
new WebSocket("ws://127.0.0.1:9/socket");
fetch("http://127.0.0.1:9/fetched").catch(() => {});
setTimeout(() => { throw new Error("thrown"); });
</script>"""
PALE = "<html lang=en><title>t</title><main><h1>Pale</h1><p style='color:#ccc'>text</p></main>"


def test_errors_and_requests_of_a_page_are_noticed(open_page: Pages, tmp_path: Path) -> None:
    (tmp_path / "loud.html").write_text(LOUD)
    opened = open_page(tmp_path / "loud.html")
    expected = ("console: said", "not caught: thrown", "asked for ws:", "asked for http:")
    for _ in range(250):
        heard = "\n".join(open_page.complaints)
        if all(each in heard for each in expected):
            break
        opened.wait_for_timeout(20)
    assert [each for each in expected if each not in heard] == []
    open_page.complaints.clear()


def test_a_page_is_opened_as_its_reader_has_it(open_page: Pages, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<!doctype html><title>t</title>")
    asked = """() => [innerWidth, matchMedia("(prefers-color-scheme: dark)").matches,
        matchMedia("(prefers-reduced-motion)").matches, matchMedia("(pointer: coarse)").matches]"""
    plain = open_page(tmp_path / "page.html")
    other = open_page(tmp_path / "page.html", 400, 800, "dark", "reduce", has_touch=True)
    assert plain.evaluate(asked) == [1500, False, False, False]
    assert other.evaluate(asked) == [400, True, True, True]


def test_axe_finds_pale_text_under_a_strict_policy(open_page: Pages, tmp_path: Path) -> None:
    policy = POLICY.format("style-src 'unsafe-inline'")
    (tmp_path / "pale.html").write_text(f"<!doctype html>{policy}{PALE}")
    (found,) = serious_findings(open_page(tmp_path / "pale.html"))
    assert found.startswith("color-contrast (serious): p: ")
    (tmp_path / "plain.html").write_text(f"<!doctype html>{policy}{PALE.replace('#ccc', '#000')}")
    assert serious_findings(open_page(tmp_path / "plain.html")) == []
