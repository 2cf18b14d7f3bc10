"""What may be asked of a run beside its questions; see `CodiModel.think`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from jaxtyping import Float
from torch import Tensor

from codi_lens.thinking.given import Kinds, Vectors
from codi_lens.thinking.hook_names import NamesFilter
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned


class Asked(TypedDict, total=False):
    """Of any run."""

    kind: Kinds
    max_new_tokens: int
    names_filter: NamesFilter
    interventions: Intervention | Planned | Iterable[Intervention | Planned]
    ids: Sequence[str] | None
    fused: bool


class Scored(Asked, total=False):
    """Of a run whose answers may be given."""

    answers: Iterable[str] | Iterable[Sequence[int]] | None


class Thinking(Scored, total=False):
    """Of a run that thinks."""

    thoughts: Float[Tensor, "problem thought d_model"] | Vectors | None
