"""The thought loop: question, six continuous thoughts, answer, with every hook alive.

Problems run as one left-padded batch through a key-value cache: the question with `bot` in one
pass, each thought in its own, then `eot` and the answer. `codi_lens.loop` makes the passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedTransformer
from transformers import PreTrainedTokenizerBase

from codi_lens.answers import anchor, decode, force, prepare_answers, text
from codi_lens.config import CodiConfig
from codi_lens.errors import InterventionError, PositionError, ProblemError
from codi_lens.interventions.base import Intervention
from codi_lens.interventions.plan import Context, Planned, kept_thoughts, plan_all
from codi_lens.loop import Loop, NamesFilter, hooked_names
from codi_lens.positions import Layout, key_names, query_names

__all__ = ["NamesFilter", "ThoughtRun", "hooked_names", "prepare", "think"]


@dataclass(frozen=True, eq=False)
class ThoughtRun:
    """What one pass of question → thoughts → answer gave, for a batch of problems.

    Attributes:
        thoughts: `ct0` … `ct{n-1}` as they were fed.
        predicted_thoughts: the projection's outputs; equal to `thoughts` unless those were forced.
        attention: attention probabilities, labelled; queries `bot`, `ct0` …, `eot`, `anchor`, keys
            `question` (summed), `bot`, `ct0` …, `eot`, `answer` (summed). Rows sum to 1; cells that
            causality forbids are 0; the `anchor` row is NaN where the answer holds no number.
        logits: at the last position of `eot`: they give the answer's first token.
        answers: the decoded answers, or the given ones.
        answer_tokens: their tokens, cut at EOS.
        answer_log_probs: where answers were given, the log-probability of each token of each,
            given everything before it, EOS last; otherwise None.
        layout: where the named positions lie in the batch.
    """

    thoughts: Float[Tensor, "problem thought d_model"]
    predicted_thoughts: Float[Tensor, "problem thought d_model"]
    attention: xr.DataArray
    logits: Float[Tensor, "problem vocab"]
    answers: list[str]
    answer_tokens: list[list[int]]
    answer_log_probs: list[Float32[Tensor, " _token"]] | None
    layout: Layout
    _cache: Callable[[], ActivationCache]

    def index(self, name: str) -> Int[Tensor, "problem"]:
        """Where `bot`, a thought, `eot` or `anchor` lies in the tensors of `cache()`, per problem.

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
            InterventionError: the run had interventions and kept no activations.
        """
        return self._cache()


def think(
    lens: HookedTransformer,
    projection: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    config: CodiConfig,
    questions: Sequence[str] | Sequence[Sequence[int]],
    *,
    thoughts: Float[Tensor, "problem thought d_model"] | None = None,
    answers: Sequence[str] | Sequence[Sequence[int]] | None = None,
    max_new_tokens: int = 64,
    names_filter: NamesFilter = None,
    interventions: Sequence[Intervention | Planned] = (),
    ids: Sequence[str] | None = None,
) -> ThoughtRun:
    """Run a batch of questions through thoughts to answers; see `CodiModel.think`."""
    prompts = prepare(questions, lens, tokenizer, config)
    layout = Layout(
        tuple(len(prompt) - 1 for prompt in prompts), config.n_thoughts, len(config.closing)
    )
    if max_new_tokens < 1:
        raise ProblemError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    expected = (len(prompts), config.n_thoughts, lens.cfg.d_model)
    if thoughts is not None and tuple(thoughts.shape) != expected:
        raise PositionError(
            f"thoughts has shape {tuple(thoughts.shape)}; expected [problem, thought, d_model] = "
            f"{expected}."
        )
    around = config.n_thoughts + len(config.closing)
    rooms = [lens.cfg.n_ctx - len(prompt) - around for prompt in prompts]
    tokens: list[list[int]] = []
    if answers is not None:
        tokens = prepare_answers(answers, tokenizer, config, rooms, lens.cfg.d_vocab)
    hooked = bool(hooked_names(lens))
    clean = partial(think, lens, projection, tokenizer, config)
    context = Context.of(lens, config, prompts, problem_ids(prompts, ids), clean)
    planned = plan_all(interventions, context)
    kept_counts = kept_thoughts(planned, len(prompts), config.n_thoughts)
    loop = Loop(lens, layout, names_filter, planned)
    with loop.hooks():
        padded, mask = _left_pad(prompts, config.pad, lens.cfg.device)
        hidden = loop.feed(loop.embed(padded), mask)
        fed, predicted = [], []
        for i in range(config.n_thoughts):
            predicted.append(projection(hidden[:, -1:]))
            vector = predicted[-1] if thoughts is None else thoughts[:, i : i + 1]
            hidden = loop.feed(vector.to(mask.device, lens.cfg.dtype))
            fed.append(loop.fed[-1])
        if min(kept_counts) < config.n_thoughts:
            loop.forget(_left_out(kept_counts, layout, loop.mask))
        closing = torch.tensor(config.closing, device=loop.mask.device).expand(len(prompts), -1)
        loop.feed(loop.embed(closing))
        logits = loop.logits()
        log_probs = None
        if answers is None:
            tokens = decode(loop, logits, config, rooms, max_new_tokens)
        anchors = tuple(anchor(row, tokenizer) for row in tokens)
        if answers is not None:
            log_probs = force(loop, logits, tokens, anchors, config)
    loop.check_fired()
    layout = replace(layout, answer_lengths=tuple(map(len, tokens)), anchors=anchors)
    kept = loop.stitched() if names_filter is not None else None
    vectors, mask = torch.cat(loop.fed, dim=1), loop.mask

    def cache() -> ActivationCache:  # holds what a replay needs, not the loop's keys and values
        if kept is None and (interventions or hooked):
            raise InterventionError(
                "A run with interventions or hooks is not replayed; pass names_filter= to think, "
                "for example names_filter=lambda name: True, and it keeps those activations."
            )
        return ActivationCache(_replay(lens, layout, vectors, mask) if kept is None else kept, lens)

    return ThoughtRun(
        thoughts=torch.cat(fed, dim=1),
        predicted_thoughts=torch.cat(predicted, dim=1),
        attention=_attention(loop.rows, layout, config.source, one_pass=answers is not None),
        logits=logits,
        answers=[text(row, tokenizer) for row in tokens],
        answer_tokens=tokens,
        answer_log_probs=log_probs,
        layout=layout,
        _cache=cache,
    )


def prepare(
    questions: Sequence[str] | Sequence[Sequence[int]],
    lens: HookedTransformer,
    tokenizer: PreTrainedTokenizerBase,
    config: CodiConfig,
    *,
    names: Sequence[str] | None = None,
) -> list[list[int]]:
    """Prompts as token ids: each question, then the tokens that open thinking.

    Text is stripped, double spaces become one, and BOS is added by the tokenizer's own rule.

    Args:
        questions: texts or token lists.
        names: what errors call the questions; their numbers by default.

    Raises:
        ProblemError: no question, an empty one, a bare string, an id outside the vocabulary, or a
            question that does not fit into the context with its thoughts.
    """
    if isinstance(questions, str):
        raise ProblemError("think takes a list of questions; put the single question in a list.")
    if len(questions) == 0:
        raise ProblemError("think was given no question; give at least one.")
    room = lens.cfg.n_ctx - config.n_thoughts - len(config.opening) - len(config.closing)
    prompts: list[list[int]] = []
    for number, question in enumerate(questions):
        name = names[number] if names is not None else str(number)
        if isinstance(question, str):
            text = question.strip().replace("  ", " ")
            tokens = list(tokenizer(text)["input_ids"]) if text else []
        else:
            tokens = [int(token) for token in question]
        if not tokens:
            raise ProblemError(f"Question {name} is empty.")
        outside = [token for token in tokens if not 0 <= token < lens.cfg.d_vocab]
        if outside:
            raise ProblemError(
                f"Question {name} holds the token id {outside[0]}; the vocabulary is "
                f"0..{lens.cfg.d_vocab - 1}."
            )
        if len(tokens) > room:
            raise ProblemError(
                f"Question {name} has {len(tokens)} tokens; with {config.n_thoughts} thoughts the "
                f"context of {lens.cfg.n_ctx} has room for {room}."
            )
        prompts.append([*tokens, *config.opening])
    return prompts


def problem_ids(prompts: Sequence[Sequence[int]], ids: Sequence[str] | None) -> list[str]:
    """The given ids of problems, or digests of their prompts.

    Raises:
        ProblemError: not one id per problem.

    >>> problem_ids([[5, 6], [7]], ["a", "b"])
    ['a', 'b']
    """
    if ids is None:
        digests = [hashlib.blake2b(repr(list(p)).encode(), digest_size=8) for p in prompts]
        return [digest.hexdigest() for digest in digests]
    if isinstance(ids, str) or len(ids) != len(prompts):
        raise ProblemError(
            f"think was given {len(ids)} ids for {len(prompts)} questions; give one each."
        )
    return list(ids)


def _left_out(
    kept: Sequence[int], layout: Layout, mask: Int[Tensor, "problem pos"]
) -> Bool[Tensor, "problem pos"]:
    """The columns of the thoughts that a truncated run does without."""
    columns = torch.arange(mask.shape[1], device=mask.device)
    return columns > layout.bot + torch.tensor(list(kept), device=mask.device)[:, None]


def _replay(
    lens: HookedTransformer,
    layout: Layout,
    vectors: Float[Tensor, "problem pos d_model"],
    mask: Int[Tensor, "problem pos"],
) -> dict[str, Tensor]:
    """All activations of one full forward pass over the vectors of a finished run."""
    again = Loop(lens, layout, names_filter=lambda _: True)
    with again.hooks():
        again.feed(vectors, mask)
    return again.stitched()


def _attention(
    rows: Sequence[Float[Tensor, "problem row layer head key"]],
    layout: Layout,
    source: str,
    *,
    one_pass: bool,
) -> xr.DataArray:
    """The labelled attention of a run, from the rows that its passes kept.

    Rows of the answer are one per token fed, or, where the answer went in as one pass, the
    anchor's alone.
    """
    n_problems, n = len(layout.question_lengths), layout.n_thoughts
    fixed, answer = rows[: n + 2], rows[n + 2 :]  # bot, the thoughts, eot; then the answer
    anchors = torch.full_like(fixed[0], torch.nan)
    for problem, before in enumerate(layout.anchors):
        if before is not None:
            source_rows = fixed[-1] if before == 0 else answer[0 if one_pass else before - 1]
            anchors[problem] = source_rows[problem]
    stacked = torch.cat([*fixed, anchors], dim=1).cpu()
    return xr.DataArray(
        rearrange(stacked, "problem query layer head key -> problem layer head query key").numpy(),
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": np.arange(n_problems),
            "layer": np.arange(stacked.shape[2]),
            "head": np.arange(stacked.shape[3]),
            "query": list(query_names(n)),
            "key": list(key_names(n)),
        },
        name="attention",
        attrs={"model": source},
    )


def _left_pad(
    prompts: Sequence[Sequence[int]], pad: int, device: Any
) -> tuple[Int[Tensor, "problem pos"], Int[Tensor, "problem pos"]]:
    width = max(map(len, prompts))
    ids = [[pad] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
