"""Single problems at close range: their tokens, a strip over these, totals, and known edges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import UInt8

from codi_lens.attention.labels import labelled
from codi_lens.attention.strips import strips_of
from codi_lens.errors import AttentionError, OutputError, shown
from codi_lens.explorer.packing import MAX_ERROR, to_bytes
from codi_lens.outputs import in_place_of
from codi_lens.positions import row_of
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem
from codi_lens.thinking.run import ThoughtRun
from codi_lens.wording import count
from codi_lens.work import rehearsing

N_PROBLEMS = 100
"""So many problems a page shows one by one; its mean is over all."""
Edges = Sequence[tuple[str, str]]
GivenStrips = Mapping[str, xr.DataArray]
"""Of problems, by id, the attention of every query to the tokens of the question."""


@dataclass(frozen=True, eq=False)
class Detail:
    """What is known of one problem beyond its labelled attention.

    Attributes:
        question: its text, where that is known.
        tokens: of the question, if a strip is kept.
        strip: attention of every named query to each token, 255 times.
        totals: names and values on the way, in their order.
        edges: known to be needed, as (query, key).
    """

    question: str = ""
    tokens: tuple[str, ...] = ()
    strip: UInt8[np.ndarray, "layer head query token"] | None = None
    totals: tuple[tuple[str, str], ...] = ()
    edges: tuple[tuple[str, str], ...] = ()


def with_ids(attention: xr.DataArray) -> xr.DataArray:
    """Labelled attention whose problems are known by texts: those of a run are numbers.

    Raises:
        AttentionError: not labelled attention, or two problems of one id.
    """
    found = labelled(attention)
    if "problem" not in found.dims:
        return found
    ids = [str(each) for each in found["problem"].values]
    if twice := sorted({id for id in ids if ids.count(id) > 1} if len({*ids}) < len(ids) else ()):
        raise AttentionError(
            f"Two problems of the attention have the id {shown(twice[0])}; give each its own: "
            "attention.assign_coords(problem=[…])."
        )
    return found.assign_coords(problem=np.array(ids, dtype=object))


def details_of(
    attention: xr.DataArray,
    strips: GivenStrips,
    known: Mapping[str, Edges] | Sequence[Problem] | None,
) -> dict[str, Detail]:
    """Everything that is given of single problems, by their ids.

    Args:
        attention: labelled, with a problem axis.
        strips: of its problems, by id.
        known: edges by the ids of problems, or the problems themselves.

    Raises:
        AttentionError: strips of other runs; edges of problems that the attention does not have, or
            between positions that are none.
    """
    attention = with_ids(attention)
    ids = attention["problem"].values.tolist()
    texts = (
        dict(zip(ids, map(str, attention["question"].values), strict=True))
        if "question" in attention.coords
        else {}
    )
    found = {
        id: Detail(texts.get(id, ""), totals=totals, edges=edges)
        for id, totals, edges in _known(known)
    }
    if strangers := found.keys() - set(ids):
        raise AttentionError(
            f"Edges are given of the problem {shown(min(strangers))}, which the attention does not "
            f"have; it has {', '.join(ids[:3])}{', …' if len(ids) > 3 else ''}."
        )
    _check_edges(attention, found)
    for id, strip in strips.items():
        _check_same(attention.sel(problem=id), strip.values, id)
        before = found.get(id, Detail(texts.get(id, "")))
        tokens = tuple(strip["token"].values.tolist())
        found[id] = replace(before, tokens=tokens, strip=to_bytes(strip.values))
    return found


def strips_in_order(
    attention: xr.DataArray, runs: ThoughtRun | Iterable[ThoughtRun] | GivenStrips | None, n: int
) -> GivenStrips:
    """Strips of runs over the first problems of the attention, by id; of kept ones, the first `n`.

    Raises:
        AttentionError: runs of more problems than the attention has, or strips of none of them.
    """
    if isinstance(runs, Mapping):
        kept: Any = runs
        found = first_strips(attention, kept, n)
        if kept and n and not found:
            raise AttentionError(
                f"Of the first {count(n, 'problem')} of the attention runs= holds none; give the "
                "strips of the same extraction."
            )
        return found
    listed = [runs] if isinstance(runs, ThoughtRun) else runs or ()
    strips = [strip for run in listed for strip in strips_of(run)]
    ids = with_ids(attention)["problem"].values.tolist()
    if len(strips) > len(ids):
        raise AttentionError(
            f"The runs hold {len(strips)} problems and the attention {len(ids)}; give runs of its "
            "first problems, in their order."
        )
    return dict(zip(ids, strips, strict=False))


def first_strips(attention: xr.DataArray, strips: GivenStrips, n: int = N_PROBLEMS) -> GivenStrips:
    """Those of the first problems of the attention, which are shown one by one."""
    ids = map(str, attention["problem"].values[:n])
    return {id: strips[id] for id in ids if id in strips}


def write_details(path: Path, details: Mapping[str, Detail]) -> None:
    """Keep details in one file."""
    told = [
        {
            "id": id,
            "question": each.question,
            "tokens": each.tokens,
            "totals": each.totals,
            "edges": each.edges,
        }
        for id, each in details.items()
    ]
    strips = {
        f"strip{i}": each.strip for i, each in enumerate(details.values()) if each.strip is not None
    }
    arrays: dict[str, Any] = {"problems": np.array(json.dumps(told)), **strips}
    with in_place_of(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_details(path: Path) -> dict[str, Detail]:
    """What `write_details` kept.

    Raises:
        OutputError: the file is damaged, or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as kept:
            return {
                each["id"]: Detail(
                    each["question"],
                    tuple(each["tokens"]),
                    kept.get(f"strip{i}"),
                    tuple(map(tuple, each["totals"])),
                    tuple(map(tuple, each["edges"])),
                )
                for i, each in enumerate(json.loads(str(kept["problems"])))
            }
    except Exception as error:  # whatever numpy and zip make of damaged bytes
        raise OutputError(
            f"{path} is damaged or something else; delete it and run the analysis again."
        ) from error


