"""Interventions on whole attention patterns: freeze them, give them, transplant their thoughts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from codi_lens.errors import InterventionError, PositionError, shown
from codi_lens.head_names import (
    GivenHeads,
    all_heads,
    as_heads,
    by_layer,
    check_heads,
    heads_name,
)
from codi_lens.interventions.edges import ROUNDING, check_rows_sum, edge_hooks
from codi_lens.positions import (
    Scope,
    first_position,
    key_names,
    rank,
    scope_name,
    thought_names,
)
from codi_lens.thinking.given import as_tensor
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, digest
from codi_lens.thinking.prompts import problem_ids


def freeze_patterns(heads: GivenHeads | None = None, at: Scope = "thinking") -> Planned:
    """Hold attention at the problem's own clean run, whatever else is intervened on.

    Args:
        heads: pairs of layer and head; by default all heads.
        at: the queries, by name; not "answer", since answers differ in length.

    Raises:
        PositionError: a position, layer or head that does not exist, or "answer".

    >>> freeze_patterns([(0, 1)]).name
    'frozen L0H1 at thinking'
    """
    heads = None if heads is None else as_heads(heads)

    def build(context: Context) -> list[Intervention]:
        every = all_heads(context.lens.cfg)
        chosen = every if heads is None else list(heads)
        check_heads(chosen, every)
        names = _queries(at, context)
        layers = by_layer(chosen)
        clean = context.clean([f"blocks.{layer}.attn.hook_pattern" for layer in layers])

        def freeze(name: str, position: str) -> Intervention:
            layer = int(name.split(".")[1])

            def put(pattern: Tensor, hook: Any) -> Tensor:
                length, size = pattern.shape[-1], pattern.shape[2]
                named = context.names(clean[name].shape[2])
                rows = [i for i, other in enumerate(named) if other == position]
                if len(rows) != size:
                    raise InterventionError(
                        f"A pass holds {size} of the {len(rows)} queries at {position!r}."
                    )
                source = clean[name][:, layers[layer]][:, :, rows, :length]
                pattern[:, layers[layer]] = source.to(pattern.dtype)
                check_rows_sum(context, pattern)
                return pattern

            return Intervention([(name, put)], position)

        return [freeze(name, position) for name in clean for position in names]

    label = "all heads" if heads is None else heads_name(heads)
    return Planned(f"frozen {label} at {scope_name(at)}", first_position(at), build)


def set_pattern(pattern: xr.DataArray, heads: GivenHeads, name: str = "set") -> Planned:
    """Give heads a pattern: rows of weights on named keys.

    The mass on a group (question, answer, or two tokens of `eot`) is split among its tokens as the
    head itself splits it; evenly where it gives them nothing.

    Args:
        pattern: dimensions (query, key) or (problem, query, key), named positions as in
            `run.attention`, all keys; each row sums to 1. Problems are known by their ids where the
            run has them.
        heads: pairs of layer and head, all of which get it.
        name: what tables call it.

    Raises:
        InterventionError: other dimensions, NaN, negative weights, rows that do not sum to 1, or
            weight on a key that the query does not see.
        PositionError: a position, layer or head that does not exist.

    >>> uniform = xr.DataArray([[1 / 4] * 4 + [0] * 6], dims=("query", "key"),
    ...     coords={"query": ["ct1"], "key": list(key_names(6))})
    >>> set_pattern(uniform, [(0, 1)]).first
    'ct1'
    """
    heads = as_heads(heads)
    if not isinstance(pattern, xr.DataArray) or not {"query", "key"} <= pattern.coords.keys():
        raise InterventionError(
            "The pattern must be a labelled xr.DataArray with the coordinates query and key, not "
            f"{shown(pattern)}."
        )
    if not {"query", "key"} <= set(pattern.dims) <= {"problem", "query", "key"}:
        raise InterventionError(
            f"The pattern has the dimensions {pattern.dims}; give (query, key) or (problem, query, "
            "key)."
        )
    queries = [str(query) for query in pattern["query"].values]

    def build(context: Context) -> list[Intervention]:
        heads_name(heads)
        check_heads(heads, all_heads(context.lens.cfg))
        groups = context.resolve(queries) & {"question", "answer"}
        if groups:
            raise PositionError(f"{min(groups)!r} is a group of queries; give single ones.")
        keys = key_names(context.n_thoughts, written=context.config.written)
        if {str(key) for key in pattern["key"].values} != set(keys):
            raise InterventionError(f"The pattern must hold exactly the keys {', '.join(keys)}.")
        weights = pattern.sel(key=list(keys)).transpose(..., "query", "key")
        values = torch.from_numpy(np.asarray(weights.values, dtype=np.float32).copy())
        values = _per_problem(_of_problems(values, _ids(pattern), context), context)
        for i, query in enumerate(queries):
            for j, key in enumerate(keys):
                if rank(key) > rank(query) and values[:, i, j].any():
                    raise InterventionError(f"The query {query!r} does not see the key {key!r}.")
        _refuse_rows(values, exact=True)

        def give(i: int) -> Intervention:
            def put(pattern: Tensor, chosen: list[int]) -> Tensor:
                named = context.names(pattern.shape[-1])
                index = torch.tensor([keys.index(key) for key in named], device=pattern.device)
                own = pattern[:, chosen]
                seen = _visible(context, own).to(own).expand_as(own)
                total, count = (_per_key(part, index, len(keys)) for part in (own, seen))
                split = torch.where(total > 0, own / total, seen / count.clamp_min(1))
                pattern[:, chosen] = split * values[:, None, i : i + 1, index].to(own)
                check_rows_sum(context, pattern)
                return pattern

            return Intervention(edge_hooks("hook_pattern", heads, put), queries[i])

        return [give(i) for i in range(len(queries))]

    label = f"{heads_name(heads)} {name} at {scope_name(queries)}"
    given = pattern.transpose(..., "query", "key")
    details = digest(queries, given["key"].values.tolist(), given.values, *_ids(given))
    return Planned(label, first_position(queries), build, details)


def transplant_pattern(
    block: Tensor | np.ndarray | xr.DataArray,
    heads: GivenHeads,
    at: Scope = "thoughts",
    name: str = "transplant",
) -> Planned:
    """Give heads the attention among thoughts of another head, even of another model.

    The block holds what each thought gives to itself and to earlier ones; the rest of the row
    (question and `bot`) keeps its proportions and is rescaled to 1 minus the block's row.

    Args:
        block: [query, key] over all thoughts or [problem, query, key], in the position view:
            the diagonal is self-attention. `thought_view(attention)` gives it; where it has
            labels, these count and not their order.
        heads: pairs of layer and head, all of which get it.
        at: the thoughts whose rows are given.
        name: what tables call it.

    Raises:
        InterventionError: a block of another shape, weights that are negative or NaN, above the
            diagonal or that sum to more than 1 in a row, or (while it runs) a row with no rest.
        PositionError: not a thought, or a layer or head that does not exist.

    >>> transplant_pattern(torch.eye(6) / 2, [(2, 3)]).name
    'L2H3 transplant at thoughts'
    """
    heads = as_heads(heads)
    if isinstance(block, xr.DataArray):
        block = _block_in_order(block)
    raw, ids = as_tensor("The block", block, InterventionError), _ids(block)

    def build(context: Context) -> list[Intervention]:
        heads_name(heads)
        check_heads(heads, all_heads(context.lens.cfg))
        thoughts = thought_names(context.n_thoughts)
        names = _queries(at, context)
        others = [query for query in names if query not in thoughts]
        if others:
            raise PositionError(f"A block has rows for thoughts only, not for {others[0]!r}.")
        values = _per_problem(_of_problems(raw, ids, context).float(), context)
        n = context.n_thoughts
        if values.shape[1:] != (n, n):
            raise InterventionError(
                f"The block has shape {tuple(raw.shape)}; expected [query, key] "
                f"or [problem, query, key] with {n} thoughts."
            )
        if values.triu(1).any():
            raise InterventionError(
                "The block gives weight to later thoughts; rows are queries in the position view."
            )
        _refuse_rows(values, exact=False)

        def give(query: str) -> Intervention:
            i = thoughts.index(query)

            def put(pattern: Tensor, chosen: list[int]) -> Tensor:
                given = values[:, None, i : i + 1, : i + 1].to(pattern)
                start = context.bot + 1
                own = pattern[:, chosen]
                rest = own[..., :start]
                total = rest.sum(dim=-1, keepdim=True)
                left = (1 - given.sum(dim=-1, keepdim=True)).clamp_min(0)
                if ((total == 0) & (left > 0)).any():
                    raise InterventionError(
                        f"A head gives question and bot nothing at {query!r}, so the rest of the "
                        "row cannot be rescaled."
                    )
                own[..., :start] = rest * (left / total.clamp_min(torch.finfo(rest.dtype).tiny))
                own[..., start:] = given
                pattern[:, chosen] = own
                check_rows_sum(context, pattern)
                return pattern

            return Intervention(edge_hooks("hook_pattern", heads, put), query)

        return [give(query) for query in names]

    label = f"{heads_name(heads)} {name} at {scope_name(at)}"
    values = block.values if isinstance(block, xr.DataArray) else block
    return Planned(label, first_position(at), build, digest(values, *ids))


def _block_in_order(block: xr.DataArray) -> xr.DataArray:
    """A labelled block with its thoughts in order; one without labels is in order already."""
    block = block.squeeze([dim for dim in ("layer", "head") if block.sizes.get(dim) == 1])
    for dim in ("query", "key"):
        if dim in block.coords:
            names = [str(name) for name in block[dim].values]
            thoughts = list(thought_names(len(names)))
            if sorted(names) != sorted(thoughts):
                raise InterventionError(
                    f"The {dim}s of a block are {', '.join(thoughts)}, in the position view, not "
                    f"{', '.join(names)}; thought_view(attention) gives it."
                )
            block = block.isel({dim: [names.index(name) for name in thoughts]})
    first = [dim for dim in ("problem",) if dim in block.dims]
    last = [dim for dim in ("query", "key") if dim in block.dims]
    return block.transpose(*first, ..., *last)


def _ids(values: object) -> list[str]:
    """The labels of the problems of a pattern that is given for each; none without labels."""
    if not isinstance(values, xr.DataArray) or "problem" not in values.indexes:
        return []
    return [str(label) for label in values["problem"].values]


def _of_problems(values: Tensor, ids: Sequence[str], context: Context) -> Tensor:
    """The rows of a pattern with these ids that belong to the problems that run, in their order."""
    if not ids:
        return values
    if set(context.ids) <= set(ids):
        return values[[ids.index(id) for id in context.ids]]
    numbered = ids == [str(place) for place in range(len(ids))]  # those of a run, in its order
    if not numbered and list(context.ids) != problem_ids(context.prompts, None):
        missing = next(id for id in context.ids if id not in ids)
        raise InterventionError(
            f"The pattern holds the problems {', '.join(ids[:4])} …, not {missing!r}; label it "
            "with the ids of the problems that run."
        )
    return values


def _visible(context: Context, pattern: Tensor) -> Tensor:
    """Which keys the last queries of a pass see: [problem, 1, query, key]."""
    size, length = pattern.shape[2:]
    columns = torch.arange(length, device=pattern.device)
    causal = columns <= columns[length - size :, None]
    real = torch.ones(len(pattern), length, dtype=torch.bool, device=pattern.device)
    real[:, : context.bot] = context.question_mask()
    return (causal & real[:, None])[:, None]


def _per_key(weights: Tensor, index: Tensor, n_keys: int) -> Tensor:
    """For each token, the summed weights of all tokens of its named key."""
    total = weights.new_zeros(*weights.shape[:-1], n_keys).index_add_(-1, index, weights)
    return total[..., index]


def _queries(at: Scope, context: Context) -> list[str]:
    names = sorted(context.resolve(at), key=rank)
    if "answer" in names:
        raise PositionError("'answer' has no pattern to give, since answers differ in length.")
    return names


def _per_problem(values: Tensor, context: Context) -> Tensor:
    """[problem, query, key], the same for every problem unless given for each."""
    problems = len(context.prompts)
    if values.ndim == 2:
        values = values.expand(problems, -1, -1)
    if values.ndim != 3 or len(values) != problems:
        raise InterventionError(
            f"The pattern has shape {tuple(values.shape)}; give [query, key], or one for each of "
            f"the {problems} problems."
        )
    return values.to(context.device)


def _refuse_rows(values: Tensor, *, exact: bool) -> None:
    sums = values.sum(dim=-1)
    slack = ROUNDING * torch.finfo(torch.float32).eps
    wrong = (sums - 1).abs() > slack if exact else sums > 1 + slack
    if values.isnan().any() or (values < 0).any() or wrong.any():
        rule = "sum to 1" if exact else "sum to at most 1"
        raise InterventionError(
            f"The weights of a row are not negative and {rule}; row sums lie from "
            f"{float(sums.min()):.4g} to {float(sums.max()):.4g}, the lowest weight is "
            f"{float(values.min()):.4g}."
        )
