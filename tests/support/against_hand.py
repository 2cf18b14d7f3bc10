"""Runs of a few problems, compared with each other and with the equations written by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from support.hand_written import Edits, HandWritten
from torch import Tensor

from codi_lens import CodiModel, Intervention, Planned, ThoughtRun
from codi_lens.problems import word_problems
from codi_lens.thinking.prompts import prepare

PROBLEMS = word_problems(6, seed=21)
TEXTS = [problem.question for problem in PROBLEMS]
IDS = [problem.id for problem in PROBLEMS]
OTHERS = word_problems(12, seed=22)
# Two float32 implementations of one recurrence; the oracle's README gives the same for free runs.
FREE = 1e-3


def run(model: CodiModel, *interventions: Intervention | Planned, **settings: object) -> ThoughtRun:
    settings = {"max_new_tokens": 8, "ids": IDS, **settings}
    return model.think(TEXTS, interventions=interventions, **settings)  # type: ignore[arg-type]


def prompts(model: CodiModel, texts: list[str]) -> list[list[int]]:
    return prepare(model, texts)


def same_bits(a: ThoughtRun, b: ThoughtRun, rows: list[int] | None = None) -> bool:
    """The thoughts, logits, attention and answers of two runs, or of some of their problems."""
    chosen = list(range(len(a.answers))) if rows is None else rows
    patterns = [torch.tensor(r.attention.values[chosen]).nan_to_num(-1) for r in (a, b)]
    return (
        torch.equal(a.thoughts[chosen], b.thoughts[chosen])
        and torch.equal(a.logits[chosen], b.logits[chosen])
        and torch.equal(*patterns)
        and [a.answer_tokens[i] for i in chosen] == [b.answer_tokens[i] for i in chosen]
    )


def close(a: Tensor, b: Tensor) -> bool:
    return float((a - b).abs().max()) <= FREE


def check_against_hand(
    model: CodiModel,
    hand: HandWritten,
    intervention: Planned,
    edits: Callable[[int, int], Edits],
    n: int = 6,
) -> None:
    """`edits(problem, bot)` edits by hand what the intervention edits in the batch."""
    answered, untouched = run(model, intervention), run(model)
    for i, prompt in enumerate(prompts(model, TEXTS)):
        expected = hand.think(prompt, list(model.config.closing), edits(i, len(prompt) - 1), n)
        assert close(answered.thoughts[i, :n], expected.thoughts)
        assert close(answered.logits[i], expected.logits)
    same = close(answered.logits, untouched.logits) and close(answered.thoughts, untouched.thoughts)
    assert not same, "the intervention changes nothing"
