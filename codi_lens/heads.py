"""One row per attention head: scores, intervals, ranks, functional type, layer band.

Two views of the same attention, never mixed:

- **position view**: row = the thought that is the query; the diagonal is self-attention.
- **generation view** (the published study's): row i = the loop step that generates thought i, so
  its query is `bot` for row 0 and `ct{i-1}` after; entry [i, i-1] is self-attention.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from codi_lens import metrics
from codi_lens.errors import AttentionError
from codi_lens.positions import thought_names
from codi_lens.stats import percentile_interval, resample_weights

View = Literal["position", "generation"]
VIEWS: tuple[View, ...] = ("position", "generation")

MULTI_PURPOSE_THRESHOLD = 0.7
"""The study's: both of a head's two highest normalised scores must exceed it."""
STRONG_HUB = 2.0
"""The study calls a hub strong if its column sum exceeds twice 1 / n_thoughts."""
SEQUENTIAL_THRESHOLD = 0.3
"""The study sees sequential flow if its entries [i, i-1] average more than this."""
SKIP_THRESHOLD = 0.1
"""The study sees skip connections if its entries [last, first half] average more than this."""
CONSISTENT_STD = 0.2
"""The study calls attention consistent if its mean deviation over problems is below this."""

TYPES = {"flow": "Forward Flow", "hub": "Hub Aggregator", "skip": "Skip Connection"}


class ConstantMetricWarning(UserWarning):
    """A metric is equal for all heads, so it cannot rank them."""


def n_thoughts_of(attention: xr.DataArray) -> int:
    """How many thoughts a labelled attention array holds.

    Raises:
        AttentionError: the array lacks the dimensions or labels of `run.attention`.
    """
    wanted = ("layer", "head", "query", "key")
    if any(name not in attention.dims for name in wanted):
        raise AttentionError(
            f"Attention needs the dimensions {', '.join(wanted)} (as run.attention and extract "
            f"give); this array has {', '.join(map(str, attention.dims))}."
        )
    n = sum(str(name).startswith("ct") for name in attention["key"].values)
    labels = {*thought_names(n), "bot"}
    if n < 1 or not labels <= set(attention["query"].values):
        raise AttentionError(
            "Attention needs queries and keys labelled bot, ct0, ct1, … as run.attention and "
            "extract give them."
        )
    return n


def thought_view(attention: xr.DataArray) -> xr.DataArray:
    """The position view: `[..., n, n]`, row = the thought that is the query token.

    The diagonal is self-attention; cells above it are 0, since causality forbids them.

    Raises:
        AttentionError: not labelled attention.
    """
    names = list(thought_names(n_thoughts_of(attention)))
    view = attention.sel(query=names, key=names).transpose(..., "query", "key")
    return view.assign_attrs(view="position")


def generation_view(attention: xr.DataArray) -> xr.DataArray:
    """The published study's view: `[..., n, n]`, row i = the loop step that generates thought i.

    The query label tells which token that is: `bot`, `ct0` … `ct{n-2}`. Row 0 and the last column
    are empty: `bot` sees no thought, and no step sees the last one.

    Raises:
        AttentionError: not labelled attention.
    """
    names = list(thought_names(n_thoughts_of(attention)))
    view = attention.sel(query=["bot", *names[:-1]], key=names).transpose(..., "query", "key")
    return view.assign_attrs(view="generation")


def select_view(attention: xr.DataArray, view: View) -> xr.DataArray:
    """`thought_view` or `generation_view`, by name.

    Raises:
        AttentionError: no such view.
    """
    if view not in VIEWS:
        raise AttentionError(f"There is no view {view!r}; there are {' and '.join(VIEWS)}.")
    return thought_view(attention) if view == "position" else generation_view(attention)


def layer_band(layer: int, n_layers: int) -> str:
    """The study's bands: early < L // 3 <= middle < 2 L // 3 <= late.

    >>> [layer_band(layer, 12) for layer in (3, 4, 8)]
    ['early', 'middle', 'late']
    """
    if layer < n_layers // 3:
        return "early"
    return "middle" if layer < 2 * n_layers // 3 else "late"


def rank_heads(
    attention: xr.DataArray,
    view: View = "position",
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank all heads by the composite of their flow, hub and skip scores.

    In the generation view everything is the study's: scores of the mean matrix over problems, and
    a composite that keeps constant metrics. In the position view scores are taken per problem and
    averaged; the hub score is `metrics.hub_excess_score`; `sequential` (attention to the previous
    thought) and `self` are added; the composite leaves constant metrics out.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        view: "position" or "generation".
        n_resamples: bootstrap resamples of the problems, shared by all heads.
        level: of the percentile intervals.
        seed: of the bootstrap.

    Returns:
        One row per head, best first: layer, head, name, band, every score with `_low` and `_high`
        (NaN with a single problem) and `_constant`, hub_position, composite, rank, type,
        max_attention, max_query, max_key (the largest entry of the mean matrix).
        `attrs` hold the view, the number of problems and the constant metrics.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.

    Warns:
        ConstantMetricWarning: a metric is equal for all heads.
    """
    n_layers, n_heads, blocks, names = _blocks(attention, view)
    mean = blocks.mean(axis=0)
    scores = _scores(mean if view == "generation" else blocks, view)
    if view == "position":
        scores = {name: values.mean(axis=0) for name, values in scores.items()}
    constant = [name for name, values in scores.items() if metrics.is_constant(values)]
    for name in constant:
        warnings.warn(
            f"The {name} score is {scores[name][0]:.3g} for every head in the {view} view, so it "
            "cannot rank them"
            + (" (the study's composite keeps it)." if view == "generation" else "."),
            ConstantMetricWarning,
            stacklevel=2,
        )
    leave_out = constant if view == "position" else []
    scores["composite"] = _composite(scores, leave_out)
    intervals = _intervals(blocks, view, leave_out, n_resamples, level, seed)

    table: dict[str, Any] = {
        "layer": np.repeat(np.arange(n_layers), n_heads),
        "head": np.tile(np.arange(n_heads), n_layers),
    }
    table["name"] = [f"L{layer}H{head}" for layer, head in zip(*table.values(), strict=True)]
    table["band"] = [layer_band(int(layer), n_layers) for layer in table["layer"]]
    for name, values in scores.items():
        table[name] = values
        table[f"{name}_low"], table[f"{name}_high"] = intervals[name]
        table[f"{name}_constant"] = name in constant
    hub = (
        metrics.hub_position(mean) if view == "generation" else metrics.hub_excess(mean).argmax(-1)
    )
    largest = mean.reshape(len(mean), -1).argmax(axis=1)
    rows, columns = np.unravel_index(largest, mean.shape[1:])
    table |= {
        "hub_position": np.array(names["key"])[hub],
        "rank": _ranks(scores["composite"]),
        "type": _types(scores),
        "max_attention": mean.reshape(len(mean), -1).max(axis=1),
        "max_query": np.array(names["query"])[rows],
        "max_key": np.array(names["key"])[columns],
    }
    heads = pd.DataFrame(table).sort_values("rank", ignore_index=True)
    heads.attrs |= {"view": view, "n_problems": len(blocks), "constant": constant}
    return heads


