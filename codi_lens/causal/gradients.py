"""Gradients of an answer through all thoughts, at activations of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from codi_lens.causal.controls import donors_for
from codi_lens.causal.measure import Running, answered_runs, check_work, context_for
from codi_lens.causal.outcomes import CleanAnswer, Outcome, differentiable
from codi_lens.causal.results import Results
from codi_lens.errors import InterventionError, check_choice
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode, replacements
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context
from codi_lens.thinking.prompts import prepare_problems

Method = Literal["patching", "integrated"]
"""Attribution patching, or integrated gradients."""


class Attributing(Running, total=False):
    """How all attributions are made, beside `Running`; `gate_attributions` has the defaults.

    Attributes:
        method: "patching" by default, or "integrated".
        outcome: "log_prob" by default, or "logit_difference".
        mode: "resample" by default, "mean" or "zero".
        donors: whose values are put in; by default those of the problems themselves.
        steps: points of the path of "integrated" (Gauss-Legendre); 16 by default.
        seed: of donors; 0 by default.
        out: a folder for the attributions of every problem, resumable; none by default.
    """

    method: Method
    outcome: Outcome
    mode: Mode
    donors: Donors | None
    steps: int
    seed: int
    out: str | Path | None


@dataclass(frozen=True, eq=False)
class GatePath:
    """Where the gates stand when the gradient is taken, and what each of these points weighs."""

    gates: Float[np.ndarray, " step"]
    weights: Float[np.ndarray, " step"]


def check_attributing(attributing: Attributing) -> None:
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


def gate_path(method: Method, steps: int) -> GatePath:
    """The gates of a method: closed for patching, Gauss-Legendre nodes for integrated gradients.

    Raises:
        InterventionError: fewer than one step.
    """
    if method == "patching":
        return GatePath(np.zeros(1), np.ones(1))
    if steps < 1:
        raise InterventionError(f"steps must be at least 1, not {steps}.")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    return GatePath((nodes + 1) / 2, weights / 2)


@dataclass(frozen=True, eq=False)
class Replaced:
    """What gates mix in: the replacements of an intervention at these hooks."""

    hook_names: Sequence[str]
    mode: Mode
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


def gate_attributions(
    model: CodiModel,
    problems: Problems,
    hook_names: Sequence[str],
    positions: Sequence[str],
    *,
    one_by_one: bool = False,
    method: Method = "patching",
    outcome: Outcome = "log_prob",
    mode: Mode = "resample",
    donors: Donors | None = None,
    steps: int = 16,
    seed: int = 0,
    out: str | Path | None = None,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> Float[np.ndarray, "problem position hook unit"]:
    """Attributions of each unit at each hook and position; see `Attributing` and `Running`.

    Args:
        model: the model.
        problems: what to think about.
        hook_names: whose outputs are gated.
        positions: where, in the order of the run.
        one_by_one: open the gates of one position at a time on the way of integrated gradients;
            by default those of all positions open together.
        method, outcome, mode, donors, steps, seed, out: see `Attributing`.
        problems_at_once, rows_at_once, max_new_tokens, progress: see `Running`.

    Raises:
        CodiLensError: see `codi_lens.causal.measure.measure`; fewer than one step.
    """
    problems = problems_for(model, problems)
    path = gate_path(method, steps)
    donors = donors_for(model, problems, mode=mode, donors=donors, seed=seed, hook_names=hook_names)
    replaced = Replaced(hook_names, mode, donors, seed)
    apart = one_by_one and method == "integrated"
    opened = [[position] for position in positions] if apart else [positions]
    check_work(model, problems, problems_at_once, rows_at_once)
    prompts = prepare_problems(model, problems)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
    settings: dict[str, Any] = {
        "fingerprint": model.fingerprint(),
        "problems": [[problem.id, problem.question] for problem in problems],
        "opened": opened,
        "replaced": [list(hook_names), mode, "" if donors is None else donors.identity, seed],
        "path": [method, len(path.gates), outcome],
        "batches": [problems_at_once, rows_at_once],
        "max_new_tokens": max_new_tokens,
    }
    total = len(problems) * len(opened) * len(path.gates)
    bar = tqdm(total=total, desc="attributing", unit="run", disable=not progress)
    with Results(out, settings) as results, bar:
        for start in range(0, len(problems), problems_at_once):
            which = order[start : start + problems_at_once].tolist()
            part = f"{start:06d}"
            if results.finished or part in results:
                bar.update(len(which) * len(opened) * len(path.gates))
                continue
            clean, answers = answered_runs(
                model, problems, prompts, which, max_new_tokens=max_new_tokens
            )
            rows = max(1, rows_at_once // len(which))
            groups = [
                _along(path, rows, partial(_slopes, clean, answers, replaced, group, outcome), bar)
                for group in opened
            ]
            values = torch.cat(groups, dim=1).double().cpu().numpy()
            ids = [problems[i].id for i in which]
            results.write(part, _long(values, ids, positions, hook_names))
        table = results.finish()
    shape = (len(problems), len(positions), len(hook_names), -1)
    return table["attribution"].to_numpy(dtype=float).reshape(shape)[np.argsort(order)]


def _along(
    path: GatePath,
    rows: int,
    slopes_at: Callable[[Float[np.ndarray, " step"]], Tensor],
    bar: tqdm,
) -> Float[Tensor, "problem position hook unit"]:
    """The weighted sum of the slopes at every point of a path."""
    parts: list[Tensor] = []
    for gates, weights in _at_once(path, rows):
        slopes = slopes_at(gates)
        parts.append(
            einsum(
                slopes,
                torch.tensor(weights).to(slopes),
                "step problem position hook unit, step -> problem position hook unit",
            )
        )
        bar.update(slopes.shape[1] * len(gates))
    return torch.stack(parts).sum(dim=0)


def _long(
    values: Float[np.ndarray, "problem position hook unit"],
    ids: Sequence[str],
    positions: Sequence[str],
    hook_names: Sequence[str],
) -> pd.DataFrame:
    """One row for each problem, position, hook and unit, in this order."""
    labels = product(ids, positions, hook_names, range(values.shape[-1]))
    table = pd.DataFrame(list(labels), columns=["problem", "position", "hook", "unit"])
    return table.assign(attribution=values.ravel())


def _at_once(path: GatePath, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(path.gates), size):
        yield path.gates[i : i + size], path.weights[i : i + size]


def _slopes(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    replaced: Replaced,
    positions: Sequence[str],
    outcome: Outcome,
    gates: Float[np.ndarray, " step"],
) -> Float[Tensor, "step problem position hook unit"]:
    """The derivative of each problem's outcome by every gate, at these openings."""
    cfg, n = clean.model.lens.cfg, len(answers)
    rows = list(range(n)) * len(gates)
    context = context_for(clean, answers, rows)
    units = 1 if replaced.hook_names == ["hook_embed"] else cfg.n_heads
    at = torch.tensor(np.repeat(gates, n), dtype=cfg.dtype, device=context.device)
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
