"""Attention built with known answers: what the corrected scores must recover."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.positions import key_names, possible_cells, query_names

TYPES = ("Forward Flow", "Hub Aggregator", "Skip Connection", "Multi-Purpose")
GIVEN, OWN = 0.6, 0.1
"""What each constructed thought gives to earlier thoughts, and to itself; the question gets 0.3."""


def random_attention(
    n_problems: int = 8, n_layers: int = 3, n_heads: int = 4, n: int = 6, seed: int = 0
) -> xr.DataArray:
    """Rows drawn at random over the cells that causality allows."""
    rng = np.random.default_rng(seed)
    cells = possible_cells(n)
    values = rng.gamma(0.5, size=(n_problems, n_layers, n_heads, *cells.shape)) * cells
    values /= values.sum(axis=-1, keepdims=True)
    return label(values, n)


def label(values: np.ndarray, n: int = 6) -> xr.DataArray:
    ids = [f"p{i}" for i in range(len(values))]
    return xr.DataArray(
        values.astype(np.float32),
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": ids,
            "layer": range(values.shape[1]),
            "head": range(values.shape[2]),
            "query": list(query_names(n)),
            "key": list(key_names(n)),
            "question": ("problem", [f"How many? {each}" for each in ids]),
            "expected": ("problem", np.arange(len(ids), dtype=float)),
        },
    )


def block(shape: str, n: int = 6) -> np.ndarray:
    """A thought block: "uniform", "sequential", "self", or a hub such as "ct1"."""
    pattern = np.zeros((n, n))
    for query in range(n):
        if shape == "self":
            pattern[query, query] = GIVEN + OWN
            continue
        pattern[query, query] = OWN
        if query == 0:
            continue
        if shape == "sequential":
            pattern[query, query - 1] = GIVEN
        elif shape.startswith("ct") and int(shape[2:]) < query:
            pattern[query, int(shape[2:])] = GIVEN
        else:
            pattern[query, :query] = GIVEN / query
    return pattern


def from_blocks(blocks: np.ndarray) -> xr.DataArray:
    """Labelled attention around thought blocks [problem, layer, head, n, n]."""
    n = blocks.shape[-1]
    values = np.zeros((*blocks.shape[:3], len(query_names(n)), len(key_names(n))))
    values[..., 1 : n + 1, 2 : n + 2] = blocks
    values[..., 0] = 1 - values.sum(axis=-1)
    return label(values, n)


def of_shape(shape: str, n_problems: int = 5, n: int = 6) -> xr.DataArray:
    """One head whose every problem has the same constructed block."""
    return from_blocks(np.tile(block(shape, n), (n_problems, 1, 1, 1, 1)))


def noisy(pattern: np.ndarray, n_problems: int, rng: np.random.Generator) -> np.ndarray:
    """Problems [problem, n, n] around a pattern: each row's amount varies, then its division."""
    amount = pattern.sum(axis=-1, keepdims=True) * rng.uniform(0.5, 1.0, (n_problems, 1, 1))
    share = pattern * rng.gamma(4, 0.25, (n_problems, *pattern.shape))
    total = share.sum(axis=-1, keepdims=True)
    return amount * share / np.where(total > 0, total, 1)


def make_attention(
    n_layers: int = 3, n_heads: int = 8, n_thoughts: int = 6, seed: int = 0
) -> xr.DataArray:
    """Dirichlet rows over the possible cells, some heads sharper than others."""
    draw = np.random.default_rng(seed)
    possible = possible_cells(n_thoughts)
    values = np.zeros((n_layers, n_heads, *possible.shape))
    for layer, head in np.ndindex(n_layers, n_heads):
        sharpness = draw.choice([0.15, 0.5, 1.5])
        for query, row in enumerate(possible):
            values[layer, head, query, row] = draw.dirichlet(np.full(row.sum(), sharpness))
    return xr.DataArray(
        values,
        dims=("layer", "head", "query", "key"),
        coords={
            "layer": range(n_layers),
            "head": range(n_heads),
            "query": list(query_names(n_thoughts)),
            "key": list(key_names(n_thoughts)),
        },
    )


def make_heads(attention: xr.DataArray, view: str = "position", seed: int = 1) -> pd.DataFrame:
    """A heads table with random scores; in the generation view flow is constant, as it must be."""
    draw = np.random.default_rng(seed)
    n_layers, n_heads = attention.sizes["layer"], attention.sizes["head"]
    size = n_layers * n_heads
    layer, head = np.divmod(np.arange(size), n_heads)
    table = pd.DataFrame({"layer": layer, "head": head})
    table["name"] = [f"L{i}H{j}" for i, j in zip(layer, head, strict=True)]
    table["band"] = np.select(
        [layer < n_layers // 3, layer < 2 * n_layers // 3], ["early", "middle"], "late"
    )
    extra = ("sequential", "self") if view == "position" else ()
    for name in ("flow", "hub", "skip", *extra, "composite"):
        values = np.ones(size) if (name, view) == ("flow", "generation") else draw.beta(2, 4, size)
        table[name] = values
        table[f"{name}_low"] = values - draw.uniform(0, 0.05, size) * (values < 1)
        table[f"{name}_high"] = values + draw.uniform(0, 0.05, size) * (values < 1)
    thoughts = [str(key) for key in attention["key"].values if str(key).startswith("ct")]
    table["hub_position"] = draw.choice(thoughts, size)
    table["rank"] = table["composite"].rank(ascending=False).astype(int)
    table["type"] = draw.choice(TYPES, size)
    table["max_attention"] = draw.uniform(0.3, 0.9, size)
    table["max_query"], table["max_key"] = thoughts[-1], thoughts[0]
    table.attrs = {"view": view, "constant": ["flow"] if view == "generation" else []}
    return table
