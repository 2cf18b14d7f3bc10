"""Patching the residual stream, or what a layer adds to it, at named positions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor

from codi_lens.errors import InterventionError, PositionError, check_choice, whole_number
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode, replaced, source_details
from codi_lens.positions import Scope, first_position, rank, scope_name
from codi_lens.thinking.given import Vectors, as_tensor
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, digest

Component = Literal["resid_pre", "resid_post", "mlp_out", "attn_out"]
"""A point of the residual stream, or what a part of a layer adds to it."""


def patch_residual(
    layer: int,
    at: Scope,
    source: Mode | Vectors = "resample",
    component: Component = "resid_pre",
    donors: Donors | None = None,
    seed: int = 0,
) -> Planned:
    """Replace the residual stream at a layer by what donors have at the very same point.

    Both directions are this one: run the corrupted problems with clean donors (restoration), or
    the clean ones with corrupted donors, paired by `Donors.paired`.

    Args:
        layer: from 0.
        at: where, by name.
        source: "resample", "mean", "zero", or vectors [problem, position, d_model] for the named
            single positions in the order of the run.
        component: the point that is read and written: before or after the layer, or what its MLP
            or its attention adds.
        donors: whose values; by default the other problems of the call, run clean first, or
            built-in ones (see `ablate_heads`).
        seed: of draws among the problems of the call.

    Raises:
        InterventionError: an unknown source or component, vectors of the wrong shape, or no donor.
        PositionError: a position or layer that does not exist, or vectors for a group of positions.

    >>> patch_residual(1, "ct2", "mean", "mlp_out").name
    'L1 mlp_out mean at ct2'
    """
    check_choice("component", component, Component)
    mode = source if isinstance(source, str) else "zero"
    check_choice("mode", mode, Mode)
    chosen = cast(Mode, mode)
    details = source_details(chosen, donors, seed)
    given = None
    if not isinstance(source, str):
        given = as_tensor("The vectors", source, InterventionError)
    layer = whole_number("layer", layer, 0, 10**6, PositionError)
    hook_name = f"blocks.{layer}.hook_{component}"

    def build(context: Context) -> list[Intervention]:
        check_layers([layer], context.lens.cfg.n_layers)
        if given is None:
            return replaced(context, hook_name, at, chosen, donors, seed)
        return _given(context, hook_name, at, given)

    name = f"L{layer} {component} {mode if given is None else 'given'} at {scope_name(at)}"
    details = details if given is None else digest(given)
    return Planned(name, first_position(at), build, details)


def check_layers(layers: Sequence[int], n_layers: int) -> None:
    """Refuse layers that the model does not have.

    Raises:
        PositionError: names the first that is missing.
    """
    missing = [layer for layer in layers if not 0 <= layer < n_layers]
    if missing:
        raise PositionError(f"There is no layer {missing[0]}; the model has 0..{n_layers - 1}.")


def _given(context: Context, hook_name: str, at: Scope, vectors: Tensor) -> list[Intervention]:
    names = sorted(context.resolve(at), key=rank)
    groups = [name for name in names if name in ("question", "answer")]
    if groups:
        raise PositionError(f"{groups[0]!r} is a group of positions; vectors are for single ones.")
    expected = (len(context.prompts), len(names), context.lens.cfg.d_model)
    if tuple(vectors.shape) != expected:
        raise InterventionError(
            f"The vectors have shape {tuple(vectors.shape)}; expected [problem, position, d_model] "
            f"= {expected}."
        )

    def put(i: int) -> Intervention:
        vector = vectors[:, i : i + 1]
        return Intervention([(hook_name, lambda x, hook: vector.to(x).expand_as(x))], names[i])

    return [put(i) for i in range(len(names))]


def fraction_recovered(
    clean: Tensor | float, corrupted: Tensor | float, patched: Tensor | float
) -> Tensor:
    """How much of a difference between two runs a patch brings back: 0 none, 1 all.

    (patched - corrupted) / (clean - corrupted), of a logit difference for instance (Wang et al.
    2022, "Interpretability in the wild"). NaN where clean and corrupted do not differ.

    Args:
        clean: of the run whose values are patched in.
        corrupted: of the run that is patched, before.
        patched: of the run that is patched, after.

    >>> fraction_recovered(3.0, 1.0, 2.0).item()
    0.5
    """
    whole = torch.as_tensor(clean) - torch.as_tensor(corrupted)
    part = torch.as_tensor(patched) - torch.as_tensor(corrupted)
    return torch.where(whole == 0, torch.nan, part / whole)
