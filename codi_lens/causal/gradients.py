"""Gradients of an answer through all thoughts, at activations of the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, Unpack, cast

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from codi_lens.causal.batches import context_for
from codi_lens.causal.controls import donors_for
from codi_lens.causal.gates import Gates, Replacing
from codi_lens.causal.measure import Running, answered_runs, check_work
from codi_lens.causal.outcomes import CleanAnswer, Outcome, differentiable
from codi_lens.causal.path import Integral, Refining, Slopes, integrate
from codi_lens.causal.results import Results, parts_to_do
from codi_lens.errors import check_choice
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.stand_ins import made_up
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.work import Stage
from codi_lens.workers.spread import Workers, spread_of

_SAMPLED = 4
"""So many problems are followed in a rehearsal: each may take very many points."""
Method = Literal["patching", "integrated"]
"""Attribution patching, or integrated gradients."""


class Following(Running, total=False):
    """How the outcome is followed while gates open, beside `Running`.

    Attributes:
        method: "patching" by default, or "integrated".
        outcome: "log_prob" by default, or "logit_difference".
        steps: points in each part of the path of "integrated" (Gauss-Legendre); 8 by default.
        tolerance: how far its sum may be from the effect, in the outcome's unit, or as a share of
            the effect where that is more; 0.02 by default.
        max_steps: points for one problem, at most; 1024 by default.
        out: a folder for the attributions of every problem, resumable; none by default.
    """

    method: Method
    outcome: Outcome
    steps: int
    tolerance: float
    max_steps: int
    out: str | Path | None


class Attributing(Following, total=False):
    """How replacements are attributed, beside `Following`.

    Attributes:
        mode: "resample" by default, "mean" or "zero".
        donors: whose values are put in; by default those of the problems themselves.
        seed: of donors; 0 by default.
    """

    mode: Mode
    donors: Donors | None
    seed: int


def check_attributing(attributing: Attributing | Following) -> None:
    """Refuse names that are none of the choices.

    Raises:
        InterventionError: no such method, outcome or mode.
        ProblemError: a seed that is negative.
    """
    check_seed(attributing.get("seed", 0))
    known = {
        "method": ("attribution method", Method),
        "outcome": ("differentiable outcome", Outcome),
        "mode": ("attribution mode", Mode),
    }
    for name, given in attributing.items():
        if name in known:
            what, choices = known[name]
            check_choice(what, given, choices)


def replacement_attributions(
    model: CodiModel,
    problems: Problems,
    hook_names: Sequence[str],
    positions: Sequence[str],
    *,
    one_by_one: bool = False,
    **attributing: Unpack[Attributing],
) -> Attributed:
    """`gate_attributions` of replacing what these hooks give; see `Attributing`.

    Raises:
        CodiLensError: a name that is none of the choices; see `gate_attributions`.
    """
    problems = problems_for(model, problems)
    check_attributing(attributing)
    mode, seed = attributing.get("mode", "resample"), attributing.get("seed", 0)
    donors = attributing.get("donors")
    donors = donors_for(model, problems, mode=mode, donors=donors, seed=seed, hook_names=hook_names)
    following = {k: v for k, v in attributing.items() if k not in ("mode", "donors", "seed")}
    return gate_attributions(
        model,
        problems,
        Replacing(hook_names, mode, donors, seed),
        positions,
        one_by_one=one_by_one,
        **cast(Following, following),
    )


def gate_attributions(
    model: CodiModel,
    problems: Problems,
    gates: Gates,
    positions: Sequence[str],
    *,
    one_by_one: bool = False,
    method: Method = "patching",
    outcome: Outcome = "log_prob",
    steps: int = Refining.steps,
    tolerance: float = Refining.tolerance,
    max_steps: int = Refining.max_steps,
    out: str | Path | None = None,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> Attributed:
    """Attributions of each unit at each hook and position; see `Following` and `Running`.

    Args:
        model: the model.
        problems: what to think about.
        gates: what is taken away.
        positions: where, in the order of the run.
        one_by_one: open the gates of one position at a time on the way of integrated gradients;
            by default those of all positions open together.
        method, outcome, steps, tolerance, max_steps, out: see `Following`.
        problems_at_once, rows_at_once, max_new_tokens, progress, workers, ray_address: see
            `Running`.

    Raises:
        CodiLensError: see `codi_lens.causal.measure.measure`; fewer than one step.
    """
    problems = problems_for(model, problems)
    spread = spread_of(workers, ray_address)
    refining = Refining(steps, tolerance, max_steps).checked()
    apart = one_by_one and method == "integrated"
    opened = [[position] for position in positions] if apart else [positions]
    check_work(model, problems, problems_at_once, rows_at_once, progress)
    prompts = prepare_problems(model, problems)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    ids = [problem.id for problem in problems]
    settings: dict[str, Any] = {
        "fingerprint": model.fingerprint(),
        "problems": [problem.identity for problem in problems],
        "opened": opened,
        "replaced": gates.identity,
        "path": [method, *([steps, tolerance, max_steps] if method == "integrated" else [])],
        "outcome": outcome,
        "batches": [problems_at_once, rows_at_once],
        "max_new_tokens": max_new_tokens,
    }
    answered = partial(answered_runs, model, problems, prompts, max_new_tokens=max_new_tokens)
    stage = Stage("attributing", out=out)
    way: tuple[Method, Refining, int] = (method, refining, rows_at_once)
    with Results(out, settings) as results:
        to_do = parts_to_do(results, order.tolist(), problems_at_once)
        lengths = [len(prompt) for prompt in prompts]
        job = partial(_part, answered, gates, opened, outcome, way, ids, stage, lengths)
        done = len(ids) - sum(len(which) for _, which in to_do)
        with stage.bar(len(ids), "problem", shown=progress, done=done) as tell:
            results.fill(job, to_do, model.device, spread, lambda task: tell(len(task[1])))
        table = results.finish()
    return Attributed.of(table, ids, positions, gates.hook_names)


@dataclass(frozen=True, eq=False)
class Attributed:
    """Attributions, and how complete they are.

    Attributes:
        values: of each unit at each hook and position.
        effect: of replacing what was opened together with a position: of everything, or of the
            position alone. NaN where nothing was integrated.
        gap: the sum of the attributions of what was opened together minus that effect.
        points: of the path that were taken for it.
    """

    values: Float[np.ndarray, "problem position hook unit"]
    effect: Float[np.ndarray, "problem position"]
    gap: Float[np.ndarray, "problem position"]
    points: Float[np.ndarray, "problem position"]

    @property
    def completeness(self) -> dict[str, Float[np.ndarray, "problem position"]]:
        """Effect, gap and points by name; nothing where nothing was integrated."""
        if not np.isfinite(self.gap).any():
            return {}
        return {"effect": self.effect, "gap": self.gap, "points": self.points}

    @classmethod
    def of(
        cls,
        table: pd.DataFrame,
        ids: Sequence[str],
        positions: Sequence[str],
        hook_names: Sequence[str],
    ) -> Attributed:
        """From the long table of all batches."""
        rank = {name: i for names in (ids, positions, hook_names) for i, name in enumerate(names)}
        keys = ["problem", "position", "hook", "unit"]
        table = table.sort_values(
            keys, key=lambda column: column if column.name == "unit" else column.map(rank)
        )
        shape = (len(ids), len(positions), len(hook_names), -1)
        columns = ("attribution", "effect", "gap", "points")
        values, *rest = (table[name].to_numpy(dtype=float).reshape(shape) for name in columns)
        return cls(values, *(each[:, :, 0, 0] for each in rest))


def _part(
    answered: Callable[[Sequence[int]], tuple[CleanRuns, list[CleanAnswer]]],
    gates: Gates,
    opened: Sequence[Sequence[str]],
    outcome: Outcome,
    way: tuple[Method, Refining, int],
    ids: Sequence[str],
    stage: Stage,
    lengths: Sequence[int],
    task: tuple[str, list[int]],
) -> list[tuple[str, pd.DataFrame]]:
    """The attributions of some problems, as a part; in a rehearsal those of a few of them."""
    part, which = task
    some = which[:_SAMPLED] if stage.rehearsed else which
    cost = len(which), len(which) * max(lengths[i] for i in which)
    work = partial(_table, partial(answered, some), gates, opened, outcome, way)
    table, own = stage("", *cost, work, share=len(some) / len(which))
    if not own or len(some) < len(which):
        rows = table.groupby("problem").size().iloc[0]
        names = np.repeat([ids[i] for i in which], rows)
        together = table.sort_values("problem", kind="stable")
        table = made_up(together, pd.DataFrame({"problem": names}))
    return [(part, table)]


def _table(
    answered: Callable[[], tuple[CleanRuns, list[CleanAnswer]]],
    gates: Gates,
    opened: Sequence[Sequence[str]],
    outcome: Outcome,
    way: tuple[Method, Refining, int],
) -> pd.DataFrame:
    """The attributions of a batch, one group of positions that open together after the other."""
    clean, answers = answered()
    ids = [each.problem.id for each in answers]
    tables = []
    for group in opened:
        found = _attribute(partial(_slopes, clean, answers, gates, group, outcome), len(ids), *way)
        tables.append(_long(found, ids, group, gates.hook_names))
    return pd.concat(tables, ignore_index=True)


def _attribute(
    slopes_at: Slopes, n: int, method: Method, refining: Refining, rows_at_once: int
) -> Integral:
    """The slopes where all gates are closed, or integrated while they open."""
    if method == "integrated":
        return integrate(slopes_at, n, refining, rows_at_once)
    _, slopes = slopes_at(range(n), np.zeros(n))
    unknown = np.full(n, np.nan)
    return Integral(slopes.double(), unknown, unknown, np.ones(n, dtype=int))


def _long(
    found: Integral, ids: Sequence[str], positions: Sequence[str], hook_names: Sequence[str]
) -> pd.DataFrame:
    """One row for each problem, position, hook and unit, in this order."""
    values = found.values.cpu().numpy()
    labels = product(ids, positions, hook_names, range(values.shape[-1]))
    table = pd.DataFrame(list(labels), columns=["problem", "position", "hook", "unit"])
    each = values[0].size
    of_problem = {name: np.repeat(getattr(found, name), each) for name in ("effect", "gap")}
    return table.assign(
        attribution=values.ravel(), **of_problem, points=np.repeat(found.points, each)
    )


def _slopes(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    gates: Gates,
    positions: Sequence[str],
    outcome: Outcome,
    rows: Sequence[int],
    opened: Float[np.ndarray, " row"],
) -> tuple[Float[Tensor, " row"], Float[Tensor, "row position hook unit"]]:
    """Each row's outcome at its opening of the gates, and the derivative by every gate."""
    cfg, rows = clean.model.lens.cfg, list(rows)
    context = context_for(clean, answers, rows)
    at = torch.tensor(opened, dtype=cfg.dtype, device=context.device)
    shape = (len(rows), len(positions), len(gates.hook_names), gates.n_units(clean.model.lens))
    leaf = rearrange(at, "row -> row 1 1 1").expand(shape).clone().requires_grad_()
    with torch.enable_grad():
        interventions = gates.interventions(context, positions, leaf)
        values = differentiable(clean, answers, rows, positions[0], interventions, outcome=outcome)
        known = torch.isfinite(values.detach())
        slopes = torch.full_like(leaf.detach(), torch.nan)
        if known.any():
            (all_slopes,) = torch.autograd.grad(values[known].sum(), leaf)
            slopes[known] = all_slopes[known]
    return values.detach(), slopes
