"""The types of every module are checked while the tests run."""

from __future__ import annotations

import pytest
from support.oracle import ROOT

UNCHECKED = {f"codi_lens.problems.{name}" for name in ("operations", "stories", "words")}
"""They have no arrays, and problems are drawn by the thousand."""


def test_every_module_is_checked_but_those_that_draw_problems(pytestconfig: pytest.Config) -> None:
    checked = str(pytestconfig.getoption("--jaxtyping-packages")).split(",")
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "codi_lens").rglob("*.py")
        if not path.stem.startswith("__")
    }
    under = {m for m in modules for name in checked if f"{m}.".startswith(f"{name}.")}
    assert modules - under == UNCHECKED
