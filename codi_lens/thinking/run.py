"""What one run gave: thoughts, labelled attention, answers, and a cache of the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xarray as xr
from jaxtyping import Float, Float32, Int
from torch import Tensor
from transformer_lens import ActivationCache

from codi_lens.errors import shown
from codi_lens.positions import Layout
from codi_lens.thinking.replay import Activations
from codi_lens.wording import card, count, html_card

Cache = ActivationCache
"""Activations by hook name; elsewhere than in loading/ and thinking/ known by this name."""
_SHOWN = 3


@dataclass(frozen=True, eq=False, repr=False)
class ThoughtRun:
    """What one pass of question → thoughts → answer gave, for a batch of problems.

    A run of `CodiModel.skip` or `CodiModel.explain` has no thoughts: its tensors of thoughts have
    none, and its attention has fewer rows.

    It can be pickled, saved and sent to other processes; the model does not go along, nor does a
    graph of gradients.

    Attributes:
        thoughts: `ct0` … `ct{n-1}` as they were fed.
        predicted_thoughts: the projection's outputs; equal to `thoughts` unless those were forced.
        attention: attention probabilities, labelled; queries `bot`, `ct0` …, `eot`, `anchor`, keys
            `question` (summed), `bot`, `ct0` …, `eot`, `answer` (summed). Rows sum to 1; cells that
            causality forbids are 0; the `anchor` row is NaN where the answer holds no number. Of
            `CodiModel.explain`: queries `step0` …, `anchor`, keys `question`, `step0` … (the tokens
            of a result, summed), `answer` (all else that is written, summed); the row of a step is
            of its result's last token, and NaN in problems with fewer steps.
        logits: before the answer (at the last position of `eot`): they give its first token.
        answers: the decoded answers, or the given ones.
        answer_tokens: their tokens, cut at EOS.
        answer_log_probs: where answers were given, the log-probability of each token of each,
            given everything before it, EOS last; otherwise None.
        tokens: per problem, the text of every column of `cache()`: of each token; of a thought
            its name, and of `bot` and `eot` where they have no text; "" of padding.
        layout: where the named positions lie in the batch.
    """

    thoughts: Float[Tensor, "problem thought d_model"]
    predicted_thoughts: Float[Tensor, "problem thought d_model"]
    attention: xr.DataArray
    logits: Float[Tensor, "problem vocab"]
    answers: list[str]
    answer_tokens: list[list[int]]
    answer_log_probs: list[Float32[Tensor, " _token"]] | None
    tokens: list[list[str]]
    layout: Layout
    _activations: Activations

    def index(self, name: str) -> Int[Tensor, "problem"]:
        """Where `bot`, a thought, `eot` or `anchor` lies in the tensors of `cache()`, per problem.

        Of `CodiModel.explain`: `step0` … (a result's last token) or `anchor`.

        Raises:
            PositionError: not a single position of this run; or "anchor" without a number.
        """
        return self.layout.index(name)

    def span(self, name: str) -> list[slice]:
        """Where a position or a group ("question", "answer") lies in `cache()`, per problem."""
        return self.layout.span(name)

    def cache(self) -> ActivationCache:
        """One ordinary TransformerLens cache over the whole run, question to answer.

        Positions are left-padded and end with the last answer token that was fed. If `think` was
        given `names_filter`, these are the activations of the run itself; otherwise the run is
        replayed in one forward pass over the same vectors, with all hooks.

        Raises:
            InterventionError: it kept no activations and had interventions, or came from another
                process without its model.
        """
        return self._activations.cache()

    def __repr__(self) -> str:
        """A few lines: how many problems, and the first answers."""
        return card(*self._card())

    def _repr_html_(self) -> str:
        """The same, for notebooks."""
        return html_card(*self._card())

    def _card(self) -> tuple[str, dict[str, str]]:
        n = len(self.answers)
        rows = {
            "model": str(self.attention.attrs["model"]),
            "accuracy": "not known to a run, which holds no right answers",
        }
        rows |= {f"answer {i}": shown(answer) for i, answer in enumerate(self.answers[:_SHOWN])}
        if n > _SHOWN:
            rows["…"] = f"{n - _SHOWN} more"
        thoughts = count(self.layout.n_thoughts, "thought")
        kind = "in written words" if self.layout.written else f"with {thoughts}"
        return f"ThoughtRun: {count(n, 'problem')} {kind}", rows

    def __getstate__(self) -> dict[str, Any]:
        """What pickle takes: tensors without their graphs, which do not leave a process."""
        return {name: _detached(value) for name, value in vars(self).items()}


def _detached(value: Any) -> Any:
    if isinstance(value, list):
        return [_detached(each) for each in value]
    return value.detach() if isinstance(value, Tensor) else value
