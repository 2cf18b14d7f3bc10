"""Every score by which someone might claim that one position reads another.

Each is a number per problem and edge; those of heads are also there per head. Scores of attention
read the answer's edges in the row `anchor`, whose token gives the answer's number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import xarray as xr

from codi_lens import metrics
from codi_lens.attention.extract import extract
from codi_lens.attention.labels import labelled
from codi_lens.attention.streaming import Source
from codi_lens.attention.views import n_thoughts_of
from codi_lens.causal.controls import donors_for
from codi_lens.causal.edge_attribution import edge_attributions
from codi_lens.causal.edge_costs import costs_of, edge_costs, on_edges
from codi_lens.causal.gradients import Following
from codi_lens.causal.measure import Running, decoding, measure
from codi_lens.causal.references import candidate_edges
from codi_lens.errors import as_path
from codi_lens.interventions.thoughts import patch_thoughts
from codi_lens.model import CodiModel
from codi_lens.positions import rank, thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problem, Problems
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts

GRADIENTS: dict[str, tuple[Following, bool]] = {
    "attention × gradient": ({"method": "patching"}, False),
    "attribution patching": ({"method": "patching"}, True),
    "integrated gradients": ({"method": "integrated", "max_steps": 128}, True),
}
"""How each attribution is made, and whether the row is renormalised."""
_SIZE = "size of "


def head_edge_scores(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    source: Source | None = None,
    **running: Unpack[Running],
) -> dict[str, xr.DataArray]:
    """The scores that every head has, of each edge between thoughts and from the answer.

    "attention" is the attention weight; "attention - null" that minus an even spread of what the
    query gives to earlier thoughts; "value-weighted attention" the share of what is written (see
    `value_weighted_attention`). "attention × gradient", "attribution patching" and "integrated
    gradients" are minus `edge_attributions`: the more an edge is needed, the higher. Each is
    there by its size alone too ("size of …"), as Syed et al. 2023 rank edges.

    Args:
        model: the model.
        problems: what to think about.
        out: a folder for the attributions, resumable.
        source: see `extract`; with value-weighted attention.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        By name, arrays with dimensions problem, layer, head, query, key; NaN where the key does
        not come before the query, and of attributions for a problem without a number in its answer.
        Along the problems `correct`, 1 or 0.

    Raises:
        CodiLensError: see `extract` and `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(2)
    >>> list(head_edge_scores(model, some, progress=False))[:3]
    ['attention', 'attention - null', 'value-weighted attention']
    """
    check_thoughts(model, "head_edge_scores")
    problems = problems_for(model, problems)
    attention = extract(model, problems, value_weighted=True, source=source, **decoding(running))
    scores = attention_scores(attention)
    for name, (following, renormalise) in GRADIENTS.items():
        folder = None if out is None else as_path("out", out) / name.replace(" × ", "_")
        options: Any = {**following, **running, "out": folder}
        found = edge_attributions(model, problems, renormalise=renormalise, **options)
        found = -found.where(scores["attention"].notnull())
        scores |= {name: found, f"{_SIZE}{name}": abs(found)}
    correct = ("problem", attention["correct"].values)
    return {
        name: each.reset_coords(drop=True).assign_coords(correct=correct)
        for name, each in scores.items()
    }


def attention_scores(attention: xr.DataArray) -> dict[str, xr.DataArray]:
    """The scores of `head_edge_scores` that need attention alone.

    Args:
        attention: of `extract`; "value-weighted attention" is there if it holds it.
    """
    attention = labelled(attention)
    plain = _between_thoughts(attention)
    n_seen = plain.notnull().sum("key")
    scores = {"attention": plain, "attention - null": plain - plain.sum("key") / n_seen}
    if "value_weighted" in attention.coords:
        weighted = attention["value_weighted"].drop_vars("value_weighted", errors="ignore")
        scores["value-weighted attention"] = _between_thoughts(weighted)
    return scores


def edge_scores(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    by_head: dict[str, xr.DataArray] | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> dict[str, xr.DataArray]:
    """All scores of each edge, all heads together.

    Those of `head_edge_scores`: attention averaged over heads, and its largest value in any head;
    attributions summed over them. "sequential", "skip" and "hub" are what the study's numbers claim
    of an edge: attention to the thought just before, attention of the last thought to the first
    half, and the mean attention that the key gets from all thoughts, each averaged over heads and 0
    for any other edge. "resampled thought" is what another problem's thought in the place of the
    key costs, whoever reads it; "knockout" what cutting the edge costs.

    Args:
        model: the model.
        problems: what to think about.
        out: a folder for the outcomes of interventions, resumable.
        by_head: of `head_edge_scores`, where it is there already.
        seed: of the donors of resampled thoughts.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        By name, arrays with dimensions problem, query, key, as of `edge_costs`.

    Raises:
        CodiLensError: see `extract` and `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("tiny-gpt2"), word_problems(2)
    >>> list(edge_scores(model, some, progress=False))[-3:]
    ['hub', 'resampled thought', 'knockout']
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    root = None if out is None else as_path("out", out)
    found = by_head or head_edge_scores(model, problems, root, **running)
    heads = ("layer", "head")
    scores: dict[str, xr.DataArray] = {}
    for name, each in found.items():
        attributed = name.removeprefix(_SIZE) in GRADIENTS
        scores[name] = (each.sum if attributed else each.mean)(heads, skipna=False)
        if name == "attention":
            scores["attention of the strongest head"] = each.max(heads, skipna=False)
    scores |= _claims_of_the_study(scores["attention"])
    resampled, knockout = (root and root / name for name in ("resampled", "knockout"))
    scores["resampled thought"] = _resampled(model, problems, resampled, seed, **running)
    scores["knockout"] = edge_costs(model, problems, knockout, only="all", **running)
    return scores


