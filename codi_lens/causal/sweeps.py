"""One intervention of a kind at a time, on heads, edges, thoughts or layers; one row for each.

All sweeps share what their interventions cannot change; see `codi_lens.causal.measure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, get_args

import pandas as pd

from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import Comparing, adjusted, compare_interventions
from codi_lens.errors import InterventionError, listed
from codi_lens.head_names import GivenHeads, all_heads, as_heads, head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.edges import knock_out
from codi_lens.interventions.heads import ablate_heads
from codi_lens.interventions.replacements import Mode
from codi_lens.interventions.residual import Component, patch_residual
from codi_lens.interventions.thoughts import ThoughtMode, patch_thoughts
from codi_lens.model import CodiModel
from codi_lens.positions import Scope, rank, scopes_of, thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.plan import Planned
from codi_lens.thinking.prompts import positions_in
from codi_lens.thinking.ways import check_thoughts


def sweep_heads(
    model: CodiModel,
    problems: Problems,
    heads: GivenHeads | None = None,
    out: str | Path | None = None,
    *,
    mode: Mode = "resample",
    at: Scope | Mapping[str, Scope] = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Comparing],
) -> pd.DataFrame:
    """Ablate heads one at a time; one row per scope and head, with its layer, number and name.

    Args:
        model: the model.
        problems: what to think about.
        heads: pairs of layer and head, or names; all by default.
        out: a folder for the outcomes, resumable.
        mode: "resample", "mean" or "zero"; zero is off-distribution.
        at: where, by name; or several such scopes by name, each swept by itself but with the same
            clean runs and donors: `each_position` gives one per position.
        donors: whose values replace the heads'; by default the problems themselves, each with
            another one as its donor, run clean once.
        seed: of donors.
        running: `min_effect` and `only` of `compare_interventions`; `problems_at_once`,
            `rows_at_once`, `max_new_tokens`, `progress`, `workers`, `ray_address`.

    Returns:
        As `summarise`, with `layer`, `head`, `name` and `scope`; `q` and what `matters` are over
        the heads of a scope, so that they do not depend on which others are swept.

    Raises:
        CodiLensError: see `measure`; a head or position that does not exist.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> sweep_heads(model, some, [(1, 7), (0, 2)], progress=False)["name"].tolist()
    ['L1H7', 'L0H2']
    >>> table = sweep_heads(model, some, [(1, 7)], at={"bot": "bot", "late": ["ct4", "ct5"]},
    ...     progress=False)
    >>> table["scope"].tolist()
    ['bot', 'late']
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    heads = all_heads(model.lens.cfg) if heads is None else as_heads(heads)
    prepared = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    scopes = scopes_of(at, model.config.n_thoughts, written=model.config.written)
    pairs = [(name, head) for name in scopes for head in heads]
    arms = [ablate_heads([head], mode, scopes[name], prepared, seed) for name, head in pairs]
    labels = [
        {"layer": head[0], "head": head[1], "name": head_name(head), "scope": name}
        for name, head in pairs
    ]
    return adjusted(_sweep(model, problems, arms, labels, out, **running), "scope")


def sweep_edges(
    model: CodiModel,
    problems: Problems,
    queries: Scope | None = None,
    keys: Scope | None = None,
    out: str | Path | None = None,
    *,
    heads: GivenHeads | None = None,
    seed: int = 0,
    **running: Unpack[Comparing],
) -> pd.DataFrame:
    """Knock out the attention from one named position to another, one pair at a time.

    Args:
        model: the model.
        problems: what to think about.
        queries: positions that attend; by default all but the question.
        keys: positions attended to; by default all but the answer. Only pairs whose key comes
            before the query are cut.
        out: a folder for the outcomes, resumable.
        heads: in these heads only; in all by default.
        seed: of nothing, since statistics are computed and not drawn; for calls that give it.
        running: `min_effect` and `only` of `compare_interventions`; `problems_at_once`,
            `rows_at_once`, `max_new_tokens`, `progress`, `workers`, `ray_address`.

    Returns:
        One row per pair, with `query` and `key`.

    Raises:
        CodiLensError: see `measure`; a position that does not exist.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> table = sweep_edges(model, some, "ct2", ["ct0", "ct1", "ct2"], progress=False)
    >>> table[["query", "key"]].values.tolist()
    [['ct2', 'ct0'], ['ct2', 'ct1']]
    """
    check_seed(seed)
    every = positions_in(model, "all")
    rows = every[1:] if queries is None else positions_in(model, queries)
    columns = every[:-1] if keys is None else positions_in(model, keys)
    pairs = [(query, key) for query in rows for key in columns if rank(key) < rank(query)]
    arms = [knock_out(query, key, heads) for query, key in pairs]
    labels = [{"query": query, "key": key} for query, key in pairs]
    return _sweep(model, problems, arms, labels, out, **running)


