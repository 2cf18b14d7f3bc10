"""Estimated effects of replacing heads and thoughts, from gradients through all thoughts.

Every head (or thought) gets a gate g: its output x becomes x + g (replacement - x). At g = 0 the
run is clean, at g = 1 it is the ablated one. The derivative of the clean number's log-probability
by all gates at once takes one backward pass through the thought loop. At g = 0 it is attribution
patching: gradient times (replacement - clean). Its mean over gates that open together from 0 to 1
is integrated gradients, whose values sum to the effect of replacing everything that was opened.

Sources: Sundararajan et al. 2017, "Axiomatic attribution for deep networks"; Nanda 2023,
"Attribution patching"; Syed et al. 2023, "Attribution patching outperforms automated circuit
discovery".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from codi_lens.errors import InterventionError, PositionError
from codi_lens.experiments import donors_for, head_name
from codi_lens.interventions import Context, Donors, Intervention
from codi_lens.interventions.heads import Mode, replacements
from codi_lens.measure import check_work
from codi_lens.model import CodiModel
from codi_lens.outcomes import DIFFERENTIABLE, CleanAnswer, clean_answers, differentiable
from codi_lens.positions import Scope, rank, resolve, thought_names
from codi_lens.prefix import CleanRuns
from codi_lens.problems import Problem
from codi_lens.significance import Association, rank_association, sign_flip_p
from codi_lens.stats import benjamini_hochberg, mean_interval
from codi_lens.thinking import prepare

Method = Literal["patching", "integrated"]


def attribute_heads(
    model: CodiModel,
    problems: Sequence[Problem],
    *,
    method: str = "patching",
    outcome: str = "log_prob",
    mode: str = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    steps: int = 16,
    seed: int = 0,
    **running: Any,
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
        steps: points of the path of "integrated" (Gauss-Legendre).
        seed: of donors, bootstrap and permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`.

    Returns:
        One row per head: `layer`, `head`, `name`, and the columns of `summarise_attributions`.
        `attribution` has the sign and the unit of the effect: nats (or logits), negative where
        the clean number would become less likely.

    Raises:
        CodiLensError: an unknown method, outcome, mode or position; see
            `codi_lens.measure.measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> table = attribute_heads(model, some, mode="zero", progress=False)
    >>> table.loc[table["attribution"].idxmin(), "name"]
    'L1H7'
    """
    values = head_attributions(
        model,
        problems,
        method=method,
        outcome=outcome,
        mode=mode,
        at=at,
        donors=donors,
        steps=steps,
        seed=seed,
        **running,
    )
    heads = [(int(layer), int(head)) for layer in values["layer"] for head in values["head"]]
    labels = pd.DataFrame(heads, columns=["layer", "head"])
    labels["name"] = [head_name(head) for head in heads]
    whole = rearrange(values.sum("position", skipna=False).values, "p layer head -> p (layer head)")
    return pd.concat([labels, summarise_attributions(whole, seed=seed)], axis=1)


