"""The batches of a measurement: which runs go together, and what runs them, here or elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import pandas as pd
import torch

from codi_lens.causal.clean_answers import CleanAnswer, with_rivals
from codi_lens.causal.outcomes import score
from codi_lens.causal.strata import CLEAN
from codi_lens.model import CodiModel
from codi_lens.positions import rank
from codi_lens.stand_ins import made_up
from codi_lens.thinking.clean_runs import CleanRuns, column_of
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, for_rows, plan_all
from codi_lens.thinking.prompts import layout_of
from codi_lens.thinking.think import context_of
from codi_lens.work import Stage
from codi_lens.workers.spread import Spread


def context_for(clean: CleanRuns, answers: Sequence[CleanAnswer], rows: Sequence[int]) -> Context:
    """What interventions are planned for: these rows of clean runs, as one batch."""
    ids = [answers[row].problem.id for row in rows]
    return context_of(clean.model, [clean.prompts[row] for row in rows], ids)


@dataclass(frozen=True)
class Batch:
    """Which problems, under which arms, in one batch from one starting point."""

    problems: tuple[int, ...]
    arms: tuple[str, ...]
    first: str

    def __len__(self) -> int:
        """How many rows it has."""
        return len(self.problems) * len(self.arms)

    @property
    def again(self) -> int:
        """How many runs it is: clean ones are there already."""
        return 0 if self.arms == (CLEAN,) else len(self)

    def labels(self, ids: Sequence[str]) -> pd.DataFrame:
        """The problem and the arm of every row."""
        pairs = [(ids[i], arm) for arm in self.arms for i in self.problems]
        return pd.DataFrame(pairs, columns=["problem", "arm"])


def batches_of(
    prompts: Sequence[Sequence[int]],
    arms: Mapping[str, Sequence[Intervention | Planned]],
    problems_at_once: int,
    rows_at_once: int,
) -> Iterator[Batch]:
    """Problems of similar length together; arms that start at the same position together."""
    order = np.argsort([-len(prompt) for prompt in prompts], kind="stable").tolist()
    first = {name: min((each.first for each in arm), key=rank) for name, arm in arms.items()}
    by_first = sorted(arms, key=lambda name: rank(first[name]))
    for start in range(0, len(order), problems_at_once):
        which = tuple(order[start : start + problems_at_once])
        yield Batch(which, (CLEAN,), "answer")
        size = max(1, rows_at_once // len(which))
        for position, names in groupby(by_first, key=first.__getitem__):
            together = list(names)
            for i in range(0, len(together), size):
                yield Batch(which, tuple(together[i : i + size]), position)


_PARTS = 8
"""Batches of a worker's task, which begins with a clean run of its own unless it has it still."""
_Task = list[tuple[str, Batch]]


def tasks_of(parts: Sequence[tuple[str, Batch]], spread: Spread) -> list[_Task]:
    """Batches of the same problems each: few for a worker, one by one here."""
    tasks: list[_Task] = []
    size = _PARTS if spread else 1
    for _, group in groupby(parts, key=lambda each: each[1].problems):
        together = list(group)
        tasks += [together[i : i + size] for i in range(0, len(together), size)]
    return tasks


@dataclass
class Job:
    """Runs batches of the same problems.

    Attributes:
        answered: makes clean runs of problems, with their answers.
        arms: by name.
        rival: of each problem, if they have rivals.
        ids: of the problems.
        fed: how many positions runs of some problems feed, from one position on.
        stage: runs each batch, or a sample of them.
    """

    answered: Callable[[Sequence[int]], tuple[CleanRuns, list[CleanAnswer]]]
    arms: Mapping[str, Sequence[Intervention | Planned]]
    rival: Sequence[int] | None
    ids: Sequence[str]
    fed: Callable[[Sequence[int], str], int]
    stage: Stage
    _last: tuple[Sequence[int], tuple[CleanRuns, list[CleanAnswer]], bool] | None = None

    def __call__(self, task: _Task) -> Iterator[tuple[str, pd.DataFrame]]:
        """The outcomes of each batch, as a part."""
        which = task[0][1].problems
        if self._last is None or self._last[0] != which:
            self._last = None  # its memory first
            self._last = which, *self._clean(which)
        _, given, fresh = self._last
        for part, batch in task:
            cost = batch.again, len(batch.arms) * self.fed(which, batch.first)
            table, own = self.stage(batch.first, *cost, partial(_run, *given, batch, self.arms))
            yield part, table if own and fresh else made_up(table, batch.labels(self.ids))

    def _clean(self, which: Sequence[int]) -> tuple[tuple[CleanRuns, list[CleanAnswer]], bool]:
        """The clean runs, and whether they are those of these problems."""
        cost = len(which), self.fed(which, "question")
        (clean, answers), fresh = self.stage(CLEAN, *cost, partial(self.answered, which))
        if self.rival is not None:
            others = [self.rival[i] for i in which]
            cost = len(others), self.fed(others, "question")
            (_, theirs), _ = self.stage("rivals", *cost, partial(self.answered, others))
            answers = with_rivals(answers, theirs)
        return (clean, answers), fresh


def fed_from(
    model: CodiModel, prompts: Sequence[Sequence[int]], which: Sequence[int], first: str
) -> int:
    """What a run of each of these problems feeds from `first` on, before it answers."""
    layout = layout_of(model, [prompts[i] for i in which])
    return len(which) * max(1, column_of(layout, "answer") - column_of(layout, first))


def _run(
    clean: CleanRuns,
    answers: Sequence[CleanAnswer],
    batch: Batch,
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
