"""Estimated effects of replacing heads and thoughts, from gradients through all thoughts.

Every head (or thought) gets a gate g: its output x becomes x + g (replacement - x). At g = 0 the
run is clean, at g = 1 it is the ablated one. The derivative of the clean number's log-probability
by all gates at once takes one backward pass through the thought loop. At g = 0 it is attribution
patching: gradient times (replacement - clean). Its mean over gates that open together from 0 to 1
is integrated gradients, whose values sum to the effect of replacing everything that was opened;
the path is refined until they do (`codi_lens.causal.path`).

Sources: Sundararajan et al. 2017, "Axiomatic attribution for deep networks"; Nanda 2023,
"Attribution patching"; Syed et al. 2023, "Attribution patching outperforms automated circuit
discovery".
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack, get_args

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Float

from codi_lens.causal.controls import donors_for, head_hooks
from codi_lens.causal.gradients import Attributing, Method, replacement_attributions
from codi_lens.causal.means import mean_test
from codi_lens.causal.measure import Running
from codi_lens.causal.outcomes import Outcome
from codi_lens.causal.path import Refining
from codi_lens.errors import as_path
from codi_lens.head_names import head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode
from codi_lens.interventions.thoughts import thoughts_of
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.stats import benjamini_hochberg
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.prompts import positions_in
from codi_lens.thinking.ways import check_thoughts


class IncompleteAttributionWarning(UserWarning):
    """Integrated gradients do not sum to the effect that they divide among heads or thoughts."""


def attribute_heads(
    model: CodiModel,
    problems: Problems,
    *,
    method: Method = "patching",
    outcome: Outcome = "log_prob",
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    steps: int = Refining.steps,
    tolerance: float = Refining.tolerance,
    max_steps: int = Refining.max_steps,
    seed: int = 0,
    out: str | Path | None = None,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Estimate what `sweep_heads` measures, for all heads in a few backward passes.

    Where the clean answer is all but certain, the gradient of its log-probability is nearly 0:
    "patching" then says little. The logit difference does not saturate so.

    Args:
        model: the model.
        problems: what to think about.
        method: "patching", the gradient at the clean run; or "integrated", its mean while all
            heads are replaced together, so that all heads sum to the effect of replacing them all.
        outcome: "log_prob" (`effect` in `sweep_heads`) or "logit_difference" (`logit_effect`).
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values replace the heads'; by default the problems themselves.
        steps, tolerance, max_steps: of "integrated", how finely it follows its path; see
            `codi_lens.causal.path.Refining`.
        seed: of donors.
        out: a folder for the attributions of every problem, resumable.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per head: `layer`, `head`, `name`, and the columns of `summarise_attributions`.
        `attribution` has the sign and the unit of the effect: nats (or logits), negative where
        the clean number would become less likely.

    Raises:
        CodiLensError: an unknown method, outcome, mode or position; see
            `codi_lens.causal.measure.measure`.

    Warns:
        IncompleteAttributionWarning: after `max_steps` points the attributions of a problem do not
            sum to the effect, so that they should not rank heads.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> table = attribute_heads(model, some, mode="zero", progress=False)
    >>> table.loc[table["attribution"].idxmin(), "name"]
    'L1H7'
    """
    check_seed(seed)
    values = head_attributions(
        model,
        problems,
        method=method,
        outcome=outcome,
        mode=mode,
        at=at,
        donors=donors,
        steps=steps,
        tolerance=tolerance,
        max_steps=max_steps,
        seed=seed,
        out=out,
        **running,
    )
    heads = [(int(layer), int(head)) for layer in values["layer"] for head in values["head"]]
    labels = pd.DataFrame(heads, columns=["layer", "head"])
    labels["name"] = [head_name(head) for head in heads]
    whole = rearrange(values.sum("position", skipna=False).values, "p layer head -> p (layer head)")
    table = pd.concat([labels, summarise_attributions(whole)], axis=1)
    return with_gaps(table, [values], Refining(steps, tolerance, max_steps))


