"""The thought loop: question, six continuous thoughts, answer, with every hook alive.

Problems run as one left-padded batch through a key-value cache: the question with `bot` in one
pass, each thought in its own, then `eot` and the answer. `thinking.loop` makes the passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import ActivationCache, HookedTransformer
from transformers import PreTrainedTokenizerBase

from codi_lens.errors import InterventionError, PositionError, ProblemError
from codi_lens.loading.config import CodiConfig
from codi_lens.positions import Layout, key_names, query_names
from codi_lens.thinking.answers import anchor, decode, force, prepare_answers, text
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import Loop, NamesFilter, hooked_names
from codi_lens.thinking.plan import Context, Planned, kept_thoughts, plan_all
from codi_lens.thinking.prompts import left_pad, prepare, problem_ids
from codi_lens.thinking.run import ThoughtRun

__all__ = ["NamesFilter", "ThoughtRun", "hooked_names", "prepare", "think"]


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
        padded, mask = left_pad(prompts, config.pad, lens.cfg.device)
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
