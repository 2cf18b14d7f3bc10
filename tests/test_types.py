"""The types of every module are checked while the tests run."""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float
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


@jaxtyping.jaxtyped(typechecker=beartype)
def halved(
    values: Float[np.ndarray, " value"], weights: Float[np.ndarray, " value"], n: int
) -> Float[np.ndarray, " value"]:
    return (values * weights[: len(values)] / 2)[:n]


def test_an_axis_has_one_length_in_all_arguments_and_the_result() -> None:
    assert halved(np.ones(3), np.ones(3), 3).tolist() == [0.5, 0.5, 0.5]
    assert halved(np.ones(2), np.ones(2), 2).tolist() == [0.5, 0.5], "a call forgets the last one"
    with pytest.raises(BeartypeCallHintViolation, match="weights"):
        halved(np.ones(3), np.ones(4), 3)
    with pytest.raises(BeartypeCallHintViolation, match="return"):
        halved(np.ones(3), np.ones(3), 2)
    with pytest.raises(BeartypeCallHintViolation, match="n="):
        halved(np.ones(3), np.ones(3), "3")  # pyright: ignore[reportArgumentType]