def sweep_thoughts(
    model: CodiModel,
    problems: Problems,
    modes: Sequence[ThoughtMode] = get_args(ThoughtMode),
    out: str | Path | None = None,
    *,
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Comparing],
) -> pd.DataFrame:
    """Replace one thought at a time, in every mode; zero and noise are off-distribution.

    Args:
        model: the model.
        problems: what to think about.
        modes: of `codi_lens.interventions.patch_thoughts`.
        out: a folder for the outcomes, resumable.
        donors: whose thoughts are put in; by default those of the problems themselves, each with
            another one as its donor.
        seed: of donors and noise.
        running: `min_effect` and `only` of `compare_interventions`; `problems_at_once`,
            `rows_at_once`, `max_new_tokens`, `progress`, `workers`, `ray_address`.

    Returns:
        One row per thought and mode, with `thought` and `mode`.

    Raises:
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> table = sweep_thoughts(model, some, ["mean"], progress=False)
    >>> table["thought"].tolist()
    ['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5']
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    check_thoughts(model, "sweep_thoughts")
    # Run when a mode first asks for a thought; zero and noise never do.
    prepared = donors_for(model, problems, mode="resample", donors=donors, seed=seed, hook_names=())
    names = thought_names(model.config.n_thoughts)
    modes = listed("modes=", modes, "modes", InterventionError)
    pairs: list[tuple[str, ThoughtMode]] = [(name, mode) for mode in modes for name in names]
    arms = [patch_thoughts(name, mode, prepared, seed) for name, mode in pairs]
    labels = [{"thought": name, "mode": mode} for name, mode in pairs]
    return _sweep(model, problems, arms, labels, out, **running)


def sweep_layers(
    model: CodiModel,
    problems: Problems,
    at: Scope = "thinking",
    out: str | Path | None = None,
    *,
    component: Component = "resid_pre",
    mode: Mode = "resample",
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Comparing],
) -> pd.DataFrame:
    """Replace the residual stream, or what a block adds to it, at one layer and position at a time.

    Args:
        model: the model.
        problems: what to think about.
        at: positions, each patched by itself.
        out: a folder for the outcomes, resumable.
        component: "resid_pre", "resid_post", "mlp_out" or "attn_out".
        mode: "resample", "mean" or "zero".
        donors: whose activations are put in; by default those of the problems themselves, each
            with another one as its donor.
        seed: of donors.
        running: `min_effect` and `only` of `compare_interventions`; `problems_at_once`,
            `rows_at_once`, `max_new_tokens`, `progress`, `workers`, `ray_address`.

    Returns:
        One row per layer and position, with `layer` and `position`.

    Raises:
        CodiLensError: see `measure`; a position that does not exist.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> table = sweep_layers(model, some, "ct2", progress=False)
    >>> table[["layer", "position"]].values.tolist()
    [[0, 'ct2'], [1, 'ct2'], [2, 'ct2']]
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    positions = positions_in(model, at)
    layers = range(model.lens.cfg.n_layers)
    hooks = [f"blocks.{layer}.hook_{component}" for layer in layers]
    prepared = donors_for(model, problems, mode=mode, donors=donors, seed=seed, hook_names=hooks)
    pairs = [(layer, position) for layer in layers for position in positions]
    arms = [
        patch_residual(layer, position, mode, component, prepared, seed)
        for layer, position in pairs
    ]
    labels = [{"layer": layer, "position": position} for layer, position in pairs]
    return _sweep(model, problems, arms, labels, out, **running)


def _sweep(
    model: CodiModel,
    problems: Problems,
    arms: Sequence[Planned],
    labels: Sequence[Mapping[str, Any]],
    out: str | Path | None,
    **running: Unpack[Comparing],
) -> pd.DataFrame:
    """The effects of arms that are named by their interventions, beside their labels."""
    named = {arm.name: arm for arm in arms}
    if len(named) < len(arms):
        raise InterventionError("A sweep was given the same intervention twice; give each once.")
    table = compare_interventions(model, problems, named, out, **running)
    return pd.concat([table[["arm"]], pd.DataFrame(labels), table.drop(columns="arm")], axis=1)
