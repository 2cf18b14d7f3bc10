"""Which problems count: all, or those whose clean answer was right, or wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from codi_lens.errors import InterventionError
from codi_lens.problems.parsing import is_correct
from codi_lens.problems.problem import Problem

Only = Literal["all", "right", "wrong"]
"""Problems by their clean answer; those without a known answer are in "all" alone."""

CLEAN = "clean"
"""The name of the runs without intervention in a table of outcomes."""


def judged(outcomes: pd.DataFrame, problems: Sequence[Problem]) -> pd.DataFrame:
    """The outcomes with `correct` as the problems' answers of now have it."""
    by_id = {problem.id: problem for problem in problems}
    correct = [
        float("nan") if by_id[id].answer is None else float(is_correct(answer, by_id[id]))
        for id, answer in zip(outcomes["problem"], outcomes["answer"], strict=True)
    ]
    return outcomes.assign(correct=correct)


def kept(outcomes: pd.DataFrame, only: Only) -> pd.DataFrame:
    """The outcomes of the problems that count, with `n_right` and `n_wrong` of all of them.

    Raises:
        InterventionError: none counts; says how many are right, wrong and unknown.

    >>> table = pd.DataFrame({"problem": ["a", "b"], "arm": CLEAN, "correct": [1.0, 0.0]})
    >>> kept(table, "wrong").to_dict("records")
    [{'problem': 'b', 'arm': 'clean', 'correct': 0.0, 'n_right': 1, 'n_wrong': 1}]
    """
    clean = outcomes[outcomes["arm"] == CLEAN].set_index("problem")["correct"]
    n_right, n_wrong = int((clean == 1).sum()), int((clean == 0).sum())
    if only != "all":
        chosen = clean.index[clean == (1 if only == "right" else 0)]
        if not len(chosen):
            raise InterventionError(
                f"No clean answer is {only}: of {len(clean)}, {n_right} are right, {n_wrong} wrong "
                f"and {len(clean) - n_right - n_wrong} of problems without a known answer."
            )
        outcomes = outcomes[outcomes["problem"].isin(chosen)].reset_index(drop=True)
    return outcomes.assign(n_right=n_right, n_wrong=n_wrong)
