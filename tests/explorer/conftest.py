"""Saved explorers, and the explorer in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browser import Pages
from support.explored import large, recall
from support.explorer_page import ExplorerPage

Open = Callable[..., ExplorerPage]


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recall().explorer.save(tmp_path_factory.mktemp("explorer") / "explorer.html")


@pytest.fixture(scope="session")
def saved_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large().save(tmp_path_factory.mktemp("large") / "explorer.html")


@pytest.fixture
def open_explorer(open_page: Pages, saved: Path) -> Open:
    def open_(fragment: str = "", path: Path = saved, **settings: Any) -> ExplorerPage:
        address = f"{path.resolve().as_uri()}#{fragment}"
        return ExplorerPage(open_page(address, **settings))

    return open_
