"""What a run under interventions comes to, compared with the clean run of the same problem.

The clean answer is fed to every intervened run in one pass. Where each of its tokens is also the
greedy choice, greedy decoding would give the same answer, so nothing has to be decoded; only runs
that differ decode on from the first difference. Answers are therefore exactly those of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from codi_lens.loading.loaded import Loaded
from codi_lens.problems.parsing import answer_span, is_correct, parse_answer
from codi_lens.problems.problem import Problem
from codi_lens.thinking.answers import Forced, anchor, decode, force, text
from codi_lens.thinking.clean_runs import CleanRuns, Resumed, touched
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import Loop
from codi_lens.thinking.prompts import answer_rooms

Outcome = Literal["log_prob", "logit_difference"]
"""An outcome that has a gradient; see `score`."""


@dataclass(frozen=True)
class CleanAnswer:
    """The answer of a problem's clean run: what the intervened runs are compared with.

    Attributes:
        problem: the problem.
        tokens: the answer, cut at EOS.
        ended: whether EOS followed, rather than the limit of tokens or of the context.
        number: which of the tokens spell the number that the answer gives, or None.
        other: the token at `anchor` that the number's first is compared with: the most likely other
            one, or the first of a rival's number (see `with_rivals`). None where there is none.
        room: how many tokens an answer to this problem may have.
    """

    problem: Problem
    tokens: tuple[int, ...]
    ended: bool
    number: range | None
    other: int | None
    room: int

    def targets(self, eos: int) -> list[int]:
        """The tokens that decoding chose, EOS included where it came."""
        return [*self.tokens, *([eos] if self.ended else [])]


def clean_answers(
    clean: CleanRuns, problems: Sequence[Problem], *, max_new_tokens: int = 64
) -> list[CleanAnswer]:
    """Decode the answers of clean runs, and find their numbers.

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
        number = _number_tokens(tokens, model)
        answers.append(
            CleanAnswer(problem, tuple(tokens), len(tokens) < limit, number, None, limit)
        )
    with clean.resume("answer", range(len(problems))) as run:
        at_anchor = _force(model, run, answers).at_anchor
    for i, answer in enumerate(answers):
        if answer.number is not None:
            answers[i] = replace(answer, other=int(_others(at_anchor[i], answer).argmax()))
    return answers


def with_rivals(answers: Sequence[CleanAnswer], rivals: Sequence[CleanAnswer]) -> list[CleanAnswer]:
    """The same answers, each compared with the number of a rival's clean answer.

    A pair whose numbers begin with the same token has no logit difference, nor has one without
    a number in either answer.

    Args:
        answers: of the problems.
        rivals: of the rival of each, in the same order.
    """
    compared: list[CleanAnswer] = []
    for answer, rival in zip(answers, rivals, strict=True):
        own, other = (
            None if each.number is None else each.tokens[each.number.start]
            for each in (answer, rival)
        )
        compared.append(replace(answer, other=None if own == other else other))
    return compared


def score(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    rows: Sequence[int],
    first: str,
    interventions: Sequence[Intervention] = (),
) -> list[dict[str, Any]]:
    """Run a batch under interventions, and compare every row with its problem's clean run.

    Args:
        clean: the clean runs.
        answers: their answers.
        rows: which problem each row of the batch runs.
        first: the first named position that any of the interventions can touch.
        interventions: of the batch.

    Returns:
        For each row `log_prob` (natural logarithm of the probability of the clean number, all its
        tokens, teacher-forced), `logit_difference` (at `anchor`, the clean number's first token
        over the token that it is compared with, by default the clean run's runner-up; both NaN
        where the clean answer holds no number), `logit_margin` (the same over what this run itself
        prefers: its most likely other token, so that it is below 0 where another number begins),
        `answer`,
        `number` (parsed, NaN where there is none), `changed` (the number differs), `correct` (1, 0,
        NaN where the problem has no answer) and `change_ct0` … (the distance of each thought
        from the clean one, in units of the clean one's norm).

    Raises:
        InterventionError: a hook does not exist or never fired.
    """
    model = clean.model
    expected = [answers[row] for row in rows]
    n_thoughts = model.config.n_thoughts
    answer_touched = any("answer" in touched(each, n_thoughts) for each in interventions)
    with torch.no_grad():
        with clean.resume(first, rows, interventions) as run:
            forced = _force(model, run, expected)
            tokens, unfinished = _agreed(model, expected, forced)
            _hide_refused(run.loop, forced, tokens)
            if unfinished and answer_touched:
                _decode_on(model, run.loop, expected, tokens, range(len(rows)), unfinished)
        if unfinished and not answer_touched:
            # Nothing acts on what follows, so that rows that are done can be left behind.
            rest = run.loop.fork(unfinished, run.loop.mask.shape[1])
            with rest.hooks():
                _decode_on(model, rest, expected, tokens, unfinished, unfinished)
    return _outcomes(model, run, expected, forced, tokens, clean.thoughts[list(rows)])


def differentiable(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    rows: Sequence[int],
    first: str,
    interventions: Sequence[Intervention] = (),
    *,
    outcome: Outcome = "log_prob",
) -> Float[Tensor, " row"]:
    """One outcome of `score`, differentiable in whatever the interventions put in.

    Other arguments are those of `score`.

    Args:
        outcome: "log_prob" or "logit_difference".

    Raises:
        InterventionError: a hook does not exist or never fired.
    """
    expected = [answers[row] for row in rows]
    with clean.resume(first, rows, interventions, gradient=True) as run:
        forced = _force(clean.model, run, expected)
    return _READ[outcome](forced, expected)


