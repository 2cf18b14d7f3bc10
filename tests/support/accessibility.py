"""What axe-core, the rules that browsers' own accessibility audits use, says of a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page


def serious_findings(page: Page) -> list[str]:
    """Violations that axe calls serious or critical: rule, element, and what would help."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe is not installed"
    )
    violations = axe.Axe().run(page).response["violations"]
    return [
        f"{found['id']} ({found['impact']}): {' '.join(map(str, node['target']))}: {found['help']}"
        for found in violations
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"]
    ]
