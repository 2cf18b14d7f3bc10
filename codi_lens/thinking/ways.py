"""Three ways to answer with the same weights: in thoughts, at once, or in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from codi_lens.errors import PositionError, ProblemError, check_choice
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.loaded import Loaded
from codi_lens.thinking.given import check_model

Way = Literal["think", "skip", "explain"]
"""Question, thoughts, answer; question, `bot`, `eot`, answer; question, chain in words, answer."""

_Model = TypeVar("_Model", bound=Loaded)


def in_way(model: _Model, way: Way | None) -> _Model:
    """The same weights, run in this way by whatever runs a model; see `CodiModel.in_way`.

    Args:
        model: in any way.
        way: None is its own.

    Raises:
        ProblemError: no such way.

    >>> from codi_lens import CodiModel
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> config = in_way(model, "explain").config
    >>> config.n_thoughts, config.opening, config.closing
    (0, [], [])
    """
    check_model(model)
    if way is None:
        return model
    check_choice("way", way, Way, ProblemError)
    if way == way_of(model):
        return model
    settings: dict[str, Any] = dict(vars(model.config))
    n_thoughts = settings.pop("n_left_out", model.config.n_thoughts)
    if way == "think":
        return replace(model, config=CodiConfig(**settings | {"n_thoughts": n_thoughts}))
    kind = _Thoughtless if way == "skip" else _Written
    settings |= {"n_thoughts": 0, "n_left_out": n_thoughts}
    return replace(model, config=kind(**settings))


def way_of(model: Loaded) -> Way:
    """In which way a model runs."""
    if model.config.n_thoughts:
        return "think"
    return "explain" if model.config.written else "skip"


def check_thoughts(model: Loaded, what: str, instead: str = "") -> None:
    """Refuse what is about thoughts where a model runs without them.

    Args:
        model: in any way.
        what: names it at the start of a sentence.
        instead: what else to do, at its end.

    Raises:
        PositionError: the model runs in a way without thoughts.
    """
    check_model(model)
    if not model.config.n_thoughts:
        raise PositionError(
            f"{what} is about thoughts, and a run in the way {way_of(model)!r} has none; give the "
            f"model in the way 'think'{instead}."
        )


@dataclass(frozen=True)
class _Thoughtless(CodiConfig):
    """Of runs without thoughts.

    Attributes:
        n_left_out: how many thoughts the same model has where it thinks.
    """

    n_left_out: int = 0


class _Written(_Thoughtless):
    """Of a run that the teacher makes: neither `bot` nor `eot`, but the EOS where it is kept."""

    @property
    def opening(self) -> list[int]:
        """The tokens after a question: none, or `[eos]` where EOS is kept."""
        return super().opening[:-1]

    @property
    def closing(self) -> list[int]:
        """None: what is written follows the question."""
        return []