def attribute_thoughts(
    model: CodiModel,
    problems: Sequence[Problem],
    modes: Sequence[str] = ("resample", "mean", "zero"),
    *,
    method: str = "patching",
    outcome: str = "log_prob",
    donors: Donors | None = None,
    steps: int = 16,
    seed: int = 0,
    **running: Any,
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
        steps: points of the path of "integrated" (Gauss-Legendre).
        seed: of donors, bootstrap and permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`.

    Returns:
        One row per thought and mode: `thought`, `mode`, and the columns of
        `summarise_attributions`, whose q-values are over all rows, as in `sweep_thoughts`.

    Raises:
        CodiLensError: an unknown method, outcome or mode; see `codi_lens.measure.measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> attribute_thoughts(model, some, ["mean"], progress=False)["thought"].tolist()
    ['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5']
    """
    donors = Donors(model, problems, seed=seed) if donors is None else donors
    settings = {
        "method": method,
        "outcome": outcome,
        "donors": donors,
        "steps": steps,
        "seed": seed,
        **running,
    }
    values = [thought_attributions(model, problems, mode=mode, **settings) for mode in modes]
    labels = [
        {"thought": str(name), "mode": mode}
        for mode, found in zip(modes, values, strict=True)
        for name in found["thought"].values
    ]
    together = np.concatenate([found.values for found in values], axis=1)
    return pd.concat([pd.DataFrame(labels), summarise_attributions(together, seed=seed)], axis=1)


def head_attributions(
    model: CodiModel,
    problems: Sequence[Problem],
    *,
    method: str = "patching",
    outcome: str = "log_prob",
    mode: str = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    steps: int = 16,
    seed: int = 0,
    **running: Any,
) -> xr.DataArray:
    """The attributions behind `attribute_heads`, per problem and position; same arguments.

    Returns:
        Nats, with dimensions problem, layer, head, position. Summed over positions they estimate
        the effect of replacing the head at all of them. NaN for a problem whose clean answer holds
        no number.

    Raises:
        CodiLensError: see `attribute_heads`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> head_attributions(model, some, at=["bot", "ct2"], progress=False).shape
    (4, 3, 8, 2)
    """
    cfg = model.lens.cfg
    positions = sorted(resolve(at, model.config.n_thoughts), key=rank)
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(cfg.n_layers)]
    path = _path(method, steps, mode)
    donors = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    replaced = _Replaced(names, mode, donors, seed)
    values = _attributions(model, problems, replaced, [positions], path, outcome, **running)
    return xr.DataArray(
        rearrange(values, "problem position layer head -> problem layer head position"),
        dims=("problem", "layer", "head", "position"),
        coords={
            "problem": [problem.id for problem in problems],
            "layer": range(cfg.n_layers),
            "head": range(cfg.n_heads),
            "position": positions,
        },
        name="attribution",
    )


def thought_attributions(
    model: CodiModel,
    problems: Sequence[Problem],
    which: Scope = "thoughts",
    *,
    method: str = "patching",
    outcome: str = "log_prob",
    mode: str = "resample",
    donors: Donors | None = None,
    steps: int = 16,
    seed: int = 0,
    **running: Any,
) -> xr.DataArray:
    """The attributions behind `attribute_thoughts`, per problem, in one mode.

    Arguments are those of `attribute_thoughts`; `which` names the thoughts.

    Returns:
        Nats, with dimensions problem and thought; NaN for a problem whose clean answer holds no
        number.

    Raises:
        CodiLensError: see `attribute_thoughts`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> thought_attributions(model, some, method="integrated", steps=2, progress=False).dims
    ('problem', 'thought')
    """
    names = sorted(resolve(which, model.config.n_thoughts), key=rank)
    others = [name for name in names if name not in thought_names(model.config.n_thoughts)]
    if others:
        raise PositionError(f"{others[0]!r} is not a thought; give names from ct0 on.")
    path = _path(method, steps, mode)
    if donors is None and mode != "zero":
        donors = Donors(model, problems, seed=seed)
    opened = [names] if method == "patching" else [[name] for name in names]
    replaced = _Replaced(["hook_embed"], mode, donors, seed)
    values = _attributions(model, problems, replaced, opened, path, outcome, **running)
    return xr.DataArray(
        rearrange(values, "problem thought 1 1 -> problem thought"),
        dims=("problem", "thought"),
        coords={"problem": [problem.id for problem in problems], "thought": names},
        name="attribution",
    )


def summarise_attributions(
    values: Float[np.ndarray, "problem unit"], *, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The mean attribution of each unit over problems, with the statistics of `summarise`.

    Returns:
        `n` problems, `n_known` of them with a number in the clean answer; `attribution` with its
        bootstrap interval `_low`, `_high`; `p` of the sign-flip permutation test and `q` over all
        units (Benjamini-Hochberg).

    >>> summarise_attributions(np.array([[1.0, -1.0], [3.0, -1.0]]))["attribution"].tolist()
    [2.0, -1.0]
    """
    mean, low, high = mean_interval(values, level=level, seed=seed)
    p = sign_flip_p(values, seed=seed)
    return pd.DataFrame(
        {
            "n": len(values),
            "n_known": np.isfinite(values).sum(axis=0),
            "attribution": mean,
            "attribution_low": low,
            "attribution_high": high,
            "p": p,
            "q": benjamini_hochberg(p),
        }
    )


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well attributions predict exact effects.

    Attributes:
        overall: Spearman's rank correlation over all units.
        within: the same within layers, None for thoughts.
        pearson: Pearson's correlation.
        slope: of the effect on the attribution, by least squares; above 1 where attributions are
            too small.
        top: how many units count as the largest, by size of the effect and of the attribution.
        shared: how many of these are the same.
        same_sign: the share of units with the sign of their effect.
        n_effects: units whose effect on the log-probability has q < 0.05.
        same_sign_effects: the share of those with the sign of their effect; NaN without any.
        units: all units with `attribution`, `effect` and `error` (attribution - effect), the most
            missed first.
    """

    overall: Association
    within: Association | None
    pearson: float
    slope: float
    top: int
    shared: int
    same_sign: float
    n_effects: int
    same_sign_effects: float
    units: pd.DataFrame


def compare_with_exact(
    attributions: pd.DataFrame,
    effects: pd.DataFrame,
    *,
    outcome: str = "log_prob",
    top: int = 5,
    seed: int = 0,
) -> Agreement:
    """Hold attributions against the exact effects of the same units.

    Args:
        attributions: of `attribute_heads` or `attribute_thoughts`.
        effects: of `sweep_heads` or `sweep_thoughts`, on the same problems with the same donors.
        outcome: what was attributed, "log_prob" or "logit_difference".
        top: how many units count as the largest.
        seed: of bootstrap and permutations.

    Raises:
        InterventionError: tables of other kinds, a unit without an effect, or `top` out of range.
        CodiLensError: fewer than three units.

    >>> heads = {"layer": [0, 0, 1], "name": ["L0H0", "L0H1", "L1H0"]}
    >>> guessed = pd.DataFrame(heads | {"attribution": [-1.0, 0.5, 2.0]})
    >>> exact = pd.DataFrame(heads | {"effect": [-2.0, 0.1, 3.0], "q": [0.01, 0.5, 0.01]})
    >>> agreement = compare_with_exact(guessed, exact, top=1)
    >>> agreement.overall.rho, agreement.shared, agreement.same_sign
    (1.0, 1, 1.0)
    """
    keys = ["name"] if "name" in attributions else ["thought", "mode"]
    if outcome not in DIFFERENTIABLE:
        raise InterventionError(
            f"There is no outcome {outcome!r}; there are {', '.join(DIFFERENTIABLE)}."
        )
    if outcome == "logit_difference" and "logit_effect" in effects:
        effects = effects.assign(effect=effects["logit_effect"])
    for table, wanted in ((attributions, [*keys, "attribution"]), (effects, [*keys, "effect"])):
        missing = [column for column in wanted if column not in table]
        if missing:
            raise InterventionError(
                f"The table has no column {missing[0]!r}; compare attribute_heads with "
                "sweep_heads, and attribute_thoughts with sweep_thoughts."
            )
    labels = [*keys, *(["layer"] if "layer" in attributions else [])]
    units = attributions[[*labels, "attribution"]].merge(effects[[*keys, "effect", "q"]], on=keys)
    if len(units) < len(attributions):
        raise InterventionError(
            f"Only {len(units)} of {len(attributions)} attributed units have an exact effect; "
            "sweep all of them."
        )
    if not 1 <= top <= len(units):
        raise InterventionError(f"top must be from 1 to {len(units)}; it is {top}.")
    guess, effect = units["attribution"].to_numpy(), units["effect"].to_numpy()
    largest = [set(np.argsort(-np.abs(each), kind="stable")[:top]) for each in (guess, effect)]
    same, real = np.sign(guess) == np.sign(effect), units["q"].to_numpy() < 0.05
    layers = units["layer"].to_numpy() if "layer" in units else None
    varies = np.ptp(guess) > 0 and np.ptp(effect) > 0
    units["error"] = units["attribution"] - units["effect"]
    return Agreement(
        overall=rank_association(guess, effect, seed=seed),
        within=None if layers is None else rank_association(guess, effect, layers, seed=seed),
        pearson=float(np.corrcoef(guess, effect)[0, 1]) if varies else float("nan"),
        slope=float(np.polyfit(guess, effect, 1)[0]) if varies else float("nan"),
        top=top,
        shared=len(largest[0] & largest[1]),
        same_sign=float(same.mean()),
        n_effects=int(real.sum()),
        same_sign_effects=float(same[real].mean()) if real.any() else float("nan"),
        units=units.iloc[np.argsort(-units["error"].abs().to_numpy(), kind="stable")].reset_index(
            drop=True
        ),
    )


@dataclass(frozen=True, eq=False)
class _Path:
    """Where the gates stand when the gradient is taken, and what each of these points weighs."""

    gates: Float[np.ndarray, " step"]
    weights: Float[np.ndarray, " step"]


def _path(method: str, steps: int, mode: str) -> _Path:
    for given, known, what in ((method, Method, "method"), (mode, Mode, "mode")):
        if given not in get_args(known):
            raise InterventionError(
                f"There is no attribution {what} {given!r}; there are {', '.join(get_args(known))}."
            )
    if method == "patching":
        return _Path(np.zeros(1), np.ones(1))
    if steps < 1:
        raise InterventionError(f"steps must be at least 1, not {steps}.")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return _Path((nodes + 1) / 2, weights / 2)


@dataclass(frozen=True, eq=False)
class _Replaced:
    """What gates mix in: the replacements of an intervention at these hooks."""

    hook_names: Sequence[str]
    mode: str
    donors: Donors | None
    seed: int

    def gated(
        self,
        context: Context,
        positions: Sequence[str],
        gates: Float[Tensor, "row position hook unit"],
    ) -> list[Intervention]:
        """Interventions that move activations towards their replacements as far as gates say."""
        edits = replacements(context, self.hook_names, positions, self.mode, self.donors, self.seed)
        places = {
            (hook_name, position): gates[:, i, j]
            for i, position in enumerate(positions)
            for j, hook_name in enumerate(self.hook_names)
        }
        return [
            Intervention([(hook_name, partial(_mix, replace=put, gate=gate))], position)
            for (hook_name, position), gate in places.items()
            for put in [edits[hook_name, position]]
        ]


def _mix(
    activation: Tensor,
    hook: object,
    replace: Callable[[Tensor], Tensor],
    gate: Float[Tensor, "row unit"],
) -> Tensor:
    wide = rearrange(gate, "row unit -> row 1 unit")
    if activation.ndim == 4:
        wide = rearrange(wide, "row 1 unit -> row 1 unit 1")
    return activation + wide * (replace(activation).to(activation) - activation)


def _attributions(
    model: CodiModel,
    problems: Sequence[Problem],
    replaced: _Replaced,
    opened: Sequence[Sequence[str]],
    path: _Path,
    outcome: str,
    *,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> Float[np.ndarray, "problem position hook unit"]:
    """Attributions of each unit at each hook and position; `opened` go together, group by group."""
    check_work(model, problems, problems_at_once, rows_at_once)
    prompts = prepare(
        [problem.question for problem in problems],
        model.lens,
        model.tokenizer,
        model.config,
        names=[problem.id for problem in problems],
    )
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    found: list[Float[Tensor, "problem position hook unit"]] = []
    total = len(problems) * len(opened) * len(path.gates)
    with tqdm(total=total, desc="attributing", unit="run", disable=not progress) as bar:
        for start in range(0, len(problems), problems_at_once):
            which = order[start : start + problems_at_once].tolist()
            clean = CleanRuns.of(model, [prompts[i] for i in which])
            chosen = [problems[i] for i in which]
            answers = clean_answers(clean, chosen, max_new_tokens=max_new_tokens)
            groups: list[Tensor] = []
            for positions in opened:
                parts: list[Tensor] = []
                for gates, weights in _at_once(path, max(1, rows_at_once // len(which))):
                    slopes = _slopes(clean, answers, replaced, positions, gates, outcome)
                    parts.append(
                        einsum(
                            slopes,
                            torch.tensor(weights).to(slopes),
                            "step problem position hook unit, step -> problem position hook unit",
                        )
                    )
                    bar.update(len(which) * len(gates))
                groups.append(torch.stack(parts).sum(dim=0))
            found.append(torch.cat(groups, dim=1))
    joined = torch.cat(found).double().cpu().numpy()
    return joined[np.argsort(order)]


def _at_once(path: _Path, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(path.gates), size):
        yield path.gates[i : i + size], path.weights[i : i + size]


def _slopes(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    replaced: _Replaced,
    positions: Sequence[str],
    gates: Float[np.ndarray, " step"],
    outcome: str,
) -> Float[Tensor, "step problem position hook unit"]:
    """The derivative of each problem's outcome by every gate, at these openings."""
    model, n = clean.model, len(answers)
    rows = list(range(n)) * len(gates)
    context = Context.of(
        model.lens,
        model.config,
        [clean.prompts[row] for row in rows],
        [answers[row].problem.id for row in rows],
        partial(model.think),
    )
    units = 1 if replaced.hook_names == ["hook_embed"] else model.lens.cfg.n_heads
    at = torch.tensor(np.repeat(gates, n), dtype=model.lens.cfg.dtype, device=context.device)
    shape = (len(rows), len(positions), len(replaced.hook_names), units)
    leaf = rearrange(at, "row -> row 1 1 1").expand(shape).clone().requires_grad_()
    with torch.enable_grad():
        interventions = replaced.gated(context, positions, leaf)
        values = differentiable(clean, answers, rows, positions[0], interventions, outcome=outcome)
        known = torch.isfinite(values.detach())
        slopes = torch.full_like(leaf.detach(), torch.nan)
        if known.any():
            (all_slopes,) = torch.autograd.grad(values[known].sum(), leaf)
            slopes[known] = all_slopes[known]
    return rearrange(slopes, "(step problem) ... -> step problem ...", problem=n)
