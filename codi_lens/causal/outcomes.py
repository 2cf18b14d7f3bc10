"""What a run under interventions comes to, compared with the clean run of the same problem.

The clean answer is fed to every intervened run in one pass. Where each of its tokens is also the
greedy choice, greedy decoding would give the same answer, so nothing has to be decoded; only runs
that differ decode on from the first difference. Answers are therefore exactly those of decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from codi_lens.causal.clean_answers import CleanAnswer, force_clean, other_logits
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.kinds import alike
from codi_lens.problems.parsing import is_correct, parsed
from codi_lens.thinking.answers import Forced, decode, text
from codi_lens.thinking.clean_runs import CleanRuns, Resumed
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import Loop
from codi_lens.thinking.prompts import positions_in

Outcome = Literal["log_prob", "logit_difference"]
"""An outcome that has a gradient; see `score`."""


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
        For each row `log_prob` (natural logarithm of the probability of the clean number, or answer
        of another kind, all its tokens, teacher-forced), `logit_difference` (at `anchor`, its first
        token over the token that it is compared with: the clean run's runner-up, its likeliest
        other choice, or the opposite boolean; both NaN where the clean run gives no answer),
        `logit_margin` (the same over what this run itself prefers: its most likely other token, so
        that it is below 0 where another answer begins), `answer`, `number` (parsed, NaN where there
        is none), `changed` (what was parsed differs), `correct` (1, 0, NaN where the problem has no
        answer) and `change_ct0` … (the distance of each thought from the clean one, in units of the
        clean one's norm). Of a problem that asks for no number, `number` is NaN and `given` what
        was parsed, "" where nothing was.

    Raises:
        InterventionError: a hook does not exist or never fired.
    """
    model = clean.model
    expected = [answers[row] for row in rows]
    answer_touched = any("answer" in positions_in(model, each.at) for each in interventions)
    with torch.no_grad():
        with clean.resume(first, rows, interventions) as run:
            forced = force_clean(model, run, expected)
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
        forced = force_clean(clean.model, run, expected)
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
    log_probs = _answer_log_probs(forced, expected).tolist()
    differences = _logit_differences(forced, expected).tolist()
    margins = _logit_margins(forced, expected).tolist()
    outcomes: list[dict[str, Any]] = []
    for i, (clean, tokens) in enumerate(zip(expected, answers, strict=True)):
        answer, before = text(tokens, model.tokenizer), text(clean.tokens, model.tokenizer)
        form, known = clean.problem.form, clean.problem.answer
        given, given_before = parsed(answer, form), parsed(before, form)
        number = float("nan") if given is None or isinstance(given, str) else float(given)
        outcome = {
            "log_prob": log_probs[i],
            "logit_difference": differences[i],
            "logit_margin": margins[i],
            "answer": answer,
            "number": number,
            "changed": not alike(given, given_before),
            "correct": float("nan") if known is None else float(is_correct(answer, clean.problem)),
        }
        if form.kind != "number":
            outcome["given"] = given or ""
        outcomes.append(outcome | {f"change_ct{t}": d for t, d in enumerate(distance[i])})
    return outcomes


def _answer_log_probs(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """The log-probability of what each clean run answers, all its tokens; NaN without answer."""
    nothing = forced.log_probs.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing if clean.span is None else row[list(clean.span)].sum()
            for row, clean in zip(forced.log_probs, expected, strict=True)
        ]
    )


def _logit_differences(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """At `anchor`, the clean answer's first token over another one; NaN without any."""
    nothing = forced.at_anchor.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing
            if clean.span is None or clean.other is None
            else row[clean.tokens[clean.span.start]] - row[clean.other]
            for row, clean in zip(forced.at_anchor, expected, strict=True)
        ]
    )


def _logit_margins(forced: Forced, expected: Sequence[CleanAnswer]) -> Float[Tensor, " row"]:
    """At `anchor`, the clean answer's first token over the most likely other one of this run."""
    nothing = forced.at_anchor.new_tensor(torch.nan)
    return torch.stack(
        [
            nothing
            if clean.span is None
            else row[clean.tokens[clean.span.start]] - other_logits(row, clean).max()
            for row, clean in zip(forced.at_anchor, expected, strict=True)
        ]
    )


_READ = {"log_prob": _answer_log_probs, "logit_difference": _logit_differences}


def _agreed(
    model: Loaded, expected: Sequence[CleanAnswer], forced: Forced
) -> tuple[list[list[int]], list[int]]:
    """Each answer up to and with the first choice that differs; and the rows that go on."""
    answers = [list(clean.tokens) for clean in expected]
    differs = (forced.best != forced.targets) & forced.real
    unfinished: list[int] = []
    for row in differs.any(dim=1).nonzero()[:, 0].tolist():
        where = int(differs[row].int().argmax())
        choice, eos = int(forced.best[row, where]), model.config.eos
        answers[row] = answers[row][:where]
        if choice != eos or answers[row].count(eos) + 1 < model.config.n_ends:
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
    written = [answers[row] for row in rows]
    more = decode(loop, loop.logits(), model.config, rooms, max(rooms) + 1, written)
    for row, tokens in zip(rows, more, strict=True):
        if row in going:
            answers[row] += tokens
