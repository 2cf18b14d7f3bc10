"""Heads, vectors and numbers as people give them: taken, or refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
import xarray as xr
from jaxtyping import config
from support.against_hand import TEXTS, run, same_bits

import codi_lens
from codi_lens import (
    CodiLensError,
    CodiModel,
    ablate_heads,
    keep_heads,
    patch_residual,
    steer_thoughts,
    swap_thoughts,
)
from codi_lens.head_names import as_heads, parse_heads

HUGE = 10**5000
untyped = cast(Any, codi_lens)  # what takes wrong types on purpose


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it, without beartype, which would refuse wrong types before codi_lens can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    "heads",
    [
        "L1H7",
        "l1h7",
        (1, 7),
        [1, 7],
        [(1, 7)],
        [[1, 7]],
        ["L1H7"],
        ((1, 7),),
        np.array([[1, 7]]),
        np.array([1, 7]),
        torch.tensor([1, 7]),
        [(np.int64(1), torch.tensor(7))],
        (pair for pair in [(1, 7)]),
    ],
)
def test_heads_come_in_many_forms(heads: Any) -> None:
    assert as_heads(heads) == [(1, 7)]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "heads",
    [
        *(None, 3, "x", "L1", "H7", "L1H7;L2H0", b"L1H7", [], ""),
        *("L1H" + "9" * 5000, [(1, HUGE)], [(1,)], [(1, 2, 3)], (1.5, 2), [(1, -1)], (True, 1)),
        *({(1, 7): 0.3}, [None], [("L1", "H7")]),
    ],
)
def test_what_is_no_head_gets_one_sentence(heads: Any) -> None:
    for make in (
        ablate_heads,
        keep_heads,
        lambda given: untyped.scale_heads(given, 2.0),
        lambda given: untyped.knock_out("ct3", "ct1", heads=given if given is not None else 0),
        lambda given: untyped.force_hub("ct1", 0.5, given if given is not None else 0),
        lambda given: untyped.swap_columns("ct1", "ct2", given if given is not None else 0),
        lambda given: untyped.freeze_patterns(given if given is not None else 0),
        lambda given: untyped.transplant_pattern(torch.eye(6), given),
    ):
        with pytest.raises(CodiLensError) as raised:
            make(heads)
        assert len(str(raised.value)) < 250


def test_heads_of_many_digits_are_refused_by_name() -> None:
    with pytest.raises(CodiLensError, match=r"'L1H999.*\.\.\. names no head"):
        parse_heads("L1H" + "9" * 5000, 3, 8)


@pytest.mark.usefixtures("unchecked")
def test_vectors_come_as_arrays(tiny_gpt2: CodiModel) -> None:
    thoughts = run(tiny_gpt2).thoughts.flip(0)
    for as_given in (torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist):
        given = as_given(thoughts)
        direction = as_given(torch.linspace(-1, 1, 96))
        runs = [
            run(tiny_gpt2, swap_thoughts("ct2", given)),
            run(tiny_gpt2, steer_thoughts(direction, 2.0, "ct1")),
            run(tiny_gpt2, patch_residual(1, [f"ct{i}" for i in range(6)], given)),
        ]
        if as_given is torch.Tensor.clone:
            expected = runs
        assert all(same_bits(a, b) for a, b in zip(runs, expected, strict=True))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "make",
    [
        lambda: untyped.ablate_heads((1, 7), mode=3),
        lambda: untyped.ablate_heads((1, 7), mode=np.zeros(2)),
        lambda: untyped.ablate_heads((1, 7), at=2),
        lambda: untyped.ablate_heads((1, 7), seed=-1),
        lambda: untyped.ablate_heads((1, 7), seed=HUGE),
        lambda: untyped.ablate_heads((1, 7), donors=TEXTS),
        lambda: untyped.ablate_heads((1, 7), "zero", donors="x"),
        lambda: untyped.scale_heads((1, 7), "2"),
        lambda: untyped.scale_heads((1, 7), float("nan")),
        lambda: untyped.scale_heads((1, 7), float("inf")),
        lambda: untyped.scale_heads((1, 7), None),
        lambda: untyped.scale_heads((1, 7), HUGE),
        lambda: untyped.knock_out(3, "ct1"),
        lambda: untyped.knock_out("ct3", None),
        lambda: untyped.knock_out("ct3", "ct1", layers=1),
        lambda: untyped.knock_out("ct3", "ct1", layers="01"),
        lambda: untyped.force_hub("ct1", "half"),
        lambda: untyped.force_hub("ct1", float("nan")),
        lambda: untyped.force_hub(1, 0.5),
        lambda: untyped.swap_columns(1, 2),
        lambda: untyped.freeze_patterns(at=3),
        lambda: untyped.set_pattern("x", (1, 7)),
        lambda: untyped.set_pattern(np.zeros((1, 10)), (1, 7)),
        lambda: untyped.set_pattern(xr.DataArray(np.zeros((1, 10)), dims=("query", "key")), (1, 7)),
        lambda: untyped.transplant_pattern("x", (1, 7)),
        lambda: untyped.transplant_pattern(None, (1, 7)),
        lambda: untyped.patch_residual("1", "ct1"),
        lambda: untyped.patch_residual(1.5, "ct1"),
        lambda: untyped.patch_residual(-1, "ct1"),
        lambda: untyped.patch_residual(1, "ct1", None),
        lambda: untyped.patch_residual(1, "ct1", "other"),
        lambda: untyped.patch_residual(1, "ct1", component=3),
        lambda: untyped.patch_residual(1, "ct1", seed=-1),
        lambda: untyped.patch_thoughts(3),
        lambda: untyped.patch_thoughts("ct1", 3),
        lambda: untyped.patch_thoughts("ct1", "noise", seed="x"),
        lambda: untyped.patch_thoughts("ct" + "9" * 5000),
        lambda: untyped.swap_thoughts("ct1", "x"),
        lambda: untyped.swap_thoughts("ct1", None),
        lambda: untyped.swap_thoughts("ct1", torch.zeros(1, 1, 96), seed=-1),
        lambda: untyped.reorder_thoughts("ct1 ct0"),
        lambda: untyped.reorder_thoughts([1, 0]),
        lambda: untyped.reorder_thoughts(3),
        lambda: untyped.steer_thoughts("x"),
        lambda: untyped.steer_thoughts(torch.zeros(96), "2"),
        lambda: untyped.steer_thoughts(torch.zeros(96), float("nan")),
        lambda: untyped.truncate_thoughts("2"),
        lambda: untyped.truncate_thoughts(1.5),
        lambda: untyped.truncate_thoughts(None),
        lambda: untyped.truncate_thoughts(HUGE),
    ],
)
def test_wrong_arguments_get_one_sentence(make: Any) -> None:
    with pytest.raises(CodiLensError) as raised:
        make()
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.usefixtures("unchecked")
def test_wrong_shapes_get_one_sentence(tiny_gpt2: CodiModel) -> None:
    for planned in (
        steer_thoughts(torch.zeros(2, 96)),
        steer_thoughts(torch.tensor(1.0)),
        swap_thoughts("ct1", [1.0, 2.0]),
        patch_residual(1, "ct1", [[1.0]]),
        untyped.transplant_pattern(0.5, (1, 7)),
        untyped.transplant_pattern([[0.5]], (1, 7)),
        ablate_heads((1, 99)),
    ):
        with pytest.raises(CodiLensError):
            run(tiny_gpt2, planned)
