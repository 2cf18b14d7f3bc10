"""The intervention itself: ordinary TransformerLens hooks, scoped by the names of positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from codi_lens.errors import InterventionError
from codi_lens.positions import Scope, first_position

HookFunction = Callable[..., Tensor | None]
"""`fn(activation, hook)`, called by name as TransformerLens does; may return a replacement."""


@dataclass(frozen=True)
class Intervention:
    """Hooks that act at named query positions, in every forward pass of a run.

    The hook function sees and writes only the selected positions: its activation has the usual
    TransformerLens shape with just those positions on the position axis (the query axis of
    `hook_pattern` and `hook_attn_scores`). Question positions of a batch are left-padded.

    Attributes:
        hooks: pairs of a hook name and a hook function.
        at: where, by name: "thinking", "thoughts", "question", "bot", "ct2", "eot", "answer",
            "all", or a list of these.
        name: what tables call it.
        keeps: how many thoughts the run keeps; the later ones are masked as if never thought.
            None keeps all.
        rows: the problems of the batch that `keeps` is for; None for all.

    >>> def silence_head_3(z, hook):
    ...     z[:, :, 3] = 0
    ...     return z
    >>> Intervention([("blocks.0.attn.hook_z", silence_head_3)], at="thinking").first
    'bot'
    """

    hooks: Sequence[tuple[str, HookFunction]]
    at: Scope = "all"
    name: str = ""
    keeps: int | None = None
    rows: tuple[int, ...] | None = None

    @property
    def first(self) -> str:
        """The first named position that it can touch."""
        return first_position(self.at)


def position_axis(hook_name: str) -> int:
    """The axis of an activation on which query positions lie.

    >>> position_axis("blocks.0.attn.hook_pattern"), position_axis("blocks.0.attn.hook_z")
    (2, 1)
    """
    return 2 if hook_name.endswith(("hook_pattern", "hook_attn_scores")) else 1


def scoped(function: HookFunction, columns: Sequence[int], activation: Tensor, hook: Any) -> Tensor:
    """`activation` with `function` applied to the given columns of its position axis."""
    axis = position_axis(hook.name)
    selection = [slice(None)] * axis + [list(columns)]
    return _rewritten(function, tuple(selection), activation, hook)


def on_rows(intervention: Intervention, rows: Sequence[int]) -> Intervention:
    """The intervention on these rows of the batch only; see `for_rows`."""
    chosen = tuple(rows)
    if intervention.rows is not None:
        chosen = tuple(rows[row] for row in intervention.rows)
    # Partials, not closures: the tests check types by decorating every function that is defined.
    return Intervention(
        [
            (name, partial(_rewritten, function, (list(rows),)))
            for name, function in intervention.hooks
        ],
        intervention.at,
        intervention.name,
        intervention.keeps,
        chosen,
    )


def _rewritten(function: HookFunction, selection: Any, activation: Tensor, hook: Any) -> Tensor:
    part = activation[selection]
    result = function(part, hook=hook)
    if result is None:
        return activation
    if result.shape != part.shape:
        raise InterventionError(
            f"The hook at {hook.name} returned shape {tuple(result.shape)} for an activation of "
            f"shape {tuple(part.shape)}; it must keep the shape."
        )
    changed = activation.clone()
    changed[selection] = result.to(changed.dtype)
    return changed
