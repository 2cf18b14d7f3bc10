"""Whether a score of attention predicts what ablating a head costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from codi_lens.errors import InterventionError, listed, needs, shown
from codi_lens.head_names import check_rows
from codi_lens.stats import benjamini_hochberg, rank_association


def score_vs_effect(
    heads: pd.DataFrame,
    effects: pd.DataFrame,
    metrics: Sequence[str],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Whether a score of attention predicts what ablating the head does.

    Args:
        heads: of `rank_heads`, on problems other than those of `effects`.
        effects: of `sweep_heads`.
        metrics: columns of `heads`.
        seed: of bootstrap and permutations.

    Returns:
        One row per metric: Spearman's `rho` between the score and the loss (the negative effect)
        with its bootstrap interval over heads `low`, `high` and its permutation `p`; the same
        stratified by layer (`within_rho`, `within_low`, `within_high`, `within_p`); `n` heads; and
        `q`, `within_q` over the metrics (Benjamini-Hochberg). A metric that is constant has NaN.

    Raises:
        InterventionError: a metric or a head that a table does not have.

    >>> names = [f"L{i // 4}H{i % 4}" for i in range(8)]
    >>> heads = pd.DataFrame({"name": names, "layer": [0] * 4 + [1] * 4, "hub": range(8)})
    >>> effects = pd.DataFrame({"name": names, "effect": [-i for i in range(8)]})
    >>> score_vs_effect(heads, effects, ["hub"])[["metric", "rho", "within_rho"]].values.tolist()
    [['hub', 1.0, 1.0]]
    """
    metrics = listed("score_vs_effect", metrics, "metrics", InterventionError)
    if not metrics:
        raise InterventionError("score_vs_effect was given no metric; give at least one.")
    needs(heads, "name", "layer", advice="give what rank_heads returns")
    needs(effects, "name", "effect", advice="give what sweep_heads returns")
    for metric in metrics:
        if not isinstance(metric, str) or metric not in heads:
            raise InterventionError(f"The heads have no score {shown(metric)}.")
    check_rows(heads, "name", numbers=[*metrics, "layer"])
    check_rows(effects, "name", numbers=["effect"])
    joined = heads[["name", "layer", *metrics]].merge(effects[["name", "effect"]], on="name")
    if len(joined) < len(effects):
        raise InterventionError(
            f"{len(effects) - len(joined)} of {len(effects)} heads with effects have no scores."
        )
    loss = -joined["effect"].to_numpy(dtype=float)
    layers = joined["layer"].to_numpy()
    rows: list[dict[str, Any]] = []
    for metric in metrics:
        values = joined[metric].to_numpy(dtype=float)
        plain = rank_association(values, loss, seed=seed)
        within = rank_association(values, loss, layers, seed=seed)
        rows.append(
            {"metric": metric, "n": plain.n, "rho": plain.rho, "low": plain.low}
            | {"high": plain.high, "p": plain.p, "within_rho": within.rho}
            | {"within_low": within.low, "within_high": within.high, "within_p": within.p}
        )
    table = pd.DataFrame(rows)
    for prefix in ("", "within_"):
        table[f"{prefix}q"] = benjamini_hochberg(table[f"{prefix}p"].to_numpy(dtype=float))
    return table


SCORES = ("flow", "hub", "skip", "sequential", "self", "composite")


"""The scores of `rank_heads` that are held against effects, where a view has them."""


def rankings_vs_effect(
    views: Mapping[str, pd.DataFrame], effects: pd.DataFrame, *, seed: int = 0
) -> pd.DataFrame:
    """`score_vs_effect` of every score in every view: is any of the rankings good?

    Args:
        views: tables of `rank_heads`, by what to call them.
        effects: of `sweep_heads`, on other problems.
        seed: of bootstrap and permutations.

    Returns:
        As `score_vs_effect`, with the column `view` in front; `q` and `within_q` are over all rows.

    Raises:
        InterventionError: a head that a table does not have.

    >>> names = [f"L{i // 4}H{i % 4}" for i in range(8)]
    >>> heads = pd.DataFrame({"name": names, "layer": [0] * 4 + [1] * 4, "hub": range(8)})
    >>> effects = pd.DataFrame({"name": names, "effect": [-i for i in range(8)]})
    >>> rankings_vs_effect({"position": heads}, effects)[["view", "metric"]].values.tolist()
    [['position', 'hub']]
    """
    tables = []
    for view, heads in views.items():
        metrics = [metric for metric in SCORES if metric in heads]
        tables.append(score_vs_effect(heads, effects, metrics, seed=seed))
        tables[-1].insert(0, "view", view)
    table = pd.concat(tables, ignore_index=True)
    for prefix in ("", "within_"):
        table[f"{prefix}q"] = benjamini_hochberg(table[f"{prefix}p"].to_numpy(dtype=float))
    return table
