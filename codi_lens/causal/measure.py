"""Many interventions over many problems, each compared with the clean run of the same problem.

One clean run of a batch of problems serves every intervention on it: all go on from its keys and
values at the first position they can touch, many (problem, intervention) pairs in one batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from codi_lens.causal.clean_answers import CleanAnswer, clean_answers, with_rivals
from codi_lens.causal.outcomes import score
from codi_lens.causal.results import Results
from codi_lens.causal.strata import CLEAN, Only, judged, kept
from codi_lens.errors import InterventionError, as_path, check_choice, check_flags, shown
from codi_lens.model import CodiModel
from codi_lens.positions import rank
from codi_lens.problems.arguments import whole_number
from codi_lens.problems.problem import Problem, Problems, check_problems
from codi_lens.thinking.clean_runs import CleanRuns, column_of
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.hook_names import hooked_names
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, as_interventions, for_rows, plan_all
from codi_lens.thinking.prompts import layout_of, prepare_problems
from codi_lens.thinking.think import context_of
from codi_lens.work import Stage, made_up

Arm = Intervention | Planned | Sequence[Intervention | Planned]
"""One intervention, or several that act together."""


class Decoding(TypedDict, total=False):
    """How answers are decoded: what `extract` takes as experiments do.

    Attributes:
        max_new_tokens: longest answer; 64 by default.
        progress: show a progress bar; so by default.
    """

    max_new_tokens: int
    progress: bool


class Running(Decoding, total=False):
    """How runs are made: what every experiment takes and hands on to `measure`.

    Attributes:
        problems_at_once: problems that share one clean run; 32 by default.
        rows_at_once: (problem, intervention) pairs per forward pass; 128 by default.
    """

    problems_at_once: int
    rows_at_once: int


def decoding(running: Running) -> Decoding:
    """The part of `Running` that is not about interventions.

    >>> decoding({"rows_at_once": 8, "progress": False})
    {'progress': False}
    """
    found: Decoding = {}
    if "max_new_tokens" in running:
        found["max_new_tokens"] = running["max_new_tokens"]
    if "progress" in running:
        found["progress"] = running["progress"]
    return found


def measure(
    model: CodiModel,
    problems: Problems,
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    problems_at_once: int = 32,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    progress: bool = True,
    rivals: Mapping[str, str] | None = None,
    only: Only = "all",
) -> pd.DataFrame:
    """Run every intervention on every problem; one row of outcomes for each, and for clean runs.

    Args:
        model: the model.
        problems: what to think about; ids must be unique.
        arms: what to compare with the clean runs, by name: an intervention, or several that act
            together.
        out: a folder for the results, as parquet; if it holds part of the same work (the same
            model, questions, interventions, seeds and donors), only the rest is run. Whether the
            answers are correct is always judged by the problems that are given now.
        problems_at_once: problems that share one clean run.
        rows_at_once: (problem, intervention) pairs per forward pass.
        max_new_tokens: longest answer.
        progress: show a progress bar.
        rivals: for the id of every problem that of another one of them: `logit_difference` is then
            over the number of that problem's clean answer, not over the run's own runner-up.
        only: "all" problems, or those whose clean answer is "right", or "wrong". Every problem is
            run all the same, and is in `out`, so that another choice costs nothing.

    Returns:
        One row per problem and arm, the arm `clean` first: `problem`, `arm`, and the outcomes of
        `codi_lens.causal.outcomes.score`, in the order of the problems; `n_right` and `n_wrong`,
        how many clean answers were right and wrong of all problems, whichever are kept.

    Raises:
        ProblemError: no problem, ids that are not unique, or a question that does not fit.
        InterventionError: no arm, a hook that does not exist or never fired, a problem without
            a rival among the problems, or no problem that `only` keeps.
        OutputError: `out` holds something else.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> silence = Intervention([("blocks.0.attn.hook_z", lambda z, hook: 0 * z)], at="ct2")
    >>> outcomes = measure(model, word_problems(4), {"silence": silence}, progress=False)
    >>> outcomes["arm"].tolist() == ["clean"] * 4 + ["silence"] * 4
    True
    """
    check_choice("only", only, Only)
    problems = problems_for(model, problems)
    named = _named(arms)
    ids = check_work(model, problems, problems_at_once, rows_at_once, progress)
    problems_at_once, rows_at_once = int(problems_at_once), int(rows_at_once)
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
    prompts = prepare_problems(model, problems)
    batches = list(_batches(prompts, named, problems_at_once, rows_at_once))
    settings = {
        "fingerprint": model.fingerprint(),
        # Without gold answers, which judge the outcomes and decide none of them.
        "problems": [each.identity for each in problems],
        "arms": {name: _identity(arm) for name, arm in named.items()},
        "batches": [problems_at_once, rows_at_once],
        "max_new_tokens": max_new_tokens,
        "outcomes": ["log_prob", "logit_difference", "logit_margin"],
    }
    if rivals is not None:
        _check_rivals(problems, rivals)
        settings["rivals"] = dict(rivals)
    answered = partial(answered_runs, model, problems, prompts, max_new_tokens=max_new_tokens)
    total = len(problems) * (len(named) + 1)
    bar = tqdm(total=total, desc="intervening", unit="run", disable=not progress)
    stage = Stage("intervening" if out is None else as_path("out", out).name, len(named))
    with Results(out, settings) as results, bar:
        for which, group in groupby(enumerate(batches), key=lambda pair: pair[1].problems):
            todo = [(f"{number:06d}", batch) for number, batch in group]
            missing = [pair for pair in todo if not results.finished and pair[0] not in results]
            bar.update(sum(len(batch) for part, batch in todo if (part, batch) not in missing))
            if not missing:
                continue
            fed = partial(_fed, model, prompts)
            cost = len(which), fed(which, "question")
            (clean, answers), fresh = stage(CLEAN, *cost, partial(answered, which))
            if rivals is not None:
                others = [ids.index(rivals[ids[i]]) for i in which]
                cost = len(others), fed(others, "question")
                (_, theirs), _ = stage("rivals", *cost, partial(answered, others))
                answers = with_rivals(answers, theirs)
            for part, batch in missing:
                cost = batch.again, len(batch.arms) * fed(which, batch.first)
                table, own = stage(batch.first, *cost, partial(_run, clean, answers, batch, named))
                table = table if own and fresh else made_up(table, batch.labels(ids))
                results.write(part, table)
                bar.update(len(batch))
        outcomes = judged(results.finish(), problems)
        results.keep(outcomes)
    return kept(_ordered(outcomes, ids, [CLEAN, *named]), only)


def check_work(
    model: CodiModel,
    problems: Sequence[Problem],
    problems_at_once: int,
    rows_at_once: int,
    progress: bool,
) -> list[str]:
    """The ids of problems of which clean runs can be made.

    Raises:
        ProblemError: no problem, ids that are not unique, or nothing at once.
        InterventionError: the model carries hooks of its own.
    """
    check_flags(progress=progress)
    ids = check_problems(
        problems, "run", problems_at_once=problems_at_once, rows_at_once=rows_at_once
    )
    if hooked_names(model.lens):
        raise InterventionError(
            "The model carries hooks of its own, which clean runs must not; remove them first."
        )
    return ids


def answered_runs(
    model: CodiModel,
    problems: Sequence[Problem],
    prompts: Sequence[Sequence[int]],
    which: Sequence[int],
    *,
    max_new_tokens: int,
) -> tuple[CleanRuns, list[CleanAnswer]]:
    """Clean runs of some of the problems in one batch, and their answers."""
    clean = CleanRuns.of(model, [prompts[i] for i in which])
    chosen = [problems[i] for i in which]
    return clean, clean_answers(clean, chosen, max_new_tokens=max_new_tokens)


def context_for(clean: CleanRuns, answers: Sequence[CleanAnswer], rows: Sequence[int]) -> Context:
    """What interventions are planned for: these rows of clean runs, as one batch."""
    ids = [answers[row].problem.id for row in rows]
    return context_of(clean.model, [clean.prompts[row] for row in rows], ids)


def _ordered(outcomes: pd.DataFrame, ids: Sequence[str], arms: Sequence[str]) -> pd.DataFrame:
    """Arm by arm, in the order of the problems."""
    order = {name: place for place, name in enumerate(arms)}
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

    @property
    def again(self) -> int:
        """How many runs it is: clean ones are there already."""
        return 0 if self.arms == (CLEAN,) else len(self)

    def labels(self, ids: Sequence[str]) -> pd.DataFrame:
        """The problem and the arm of every row."""
        pairs = [(ids[i], arm) for arm in self.arms for i in self.problems]
        return pd.DataFrame(pairs, columns=["problem", "arm"])


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


def _fed(
    model: CodiModel, prompts: Sequence[Sequence[int]], which: Sequence[int], first: str
) -> int:
    """What a run of each of these problems feeds from `first` on, before it answers."""
    layout = layout_of(model, [prompts[i] for i in which])
    return len(which) * max(1, column_of(layout, "answer") - column_of(layout, first))


def _run(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    batch: _Batch,
    arms: Mapping[str, Sequence[Intervention | Planned]],
) -> pd.DataFrame:
    n = len(answers)
    rows = list(range(n)) * len(batch.arms)
    interventions = [
        for_rows(each, range(i * n, (i + 1) * n)) if len(batch.arms) > 1 else each
        for i, name in enumerate(batch.arms)
        for each in arms.get(name, ())
    ]
    with torch.no_grad():
        planned = plan_all(interventions, context_for(clean, answers, rows))
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


def _named(arms: Any) -> dict[str, list[Intervention | Planned]]:
    """The interventions of every arm, by name."""
    if not isinstance(arms, Mapping):
        raise InterventionError(f"The arms are a dict of interventions by name, not {shown(arms)}.")
    if not arms:
        raise InterventionError("There is no intervention to measure; give at least one.")
    named: dict[str, list[Intervention | Planned]] = {}
    for name, arm in arms.items():
        if not isinstance(name, str):
            raise InterventionError(f"The name of an arm is text, not {shown(name)}.")
        named[name] = as_interventions(arm)
        if not named[name] or name == CLEAN:
            reason = "is the name of the runs without intervention" if named[name] else "is empty"
            raise InterventionError(f"The arm {name!r} {reason}; give it an intervention.")
    return named


def _check_rivals(problems: Sequence[Problem], rivals: Mapping[str, str]) -> None:
    ids = {problem.id for problem in problems}
    for problem in problems:
        rival = rivals.get(problem.id)
        if rival not in ids or rival == problem.id:
            raise InterventionError(
                f"The rival of {problem.id!r} is {rival!r}; give the id of another problem of the "
                "measurement."
            )
