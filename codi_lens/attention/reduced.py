"""Many problems → scores, mean and spread, without keeping their attention."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from zarr.storage import MemoryStore

from codi_lens.attention.blocks import BLOCK, Kept, Values
from codi_lens.attention.opening import DIMS, answered, finished, predicted
from codi_lens.attention.scores import POSITION_SCORES, position_scores, problem_blocks
from codi_lens.attention.store import Store, damage_named, open_store
from codi_lens.attention.streaming import Extraction, Source
from codi_lens.errors import OutputError, as_path
from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problems
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.ways import check_thoughts
from codi_lens.workers.spread import Workers

SCORES = "scores.zarr"
_MOMENTS = ("n", "mean", "squares")
_AT_ONCE = 16


def extract_scores(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    source: Source | None = None,
    batch_size: int = 32,
    max_new_tokens: int = 64,
    interventions: Sequence[Intervention | Planned] = (),
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> xr.Dataset:
    """Run all problems and keep what their attention comes to: every score, mean and spread.

    Takes a quarter to a third of the room of `extract`; `rank_heads` takes the result.

    Args:
        model: the model.
        problems: see `extract`.
        out: a zarr folder, resumable; None keeps everything in memory.
        source: see `extract`.
        batch_size: see `extract`.
        max_new_tokens: see `CodiModel.think`.
        interventions: see `extract`.
        progress: show a progress bar.
        workers, ray_address: see `extract`.

    Returns:
        `mean` and `std` (population) over problems, [layer, head, query, key], of the problems that
        have the query, of which there are `n`; and each of `POSITION_SCORES`, [problem, layer,
        head]. Along the problems `question`, `answer`, `predicted`, `expected` and `correct`.

    Raises:
        ProblemError, OutputError: see `extract`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> scores = extract_scores(model, word_problems(4), progress=False)
    >>> scores["hub"].dims, scores["mean"].dims
    (('problem', 'layer', 'head'), ('layer', 'head', 'query', 'key'))
    """
    check_thoughts(model, "extract_scores")
    running: dict[str, Any] = {"interventions": interventions, "progress": progress}
    running |= {"batch_size": batch_size, "max_new_tokens": max_new_tokens, "source": source}
    running |= {"workers": workers, "ray_address": ray_address}
    asked = Extraction.of(model, problems, **running)
    store = MemoryStore() if out is None else as_path("out", out)
    n_blocks, of_head, along = ceil(len(asked.problems) / BLOCK), DIMS[1:], DIMS[:1]
    labels = {**asked.labels, "score": list(POSITION_SCORES), "moment": _MOMENTS}
    labels["block"] = range(n_blocks)
    sizes = asked.shape(of_head)
    answer = Kept(along, asked.shape(along), "str")
    kept = {
        "scores": Kept(
            (*DIMS[:3], "score"), (*asked.shape(DIMS[:3]), len(POSITION_SCORES)), "float64"
        ),
        "moments": Kept(
            ("block", "moment", *of_head), (n_blocks, len(_MOMENTS), *sizes), "float64", in_block=1
        ),
        "answer": answer,
    }
    gathered = {"attention": Kept(DIMS, asked.shape(DIMS)), "answer": answer}
    noted = {name: Kept(of_head, sizes, "float64") for name in ("mean", "std")}
    settings = asked.settings | {"scores_only": True}
    reduced: dict[str, Any] = {"gathered": gathered, "reduce": partial(_reduced, asked.labels)}
    with open_store(store, settings, kept, labels, noted, **reduced) as blocks:
        asked.fill(blocks, lambda run: {"attention": run.attention.values, "answer": run.answers})
        _, mean, std = _together(blocks.read("moments"))
        for name, values in (("mean", mean), ("std", std)):
            blocks.note(name, values)
        blocks.note("predicted", predicted(settings, blocks.read("answer")))
    return _read(store)


def open_scores(path: str | Path) -> xr.Dataset:
    """What `extract_scores` wrote.

    Args:
        path: the store, or the folder of `codi-lens extract --scores-only`.

    Raises:
        OutputError: not such a folder, or an extraction that is not finished.

    >>> open_scores("checkpoints")
    Traceback (most recent call last):
    codi_lens.errors.OutputError: checkpoints holds no extracted scores.
    """
    path = as_path("path", path)
    found = [each for each in (path, path / SCORES) if (each / "zarr.json").is_file()]
    if not found:
        raise OutputError(f"{path} holds no extracted scores.")
    return _read(found[0])


def _read(store: Store) -> xr.Dataset:
    with damage_named(store):
        told, arrays = finished(store, ("scores", "moments", "answer"))
        if "scores" not in arrays:
            raise OutputError(f"{store} holds attention, not scores; open_attention reads it.")
        return _labelled(told, arrays)


def _labelled(told: dict[str, Any], arrays: dict[str, Any]) -> xr.Dataset:
    n, mean, std = _together(arrays["moments"][:])
    coords = {dim: arrays[dim][:] for dim in ("layer", "head")}
    for dim in ("problem", "query", "key"):
        coords[dim] = [str(name) for name in arrays[dim][:]]
    scores = arrays["scores"][:]
    found: dict[str, Any] = {"mean": (DIMS[1:], mean), "std": (DIMS[1:], std)}
    found["n"] = ("query", n[0, 0, :, 0].astype(int))
    found |= {name: (DIMS[:3], scores[..., i]) for i, name in enumerate(POSITION_SCORES)}
    attrs = {key: told[key] for key in ("model", "fingerprint")} | {"n_layers": len(mean)}
    dataset = xr.Dataset(found, coords | answered(told, arrays["answer"][:]), attrs)
    dataset["mean"].attrs["n_layers"] = len(mean)
    return dataset


def _reduced(labels: dict[str, Any], block: Values) -> Values:
    """What is kept of a block's attention."""
    values = block["attention"]
    attention = xr.DataArray(values, dims=DIMS).assign_coords(
        {dim: list(labels[dim]) for dim in DIMS[1:]}
    )
    scores = np.empty((len(values), values.shape[1] * values.shape[2], len(POSITION_SCORES)))
    for some, blocks in problem_blocks(attention, "position"):
        scores[some] = np.stack(list(position_scores(blocks).values()), axis=-1)
    return {
        "scores": scores.reshape(*values.shape[:3], -1),
        "moments": _moments(values)[None],
        "answer": block["answer"],
    }


