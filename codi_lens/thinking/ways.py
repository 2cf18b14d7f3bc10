"""Three ways to answer with the same weights: in thoughts, at once, or in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeVar

from codi_lens.errors import ProblemError, check_choice
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.loaded import Loaded

Way = Literal["think", "skip", "explain"]
"""Question, thoughts, answer; question, `bot`, `eot`, answer; question, chain in words, answer."""

_Model = TypeVar("_Model", bound=Loaded)


def in_way(model: _Model, way: Way) -> _Model:
    """The same weights, run in this way by whatever runs a model.

    Raises:
        ProblemError: no such way.

    >>> from codi_lens import CodiModel
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> config = in_way(model, "explain").config
    >>> config.n_thoughts, config.opening, config.closing
    (0, [], [])
    """
    check_choice("way", way, Way, ProblemError)
    if way == "think":
        return model
    kind = CodiConfig if way == "skip" else _WrittenConfig
    settings: dict[str, Any] = vars(model.config) | {"n_thoughts": 0}
    return replace(model, config=kind(**settings))


def way_of(model: Loaded) -> Way:
    """In which way a model of `in_way` runs."""
    if model.config.n_thoughts:
        return "think"
    return "skip" if model.config.closing else "explain"


class _WrittenConfig(CodiConfig):
    """Of a run that the teacher makes: neither `bot` nor `eot`, but the EOS where it is kept."""

    @property
    def opening(self) -> list[int]:
        """The tokens after a question: none, or `[eos]` where EOS is kept."""
        return super().opening[:-1]

    @property
    def closing(self) -> list[int]:
        """None: what is written follows the question."""
        return []
