"""A wrong kind of argument is refused at the border, in one sentence of the fitting class."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from jaxtyping import config

import codi_lens as cl
from codi_lens import plots
from codi_lens.attention.example import two_heads
from codi_lens.errors import (
    AttentionError,
    CheckpointError,
    CodiLensError,
    InterventionError,
    OutputError,
    PositionError,
    ProblemError,
)
from codi_lens.problems import is_correct, load_problems, word_problems

ODD: tuple[Any, ...] = (1j, "L0H0", ["x", 1], {"a": 1}, np.array(1), np.nan, pd.NA, object(), int)
SOME = word_problems(2)


def _name(value: Any) -> str:  # not its text, which may hold an address
    return type(value).__name__


def refused(error: type[CodiLensError], call: Callable[..., Any], *given: Any, **more: Any) -> None:
    with pytest.raises(error) as caught:
        call(*given, **more)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.fixture(autouse=True)
def unchecked() -> Iterator[None]:
    """As users run it, without beartype, which would refuse wrong types before codi_lens can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def model() -> cl.CodiModel:
    return cl.CodiModel.from_pretrained("tiny-gpt2")


@pytest.fixture(scope="module")
def heads() -> pd.DataFrame:
    return cl.rank_heads(two_heads(), n_resamples=10)


@pytest.mark.parametrize("odd", ODD, ids=_name)
def test_attention_tables_and_models_of_another_kind(odd: Any, heads: pd.DataFrame) -> None:
    for call in (cl.run_study, cl.rank_heads, cl.thought_view, cl.generation_view):
        refused(AttentionError, call, odd)
    refused(AttentionError, plots.head_map, odd, "hub")
    refused(AttentionError, plots.head_map, heads, odd)
    refused(AttentionError, plots.top_heads, two_heads().mean("problem"), odd)
    refused(InterventionError, plots.causal_map, odd)
    refused(InterventionError, cl.score_vs_effect, odd, heads, ["hub"])
    refused(InterventionError, cl.score_vs_effect, heads, odd, ["hub"])
    sweeps = (cl.sweep_heads, cl.sweep_layers, cl.attribute_heads)
    for call in (*sweeps, cl.extract, cl.extract_scores):
        refused(CodiLensError, call, odd, SOME, progress=False)
    if not isinstance(odd, str):
        refused(AttentionError, cl.run_study, two_heads(), odd)
        refused(OutputError, cl.open_attention, odd)
        refused(OutputError, cl.open_scores, odd)
        refused(ProblemError, is_correct, odd, 3)
        refused(PositionError, cl.swap_columns, odd, "ct1")
        refused(ProblemError, word_problems, 2, split=odd)
    refused(AttentionError, cl.run_study, two_heads(), thresholds=odd)


@pytest.mark.parametrize("odd", [*(each for each in ODD if np.ndim(each)), 1j, 0, 0.5, None, "x"])
def test_how_runs_are_made(odd: Any, model: cl.CodiModel) -> None:
    arms = {"a": cl.ablate_heads([(0, 0)], "zero")}
    refused(ProblemError, cl.compare_interventions, model, SOME, arms, max_new_tokens=odd)
    refused(ProblemError, cl.compare_interventions, model, SOME, arms, rows_at_once=odd)
    refused(ProblemError, cl.extract, model, SOME, max_new_tokens=odd)
    refused(ProblemError, model.verify, SOME, 1, max_new_tokens=odd)
    refused(CodiLensError, model.verify, SOME, 1, settings=odd)
    if odd is not None:
        refused(ProblemError, model.verify, SOME, odd)
        refused(InterventionError, cl.extract, model, SOME, interventions=odd)
    refused(CodiLensError, cl.dose_response, model, SOME, odd)
    refused(InterventionError, cl.compare_interventions, model, SOME, odd)
    refused(InterventionError, cl.compare_interventions, model, SOME, {"a": odd})
    if odd is not None:  # the source's dtype, and no source
        refused(OutputError, cl.extract, model, SOME, dtype=odd)
        refused(OutputError, cl.extract, model, SOME, source=odd)
    if odd not in ("x", None):
        refused(OutputError, cl.extract, model, SOME, odd, progress=False)
        refused(OutputError, cl.compare_interventions, model, SOME, arms, odd, progress=False)


