"""Where attention goes: by kind of key, from thought to thought, by distance, and from the answer.

Each function takes labelled attention `(problem, layer, head, query, key)` and returns labelled
numbers per problem and head; `with_intervals` averages them over heads and problems. Value-weighted
attention (`codi_lens.attention.values`) has the same labels and goes through the same functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from einops import einsum

from codi_lens import metrics
from codi_lens.attention.labels import labelled
from codi_lens.attention.views import n_thoughts_of, thought_view
from codi_lens.errors import AttentionError
from codi_lens.positions import thought_names
from codi_lens.stats import mean_interval

KINDS = ("question", "bot", "earlier thoughts", "self", "eot", "answer")
"""The kinds of keys that a query's attention is divided among; they sum to 1."""
FIRST_TOKEN = "first token"
"""The first token of the question, where many heads park attention that they do not use."""


def destinations(attention: xr.DataArray, sink: xr.DataArray | None = None) -> xr.DataArray:
    """Each query's attention by kind of key: `(…, query, kind)`, summing to 1 over `KINDS`.

    For `bot`, the thoughts and `eot`, "self" is the key of the same name, and no other kind counts
    it again. The anchor's own token is part of "answer" (of "eot" where the answer opens with its
    number).

    Args:
        attention: labelled attention.
        sink: attention to the first token of the question, `(…, query)`; if given, "question" is
            divided into "first token" and the rest of it.

    Raises:
        AttentionError: not labelled attention, or a sink that exceeds attention to the question.
    """
    attention = labelled(attention).transpose(..., "query", "key")
    queries, keys = ([str(name) for name in attention[dim].values] for dim in ("query", "key"))
    # An undefined row stays undefined, since 0 · NaN is NaN.
    member = [[[_kind(query, key) == kind for kind in KINDS] for key in keys] for query in queries]
    shares = einsum(
        attention.values,
        np.array(member, dtype=attention.dtype),
        "... query key, query key kind -> ... query kind",
    )
    found = xr.DataArray(
        shares,
        dims=(*attention.dims[:-1], "kind"),
        coords={name: attention[name] for name in attention.dims[:-1] if name in attention.coords}
        | {"kind": list(KINDS)},
    )
    if sink is None:
        return found
    sink = _beside(found, sink)
    rest = found.sel(kind="question", drop=True) - sink
    if float(rest.min()) < -1e-4:
        raise AttentionError(
            "The sink exceeds the attention to the question, of which it is a part; give the "
            "attention to the first token of the question, from the same runs."
        )
    first = sink.expand_dims(kind=[FIRST_TOKEN], axis=-1)
    found.loc[{"kind": "question"}] = rest.clip(min=0)
    return xr.concat([first, found], "kind").transpose(..., "query", "kind")


def sequential_attention(attention: xr.DataArray) -> xr.DataArray:
    """Attention of each thought to the one before it, `ct{i}` → `ct{i-1}`: `(…, query)`.

    Raises:
        AttentionError: not labelled attention.
    """
    block = thought_view(attention)
    names = list(thought_names(n_thoughts_of(attention)))
    values = np.diagonal(block.values, -1, -2, -1)
    return _replace(block, values, "query", names[1:])


def skip_profile(attention: xr.DataArray) -> xr.DataArray:
    """Attention by how many thoughts back the key lies: `(…, distance)`.

    The mean over the pairs of thoughts so far apart; distance 0 is self-attention.

    Raises:
        AttentionError: not labelled attention.
    """
    block = thought_view(attention)
    values = np.asarray(metrics.attention_by_distance(block.values))
    return _replace(block, values, "distance", range(values.shape[-1]))


def skip_null(attention: xr.DataArray) -> xr.DataArray:
    """`skip_profile` of the causal null: each thought's attention to earlier ones, spread evenly.

    Distance 0 is self-attention, which the null does not move; it is NaN.

    Raises:
        AttentionError: not labelled attention.
    """
    block = thought_view(attention)
    values = np.array(metrics.attention_by_distance(metrics.causal_null(block.values)))
    values[..., 0] = np.nan
    return _replace(block, values, "distance", range(values.shape[-1]))


def answer_view(attention: xr.DataArray) -> xr.DataArray:
    """What the answer reads: attention of `eot` and `anchor` to every key, `(…, query, key)`.

    The anchor's row is NaN on a problem whose answer holds no number.

    Raises:
        AttentionError: not labelled attention.
    """
    return labelled(attention).sel(query=["eot", "anchor"]).transpose(..., "query", "key")


