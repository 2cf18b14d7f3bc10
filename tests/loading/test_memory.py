"""Weights lie in memory as the forward pass reads them, and no bit of the results changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.oracle import Oracle
from torch import Tensor
from transformer_lens import HookedTransformer


@pytest.fixture(scope="module")
def default_layout(oracle: Oracle) -> HookedTransformer:
    plain = copy.deepcopy(oracle.model.lens)
    for parameter in plain.parameters():
        parameter.data = parameter.data.contiguous()
    assert isinstance(plain, HookedTransformer)
    return plain


def test_rearranges_of_the_forward_pass_are_views(oracle: Oracle) -> None:
    lens = oracle.model.lens
    rearranged: list[Tensor] = [lens.unembed.W_U.T]
    for block in lens.blocks:
        grouped = lens.cfg.n_key_value_heads is not None
        for name in ("W_Q", "_W_K", "_W_V") if grouped else ("W_Q", "W_K", "W_V"):
            weight = getattr(block.attn, name)
            rearranged.append(weight.transpose(1, 2))
            assert weight.shape == (weight.shape[0], lens.cfg.d_model, lens.cfg.d_head)
        rearranged.append(block.attn.W_O.permute(2, 0, 1))
        if lens.cfg.gated_mlp:
            rearranged += [block.mlp.W_gate.T, block.mlp.W_in.T, block.mlp.W_out.T]
    assert all(weight.is_contiguous() for weight in rearranged)


def test_default_layout_would_be_copied(default_layout: HookedTransformer) -> None:
    """What the first test asserts does not hold by itself."""
    assert not default_layout.unembed.W_U.T.is_contiguous()
    assert not default_layout.blocks[0].attn.W_Q.transpose(1, 2).is_contiguous()


def test_results_are_bit_identical_to_the_default_layout(
    oracle: Oracle, default_layout: HookedTransformer
) -> None:
    tokens = torch.randint(0, 400, (3, 17), generator=torch.Generator().manual_seed(0))
    expected: Any
    logits: Any
    expected, expected_cache = default_layout.run_with_cache(tokens)
    logits, cache = oracle.model.lens.run_with_cache(tokens)
    assert torch.equal(logits, expected)
    for layer in range(oracle.model.lens.cfg.n_layers):
        assert torch.equal(cache["pattern", layer], expected_cache["pattern", layer])
