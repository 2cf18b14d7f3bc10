"""Gradients of an answer through all thoughts, at activations of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from codi_lens.causal.measure import check_work
from codi_lens.causal.outcomes import CleanAnswer, clean_answers, differentiable
from codi_lens.errors import InterventionError
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode, replacements
from codi_lens.model import CodiModel
from codi_lens.problems.problem import Problem
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.think import context_of

Method = Literal["patching", "integrated"]


@dataclass(frozen=True, eq=False)
class GatePath:
    """Where the gates stand when the gradient is taken, and what each of these points weighs."""

    gates: Float[np.ndarray, " step"]
    weights: Float[np.ndarray, " step"]


def gate_path(method: str, steps: int, mode: str) -> GatePath:
    """The gates of a method: closed for patching, Gauss-Legendre nodes for integrated gradients.

    Raises:
        InterventionError: no such method or mode, or fewer than one step.
    """
    for given, known, what in ((method, Method, "method"), (mode, Mode, "mode")):
        if given not in get_args(known):
            raise InterventionError(
                f"There is no attribution {what} {given!r}; there are {', '.join(get_args(known))}."
            )
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


def gate_attributions(
    model: CodiModel,
    problems: Sequence[Problem],
    replaced: Replaced,
    opened: Sequence[Sequence[str]],
    path: GatePath,
    outcome: str,
    *,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
) -> Float[np.ndarray, "problem position hook unit"]:
    """Attributions of each unit at each hook and position; `opened` go together, group by group."""
    check_work(model, problems, problems_at_once, rows_at_once)
    prompts = prepare_problems(model, problems)
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


def _at_once(path: GatePath, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for i in range(0, len(path.gates), size):
        yield path.gates[i : i + size], path.weights[i : i + size]


def _slopes(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    replaced: Replaced,
    positions: Sequence[str],
    gates: Float[np.ndarray, " step"],
    outcome: str,
) -> Float[Tensor, "step problem position hook unit"]:
    """The derivative of each problem's outcome by every gate, at these openings."""
    model, n = clean.model, len(answers)
    rows = list(range(n)) * len(gates)
    context = context_of(
        clean.model,
        [clean.prompts[row] for row in rows],
        [answers[row].problem.id for row in rows],
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
