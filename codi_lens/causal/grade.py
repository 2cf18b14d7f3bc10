"""Which scores find the edges that problems are known to need, and which heads serve them.

A score is graded like a search: among all edges between the thoughts and from the answer, does it
put those that the problem needs, and the model was shown to use, before the others? (The edge by
which the answer reads the total before the last step is left out: see `graded_edges`.) A score that
always points at the same place does so too where it happens to be right, so it has to find the
edges of this problem better than those of another one ("shuffled"), and better in this model than
in one that learnt the same task with constant thoughts ("control").
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Float

from codi_lens.attention.streaming import Source
from codi_lens.causal.edge_costs import costs_by_reference, edge_costs
from codi_lens.causal.edge_scores import edge_scores, head_edge_scores
from codi_lens.causal.means import mean_of
from codi_lens.causal.measure import Running
from codi_lens.causal.recovery import recovery
from codi_lens.causal.references import (
    graded_edges,
    referring,
    truth_of,
    used_references,
)
from codi_lens.causal.served_edges import served_edges
from codi_lens.errors import InterventionError, as_path
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.operations import Reference
from codi_lens.problems.problem import Problems
from codi_lens.problems.words import WordProblem, word_problems
from codi_lens.stats import percentile_interval, resample_weights
from codi_lens.thinking.ways import check_thoughts

_SHUFFLES = 10
_RESAMPLES = 200
_MEASURED_ON = 400
_SPLIT_SEED = 1_000_000


@dataclass(frozen=True, eq=False)
class Grade:
    """How well scores find known edges.

    Attributes:
        scores: one row per score: see `grade`.
        costs: what cutting each edge costs the graded problems, by kind of reference: see
            `costs_by_reference`.
        heads: for every query and score the head that it ranks first: see `served_edges`.
        used: the kinds of reference whose edge is graded.
        shown: whether the model was shown to use these; if it uses none, all are graded.
        n: how many problems are graded.
        n_wrong: how many were left out because the model answers them wrong.
    """

    scores: pd.DataFrame
    costs: pd.DataFrame
    heads: pd.DataFrame
    used: frozenset[Reference]
    shown: bool
    n: int
    n_wrong: int


def grade(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    control: CodiModel | None = None,
    used: Iterable[Reference] | None = None,
    source: Source | None = None,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> Grade:
    """Grade every score by the edges that problems are known to need.

    Args:
        model: the model.
        problems: of `word_problems` of a family that refers back; graded where it answers right.
        out: a folder for the outcomes of interventions, resumable.
        control: a model that learnt the same task with constant thoughts; scored on the same
            problems, right or wrong.
        used: the kinds of reference whose edge the model was shown to use. By default they are
            measured first, on 400 other problems (family "mixed", of the training split): see
            `costs_by_reference`. Where none is used, all are graded and `shown` is False.
        source: see `head_edge_scores`.
        level: of the intervals.
        seed: of the other problems, donors, shuffles and the bootstrap.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        `scores` has one row per score of `edge_scores`: `auroc` and `average_precision` of the
        needed edges among all, mean over problems with intervals `_low`, `_high` (see `mean_test`);
        `pooled_auroc` and `pooled_average_precision` over all edges of all problems, with
        percentile intervals over resampled problems; `shuffled_auroc`, of the edges of another
        problem with as many operations, and `beyond_shuffled`, the paired difference, with
        intervals; with a control `control_auroc`, and `beyond_control`, likewise;
        `chance_average_precision`, of a random order. `n` problems.

    Raises:
        ProblemError: problems that need no edge, or more thoughts than the model has.
        InterventionError: no problem that the model answers right, or a control with another
            number of thoughts.
        CodiLensError: see `measure`.

    >>> model = CodiModel.from_pretrained("tiny-recall")
    >>> some = word_problems(6, family="mixed", n_operations=3)
    >>> found = grade(model, some, used=[Reference(3, 3, 1)], progress=False)
    >>> found.n, found.scores.loc[found.scores["auroc"].idxmax(), "score"]
    (6, 'attention of the strongest head')
    """
    check_thoughts(model, "grade")
    check_seed(seed)
    n_thoughts = model.config.n_thoughts
    chosen = referring(problems, n_thoughts)
    if control is not None and control.config.n_thoughts != n_thoughts:
        raise InterventionError(
            f"The control has {control.config.n_thoughts} thoughts and the model {n_thoughts}; "
            "give one with as many."
        )
    root = None if out is None else as_path("out", out)
    kinds = _measured(model, root, seed, **running) if used is None else frozenset(used)
    shown = bool(kinds)
    kinds = kinds or frozenset(each for problem in chosen for each in problem.references)
    needing = [problem for problem in chosen if kinds.intersection(problem.references)]
    if not needing:
        raise InterventionError(
            "None of these problems needs an edge that the model was shown to use; give others."
        )
    attributions = root and root / "attributions"
    by_head = head_edge_scores(model, needing, attributions, source=source, **running)
    right = by_head["attention"]["correct"].values == 1
    if shown:
        needing = [problem for problem, each in zip(needing, right, strict=True) if each]
    if not needing:
        raise InterventionError(
            "The model answers none of these problems right, so there is nothing to grade; give "
            "others."
        )
    by_head = {name: each.sel(problem=[p.id for p in needing]) for name, each in by_head.items()}
    folders = {name: root and root / name for name in ("scores", "control", "heads")}
    scores = edge_scores(model, needing, folders["scores"], by_head=by_head, seed=seed, **running)
    truth = truth_of(needing, kinds, scores["knockout"])
    others = None
    if control is not None:
        others = edge_scores(control, needing, folders["control"], seed=seed, **running)
    table = grade_scores(scores, truth, needing, control=others, level=level, seed=seed)
    heads = served_edges(model, needing, by_head, truth, folders["heads"], seed=seed, **running)
    n_wrong = int((~right).sum()) if shown else 0
    costs = costs_by_reference(scores["knockout"], needing)
    return Grade(table, costs, heads, kinds, shown, len(needing), n_wrong)


def grade_scores(
    scores: Mapping[str, xr.DataArray],
    truth: xr.DataArray,
    problems: Sequence[WordProblem],
    *,
    control: Mapping[str, xr.DataArray] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How well scores find the needed edges: the table `scores` of `grade`.

    Args:
        scores: by name, arrays [problem, query, key]; the higher, the more an edge is claimed. NaN
            where there is no edge; an edge without a score counts as claimed least.
        truth: 1 where a problem needs the edge, 0 elsewhere.
        problems: those of the truth, in its order.
        control: the same scores of another model.
        level: of the intervals.
        seed: of the shuffles and the bootstrap.

    >>> some = word_problems(30, family="mixed")
    >>> edges = xr.DataArray(
    ...     np.zeros((30, 6, 6)), dims=("problem", "query", "key"),
    ...     coords={"problem": [each.id for each in some],
    ...             "query": ["ct1", "ct2", "ct3", "ct4", "ct5", "answer"],
    ...             "key": ["ct0", "ct1", "ct2", "ct3", "ct4", "ct5"]})
    >>> truth = truth_of(some, {r for each in some for r in each.references}, edges)
    >>> float(grade_scores({"perfect": truth}, truth, some)["auroc"].item())
    1.0
    """
    labels = _on_candidates(truth, problems)
    wrong = [_shuffled(truth, problems, seed + turn) for turn in range(_SHUFFLES)]
    shuffled = [_on_candidates(each, problems) for each in wrong]
    rows: list[dict[str, Any]] = []
    for name, each in scores.items():
        values = _on_candidates(each, problems)
        found, precise = _per_problem(labels, values)
        elsewhere = np.mean([_per_problem(each, values)[0] for each in shuffled], axis=0)
        row: dict[str, Any] = {"score": name, "n": len(labels)}
        row |= _mean("auroc", found, level)
        row |= _mean("average_precision", precise, level)
        row |= _pooled(labels, values, level, seed)
        row |= _mean("shuffled_auroc", elsewhere, level)
        row |= _mean("beyond_shuffled", found - elsewhere, level)
        if control is not None:
            against, _ = _per_problem(labels, _on_candidates(control[name], problems))
            row |= _mean("control_auroc", against, level)
            row |= _mean("beyond_control", found - against, level)
        row["chance_average_precision"] = float(labels.mean())
        rows.append(row)
    return pd.DataFrame(rows)