def attribute_thoughts(
    model: CodiModel,
    problems: Problems,
    modes: Sequence[Mode] = get_args(Mode),
    *,
    method: Method = "patching",
    outcome: Outcome = "log_prob",
    donors: Donors | None = None,
    steps: int = Refining.steps,
    tolerance: float = Refining.tolerance,
    max_steps: int = Refining.max_steps,
    seed: int = 0,
    out: str | Path | None = None,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Estimate what `sweep_thoughts` measures: the effect of replacing each thought as it enters.

    Args:
        model: the model.
        problems: what to think about.
        modes: "resample", "mean" or "zero".
        method: "patching", the gradient at the clean run; or "integrated", its mean while that
            thought alone is replaced and the later ones follow, which converges to the effect.
        outcome: "log_prob" (`effect` in `sweep_thoughts`) or "logit_difference" (`logit_effect`).
        donors: whose thoughts are put in; by default those of the problems themselves.
        steps, tolerance, max_steps: of "integrated", how finely it follows its path; see
            `codi_lens.causal.path.Refining`.
        seed: of donors.
        out: a folder for the attributions of every problem, resumable.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per thought and mode: `thought`, `mode`, and the columns of
        `summarise_attributions`, whose q-values are over all rows, as in `sweep_thoughts`.

    Raises:
        CodiLensError: an unknown method, outcome or mode; see `codi_lens.causal.measure.measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> attribute_thoughts(model, some, ["mean"], progress=False)["thought"].tolist()
    ['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5']
    """
    check_thoughts(model, "attribute_thoughts")
    check_seed(seed)
    problems = problems_for(model, problems)
    donors = donors_for(model, problems, mode="resample", donors=donors, seed=seed, hook_names=())
    refining = Refining(steps, tolerance, max_steps)
    shared: Attributing = {"method": method, "outcome": outcome, "donors": donors}
    shared |= {"steps": steps, "tolerance": tolerance, "max_steps": max_steps}
    shared |= {"seed": seed, **running}
    values = [
        thought_attributions(
            model,
            problems,
            **(shared | {"mode": mode, "out": None if out is None else as_path("out", out) / mode}),
        )
        for mode in modes
    ]
    labels = [
        {"thought": str(name), "mode": mode}
        for mode, found in zip(modes, values, strict=True)
        for name in found["thought"].values
    ]
    together = np.concatenate([found.values for found in values], axis=1)
    summary = summarise_attributions(together)
    return with_gaps(pd.concat([pd.DataFrame(labels), summary], axis=1), values, refining)


def head_attributions(
    model: CodiModel,
    problems: Problems,
    at: Scope = "thinking",
    **attributing: Unpack[Attributing],
) -> xr.DataArray:
    """The attributions behind `attribute_heads`, per problem and position; same arguments.

    Returns:
        Nats, with dimensions problem, layer, head, position. Summed over positions they estimate
        the effect of replacing the head at all of them. NaN for a problem whose clean answer holds
        no number. Of "integrated" the coordinates `effect`, `gap` and `points` say for each problem
        what replacing all heads together comes to, how far the sum is from it, and after how many
        points of the path.

    Raises:
        CodiLensError: see `attribute_heads`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> head_attributions(model, some, at=["bot", "ct2"], progress=False).shape
    (4, 3, 8, 2)
    """
    problems = problems_for(model, problems)
    cfg = model.lens.cfg
    positions = positions_in(model, at)
    hooks = head_hooks(cfg.n_layers)
    found = replacement_attributions(model, problems, hooks, positions, **attributing)
    whole = {name: ("problem", values[:, 0]) for name, values in found.completeness.items()}
    return xr.DataArray(
        rearrange(found.values, "problem position layer head -> problem layer head position"),
        dims=("problem", "layer", "head", "position"),
        coords={
            "problem": [problem.id for problem in problems],
            "layer": range(cfg.n_layers),
            "head": range(cfg.n_heads),
            "position": positions,
            **whole,
        },
        name="attribution",
    )


def thought_attributions(
    model: CodiModel,
    problems: Problems,
    which: Scope = "thoughts",
    **attributing: Unpack[Attributing],
) -> xr.DataArray:
    """The attributions behind `attribute_thoughts`, per problem, in one mode.

    Arguments are those of `attribute_thoughts`, with one `mode`; `which` names the thoughts.

    Returns:
        Nats, with dimensions problem and thought; NaN for a problem whose clean answer holds no
        number. Of "integrated" the coordinates `effect`, `gap` and `points` are as of
        `head_attributions`, for each thought.

    Raises:
        CodiLensError: see `attribute_thoughts`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> thought_attributions(model, some, method="integrated", steps=2, progress=False).dims
    ('problem', 'thought')
    """
    check_thoughts(model, "thought_attributions")
    problems = problems_for(model, problems)
    names = thoughts_of(which, model.config.n_thoughts)
    found = replacement_attributions(
        model, problems, ["hook_embed"], names, one_by_one=True, **attributing
    )
    each = {name: (("problem", "thought"), values) for name, values in found.completeness.items()}
    return xr.DataArray(
        rearrange(found.values, "problem thought 1 1 -> problem thought"),
        dims=("problem", "thought"),
        coords={"problem": [problem.id for problem in problems], "thought": names, **each},
        name="attribution",
    )


def summarise_attributions(
    values: Float[np.ndarray, "problem unit"], *, level: float = 0.95
) -> pd.DataFrame:
    """The mean attribution of each unit over problems, with the statistics of `summarise`.

    Returns:
        `n` problems, `n_known` of them with a number in the clean answer; `attribution` with its
        interval `_low`, `_high` and `p` that it is 0 (see `mean_test`); `q` over all units
        (Benjamini-Hochberg).

    >>> summarise_attributions(np.array([[1.0, -1.0], [3.0, -1.0]]))["attribution"].tolist()
    [2.0, -1.0]
    """
    found = mean_test(values, level=level)
    return pd.DataFrame(
        {
            "n": len(values),
            "n_known": np.isfinite(values).sum(axis=0),
            "attribution": found.mean,
            "attribution_low": found.low,
            "attribution_high": found.high,
            "p": found.p,
            "q": benjamini_hochberg(found.p),
        }
    )


def with_gaps(
    table: pd.DataFrame, found: Sequence[xr.DataArray], refining: Refining
) -> pd.DataFrame:
    """Say of integrated attributions how many problems are complete, and by how much one is not."""
    if "gap" not in found[0].coords:
        return table
    gap, effect = (_side_by_side(found, name) for name in ("gap", "effect"))
    known = np.isfinite(gap)
    complete = known & (np.abs(gap) <= refining.allowed(effect))
    worst = np.where(known, np.abs(gap), 0).max(axis=0)
    table["n_complete"] = np.broadcast_to(complete.sum(axis=0), len(table))
    table["largest_gap"] = np.broadcast_to(worst, len(table))
    missed = (known & ~complete).any(axis=1)
    if missed.any():
        warnings.warn(
            f"{int(missed.sum())} of {len(gap)} problems have attributions that do not sum to the "
            f"effect, after {refining.max_steps} points, by up to {worst.max():.2g}: do not rank "
            "by them; raise max_steps.",
            IncompleteAttributionWarning,
            stacklevel=3,
        )
    return table


def _side_by_side(found: Sequence[xr.DataArray], name: str) -> Float[np.ndarray, "problem _"]:
    """One column of heads, which are integrated together; one for each thought."""
    return np.concatenate(
        [each[name].values.reshape(len(each["problem"]), -1) for each in found], axis=1
    )
