"""Known values that a lens is asked for, and the tokens that write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from codi_lens.errors import ProblemError, shown
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.gold import Number
from codi_lens.problems.kinds import spellings
from codi_lens.problems.problem import Problem, numbers_only
from codi_lens.problems.words import WordProblem

Value = Number | str | tuple[str, ...] | None
"""A number or a text; of a boolean every way to write it."""
Targets = Literal["answer", "totals"] | Mapping[str, Sequence[Value]] | None
"""Targets by name, a value per problem; or those that problems know themselves."""


def chosen_targets(problems: Sequence[Problem], targets: Targets) -> dict[str, list[Value]]:
    """The values of each target, one per problem.

    Raises:
        ProblemError: "totals" of problems that have none, another name, or not one value each.

    >>> from codi_lens.problems import word_problems
    >>> list(chosen_targets(word_problems(1, n_operations=2), "totals"))
    ['total 1', 'total 2']
    """
    if targets is None:
        return {}
    if targets == "answer":
        return {
            "answer": [
                spellings(each.answer, each.kind) or None if each.kind == "boolean" else each.answer
                for each in problems
            ]
        }
    if targets == "totals":
        totals = [problem.totals for problem in problems if isinstance(problem, WordProblem)]
        numbers_only(problems, "Running totals")
        if len(totals) < len(problems):
            raise ProblemError("Only built-in word problems have running totals.")
        return {
            f"total {i + 1}": [each[i] if i < len(each) else None for each in totals]
            for i in range(max(map(len, totals)))
        }
    if not isinstance(targets, Mapping):
        raise ProblemError(
            f'Targets are "answer", "totals" or names with one value per problem, not '
            f"{shown(targets)}."
        )
    for name, values in targets.items():
        if len(values) != len(problems):
            raise ProblemError(
                f"The target {name!r} has {len(values)} values for {len(problems)} problems; give "
                "one each, None where a problem has none."
            )
    return {str(name): list(values) for name, values in targets.items()}


def ways_to_write(model: Loaded, value: Value) -> list[int]:
    """The single tokens that write a value, with a space before it and without.

    Raises:
        ProblemError: a value that no single token writes.
    """
    if value is None:
        return []
    unknown = model.tokenizer.unk_token_id
    words = value if isinstance(value, tuple) else (str(value),)
    texts = {text for word in words for text in (word, f" {word.strip()}")}
    ids = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    found = sorted({each[0] for each in ids if len(each) == 1 and each[0] != unknown})
    if not found:
        raise ProblemError(
            f"No single token of this model writes {shown(value)}; give a value that one does, or "
            "None."
        )
    return found
