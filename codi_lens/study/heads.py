"""The study's matrices and its table of heads: mean and spread, scores, types, rankings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from codi_lens import metrics
from codi_lens.attention.labels import heads_in, labelled, labelled_steps, model_layers
from codi_lens.attention.ranking import TYPES, functional_types, layer_band
from codi_lens.attention.views import generation_view
from codi_lens.errors import AttentionError
from codi_lens.head_names import head_name
from codi_lens.study.settings import StudyThresholds

N_TOP = 20
"""The study lists, counts and draws its twenty best heads."""
BANDS = ("early", "middle", "late")


def mean_and_std(attention: xr.DataArray, *, chunk: int = 256) -> tuple[xr.DataArray, xr.DataArray]:
    """The generation view's mean and population deviation over problems.

    Both [layer, head, query, key]. Reads `chunk` problems at a time, twice, so that all of GSM8K
    fits into memory.

    Raises:
        AttentionError: not labelled attention, or no problem in it.
    """
    attention = labelled(attention)
    if "problem" not in attention.dims or attention.sizes["problem"] == 0:
        raise AttentionError("The study averages over problems; this attention holds none.")
    view = generation_view(attention).transpose("problem", "layer", "head", "query", "key")
    n = view.sizes["problem"]
    parts = [slice(start, start + chunk) for start in range(0, n, chunk)]
    mean = sum(_float64(view, part).sum(axis=0) for part in parts) / n
    squares = sum(((_float64(view, part) - mean) ** 2).sum(axis=0) for part in parts)
    # Coordinates along the problems go; the others stay.
    template = view.isel(problem=0, drop=True).drop_vars(
        [name for name, values in view.coords.items() if "problem" in values.dims],
        errors="ignore",
    )
    return template.copy(data=mean), template.copy(data=np.sqrt(squares / n))


def study_heads(mean: xr.DataArray, thresholds: StudyThresholds | None = None) -> pd.DataFrame:
    """The study's table of heads, best composite first; ties by layer and head.

    Args:
        mean: [layer, head, query, key], the generation view averaged over problems; of any layers
            and heads, which are named by their labels. Ranks, composite and types are among them,
            layer types of the model's layers (`attention.labels.model_layers`).
        thresholds: the study's own if None.

    Returns:
        The study's columns layer, head, layer_type, flow_score, hub_score, skip_score,
        composite_score, functional_type, max_attention; and beside them rank, name, hub_position,
        mean_attention, max_position ("step→thought", as the study writes it) and the normalised
        scores flow_norm, hub_norm, skip_norm.
    """
    thresholds = thresholds or StudyThresholds()
    mean = labelled_steps(mean)
    values = np.asarray(mean.values, dtype=np.float64)
    patterns = values.reshape(-1, *values.shape[2:])
    scores: dict[str, Any] = {
        "flow": metrics.flow_score(patterns),
        "hub": metrics.hub_score(patterns),
        "skip": metrics.skip_score(patterns),
    }
    norms: dict[str, Any] = {name: metrics.normalise(score) for name, score in scores.items()}
    heads, n_layers = heads_in(mean), model_layers(mean)
    table = pd.DataFrame(
        {
            "name": [head_name(head) for head in heads],
            "layer": [layer for layer, _ in heads],
            "head": [head for _, head in heads],
            "layer_type": [layer_band(layer, n_layers) for layer, _ in heads],
            **{f"{name}_score": score for name, score in scores.items()},
            "hub_position": metrics.hub_position(patterns),
            "composite_score": metrics.composite_score(**scores),
            "functional_type": functional_types(**norms, threshold=thresholds.multi_purpose),
            "max_attention": patterns.max(axis=(1, 2)),
            "max_position": largest_entries(patterns),
            "mean_attention": patterns.mean(axis=(1, 2)),
            **{f"{name}_norm": norm for name, norm in norms.items()},
        }
    )
    table = table.sort_values("composite_score", ascending=False, kind="stable", ignore_index=True)
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table


def rank_by(heads: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The study's `heads_ranked_by_{metric}.csv`: all heads, best first.

    Args:
        heads: as from `study_heads`.
        metric: flow, hub or skip; ties are ordered by layer and head.

    Raises:
        AttentionError: another metric.
    """
    if metric not in TYPES:
        raise AttentionError(
            f"The study ranks heads by {', '.join(TYPES)}, not by {metric!r}; composite is the "
            "order of its main table."
        )
    columns = ["layer", "head", f"{metric}_score", "layer_type"]
    if metric == "hub":
        columns.insert(3, "hub_position")
    # Flow is 1 for every head but for rounding errors, which must not order them.
    best_first = (-heads[f"{metric}_score"]).round(12)
    places = np.lexsort((heads["head"], heads["layer"], best_first))
    return heads.iloc[places][columns].reset_index(drop=True)


def counts(heads: pd.DataFrame, column: str, n: int = N_TOP) -> dict[str, int]:
    """How many of the `n` best heads have each functional type or layer band, absent ones as 0.

    >>> counts(pd.DataFrame({"layer_type": ["late", "early", "late"]}), "layer_type")
    {'early': 1, 'middle': 0, 'late': 2}
    """
    kinds = BANDS if column == "layer_type" else (*TYPES.values(), "Multi-Purpose")
    found = heads[column].head(n).value_counts()
    return {kind: int(found.get(kind, 0)) for kind in kinds}


def largest_entries(patterns: Float[np.ndarray, "head query key"]) -> list[str]:
    """The largest entry of each matrix as the study writes it, step→thought.

    >>> largest_entries(np.array([[[0.0, 0.0], [0.4, 0.0]]]))
    ['1→0']
    """
    flat = patterns.reshape(len(patterns), -1).argmax(axis=1)
    return [f"{row}→{column}" for row, column in (divmod(i, patterns.shape[-1]) for i in flat)]


def _float64(view: xr.DataArray, part: slice) -> Float[np.ndarray, "problem layer head query key"]:
    return np.asarray(view.isel(problem=part).values, dtype=np.float64)
