"""The zarr store of an extraction: one chunk a problem, and which problems are done."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
import xarray as xr
import zarr
from zarr.storage import MemoryStore

from codi_lens.errors import OutputError
from codi_lens.outputs import Kind, resumes
from codi_lens.positions import key_names, query_names
from codi_lens.problems.problem import is_correct

Store = Path | MemoryStore
DIMS = ("problem", "layer", "head", "query", "key")
WEIGHTED = {"value_weighted": DIMS, "sink": DIMS[:-1], "sink_value_weighted": DIMS[:-1]}
"""What is kept beside attention where it is asked for, and over which dimensions."""
_STORE = Kind(
    marker="zarr.json",
    foreign="exists and is not extracted attention; choose another.",
    other="holds another extraction (its {differing} differ); choose another folder.",
    takes_empty=False,  # a store is made beside its place and renamed, so it never stands empty
)


def open_store(
    store: Store, settings: Mapping[str, Any], n_layers: int, n_heads: int, n_thoughts: int
) -> dict[str, Any]:
    """The arrays of this very extraction, by name: created, or found with the same settings.

    Args:
        store: a folder, or memory.
        settings: what decides the values; among them `questions`, `interventions` (their names)
            and `value_weighted`.
        n_layers, n_heads, n_thoughts: of the model.

    Raises:
        OutputError: the folder holds something else, other work, or is damaged; or an intervention
            without a name.
    """
    if isinstance(store, Path) and "" in settings["interventions"]:
        raise OutputError(
            "An extraction on disk knows its interventions by name, and one has none; give it "
            "Intervention(..., name=...)."
        )
    wanted = _deciding({name: value for name, value in settings.items() if name != "model"})
    if isinstance(store, Path) and resumes(store, _STORE, wanted, partial(_settings, names=wanted)):
        group = zarr.open_group(store, mode="r+")
        if group.attrs["questions"] != settings["questions"]:
            group.attrs["questions"] = settings["questions"]
        return _by_name(group)
    # Made beside its place and renamed, so that a half-made store is never taken for one.
    unfinished = store.with_name(f".{store.name}.partial") if isinstance(store, Path) else store
    if isinstance(unfinished, Path):
        shutil.rmtree(unfinished, ignore_errors=True)
    sizes = (n_layers, n_heads, len(query_names(n_thoughts)), len(key_names(n_thoughts)))
    group = _made(unfinished, settings, sizes, n_thoughts)
    group.attrs.update({**settings, "n_thoughts": n_thoughts})
    if isinstance(unfinished, Path) and isinstance(store, Path):
        unfinished.rename(store)
        group = zarr.open_group(store, mode="r+")
    return _by_name(group)


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
    if not done.all():
        raise OutputError(
            f"{store} holds {done.sum()} of {done.size} problems; run the extraction again to "
            "finish it."
        )
    ids, questions, known = zip(*dataset.attrs["questions"], strict=True)
    expected = np.array([np.nan if answer is None else answer for answer in known], dtype=float)
    texts = [str(text) for text in dataset["answer"].values]
    correct = [
        np.nan if answer is None else float(is_correct(text, answer))
        for text, answer in zip(texts, known, strict=True)
    ]
    n = dataset.attrs["n_thoughts"]
    attention = dataset["attention"]
    attention.attrs = {key: dataset.attrs[key] for key in ("model", "fingerprint")}
    attention.attrs["n_layers"] = attention.sizes["layer"]
    weighted = {name: dataset[name] for name in WEIGHTED if name in dataset}
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
    return attention.assign_coords(coordinates)


def _settings(store: Path, names: Iterable[str]) -> dict[str, Any]:
    """The named settings of a stored extraction; one that is older than a setting has none."""
    with _damage_named(store):
        group = zarr.open_group(store, mode="r")
        group["done"]  # the last array to be made
        return _deciding({name: group.attrs.get(name, []) for name in names})


def _deciding(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without gold answers: they judge what is stored and decide none of it."""
    return {**settings, "questions": [[id, text] for id, text, _ in settings["questions"]]}


def _made(
    store: Store, settings: Mapping[str, Any], sizes: tuple[int, ...], n_thoughts: int
) -> zarr.Group:
    group = zarr.open_group(store, mode="w-")
    n_problems = len(settings["questions"])
    _label(group, settings, sizes, n_thoughts)
    kept = {"attention": DIMS} | (WEIGHTED if settings["value_weighted"] else {})
    for name, dims in kept.items():
        of_one = sizes[: len(dims) - 1]
        group.create_array(
            name,
            shape=(n_problems, *of_one),
            chunks=(1, *of_one),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=dims,
            attributes={"n_layers": sizes[0]},
        )
    along: dict[str, Any] = {"shape": (n_problems,), "dimension_names": ("problem",)}
    group.create_array("answer", chunks=(1,), dtype=str, **along)
    group.create_array("predicted", dtype="float64", fill_value=np.nan, **along)
    group.create_array("done", dtype="bool", fill_value=False, **along)
    with catch_warnings():  # that other languages' zarr may not know it
        simplefilter("ignore")
        return zarr.consolidate_metadata(store)


def _label(
    group: zarr.Group, settings: Mapping[str, Any], sizes: tuple[int, ...], n_thoughts: int
) -> None:
    """The labels of every dimension, so that plain xarray (`xr.open_zarr`) selects by name."""
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
        array = group.create_array(
            name, shape=(size,), chunks=(max(1, size),), dtype=kind, dimension_names=(name,)
        )
        array[:] = np.array(list(values), dtype=np.dtypes.StringDType() if kind is str else kind)


def _by_name(group: zarr.Group) -> dict[str, Any]:
    """The arrays that hold results."""
    return {name: array for name, array in group.arrays() if name not in DIMS}


@contextmanager
def _damage_named(store: Store) -> Iterator[None]:
    """Whatever zarr raises on a damaged store becomes one sentence."""
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise OutputError(f"{store} is damaged ({reason}); delete it and extract again.") from error
