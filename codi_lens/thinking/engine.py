"""What the thought loop needs of a language model, whichever TransformerLens runs it.

Nothing but an engine knows whether `model.lens` is a `HookedTransformer` or a `TransformerBridge`.
Hooks go by TransformerLens' classic names, and mean on both what they mean on the first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from codi_lens.loading.backends import Lens, backend_of
from codi_lens.thinking.hooks import HookFunction


@runtime_checkable
class State(Protocol):
    """Keys and values of the positions that went through the model."""

    def select(self, rows: Int[Tensor, " row"] | None, start: int, length: int) -> State:
        """Some columns, of all problems or of some, one of which may come many times."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A language model, pass by pass.

    Attributes:
        rotates_all_keys: whether `hook_rot_k` sees the keys of all positions in every pass, or
            those of the pass alone.
    """

    rotates_all_keys: bool

    @property
    def points(self) -> Mapping[str, HookPoint]:
        """Hook points, by classic names."""
        ...

    def hooks(self, hooks: Sequence[tuple[str, HookFunction]]) -> AbstractContextManager[Any]:
        """Hooks that act while the context is open, called with a hook of the classic name."""
        ...

    def can_fuse(self, hooked: Collection[str]) -> bool:
        """Whether `run` may leave out attention that nobody looks at.

        Args:
            hooked: the hooks that somebody listens to, beside the loop's own.
        """
        ...

    def state(self, n_problems: int) -> State:
        """That of no positions."""
        ...

    def embed(self, tokens: Int[Tensor, "problem pos"]) -> Float[Tensor, "problem pos d_model"]:
        """Embeddings of tokens, before positions and before any hook."""
        ...

    def enter(
        self, vectors: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos d_model"]:
        """What is fed, through `hook_embed`."""
        ...

    def run(
        self,
        vectors: Float[Tensor, "problem pos d_model"],
        mask: Int[Tensor, "problem key"],
        state: Any,
        queries: Int[Tensor, "problem row"] | None = None,
    ) -> tuple[Float[Tensor, "problem pos d_model"], list[Tensor] | None]:
        """One pass: the hidden states after the final norm.

        Args:
            vectors: what was entered, before positions are added.
            mask: 1 where a position is real, of past and new ones.
            state: of the past ones; the new ones are appended.
            queries: columns whose patterns alone are needed, where `can_fuse` said so; these are
                then given, per layer [problem, row, head, key].
        """
        ...

    def unembed(
        self, hidden: Float[Tensor, "problem pos d_model"]
    ) -> Float[Tensor, "problem pos vocab"]:
        """Next-token logits of hidden states after the final norm."""
        ...


def engine_of(lens: Lens) -> Engine:
    """What runs a model.

    >>> from codi_lens import CodiModel
    >>> "blocks.0.attn.hook_z" in engine_of(CodiModel.from_pretrained("tiny-gpt2").lens).points
    True
    """
    own: Any = lens
    if backend_of(lens) == "bridge":
        from codi_lens.thinking.bridged import BridgeEngine as Made
    else:
        from codi_lens.thinking.hooked import HookedEngine as Made
    return Made(own)
