"""The intervention itself: ordinary TransformerLens hooks, scoped by the names of positions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import FunctionType
from typing import Any

from torch import Tensor

from codi_lens.errors import InterventionError, listed, shown, whole_number
from codi_lens.positions import Scope, first_position, scope_name

HookFunction = Callable[..., Tensor | None]
"""`fn(activation, hook)`, called by name as TransformerLens does.

What it returns replaces the activation; if it returns nothing, what it edited in place counts.
"""


@dataclass(frozen=True)
class Intervention:
    """Hooks that act at named query positions, in every forward pass of a run.

    The hook function sees and writes only the selected positions: its activation has the usual
    TransformerLens shape with just those positions on the position axis (the query axis of
    `hook_pattern` and `hook_attn_scores`). Question positions of a batch are left-padded. As in
    TransformerLens, it edits in place or returns a replacement, which wins where it does both.

    Attributes:
        hooks: pairs of a hook name and a hook function.
        at: where, by name: "thinking", "thoughts", "question", "bot", "ct2", "eot", "answer",
            "all", or a list of these.
        name: what tables call it.
        keeps: how many thoughts the run keeps; the later ones are masked as if never thought.
            None keeps all.
        rows: the problems of the batch that `keeps` is for; None for all.

    Raises:
        InterventionError: hooks that are no pairs of a name and a function of two arguments.
        PositionError: positions that are not given by name.

    >>> def silence_head_3(z, hook):
    ...     z[:, :, 3] = 0
    >>> Intervention([("blocks.0.attn.hook_z", silence_head_3)], at="thinking").first
    'bot'
    """

    hooks: Sequence[tuple[str, HookFunction]]
    at: Scope = "all"
    name: str = ""
    keeps: int | None = None
    rows: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what no run could apply."""
        hooks = listed("Intervention", self.hooks, "pairs of name and function", InterventionError)
        for pair in hooks:
            _check_pair(pair)
        object.__setattr__(self, "hooks", hooks)
        scope_name(self.at)
        if self.keeps is not None:
            whole_number("keeps", self.keeps)

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
    part = activation[selection]  # a copy, since the selection holds a list
    shape = part.shape
    result = function(part, hook=hook)
    if result is None:
        # Edited in place or only looked at: writing it back is right for both, and for edits that
        # no version counter shows (`x.data`, `x.numpy()`).
        result = part
    if not isinstance(result, Tensor):
        raise InterventionError(
            f"The hook at {hook.name} returned {shown(result)}; it must return a tensor of shape "
            f"{tuple(shape)}, or nothing if it edits in place."
        )
    if result.shape != shape:
        raise InterventionError(
            f"The hook at {hook.name} returned shape {tuple(result.shape)} for an activation of "
            f"shape {tuple(shape)}; it must keep the shape."
        )
    changed = activation.clone()
    changed[selection] = result.to(changed.dtype)
    return changed


def _check_pair(pair: Any) -> None:
    fits = isinstance(pair, (tuple, list)) and len(pair) == 2
    if not fits or not isinstance(pair[0], str) or not callable(pair[1]):
        raise InterventionError(
            f"{shown(pair)} is no hook; give pairs of a hook name and a function, as "
            "('blocks.1.attn.hook_z', edit)."
        )
    try:
        _bind(pair[1], None, hook=None)
    except TypeError:
        raise InterventionError(
            f"The function for {pair[0]} cannot be called as fn(activation, hook=hook), as "
            "TransformerLens does."
        ) from None
    except ValueError:  # some built-in functions do not tell their arguments
        return


def _bind(function: Any, *given: Any, **named: Any) -> None:
    """As `inspect.signature(function).bind(...)`, for partials of the same functions over again."""
    while type(function) is partial:
        given, named = (*function.args, *given), {**function.keywords, **named}
        function = function.func
    found = _signature(function) if type(function) is FunctionType else inspect.signature(function)
    found.bind(*given, **named)


@lru_cache(maxsize=64)
def _signature(function: FunctionType) -> inspect.Signature:
    return inspect.signature(function)
