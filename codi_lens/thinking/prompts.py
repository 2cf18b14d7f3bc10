"""Questions as token ids: prepared, named, left-padded into one batch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from codi_lens.errors import ProblemError, listed, shown
from codi_lens.loading.loaded import Loaded
from codi_lens.positions import Layout, Scope, rank, resolve
from codi_lens.problems.problem import Problem
from codi_lens.thinking.given import check_model, token_ids, warn_of_unknown
from codi_lens.thinking.lock import locked


def prepare(
    model: Loaded,
    questions: Iterable[str] | Iterable[Sequence[int]],
    *,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Prompts as token ids: each question, then the tokens that open thinking.

    Text is stripped, double spaces become one, what ends a question is added
    (`CodiConfig.question_end`), and BOS by the tokenizer's own rule. Words that the tokenizer does
    not know become its unknown token, with a `ProblemWarning`.

    Args:
        model: whose tokenizer, vocabulary and context count.
        questions: texts or token lists.
        names: what errors call the questions; their numbers by default.

    Raises:
        ProblemError: no question, an empty one, a bare string, neither text nor token ids, an id
            outside the vocabulary, or a question that does not fit into the context with its
            thoughts.
    """
    check_model(model)
    if isinstance(questions, str):
        raise ProblemError("think takes a list of questions; put the single question in a list.")
    questions = listed("think", questions, "questions (texts or token ids)", ProblemError)
    if len(questions) == 0:
        raise ProblemError("think was given no question; give at least one.")
    config, cfg = model.config, model.lens.cfg
    room = cfg.n_ctx - config.n_thoughts - len(config.opening) - len(config.closing)
    prompts: list[list[int]] = []
    unknown: list[str] = []
    for number, question in enumerate(questions):
        name = names[number] if names is not None else str(number)
        if isinstance(question, str):
            question = config.prepared(question)
        if isinstance(question, str) and not question:
            raise ProblemError(f"Question {name} is empty.")
        with locked(model.lens):  # a tokenizer is not for two threads at once
            tokens, words = token_ids(f"Question {name}", question, model.tokenizer, special=True)
        unknown += words
        if not tokens:
            raise ProblemError(f"Question {name} is empty.")
        outside = [token for token in tokens if not 0 <= token < cfg.d_vocab]
        if outside:
            raise ProblemError(
                f"Question {name} holds the token id {outside[0]}; the vocabulary is "
                f"0..{cfg.d_vocab - 1}."
            )
        if len(tokens) > room:
            raise ProblemError(
                f"Question {name} has {len(tokens)} tokens; with {config.n_thoughts} thoughts the "
                f"context of {cfg.n_ctx} has room for {room}."
            )
        prompts.append([*tokens, *config.opening])
    warn_of_unknown(unknown, model.tokenizer, "it answers another question")
    return prompts


def problem_ids(prompts: Sequence[Sequence[int]], ids: Sequence[str] | None) -> list[str]:
    """The given ids of problems, or digests of their prompts.

    Raises:
        ProblemError: not one id per problem, or ids that are no texts.

    >>> problem_ids([[5, 6], [7]], ["a", "b"])
    ['a', 'b']
    """
    if ids is None:
        digests = [hashlib.blake2b(repr(list(p)).encode(), digest_size=8) for p in prompts]
        return [digest.hexdigest() for digest in digests]
    names = listed("ids=", ids, "ids", ProblemError)
    if len(names) != len(prompts):
        raise ProblemError(
            f"think was given {len(names)} ids for {len(prompts)} questions; give one each."
        )
    for wrong in (name for name in names if not isinstance(name, str)):
        raise ProblemError(f"An id is a text, not {shown(wrong)}.")
    return names


def prepare_problems(model: Loaded, problems: Sequence[Problem]) -> list[list[int]]:
    """The prompts of problems, which errors call by their ids; see `prepare`.

    Raises:
        ProblemError: something that is no problem, or a question that `prepare` refuses.
    """
    problems = listed("Running problems", problems, "problems", ProblemError)
    for wrong in (one for one in problems if not isinstance(one, Problem)):
        raise ProblemError(
            f"{shown(wrong)} is no problem; make one by codi_lens.problems.Problem(question, "
            "answer, id)."
        )
    return prepare(
        model,
        [problem.question for problem in problems],
        names=[problem.id for problem in problems],
    )


def questions_of(model: Loaded, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """The questions of prompts that `prepare` made, without what opens thinking."""
    n_opening = len(model.config.opening)
    return [list(prompt[: len(prompt) - n_opening]) for prompt in prompts]


def positions_in(model: Loaded, at: Scope) -> list[str]:
    """The single positions of the model's runs that a scope stands for, in the order of a run.

    Raises:
        PositionError: see `positions.resolve`.
    """
    config = model.config
    return sorted(resolve(at, config.n_thoughts, written=config.written), key=rank)


def layout_of(model: Loaded, prompts: Sequence[Sequence[int]]) -> Layout:
    """Where the named positions of a batch lie, before anything is answered."""
    n_closing = len(model.config.closing)
    lengths = tuple(len(prompt) - (n_closing > 0) for prompt in prompts)  # without `bot`
    return Layout(lengths, model.config.n_thoughts, n_closing)


def answer_rooms(model: Loaded, prompts: Sequence[Sequence[int]]) -> list[int]:
    """How many answer tokens the context has room for, behind each prompt and its thoughts."""
    around = model.config.n_thoughts + len(model.config.closing)
    return [model.lens.cfg.n_ctx - len(prompt) - around for prompt in prompts]


def batch_room(prompts: Sequence[Sequence[int]], batch_size: int, beyond: int = 0) -> float:
    """How many tokens a batch holds: as many as `batch_size` prompts of median length.

    Of a `batch_size` of 1 it is none: one at a time, however short.

    >>> batch_room([[0] * n for n in (2, 8, 4)], 2, beyond=1)
    10.0
    """
    if batch_size == 1:
        return 0.0
    return batch_size * (float(np.median([len(prompt) for prompt in prompts])) + beyond)


def batches_by_tokens(
    prompts: Sequence[Sequence[int]], room: int | float, beyond: int = 0
) -> list[Int[np.ndarray, " problem"]]:
    """Prompts cut into batches, long ones first, each of about as many tokens, padding included.

    Args:
        prompts: as `prepare` makes them.
        room: how many tokens a batch holds at most, unless it is one prompt: see `batch_room`.
        beyond: tokens that follow every prompt.

    Returns:
        The places of each batch's prompts.

    >>> [batch.tolist() for batch in batches_by_tokens([[0] * n for n in (2, 8, 4, 4, 2, 2)], 8)]
    [[1], [2, 3], [0, 4, 5]]
    """
    lengths = np.array([len(prompt) + beyond for prompt in prompts])
    order, found, start = np.argsort(-lengths, kind="stable"), [], 0
    while start < len(order):
        size = max(1, int(room // lengths[order[start]]))
        found.append(order[start : start + size])
        start += size
    return found


def left_pad(
    prompts: Sequence[Sequence[int]], pad: int, device: Any, *, width: int
) -> tuple[Int[Tensor, "problem pos"], Int[Tensor, "problem pos"]]:
    """Prompts as one batch of ids, and a mask that is 0 where they are padding."""
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
