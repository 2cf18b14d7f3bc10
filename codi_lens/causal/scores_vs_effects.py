"""Whether a score of attention predicts what ablating a head costs, and better than a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from codi_lens.attention.reading import READING_SCORES
from codi_lens.causal.rank_differences import rank_differences
from codi_lens.errors import InterventionError, listed, needs, shown
from codi_lens.head_names import check_rows
from codi_lens.stats import benjamini_hochberg, rank_association

BASELINE = "baseline"
"""The view of the row that every score has to beat."""
SCORES = ("flow", "hub", "skip", "sequential", "self", "composite", *READING_SCORES)
"""The scores of `rank_heads` and `reading_scores` that are held against effects, where a view has
them."""
STRATA = ("", "within_")
"""Before the columns of what is over all heads, and within layers."""


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
        `q`, `within_q` (Benjamini-Hochberg, over all p-values of the table, both kinds together). A
        metric that is constant has NaN.

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
    joined = _joined(heads, effects, metrics)
    loss, layers = joined["loss"].to_numpy(dtype=float), joined["layer"].to_numpy()
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
    return _corrected(pd.DataFrame(rows))


def rankings_vs_effect(
    views: Mapping[str, pd.DataFrame],
    effects: pd.DataFrame,
    baseline: pd.DataFrame | None = None,
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """`score_vs_effect` of every score in every view: is any good, and better than the baseline?

    Args:
        views: tables of `rank_heads` and of `reading_scores`, by what to call them.
        effects: of `sweep_heads`, on other problems.
        baseline: of `output_changes`, of the ablations whose effects these are.
        seed: of bootstrap and permutations.

    Returns:
        As `score_vs_effect`, with the column `view` in front; `q` and `within_q` are over all
        p-values of the table. With a baseline its row comes first, and every other row has
        `difference`, its rho minus that of the baseline, with its bootstrap interval over heads
        `_low`, `_high`, `_p` and `_q` (see `codi_lens.causal.rank_differences`; corrected over all
        differences); `ratio`, its rho divided by that of the baseline where this is above 0; and
        `beats`, whether the difference is above 0 with q < 0.05. So within layers (`within_…`).

    Raises:
        InterventionError: no view, a view without scores, or a head that a table does not have.

    >>> names = [f"L{i // 4}H{i % 4}" for i in range(8)]
    >>> heads = pd.DataFrame({"name": names, "layer": [0] * 4 + [1] * 4, "hub": range(8)})
    >>> effects = pd.DataFrame({"name": names, "effect": [-i for i in range(8)]})
    >>> moved = heads.assign(output_change=[1, 0, 3, 2, 5, 4, 7, 6])
    >>> table = rankings_vs_effect({"position": heads}, effects, moved)
    >>> table[["view", "metric", "rho", "ratio"]].round(2).values.tolist()
    [['baseline', 'output_change', 0.9, 1.0], ['position', 'hub', 1.0, 1.11]]
    """
    if not views:
        raise InterventionError("rankings_vs_effect was given no view; give at least one.")
    given = {} if baseline is None else {BASELINE: (baseline, ["output_change"])}
    for view, heads in views.items():
        given[view] = heads, [name for name in SCORES if name in heads]
    tables, values = [], []
    for view, (heads, metrics) in given.items():
        tables.append(score_vs_effect(heads, effects, metrics, seed=seed))
        tables[-1].insert(0, "view", view)
        joined = _joined(heads, effects, metrics).set_index("name").loc[effects["name"]]
        values += [joined[metric].to_numpy(dtype=float) for metric in metrics]
    table = _corrected(pd.concat(tables, ignore_index=True))
    if baseline is None:
        return table
    loss, layers = joined["loss"].to_numpy(dtype=float), joined["layer"].to_numpy()
    for prefix, strata in zip(STRATA, (None, layers), strict=True):
        found = rank_differences(np.stack(values[1:]), values[0], loss, strata, seed=seed)
        columns = {"": found.difference, "_low": found.low, "_high": found.high, "_p": found.p}
        for end, each in columns.items():
            table[f"{prefix}difference{end}"] = [np.nan, *each]
        rho = table[f"{prefix}rho"]
        table[f"{prefix}ratio"] = rho / rho[0] if rho[0] > 0 else np.nan
    table = _corrected(table, "difference_")
    for prefix in STRATA:
        sure = table[f"{prefix}difference_q"] < 0.05
        table[f"{prefix}beats"] = sure & (table[f"{prefix}difference"] > 0)
    return table


def _joined(heads: pd.DataFrame, effects: pd.DataFrame, metrics: Sequence[Any]) -> pd.DataFrame:
    """`name`, `layer`, the scores and `loss` of every head with an effect."""
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
    return joined.assign(loss=-joined["effect"])


def _corrected(table: pd.DataFrame, kind: str = "") -> pd.DataFrame:
    """A table with one correction over the p-values of all its rows, plain and within layers."""
    p = table[[f"{prefix}{kind}p" for prefix in STRATA]].to_numpy(dtype=float)
    q = benjamini_hochberg(p)
    return table.assign(**{f"{prefix}{kind}q": q[:, i] for i, prefix in enumerate(STRATA)})
