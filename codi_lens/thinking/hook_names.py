"""Names of hooks: which a model has, which are asked for, and which can fire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from codi_lens.errors import InterventionError, listed, shown
from codi_lens.loading.loaded import Lens
from codi_lens.thinking.engine import engine_of
from codi_lens.thinking.lock import locked

NamesFilter = str | Sequence[str] | Callable[[str], bool] | None
"""Which activations to keep: a hook name, several, or a predicate; None for none."""


def hooked_names(lens: Lens) -> list[str]:
    """The hook points that carry forward hooks right now, set by `model.lens.hooks(...)`."""
    with locked(lens):  # not while a run of another thread has its own
        return sorted(name for name, point in engine_of(lens).points.items() if point.fwd_hooks)


def check_hook_name(lens: Lens, name: Any) -> None:
    """Refuse a hook that the model does not have.

    Raises:
        InterventionError: names it.
    """
    if not has_hook(lens, name):
        raise InterventionError(
            f"There is no hook {shown(name)} in this model (layers 0..{lens.cfg.n_layers - 1}); "
            "hooks go by TransformerLens' classic names, such as 'blocks.0.attn.hook_z'."
        )


def has_hook(lens: Lens, name: Any) -> bool:
    """Whether a model has a hook of this classic name."""
    return isinstance(name, str) and name in engine_of(lens).points


def matching(lens: Lens, names_filter: NamesFilter) -> list[str]:
    """The hook names to keep; a filter function takes those that can fire in this model.

    Raises:
        InterventionError: a name that no hook has, no name at all, or no filter.
    """
    if names_filter is None:
        return []
    if callable(names_filter):
        points = engine_of(lens).points
        names = [name for name in points if names_filter(name) and can_fire(lens, name)]
    else:
        single = [names_filter] if isinstance(names_filter, str) else names_filter
        names = listed("names_filter=", single, "hook names, or a predicate", InterventionError)
    if not names:
        raise InterventionError("names_filter selects no hook of this model.")
    for name in names:
        check_hook_name(lens, name)
    return names


def can_fire(lens: Lens, name: str) -> bool:
    """Hook points that TransformerLens has switched off do not fire."""
    switches = {
        "hook_result": lens.cfg.use_attn_result,
        "hook_q_input": lens.cfg.use_split_qkv_input,
        "hook_k_input": lens.cfg.use_split_qkv_input,
        "hook_v_input": lens.cfg.use_split_qkv_input,
        "hook_attn_in": lens.cfg.use_attn_in,
        "hook_mlp_in": lens.cfg.use_hook_mlp_in,
    }
    return switches.get(name.rsplit(".", 1)[-1], True)
