"""Many interventions over many problems, each compared with the clean run of the same problem.

One clean run of a batch of problems serves every intervention on it: all go on from its keys and
values at the first position they can touch, many (problem, intervention) pairs in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from codi_lens.causal.outcomes import CleanAnswer, clean_answers, score, with_rivals
from codi_lens.causal.results import Results
from codi_lens.errors import InterventionError, ProblemError
from codi_lens.model import CodiModel
from codi_lens.positions import rank
from codi_lens.problems.problem import Problem
from codi_lens.thinking.clean_runs import CleanRuns
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.loop import hooked_names
from codi_lens.thinking.plan import Planned, for_rows, plan_all
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.think import context_of

Arm = Intervention | Planned | Sequence[Intervention | Planned]
"""One intervention, or several that act together."""

CLEAN = "clean"
"""The name of the runs without intervention in a table of outcomes."""


def measure(
    model: CodiModel,
    problems: Sequence[Problem],
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
    rivals: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Run every intervention on every problem; one row of outcomes for each, and for clean runs.

    Args:
        model: the model.
        problems: what to think about; ids must be unique.
        arms: what to compare with the clean runs, by name: an intervention, or several that act
            together.
        out: a folder for the results, as parquet; if it holds part of the same work (the same
            model, problems, interventions, seeds and donors), only the rest is run.
        problems_at_once: problems that share one clean run.
        rows_at_once: (problem, intervention) pairs per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        rivals: for the id of every problem that of another one of them: `logit_difference` is then
            over the number of that problem's clean answer, not over the run's own runner-up.

    Returns:
        One row per problem and arm, the arm `clean` first: `problem`, `arm`, and the outcomes of
        `codi_lens.causal.outcomes.score`, in the order of the problems.

    Raises:
        ProblemError: no problem, ids that are not unique, or a question that does not fit.
        InterventionError: no arm, a hook that does not exist or never fired, or a problem without
            a rival among the problems.
        OutputError: `out` holds something else.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> silence = Intervention([("blocks.0.attn.hook_z", lambda z, hook: 0 * z)], at="ct2")
    >>> outcomes = measure(model, word_problems(4), {"silence": silence}, progress=False)
    >>> outcomes["arm"].tolist() == ["clean"] * 4 + ["silence"] * 4
    True
    """
    named = {name: _interventions(arm) for name, arm in arms.items()}
    check_work(model, problems, problems_at_once, rows_at_once)
    _check_arms(named)
    if rivals is not None:
        _check_rivals(problems, rivals)
    ids = [problem.id for problem in problems]
    prompts = prepare_problems(model, problems)
    batches = list(_batches(prompts, named, problems_at_once, rows_at_once))
    settings = {
        "fingerprint": model.fingerprint(),
        "problems": [[each.id, each.question, each.answer] for each in problems],
        "arms": {name: _identity(arm) for name, arm in named.items()},
        "batches": [problems_at_once, rows_at_once],
        "max_new_tokens": max_new_tokens,
    }
    if rivals is not None:
        settings["rivals"] = dict(rivals)
    results = Results(out, settings)
    total = len(problems) * (len(named) + 1)
    with tqdm(total=total, desc="intervening", unit="run", disable=not progress) as bar:
        for which, group in groupby(enumerate(batches), key=lambda pair: pair[1].problems):
            todo = [(f"{number:06d}", batch) for number, batch in group]
            missing = [pair for pair in todo if pair[0] not in results and not results.finished]
            bar.update(sum(len(batch) for part, batch in todo if (part, batch) not in missing))
            if not missing:
                continue
            chosen = [problems[i] for i in which]
            clean = CleanRuns.of(model, [prompts[i] for i in which])
            answers = clean_answers(clean, chosen, max_new_tokens=max_new_tokens)
            if rivals is not None:
                places = [ids.index(rivals[problem.id]) for problem in chosen]
                runs = CleanRuns.of(model, [prompts[i] for i in places])
                others = clean_answers(
                    runs, [problems[i] for i in places], max_new_tokens=max_new_tokens
                )
                answers = with_rivals(answers, others)
            for part, batch in missing:
                results.write(part, _run(clean, answers, batch, named))
                bar.update(len(batch))
    outcomes = results.finish()
    order = {name: place for place, name in enumerate([CLEAN, *named])}
    place = {each: i for i, each in enumerate(ids)}
    keys = np.lexsort((outcomes["problem"].map(place), outcomes["arm"].map(order)))
    return outcomes.iloc[keys].reset_index(drop=True)