def _between_thoughts(attention: xr.DataArray) -> xr.DataArray:
    """The rows of later thoughts and of the anchor, over earlier thoughts."""
    names = list(thought_names(n_thoughts_of(attention)))
    part = attention.sel(query=[*names[1:], "anchor"], key=names)
    queries = [*names[1:], "answer"]
    seen = xr.DataArray(
        [[rank(key) < rank(query) for key in names] for query in queries],
        dims=("query", "key"),
        coords={"query": queries, "key": names},
    )
    return part.assign_coords(query=queries).where(seen)


def _claims_of_the_study(attention: xr.DataArray) -> dict[str, xr.DataArray]:
    thoughts = attention["key"].values.tolist()
    block = attention.reindex(query=thoughts).fillna(0.0).values
    hub = metrics.incoming_attention(block) / len(thoughts)
    early = thoughts[: len(thoughts) // 2]
    seen = attention.notnull()
    sequential, skip = xr.zeros_like(attention), xr.zeros_like(attention)
    for query, key in zip(thoughts[1:], thoughts, strict=False):
        sequential.loc[{"query": query, "key": key}] = attention.sel(query=query, key=key)
    place = {"query": thoughts[-1], "key": early}
    skip.loc[place] = attention.sel(place)
    hubs = xr.zeros_like(attention) + xr.DataArray(
        hub, dims=("problem", "key"), coords={"problem": attention["problem"], "key": thoughts}
    )
    claims = {"sequential": sequential, "skip": skip, "hub": hubs}
    return {name: each.where(seen) for name, each in claims.items()}


def _resampled(
    model: CodiModel,
    problems: Sequence[Problem],
    out: Path | None,
    seed: int,
    **running: Unpack[Running],
) -> xr.DataArray:
    donors = donors_for(model, problems, mode="resample", donors=None, seed=seed, hook_names=())
    names = thought_names(model.config.n_thoughts)
    arms = {name: patch_thoughts(name, "resample", donors, seed) for name in names}
    outcomes = measure(model, problems, arms, out, **running)
    edges = candidate_edges(len(names))
    return on_edges(costs_of(outcomes)[[key for _, key in edges]], edges)
