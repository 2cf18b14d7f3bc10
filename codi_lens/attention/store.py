"""The zarr store of an extraction: what it is of, its arrays, and which problems are done."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from errno import EACCES, EDQUOT, EMFILE, ENOSPC, EPERM, EROFS
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal
from warnings import catch_warnings, simplefilter

import numpy as np
import zarr
from jaxtyping import Bool
from zarr.storage import MemoryStore

from codi_lens import __version__
from codi_lens.attention.blocks import BLOCK, Blocks, Kept, readable
from codi_lens.attention.provenance import git_commit, versions
from codi_lens.errors import OutputError
from codi_lens.memory import mapped
from codi_lens.outputs import VERSION, Kind, held, in_place_of, resumes, write_text

Store = Path | MemoryStore
Float = Literal["float32", "float16"]
_NOT_DAMAGE = {ENOSPC, EDQUOT, EACCES, EPERM, EROFS, EMFILE}
"""What goes wrong with a disk and not with what is on it."""
_STORE = Kind(
    marker="zarr.json",
    foreign="exists and is not extracted attention; choose another.",
    other="holds another extraction (its {differing} differ); choose another folder.",
    takes_empty=False,  # a store is made beside its place and renamed, so it never stands empty
)
_TOLD = {"model", "n_thoughts", "versions", "git_commit", VERSION}
"""Attributes that decide nothing."""
_BEFORE: dict[str, Any] = {"dtype": "float32", "scores_only": False, "strips": False}
"""What stores did that are older than a setting; none of the others."""


@contextmanager
def open_store(
    store: Store,
    settings: Mapping[str, Any],
    kept: Mapping[str, Kept],
    labels: Mapping[str, Iterable[Any]],
    noted: Mapping[str, Kept] | None = None,
    **reduced: Any,
) -> Iterator[Blocks]:
    """The arrays of this very extraction: created, or found with the same settings.

    While they are open, no other process may open them. What a stopped process left undone is made
    up for, and a block of which anything is damaged or missing is not done.

    Args:
        store: a folder, or memory.
        settings: what decides the values; among them `questions` and `interventions` (their
            names).
        kept: the arrays; the first one has a NaN in no row that is whole.
        labels: of every dimension.
        noted: arrays that follow from the others, to be noted whole at the end.
        reduced: `gathered` and `reduce` of `Blocks`.

    Raises:
        OutputError: the folder holds something else, other work, or is damaged; another process
            writes it; or an intervention without a name.
    """
    if isinstance(store, Path) and "" in settings["interventions"]:
        raise OutputError(
            "An extraction on disk knows its interventions by name, and one has none; give it "
            "Intervention(..., name=...)."
        )
    told = {"versions": versions(), "git_commit": git_commit(), VERSION: __version__}
    with held(store) if isinstance(store, Path) else nullcontext():
        _begin(store, {**settings, **told})
        # What equals the fill value is written too, so that a chunk that is not there is missing.
        with damage_named(store), mapped(), zarr.config.set({"array.write_empty_chunks": True}):
            place = store.absolute() if isinstance(store, Path) else store  # for other processes
            n = len(settings["questions"])
            whole = {"done": Kept(("problem",), (n,), "bool"), **(noted or {})}
            whole["predicted"] = Kept(("problem",), (n,), "float64")
            arrays = _opened(place, settings["questions"], kept, whole, labels)
            done = _sound(store, arrays, kept)
            blocks = Blocks(arrays, kept, done, **reduced)
            blocks.note("done", done)
        with zarr.config.set({"array.write_empty_chunks": True}):
            try:
                yield blocks
            finally:
                if isinstance(store, Path):
                    _clear(store)
                blocks.note("done", blocks.done)


def _begin(store: Store, attributes: dict[str, Any]) -> None:
    """Say what the store is, before all else; or refuse what holds anything else."""
    described = {"attributes": attributes, "zarr_format": 3, "node_type": "group"}
    if not isinstance(store, Path):
        zarr.create_group(store, attributes=attributes)
        return
    wanted = _deciding({name: value for name, value in attributes.items() if name not in _TOLD})
    if resumes(store, _STORE, wanted, partial(_settings, names=wanted)):
        _clear(store)
        return
    # Made beside its place and renamed, so that it never stands without saying what it is.
    with in_place_of(store) as unfinished:
        unfinished.mkdir()
        write_text(unfinished / "zarr.json", json.dumps(described, indent=2))


def _clear(store: Path) -> None:
    """Remove what zarr left half-written in a process that was stopped."""
    for path in store.rglob("*.partial"):
        path.unlink(missing_ok=True)


def _settings(store: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named settings of a stored extraction; one that is older than a setting has none."""
    with damage_named(store):
        group = zarr.open_group(store, mode="r")
        if "questions" not in group.attrs:
            raise OutputError(f"{store} {_STORE.foreign}")
        return _deciding({name: group.attrs.get(name, _BEFORE.get(name, [])) for name in names})


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without gold answers: they judge what is stored and decide none of it."""
    return {**settings, "questions": without_gold(settings["questions"])}


def without_gold(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Questions of a store's settings: id, text, and the kind and labels of an answer that is none
    of a number, which decide where it is read.
    """
    return [[id, text, *form] for id, text, _, *form in rows]


