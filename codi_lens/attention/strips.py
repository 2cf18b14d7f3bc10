"""Attention to the single tokens of questions: ragged, since each has as many as it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
import zarr

from codi_lens.attention.blocks import BLOCK, PIECE, Kept
from codi_lens.attention.opening import finished, store_in
from codi_lens.attention.store import damage_named
from codi_lens.errors import OutputError, as_path, shown
from codi_lens.model import CodiModel
from codi_lens.positions import query_names
from codi_lens.thinking.prompts import questions_of
from codi_lens.thinking.run import ThoughtRun

_DIMS = ("token", "layer", "head", "query")
STRIP, FIRST, LENGTH = "strip", "first_token", "n_tokens"
"""The array of a store, and where each problem's tokens are in it."""


def strips_of(run: ThoughtRun) -> list[xr.DataArray]:
    """Every query's attention [layer, head, query, token] to each token of its question.

    The row `anchor` is NaN where the answer holds no number.

    Raises:
        InterventionError: the run keeps no patterns and cannot be replayed.
    """
    queries = query_names(run.layout.n_thoughts)
    cache = run.cache()
    n_layers = run.attention.sizes["layer"]
    fixed = [int(run.index(name)[0]) for name in queries[:-1]]  # the same for every problem
    labels = {name: run.attention[name].values for name in ("layer", "head")}
    made = []
    for row, span in enumerate(run.span("question")):
        anchor = run.layout.anchors[row]
        places = [*fixed, run.layout.eot + (anchor or 0)]
        layers = [
            cache[f"blocks.{layer}.attn.hook_pattern"][row, :, places, span].float().cpu()
            for layer in range(n_layers)
        ]
        strip = torch.stack(layers).numpy()
        if anchor is None:
            strip[:, :, -1] = np.nan
        made.append(_labelled(strip, run.tokens[row][span], queries, labels))
    return made


def open_strips(path: str | Path) -> Strips:
    """Attention to single tokens that `extract(..., strips=True)` kept.

    Args:
        path: the store, or the folder of a command that keeps one.

    Raises:
        OutputError: there is none, or it is not finished.

    >>> import tempfile
    >>> from codi_lens import CodiModel, extract
    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(2)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     attention = extract(model, some, f"{folder}/a", strips=True, progress=False)
    ...     strip = open_strips(f"{folder}/a")[some[0].id]
    >>> strip.dims, strip.sel(layer=1, head=7, query="ct0").idxmax().item()
    (('layer', 'head', 'query', 'token'), ' more')
    """
    path = as_path("path", path)
    found = strips_in(path)
    if found is None:
        raise OutputError(
            f"{path} holds no attention to single tokens; extract it with --strips (in Python "
            "strips=True)."
        )
    return found


def strips_in(path: Path) -> Strips | None:
    """The same; None where nothing of the kind is kept."""
    store = store_in(path)
    if store is None:
        return None
    with damage_named(store):
        if STRIP not in zarr.open_group(store, mode="r"):
            return None
        told, arrays = finished(store, ("attention", "answer", STRIP, FIRST, LENGTH, "token"))
        return Strips(store, told, arrays)


class Strips(Mapping[str, xr.DataArray]):
    """Of each problem, by its id, attention [layer, head, query, token], read as it is used.

    Tokens are labelled by their texts.
    """

    def __init__(self, store: Path, told: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """See `open_strips`."""
        self._store, self._strip, self._texts = store, arrays[STRIP], arrays["token"][:]
        self._queries = query_names(told["n_thoughts"])
        self._labels = {name: arrays[name][:] for name in ("layer", "head")}
        begin, n = arrays[FIRST][:].tolist(), arrays[LENGTH][:].tolist()
        ids = [str(id) for id, *_ in told["questions"]]
        self._spans = {
            id: slice(i, i + length) for id, i, length in zip(ids, begin, n, strict=True)
        }

    def __getitem__(self, id: str) -> xr.DataArray:
        """One problem's; a KeyError of an id that is none."""
        if id not in self._spans:
            raise KeyError(f"There is no problem {shown(id)}; there is {next(iter(self._spans))}.")
        span = self._spans[id]
        with damage_named(self._store, "run the extraction again, which makes up for it"):
            values = np.moveaxis(self._strip[span].astype(np.float32, copy=False), 0, -1)
        return _labelled(values, self._texts[span].tolist(), self._queries, self._labels)

    def __iter__(self) -> Iterator[str]:
        """The problems, in the order of the store."""
        return iter(self._spans)

    def __len__(self) -> int:
        """How many problems there are."""
        return len(self._spans)


class Ragged:
    """How a store keeps the tokens of its questions: block by block, one after the other.

    Attributes:
        spans: of each problem's tokens.
        texts: of all of them, empty between blocks.
    """

    def __init__(self, model: CodiModel, prompts: Sequence[Sequence[int]]) -> None:
        """For questions with what opens the thoughts."""
        questions = questions_of(model, prompts)
        blocks = [questions[i : i + BLOCK] for i in range(0, len(questions), BLOCK)]
        most = max(sum(map(len, block)) for block in blocks)
        self.in_block = ceil(most / PIECE) * PIECE
        self.spans: list[slice] = []
        for i, block in enumerate(blocks):
            ends = [*accumulate(map(len, block), initial=i * self.in_block)]
            self.spans += map(slice, ends[:-1], ends[1:])
        self.texts = [""] * (len(blocks) * self.in_block)
        named = {token: str(model.tokenizer.decode([token])) for q in questions for token in q}
        for span, question in zip(self.spans, questions, strict=True):
            self.texts[span] = [named[token] for token in question]

    def kept(self, shape: tuple[int, ...], dtype: str) -> Kept:
        """The array, of so many layers, heads and queries."""
        return Kept(_DIMS, (len(self.texts), *shape), dtype, self.in_block, tuple(self.spans))

    @property
    def places(self) -> dict[str, np.ndarray]:
        """Where each problem's tokens begin, and how many they are."""
        return {
            FIRST: np.array([span.start for span in self.spans]),
            LENGTH: np.array([span.stop - span.start for span in self.spans]),
        }


def as_kept(strips: Sequence[xr.DataArray]) -> list[np.ndarray]:
    """Strips in the order of a store's dimensions."""
    return [strip.transpose(*_DIMS).values for strip in strips]


def _labelled(
    strip: np.ndarray,
    tokens: Sequence[str],
    queries: Sequence[str],
    labels: Mapping[str, np.ndarray],
) -> xr.DataArray:
    coords = {**labels, "query": list(queries), "token": np.array(tokens, dtype=object)}
    return xr.DataArray(strip, coords=coords, dims=(*_DIMS[1:], "token"), name=STRIP)
