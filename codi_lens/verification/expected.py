"""How many right answers to expect of a checkpoint, and whether there are fewer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binom, fisher_exact

from codi_lens.errors import CodiLensError, ProblemError, finite_number
from codi_lens.loading.config import CodiConfig, known_checkpoints
from codi_lens.loading.files import read_json
from codi_lens.loading.hub import resolve_folder
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem

_GSM8K = re.compile(r"(train|test)_\d+")
FEWER_LEVEL = 0.01
"""How often, at most, a checkpoint that answers as expected is said to answer fewer."""


@dataclass(frozen=True)
class Expected:
    """The share of answers that should be right.

    Attributes:
        share: between 0 and 1.
        source: where it comes from, in words.
        n: of how many problems it was measured; None for a share that is simply set.
    """

    share: float
    source: str
    n: int | None = None

    def p_fewer(self, correct: int, n: int) -> float:
        """One-sided p-value of so few right answers, or fewer (Fisher's exact test, or binomial).

        >>> Expected(0.5, "half").p_fewer(1, 10)
        0.0107421875
        """
        if self.n is None:
            return float(binom.cdf(correct, n, self.share))
        known = round(self.share * self.n)
        table = [[correct, n - correct], [known, self.n - known]]
        _, p = fisher_exact(table, alternative="less")
        return float(p)  # type: ignore[arg-type]


def expected_accuracy(
    config: CodiConfig, problems: Sequence[Problem], given: float | int | None = None
) -> tuple[Expected, list[str]]:
    """What is given, else the folder's own evaluation, else the known table, else half.

    An `evaluation.json` counts for the built-in problems that it was measured on, and the known
    table, which has GSM8K, for problems of GSM8K.

    Args:
        config: of the model.
        problems: what is run.
        given: a share to expect, from the caller.

    Returns:
        What to expect, and a sentence about a file that cannot be used.

    Raises:
        ProblemError: `given` is not between 0 and 1.
    """
    if given is not None:
        share = finite_number("expect_accuracy", given, ProblemError)
        if not 0 <= share <= 1:
            raise ProblemError(f"expect_accuracy is a share between 0 and 1, not {share:g}.")
        return Expected(float(share), "as given"), []
    notes: list[str] = []
    if all(isinstance(problem, WordProblem) for problem in problems):
        file = resolve_folder(config.source, config.hub) / "evaluation.json"
        if file.is_file():
            try:
                return _of_evaluation(file), notes
            except (CodiLensError, KeyError, TypeError, ValueError, AttributeError):
                notes.append(f"{file} does not say how many answers are right; it is not used.")
    known = known_checkpoints().get(config.source, {}).get("gsm8k")
    if known is not None and all(_GSM8K.fullmatch(problem.id) for problem in problems):
        return Expected(float(known), "known of GSM8K"), notes
    return Expected(0.5, "half, as nothing says more"), notes


def _of_evaluation(file: Path) -> Expected:
    """From an evaluation.json: {"accuracy": share, "n": count}, or what evaluate.py writes."""
    values: Any = read_json(file)
    if "accuracy" in values:
        share, n = float(values["accuracy"]), values.get("n")
    else:
        counts = values["conditions"]["six thoughts"]["all"]
        share, n = counts["correct"] / counts["n"], counts["n"]
    if not 0 <= share <= 1 or not (n is None or (isinstance(n, int) and n > 0)):
        raise ValueError
    return Expected(share, f"{file.name} of the checkpoint", n)
