"""How far an ablation moves what a head writes: the baseline of every score of heads.

Ablating a head replaces its output z at some positions. What this changes in the residual stream,
before any later layer reads it, is (replacement - z) W_O. A head whose replacement is as its own
output has no effect, whatever it attends to; a score that predicts effects no better than the size
of this change says nothing about what the head is for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool
from torch import Tensor

from codi_lens.attention.values import value_norms
from codi_lens.causal.controls import donors_for, head_hooks
from codi_lens.causal.measure import check_work
from codi_lens.causal.results import Results, parts_to_do
from codi_lens.errors import check_choice
from codi_lens.head_names import head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode, replacements
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed, whole_number
from codi_lens.problems.problem import Problems
from codi_lens.stand_ins import made_up
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.prompts import positions_in, prepare_problems, questions_of
from codi_lens.thinking.run import ThoughtRun
from codi_lens.thinking.think import context_of, think
from codi_lens.work import Stage
from codi_lens.workers.spread import Workers, spread_of


def output_changes(
    model: CodiModel,
    problems: Problems,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> pd.DataFrame:
    """How far `sweep_heads` with the same arguments moves what each head writes.

    Per problem the norm, over all ablated positions together, of (replacement - z) W_O, with z of
    the clean run: the root of the sum over positions and d_model of its squares; then the mean over
    problems. It takes one clean run, and that of the donors, which a sweep with the same `Donors`
    has made already.

    Args:
        model: the model.
        problems: what to think about.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values replace the heads'; by default the problems themselves.
        seed: of donors.
        out: a folder for the changes on every problem, resumable.
        problems_at_once, rows_at_once, max_new_tokens, progress, workers, ray_address: see
            `Running`; each problem is one row here, so that the second changes nothing.

    Returns:
        One row per head, layer by layer: `layer`, `head`, `name`, `n` problems, and
        `output_change` in units of the residual stream.

    Raises:
        CodiLensError: an unknown mode or position; see `codi_lens.causal.measure.measure`.

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> table = output_changes(model, some, mode="zero", progress=False)
    >>> len(table), bool((table["output_change"] > 0).all())
    (24, True)
    """
    check_choice("ablation mode", mode, Mode)
    check_seed(seed)
    spread = spread_of(workers, ray_address)
    problems = problems_for(model, problems)
    donors = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    positions = positions_in(model, at)
    ids = check_work(model, problems, problems_at_once, rows_at_once, progress)
    size, longest = int(problems_at_once), whole_number("max_new_tokens", max_new_tokens)
    prompts = prepare_problems(model, problems)
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable").tolist()
    settings: dict[str, Any] = {
        "fingerprint": model.fingerprint(),
        "problems": [[problem.id, problem.question] for problem in problems],
        "written by": [positions, mode, "" if donors is None else donors.identity, seed],
        "batches": size,
        "max_new_tokens": longest,
    }
    stage = Stage("comparing outputs")
    with Results(out, settings) as results:
        parts = parts_to_do(results, order, size)
        done = len(ids) - sum(len(which) for _, which in parts)
        work = partial(_changes, model, prompts, ids, positions, mode, donors, seed, longest)
        job = partial(_part, stage, work, prompts, partial(_labels, model, ids))
        with stage.bar(len(ids), "run", shown=progress, done=done) as tell:
            results.fill(job, parts, model.device, spread, lambda task: tell(len(task[1])))
        table = results.finish()
    found = table.groupby(["layer", "head"])["output_change"].mean().reset_index()
    pairs = zip(found["layer"].tolist(), found["head"].tolist(), strict=True)
    found.insert(2, "name", [head_name(pair) for pair in pairs])
    found.insert(3, "n", len(ids))
    return found


def _part(
    stage: Stage,
    work: Callable[[Sequence[int]], pd.DataFrame],
    prompts: Sequence[Sequence[int]],
    labels: Callable[[Sequence[int]], pd.DataFrame],
    task: tuple[str, list[int]],
) -> list[tuple[str, pd.DataFrame]]:
    part, which = task
    cost = len(which), len(which) * max(len(prompts[i]) for i in which)
    table, own = stage("", *cost, partial(work, which))
    return [(part, table if own else made_up(table, labels(which)))]


@torch.no_grad()
def _changes(
    model: CodiModel,
    prompts: Sequence[Sequence[int]],
    ids: Sequence[str],
    positions: Sequence[str],
    mode: Mode,
    donors: Donors | None,
    seed: int,
    max_new_tokens: int,
    which: Sequence[int],
) -> pd.DataFrame:
    """One row for each problem, layer and head of a batch."""
    prompts, own_ids = [prompts[i] for i in which], [ids[i] for i in which]
    hooks = head_hooks(model.lens.cfg.n_layers)
    questions = questions_of(model, prompts)
    longest = max_new_tokens if "answer" in positions else 1
    run = think(model, questions, names_filter=hooks, max_new_tokens=longest)
    clean = run.cache()
    context = context_of(model, prompts, own_ids)
    squares = torch.zeros(len(prompts), model.lens.cfg.n_layers, model.lens.cfg.n_heads)
    edits = replacements(context, hooks, positions, mode, donors, seed)
    for (hook, position), replace in edits.items():
        layer = hooks.index(hook)
        columns, member = _columns(run, position, clean[hook].shape[1])
        z = clean[hook][:, columns]
        weights: Any = model.lens.blocks[layer].attn.W_O
        norms = value_norms((replace(z).to(z) - z).float(), weights.detach().float()).cpu()
        inside = torch.where(rearrange(member, "problem pos -> problem pos 1"), norms, 0.0)
        squares[:, layer] += inside.square().sum(dim=1)
    return _labels(model, ids, which).assign(output_change=squares.sqrt().numpy().ravel())


def _labels(model: CodiModel, ids: Sequence[str], which: Sequence[int]) -> pd.DataFrame:
    """The problem, layer and head of every row of a batch."""
    cfg = model.lens.cfg
    sizes = [[ids[i] for i in which], range(cfg.n_layers), range(cfg.n_heads)]
    return pd.DataFrame(list(product(*sizes)), columns=["problem", "layer", "head"])


def _columns(
    run: ThoughtRun, position: str, width: int
) -> tuple[slice, Bool[Tensor, "problem pos"]]:
    """The columns of a position in any problem, and which of them are each problem's own."""
    spans = run.span(position)
    # The last answer token of all was never fed.
    columns = slice(min(each.start for each in spans), min(width, max(e.stop for e in spans)))
    at = torch.arange(columns.start, columns.stop)
    return columns, torch.stack([(at >= each.start) & (at < each.stop) for each in spans])