def _known(
    known: Mapping[str, Edges] | Sequence[Problem] | None,
) -> Iterable[tuple[str, tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]]:
    if isinstance(known, Mapping):
        return [(str(id), (), _as_rows(edges)) for id, edges in known.items()]
    return [(str(each.id), _totals(each), _as_rows(each.edges)) for each in known or ()]


def _as_rows(edges: Edges) -> tuple[tuple[str, str], ...]:
    return tuple((row_of(query), key) for query, key in edges)


def _totals(problem: Problem) -> tuple[tuple[str, str], ...]:
    if not isinstance(problem, WordProblem):
        return ()
    steps = [(f"after step {i}", str(total)) for i, total in enumerate(problem.totals, 1)]
    return (("start", str(problem.start)), *steps)


def _check_edges(attention: xr.DataArray, details: Mapping[str, Detail]) -> None:
    queries = [str(name) for name in attention["query"].values]
    keys = [str(name) for name in attention["key"].values]
    for id, detail in details.items():
        for query, key in detail.edges:
            if query not in queries or key not in keys:
                raise AttentionError(
                    f"The problem {shown(id)} has the edge {query} → {key}; queries are "
                    f"{', '.join(queries)}, keys {', '.join(keys)}."
                )


def _check_same(attention: xr.DataArray, strip: np.ndarray, id: str) -> None:
    """A strip sums to what its question gets; otherwise it is of another problem or model."""
    expected = labelled(attention).sel(key="question").to_numpy()
    if rehearsing():  # attention of most problems is made up
        return
    if strip.shape[:-1] != expected.shape or not np.allclose(
        strip.sum(-1), expected, atol=MAX_ERROR, equal_nan=True
    ):
        raise AttentionError(
            f"The run of the problem {shown(id)} is not that of its attention; give runs of the "
            "attention's first problems, in their order."
        )
