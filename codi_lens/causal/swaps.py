"""Thoughts swapped between built-in problems: which donor, the runs, and whose answer comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from jaxtyping import Float

from codi_lens.causal.means import mean_test
from codi_lens.causal.measure import CLEAN, Running, measure
from codi_lens.causal.results import Results
from codi_lens.errors import InterventionError, as_path
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.thoughts import swap_thoughts
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.words import WordProblem
from codi_lens.stats import seeded

COUNTERPART = "counterpart"
"""A donor that differs in one operand."""
UNRELATED = "unrelated"
"""A donor with another start, other operations and another answer."""
ALONE = "alone"
"""One thought is swapped; the later ones are the model's own."""
UP_TO = "with all before"
"""The thought and every one before it are swapped."""


@dataclass(frozen=True)
class Swap:
    """Thoughts that come from another problem.

    Attributes:
        donor: the kind of donor, `COUNTERPART` or `UNRELATED`.
        thought: the thought, by name.
        swapped: `ALONE` or `UP_TO`.
        partner: by problem id, the id of the donor.
    """

    donor: str
    thought: str
    swapped: str
    partner: Mapping[str, str]

    @property
    def name(self) -> str:
        """What tables of outcomes call it."""
        return f"{self.thought} {self.swapped}, {self.donor}"

    @property
    def labels(self) -> dict[str, str]:
        """What the rows of a table say of it."""
        return {"donor": self.donor, "thought": self.thought, "swapped": self.swapped}


@dataclass(frozen=True, eq=False)
class SwapOutcomes:
    """Numbers and log-probabilities by problem and arm, and which clean answers are right."""

    numbers: pd.DataFrame
    log_probs: pd.DataFrame
    correct: Mapping[str, bool]

    def right(self, swap: Swap, ids: Sequence[str]) -> list[str]:
        """The problems that the model answers right, and whose donor it answers right."""
        return [id for id in ids if self.correct[id] and self.correct[swap.partner[id]]]

    def answered(self, swap: Swap, ids: Sequence[str]) -> Float[np.ndarray, " pair"]:
        """The numbers that problems give with swapped thoughts, NaN where there is none."""
        return self.numbers.loc[list(ids), swap.name].to_numpy(dtype=float)


def run_swaps(
    model: CodiModel,
    problems: Sequence[WordProblem],
    corpus: Sequence[WordProblem],
    swaps: Sequence[Swap],
    out: str | Path | None,
    **running: Unpack[Running],
) -> SwapOutcomes:
    """Every swap on every problem; thoughts come from the clean runs of a corpus."""
    donors = Donors(model, corpus)
    arms = {
        swap.name: swap_thoughts(_which(swap), donors.paired(swap.partner), name=swap.donor)
        for swap in swaps
    }
    table = measure(model, problems, arms, out, **running)
    log_probs, numbers = (
        table.pivot(index="problem", columns="arm", values=column)
        for column in ("log_prob", "number")
    )
    return SwapOutcomes(numbers, log_probs, _right(model, donors, corpus, out))


def _right(
    model: CodiModel, donors: Donors, corpus: Sequence[WordProblem], out: str | Path | None
) -> dict[str, bool]:
    """Which problems of a corpus the model answers right; kept beside the outcomes."""
    settings = {
        "fingerprint": model.fingerprint(),
        "donors": donors.identity,
        "answers": [[problem.id, problem.answer] for problem in corpus],
    }
    with Results(None if out is None else as_path("out", out) / "answers", settings) as results:
        if not results.finished and "right" not in results:
            right = [
                answer == problem.answer
                for problem, answer in zip(corpus, donors.answers, strict=True)
            ]
            ids = [problem.id for problem in corpus]
            results.write("right", pd.DataFrame({"problem": ids, "right": right}))
        table = results.finish()
    return dict(zip(table["problem"], map(bool, table["right"]), strict=True))


def effect_of(
    outcomes: SwapOutcomes, swap: Swap, ids: Sequence[str], level: float
) -> dict[str, float]:
    """What happens to the log-probability of the own number."""
    names = ("effect", "effect_low", "effect_high", "p")
    if not ids:
        return dict.fromkeys(names, float("nan"))
    table = outcomes.log_probs.loc[list(ids)]
    change = (table[swap.name] - table[CLEAN]).to_numpy(dtype=float)
    found = mean_test(change, level=level)
    values = (found.mean, found.low, found.high, found.p)
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def chance(given: Float[np.ndarray, " pair"], expected: Float[np.ndarray, " pair"]) -> float:
    """The share of answers that equal what is expected of another pair."""
    if len(given) < 2:
        return float("nan")
    equal = given[:, None] == expected[None]
    return float((equal.sum() - np.trace(equal)) / (len(given) * (len(given) - 1)))


def unrelated_donors(problems: Sequence[WordProblem], seed: int) -> dict[str, str]:
    """For each problem another one with another start, other operations and another answer.

    Raises:
        InterventionError: a problem that has no such other one.
    """
    donors: dict[str, str] = {}
    for problem in problems:
        order = np.random.default_rng(seeded(seed, "unrelated", problem.id)).permutation(
            len(problems)
        )
        fitting = (
            other.id
            for other in (problems[i] for i in order.tolist())
            if len(other.operations) == len(problem.operations)
            and other.start != problem.start
            and other.operations != problem.operations
            and other.answer != problem.answer
        )
        donor = next(fitting, None)
        if donor is None:
            raise InterventionError(
                f"The problem {problem.id!r} has no unrelated donor among {len(problems)}; give "
                f"more problems with {len(problem.operations)} operations."
            )
        donors[problem.id] = donor
    return donors


def _which(swap: Swap) -> list[str]:
    last = int(swap.thought[2:])
    return [swap.thought] if swap.swapped == ALONE else list(thought_names(last + 1))