def with_intervals(
    quantity: xr.DataArray,
    *,
    over: Sequence[str] = ("layer", "head"),
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean over heads, then over problems, with bootstrap intervals over problems.

    Args:
        quantity: numbers with a `problem` dimension, as the functions of this module return.
        over: what is averaged before the problems; `()` keeps every head.
        n_resamples: bootstrap resamples of the problems, shared by all numbers.
        level: of the percentile intervals.
        seed: of the bootstrap.

    Returns:
        One row per remaining label, with `mean`, `low` and `high`.

    Raises:
        AttentionError: no problem dimension, or no problems.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> table = with_intervals(destinations(attention))
    >>> table.columns.tolist()
    ['query', 'kind', 'mean', 'low', 'high']
    >>> table.groupby("query", sort=False)["mean"].sum().round(3).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    if "problem" not in quantity.dims or quantity.sizes["problem"] == 0:
        raise AttentionError("Intervals need a problem dimension with at least one problem.")
    unknown = [name for name in over if name not in quantity.dims and name not in quantity.coords]
    if unknown:
        raise AttentionError(
            f"There is no {unknown[0]} to average over; the numbers have "
            f"{', '.join(map(str, quantity.dims))}."
        )
    over = [name for name in over if name in quantity.dims]  # one that was selected is no dimension
    averaged = quantity.mean(over, skipna=True) if over else quantity
    first = [dim for dim in ("problem", "layer", "head") if dim in averaged.dims]
    averaged = averaged.transpose(*first, ...)
    rest = [str(dim) for dim in averaged.dims[1:]]
    mean, low, high = mean_interval(
        averaged.values, n_resamples=n_resamples, level=level, seed=seed
    )
    labels = pd.MultiIndex.from_product([averaged[dim].values for dim in rest], names=rest)
    columns = {"mean": mean.ravel(), "low": low.ravel(), "high": high.ravel()}
    return pd.DataFrame(columns, index=labels).reset_index()


def _beside(found: xr.DataArray, sink: xr.DataArray) -> xr.DataArray:
    """The sink in the order of what it is a part of, whatever order it was selected in."""
    dims = [str(dim) for dim in found.dims[:-1]]
    for dim in ("layer", "head"):
        if dim not in sink.dims and dim in sink.coords:
            sink = sink.expand_dims(dim)
    if set(sink.dims) == set(dims):
        labels = {dim: found[dim] for dim in dims if not _same(found, sink, dim)}
        if all(found.get_index(dim).isin(sink.get_index(dim)).all() for dim in labels):
            return sink.sel(labels).transpose(*dims)
    raise AttentionError(
        "The sink must have the labels of the attention that it is a part of, without its keys; "
        "select both alike."
    )


def _same(found: xr.DataArray, sink: xr.DataArray, dim: str) -> bool:
    return found.get_index(dim).equals(sink.get_index(dim))


def _kind(query: str, key: str) -> str:
    if query == key:
        return "self"
    return "earlier thoughts" if key.startswith("ct") else key


def _replace(
    block: xr.DataArray, values: np.ndarray, name: str, labels: Sequence[str] | range
) -> xr.DataArray:
    """The block's leading dimensions, with its [query, key] replaced by one named axis."""
    leading = [str(dim) for dim in block.dims[:-2]]
    coords = {dim: block[dim] for dim in leading if dim in block.coords}
    return xr.DataArray(values, dims=(*leading, name), coords={**coords, name: list(labels)})


_AT_ONCE = 64


def average_heads(attention: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Attention averaged over heads, for each problem, and thought blocks averaged over problems.

    Reads some problems at a time, so attention that lies on disk may be larger than memory.

    Args:
        attention: labelled attention [problem, layer, head, query, key].

    Returns:
        (problem, 1, 1, query, key), and (layer, head, query, key) of the thoughts.

    Raises:
        AttentionError: not labelled attention, or no problems.
    """
    n_problems = attention.sizes["problem"] if "problem" in attention.dims else 0
    if n_problems == 0:
        raise AttentionError("The corrected quantities average over problems; there are none.")
    attention = labelled(attention)
    by_problem: list[xr.DataArray] = []
    total: Any = 0.0
    for start in range(0, n_problems, _AT_ONCE):
        some = attention.isel(problem=slice(start, start + _AT_ONCE)).astype(float)
        by_problem.append(some.mean(["layer", "head"], skipna=False))
        total = total + thought_view(some).sum("problem", skipna=False)
    averaged = xr.concat(by_problem, "problem").expand_dims(layer=[0], head=[0])
    by_head = (total / n_problems).transpose("layer", "head", "query", "key")
    return averaged.transpose("problem", "layer", "head", "query", "key"), by_head