def _measured(
    model: CodiModel, root: Path | None, seed: int, **running: Unpack[Running]
) -> frozenset[Reference]:
    """The kinds of reference whose edge the model uses, in problems that are not graded."""
    others = word_problems(_MEASURED_ON, family="mixed", split="train", seed=_SPLIT_SEED + seed)
    costs = edge_costs(model, others, root and root / "used", **running)
    return used_references(costs_by_reference(costs, others))


def _on_candidates(
    values: xr.DataArray, problems: Sequence[WordProblem]
) -> Float[np.ndarray, "problem edge"]:
    """The values of each problem's graded edges; the least of all for one without a value."""
    values = values.sel(problem=[problem.id for problem in problems])
    queries, keys = ([str(name) for name in values[axis].values] for axis in ("query", "key"))
    places = [
        [(queries.index(query), keys.index(key)) for query, key in graded_edges(problem, len(keys))]
        for problem in problems
    ]
    rows, columns = np.moveaxis(np.array(places), -1, 0)
    cells = values.transpose("problem", "query", "key").values
    found = cells[np.arange(len(cells))[:, None], rows, columns]
    known = found[np.isfinite(found)]
    lowest = known.min() - 1.0 if known.size else 0.0
    return np.where(np.isfinite(found), found, lowest).astype(float)


