"""The reference equals what the original CODI code computed, its batched loop included."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.oracle import FORCED, FREE, FREE_ATTENTION, ORACLE_SETTINGS, ROOT, Oracle, largest

from codi_lens import CheckpointError, PositionError
from codi_lens.loading.checkpoint import Checkpoint, read_checkpoint
from codi_lens.verification.reference import Reference
from codi_lens.verification.reference_model import SpecialTokens


@pytest.fixture(scope="module")
def checkpoint(oracle: Oracle) -> Checkpoint:
    return read_checkpoint(oracle.checkpoint, base=oracle.base, **ORACLE_SETTINGS)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint) -> Reference:
    return Reference.from_checkpoint(checkpoint)


def test_forced_thoughts_equal_the_original(oracle: Oracle, reference: Reference) -> None:
    for i, text in enumerate(oracle.texts):
        original = {key: oracle.tensors[f"q{i}.{key}"] for key in ("latents", "hidden_last")}
        run = reference.think(text, thoughts=original["latents"][:6], max_new_tokens=1)
        assert largest(run.thoughts, original["latents"][:6]) <= FORCED
        assert largest(run.hidden, original["hidden_last"][:6]) <= FORCED
        assert largest(run.logits, oracle.tensors[f"q{i}.logits_eot"]) <= FORCED
        rows = [oracle.tensors[f"q{i}.attn.prefill"][:, :, -1]]
        rows += [oracle.tensors[f"q{i}.attn.step{s}"] for s in range(1, 7)]
        rows += [oracle.tensors[f"q{i}.attn.eot"][:, :, -1]]
        for query, row in enumerate(rows):
            ours, unseen = run.attention[:, :, query].tensor_split((row.shape[-1],), dim=-1)
            assert largest(ours, row) <= FORCED
            assert not unseen.any()


def test_free_run_equals_the_original(oracle: Oracle, reference: Reference) -> None:
    for i, question in enumerate(oracle.questions):
        run = reference.think(oracle.ids(i), max_new_tokens=12)
        assert largest(run.thoughts, oracle.tensors[f"q{i}.latents"][:6]) <= FREE
        assert largest(run.logits, oracle.tensors[f"q{i}.logits_eot"]) <= FREE
        assert run.tokens == question["answer"]
        assert largest(torch.tensor(run.margins), oracle.tensors[f"q{i}.answer_margin"]) <= FREE


def test_padding_leak_equals_the_originals_batched_loop(
    oracle: Oracle, reference: Reference
) -> None:
    run = reference.think_batched(oracle.texts, max_new_tokens=12)
    assert largest(run.thoughts, oracle.tensors["batched.latents"][:, :6]) <= FREE
    assert largest(run.logits, oracle.tensors["batched.logits_eot"]) <= FREE
    for step, attention in enumerate(run.attention, start=1):
        original = oracle.tensors[f"batched.attn.step{step}"]
        assert largest(attention, original) <= FREE_ATTENTION
    assert run.tokens == oracle.tensors["batched.answer"].tolist()


def test_batch_of_one_has_no_leak(oracle: Oracle, reference: Reference) -> None:
    single = reference.think(oracle.texts[0], max_new_tokens=4)
    batch = reference.think_batched(oracle.texts[:1], max_new_tokens=4)
    assert largest(batch.thoughts[0], single.thoughts) <= FREE
    assert batch.tokens == [single.tokens]


def test_special_tokens_are_counted_whatever_the_config_says(
    oracle: Oracle, checkpoint: Checkpoint
) -> None:
    wrong = replace(checkpoint.config, bot=402, eot=401, pad=5, eos=7)
    special = SpecialTokens.from_checkpoint(replace(checkpoint, config=wrong))
    assert (special.pad, special.bot, special.eot, special.n_tokens) == (400, 401, 402, 403)
    assert special.eos == oracle.model.tokenizer.eos_token_id


def test_eos_stands_before_bot_and_after_eot_where_it_is_kept(checkpoint: Checkpoint) -> None:
    config = replace(checkpoint.config, remove_eos=False)
    reference = Reference.from_checkpoint(replace(checkpoint, config=config))
    run = reference.think([5, 6], max_new_tokens=1)
    assert run.prompt == [5, 6, reference.special.eos, reference.special.bot]
    assert run.attention.shape[-1] == 4 + 6 + 2
    assert largest(run.attention[:, :, -1].sum(-1), 1.0) <= 1e-5


def test_padding_rows_and_eot_are_never_decoded(checkpoint: Checkpoint) -> None:
    reference = Reference.from_checkpoint(checkpoint)
    special = replace(reference.special, n_tokens=9)
    run = replace(reference, special=special).think([5, 6], max_new_tokens=12)
    assert run.tokens
    assert max(run.tokens) < 9


def test_what_does_not_fit_is_named(checkpoint: Checkpoint, reference: Reference) -> None:
    with pytest.raises(PositionError, match=r"\(5, 64\); expected .*\(6, 64\)"):
        reference.think([5], thoughts=torch.zeros(5, 64))
    tensors = dict(checkpoint.tensors)
    removed = next(key for key in tensors if key.endswith("base_layer.weight"))
    del tensors[removed]
    with pytest.raises(CheckpointError, match="transformers cannot load"):
        Reference.from_checkpoint(replace(checkpoint, tensors=tensors))


def test_projection_without_a_layer_norm_and_none_at_all() -> None:
    checkpoint = read_checkpoint(ROOT / "checkpoints/tiny-gpt2")
    plain = {key: v for key, v in checkpoint.projection.items() if not key.startswith("ln.")}
    without = Reference.from_checkpoint(replace(checkpoint, projection=plain)).projection
    x = torch.randn(2, 96, generator=torch.Generator().manual_seed(0))
    inner = torch.nn.functional.gelu(x @ plain["1.weight"].T + plain["1.bias"])
    assert largest(without(x), inner @ plain["3.weight"].T + plain["3.bias"]) <= 1e-5
    none = Reference.from_checkpoint(replace(checkpoint, projection={})).projection
    assert torch.equal(none(x), x)
