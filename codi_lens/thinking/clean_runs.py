"""Clean runs that intervened runs start from: what an intervention cannot change is computed once.

An intervention that first acts at `bot` cannot change the question's keys and values, one that
first acts at `ct2` nothing before `ct2`. `CleanRuns` walks a batch of problems through their
thoughts once; `resume` goes on from any named position, with any problem in any number of rows,
each under its own intervention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import PositionError
from codi_lens.loading.loaded import Loaded
from codi_lens.positions import Layout, thought_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import Loop
from codi_lens.thinking.plan import kept_thoughts
from codi_lens.thinking.prompts import layout_of
from codi_lens.thinking.walk import walk


@dataclass(frozen=True, eq=False)
class CleanRuns:
    """A batch of problems, thought through without interventions up to the end of `eot`.

    Attributes:
        model: the model.
        prompts: token ids of each question, with what opens thinking.
        loop: fed up to the end of `eot`.
        thoughts: as fed.
        logits: at the last position of `eot`.
    """

    model: Loaded
    prompts: list[list[int]]
    loop: Loop
    thoughts: Float[Tensor, "problem thought d_model"]
    logits: Float[Tensor, "problem vocab"]

    @classmethod
    def of(cls, model: Loaded, prompts: Sequence[Sequence[int]]) -> CleanRuns:
        """Run prompts as `codi_lens.thinking.prompts.prepare` makes them."""
        prompts = [list(prompt) for prompt in prompts]
        loop = Loop(model.lens, layout_of(model, prompts))
        with torch.no_grad(), loop.hooks():
            kept = [model.config.n_thoughts] * len(prompts)
            walked = walk(model, loop, prompts, kept, bot_apart=True)  # resumed runs do as this one
        return cls(model, prompts, loop, walked.thoughts, walked.logits)

    @contextmanager
    def resume(
        self,
        first: str,
        rows: Sequence[int],
        interventions: Sequence[Intervention] = (),
        *,
        gradient: bool = False,
    ) -> Iterator[Resumed]:
        """Run again from `first` to the end of `eot`, under interventions.

        The interventions stay alive until the block ends, so that the answer can be fed or
        decoded inside it.

        Args:
            first: the first named position that any of the interventions can touch.
            rows: which problem each row of the new batch runs.
            interventions: of the new batch.
            gradient: whether what follows can be differentiated, through all its thoughts.

        Raises:
            PositionError: no such position.
            InterventionError: a hook does not exist or never fired.

        >>> from codi_lens import CodiModel
        >>> from codi_lens.thinking.prompts import prepare
        >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
        >>> question = "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?"
        >>> prompts = prepare(model, [question])
        >>> clean = CleanRuns.of(model, prompts)
        >>> with clean.resume("ct2", [0, 0]) as again:
        ...     bool(torch.allclose(again.thoughts, clean.thoughts.expand(2, -1, -1), atol=1e-5))
        True
        """
        prompts = [self.prompts[row] for row in rows]
        loop = self.loop.fork(rows, column_of(self.loop.layout, first), interventions)
        index = torch.tensor(list(rows), device=self.logits.device)
        kept = kept_thoughts(interventions, len(prompts), self.model.config.n_thoughts)
        with torch.set_grad_enabled(gradient), loop.hooks():
            if first == "answer":
                thoughts, logits = self.thoughts[index], self.logits[index]
            else:
                walked = walk(
                    self.model,
                    loop,
                    prompts,
                    kept,
                    first,
                    clean=self.thoughts[index],
                    bot_apart=True,
                )
                thoughts, logits = walked.thoughts, walked.logits
            yield Resumed(loop, thoughts, logits)
        loop.check_fired()


@dataclass(frozen=True, eq=False)
class Resumed:
    """A resumed batch at the end of `eot`, its interventions still alive.

    Attributes:
        loop: fed up to the end of `eot`.
        thoughts: as fed; those before the first touched position are the clean ones.
        logits: at the last position of `eot`.
    """

    loop: Loop
    thoughts: Float[Tensor, "row thought d_model"]
    logits: Float[Tensor, "row vocab"]


def column_of(layout: Layout, first: str) -> int:
    """The column at which a run that first differs at this position starts.

    Raises:
        PositionError: no such position.
    """
    thoughts = thought_names(layout.n_thoughts)
    starts = {"question": 0, "bot": layout.bot}
    starts |= {name: layout.bot + 1 + i for i, name in enumerate(thoughts)}
    starts |= {"eot": layout.bot + 1 + layout.n_thoughts, "answer": layout.eot + 1}
    if first not in starts:
        raise PositionError(f"A run cannot start at {first!r}; it can at {', '.join(starts)}.")
    return starts[first]