def test_tensors_without_data_or_dimensions(model: cl.CodiModel) -> None:
    refused(InterventionError, cl.freeze_patterns, torch.zeros(2, device="meta"))
    refused(ProblemError, cl.attribute_heads, model, torch.tensor(1), progress=False)


def test_whole_numbers_of_numpy_are_taken(model: cl.CodiModel) -> None:
    more: Any = {"max_new_tokens": np.array(2), "batch_size": np.int64(2), "progress": False}
    assert cl.extract(model, SOME, **more).sizes["problem"] == 2


def test_rows_given_twice_and_texts_for_numbers(heads: pd.DataFrame) -> None:
    twice, words = pd.concat([heads, heads]), heads.assign(hub="x")
    effects = heads.assign(effect=-1.0, effect_low=-2.0, effect_high=0.0, beyond_q=0.5)
    effects = effects.assign(effect_median=-1.0, affected=1.0, min_effect=0.1, matters=False)
    effects = effects.assign(scope="thinking")
    for odd in (twice, words, heads.drop(columns="layer"), heads[:0]):
        refused(AttentionError, plots.head_map, odd, "hub")
    for odd in (
        pd.concat([effects, effects]),
        effects.assign(beyond_q="x"),
        effects.drop(columns="matters"),
    ):
        refused(InterventionError, plots.causal_map, odd)
    refused(InterventionError, cl.score_vs_effect, twice, effects, ["hub"])
    refused(InterventionError, cl.score_vs_effect, heads, effects.assign(effect="x"), ["hub"])
    refused(AttentionError, plots.pattern, xr.DataArray(1.0), 0, 0)


@pytest.mark.parametrize("alpha", [1e308, 1e39, 10**5000], ids=["double", "float32", "int"])
def test_lora_alpha_that_float32_does_not_hold(alpha: float) -> None:
    refused(CheckpointError, cl.CodiModel.from_pretrained, "tiny-gpt2", lora_alpha=alpha)


def test_what_a_fuzz_found(model: cl.CodiModel, heads: pd.DataFrame) -> None:
    quick: dict[str, Any] = {"progress": False, "max_new_tokens": 2}
    for out in ("a\0b", "9" * 5000):
        refused(OutputError, cl.extract, model, SOME, out, **quick)
        refused(OutputError, cl.sweep_heads, model, SOME, [(0, 0)], out, **quick)
        refused(OutputError, cl.open_attention, out)
        refused(ProblemError, load_problems, out)
    for call in (cl.extract, cl.sweep_heads, cl.attribute_heads):
        for progress in (pd.NA, np.zeros(2)):
            refused(CodiLensError, call, model, SOME, progress=progress)
    for odd in (pd.NA, pd.DataFrame(), 5):
        refused(InterventionError, cl.sweep_heads, model, SOME, [(0, 0)], mode=odd, **quick)
        refused(InterventionError, cl.sweep_heads, model, SOME, odd, **quick)
        refused(InterventionError, cl.sweep_thoughts, model, SOME, odd, **quick)
    for at in (torch.tensor(1), np.array(1), pd.NA):
        refused(PositionError, cl.force_hub, "ct0", 0.5, at=at)
        refused(PositionError, cl.ablate_heads, [(0, 0)], "zero", at)
    hub = cl.force_hub(pd.NA, 0.5, at="ct2")  # type: ignore[arg-type]
    refused(PositionError, model.think, [SOME[0].question], interventions=[hub])
    refused(InterventionError, cl.score_vs_effect, heads, heads, [])
    for odd in (np.zeros((2, 2)), 10**5000, "x" * 5000):
        refused(CheckpointError, cl.CodiModel.from_pretrained, "tiny-gpt2", device=odd)
        refused(CheckpointError, cl.CodiModel.from_pretrained, "tiny-gpt2", dtype=odd)
