"""Shared fixtures, wherever tests run: a process that only hands tests out needs no model."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if not hands_out:
        config.pluginmanager.import_plugin("support.shared")
