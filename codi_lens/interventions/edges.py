"""Interventions on edges: which positions attend to which, and how much.

Knocking out happens at `hook_attn_scores`, before the softmax, so that what is left is
renormalised; moving mass at `hook_pattern`, where the rows keep their sum. What each promises is
checked on the pattern that the model goes on with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from codi_lens.errors import (
    InterventionError,
    PositionError,
    finite_number,
    listed,
    shown,
    whole_number,
)
from codi_lens.head_names import (
    GivenHeads,
    Head,
    Heads,
    all_heads,
    as_heads,
    by_layer,
    check_heads,
    heads_name,
)
from codi_lens.positions import (
    Scope,
    first_position,
    key_names,
    rank,
    scope_name,
    thought_names,
)
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned

Pattern = Float[Tensor, "problem head query key"]
ROUNDING = 16  # multiples of the dtype's epsilon by which a row may miss a sum of 1


def knock_out(
    queries: Scope,
    keys: Scope,
    heads: GivenHeads | None = None,
    layers: Sequence[int] | None = None,
) -> Planned:
    """Cut the edges from queries to keys: the weights become 0 and the rest of each row grows.

    Every query loses every key; for a set of edges that is no such product, give several.

    Args:
        queries: the positions that attend, by name.
        keys: the positions attended to, by name.
        heads: pairs of layer and head, or their names; by default all heads.
        layers: all heads of these layers instead.

    Raises:
        InterventionError: both heads and layers, or no query comes after a key, or (while it runs)
            a cut edge carries weight, a row does not sum to 1, or a query loses all its keys.
        PositionError: a position, layer or head that does not exist.

    >>> knock_out("ct3", "ct1", layers=[1]).name
    'cut ct3→ct1 in layers 1'
    """
    if heads is not None and layers is not None:
        raise InterventionError("knock_out takes heads or layers, not both.")
    heads = None if heads is None else as_heads(heads)
    if layers is not None:
        layers = [
            whole_number("A layer", layer, 0, 10**6, PositionError)
            for layer in listed("layers=", layers, "layers", InterventionError)
        ]

    def build(context: Context) -> list[Intervention]:
        cut = context.resolve(keys)
        lasting = [q for q in context.resolve(queries) if _sees_any(q, cut)]
        if not lasting:
            raise InterventionError(
                f"There is no edge from {scope_name(queries)} to {scope_name(keys)}: no query "
                "comes after a key."
            )

        def mask(scores: Pattern, chosen: list[int]) -> Tensor:
            scores[:, chosen] = scores[:, chosen].masked_fill(
                columns(context, scores, cut), -torch.inf
            )
            return scores

        def check(pattern: Pattern, chosen: list[int]) -> None:
            left = pattern[:, chosen].masked_fill(~columns(context, pattern, cut), 0)
            if left.any():
                raise InterventionError(
                    f"An edge from {scope_name(queries)} to {scope_name(keys)} that was cut "
                    f"carries the weight {float(left.max()):.3g}; another intervention writes the "
                    "same pattern."
                )
            # A row without any key is refused by the run itself, which names the query.
            check_rows_sum(context, pattern, empty=True)

        chosen_heads = _heads(context, heads, layers)
        return [
            Intervention(edge_hooks("hook_attn_scores", chosen_heads, mask), sorted(lasting)),
            Intervention(edge_hooks("hook_pattern", chosen_heads, check), sorted(lasting)),
        ]

    name = f"cut {scope_name(queries)}→{scope_name(keys)}{_where(heads, layers)}"
    return Planned(name, first_position(queries), build)


def force_hub(
    position: str, share: float | int, heads: GivenHeads | None = None, at: Scope | None = None
) -> Planned:
    """Give a position a fixed share of the attention; the other keys share the rest as before.

    Args:
        position: a single position: "bot", "ct1", "eot".
        share: of each row, from 0 to 1.
        heads: pairs of layer and head, or their names; by default all heads.
        at: the queries, by name; by default the thoughts after the position.

    Raises:
        InterventionError: a share outside 0..1, or (while it runs) a row that has no other key.
        PositionError: a position, layer or head that does not exist, or a query before it.

    >>> force_hub("ct1", 0.5, [(2, 3)]).name
    'hub ct1 at 0.5 in L2H3'
    """
    heads = None if heads is None else as_heads(heads)
    share = finite_number("The share of a hub", share)
    if not 0 <= share <= 1:
        raise InterventionError(f"The share of a hub lies from 0 to 1; it is {share}.")

    def build(context: Context) -> list[Intervention]:
        queries = _later_queries(context, [position], at)
        hub = frozenset([position])

        def move(pattern: Pattern, chosen: list[int]) -> Tensor:
            here = columns(context, pattern, hub)
            part = pattern[:, chosen]
            others = part.masked_fill(here, 0)
            total = others.sum(dim=-1, keepdim=True)
            if share < 1 and (total == 0).any():
                raise InterventionError(
                    f"A head attends to the hub {position!r} alone, so its share cannot be {share}."
                )
            others = others * ((1 - share) / total.clamp_min(torch.finfo(part.dtype).tiny))
            pattern[:, chosen] = others.masked_fill(here, share / int(here.sum()))
            check_rows_sum(context, pattern)
            return pattern

        chosen_heads = _heads(context, heads, None)
        return [Intervention(edge_hooks("hook_pattern", chosen_heads, move), queries)]

    name = f"hub {position} at {share:g}{_where(heads, None)}"
    first = f"ct{max(0, rank(position) - 1)}" if at is None else first_position(at)
    return Planned(name, first, build)


def swap_columns(
    a: str, b: str, heads: GivenHeads | None = None, at: Scope | None = None
) -> Planned:
    """Exchange the attention that two positions get, in every later query.

    Args:
        a, b: single positions of one token.
        heads: pairs of layer and head, or their names; by default all heads.
        at: the queries, by name; by default the thoughts after both.

    Raises:
        InterventionError: twice the same position.
        PositionError: a position, layer or head that does not exist, or a query before both.

    >>> swap_columns("ct1", "ct3").name
    'swap ct1 and ct3'
    """
    heads = None if heads is None else as_heads(heads)
    latest = max(a, b, key=rank)
    if a == b:
        raise InterventionError(f"swap_columns was given {a!r} twice; give two positions.")

    def build(context: Context) -> list[Intervention]:
        queries = _later_queries(context, [a, b], at)

        def swap(pattern: Pattern, chosen: list[int]) -> Tensor:
            order = torch.arange(pattern.shape[-1], device=pattern.device)
            here, there = (columns(context, pattern, frozenset([name])) for name in (a, b))
            order[here], order[there] = order[there].clone(), order[here].clone()
            pattern[:, chosen] = pattern[:, chosen][..., order]
            check_rows_sum(context, pattern)
            return pattern

        chosen_heads = _heads(context, heads, None)
        return [Intervention(edge_hooks("hook_pattern", chosen_heads, swap), queries)]

    first = f"ct{max(0, rank(latest) - 1)}" if at is None else first_position(at)
    return Planned(f"swap {a} and {b}{_where(heads, None)}", first, build)


def columns(context: Context, pattern: Tensor, names: frozenset[str]) -> Bool[Tensor, " key"]:
    """Which keys of a pattern, or of scores, belong to these positions."""
    named = context.names(pattern.shape[-1])
    return torch.tensor([name in names for name in named], device=pattern.device)


def check_rows_sum(context: Context, pattern: Pattern, *, empty: bool = False) -> None:
    """Refuse attention that is negative or whose rows do not sum to 1.

    Rows of padding are not looked at: their sum is 0, or anything, and nothing reads them.

    Args:
        context: of the run.
        pattern: of the queries that an intervention acts at.
        empty: whether a row of zeros may stay.

    Raises:
        InterventionError: the sum that is furthest from 1, or the lowest weight.
    """
    sums = pattern.float().sum(dim=-1)
    if pattern.shape[2] > 1:  # only question tokens and given answers come as several queries
        sums = torch.where(_padding(context, pattern)[:, None], torch.ones_like(sums), sums)
    if empty:
        sums = sums.masked_fill(sums == 0, 1)
    miss = (sums - 1).abs().max()
    if miss > ROUNDING * torch.finfo(pattern.dtype).eps or (pattern < 0).any():
        raise InterventionError(
            f"An attention row misses the sum of 1 by {float(miss):.2g}, or holds the weight "
            f"{float(pattern.min()):.2g}; weights are not negative and sum to 1."
        )


def edge_hooks(
    point: str, heads: Heads, function: Callable[[Tensor, list[int]], Tensor | None]
) -> list[tuple[str, Callable[..., Tensor | None]]]:
    """One hook per layer, which calls the function with an activation and the layer's heads."""

    def hook(chosen: list[int]) -> Callable[..., Tensor | None]:
        return lambda activation, hook: function(activation, chosen)

    return [
        (f"blocks.{layer}.attn.{point}", hook(chosen)) for layer, chosen in by_layer(heads).items()
    ]


