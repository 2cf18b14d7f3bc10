"""What the page is given: the payload of `schema.json`, and blocks of packed numbers by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float32
from scipy import stats

from codi_lens.errors import AttentionError, shown
from codi_lens.explorer.details import Detail, with_ids
from codi_lens.explorer.lens import lens_rows, pack_lens
from codi_lens.explorer.packing import deflated, to_bytes
from codi_lens.explorer.quantities import score_labels, score_quantities, table_quantities
from codi_lens.plots.drawing import style
from codi_lens.positions import possible_cells, thought_names

VERSION = 1
DIMS = ("layer", "head", "query", "key")
STRIPS_LIMIT = 9_000_000
"""Bytes of packed strips; beyond, those of the heads that rank lowest are left out."""
_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Told:
    """What a page says around its panels.

    Attributes:
        title: its heading.
        facts: short facts by name.
        findings: plain sentences.
        opening: see `schema.json`.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    findings: Sequence[str] = ()
    opening: Mapping[str, Any] | None = None


def make_payload(
    attention: xr.DataArray,
    heads: Mapping[str, pd.DataFrame],
    told: Told,
    *,
    details: Mapping[str, Detail],
    effects: Mapping[str, pd.DataFrame],
    readout: xr.Dataset | pd.DataFrame | None,
    baselines: Mapping[str, xr.DataArray],
    n_problems: int,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The payload and its blocks.

    Args:
        attention: labelled; with or without a problem axis.
        heads: the heads table of each view.
        told: what the page says.
        details: of single problems, by id.
        effects: tables of heads by what to call them.
        readout: of `logit_lens`.
        baselines: what to compare with, by what to call it.
        n_problems: so many problems are kept one by one.

    Raises:
        AttentionError: labels, tables or readouts that do not belong together.
    """
    whole = with_ids(attention)
    ids = whole["problem"].values[:n_problems].tolist() if "problem" in whole.dims else []
    grid = [(int(a), int(b)) for a in whole["layer"].values for b in whole["head"].values]
    queries, keys = ([str(name) for name in whole[dim].values] for dim in ("query", "key"))
    n = whole.sizes.get("problem")
    quantities = [*score_quantities(heads, grid, n), *table_quantities(effects, grid)]
    names = [each["name"] for each in quantities]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise AttentionError(f"Two tables give the quantity {shown(twice[0])}; name them apart.")
    blocks: dict[str, bytes] = {}
    labels = [str(whole.attrs.get("model", "attention")), *baselines]
    arrays = [whole, *(_like(whole, other, name) for name, other in baselines.items())]
    series = [
        _series(label, array, ids, i, blocks)
        for i, (label, array) in enumerate(zip(labels, arrays, strict=True))
    ]
    strips = _strips([details.get(id, Detail()) for id in ids], quantities, len(grid), blocks)
    lens, of_lens = None, {}
    if readout is not None:
        lens, of_lens = pack_lens(lens_rows(readout), ids, ["question", *keys[1:-1], "anchor"])
    thoughts = thought_names(len(keys) - 4)
    payload = {
        "version": VERSION,
        "title": told.title,
        "facts": dict(told.facts),
        "opening": None if told.opening is None else dict(told.opening),
        "findings": list(told.findings),
        "layers": [int(layer) for layer in whole["layer"].values],
        "heads": [int(head) for head in whole["head"].values],
        "queries": queries,
        "keys": keys,
        "possible": possible_cells(len(thoughts)).astype(int).tolist(),
        "self": [[int(q == k and q != "eot") for k in keys] for q in queries],
        "generation": [
            {"query": query, "makes": made}
            for query, made in zip(("bot", *thoughts), thoughts, strict=False)
        ],
        "labels": score_labels(heads, grid),
        "quantities": quantities,
        "series": series,
        "problems": [_problem(arrays, id, details.get(id, Detail())) for id in ids],
        "strips": strips,
        "lens": lens,
        "style": {"attention": style.ATTENTION_SCALE, "score": style.SCORE_SCALE},
    }
    return payload, blocks | of_lens


def _series(
    label: str, attention: xr.DataArray, ids: Sequence[str], number: int, blocks: dict[str, bytes]
) -> dict[str, Any]:
    """Pack one attention: its mean with an interval, and every problem that is kept."""
    has_problems = "problem" in attention.dims
    stacked = attention if has_problems else attention.expand_dims("problem")
    stacked = stacked.transpose("problem", *DIMS)
    mean, half = _mean(stacked)
    blocks[f"m{number}"] = deflated(mean)
    if interval := stacked.sizes["problem"] > 1:
        blocks[f"h{number}"] = deflated(half)
    by_problem = has_problems and set(ids) <= set(attention["problem"].values.tolist())
    if by_problem:
        for i, id in enumerate(ids):
            blocks[f"a{number}/{i}"] = deflated(to_bytes(stacked.sel(problem=id).to_numpy()))
    return {
        "label": label,
        "n": attention.sizes.get("problem"),
        "interval": interval,
        "byProblem": by_problem,
    }


def _mean(
    stacked: xr.DataArray,
) -> tuple[
    Float32[np.ndarray, "layer head query key"], Float32[np.ndarray, "layer head query key"]
]:
    """The mean over problems, and half the width of its 95 % interval.

    Rows that are undefined in a problem do not count there. Problems are read in blocks.
    """
    sizes = stacked.shape[1:]
    total, squares, counts = np.zeros(sizes), np.zeros(sizes), np.zeros(sizes[-2], dtype=int)
    for start in range(0, stacked.sizes["problem"], _AT_ONCE):
        block = stacked[start : start + _AT_ONCE].to_numpy().astype(float)
        counts += np.asarray(~np.isnan(block).any(axis=(1, 2, 4))).sum(0)
        total += np.nansum(block, axis=0)
        squares += np.nansum(block**2, axis=0)
    n = counts[:, None]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / n
        variance = np.maximum(squares - n * mean**2, 0) / (n - 1)
        half = stats.t.ppf(0.975, np.maximum(n - 1, 1)) * np.sqrt(variance / n)
    return mean.astype(np.float32), half.astype(np.float32)


def _like(attention: xr.DataArray, other: xr.DataArray, name: str) -> xr.DataArray:
    """What is compared with, in the same order; of other heads or positions it is refused."""
    found = with_ids(other)
    for dim in DIMS:
        if found[dim].values.tolist() != attention[dim].values.tolist():
            raise AttentionError(
                f"The baseline {shown(name)} has {found.sizes[dim]} {dim} labels and the attention "
                f"{attention.sizes[dim]}, or others; give attention of a model of the same shape."
            )
    return found


def _strips(
    details: Sequence[Detail],
    quantities: Sequence[Mapping[str, Any]],
    n_heads: int,
    blocks: dict[str, bytes],
) -> dict[str, Any] | None:
    """Pack the strips of as many heads as the limit takes, best by the first quantity first."""
    strips = {
        i: each.strip.reshape(n_heads, *each.strip.shape[-2:])
        for i, each in enumerate(details)
        if each.strip is not None
    }
    if not strips:
        return None
    scores = [quantity["values"] for quantity in quantities[:1]] or [[0.0] * n_heads]
    order = np.argsort([-np.inf if v is None else -v for v in scores[0]], kind="stable")
    kept = n_heads
    while True:
        chosen = np.sort(order[:kept])
        packed = {f"t{i}": deflated(strip[chosen]) for i, strip in strips.items()}
        size = sum(map(len, packed.values()))
        if size <= STRIPS_LIMIT or kept == 1:
            blocks |= packed
            return {"heads": chosen.tolist()}
        kept = max(1, int(kept * 0.95 * STRIPS_LIMIT / size))


def _problem(arrays: Sequence[xr.DataArray], id: str, detail: Detail) -> dict[str, Any]:
    one = arrays[0].sel(problem=id)
    expected = _number(one, "expected")
    correct = _number(one, "correct")
    return {
        "id": id,
        "question": _text(one, "question"),
        "answer": _text(one, "answer"),
        "expected": _text(one, "right_answer") or None if expected is None else f"{expected:g}",
        "correct": None if correct is None else bool(correct),
        "undefined": [_undefined(array, id) for array in arrays],
        "totals": [{"name": name, "value": value} for name, value in detail.totals],
        "edges": [list(edge) for edge in detail.edges],
        "tokens": None if detail.strip is None else list(detail.tokens),
    }


def _undefined(array: xr.DataArray, id: str) -> list[str]:
    """The queries without a row in a problem."""
    if "problem" not in array.dims or id not in array["problem"].values:
        return []
    missing = array.sel(problem=id).isnull().any(("layer", "head", "key")).to_numpy()
    return [str(name) for name in array["query"].values[missing]]


def _text(one: xr.DataArray, name: str) -> str | None:
    return str(one[name].item()) if name in one.coords else None


def _number(one: xr.DataArray, name: str) -> float | None:
    value = float(one[name].item()) if name in one.coords else np.nan
    return value if np.isfinite(value) else None
