"""A finished store, opened: labelled arrays that are read as they are used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing

from codi_lens.attention.blocks import BLOCK
from codi_lens.attention.store import Store, all_there, damage_named
from codi_lens.errors import OutputError, as_path
from codi_lens.positions import key_names, query_names
from codi_lens.problems.parsing import is_correct, parse_answer

DIMS = ("problem", "layer", "head", "query", "key")
WEIGHTED = {
    "value_weighted": DIMS,
    "sink": DIMS[:-1],
    "sink_value_weighted": DIMS[:-1],
    "strongest": DIMS[:-1],
    "strongest_value_weighted": DIMS[:-1],
}
"""What is kept beside attention where it is asked for, and over which dimensions."""
ATTENTION = "attention.zarr"
AMONG_OUTCOMES = f"outcomes/{ATTENTION}"
STORES = (ATTENTION, AMONG_OUTCOMES)
"""Where commands leave attention in their folders: as their main result, or beside it."""


def open_attention(path: str | Path) -> xr.DataArray:
    """Attention that `extract` wrote, read from disk as it is used.

    Args:
        path: the store, or the folder of a command that keeps one.

    Raises:
        OutputError: not such a folder, or an extraction that is not finished.

    >>> import tempfile
    >>> from codi_lens import CodiModel, extract
    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = extract(model, word_problems(2), f"{folder}/attention.zarr", progress=False)
    ...     bool((open_attention(f"{folder}/attention.zarr") == kept).sel(query="ct2").all())
    True
    """
    path = as_path("path", path)
    store = store_in(path)
    if store is None:
        raise OutputError(f"{path} holds no extracted attention.")
    return read_store(store)


def store_in(path: Path) -> Path | None:
    """The store that a path is, or that a command left in this folder, if it keeps any."""
    places = (path, *(path / name for name in STORES))
    return next((each for each in places if (each / "zarr.json").is_file()), None)


def read_store(store: Store) -> xr.DataArray:
    """The labelled attention of a finished extraction, read as it is used.

    Raises:
        OutputError: problems are missing, or the store is damaged.
    """
    with damage_named(store):
        told, arrays = finished(store, ("attention", "answer", *WEIGHTED))
        if told.get("scores_only"):
            raise OutputError(f"{store} holds scores without the attention that they are of.")
        n_layers, n_heads = arrays["attention"].shape[1:3]
        attrs = {key: told[key] for key in ("model", "fingerprint")} | {"n_layers": n_layers}
        labels = {
            "problem": [id for id, *_ in told["questions"]],
            "layer": np.arange(n_layers),
            "head": np.arange(n_heads),
            "query": list(query_names(told["n_thoughts"])),
            "key": list(key_names(told["n_thoughts"])),
        }
        lazily = {
            name: xr.DataArray(_lazily(store, arrays[name], dims), attrs=attrs)
            for name, dims in ({"attention": DIMS} | WEIGHTED).items()
            if name in arrays
        }
        attention = lazily.pop("attention").rename("attention")
        return attention.assign_coords(lazily | labels | answered(told, arrays["answer"][:]))


def finished(store: Store, names: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a store says of itself, and its arrays.

    Args:
        store: to be read.
        names: the arrays that have to be there whole, where the store has them.

    Raises:
        OutputError: problems are missing.
    """
    group = zarr.open_group(store, mode="r")
    arrays: dict[str, Any] = dict(group.arrays())
    done = np.array(arrays["done"][:])
    if isinstance(store, Path):
        for name in arrays.keys() & set(names):
            rows = slice(0, arrays[name].shape[0])
            done &= all_there(store / name, arrays[name], rows, done.size)
    if not done.all():
        raise OutputError(
            f"{store} holds {done.sum()} of {done.size} problems; run the extraction again to "
            "finish it."
        )
    return dict(group.attrs), arrays


def answered(told: dict[str, Any], answers: np.ndarray) -> dict[str, Any]:
    """Coordinates along the problems: questions, and answers held against the expected ones."""
    rows: list[Any] = told["questions"]  # [id, question, answer, kind and labels or none]
    texts = [str(text) for text in answers]
    known = [answer for _, _, answer, *_ in rows]
    correct = [
        np.nan if answer is None else float(is_correct(text, answer, *form))
        for text, (_, _, answer, *form) in zip(texts, rows, strict=True)
    ]
    found: dict[str, Any] = {
        "question": ("problem", [question for _, question, *_ in rows]),
        "answer": ("problem", np.array(texts, dtype=object)),
        "predicted": ("problem", predicted(told, texts)),
        "expected": ("problem", _numbers(known)),
        "correct": ("problem", correct),
    }
    if any(row[3:] for row in rows):
        right = ["" if answer is None else str(answer) for answer in known]
        found["right_answer"] = ("problem", np.array(right, dtype=object))
    return found


def predicted(told: Mapping[str, Any], texts: Iterable[Any]) -> np.ndarray:
    """The numbers of answers, NaN where there is none.

    Args:
        told: what the store says of itself.
        texts: the answers of its problems.
    """
    rows = zip(texts, told["questions"], strict=True)
    return _numbers(parse_answer(str(text), *form) for text, (_, _, _, *form) in rows)


def _numbers(values: Iterable[Any]) -> np.ndarray:
    return np.array([np.nan if isinstance(v, str | None) else v for v in values], dtype=float)


class _Stored(BackendArray):
    """An array that is read as it is used, single precision; damage is one sentence by then."""

    def __init__(self, store: Store, array: Any) -> None:
        self._store, self._array = store, array
        self.shape, self.dtype = array.shape, np.dtype("float32")

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        first, *rest = key
        if not isinstance(first, slice | np.ndarray):
            return self._some(key)
        rows = np.arange(self.shape[0])[first]
        found = np.empty((len(rows), *self._some((slice(0), *rest)).shape[1:]), self.dtype)
        # A block at a time: zarr decodes all that it is asked for at once.
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            in_order = (np.diff(some) == 1).all()  # read much faster
            which = slice(int(some[0]), int(some[-1]) + 1) if in_order else some
            found[start : start + BLOCK] = self._some((which, *rest))
        return found

    def _some(self, key: tuple[Any, ...]) -> Any:
        with damage_named(self._store, "run the extraction again, which makes up for it"):
            return self._array.oindex[key].astype(self.dtype, copy=False)


def _lazily(store: Store, array: Any, dims: tuple[str, ...]) -> xr.Variable:
    lazily: Any = indexing.LazilyIndexedArray(_Stored(store, array))
    return xr.Variable(dims, indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazily)))
