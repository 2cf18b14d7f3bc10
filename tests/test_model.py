"""What users of TransformerLens and Hugging Face type at a model, and what it answers."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from support.oracle import ROOT

from codi_lens import (
    CheckpointError,
    CodiModel,
    Donors,
    InterventionWarning,
    NotOfferedError,
    ablate_heads,
    patch_thoughts,
)
from codi_lens.problems import word_problems

QUESTIONS = [problem.question for problem in word_problems(3, seed=8)]
CHECKPOINTS = [ROOT / "checkpoints" / name for name in ("tiny-gpt2", "tiny-llama")]


@pytest.fixture(params=CHECKPOINTS, ids=lambda path: path.name)
def checkpoint(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_a_model_moved_is_the_model_loaded_there(checkpoint: Path) -> None:
    moved = CodiModel.from_pretrained(checkpoint)
    strides = [value.stride() for value in moved.lens.parameters()]
    assert moved.to(torch.bfloat16) is moved
    loaded = CodiModel.from_pretrained(checkpoint, dtype="bfloat16")
    assert moved.fingerprint() == loaded.fingerprint()
    a, b = (model.think(QUESTIONS, max_new_tokens=4) for model in (moved, loaded))
    assert torch.equal(a.thoughts, b.thoughts) and torch.equal(a.logits, b.logits)
    # In the order in which the forward pass reads them, so that it copies none.
    assert [value.stride() for value in moved.lens.parameters()] == strides


def test_what_rounding_lost_stays_lost_but_positions_are_exact_again(checkpoint: Path) -> None:
    there = CodiModel.from_pretrained(checkpoint)
    buffers = {name: value.clone() for name, value in there.lens.named_buffers()}
    weight = there.lens.W_E.clone()
    back = there.to("cpu", "bfloat16").to("float32")
    assert torch.equal(back.lens.W_E, weight.to(torch.bfloat16).float())
    assert back.lens.cfg.dtype == back.projection.get_parameter("1.weight").dtype == torch.float32
    for name, value in back.lens.named_buffers():
        assert torch.equal(value, buffers[name]), name
    assert back.think(QUESTIONS[:1], max_new_tokens=4).thoughts.dtype == torch.float32


@pytest.mark.parametrize(
    "targets", [(), ("cpu", "cpu"), ("bfloat16", torch.float32), ("int8",), ("cuda:99",)]
)
def test_what_is_no_place_is_refused_and_changes_nothing(
    tiny_gpt2: CodiModel, targets: tuple[Any, ...]
) -> None:
    before = tiny_gpt2.fingerprint()
    with pytest.raises(CheckpointError, match=r"^(A model|The device)[^\n]*\.$"):
        tiny_gpt2.to(*targets)
    assert tiny_gpt2.fingerprint() == before


def test_a_run_with_cache_is_the_run_with_everything_kept(tiny_gpt2: CodiModel) -> None:
    run, cache = tiny_gpt2.run_with_cache(QUESTIONS)
    plain = tiny_gpt2.think(QUESTIONS)
    assert run.answers == plain.answers == tiny_gpt2(QUESTIONS).answers
    assert torch.equal(run.thoughts, plain.thoughts)
    replayed = plain.cache()
    assert set(replayed) <= set(cache)
    name = "blocks.1.attn.hook_z"
    torch.testing.assert_close(cache[name], replayed[name], atol=3e-5, rtol=0)
    _, some = tiny_gpt2.run_with_cache(QUESTIONS, names_filter=name, max_new_tokens=2)
    assert list(some) == [name]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("generate", "think(questions"),
        ("push_to_hub", "save_pretrained"),
        ("run_with_hooks", "interventions="),
        ("cuda", "to('cuda')"),
        ("to_tokens", "model.lens.to_tokens"),
        ("cfg", "model.lens.cfg"),
        ("blocks", "model.lens.blocks"),
        ("W_Q", "model.lens.W_Q"),
        ("save_pretraned", "did you mean save_pretrained?"),
        ("nonsense", "has no nonsense."),
    ],
)
def test_what_is_not_offered_says_what_is(tiny_gpt2: CodiModel, name: str, instead: str) -> None:
    with pytest.raises(NotOfferedError, match=f"^A CodiModel has no {name}") as found:
        getattr(tiny_gpt2, name)
    assert instead in str(found.value) and "\n" not in str(found.value)
    assert not hasattr(tiny_gpt2, name)


def test_a_model_can_still_be_copied(tiny_gpt2: CodiModel) -> None:
    for again in (copy.copy(tiny_gpt2), pickle.loads(pickle.dumps(tiny_gpt2))):
        assert again.fingerprint() == tiny_gpt2.fingerprint()


def test_one_question_takes_its_donors_from_built_in_problems(tiny_gpt2: CodiModel) -> None:
    question = QUESTIONS[:1]
    donors = Donors(tiny_gpt2, word_problems(32))
    for make in (ablate_heads, patch_thoughts):
        what = "L1H7" if make is ablate_heads else "ct1"
        for mode in ("resample", "mean"):
            with pytest.warns(InterventionWarning, match="donors are 32 built-in word problems"):
                alone = tiny_gpt2.think(question, interventions=make(what, mode))
            given = tiny_gpt2.think(question, interventions=make(what, mode, donors=donors))
            assert torch.equal(alone.thoughts, given.thoughts)
            assert alone.answers == given.answers
    clean = tiny_gpt2.think(question)
    assert alone.thoughts.ne(clean.thoughts).any()


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_so_does_one_that_runs_in_another_way(tiny_gpt2: CodiModel, way: str) -> None:
    at = {"skip": "eot", "explain": "question"}[way]
    with pytest.warns(InterventionWarning, match="built-in"):
        getattr(tiny_gpt2, way)(QUESTIONS[:1], interventions=ablate_heads("L1H7", at=at))
