"""What cutting the edges between thoughts costs: each, and the known ones against others."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool

from codi_lens.causal.means import MIN_EFFECT, mean_of, mean_test
from codi_lens.causal.measure import Running, measure
from codi_lens.causal.references import candidate_edges, referring
from codi_lens.causal.strata import CLEAN, Only
from codi_lens.interventions.edges import knock_out
from codi_lens.interventions.own_edges import Edge, knock_out_each
from codi_lens.model import CodiModel
from codi_lens.positions import rank
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.problems.words import WordProblem
from codi_lens.stats import benjamini_hochberg
from codi_lens.thinking.ways import check_thoughts

_SIGNIFICANT = 0.05


def edge_costs(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    only: Only = "right",
    **running: Unpack[Running],
) -> xr.DataArray:
    """What cutting each edge between thoughts costs each problem, in all heads at once.

    Args:
        model: the model.
        problems: what to think about.
        out: a folder for the outcomes, resumable.
        only: "all" problems, or those whose clean answer is "right", or "wrong".
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        Nats by which the clean number becomes less likely, with dimensions problem, query, key; NaN
        where the key does not come before the query.

    Raises:
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> costs = edge_costs(model, some, progress=False)
    >>> dict(costs.sizes), bool((costs.sel(query="answer").max("key") > 1).any())
    ({'problem': 4, 'query': 6, 'key': 6}, True)
    """
    check_thoughts(model, "edge_costs")
    edges = candidate_edges(model.config.n_thoughts)
    arms = {f"{query}→{key}": knock_out(query, key) for query, key in edges}
    outcomes = measure(model, problems, arms, out, only=only, **running)
    return on_edges(costs_of(outcomes), edges)


def costs_of(outcomes: pd.DataFrame) -> pd.DataFrame:
    """What each arm costs each problem, in nats.

    Args:
        outcomes: of `measure`.

    Returns:
        One row per problem and one column per arm, in their orders.
    """
    by_arm = outcomes.pivot(index="problem", columns="arm", values="log_prob")
    arms = [arm for arm in outcomes["arm"].unique() if arm != CLEAN]
    return -by_arm[arms].sub(by_arm[CLEAN], axis=0).loc[outcomes["problem"].unique()]


def on_edges(values: pd.DataFrame, edges: Sequence[Edge]) -> xr.DataArray:
    """A column for each edge as an array of queries and keys; NaN elsewhere."""
    queries = list(dict.fromkeys(query for query, _ in edges))
    keys = sorted({key for _, key in edges}, key=rank)
    found = np.full((len(values), len(queries), len(keys)), np.nan)
    for place, (query, key) in enumerate(edges):
        found[:, queries.index(query), keys.index(key)] = values.iloc[:, place]
    coords = {"problem": list(values.index), "query": queries, "key": keys}
    return xr.DataArray(found, dims=("problem", "query", "key"), coords=coords, name="cost")


def costs_by_reference(costs: xr.DataArray, problems: Problems) -> pd.DataFrame:
    """What cutting each edge costs the problems with each kind of reference.

    Args:
        costs: of `edge_costs`.
        problems: those problems, of a family that refers back; costs of some of them suffice.

    Returns:
        One row per kind of reference and edge: `n_operations`, `step`, `refers_to`, `query`, `key`;
        `known`, whether the reference needs this edge; `n` problems with costs, of whose other
        references none needs it; `cost` in nats with its interval `_low`,
        `_high`, and `p` (see `mean_test`); `q` over the known edges (Benjamini-Hochberg) that the
        cost is at most 0.1 nats; `used`, whether that is rejected (q < 0.05).

    Raises:
        ProblemError: problems without a reference.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("tiny-recall")
    >>> some = word_problems(12, family="mixed", n_operations=3)
    >>> table = costs_by_reference(edge_costs(model, some, progress=False), some)
    >>> table.loc[table["known"], ["query", "key", "used"]].values.tolist()
    [['answer', 'ct0', True]]
    """
    chosen = referring(problems, costs.sizes["key"])
    kinds = sorted({each for problem in chosen for each in problem.references})
    edges = candidate_edges(costs.sizes["key"])
    rows: list[dict[str, Any]] = []
    for kind in kinds:
        having = [problem for problem in chosen if kind in problem.references]
        for query, key in edges:
            known = kind.edge == (query, key)
            ids = [each.id for each in having if known or (query, key) not in each.edges]
            values = costs.sel(query=query, key=key).reindex(problem=ids).values
            values = values[np.isfinite(values)]
            if not len(values):
                continue
            found = mean_test(values, beyond=MIN_EFFECT)
            rows.append(
                {"n_operations": kind.n_operations, "step": kind.step, "refers_to": kind.refers_to}
                | {"query": query, "key": key, "known": known, "n": len(values)}
                | mean_of("cost", values)
                | {"p": float(found.p)}
                | {"beyond_p": float(found.beyond_p) if found.mean > 0 else 1.0}
            )
    table = pd.DataFrame(rows)
    known = table["known"].to_numpy(dtype=bool)
    q = np.full(len(table), np.nan)
    q[known] = benjamini_hochberg(table.loc[known, "beyond_p"].to_numpy(dtype=float))
    table["q"] = q
    table["used"] = known & (q < _SIGNIFICANT)
    return table.drop(columns="beyond_p")


def known_against_others(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Cut the edges that each problem is known to need, against as many others.

    The others are drawn among all edges between thoughts that the problem does not need.

    Args:
        model: the model.
        problems: of a family that refers back.
        out: a folder for the outcomes, resumable.
        level: of the intervals.
        seed: of the other edges.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row for all problems, and for those with so many operations, with one reference so many
        steps back, and with two references: `by`, `group`; `n` problems that the model answers
        right; `known`, `others` and `difference` (paired), mean costs in nats with intervals `_low`
        and `_high`; `five_low`, the lower end of the interval of known - 5 others, above 0 where
        the known edges cost more than five times as much.

    Raises:
        ProblemError: problems that need no edge.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("tiny-recall")
    >>> table = known_against_others(model, word_problems(12, family="mixed"), progress=False)
    >>> table["group"].iloc[0], bool(table["known_low"].iloc[0] > 1)
    ('all', True)
    """
    check_thoughts(model, "known_against_others")
    check_seed(seed)
    chosen = referring(problems, model.config.n_thoughts)
    every = candidate_edges(model.config.n_thoughts)
    arms = {
        "known": knock_out_each({each.id: each.edges for each in chosen}, "cut known edges"),
        "others": knock_out_each(
            {each.id: _others(each, every, seed) for each in chosen}, "cut other edges"
        ),
    }
    costs = costs_of(measure(model, chosen, arms, out, only="right", **running))
    chosen = [problem for problem in chosen if problem.id in costs.index]
    rows: list[dict[str, Any]] = []
    for by, group, member in _groups(chosen):
        part = costs.to_numpy(dtype=float)[member]
        known, others = part[np.isfinite(part).all(axis=1)].T
        row: dict[str, Any] = {"by": by, "group": group, "n": len(known)}
        row |= mean_of("known", known, level) | mean_of("others", others, level)
        row |= mean_of("difference", known - others, level)
        rows.append(row | {"five_low": mean_of("five", known - 5 * others, level)["five_low"]})
    return pd.DataFrame(rows)


def _others(problem: WordProblem, every: Iterable[Edge], seed: int) -> list[Edge]:
    free = [edge for edge in every if edge not in problem.edges]
    draw = random.Random(f"codi_lens other edges {seed} {problem.id}")
    return draw.sample(free, min(len(free), len(problem.edges)))


def _groups(
    problems: Sequence[WordProblem],
) -> list[tuple[str, str, Bool[np.ndarray, " problem"]]]:
    """Which problems belong to each row of the table."""
    lengths = [len(problem.operations) for problem in problems]
    back = [
        f"{found[0].step - found[0].refers_to} back" if len(found) == 1 else "two references"
        for found in (problem.references for problem in problems)
    ]
    groups = [("all", "all", np.ones(len(problems), dtype=bool))]
    for by, labels in (("operations", lengths), ("distance", back)):
        for label in sorted(set(labels), key=str):
            groups.append((by, str(label), np.array([each == label for each in labels])))
    return groups
