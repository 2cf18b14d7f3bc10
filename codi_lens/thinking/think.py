"""A run: question, continuous thoughts, answer, with every hook alive.

Problems run as one left-padded batch through a key-value cache: the question with `bot` in one
pass, each thought in its own, then `eot` and the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from codi_lens.errors import PositionError, ProblemError, whole_number
from codi_lens.loading.loaded import Loaded
from codi_lens.loading.soundness import check_thinks
from codi_lens.positions import Layout, thought_names
from codi_lens.problems.kinds import Form
from codi_lens.thinking.answers import anchor, decode, force, prepare_answers, steps, text
from codi_lens.thinking.given import Kinds, Vectors, as_tensor, forms_for
from codi_lens.thinking.hook_names import NamesFilter, hooked_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.labelled_rows import labelled_rows
from codi_lens.thinking.lock import locked
from codi_lens.thinking.loop import Loop
from codi_lens.thinking.plan import Context, Planned, kept_thoughts, plan_all
from codi_lens.thinking.prompts import answer_rooms, layout_of, prepare, problem_ids
from codi_lens.thinking.replay import Activations
from codi_lens.thinking.run import ThoughtRun
from codi_lens.thinking.walk import walk


def think(
    model: Loaded,
    questions: Iterable[str] | Iterable[Sequence[int]],
    *,
    thoughts: Float[Tensor, "problem thought d_model"] | Vectors | None = None,
    answers: Iterable[str] | Iterable[Sequence[int]] | None = None,
    kind: Kinds = "number",
    max_new_tokens: int = 64,
    names_filter: NamesFilter = None,
    interventions: Intervention | Planned | Iterable[Intervention | Planned] = (),
    ids: Sequence[str] | None = None,
    fused: bool = False,
) -> ThoughtRun:
    """Run a batch of questions through thoughts to answers; see `CodiModel.think`."""
    check_thinks(model)
    prompts = prepare(model, questions)
    forms = forms_for(kind, len(prompts))
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens, 1, error=ProblemError)
    given = None if thoughts is None else _given_thoughts(model, len(prompts), thoughts)
    if answers is not None and model.config.written:
        raise ProblemError(
            "A run in words writes its own chain and answer; answers= goes with runs that think or "
            "skip their thoughts."
        )
    rooms = answer_rooms(model, prompts)
    with locked(model.lens):
        tokens = None if answers is None else prepare_answers(model, answers, rooms)
        context = context_of(model, prompts, problem_ids(prompts, ids))
        clean = not hooked_names(model.lens)
        planned = plan_all(interventions, context)
        loop = Loop(model.lens, layout_of(model, prompts), names_filter, planned, fused=fused)
        with loop.hooks():
            kept_counts = kept_thoughts(planned, len(prompts), model.config.n_thoughts)
            walked = walk(model, loop, prompts, kept_counts, forced=given)
            answered = _answer(model, loop, walked.logits, rooms, max_new_tokens, tokens, forms)
        loop.check_fired()
    layout = _finished(loop.layout, answered, model, forms)
    vectors = torch.cat(loop.fed, dim=1)
    return ThoughtRun(
        thoughts=walked.thoughts,
        predicted_thoughts=walked.predicted,
        attention=labelled_rows(
            loop.rows, layout, model.config.source, one_pass=tokens is not None
        ),
        logits=walked.logits,
        answers=[text(row, model.tokenizer) for row in answered.tokens],
        answer_tokens=answered.tokens,
        answer_log_probs=answered.log_probs,
        tokens=_columns(model, prompts, answered.tokens, vectors.shape[1]),
        layout=layout,
        _activations=Activations(
            model.lens,
            layout,
            vectors=vectors,
            mask=loop.mask,
            kept=None if names_filter is None else loop.stitched(),
            clean=clean and not planned,
        ),
    )


def context_of(model: Loaded, prompts: Sequence[Sequence[int]], ids: Sequence[str]) -> Context:
    """What interventions are planned with: a batch, and clean runs of this model."""
    return Context.of(model, prompts, ids, partial(think, model))


def _columns(
    model: Loaded,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    width: int,
) -> list[list[str]]:
    """The text of every column of a batch; of what has none, its name."""
    closing, thoughts = model.config.closing, thought_names(model.config.n_thoughts)
    ids = {token for row in (*prompts, *answers, closing) for token in row}
    texts = {token: str(model.tokenizer.decode([token])) for token in ids}
    for name in ("bot", "eot"):  # tokens that CODI adds, and no tokenizer knows
        token = getattr(model.config, name)
        texts[token] = texts.get(token) or name
    longest = max(map(len, prompts))
    rows = [
        [""] * (longest - len(prompt))
        + [texts[token] for token in prompt]
        + [*thoughts, *(texts[token] for token in (*closing, *answer))]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return [(row + [""] * width)[:width] for row in rows]


def _given_thoughts(
    model: Loaded, n_problems: int, thoughts: Any
) -> Float[Tensor, "problem thought d_model"]:
    given = as_tensor("thoughts", thoughts, PositionError)
    expected = (n_problems, model.config.n_thoughts, model.lens.cfg.d_model)
    if tuple(given.shape) != expected:
        raise PositionError(
            f"thoughts has shape {tuple(given.shape)}; expected [problem, thought, d_model] = "
            f"{expected}."
        )
    return given


class _Answered(NamedTuple):
    """The answers of a batch; the log-probabilities only of given ones."""

    tokens: list[list[int]]
    anchors: tuple[int | None, ...]
    log_probs: list[Tensor] | None


def _answer(
    model: Loaded,
    loop: Loop,
    logits: Float[Tensor, "problem vocab"],
    rooms: Sequence[int],
    max_new_tokens: int,
    given: list[list[int]] | None,
    forms: Sequence[Form],
) -> _Answered:
    """Decode the answers, or score given ones."""
    config, tokenizer, tokens = model.config, model.tokenizer, given
    if tokens is None:
        tokens = decode(loop, logits, config, rooms, max_new_tokens)
    pairs = zip(tokens, forms, strict=True)
    anchors = tuple(anchor(row, tokenizer, form) for row, form in pairs)
    if given is None:
        return _Answered(tokens, anchors, None)
    ended = [[*row, config.eos] for row in tokens]
    scores = force(loop, logits, ended, anchors, config).log_probs.float()
    log_probs = [row[: len(each)] for row, each in zip(scores, ended, strict=True)]
    return _Answered(tokens, anchors, log_probs)


def _finished(layout: Layout, answered: _Answered, model: Loaded, forms: Sequence[Form]) -> Layout:
    """A layout that knows the answers."""
    written = zip(answered.tokens, forms, strict=True) if layout.written else ()
    return replace(
        layout,
        answer_lengths=tuple(map(len, answered.tokens)),
        anchors=answered.anchors,
        steps=tuple(steps(row, model.tokenizer, form) for row, form in written),
    )
