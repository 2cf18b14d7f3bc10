"""Estimated effects of cutting edges between thoughts, from gradients through all thoughts.

Every head gets a gate g on each weight A[query, key] of its attention to an earlier thought: with
the gate the row moves from what it is towards what it would be with the edge knocked out. The
derivative of the clean number's log-probability by all gates takes one backward pass through the
thought loop. At g = 0 it is attribution patching on edges. Its mean while all gates open together,
and all their weight goes to what is no earlier thought, is integrated gradients, whose values sum
to the effect of cutting every edge. Where the weight goes nowhere it is attention times gradient.

Sources: Syed et al. 2023, "Attribution patching outperforms automated circuit discovery" (edges);
Sundararajan et al. 2017 (integrated gradients); Barkan et al. 2021, "Grad-SAM" (attention times
gradient).
"""

from __future__ import annotations

from typing import Unpack

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange

from codi_lens.causal.attribution import summarise_attributions, with_gaps
from codi_lens.causal.gates import Weakening
from codi_lens.causal.gradients import Following, check_attributing, gate_attributions
from codi_lens.causal.path import Refining
from codi_lens.errors import InterventionError
from codi_lens.model import CodiModel
from codi_lens.positions import Scope, rank, scope_name, thought_names
from codi_lens.problems.problem import Problems
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.prompts import positions_in
from codi_lens.thinking.ways import check_thoughts


def attribute_edges(
    model: CodiModel,
    problems: Problems,
    queries: Scope = ("thoughts", "answer"),
    *,
    renormalise: bool = True,
    **following: Unpack[Following],
) -> pd.DataFrame:
    """Estimate what `sweep_edges` measures between thoughts, in a few backward passes.

    Args:
        model: the model.
        problems: what to think about.
        queries: positions that attend; the keys are all thoughts before each.
        renormalise: let the rest of the row grow, as it does where an edge is knocked out. Without,
            and at the clean run, it is attention times gradient, with the sign of taking the
            attention away.
        following: `method` "patching" (the gradient at the clean run) or "integrated" (its mean
            while all edges weaken together, so that they sum to the effect of cutting them all);
            `outcome`, `steps`, `tolerance`, `max_steps`, `out`, `problems_at_once`,
            `rows_at_once`, `max_new_tokens`, `progress`, `workers`, `ray_address`.

    Returns:
        One row per edge, all heads together: `query`, `key`, and the columns of
        `summarise_attributions`, in nats (or logits): negative where the clean number would become
        less likely.

    Raises:
        CodiLensError: an unknown method, outcome or position, or no query that sees a thought; see
            `codi_lens.causal.measure.measure`.

    Warns:
        IncompleteAttributionWarning: integrated attributions do not sum to the effect.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> attribute_edges(model, some, "ct2", progress=False)[["query", "key", "n"]].values.tolist()
    [['ct2', 'ct0', 4], ['ct2', 'ct1', 4]]
    """
    found = edge_attributions(model, problems, queries, renormalise=renormalise, **following)
    whole = found.sum(("layer", "head"), skipna=False)
    edges = [
        (str(query), str(key))
        for query in whole["query"].values
        for key in whole["key"].values
        if rank(str(key)) < rank(str(query))
    ]
    values = np.stack([whole.sel(query=query, key=key).values for query, key in edges], axis=1)
    labels = pd.DataFrame(edges, columns=["query", "key"])
    refining = Refining(
        following.get("steps", Refining.steps),
        following.get("tolerance", Refining.tolerance),
        following.get("max_steps", Refining.max_steps),
    )
    return with_gaps(pd.concat([labels, summarise_attributions(values)], axis=1), [found], refining)


def edge_attributions(
    model: CodiModel,
    problems: Problems,
    queries: Scope = ("thoughts", "answer"),
    *,
    renormalise: bool = True,
    **following: Unpack[Following],
) -> xr.DataArray:
    """The attributions behind `attribute_edges`, per problem and head; same arguments.

    Returns:
        Nats (or logits), with dimensions problem, layer, head, query, key. Keys are all thoughts; 0
        where the key does not come before the query. NaN for a problem whose clean answer holds no
        number. Of "integrated" the coordinates `effect`, `gap` and `points` say for each problem
        what cutting every edge comes to, how far the sum is from it, and after how many points.

    Raises:
        CodiLensError: see `attribute_edges`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> edge_attributions(model, some, ["ct2", "answer"], progress=False).sizes["key"]
    6
    """
    check_thoughts(model, "edge_attributions")
    problems = problems_for(model, problems)
    check_attributing(following)
    cfg, keys = model.lens.cfg, thought_names(model.config.n_thoughts)
    rows = positions_in(model, queries)
    rows = [name for name in rows if rank(name) > rank(keys[0])]
    if not rows:
        raise InterventionError(
            f"No position of {scope_name(queries)!r} comes after a thought; name later thoughts, "
            "eot or answer."
        )
    goes = "rest" if following.get("method") == "integrated" else "other"
    gates = Weakening(cfg.n_layers, len(keys), goes if renormalise else "nowhere")
    found = gate_attributions(model, problems, gates, rows, **following)
    each = rearrange(found.values, "p query layer (h key) -> p layer h query key", key=len(keys))
    seen = np.array([[rank(key) < rank(query) for key in keys] for query in rows])
    unknown = np.isnan(each).all(axis=(1, 2, 3, 4), keepdims=True)
    return xr.DataArray(
        np.where(seen | unknown, each, 0.0),
        dims=("problem", "layer", "head", "query", "key"),
        coords={
            "problem": [problem.id for problem in problems],
            "layer": range(cfg.n_layers),
            "head": range(cfg.n_heads),
            "query": rows,
            "key": list(keys),
            **{name: ("problem", values[:, 0]) for name, values in found.completeness.items()},
        },
        name="attribution",
    )
