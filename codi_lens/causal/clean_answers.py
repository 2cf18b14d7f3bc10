"""The answers of clean runs: which tokens give them, and which one they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.loading.loaded import Loaded
from codi_lens.problems.kinds import Form, opposite
from codi_lens.problems.parsing import span_of
from codi_lens.problems.problem import Problem
from codi_lens.thinking.answers import Forced, anchor, decode, force, text
from codi_lens.thinking.clean_runs import CleanRuns, Resumed
from codi_lens.thinking.prompts import answer_rooms


@dataclass(frozen=True)
class CleanAnswer:
    """The answer of a problem's clean run: what the intervened runs are compared with.

    Attributes:
        problem: the problem.
        tokens: the answer, cut at EOS.
        ended: whether EOS followed, rather than the limit of tokens or of the context.
        span: which of the tokens spell the number, or whatever the kind of answer is, that the run
            gives; None where it gives none.
        other: the token at `anchor` that the first of these is compared with: the most likely other
            one, for a choice that begins another choice, for a boolean the one that begins its
            opposite; or the first of a rival's answer (see `with_rivals`). None without any.
        room: how many tokens an answer to this problem may have.
    """

    problem: Problem
    tokens: tuple[int, ...]
    ended: bool
    span: range | None
    other: int | None
    room: int

    def targets(self, eos: int) -> list[int]:
        """The tokens that decoding chose, EOS included where it came."""
        return [*self.tokens, *([eos] if self.ended else [])]


def clean_answers(
    clean: CleanRuns, problems: Sequence[Problem], *, max_new_tokens: int = 64
) -> list[CleanAnswer]:
    """Decode the answers of clean runs, and find what they give.

    Args:
        clean: the runs.
        problems: their problems, in the same order.
        max_new_tokens: longest answer.
    """
    model = clean.model
    rooms = answer_rooms(model, clean.prompts)
    with clean.resume("answer", range(len(problems))) as run:
        decoded = decode(run.loop, run.logits, model.config, rooms, max_new_tokens)
    answers: list[CleanAnswer] = []
    for problem, tokens, room in zip(problems, decoded, rooms, strict=True):
        limit = min(room + 1, max_new_tokens)
        span = _answer_tokens(tokens, model, problem.form)
        answers.append(CleanAnswer(problem, tuple(tokens), len(tokens) < limit, span, None, limit))
    with clean.resume("answer", range(len(problems))) as run:
        at_anchor = force_clean(model, run, answers).at_anchor
    for i, answer in enumerate(answers):
        if answer.span is not None:
            answers[i] = replace(answer, other=_compared_with(model, at_anchor[i], answer))
    return answers


def with_rivals(answers: Sequence[CleanAnswer], rivals: Sequence[CleanAnswer]) -> list[CleanAnswer]:
    """The same answers, each compared with what a rival's clean run answers.

    A pair whose answers begin with the same token has no logit difference, nor has one without
    an answer to either.

    Args:
        answers: of the problems.
        rivals: of the rival of each, in the same order.
    """
    compared: list[CleanAnswer] = []
    for answer, rival in zip(answers, rivals, strict=True):
        own, other = (
            None if each.span is None else each.tokens[each.span.start] for each in (answer, rival)
        )
        compared.append(replace(answer, other=None if own == other else other))
    return compared


def force_clean(model: Loaded, run: Resumed, expected: Sequence[CleanAnswer]) -> Forced:
    """The clean answers, with the EOS that ended them, fed to a batch."""
    return force(
        run.loop,
        run.logits,
        [clean.targets(model.config.eos) for clean in expected],
        [None if clean.span is None else clean.span.start for clean in expected],
        model.config,
    )


def other_logits(logits: Float[Tensor, " vocab"], clean: CleanAnswer) -> Float[Tensor, " vocab"]:
    """Logits at `anchor` without that of the clean answer's first token."""
    assert clean.span is not None
    first = torch.tensor([clean.tokens[clean.span.start]], device=logits.device)
    return logits.index_fill(0, first, -1e30)


def _compared_with(
    model: Loaded, logits: Float[Tensor, " vocab"], clean: CleanAnswer
) -> int | None:
    """The likeliest token that begins another answer: any, another choice, or the opposite."""
    others = other_logits(logits, clean)
    words = _other_words(model, clean)
    if words is None:
        return int(others.argmax())
    firsts = sorted(_first_tokens(model, clean, words))
    return max(firsts, key=lambda token: float(others[token]), default=None)


def _other_words(model: Loaded, clean: CleanAnswer) -> list[str] | None:
    """What else a run could have answered; None where that may be anything."""
    form, written = clean.problem.form, text(clean.tokens, model.tokenizer)
    span = span_of(written, form)
    assert span is not None
    word = written[slice(*span)]
    if form.kind == "boolean":
        return [opposite(word)]
    return [each for each in form.labels if each != word] if form.kind == "choice" else None


def _first_tokens(model: Loaded, clean: CleanAnswer, words: Sequence[str]) -> set[int]:
    """The tokens that begin these words where the clean answer's begins, spaced as it is.

    A word counts only where the tokenizer writes the answer up to it as the model did.
    """
    assert clean.span is not None
    at = clean.span.start
    written = text(clean.tokens, model.tokenizer)
    span = span_of(written, clean.problem.form)
    assert span is not None
    found: set[int] = set()
    for word in words:
        full = model.tokenizer(f"{written[: span[0]]}{word}", add_special_tokens=False)
        ids: list[int] = list(full["input_ids"])
        if len(ids) > at and tuple(ids[:at]) == clean.tokens[:at]:
            found.add(ids[at])
    unknown: Any = model.tokenizer.unk_token_id
    return found - {clean.tokens[at], unknown}


def _answer_tokens(tokens: Sequence[int], model: Loaded, form: Form) -> range | None:
    """Which tokens spell an answer of this form."""
    start = anchor(tokens, model.tokenizer, form)
    if start is None:
        return None
    span = span_of(text(tokens, model.tokenizer), form)
    assert span is not None
    stop = start + 1
    while stop < len(tokens) and len(text(tokens[:stop], model.tokenizer)) < span[1]:
        stop += 1
    return range(start, stop)