def _padding(context: Context, pattern: Pattern) -> Bool[Tensor, "problem query"]:
    """Which queries of a pass are padding; a padded answer is told by its all-zero rows."""
    n_queries = pattern.shape[2]
    empty = pattern.sum(dim=(1, 3)) == 0
    if pattern.shape[-1] <= context.bot + 1 and n_queries <= context.bot + 1:
        real = context.question_mask()
        if n_queries == real.shape[1]:
            return ~real
        if n_queries == real.shape[1] + 1:
            return torch.cat([~real, torch.zeros_like(real[:, :1])], dim=1)
    return empty


def _heads(context: Context, heads: Heads | None, layers: Sequence[int] | None) -> list[Head]:
    every = all_heads(context.lens.cfg)
    if heads is not None:
        heads_name(heads)  # refuses an empty list
        check_heads(heads, every)
        return list(heads)
    if layers is None:
        return every
    check_heads([(layer, 0) for layer in layers], every)
    if not layers:
        raise InterventionError("The intervention was given no layer.")
    return [head for head in every if head[0] in set(layers)]


def _sees_any(query: str, keys: frozenset[str]) -> bool:
    return any(rank(key) <= rank(query) for key in keys)


def _later_queries(context: Context, positions: Sequence[str], at: Scope | None) -> list[str]:
    """The queries of an intervention on columns, each of which must see all these positions."""
    singles = key_names(context.n_thoughts, written=context.config.written)[1:-1]
    for position in positions:
        if not isinstance(position, str) or position not in singles:
            raise PositionError(
                f"{shown(position)} is not a single position; there are "
                f"{', '.join(singles) or 'none in a run in words'}."
            )
    latest = max(positions, key=rank)
    if at is None:
        queries = [n for n in thought_names(context.n_thoughts) if rank(n) > rank(latest)]
        if not queries:
            raise PositionError(f"No thought comes after {latest!r}; name the queries with at=.")
        return queries
    queries = sorted(context.resolve(at), key=rank)
    if rank(queries[0]) < rank(latest):
        raise PositionError(
            f"The query {queries[0]!r} comes before {latest!r}, so it sees no such key."
        )
    return queries


def _where(heads: Heads | None, layers: Sequence[int] | None) -> str:
    if heads is not None:
        return f" in {heads_name(heads)}"
    return "" if layers is None else f" in layers {'+'.join(map(str, layers))}"
