"""Explorers to test: of tiny-recall with everything in it, and a large one of random attention."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from support.constructed import label, random_attention

from codi_lens import CodiModel, ablate_heads, extract, logit_lens, sweep_heads
from codi_lens.explorer.details import Detail
from codi_lens.explorer.explore import Explorer, explore, explorer_of, heads_by_view
from codi_lens.explorer.packing import to_bytes
from codi_lens.explorer.payload import Told
from codi_lens.positions import possible_cells
from codi_lens.problems.words import WordProblem, word_problems
from codi_lens.thinking.run import ThoughtRun

HEAD = "L2H3"
"""The head of tiny-recall that reads back."""


def is_pattern(name: str) -> bool:
    return name.endswith("hook_pattern")


@dataclass(frozen=True, eq=False)
class Explored:
    """An explorer, and everything that it was made of."""

    model: CodiModel
    problems: list[WordProblem]
    attention: xr.DataArray
    ablated: xr.DataArray
    runs: list[ThoughtRun]
    lens: xr.Dataset
    effects: pd.DataFrame
    explorer: Explorer


@cache
def recall() -> Explored:
    """tiny-recall on ten problems."""
    model = CodiModel.from_pretrained("tiny-recall")
    problems = word_problems(10, family="mixed", seed=3)
    quiet: Any = {"progress": False}
    attention = extract(model, problems, **quiet)
    zeroed = [ablate_heads([HEAD], mode="zero", at="thinking")]
    ablated = extract(model, problems, interventions=zeroed, **quiet)
    runs = [
        model.think([each.question for each in some], names_filter=is_pattern)
        for some in (problems[:8], problems[8:])
    ]
    lens = logit_lens(model, problems, at=["bot", "thoughts", "eot", "anchor"], **quiet)
    effects = sweep_heads(model, problems, at={"thinking": "thinking", "anchor": "answer"}, **quiet)
    explorer = explore(
        attention,
        runs=runs,
        effects={"Ablation": effects},
        readout=lens,
        baseline={f"{HEAD} zeroed": ablated},
        edges=problems,
        title="tiny-recall, explored",
    )
    return Explored(model, problems, attention, ablated, runs, lens, effects, explorer)


@cache
def large(
    n_problems: int = 100, n_layers: int = 16, n_heads: int = 32, n_tokens: int = 75
) -> Explorer:
    """A hundred problems of 512 heads over 75 tokens, each row a softmax with heavy tails."""
    draw = np.random.default_rng(0)
    cells = possible_cells(6)
    shape = (n_problems, 16, 32, len(cells), n_tokens + cells.shape[1] - 1)
    logits = 2.5 * draw.standard_normal(shape, dtype=np.float32)
    logits[..., 0] += 3
    logits[..., n_tokens:][..., ~cells[:, 1:]] = -np.inf
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    strips = weights[..., :n_tokens]
    attention = label(np.concatenate([strips.sum(-1, keepdims=True), weights[..., n_tokens:]], -1))
    tokens = tuple(f" w{i}" for i in range(n_tokens))
    details = {
        str(id): Detail("", tokens, to_bytes(strips[i]))
        for i, id in enumerate(attention["problem"].values)
    }
    heads = heads_by_view(attention, None)
    return explorer_of(attention, Told("Random attention"), heads=heads, details=details)


@cache
def undefined() -> Explorer:
    """Random attention of three problems, with strips; the second has no anchor, and neither has
    the first in the attention that it is compared with."""
    attention, other = random_attention(n_problems=3), random_attention(n_problems=3, seed=1)
    strips = np.repeat(attention.sel(key="question").to_numpy()[..., None] / 2, 2, axis=-1)
    attention[1, :, :, -1] = np.nan
    other[0, :, :, -1] = np.nan
    details = {
        str(id): Detail("", (" a", " b"), to_bytes(strips[i]))
        for i, id in enumerate(attention["problem"].values)
    }
    return explorer_of(
        attention,
        Told("Undefined rows"),
        heads=heads_by_view(attention.fillna(0.0), None),
        details=details,
        baselines={"other": other},
    )


def block(explorer: Explorer, name: str, dtype: Any, *shape: int) -> np.ndarray:
    """A packed block, unpacked."""
    return np.frombuffer(zlib.decompress(explorer.blocks[name]), dtype).reshape(shape)
