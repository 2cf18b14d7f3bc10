"""Value-weighted attention is the norm of what each key adds, in every model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.oracle import Oracle

from codi_lens import AttentionError, CodiModel
from codi_lens.attention.profiles import destinations
from codi_lens.attention.values import (
    question_tokens,
    value_weighted,
    value_weighted_attention,
)
from codi_lens.positions import key_names, query_names


@pytest.mark.parametrize("n_value_heads", [1, 2, 4])
def test_value_weighted_equals_a_plain_loop(n_value_heads: int) -> None:
    draw = torch.Generator().manual_seed(0)
    pattern = torch.rand(2, 4, 3, 5, generator=draw)
    values = torch.randn(2, 5, n_value_heads, 6, generator=draw)
    w_o = torch.randn(4, 6, 7, generator=draw)
    weighted = value_weighted(pattern, values, w_o)
    for problem, head, query, key in np.ndindex(2, 4, 3, 5):
        value = values[problem, key, head * n_value_heads // 4]
        added = pattern[problem, head, query, key] * (value @ w_o[head])
        assert weighted[problem, head, query, key] == pytest.approx(float(added.norm()), rel=1e-5)


def test_norms_are_right_where_a_head_is_wider_than_the_residual() -> None:
    draw = torch.Generator().manual_seed(1)
    pattern, values = torch.ones(1, 2, 3), torch.randn(3, 1, 8, generator=draw)
    w_o = torch.randn(1, 8, 4, generator=draw)
    torch.testing.assert_close(
        value_weighted(pattern, values, w_o)[0, 0], (values[:, 0] @ w_o[0]).norm(dim=-1)
    )


def test_heads_that_values_cannot_serve_are_an_error() -> None:
    with pytest.raises(AttentionError, match="3 value heads cannot serve 4 heads"):
        value_weighted(torch.ones(4, 1, 2), torch.ones(2, 3, 6), torch.ones(4, 6, 7))


def test_weighted_attention_of_a_run_is_named_like_plain_attention(oracle: Oracle) -> None:
    model, run = oracle.model, oracle.model.think(oracle.texts[:3], max_new_tokens=6)
    weighted = value_weighted_attention(model.lens, run)
    assert weighted.dims == run.attention.dims
    cache = run.cache()
    n = model.config.n_thoughts
    layer, problem = 1, 2
    w_o = model.lens.blocks[layer].attn.W_O
    values = cache[f"blocks.{layer}.attn.hook_v"][problem]
    group = w_o.shape[0] // values.shape[1]
    for query in ("bot", "ct3", "eot"):
        row = cache[f"blocks.{layer}.attn.hook_pattern"][problem, :, int(run.index(query)[problem])]
        for head in range(w_o.shape[0]):
            norms = row[head] * (values[:, head // group] @ w_o[head]).norm(dim=-1)
            expected = [float(norms[run.span(key)[problem]].sum()) for key in key_names(n)]
            found = weighted.sel(layer=layer, head=head, query=query).values[problem]
            np.testing.assert_allclose(found, np.array(expected) / sum(expected), atol=1e-5)
    fixed = list(query_names(n))[:-1]
    np.testing.assert_allclose(weighted.sel(query=fixed).sum("key"), 1, atol=1e-5)


def test_first_token_is_part_of_the_question(tiny: CodiModel) -> None:
    questions = ["Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"]
    questions.append(
        "Zoe has 9 coins. Then she finds 3 more. Then she finds 7 more. Then she finds 2 more. "
        "How many coins does she have?"
    )
    run = tiny.think(questions, max_new_tokens=8)
    sink, strongest = question_tokens(tiny.lens, run)
    question = run.attention.sel(key="question")
    assert (sink <= strongest).values[..., :-1].all()
    assert (strongest <= question + 1e-5).values[..., :-1].all()
    assert (sink <= question + 1e-5).values[..., :-1].all()
    assert float(sink.max()) > 0
    start = run.span("question")[0].start
    pattern = run.cache()["blocks.0.attn.hook_pattern"][0, :, int(run.index("ct1")[0]), start]
    np.testing.assert_allclose(
        sink.isel(problem=0, layer=0).sel(query="ct1"), pattern.numpy(force=True), atol=1e-5
    )
    weighted = value_weighted_attention(tiny.lens, run)
    for attention, first in (
        (run.attention, sink),
        (weighted, question_tokens(tiny.lens, run, weighted=True)[0]),
    ):
        shares = destinations(attention, first).sel(query=["bot", "ct0", "ct5", "eot"])
        np.testing.assert_allclose(shares.sum("kind"), 1, atol=1e-5)


def test_a_run_that_kept_too_little_says_so(tiny_gpt2: CodiModel) -> None:
    run = tiny_gpt2.think(["Zoe has 14 coins."], names_filter="blocks.0.hook_resid_pre")
    with pytest.raises(AttentionError, match=r"kept no blocks\.0\.attn\.hook_pattern"):
        value_weighted_attention(tiny_gpt2.lens, run)
