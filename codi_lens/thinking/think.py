"""A run: question, continuous thoughts, answer, with every hook alive.

Problems run as one left-padded batch through a key-value cache: the question with `bot` in one
pass, each thought in its own, then `eot` and the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import ActivationCache

from codi_lens.errors import InterventionError, PositionError, ProblemError
from codi_lens.loading.loaded import Lens, Loaded
from codi_lens.loading.soundness import check_thinks
from codi_lens.positions import Layout, key_names, query_names
from codi_lens.thinking.answers import anchor, decode, force, prepare_answers, text
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import Loop, NamesFilter, hooked_names
from codi_lens.thinking.plan import Context, Planned, kept_thoughts, plan_all
from codi_lens.thinking.prompts import answer_rooms, layout_of, prepare, problem_ids
from codi_lens.thinking.run import ThoughtRun
from codi_lens.thinking.walk import walk


def think(
    model: Loaded,
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
    check_thinks(model)
    config, tokenizer = model.config, model.tokenizer
    prompts = prepare(model, questions)
    _check(model, len(prompts), thoughts, max_new_tokens)
    rooms = answer_rooms(model, prompts)
    tokens = [] if answers is None else prepare_answers(model, answers, rooms)
    hooked = bool(hooked_names(model.lens))
    planned = plan_all(interventions, context_of(model, prompts, problem_ids(prompts, ids)))
    loop = Loop(model.lens, layout_of(model, prompts), names_filter, planned)
    log_probs = None
    with loop.hooks():
        kept_counts = kept_thoughts(planned, len(prompts), config.n_thoughts)
        walked = walk(model, loop, prompts, kept_counts, forced=thoughts)
        if answers is None:
            tokens = decode(loop, walked.logits, config, rooms, max_new_tokens)
        anchors = tuple(anchor(row, tokenizer) for row in tokens)
        if answers is not None:
            ended = [[*row, config.eos] for row in tokens]
            scores = force(loop, walked.logits, ended, anchors, config).log_probs.float()
            log_probs = [row[: len(each)] for row, each in zip(scores, ended, strict=True)]
    loop.check_fired()
    layout = replace(loop.layout, answer_lengths=tuple(map(len, tokens)), anchors=anchors)
    kept = loop.stitched() if names_filter is not None else None
    vectors, mask = torch.cat(loop.fed, dim=1), loop.mask

    def cache() -> ActivationCache:  # holds what a replay needs, not the loop's keys and values
        if kept is None and (interventions or hooked):
            raise InterventionError(
                "A run with interventions or hooks is not replayed; pass names_filter= to think, "
                "for example names_filter=lambda name: True, and it keeps those activations."
            )
        activations = _replay(model.lens, layout, vectors, mask) if kept is None else kept
        return ActivationCache(activations, model.lens)

    return ThoughtRun(
        thoughts=walked.thoughts,
        predicted_thoughts=walked.predicted,
        attention=_attention(loop.rows, layout, config.source, one_pass=answers is not None),
        logits=walked.logits,
        answers=[text(row, tokenizer) for row in tokens],
        answer_tokens=tokens,
        answer_log_probs=log_probs,
        layout=layout,
        _cache=cache,
    )


def context_of(model: Loaded, prompts: Sequence[Sequence[int]], ids: Sequence[str]) -> Context:
    """What interventions are planned with: a batch, and clean runs of this model."""
    return Context.of(model, prompts, ids, partial(think, model))


def _check(
    model: Loaded,
    n_problems: int,
    thoughts: Float[Tensor, "problem thought d_model"] | None,
    max_new_tokens: int,
) -> None:
    if max_new_tokens < 1:
        raise ProblemError(f"max_new_tokens must be at least 1, not {max_new_tokens}.")
    expected = (n_problems, model.config.n_thoughts, model.lens.cfg.d_model)
    if thoughts is not None and tuple(thoughts.shape) != expected:
        raise PositionError(
            f"thoughts has shape {tuple(thoughts.shape)}; expected [problem, thought, d_model] = "
            f"{expected}."
        )


def _replay(
    lens: Lens,
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
