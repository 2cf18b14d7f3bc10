"""The answer of a run: decoded greedily, or given and scored; and where its number is read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from codi_lens.errors import ProblemError
from codi_lens.loading.config import CodiConfig
from codi_lens.problems.problem import answer_span
from codi_lens.thinking.loop import Loop

_SCORED_AT_ONCE = 256  # logits of so many positions are held at a time


def prepare_answers(
    answers: Sequence[str] | Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerBase,
    config: CodiConfig,
    rooms: Sequence[int],
    d_vocab: int,
) -> list[list[int]]:
    """Given answers as token ids, without the EOS that ends each.

    Args:
        answers: texts, tokenised without special tokens, or token lists, with or without EOS.
        tokenizer: for texts.
        config: for EOS.
        rooms: how many answer tokens of each problem the context has room for.
        d_vocab: size of the vocabulary.

    Raises:
        ProblemError: not one answer per question, an empty one, EOS or an unknown token inside one,
            or one that does not fit into the context.
    """
    if isinstance(answers, str) or len(answers) != len(rooms):
        given = "a single string" if isinstance(answers, str) else f"{len(answers)} answers"
        raise ProblemError(f"think was given {given} for {len(rooms)} questions; give one each.")
    prepared: list[list[int]] = []
    for number, (answer, room) in enumerate(zip(answers, rooms, strict=True)):
        if isinstance(answer, str):
            tokens = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
        else:
            tokens = [int(token) for token in answer]
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
    return prepared


def decode(
    loop: Loop,
    logits: Float[Tensor, "problem vocab"],
    config: CodiConfig,
    rooms: Sequence[int],
    max_new_tokens: int,
) -> list[list[int]]:
    """Greedy decoding; every row stops at EOS, at `max_new_tokens` or at the context's end.

    Like the original, any token but `eot` may come (pad and bot included), but no row that only
    pads the vocabulary. The last token is not fed, so an answer may have one token more than there
    is room for.

    Args:
        loop: fed up to the end of `eot`.
        logits: its logits there.
        config: for EOS and `eot`.
        rooms: how many answer tokens of each problem the context has room for.
        max_new_tokens: the most tokens of an answer.
    """
    limits = torch.tensor([min(room + 1, max_new_tokens) for room in rooms], device=logits.device)
    forbidden = torch.tensor(config.never_decoded(logits.shape[-1]), device=logits.device)
    lengths = torch.zeros_like(limits)
    alive = torch.ones_like(limits, dtype=torch.bool)
    chosen: list[Tensor] = []
    while True:
        best = logits.index_fill(-1, forbidden, -torch.inf).argmax(dim=-1)
        chosen.append(best)
        alive = alive & (best != config.eos)
        lengths = lengths + alive
        alive = alive & (lengths < limits)
        if len(chosen) == max_new_tokens or not alive.any():
            break
        loop.feed(loop.embed(best[:, None]), alive[:, None].long())
        logits = loop.logits()
    rows = torch.stack(chosen, dim=1).tolist()
    return [row[:length] for row, length in zip(rows, lengths.tolist(), strict=True)]


def force(
    loop: Loop,
    logits: Float[Tensor, "problem vocab"],
    answers: Sequence[Sequence[int]],
    anchors: Sequence[int | None],
    config: CodiConfig,
) -> list[Float[Tensor, " _token"]]:
    """Feed given answers in one pass; the log-probability of each token, EOS last.

    Args:
        loop: fed up to the end of `eot`.
        logits: its logits there, which score the first token.
        answers: token ids without EOS.
        anchors: how many tokens come before each answer's number, whose row is to be kept.
        config: for pad and EOS.
    """
    device = logits.device
    lengths = [len(answer) for answer in answers]
    width = max(lengths)
    targets = [torch.tensor([*answer, config.eos], device=device) for answer in answers]
    first = torch.stack([target[0] for target in targets])
    scores = [-F.cross_entropy(logits.float(), first, reduction="none")]
    if width:
        ids = [[*answer, *[config.pad] * (width - len(answer))] for answer in answers]
        mask = [[1] * length + [0] * (width - length) for length in lengths]
        queries = [[max(0, (anchor or 0) - 1)] for anchor in anchors]
        loop.feed(
            loop.embed(torch.tensor(ids, device=device)),
            torch.tensor(mask, device=device),
            torch.tensor(queries, device=device),
        )
        real = torch.tensor(mask, device=device).nonzero()
        rest = torch.cat([target[1:] for target in targets])
        for at, wanted in zip(
            real.split(_SCORED_AT_ONCE), rest.split(_SCORED_AT_ONCE), strict=True
        ):
            scored = loop.logits_at(at[:, 0], at[:, 1]).float()
            scores.append(-F.cross_entropy(scored, wanted, reduction="none"))
    later = torch.cat([scores[0][:0], *scores[1:]]).split(lengths)
    return [torch.cat([scores[0][i : i + 1], row]) for i, row in enumerate(later)]


def text(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    """The answer that tokens spell, without special tokens."""
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def anchor(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many answer tokens come before the first token of the answer's number."""
    span = answer_span(text(tokens, tokenizer))
    if span is None:
        return None
    for count in range(1, len(tokens) + 1):
        if len(text(tokens[:count], tokenizer)) > span[0]:
            return count - 1
    return None