def _per_problem(
    labels: Float[np.ndarray, "problem edge"], values: Float[np.ndarray, "problem edge"]
) -> Float[np.ndarray, "measure problem"]:
    """The area under each problem's ROC curve, and its average precision."""
    return np.array([recovery(*each) for each in zip(labels, values, strict=True)]).T


def _shuffled(truth: xr.DataArray, problems: Sequence[WordProblem], seed: int) -> xr.DataArray:
    """For each problem the edges of another one with as many operations."""
    draw = random.Random(f"codi_lens shuffled edges {seed}")
    donors = list(range(len(problems)))
    for length in sorted({len(problem.operations) for problem in problems}):
        places = [i for i, each in enumerate(problems) if len(each.operations) == length]
        turned = draw.sample(places, len(places))
        for place, donor in zip(turned, [*turned[1:], turned[0]], strict=True):
            donors[place] = donor
    return truth.copy(data=truth.values[donors])


def _mean(name: str, values: Float[np.ndarray, " problem"], level: float) -> dict[str, float]:
    # Equal numbers whose means differ in their last bits are equal.
    return mean_of(name, values.round(12), level)


def _pooled(
    labels: Float[np.ndarray, "problem edge"],
    values: Float[np.ndarray, "problem edge"],
    level: float,
    seed: int,
) -> dict[str, float]:
    """Over all edges of all problems, with intervals over resampled problems."""
    weights = resample_weights(len(labels), n_resamples=_RESAMPLES, seed=seed)
    every, value = (rearrange(it, "problem edge -> (problem edge)") for it in (labels, values))
    repeated = (np.repeat(each, labels.shape[1]).astype(float) for each in weights)
    low, high = percentile_interval(
        np.array([recovery(every, value, each) for each in repeated]), level=level
    )
    row: dict[str, float] = {}
    for i, found in enumerate(recovery(every, value)):
        name = ("pooled_auroc", "pooled_average_precision")[i]
        row |= {name: found, f"{name}_low": float(low[i]), f"{name}_high": float(high[i])}
    return row
