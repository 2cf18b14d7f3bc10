"""The activations of a finished run: those it kept, or a replay of the whole in one pass."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from codi_lens.errors import InterventionError
from codi_lens.loading.loaded import Lens
from codi_lens.positions import Layout
from codi_lens.thinking.loop import Loop


@dataclass(frozen=True, eq=False)
class Activations:
    """What `ThoughtRun.cache` needs, not the run's keys and values.

    Attributes:
        lens: the model; None in a copy that pickle made.
        layout: where the named positions lie in the batch.
        vectors: all that was fed.
        mask: 1 where a column holds a position of the problem.
        kept: the activations that the run was asked to keep; None if it was not asked.
        clean: whether the run had neither interventions nor hooks.
    """

    lens: Lens | None
    layout: Layout
    vectors: Float[Tensor, "problem pos d_model"]
    mask: Int[Tensor, "problem pos"]
    kept: Mapping[str, Tensor] | None
    clean: bool

    def cache(self) -> ActivationCache:
        """One cache over the whole run; see `ThoughtRun.cache`.

        Raises:
            InterventionError: nothing was kept, and the run cannot be replayed.
        """
        advice = "names_filter=lambda name: True, and it keeps those activations."
        if self.kept is not None:
            return ActivationCache(dict(self.kept), self.lens)
        if not self.clean:
            raise InterventionError(
                "A run with interventions or hooks is not replayed; pass names_filter= to think, "
                f"for example {advice}"
            )
        if self.lens is None:
            raise InterventionError(
                "A run that was pickled comes without its model and is not replayed; before "
                f"pickling, call cache(), or pass think {advice}"
            )
        again = Loop(self.lens, self.layout, names_filter=lambda _: True)
        with again.hooks():
            again.feed(self.vectors, self.mask)
        return ActivationCache(again.stitched(), self.lens)

    def __getstate__(self) -> dict[str, Any]:
        """Without the model, which would make every pickled run as large as it."""
        kept = self.kept and {name: value.detach() for name, value in self.kept.items()}
        return {**vars(self), "lens": None, "vectors": self.vectors.detach(), "kept": kept}

    def __deepcopy__(self, memo: dict[int, Any]) -> Activations:
        """A copy in the same process keeps the model."""
        state = {**self.__getstate__(), "lens": None}
        return replace(type(self)(**copy.deepcopy(state, memo)), lens=self.lens)

    def __copy__(self) -> Activations:
        """A copy in the same process keeps the model."""
        return replace(self)
