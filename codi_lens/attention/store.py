"""The zarr store of an extraction: one chunk a problem, and which problems are done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from errno import EACCES, EDQUOT, EMFILE, ENOSPC, EPERM, EROFS
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core import indexing
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from codi_lens import __version__
from codi_lens.errors import OutputError
from codi_lens.outputs import VERSION, Kind, held, in_place_of, resumes, write_text
from codi_lens.positions import key_names, query_names
from codi_lens.problems.parsing import is_correct

Store = Path | MemoryStore
DIMS = ("problem", "layer", "head", "query", "key")
WEIGHTED = {
    "value_weighted": DIMS,
    "sink": DIMS[:-1],
    "sink_value_weighted": DIMS[:-1],
    "strongest": DIMS[:-1],
    "strongest_value_weighted": DIMS[:-1],
}
"""What is kept beside attention where it is asked for, and over which dimensions."""
_NOT_DAMAGE = {ENOSPC, EDQUOT, EACCES, EPERM, EROFS, EMFILE}
"""What goes wrong with a disk and not with what is on it."""
_STORE = Kind(
    marker="zarr.json",
    foreign="exists and is not extracted attention; choose another.",
    other="holds another extraction (its {differing} differ); choose another folder.",
    takes_empty=False,  # a store is made beside its place and renamed, so it never stands empty
)


@contextmanager
def open_store(
    store: Store, settings: Mapping[str, Any], n_layers: int, n_heads: int, n_thoughts: int
) -> Iterator[dict[str, Any]]:
    """The arrays of this very extraction, by name: created, or found with the same settings.

    While they are open, no other process may open them. What a stopped process left undone is made
    up for, and a problem of which anything is damaged or missing is not done.

    Args:
        store: a folder, or memory.
        settings: what decides the values; among them `questions`, `interventions` (their names)
            and `value_weighted`.
        n_layers, n_heads, n_thoughts: of the model.

    Raises:
        OutputError: the folder holds something else, other work, or is damaged; another process
            writes it; or an intervention without a name.
    """
    if isinstance(store, Path) and "" in settings["interventions"]:
        raise OutputError(
            "An extraction on disk knows its interventions by name, and one has none; give it "
            "Intervention(..., name=...)."
        )
    sizes = (n_layers, n_heads, len(query_names(n_thoughts)), len(key_names(n_thoughts)))
    with held(store) if isinstance(store, Path) else nullcontext():
        _begin(store, {**settings, "n_thoughts": n_thoughts, VERSION: __version__})
        # What equals the fill value is written too, so that a chunk that is not there is missing.
        with _damage_named(store), zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(store, mode="r+", use_consolidated=False)
            if group.attrs["questions"] != settings["questions"]:
                group.attrs["questions"] = settings["questions"]
            _make(group, settings, sizes)
            arrays = {name: array for name, array in group.arrays() if name not in DIMS}
            _undo_damaged(store, group, arrays)
        yield arrays


def read_store(store: Store) -> xr.DataArray:
    """The labelled attention of a finished extraction, read as it is used.

    Raises:
        OutputError: problems are missing, or the store is damaged.
    """
    with _damage_named(store):
        return _labelled(store)


def _labelled(store: Store) -> xr.DataArray:
    # Its labels are for others to read; here they come from the settings, as those of older ones.
    dataset = xr.open_zarr(store, chunks=None, consolidated=False, drop_variables=DIMS)
    done = dataset["done"].values
    if isinstance(store, Path) and done.all():
        group = zarr.open_group(store, mode="r")
        arrays = dict(group.arrays())
        done = np.array([_all_there(store, group, arrays, i) for i in range(done.size)])
    if not done.all():
        raise OutputError(
            f"{store} holds {done.sum()} of {done.size} problems; run the extraction again to "
            "finish it."
        )
    rows: list[Any] = dataset.attrs["questions"]  # [id, question, answer, kind and labels or none]
    ids, questions, known = zip(*(row[:3] for row in rows), strict=True)
    numbers = [None if isinstance(answer, str) else answer for answer in known]
    expected = np.array([np.nan if answer is None else answer for answer in numbers], dtype=float)
    texts = [str(text) for text in dataset["answer"].values]
    correct = [
        np.nan if answer is None else float(is_correct(text, answer, *form))
        for text, (_, _, answer, *form) in zip(texts, rows, strict=True)
    ]
    n = dataset.attrs["n_thoughts"]
    attention = _guarded(store, dataset["attention"])
    attention.attrs = {key: dataset.attrs[key] for key in ("model", "fingerprint")}
    attention.attrs["n_layers"] = attention.sizes["layer"]
    weighted = {name: _guarded(store, dataset[name]) for name in WEIGHTED if name in dataset}
    for each in weighted.values():
        each.attrs = dict(attention.attrs)
    coordinates: dict[str, Any] = {
        **weighted,
        "problem": list(ids),
        "layer": np.arange(attention.sizes["layer"]),
        "head": np.arange(attention.sizes["head"]),
        "query": list(query_names(n)),
        "key": list(key_names(n)),
        "question": ("problem", list(questions)),
        "answer": ("problem", np.array(texts, dtype=object)),
        "predicted": ("problem", dataset["predicted"].values),
        "expected": ("problem", expected),
        "correct": ("problem", correct),
    }
    if any(row[3:] for row in rows):
        texts = ["" if answer is None else str(answer) for answer in known]
        coordinates["right_answer"] = ("problem", np.array(texts, dtype=object))
    return attention.assign_coords(coordinates)


class _Stored(BackendArray):
    """An array that is read as it is used; what is damaged by then is one sentence."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._array: Any = zarr.open_group(store, mode="r")[name]
        self.shape, self.dtype = self._array.shape, self._array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> Any:
        with _damage_named(self._store, "run the extraction again, which makes up for it"):
            return self._array.oindex[key]


