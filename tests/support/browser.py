"""A browser for the tests of pages, where the machine has one: Playwright on Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:  # who has no Playwright runs all other tests
    from playwright.sync_api import Browser, ConsoleMessage, Page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WITHIN = ("file:", "data:", "blob:", "about:")  # what a page may ask for


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, started once for a module: until it stops, asyncio says that a loop is running."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no browser to test pages in: chromium must be on the PATH")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield opened
        opened.close()


@dataclass
class Pages:
    """Opens pages, each with a memory of its own, and keeps what goes wrong in any of them."""

    browser: Browser
    server: str | None = None  # what pages may ask too, as http://host:port
    complaints: list[str] = field(default_factory=list)

    def __call__(
        self,
        page: Path | str,
        width: int = 1500,
        height: int = 1000,
        color_scheme: Literal["light", "dark"] = "light",
        reduced_motion: Literal["reduce", "no-preference"] | None = None,
        has_touch: bool = False,
    ) -> Page:
        """The page of a file or a URL, loaded; without a server there is no network."""
        context = self.browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,
            reduced_motion=reduced_motion,
            has_touch=has_touch,
            offline=self.server is None,
        )
        context.on("console", self._heard)
        context.on("weberror", lambda caught: self.complaints.append(f"not caught: {caught.error}"))
        context.on("request", lambda request: self._asked(request.url))
        opened = context.new_page()
        opened.on("websocket", lambda socket: self._asked(socket.url))
        opened.goto(page if isinstance(page, str) else page.resolve().as_uri())
        return opened

    def close(self) -> None:
        """Closes all pages, and fails if anything went wrong in them."""
        for context in self.browser.contexts:
            context.close()
        assert self.complaints == [], "\n".join(self.complaints)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def _asked(self, url: str) -> None:
        served = self.server is not None and url.replace("ws:", "http:", 1).startswith(self.server)
        if not (served or url.startswith(WITHIN)):
            self.complaints.append(f"asked for {url}")


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Pages]:
    """Opens pages; a test that expects complaints looks at `open_page.complaints` and clears it."""
    pages = Pages(browser)
    yield pages
    pages.close()