@dataclass(frozen=True)
class _Batch:
    """Which problems, under which arms, in one batch from one starting point."""

    problems: tuple[int, ...]
    arms: tuple[str, ...]
    first: str

    def __len__(self) -> int:
        return len(self.problems) * len(self.arms)


def _batches(
    prompts: Sequence[Sequence[int]],
    arms: Mapping[str, Sequence[Intervention | Planned]],
    problems_at_once: int,
    rows_at_once: int,
) -> Iterator[_Batch]:
    """Problems of similar length together; arms that start at the same position together."""
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable").tolist()
    first = {name: min((each.first for each in arm), key=rank) for name, arm in arms.items()}
    by_first = sorted(arms, key=lambda name: rank(first[name]))
    for start in range(0, len(order), problems_at_once):
        which = tuple(order[start : start + problems_at_once])
        yield _Batch(which, (CLEAN,), "answer")
        size = max(1, rows_at_once // len(which))
        for position, names in groupby(by_first, key=first.__getitem__):
            together = list(names)
            for i in range(0, len(together), size):
                yield _Batch(which, tuple(together[i : i + size]), position)


def _run(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    batch: _Batch,
    arms: Mapping[str, Sequence[Intervention | Planned]],
) -> pd.DataFrame:
    n = len(answers)
    rows = list(range(n)) * len(batch.arms)
    context = context_of(
        clean.model,
        [clean.prompts[row] for row in rows],
        [answers[row].problem.id for row in rows],
    )
    interventions = [
        for_rows(each, range(i * n, (i + 1) * n)) if len(batch.arms) > 1 else each
        for i, name in enumerate(batch.arms)
        for each in arms.get(name, ())
    ]
    with torch.no_grad():
        planned = plan_all(interventions, context)
        outcomes = score(clean, answers, rows, batch.first, planned)
    labels = [
        {"problem": answers[row].problem.id, "arm": batch.arms[i // n]}
        for i, row in enumerate(rows)
    ]
    return pd.DataFrame(
        [label | outcome for label, outcome in zip(labels, outcomes, strict=True)]
    ).astype({"changed": bool})


def _identity(arm: Sequence[Intervention | Planned]) -> list[list[str]]:
    """What a resumed measurement must find unchanged; fixed hooks are known by name only."""
    return [[each.name, each.details if isinstance(each, Planned) else ""] for each in arm]


def _interventions(arm: Arm) -> tuple[Intervention | Planned, ...]:
    return (arm,) if isinstance(arm, Intervention | Planned) else tuple(arm)


def check_work(
    model: CodiModel, problems: Sequence[Problem], problems_at_once: int, rows_at_once: int
) -> None:
    """Whether clean runs of these problems can be made.

    Raises:
        ProblemError: no problem, ids that are not unique, or nothing at once.
        InterventionError: the model carries hooks of its own.
    """
    ids = [problem.id for problem in problems]
    if not ids:
        raise ProblemError("There are no problems to run; give at least one.")
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ProblemError(f"The problem id {twice!r} occurs twice; ids must be unique.")
    for name, value in (("problems_at_once", problems_at_once), ("rows_at_once", rows_at_once)):
        if value < 1:
            raise ProblemError(f"{name} must be at least 1, not {value}.")
    if hooked_names(model.lens):
        raise InterventionError(
            "The model carries hooks of its own, which clean runs must not; remove them first."
        )


def _check_arms(arms: Mapping[str, Sequence[Any]]) -> None:
    if not arms:
        raise InterventionError("There is no intervention to measure; give at least one.")
    for name, arm in arms.items():
        if not arm or name == CLEAN:
            reason = "is empty" if not arm else "is the name of the runs without intervention"
            raise InterventionError(f"The arm {name!r} {reason}; give it an intervention.")


def _check_rivals(problems: Sequence[Problem], rivals: Mapping[str, str]) -> None:
    ids = {problem.id for problem in problems}
    for problem in problems:
        rival = rivals.get(problem.id)
        if rival not in ids or rival == problem.id:
            raise InterventionError(
                f"The rival of {problem.id!r} is {rival!r}; give the id of another problem of the "
                "measurement."
            )
