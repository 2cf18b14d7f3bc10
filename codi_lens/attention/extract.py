"""Many problems → labelled attention, streamed to disk and resumable.

Problems are kept a block at a time, so a stopped extraction continues with the block where it was
and never holds half a problem.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from zarr.storage import MemoryStore

from codi_lens.attention.blocks import Kept
from codi_lens.attention.opening import DIMS, WEIGHTED, predicted, read_store
from codi_lens.attention.store import Float, open_store
from codi_lens.attention.streaming import Extraction, Source, settings_in
from codi_lens.attention.strips import STRIP, Ragged, as_kept, strips_of
from codi_lens.attention.values import question_tokens, value_weighted_attention
from codi_lens.errors import OutputError, as_path, check_choice, check_flags
from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problems
from codi_lens.stats import wilson_interval
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.run import ThoughtRun
from codi_lens.workers.spread import Workers


def extract(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    value_weighted: bool = False,
    strips: bool = False,
    dtype: Float | None = None,
    source: Source | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    interventions: Sequence[Intervention | Planned] = (),
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> xr.DataArray:
    """Run all problems and keep the attention of every named position, and the answers.

    Args:
        model: the model; of one that skips its thoughts (`CodiModel.in_way`) there are the rows
            `bot`, `eot` and `anchor`.
        problems: what to think about; ids must be unique.
        out: a zarr folder; None keeps everything in memory. If it holds part of the same
            extraction, only the missing problems are run; whether the answers are correct is always
            judged by the problems that are given now.
        value_weighted: also keep how much each key writes (`attention.values`), the attention
            sink, which is the share of the question's first token, and the share of its strongest
            token, for about a third more time.
        strips: also keep the attention to every single token of each question, for `open_strips`.
        dtype: of what is kept, by default the source's, else "float32". "float16" takes half the
            room, and each share of attention is off by at most 0.00025.
        source: the folder of an extraction, or of a command that keeps one, of the same model and
            (at least) these problems: what it holds is taken instead of thinking.
        batch_size: problems of median length per forward pass; within each block of 320, those of
            similar length go together, more of short and fewer of long ones, so that a pass holds
            about as many tokens; 1 is one at a time.
        max_new_tokens: see `CodiModel.think`.
        interventions: see `CodiModel.think`. Those that name no donors draw them among all the
            problems. A stored extraction knows its interventions by their names.
        progress: show a progress bar.
        workers, ray_address: who thinks; see `codi_lens.workers.spread`. A cluster's machines need
            `out` on a file system that they share.

    Returns:
        Attention [problem, layer, head, query, key] as in `ThoughtRun.attention`, with the ids as
        problem labels and, along the problems, `question`, `answer` (text), `predicted` and
        `expected` (numbers, NaN where there is none) and `correct` (1, 0, or NaN); where answers
        are of other kinds, `right_answer` (texts). With `value_weighted`, the coordinates
        `value_weighted` (all five axes), `sink`, `strongest` and both `…_value_weighted` (without
        the keys) go with it, so that `rank_heads(attention.value_weighted)` ranks by what is
        written. The folder labels itself: plain `xr.open_zarr(out)` selects by the same names and
        ids.

    Raises:
        ProblemError: no problems, ids that are not unique, or a question that does not fit.
        AttentionError: the model runs in words, where every run has rows of its own.
        OutputError: `out` holds something else, is damaged, or another process writes it; `source`
            is of another model or lacks problems; no such dtype.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, word_problems(4), progress=False)
    >>> dict(attention.sizes)
    {'problem': 4, 'layer': 3, 'head': 8, 'query': 9, 'key': 10}
    """
    running: dict[str, Any] = {"interventions": interventions, "progress": progress}
    running |= {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "source": source}
    running |= {"workers": workers, "ray_address": ray_address}
    check_flags(value_weighted=value_weighted, strips=strips)
    if strips and out is None:
        raise OutputError("Attention to single tokens is kept on disk only; give out=FOLDER too.")
    asked = Extraction.of(model, problems, weighted=value_weighted, strips=strips, **running)
    told = {} if source is None else settings_in(source)
    dtype = told.get("dtype", "float32") if dtype is None else dtype
    check_choice("dtype", dtype, Float, OutputError)
    store = MemoryStore() if out is None else as_path("out", out)
    settings = asked.settings | {"value_weighted": value_weighted, "strips": strips, "dtype": dtype}
    kept = {
        name: Kept(dims, asked.shape(dims), str(dtype))
        for name, dims in ({"attention": DIMS} | (WEIGHTED if value_weighted else {})).items()
    }
    kept["answer"] = Kept(DIMS[:1], asked.shape(DIMS[:1]), "str")
    labels, places = asked.labels, dict[str, np.ndarray]()
    if strips:
        ragged = Ragged(model, asked.prompts)
        kept[STRIP] = ragged.kept(asked.shape(DIMS[1:-1]), str(dtype))
        labels, places = labels | {"token": ragged.texts}, ragged.places
    noted = {name: Kept(DIMS[:1], each.shape, "int64") for name, each in places.items()}
    with open_store(store, settings, kept, labels, noted) as blocks:
        for name, each in places.items():
            blocks.note(name, each)
        keep = partial(_kept, model, value_weighted=value_weighted, strips=strips)
        asked.fill(blocks, keep, _is_pattern_or_value if value_weighted or strips else None)
        blocks.note("predicted", predicted(settings, blocks.read("answer")))
    return read_store(store)


def _is_pattern_or_value(name: str) -> bool:
    return name.endswith(("hook_pattern", "hook_v"))


def _kept(
    model: CodiModel, run: ThoughtRun, *, value_weighted: bool, strips: bool
) -> dict[str, Any]:
    """What the store keeps of each problem of a run, under the names of its arrays."""
    kept: dict[str, Any] = {"attention": run.attention.values, "answer": run.answers}
    if value_weighted:
        kept["value_weighted"] = value_weighted_attention(model.lens, run).values
        for end, weighted in (("", False), ("_value_weighted", True)):
            sink, strongest = question_tokens(model.lens, run, weighted=weighted)
            kept |= {f"sink{end}": sink.values, f"strongest{end}": strongest.values}
    if strips:
        kept[STRIP] = as_kept(strips_of(run))
    return kept


def accuracy(attention: xr.DataArray | xr.Dataset) -> dict[str, Any] | None:
    """Share of correct answers with its Wilson interval; None if no problem has an answer.

    Returns:
        `n` (problems with a known answer), `correct`, `accuracy`, `low`, `high`.
    """
    correct = attention["correct"].values
    correct = correct[~np.isnan(correct)]
    if correct.size == 0:
        return None
    low, high = wilson_interval(int(correct.sum()), correct.size)
    return {
        "n": int(correct.size),
        "correct": int(correct.sum()),
        "accuracy": float(correct.mean()),
        "low": low,
        "high": high,
    }
