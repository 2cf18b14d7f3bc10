"""Which generation of TransformerLens runs a model: a `HookedTransformer` or a `TransformerBridge`.

TransformerLens 3 has both, TransformerLens 4 the bridge alone. Which of them are there is found out
by importing them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args

from codi_lens.errors import CheckpointError, check_choice

Backend = Literal["hooked", "bridge"]
"""What `model.lens` is: a `HookedTransformer`, or a `TransformerBridge` around Hugging Face's own
model."""
_CLASSES = {
    "hooked": ("transformer_lens", "HookedTransformer"),
    "bridge": ("transformer_lens.model_bridge", "TransformerBridge"),
}


def class_of(backend: Backend) -> type[Any] | None:
    """TransformerLens' class; None where the installed release has none."""
    module, name = _CLASSES[backend]
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        return None


def usable_backend(backend: Backend | None) -> Backend:
    """The backend that a model is loaded with; by default "hooked" where it exists.

    Raises:
        CheckpointError: no such backend, or the installed TransformerLens does not have it.

    >>> usable_backend("bridge")
    'bridge'
    """
    there = [each for each in get_args(Backend) if class_of(each) is not None]
    if backend is None:
        return there[0]
    check_choice("backend", backend, Backend, CheckpointError)
    if backend not in there:
        raise CheckpointError(
            f"backend={backend!r} needs a {_CLASSES[backend][1]}, which the installed "
            f"TransformerLens does not have; it has {' and '.join(map(repr, there))}."
        )
    return backend


def backend_of(lens: Any) -> Backend:
    """What a model runs on."""
    bridge = class_of("bridge")
    return "bridge" if bridge is not None and isinstance(lens, bridge) else "hooked"


if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

    Lens: TypeAlias = HookedTransformer | TransformerBridge
else:
    Lens = Union[tuple(filter(None, map(class_of, get_args(Backend))))]  # noqa: UP007
"""The language model; elsewhere than in loading/ and thinking/ it is known by this name."""
