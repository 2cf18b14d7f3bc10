"""Interventions on attention heads, at `hook_z`: before the output projection mixes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import InterventionError
from codi_lens.head_names import Heads, all_heads, by_layer, check_heads, heads_name
from codi_lens.interventions.donors import Donors, donors_of
from codi_lens.positions import Scope, first_position, rank, resolve
from codi_lens.stats import seeded
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned

Mode = Literal["resample", "mean", "zero"]


def ablate_heads(
    heads: Heads,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
) -> Planned:
    """Replace what heads give at named positions: by a donor's value, the mean, or zero.

    A donor's question token is the one as far from `bot`; its answer token one that is drawn.
    The mean is taken per named position, over all tokens of question and answer. Zero is off the
    model's distribution: read it beside the other two.

    Args:
        heads: pairs of layer and head.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values; by default the other problems of the call, run clean first. A sweep
            gives one `Donors`, so that donors do not depend on batching.
        seed: of the draws among the problems of the call; `donors` bring their own.

    Raises:
        InterventionError: no head, an unknown mode, or (in `think`) no donor.
        PositionError: a position, layer or head that does not exist.

    >>> ablate_heads([(1, 5)]).name
    'L1H5 resample at thinking'
    """
    _check_mode(mode)

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, context.lens)
        return _edits(context, heads, mode, at, donors, seed)

    name = f"{heads_name(heads)} {mode} at {scope_name(at)}"
    return Planned(name, first_position(at), build, source_details(mode, donors, seed))


def keep_heads(
    heads: Heads,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
) -> Planned:
    """Ablate every head but these, to ask whether they suffice; arguments as `ablate_heads`.

    >>> keep_heads([(1, 5), (2, 0)], mode="mean").name
    'all but L1H5+L2H0 mean at thinking'
    """
    _check_mode(mode)

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, context.lens)
        others = [head for head in all_heads(context.lens) if head not in set(heads)]
        if not others:
            raise InterventionError("keep_heads was given every head, so nothing is ablated.")
        return _edits(context, others, mode, at, donors, seed)

    name = f"all but {heads_name(heads)} {mode} at {scope_name(at)}"
    return Planned(name, first_position(at), build, source_details(mode, donors, seed))


def scale_heads(heads: Heads, factor: float | int, at: Scope = "thinking") -> Planned:
    """Multiply what heads give at named positions by a factor.

    Args:
        heads: pairs of layer and head.
        factor: 1 changes nothing, 0 ablates.
        at: where, by name.

    Raises:
        InterventionError: no head.
        PositionError: a position, layer or head that does not exist.

    >>> scale_heads([(1, 5)], 0.5, at="ct2").name
    'L1H5 x 0.5 at ct2'
    """

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, context.lens)
        hooks = []
        for layer, chosen in by_layer(heads).items():

            def scale(z: Tensor, hook: object, chosen: list[int] = chosen) -> Tensor:
                z[:, :, chosen] *= factor
                return z

            hooks.append((f"blocks.{layer}.attn.hook_z", scale))
        return [Intervention(hooks, at)]

    name = f"{heads_name(heads)} x {factor:g} at {scope_name(at)}"
    return Planned(name, first_position(at), build)


def scope_name(at: Scope) -> str:
    """What tables call a scope.

    >>> scope_name(["ct1", "ct3"])
    'ct1+ct3'
    """
    return at if isinstance(at, str) else "+".join(at)


def source_details(mode: str, donors: Donors | None, seed: int) -> str:
    """Where replacements come from, as `Planned.details` says it."""
    if mode == "zero":
        return ""
    return f"seed {seed}" if donors is None else donors.identity


def replacements(
    context: Context,
    hook_names: Sequence[str],
    at: Scope,
    mode: str,
    donors: Donors | None,
    seed: int,
) -> dict[tuple[str, str], Callable[[Tensor], Tensor]]:
    """For each hook and single position, what gives the replacement of an activation there."""
    positions = sorted(resolve(at, context.n_thoughts), key=rank)
    if mode == "zero":
        return {(h, p): torch.zeros_like for h in hook_names for p in positions}
    source = donors_of(context, donors, seed)
    source.prepare(hook_names, positions)
    if mode == "mean":
        return {
            (h, p): _constant(source.mean(h, p)[None, None]) for h in hook_names for p in positions
        }
    drawn = source.draw(context.ids, prompts=context.prompts)
    return {
        (h, p): _aligned(source.tokens(h, p, drawn), p, context.ids, source.seed)
        for h in hook_names
        for p in positions
    }


def _edits(
    context: Context, heads: Heads, mode: str, at: Scope, donors: Donors | None, seed: int
) -> list[Intervention]:
    layers = by_layer(heads)
    names = {f"blocks.{layer}.attn.hook_z": chosen for layer, chosen in layers.items()}
    edits = []
    for (hook_name, position), replace in replacements(
        context, list(names), at, mode, donors, seed
    ).items():
        put = partial(_put_heads, chosen=names[hook_name], replace=replace)
        edits.append(Intervention([(hook_name, put)], position))
    return edits


def _put_heads(
    z: Float[Tensor, "problem pos head d_head"],
    hook: object,
    *,
    chosen: list[int],
    replace: Callable[[Tensor], Tensor],
) -> Float[Tensor, "problem pos head d_head"]:
    z[:, :, chosen] = replace(z)[:, :, chosen].to(z.dtype)
    return z


def _constant(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda activation: value.expand_as(activation)


def _aligned(
    tokens: Sequence[Tensor], position: str, ids: Sequence[str], seed: int
) -> Callable[[Tensor], Tensor]:
    """Donors' tokens, put where the activation's columns are."""
    if position == "answer":
        # Decoding shows one answer token a pass, scoring all at once: the same for both.
        chosen = [
            values[[seeded(seed, "answer token", name) % len(values)]]
            for name, values in zip(ids, tokens, strict=True)
        ]
        return _constant(torch.stack(chosen))
    if position != "question":
        return _constant(torch.stack(list(tokens)))

    def from_the_right(activation: Tensor) -> Tensor:
        width = activation.shape[1]
        # As far from `bot`; a donor's shorter question is gone through again.
        return torch.stack(
            [
                values[torch.arange(-width, 0, device=values.device) % len(values)]
                for values in tokens
            ]
        )

    return from_the_right


def _check_mode(mode: str) -> None:
    if mode not in get_args(Mode):
        raise InterventionError(
            f"There is no ablation mode {mode!r}; there are {', '.join(get_args(Mode))}."
        )
