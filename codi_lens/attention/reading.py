"""What heads read from the question and, answering, from the thoughts: one score per head."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from codi_lens import metrics
from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.views import n_thoughts_of
from codi_lens.errors import AttentionError
from codi_lens.head_names import head_name
from codi_lens.positions import thought_names

READING_SCORES = {
    "bot_question": "bot → question",
    "thoughts_question": "thoughts → question",
    "bot_token": "bot → question token",
    "thoughts_token": "thoughts → question token",
    "answer_thoughts": "answer → thoughts",
}
"""The scores of `reading_scores`, and what pages call them."""


def reading_scores(attention: xr.DataArray, strongest: xr.DataArray | None = None) -> pd.DataFrame:
    """How much each head reads from the question while thinking, and from the thoughts after it.

    Means over problems and over the rows of `bot`, of the thoughts, or of the answer (`eot` and
    `anchor`; `eot` alone where an answer holds no number), of `metrics.outgoing_attention` to the
    question or the thoughts. The rows' attention to their strongest question token tells a head
    that picks one number from one that looks everywhere.

    Args:
        attention: labelled attention [problem, layer, head, query, key], plain or value-weighted.
        strongest: attention of the same kind to the strongest question token, (problem, layer,
            head, query): `attention.strongest`, or `attention.strongest_value_weighted`.

    Returns:
        One row per head, layer by layer: `layer`, `head`, `name`, `bot_question`,
        `thoughts_question`, with `strongest` also `bot_token` and `thoughts_token`, and
        `answer_thoughts`; `attrs["n_problems"]`.

    Raises:
        AttentionError: not labelled attention, or no problems.

    >>> from codi_lens.attention.example import two_heads
    >>> list(reading_scores(two_heads()))[3:]
    ['bot_question', 'thoughts_question', 'answer_thoughts']
    """
    attention = labelled(attention)
    if not attention.sizes.get("problem"):
        raise AttentionError("Attention needs a problem dimension with at least one problem.")
    heads = heads_in(attention)
    thoughts = list(thought_names(n_thoughts_of(attention)))
    table = pd.DataFrame(heads, columns=["layer", "head"])
    table["name"] = [head_name(head) for head in heads]
    rows = {"bot": ["bot"], "thoughts": thoughts}
    for name, queries in rows.items():
        table[f"{name}_question"] = _mean(_given(attention, queries, ["question"]))
    if strongest is not None:
        for name, queries in rows.items():
            table[f"{name}_token"] = _mean(_along(strongest, attention, queries))
    answer = _given(attention, ["eot", "anchor"], thoughts)
    answer[..., 1] = np.where(np.isnan(answer[..., 1]), answer[..., 0], answer[..., 1])
    table["answer_thoughts"] = _mean(answer)
    table.attrs["n_problems"] = attention.sizes["problem"]
    return table


def _given(
    attention: xr.DataArray, queries: Sequence[str], keys: Sequence[str]
) -> Float[np.ndarray, "problem layer head query"]:
    """What each of these queries gives to these keys together."""
    block = attention.sel(query=list(queries), key=list(keys))
    block = block.transpose("problem", "layer", "head", "query", "key")
    return np.asarray(metrics.outgoing_attention(block.values.astype(float)))


def _along(
    strongest: xr.DataArray, attention: xr.DataArray, queries: Sequence[str]
) -> Float[np.ndarray, "problem layer head query"]:
    """What belongs to attention, for these queries and the heads that it holds."""
    grid = {dim: attention[dim].values for dim in ("layer", "head")}
    chosen = strongest.sel({"query": list(queries), **grid})
    return chosen.transpose("problem", "layer", "head", "query").values.astype(float)


def _mean(
    values: Float[np.ndarray, "problem layer head query"],
) -> Float[np.ndarray, " layer*head"]:
    return values.mean(axis=(0, 3)).ravel()