def _moments(
    values: Float[np.ndarray, "problem layer head query key"],
) -> Float[np.ndarray, "moment layer head query key"]:
    """How many problems have a number, their mean, and their squared distances from it."""
    parts = range(0, len(values), _AT_ONCE)
    n, total, squares = np.zeros((3, *values.shape[1:]))
    for start in parts:
        some = values[start : start + _AT_ONCE].astype(float)
        n, total = n + np.isfinite(some).sum(axis=0), total + np.nansum(some, axis=0)
    mean = total / np.maximum(n, 1)
    for start in parts:
        some = values[start : start + _AT_ONCE].astype(float)
        squares = squares + np.nansum((some - mean) ** 2, axis=0)
    return np.stack([n, mean, squares])


def _together(
    moments: Float[np.ndarray, "block moment layer head query key"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number, mean and population deviation over all blocks (Chan et al. 1979)."""
    n, means, squares = np.moveaxis(moments, 1, 0)
    total = n.sum(axis=0)
    known = np.maximum(total, 1)
    mean = (n * means).sum(axis=0) / known
    spread = squares.sum(axis=0) + (n * (means - mean) ** 2).sum(axis=0)
    nothing = total == 0
    mean, std = (np.where(nothing, np.nan, each) for each in (mean, np.sqrt(spread / known)))
    return total, mean, std