def _guarded(store: Store, array: xr.DataArray) -> xr.DataArray:
    lazily: Any = indexing.LazilyIndexedArray(_Stored(store, str(array.name)))
    return array.copy(data=indexing.MemoryCachedArray(indexing.CopyOnWriteArray(lazily)))


def _begin(store: Store, attributes: dict[str, Any]) -> None:
    """Say what the store is, before all else; or refuse what holds anything else."""
    described = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    if not isinstance(store, Path):
        zarr.create_group(store, attributes=attributes)
        return
    known = {"model", "n_thoughts", VERSION}
    wanted = _deciding({name: value for name, value in attributes.items() if name not in known})
    if resumes(store, _STORE, wanted, partial(_settings, names=wanted)):
        for path in store.rglob("*.partial"):  # zarr's, of a stopped process
            path.unlink(missing_ok=True)
        return
    # Made beside its place and renamed, so that it never stands without saying what it is.
    with in_place_of(store) as unfinished:
        unfinished.mkdir()
        write_text(unfinished / "zarr.json", json.dumps(described, indent=2))


def _settings(store: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named settings of a stored extraction; one that is older than a setting has none."""
    with _damage_named(store):
        group = zarr.open_group(store, mode="r")
        if "questions" not in group.attrs:
            raise OutputError(f"{store} {_STORE.foreign}")
        return _deciding({name: group.attrs.get(name, []) for name in names})


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without gold answers: they judge what is stored and decide none of it."""
    rows = settings["questions"]
    return {**settings, "questions": [[id, text, *form] for id, text, _, *form in rows]}


def _make(group: zarr.Group, settings: Mapping[str, Any], sizes: tuple[int, ...]) -> None:
    """Every array that the group does not have yet; each chunk carries a checksum."""
    n_problems = len(settings["questions"])
    checked: dict[str, Any] = {"compressors": (ZstdCodec(level=0), Crc32cCodec())}
    along = checked | {"shape": (n_problems,), "dimension_names": ("problem",)}
    arrays: dict[str, dict[str, Any]] = {
        name: checked
        | {
            "shape": (n_problems, *sizes[: len(dims) - 1]),
            "chunks": (1, *sizes[: len(dims) - 1]),
            "dtype": "float32",
            "fill_value": np.nan,
            "dimension_names": dims,
            "attributes": {"n_layers": sizes[0]},
        }
        for name, dims in (
            {"attention": DIMS} | (WEIGHTED if settings["value_weighted"] else {})
        ).items()
    }
    arrays["answer"] = along | {"chunks": (1,), "dtype": str}
    arrays["predicted"] = along | {"dtype": "float64", "fill_value": np.nan}
    arrays["done"] = along | {"dtype": "bool", "fill_value": False}
    missing = [name for name in (*arrays, *DIMS) if name not in group]
    for name in arrays.keys() & set(missing):
        group.create_array(name, **arrays[name])
    _label(group, settings, sizes)
    store = group.store_path.store
    if missing or zarr.open_group(store, mode="r").metadata.consolidated_metadata is None:
        with catch_warnings():  # that other languages' zarr may not know it
            simplefilter("ignore")
            zarr.consolidate_metadata(store)


def _label(group: zarr.Group, settings: Mapping[str, Any], sizes: tuple[int, ...]) -> None:
    """The labels of every dimension, so that plain xarray (`xr.open_zarr`) selects by name."""
    n_thoughts = int(str(group.attrs["n_thoughts"]))
    labels: dict[str, Any] = {
        "problem": [id for id, *_ in settings["questions"]],
        "layer": range(sizes[0]),
        "head": range(sizes[1]),
        "query": query_names(n_thoughts),
        "key": key_names(n_thoughts),
    }
    for name, values in labels.items():
        kind = "int64" if name in ("layer", "head") else str
        size = len(values)
        if name not in group:
            group.create_array(
                name, shape=(size,), chunks=(max(1, size),), dtype=kind, dimension_names=(name,)
            )
        array: Any = group[name]
        wanted = np.array(list(values), dtype=np.dtypes.StringDType() if kind is str else kind)
        found = _readable(array, slice(None))  # a stop may have come before they were written
        if found is None or not np.array_equal(found, wanted):
            array[:] = wanted


_AT_ONCE = 64
"""So many problems are read at once when a store is looked over."""


def _undo_damaged(store: Store, group: zarr.Group, arrays: Mapping[str, Any]) -> None:
    """Mark as not done what is damaged or missing, and write over what cannot be read at all."""
    if not isinstance(store, Path):
        return
    done = _readable(arrays["done"], slice(None))
    sound = done is not None and _readable(arrays["predicted"], slice(None)) is not None
    kept = np.array(done) if done is not None and sound else np.zeros(arrays["done"].shape, bool)
    for start in range(0, len(kept), _AT_ONCE):
        which = slice(start, start + _AT_ONCE)
        for name in {"attention", "answer", *WEIGHTED} & set(arrays) if kept[which].any() else ():
            if _readable(arrays[name], which) is None:
                for i in range(start, min(start + _AT_ONCE, len(kept))):
                    kept[i] &= _readable(arrays[name], slice(i, i + 1)) is not None
    for i in np.flatnonzero(kept).tolist():
        kept[i] = _all_there(store, group, arrays, i)
    if not sound:
        arrays["predicted"][:] = np.nan
    if done is None or (kept != done).any():
        arrays["done"][:] = kept


def _readable(array: Any, which: slice) -> np.ndarray | None:
    """What an array holds; None where it cannot be read or its checksum is wrong."""
    try:
        return array[which]
    except Exception:  # whatever a codec makes of damaged bytes
        return None


def _all_there(store: Path, group: zarr.Group, arrays: Mapping[str, Any], problem: int) -> bool:
    """Whether every chunk of a problem is there; what is not there would be read as fill."""
    # Before stores named their version, an answer without text and numbers had no chunk.
    names = {"attention", *WEIGHTED}
    if VERSION in group.attrs:
        names |= {"answer", "predicted"}
    for name in names & set(arrays):
        array = arrays[name]
        chunk = (problem // array.chunks[0], *(0 for _ in array.shape[1:]))
        if not (store / name / array.metadata.encode_chunk_key(chunk)).is_file():
            return False
    return True


@contextmanager
def _damage_named(store: Store, so: str = "delete it and extract again") -> Iterator[None]:
    """Whatever zarr raises on a damaged store becomes one sentence."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_DAMAGE:
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutputError(f"{store} is damaged ({reason}); {so}.") from error
