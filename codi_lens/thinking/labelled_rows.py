"""The labelled attention of a run, from the rows that its passes kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from codi_lens.positions import Layout, key_names, query_names, step_names

Row = Float[Tensor, "problem row layer head _"]
"""Of a written run, later passes have more keys."""
Named = Float[Tensor, "problem query layer head key"]


def labelled_rows(
    rows: Sequence[Row], layout: Layout, source: str, *, one_pass: bool
) -> xr.DataArray:
    """Attention [problem, layer, head, query, key], as `ThoughtRun.attention` describes it.

    Args:
        rows: of each pass, summed over the positions of each key's name.
        layout: with what is known of the answers.
        source: the model's name.
        one_pass: whether the answer went in as one pass, whose only row is the anchor's; otherwise
            there is a row per token fed.
    """
    if layout.written:
        stacked = _written_rows(rows, layout)
        steps = step_names(max(map(len, layout.steps)))
        queries, keys = (*steps, "anchor"), ("question", *steps, "answer")
    else:
        stacked = _rows_of_thoughts(rows, layout, one_pass=one_pass)
        queries, keys = query_names(layout.n_thoughts), key_names(layout.n_thoughts)
    return xr.DataArray(
        rearrange(stacked, "problem query layer head key -> problem layer head query key").numpy(),
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": np.arange(stacked.shape[0]),
            "layer": np.arange(stacked.shape[2]),
            "head": np.arange(stacked.shape[3]),
            "query": list(queries),
            "key": list(keys),
        },
        name="attention",
        attrs={"model": source, "n_layers": stacked.shape[2]},
    )


def _rows_of_thoughts(rows: Sequence[Row], layout: Layout, *, one_pass: bool) -> Named:
    """The rows `bot`, `ct0` …, `eot`, `anchor`."""
    n = layout.n_thoughts
    # The first row is of the pass that ends with `bot`; then the thoughts, eot, and the answer.
    fixed, answer = rows[: n + 2], rows[n + 2 :]
    anchors = torch.full_like(fixed[0], torch.nan)
    for problem, before in enumerate(layout.anchors):
        if before is not None:
            source_rows = fixed[-1] if before == 0 else answer[0 if one_pass else before - 1]
            anchors[problem] = source_rows[problem]
    return torch.cat([*fixed, anchors], dim=1).cpu()


def _written_rows(rows: Sequence[Row], layout: Layout) -> Named:
    """The rows `step0` …, `anchor` of a written run, whose rows have a key per written token."""
    n_steps = max(map(len, layout.steps))
    n_problems, _, n_layers, n_heads, _ = rows[0].shape
    stacked = torch.full((n_problems, n_steps + 1, n_layers, n_heads, n_steps + 2), torch.nan)
    for problem, (steps, before) in enumerate(zip(layout.steps, layout.anchors, strict=True)):
        named = torch.full((rows[-1].shape[-1],), n_steps + 1)  # "answer", but for
        named[0] = 0
        for step, (first, stop) in enumerate(steps):
            named[1 + first : 1 + stop] = 1 + step
        # Of the pass that fed a token: the question's is followed by one for each token.
        passes = {step: stop for step, (_, stop) in enumerate(steps)}
        if before is not None:
            passes[n_steps] = before
        for query, number in passes.items():
            if number < len(rows):  # the last token of an answer is not fed
                row = rows[number][problem, 0].cpu()
                empty = row.new_zeros(*row.shape[:-1], n_steps + 2)
                stacked[problem, query] = empty.index_add_(-1, named[: row.shape[-1]], row)
    return stacked
