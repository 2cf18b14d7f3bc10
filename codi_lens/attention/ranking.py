"""One row per attention head: scores, intervals, ranks and their stability, type, layer band."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int

from codi_lens import metrics
from codi_lens.attention.scores import HeadScores
from codi_lens.attention.thresholds import MULTI_PURPOSE_THRESHOLD
from codi_lens.attention.views import View
from codi_lens.errors import AttentionError, finite_number
from codi_lens.stats import percentile_interval, resample_weights

TOP = 10
"""How many heads count as the best ones in `in_top_10`, and in the study's tables."""

TYPES = {"flow": "Forward Flow", "hub": "Hub Aggregator", "skip": "Skip Connection"}


class ConstantMetricWarning(UserWarning):
    """A metric is equal for all heads, so it cannot rank them."""


def layer_band(layer: int, n_layers: int) -> str:
    """The study's bands: early < L // 3 <= middle < 2 L // 3 <= late.

    >>> [layer_band(layer, 12) for layer in (3, 4, 8)]
    ['early', 'middle', 'late']
    """
    if layer < n_layers // 3:
        return "early"
    return "middle" if layer < 2 * n_layers // 3 else "late"


def rank_heads(
    attention: xr.DataArray | xr.Dataset,
    view: View = "position",
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank all heads by the composite of their flow, hub and skip scores.

    In the generation view everything is the study's: scores of the mean matrix over problems, and
    a composite that keeps constant metrics. In the position view scores are taken per problem and
    averaged; hub and skip are what exceeds the causal null (`metrics.hub_excess_score`,
    `metrics.skip_excess_score`); attention to the previous thought (`sequential`, and
    `sequential_excess` over the null) and `self` are added; the composite leaves constant metrics
    out.

    Heads are named by their labels. Of a selection of layers or heads, each score is what it is
    among all heads; what compares heads (composite, rank, `in_top_10`, type, which metrics are
    constant) is within the selection. Bands are of the model's layers (`labels.model_layers`).

    Args:
        attention: labelled attention [problem, layer, head, query, key], or a selection of it; or
            what `extract_scores` gave, which has no `hub_position_share`, and no intervals in the
            generation view.
        view: "position" or "generation".
        n_resamples: bootstrap resamples of the problems, shared by all heads.
        level: of the percentile intervals.
        seed: of the bootstrap.

    Returns:
        One row per head, best first: layer, head, name, band, every score with `_low` and `_high`
        (NaN with a single problem) and `_constant`, hub_position (the most attended thought for its
        place; there always is one, and `hubs.head_hub_ratios` says whether it is a hub) with
        `hub_position_share`, the share of resamples in which it is, composite, rank with its
        interval and `in_top_10` (the share of resamples in which the head is among the best ten),
        type, max_attention, max_query, max_key (the largest entry of the mean matrix).
        `attrs` hold the view, the number of problems, the constant metrics, and the `n_ranked`
        heads that rank and composite are among.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.

    Warns:
        ConstantMetricWarning: a metric is equal for all heads.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> heads = rank_heads(attention)
    >>> len(heads), heads.loc[0, "rank"], heads.attrs["view"]
    (24, np.int64(1), 'position')
    """
    heads = ranked_heads(attention, view, n_resamples=n_resamples, level=level, seed=seed)
    first = heads.sort_values(["layer", "head"]).iloc[0]
    for name in heads.attrs["constant"]:
        warnings.warn(
            f"The {name} score is {first[name]:.3g} for every head in the {view} view, so it "
            "cannot rank them"
            + (" (the study's composite keeps it)." if view == "generation" else "."),
            ConstantMetricWarning,
            stacklevel=2,
        )
    return heads


def ranked_heads(
    attention: xr.DataArray | xr.Dataset,
    view: View = "position",
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """`rank_heads` without its warnings, for pages that say themselves what is constant."""
    if isinstance(attention, xr.Dataset):
        scores = HeadScores.of_scores(attention, view)
    else:
        scores = HeadScores.of(attention, view)
    table: dict[str, Any] = {
        "layer": [layer for layer, _ in scores.heads],
        "head": [head for _, head in scores.heads],
        "name": scores.head_names,
    }
    table["band"] = [layer_band(layer, scores.n_layers) for layer in table["layer"]]
    n_heads = len(scores.mean)
    undefined = np.full(n_heads, np.nan)
    samples: dict[str, np.ndarray] = {}
    weights = resample_weights(scores.n_problems, n_resamples=n_resamples, seed=seed)
    if scores.can_resample:
        samples = scores.reweighted(weights)
    for name, values in scores.values.items():
        low, high = undefined, undefined
        if samples:
            low, high = percentile_interval(samples[name], level=level)
        table |= {name: values, f"{name}_low": low, f"{name}_high": high}
        table[f"{name}_constant"] = name in scores.constant
    normalised: dict[str, Any] = {name: metrics.normalise(scores.values[name]) for name in TYPES}
    mean = scores.mean
    hub = scores.hub_positions(mean)
    largest = mean.reshape(n_heads, -1).argmax(axis=1)
    rows, columns = np.unravel_index(largest, mean.shape[1:])
    table |= {"hub_position": np.array(scores.names["key"])[hub], "hub_position_share": undefined}
    table["rank"] = ranks(scores.values["composite"])
    table |= {"rank_low": undefined, "rank_high": undefined, f"in_top_{TOP}": undefined}
    if samples:
        table["hub_position_share"] = scores.hub_position_shares(weights)
        resampled = ranks(samples["composite"])
        table["rank_low"], table["rank_high"] = percentile_interval(resampled, level=level)
        table[f"in_top_{TOP}"] = (resampled <= TOP).mean(axis=0)
    table |= {
        "type": functional_types(**normalised),
        "max_attention": mean.reshape(n_heads, -1).max(axis=1),
        "max_query": np.array(scores.names["query"])[rows],
        "max_key": np.array(scores.names["key"])[columns],
    }
    heads = pd.DataFrame(table).sort_values("rank", ignore_index=True)
    heads.attrs |= {"view": view, "n_problems": scores.n_problems, "constant": scores.constant}
    heads.attrs["n_ranked"] = n_heads
    return heads


def ranks(values: Float[np.ndarray, "*resample head"]) -> Int[np.ndarray, "*resample head"]:
    """The rank of each head, 1 for the highest value; ties in the order of the heads.

    >>> ranks(np.array([0.2, 0.9, 0.2]))
    array([2, 1, 3])
    """
    return np.argsort(np.argsort(-values, axis=-1, kind="stable"), axis=-1) + 1


def functional_types(
    flow: Float[np.ndarray, " head"],
    hub: Float[np.ndarray, " head"],
    skip: Float[np.ndarray, " head"],
    *,
    threshold: int | float = MULTI_PURPOSE_THRESHOLD,
) -> list[str]:
    """The study's type of each head, from its normalised scores.

    Multi-Purpose if the two highest both exceed `threshold`, else the type of the highest.

    >>> high, low = np.array([1.0, 0.8]), np.array([0.1, 0.9])
    >>> functional_types(0 * high, high, low)
    ['Hub Aggregator', 'Multi-Purpose']
    """
    finite_number("The threshold", threshold, AttentionError)
    scores = np.stack([flow, hub, skip], axis=1)
    second = np.sort(scores, axis=1)[:, -2]
    names = list(TYPES.values())
    return [
        "Multi-Purpose" if both > threshold else names[best]
        for both, best in zip(second, scores.argmax(axis=1), strict=True)
    ]
