"""What would make thinking wrong after loading is said in one sentence; edits are not refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from codi_lens import CheckpointError, CodiModel
from codi_lens.loading.soundness import check_thinks

QUESTION = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"


@pytest.fixture
def model(tiny: CodiModel) -> CodiModel:
    return copy.deepcopy(tiny)


def drop_layer(model: CodiModel) -> None:
    del model.lens.blocks[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.lens.process_weights_(fold_ln=True), "final norm of model.lens is folded"),
        (lambda m: setattr(m.lens, "ln_final", nn.Identity()), "folded into other weights or gone"),
        (lambda m: m.lens.to(torch.bfloat16), "holds bfloat16 .* model.projection float32; give"),
        (lambda m: m.projection.double(), "holds float32 .* model.projection float64"),
        (lambda m: m.lens.half(), r"holds float16 \(its config says float32\)"),
        (lambda m: m.lens.blocks[1].double(), "holds float32 and float64"),
        (drop_layer, "has 2 layers and its config says 3; set model.lens.cfg.n_layers"),
        (
            lambda m: setattr(m.lens.embed, "W_E", nn.Parameter(m.lens.W_E[:-1])),
            "embeds 10[67] tokens and predicts",
        ),
        (
            lambda m: m.lens.set_ungroup_grouped_query_attention(True),
            r"was ungrouped.*; call model\.lens\.set_ungroup_grouped_query_attention\(False\)",
        ),
    ],
)
def test_broken_assumptions_are_named(
    model: CodiModel, change: Callable[[CodiModel], Any], message: str
) -> None:
    change(model)
    with pytest.raises(CheckpointError, match=message) as caught:
        model.think([QUESTION])
    assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=message):
        model.verify(n=1)


def test_edited_weights_are_not_refused(model: CodiModel) -> None:
    model.lens.ln_final.w = nn.Parameter(torch.ones(model.lens.cfg.d_model))
    with torch.no_grad():
        model.lens.blocks[0].attn.W_O[2] = 0
        model.lens.embed.W_E[5] = 0
    check_thinks(model)
    model.lens.process_weights_(fold_ln=False, center_writing_weights=False)
    model.lens.to(torch.float64)
    model.projection.double()
    assert len(model.think([QUESTION], max_new_tokens=2).answers) == 1


def test_a_layer_less_is_an_experiment(model: CodiModel) -> None:
    drop_layer(model)
    model.lens.cfg.n_layers = 2
    assert model.think([QUESTION], max_new_tokens=2).attention.sizes["layer"] == 2
