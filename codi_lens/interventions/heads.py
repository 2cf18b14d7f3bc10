"""Interventions on attention heads, at `hook_z`: before the output projection mixes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import InterventionError, check_choice, finite_number
from codi_lens.head_names import (
    GivenHeads,
    Heads,
    all_heads,
    as_heads,
    by_layer,
    check_heads,
    heads_name,
)
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode, replacements, source_details
from codi_lens.positions import Scope, first_position, scope_name
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned


def ablate_heads(
    heads: GivenHeads,
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
        heads: pairs of layer and head, or their names ("L1H7,L2H0").
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values; by default the other problems of the call, run clean first, or, where
            it holds one alone, built-in problems (an `InterventionWarning` says so). A sweep gives
            one `Donors`, so that donors do not depend on batching.
        seed: of the draws among the problems of the call; `donors` bring their own.

    Raises:
        InterventionError: no head, an unknown mode, or (in `think`) no donor.
        PositionError: a position, layer or head that does not exist.

    >>> ablate_heads([(1, 5)]).name
    'L1H5 resample at thinking'
    """
    check_choice("ablation mode", mode, Mode)
    heads = as_heads(heads)

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, all_heads(context.lens.cfg))
        return _edits(context, heads, mode, at, donors, seed)

    name = f"{heads_name(heads)} {mode} at {scope_name(at)}"
    return Planned(name, first_position(at), build, source_details(mode, donors, seed))


def keep_heads(
    heads: GivenHeads,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
) -> Planned:
    """Ablate every head but these, to ask whether they suffice; arguments as `ablate_heads`.

    >>> keep_heads([(1, 5), (2, 0)], mode="mean").name
    'all but L1H5+L2H0 mean at thinking'
    """
    check_choice("ablation mode", mode, Mode)
    heads = as_heads(heads)

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, all_heads(context.lens.cfg))
        others = [head for head in all_heads(context.lens.cfg) if head not in set(heads)]
        if not others:
            raise InterventionError("keep_heads was given every head, so nothing is ablated.")
        return _edits(context, others, mode, at, donors, seed)

    name = f"all but {heads_name(heads)} {mode} at {scope_name(at)}"
    return Planned(name, first_position(at), build, source_details(mode, donors, seed))


def scale_heads(heads: GivenHeads, factor: float | int, at: Scope = "thinking") -> Planned:
    """Multiply what heads give at named positions by a factor.

    Args:
        heads: pairs of layer and head, or their names ("L1H7,L2H0").
        factor: 1 changes nothing, 0 ablates; finite.
        at: where, by name.

    Raises:
        InterventionError: no head.
        PositionError: a position, layer or head that does not exist.

    >>> scale_heads([(1, 5)], 0.5, at="ct2").name
    'L1H5 x 0.5 at ct2'
    """
    heads, factor = as_heads(heads), finite_number("factor", factor)

    def build(context: Context) -> list[Intervention]:
        check_heads(heads, all_heads(context.lens.cfg))
        hooks = []
        for layer, chosen in by_layer(heads).items():

            def scale(z: Tensor, hook: object, chosen: list[int] = chosen) -> Tensor:
                z[:, :, chosen] *= factor
                return z

            hooks.append((f"blocks.{layer}.attn.hook_z", scale))
        return [Intervention(hooks, at)]

    name = f"{heads_name(heads)} x {factor:g} at {scope_name(at)}"
    return Planned(name, first_position(at), build)


def _edits(
    context: Context, heads: Heads, mode: Mode, at: Scope, donors: Donors | None, seed: int
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
