"""What replaces an activation: a donor's value, the mean over donors, or zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from codi_lens.errors import check_seed
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.giving import check_donors, donors_of
from codi_lens.positions import Scope, rank
from codi_lens.stats import seeded
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context

Mode = Literal["resample", "mean", "zero"]
"""What replaces an activation: a donor's, the mean over donors, or zero."""


def source_details(mode: Mode, donors: Donors | None, seed: int) -> str:
    """Where replacements come from, as `Planned.details` says it.

    Raises:
        InterventionError: donors that are none, or a seed that is none.
    """
    check_donors(donors)
    check_seed(seed)
    if mode == "zero":
        return ""
    return f"seed {seed}" if donors is None else donors.identity


def replacements(
    context: Context,
    hook_names: Sequence[str],
    at: Scope,
    mode: Mode,
    donors: Donors | None,
    seed: int,
) -> dict[tuple[str, str], Callable[[Tensor], Tensor]]:
    """For each hook and single position, what gives the replacement of an activation there."""
    positions = sorted(context.resolve(at), key=rank)
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


def replaced(
    context: Context, hook_name: str, at: Scope, mode: Mode, donors: Donors | None, seed: int
) -> list[Intervention]:
    """One intervention for each single position, which replaces all of an activation there."""
    edits = replacements(context, [hook_name], at, mode, donors, seed)
    return [
        Intervention([(hook_name, partial(_put, replace=replace))], position)
        for (_, position), replace in edits.items()
    ]


def _put(activation: Tensor, hook: object, *, replace: Callable[[Tensor], Tensor]) -> Tensor:
    return replace(activation)


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
