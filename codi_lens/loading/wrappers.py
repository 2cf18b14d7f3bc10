"""The names of weights and the containers of state dicts, without what training wrapped around."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from codi_lens.errors import CheckpointError

_WRAPPERS = {
    "module",  # distributed training
    "_ddp_module",
    "_forward_module",  # Lightning
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_fpw_module",
    "_checkpoint_wrapped_module",  # activation checkpointing
}
"""Steps of a name that no model has itself."""
_CODI = ("codi.", "prj.", "base_causallm.", "base_model.model.", "projector.")
_PLAIN = ("transformer.", "gpt_neox.", "model.", "lm_head.", "embed_out.")
"""What the names of a merged export begin with."""
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module", "net", "weights")
"""Under which names training scripts keep a state dict, or a container of one."""


def unwrapped(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """A state dict without the steps that wrappers add to its names, in any order and place.

    A prefix of another name goes only where all keys share it and what remains is a CODI model's
    (or, behind `model.` alone, a merged export's).

    Raises:
        CheckpointError: two keys differ in their wrappers alone.
    """
    plain: dict[str, Tensor] = {}
    for key, value in state.items():
        target = ".".join(step for step in key.split(".") if step not in _WRAPPERS)
        if target in plain:
            raise CheckpointError(f"{name} holds {target} twice, in different wrappers ({key}).")
        plain[target] = value
    bare, steps = plain, set()
    while not any(key.startswith(_CODI) for key in bare):
        first = {key.partition(".")[0] for key in bare}
        steps |= first
        if len(first) != 1 or not all("." in key for key in bare):
            return plain
        bare = {key.partition(".")[2]: value for key, value in bare.items()}
        if steps == {"model"} and any(key.startswith(_PLAIN) for key in bare):
            plain = bare
    return bare


def opened(held: Any, where: str) -> dict[str, Tensor]:
    """The one state dict of what a training script saved.

    Args:
        held: what the file holds: a state dict, or a container of one among other things.
        where: what errors call the file.

    Raises:
        CheckpointError: no state dict, or several.
    """
    found = _state_dicts(held)
    if len(found) > 1:
        raise CheckpointError(
            f"{where} holds several state dicts ({', '.join(found)}); save the one to load alone."
        )
    if found:
        return dict(next(iter(found.values())))
    odd = _odd(held)
    raise CheckpointError(
        f"{where} must hold a state dict: a mapping from names to tensors"
        + (f"; its {odd[0]!r} is of type {odd[1]}." if odd else f", not {held!r:.40}.")
    )


def some_of(keys: Iterable[str], most: int = 4) -> str:
    """Some names and how many more there are, for an error."""
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _state_dicts(held: Any, path: str = "", depth: int = 4) -> dict[str, Mapping[str, Tensor]]:
    """State dicts by where they are: directly here, or in containers of a known name."""
    if not isinstance(held, Mapping):
        return {}
    if _is_state_dict(held):
        return {path or "itself": held}
    found: dict[str, Mapping[str, Tensor]] = {}
    for key, value in held.items():
        inner = f"{path}.{key}" if path else str(key)
        if key in _CONTAINERS and depth:
            found |= _state_dicts(value, inner, depth - 1)
        elif isinstance(value, Mapping) and value and _is_state_dict(value):
            found[inner] = value
    return found


def _is_state_dict(held: Mapping[Any, Any]) -> bool:
    return bool(held) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in held.items()
    )


def _odd(held: Any) -> tuple[Any, str] | None:
    """The first entry that keeps a mapping from being a state dict, and its type."""
    if not isinstance(held, Mapping):
        return None
    odd = [(k, v) for k, v in held.items() if not (isinstance(k, str) and isinstance(v, Tensor))]
    return (odd[0][0], type(odd[0][1]).__name__) if odd else None