def _opened(
    place: Store,
    questions: Sequence[Any],
    kept: Mapping[str, Kept],
    whole: Mapping[str, Kept],
    labels: Mapping[str, Iterable[Any]],
) -> dict[str, Any]:
    """All arrays, those that were missing made, with the labels of every dimension."""
    group = zarr.open_group(place, mode="r+", use_consolidated=False)
    if group.attrs["questions"] != questions:
        group.attrs["questions"] = questions
    layers = len(list(labels["layer"]))
    missing = [name for name in (*kept, *whole, *labels) if name not in group]
    for name in kept.keys() & set(missing):
        kept[name].create(group, name, n_layers=layers)
    for name in whole.keys() & set(missing):
        whole[name].create_whole(group, name)
    _label(group, labels)
    store = group.store_path.store
    if missing or zarr.open_group(store, mode="r").metadata.consolidated_metadata is None:
        with catch_warnings():  # that other languages' zarr may not know it
            simplefilter("ignore")
            zarr.consolidate_metadata(store)
    return dict(group.arrays())


def _label(group: zarr.Group, labels: Mapping[str, Iterable[Any]]) -> None:
    """The labels of every dimension, so that plain xarray (`xr.open_zarr`) selects by name."""
    for name, given in labels.items():
        values = list(given)
        kind = str if values and isinstance(values[0], str) else "int64"
        size = len(values)
        if name not in group:
            group.create_array(
                name, shape=(size,), chunks=(max(1, size),), dtype=kind, dimension_names=(name,)
            )
        array: Any = group[name]
        wanted = np.array(values, dtype=np.dtypes.StringDType() if kind is str else kind)
        found = readable(array, slice(None))  # a stop may have come before they were written
        if found is None or not np.array_equal(found, wanted):
            array[:] = wanted


def _sound(
    store: Store, arrays: Mapping[str, Any], kept: Mapping[str, Kept]
) -> Bool[np.ndarray, " problem"]:
    """The problems of which everything is there, and can be read."""
    done = np.zeros(arrays["done"].shape, dtype=bool)
    if not isinstance(store, Path):
        return done
    for block in range(ceil(done.size / BLOCK)):
        mine = done[block * BLOCK : (block + 1) * BLOCK]  # a view
        for name, each in kept.items():
            rows, folder = each.rows(block), store / name
            if not all_there(folder, arrays[name], rows, mine.size).any():
                mine[:] = False
                continue
            found = readable(arrays[name], rows)
            if found is None:  # zarr would read it to write over a part of it
                for file in _files(folder, arrays[name], rows):
                    file.unlink(missing_ok=True)
            elif name == next(iter(kept)):
                mine[:] = ~np.isnan(found).all(axis=tuple(range(1, found.ndim)))
            mine &= all_there(folder, arrays[name], rows, mine.size)
    return done


def all_there(folder: Path, array: Any, rows: slice, size: int) -> Bool[np.ndarray, " problem"]:
    """Whether the file of each problem is there; what is not would be read as fill.

    Args:
        folder: of the array.
        array: of zarr.
        rows: some of it.
        size: of how many problems they are, if the array has other rows than problems.
    """
    there = np.array([file.is_file() for file in _files(folder, array, rows)])
    if rows.stop - rows.start != size:
        return np.repeat(there, max(BLOCK, ceil(size / len(there))))[:size]  # of a block, or all
    each = _in_file(array)
    return there[np.arange(rows.start, rows.stop) // each - rows.start // each]


def _files(folder: Path, array: Any, rows: slice) -> list[Path]:
    numbers = range(rows.start // _in_file(array), ceil(rows.stop / _in_file(array)))
    rest = (0,) * (array.ndim - 1)
    return [folder / array.metadata.encode_chunk_key((i, *rest)) for i in numbers]


def _in_file(array: Any) -> int:
    """Rows of a file: one, in stores of earlier releases."""
    return (array.shards or array.chunks)[0]


@contextmanager
def damage_named(store: Store, so: str = "delete it and extract again") -> Iterator[None]:
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