_STUDY_SCORES: dict[str, Callable[..., Any]] = {
    "flow": metrics.flow_score,
    "hub": metrics.hub_score,
    "skip": metrics.skip_score,
}
_POSITION_SCORES = _STUDY_SCORES | {
    "hub": metrics.hub_excess_score,
    "sequential": metrics.sequential_score,
    "self": metrics.self_score,
}


def _blocks(
    attention: xr.DataArray, view: View
) -> tuple[int, int, Float[np.ndarray, "problem head query key"], dict[str, list[str]]]:
    if "problem" not in attention.dims:
        raise AttentionError("Attention needs a problem dimension; average only afterwards.")
    selected = select_view(attention, view)
    selected = selected.transpose("problem", "layer", "head", "query", "key")
    values = np.asarray(selected.values, dtype=np.float64)
    n_problems, n_layers, n_heads, *square = values.shape
    if n_problems == 0:
        raise AttentionError("Attention holds no problem, so heads cannot be ranked.")
    if np.isnan(values).any():
        bad = selected["problem"].values[np.isnan(values).any(axis=(1, 2, 3, 4))][0]
        raise AttentionError(
            f"The attention of problem {bad} holds NaN; extract it again before ranking heads."
        )
    names = {dim: [str(name) for name in selected[dim].values] for dim in ("query", "key")}
    return n_layers, n_heads, values.reshape(n_problems, -1, *square), names


def _scores(pattern: np.ndarray, view: View) -> dict[str, Any]:
    functions = _STUDY_SCORES if view == "generation" else _POSITION_SCORES
    return {name: function(pattern) for name, function in functions.items()}


def _composite(scores: dict[str, Any], leave_out: list[str]) -> Any:
    return metrics.composite_score(
        scores["flow"], scores["hub"], scores["skip"], leave_out=leave_out
    )


def _intervals(
    blocks: np.ndarray,
    view: View,
    leave_out: list[str],
    n_resamples: int,
    level: float,
    seed: int,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = [*(_STUDY_SCORES if view == "generation" else _POSITION_SCORES), "composite"]
    n_problems, n_heads = blocks.shape[:2]
    if n_problems < 2:
        undefined = np.full(n_heads, np.nan)
        return dict.fromkeys(names, (undefined, undefined))
    weights = resample_weights(n_problems, n_resamples=n_resamples, seed=seed)
    if view == "position":  # the mean of per-problem scores
        per_problem = _scores(blocks, view)
        samples = {name: weights @ values for name, values in per_problem.items()}
    else:  # the score of the mean matrix; some heads at a time, to bound memory
        parts: dict[str, list[np.ndarray]] = {}
        chunk = max(1, 2_000_000 // n_resamples // blocks[0, 0].size)
        for start in range(0, n_heads, chunk):
            part = blocks[:, start : start + chunk]
            means = np.einsum("rp,phqk->rhqk", weights, part, optimize=True)
            for name, values in _scores(means, view).items():
                parts.setdefault(name, []).append(values)
        samples = {name: np.concatenate(values, axis=1) for name, values in parts.items()}
    samples["composite"] = np.stack(
        [
            _composite({name: values[i] for name, values in samples.items()}, leave_out)
            for i in range(n_resamples)
        ]
    )
    return {name: percentile_interval(samples[name], level=level) for name in names}


def _ranks(composite: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(composite), dtype=int)
    ranks[np.argsort(-composite, kind="stable")] = np.arange(1, len(composite) + 1)
    return ranks


def _types(scores: dict[str, np.ndarray]) -> list[str]:
    """The study's functional types, from the normalised flow, hub and skip scores."""
    normalised = np.stack([metrics.normalise(scores[name]) for name in TYPES], axis=1)
    second = np.sort(normalised, axis=1)[:, -2]
    names = list(TYPES.values())
    return [
        "Multi-Purpose" if both > MULTI_PURPOSE_THRESHOLD else names[best]
        for both, best in zip(second, normalised.argmax(axis=1), strict=True)
    ]