def _outcomes(
    model: Loaded,
    run: Resumed,
    expected: Sequence[CleanAnswer],
    forced: Forced,
    answers: Sequence[Sequence[int]],
    clean_thoughts: Float[Tensor, "row thought d_model"],
) -> list[dict[str, Any]]:
    distance = (run.thoughts - clean_thoughts).float().norm(dim=-1)
    distance = (distance / clean_thoughts.float().norm(dim=-1)).tolist()
    log_probs = _number_log_probs(forced, expected).tolist()
    differences = _logit_differences(forced, expected).tolist()
    margins = _logit_margins(forced, expected).tolist()
    outcomes: list[dict[str, Any]] = []
    for i, (clean, tokens) in enumerate(zip(expected, answers, strict=True)):
        answer, before = text(tokens, model.tokenizer), text(clean.tokens, model.tokenizer)
        number, number_before = parse_answer(answer), parse_answer(before)
        known = clean.problem.answer
        outcome = {
            "log_prob": log_probs[i],
            "logit_difference": differences[i],
            "logit_margin": margins[i],
            "answer": answer,
            "number": float("nan") if number is None else float(number),
            "changed": number != number_before,
            "correct": float("nan") if known is None else float(is_correct(answer, known)),
        }
        outcomes.append(outcome | {f"change_ct{t}": d for t, d in enumerate(distance[i])})
    return outcomes


def _force(model: Loaded, run: Resumed, expected: Sequence[CleanAnswer]) -> Forced:
    """The clean answers, with the EOS that ended them, fed to a batch."""
    return force(
        run.loop,
        run.logits,
        [clean.targets(model.config.eos) for clean in expected],
        [None if clean.number is None else clean.number.start for clean in expected],
        model.config,
    )


def _number_log_probs(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """The log-probability of each clean number, all its tokens; NaN where there is none."""
    nothing = forced.log_probs.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing if clean.number is None else row[list(clean.number)].sum()
            for row, clean in zip(forced.log_probs, expected, strict=True)
        ]
    )


def _logit_differences(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """At `anchor`, the clean number's first token over the runner-up; NaN without number."""
    nothing = forced.at_anchor.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing
            if clean.number is None or clean.other is None
            else row[clean.tokens[clean.number.start]] - row[clean.other]
            for row, clean in zip(forced.at_anchor, expected, strict=True)
        ]
    )


def _logit_margins(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """At `anchor`, the clean number's first token over the most likely other one of this run."""
    nothing = forced.at_anchor.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing
            if clean.number is None
            else row[clean.tokens[clean.number.start]] - _others(row, clean).max()
            for row, clean in zip(forced.at_anchor, expected, strict=True)
        ]
    )


def _others(logits: Float[Tensor, " vocab"], clean: CleanAnswer) -> Float[Tensor, " vocab"]:
    """Logits at `anchor` without that of the clean number's first token."""
    assert clean.number is not None
    first = torch.tensor([clean.tokens[clean.number.start]], device=logits.device)
    return logits.index_fill(0, first, -1e30)


_READ = {"log_prob": _number_log_probs, "logit_difference": _logit_differences}


def _agreed(
    model: Loaded, expected: Sequence[CleanAnswer], forced: Forced
) -> tuple[list[list[int]], list[int]]:
    """Each answer up to and with the first choice that differs; and the rows that go on."""
    answers = [list(clean.tokens) for clean in expected]
    differs = (forced.best != forced.targets) & forced.real
    unfinished: list[int] = []
    for row in differs.any(dim=1).nonzero()[:, 0].tolist():
        where = int(differs[row].int().argmax())
        choice = int(forced.best[row, where])
        answers[row] = answers[row][:where]
        if choice != model.config.eos:
            answers[row].append(choice)
            if len(answers[row]) < expected[row].room:
                unfinished.append(row)
    return answers, unfinished


def _hide_refused(loop: Loop, forced: Forced, answers: Sequence[Sequence[int]]) -> None:
    """What was fed after the first choice that differs is not part of the answer."""
    width = forced.targets.shape[1] - 1
    device = loop.mask.device
    kept = torch.tensor([max(0, len(answer) - 1) for answer in answers], device=device)
    refused = torch.arange(width, device=device)[None] >= kept[:, None]
    loop.forget(F.pad(refused, (loop.mask.shape[1] - width, 0)))


def _decode_on(
    model: Loaded,
    loop: Loop,
    expected: Sequence[CleanAnswer],
    answers: list[list[int]],
    rows: Sequence[int],
    unfinished: Sequence[int],
) -> None:
    """Append to the unfinished answers what greedy decoding gives after their last token.

    `rows` says which answer each row of the loop belongs to.
    """
    going = set(unfinished)
    last = [answers[row][-1] if row in going else model.config.pad for row in rows]
    loop.feed(loop.embed(torch.tensor(last, device=loop.mask.device)[:, None]))
    rooms = [expected[row].room - len(answers[row]) - 1 if row in going else 0 for row in rows]
    more = decode(loop, loop.logits(), model.config, rooms, max(rooms) + 1)
    for row, tokens in zip(rows, more, strict=True):
        if row in going:
            answers[row] += tokens


def _number_tokens(tokens: Sequence[int], model: Loaded) -> range | None:
    """Which tokens spell the number of an answer."""
    start = anchor(tokens, model.tokenizer)
    if start is None:
        return None
    span = answer_span(text(tokens, model.tokenizer))
    assert span is not None
    stop = start + 1
    while stop < len(tokens) and len(text(tokens[:stop], model.tokenizer)) < span[1]:
        stop += 1
    return range(start, stop)
