"""Heads that serve a known edge: those whose ablation costs just the problems that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import ttest_ind

from codi_lens.causal.controls import donors_for, head_hooks
from codi_lens.causal.edge_costs import costs_of
from codi_lens.causal.means import MIN_EFFECT
from codi_lens.causal.measure import Running, measure
from codi_lens.head_names import all_heads, head_name
from codi_lens.interventions.heads import ablate_heads
from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problem
from codi_lens.stats import benjamini_hochberg, rank_correlations

_FEWEST = 5
_SIGNIFICANT = 0.05


def served_edges(
    model: CodiModel,
    problems: Sequence[Problem],
    by_head: Mapping[str, xr.DataArray],
    truth: xr.DataArray,
    out: str | Path | None = None,
    *,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Whether the head that a score ranks first is one that serves the edges of a query.

    A head serves a query if replacing it there by another problem's costs the problems that need an
    edge from this query more than the others: by more than 0.1 nats, with q < 0.05 over all heads
    and queries (Welch's t; Benjamini-Hochberg).

    Args:
        model: the model.
        problems: what to think about.
        by_head: of `head_edge_scores`, for these problems.
        truth: of `truth_of`, for these problems.
        out: a folder for the outcomes, resumable.
        seed: of the donors.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per `query` that at least five problems need an edge from and five do not, and per
        `score`: `head`, which has the highest mean score at the needed edges; `head_score`;
        `cost_needing` and `cost_others`, what ablating it at the query costs either kind of
        problem in nats, `difference` with its interval `_low`, `_high`, and `serves`; `most`, the
        head with the largest difference, `most_difference`, and `most_rank`, its rank by the score;
        `n_serving` heads; `rho`, Spearman's, of score and difference over all heads; `n_needing`
        and `n_others`.

    Raises:
        CodiLensError: see `measure`.
    """
    heads = all_heads(model.lens.cfg)
    needs = truth.sum("key").values > 0
    queries = [str(query) for query in truth["query"].values]
    asked = [
        place
        for place in range(len(queries))
        if min(needs[:, place].sum(), (~needs[:, place]).sum()) >= _FEWEST
    ]
    columns = ["query", "score", "head", "head_score", "cost_needing", "cost_others"]
    if not asked:
        return pd.DataFrame(columns=columns)
    hooks = head_hooks(model.lens.cfg.n_layers)
    donors = donors_for(model, problems, mode="resample", donors=None, seed=seed, hook_names=hooks)
    arms = {
        f"{head_name(head)} at {queries[place]}": ablate_heads(
            [head], "resample", queries[place], donors, seed
        )
        for place in asked
        for head in heads
    }
    costs = costs_of(measure(model, problems, arms, out, **running)).to_numpy(dtype=float)
    costs = costs.reshape(len(costs), len(asked), len(heads))
    found = [_served(costs[:, i], needs[:, place]) for i, place in enumerate(asked)]
    q = benjamini_hochberg(np.stack([each["p"].to_numpy() for each in found]))
    rows: list[dict[str, Any]] = []
    for i, (place, table) in enumerate(zip(asked, found, strict=True)):
        table["serves"] = (q[i] < _SIGNIFICANT) & (table["difference"] > MIN_EFFECT)
        for name, each in by_head.items():
            scores = _at_needed(each, truth, place)
            first, most = int(scores.argmax()), int(table["difference"].argmax())
            rows.append(
                {"query": queries[place], "score": name, "head": head_name(heads[first])}
                | {"head_score": float(scores[first])}
                | {str(name): value for name, value in table.drop(columns="p").iloc[first].items()}
                | {"most": head_name(heads[most]), "most_difference": table["difference"][most]}
                | {"most_rank": int((scores > scores[most]).sum()) + 1}
                | {"n_serving": int(table["serves"].sum())}
                | {"rho": _rho(scores, table["difference"].to_numpy())}
                | {"n_needing": int(needs[:, place].sum())}
                | {"n_others": int((~needs[:, place]).sum())}
            )
    return pd.DataFrame(rows)


def _served(
    costs: Float[np.ndarray, "problem head"], needing: Bool[np.ndarray, " problem"]
) -> pd.DataFrame:
    """One row per head: its costs in both kinds of problem, and whether they differ."""
    known = np.isfinite(costs).all(axis=1)
    some, others = costs[known & needing], costs[known & ~needing]
    test: Any = ttest_ind(some, others, equal_var=False, alternative="greater")
    both: Any = ttest_ind(some, others, equal_var=False).confidence_interval()
    return pd.DataFrame(
        {
            "cost_needing": some.mean(axis=0),
            "cost_others": others.mean(axis=0),
            "difference": some.mean(axis=0) - others.mean(axis=0),
            "difference_low": both.low,
            "difference_high": both.high,
            "p": np.nan_to_num(test.pvalue, nan=1.0),
        }
    )


def _rho(a: Float[np.ndarray, " head"], b: Float[np.ndarray, " head"]) -> float:
    return float(rank_correlations(a[None], b[None], np.zeros(len(a), dtype=int))[0])


def _at_needed(scores: xr.DataArray, truth: xr.DataArray, place: int) -> Float[np.ndarray, " head"]:
    """Each head's mean score at the needed edges of a query, heads in the order of layers."""
    needed = truth.isel(query=place)
    values = scores.isel(query=place).sel(problem=truth["problem"].values)
    at = values.where(needed > 0).mean(("problem", "key"))
    return np.nan_to_num(at.values.astype(float).ravel(), nan=-np.inf)
