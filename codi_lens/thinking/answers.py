"""The answer of a run: decoded greedily, or given and scored; and where it is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from codi_lens.errors import ProblemError, listed
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.kinds import NUMBER, Form
from codi_lens.problems.parsing import result_spans, span_of
from codi_lens.thinking.given import token_ids, warn_of_unknown
from codi_lens.thinking.loop import Loop

_SCORED_AT_ONCE = 256  # logits of so many positions are held at a time


def prepare_answers(
    model: Loaded,
    answers: Iterable[str] | Iterable[Sequence[int]],
    rooms: Sequence[int],
) -> list[list[int]]:
    """Given answers as token ids, without the EOS that ends each.

    Args:
        model: whose tokenizer, EOS and vocabulary count.
        answers: texts, tokenised without special tokens, or token lists, with or without EOS.
        rooms: how many answer tokens of each problem the context has room for.

    Raises:
        ProblemError: not one answer per question, an empty one, neither text nor token ids, EOS or
            an unknown token inside one, or one that does not fit into the context.
    """
    given = "a single string"
    if not isinstance(answers, str):
        answers = listed("answers=", answers, "answers (texts or token ids)", ProblemError)
        given = f"{len(answers)} answers"
    if isinstance(answers, str) or len(answers) != len(rooms):
        raise ProblemError(f"think was given {given} for {len(rooms)} questions; give one each.")
    config, d_vocab = model.config, model.lens.cfg.d_vocab
    prepared: list[list[int]] = []
    unknown: list[str] = []
    for number, (answer, room) in enumerate(zip(answers, rooms, strict=True)):
        tokens, words = token_ids(f"Answer {number}", answer, model.tokenizer, special=False)
        unknown += words
        if not tokens:
            raise ProblemError(
                f"Answer {number} is empty; to force EOS alone, give [{config.eos}]."
            )
        if tokens[-1] == config.eos:
            tokens = tokens[:-1]
        if config.eos in tokens:
            raise ProblemError(f"Answer {number} holds EOS ({config.eos}) before its end.")
        outside = [token for token in tokens if not 0 <= token < d_vocab]
        if outside:
            raise ProblemError(
                f"Answer {number} holds the token id {outside[0]}; the vocabulary is "
                f"0..{d_vocab - 1}."
            )
        if len(tokens) > room:
            raise ProblemError(
                f"Answer {number} has {len(tokens)} tokens; after its question and thoughts the "
                f"context has room for {room}."
            )
        prepared.append(tokens)
    warn_of_unknown(unknown, model.tokenizer, "another answer is scored")
    return prepared


def decode(
    loop: Loop,
    logits: Float[Tensor, "problem vocab"],
    config: CodiConfig,
    rooms: Sequence[int],
    max_new_tokens: int,
    written: Sequence[Sequence[int]] = (),
) -> list[list[int]]:
    """Greedy decoding; every row stops at EOS, at `max_new_tokens` or at the context's end.

    Like the original, any token but `eot` may come (pad and bot included), but no row that only
    pads the vocabulary. The last token is not fed, so an answer may have one token more than there
    is room for.

    Args:
        loop: fed up to the end of `eot`.
        logits: its logits there.
        config: for EOS, `eot`, and which EOS ends an answer; an earlier one is a token of it.
        rooms: how many answer tokens of each problem the context has room for.
        max_new_tokens: the most tokens of an answer.
        written: the tokens of each answer that are fed already, where decoding goes on.

    Raises:
        ActivationError: NaN or infinity; says where it began.
    """
    limits = torch.tensor([min(room + 1, max_new_tokens) for room in rooms], device=logits.device)
    forbidden = torch.tensor(config.never_decoded(logits.shape[-1]), device=logits.device)
    lengths = torch.zeros_like(limits)
    alive = torch.ones_like(limits, dtype=torch.bool)
    before = [list(row).count(config.eos) for row in written] or [0] * len(rooms)
    ends = torch.tensor(before, device=logits.device)
    chosen: list[Tensor] = []
    finite = torch.ones_like(alive)
    while True:
        best = logits.index_fill(-1, forbidden, -torch.inf).argmax(dim=-1)
        chosen.append(best)
        peak = logits.gather(-1, best[:, None])[:, 0]  # NaN is the largest of logits
        finite = finite & (torch.isfinite(peak) | ~alive)
        ends = ends + (best == config.eos)
        alive = alive & (ends < config.n_ends)
        lengths = lengths + alive
        alive = alive & (lengths < limits)
        if len(chosen) == max_new_tokens or not alive.any():
            break
        loop.feed(loop.embed(best[:, None]), alive[:, None].long())
        logits = loop.logits()
    loop.check_finite(finite)
    rows = torch.stack(chosen, dim=1).tolist()
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


@dataclass(frozen=True, eq=False)
class Forced:
    """Given answers, fed to a batch.

    Attributes:
        targets: the answers' tokens, with what follows them where that was given too.
        real: which of them are not padding.
        best: the greedy choice in the place of each.
        log_probs: of each, given everything before it, in nats.
        at_anchor: the logits that give the token at each row's anchor; zeros without one.
    """

    targets: Int[Tensor, "row token"]
    real: Bool[Tensor, "row token"]
    best: Int[Tensor, "row token"]
    log_probs: Float[Tensor, "row token"]
    at_anchor: Float[Tensor, "row vocab"]


def force(
    loop: Loop,
    logits: Float[Tensor, "row vocab"],
    answers: Sequence[Sequence[int]],
    anchors: Sequence[int | None],
    config: CodiConfig,
) -> Forced:
    """Feed given answers in one pass, and read what the model makes of each token.

    The last token of the longest answer is read, not fed. `loop.rows` keeps the attention of the
    query that gives each anchor.

    Args:
        loop: fed up to the end of `eot`.
        logits: its logits there, which score the first token.
        answers: token ids, EOS included where it is to be scored.
        anchors: how many tokens come before what each answers, None where it has no answer.
        config: for pad, and for what is never decoded.

    Raises:
        ActivationError: NaN or infinity; says where it began.
    """
    device = logits.device
    width = max(map(len, answers))
    padded = [[*row, *[config.pad] * (width - len(row))] for row in answers]
    targets = torch.tensor(padded, device=device)
    lengths = torch.tensor([len(row) for row in answers], device=device)
    real = torch.arange(width, device=device)[None] < lengths[:, None]
    best = torch.zeros_like(targets)
    precise = torch.promote_types(logits.dtype, torch.float32)
    log_probs = torch.zeros(targets.shape, device=device, dtype=precise)
    at_anchor = torch.zeros(logits.shape, device=device, dtype=precise)
    places = torch.tensor([-1 if each is None else each for each in anchors], device=device)
    forbidden = torch.tensor(config.never_decoded(logits.shape[-1]), device=device)

    # A partial, not a closure: the tests check types by decorating every function that is defined.
    read = partial(_read, targets, places, forbidden, best, log_probs, at_anchor)
    every = torch.arange(len(answers), device=device)
    read(every, torch.zeros_like(every), logits)
    if width > 1:
        queries = (places - 1).clamp(min=0)[:, None]
        loop.feed(loop.embed(targets[:, :-1]), real[:, 1:].long(), queries)
        for at in real[:, 1:].nonzero().split(_SCORED_AT_ONCE):
            read(at[:, 0], at[:, 1] + 1, loop.logits_at(at[:, 0], at[:, 1]))
    loop.check_finite(~log_probs.detach().isnan())
    return Forced(targets, real, best, log_probs, at_anchor)


def _read(
    targets: Tensor,
    places: Tensor,
    forbidden: Tensor,
    best: Tensor,
    log_probs: Tensor,
    at_anchor: Tensor,
    rows: Tensor,
    at: Tensor,
    given: Tensor,
) -> None:
    """Fill in what these logits, given at chosen places of chosen rows, make of the targets."""
    given = given.to(log_probs.dtype)
    best[rows, at] = given.index_fill(-1, forbidden, -torch.inf).argmax(dim=-1)
    chosen = given.gather(-1, targets[rows, at][:, None])[:, 0]
    log_probs[rows, at] = chosen - given.logsumexp(dim=-1)
    here = places[rows] == at
    at_anchor[rows[here]] = given[here]


def text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The answer that tokens spell, without special tokens."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def anchor(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, form: Form = NUMBER
) -> int | None:
    """How many answer tokens come before the first of those that give an answer of this form."""
    span = span_of(text(tokens, tokenizer), form)
    return None if span is None else _token_of(span[0], tokens, tokenizer)


def steps(
    tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase, form: Form = NUMBER
) -> tuple[tuple[int, int], ...]:
    """Where the results of a written chain's steps begin and end among the tokens.

    Those are the results before the answer; see `result_spans`.
    """
    written = text(tokens, tokenizer)
    answered = span_of(written, form)
    limit = len(written) if answered is None else answered[0]
    found: list[tuple[int, int]] = []
    for first, stop in result_spans(written[:limit]):
        start, last = (_token_of(at, tokens, tokenizer) for at in (first, stop - 1))
        if start is not None and last is not None:
            found.append((start, last + 1))
    return tuple(found)


def _token_of(
    character: int, tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> int | None:
    """Which token writes a character of the text."""
    for count in range(1, len(tokens) + 1):
        if len(text(tokens[:count], tokenizer)) > character:
            return count - 1
    return None
