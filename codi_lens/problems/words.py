"""Built-in word problems: every operation, every running total and every recall is known."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from codi_lens.errors import ProblemError, check_choice, shown
from codi_lens.problems.arguments import Split, Whole, check_seed, check_split, whole_number
from codi_lens.problems.operations import MAX_OPERATIONS, Operation, Reference, split_of
from codi_lens.problems.problem import Problem, Problems, numbers_only, problem_list
from codi_lens.problems.stories import (
    Family,
    draw_chain,
    draw_story,
    story_of,
    tell,
    with_other_operand,
)

MOST_PROBLEMS = 1_000_000
"""Hours of thinking for any model; a larger number is a slip."""
_FEWEST_REFERRING = 3


@dataclass(frozen=True)
class WordProblem(Problem):
    """A built-in word problem, with the ground truth of every step.

    Attributes:
        start: the number the story begins with.
        operations: the steps, in order.
        totals: the running total after each step; the last one is the answer.
    """

    start: int
    operations: tuple[Operation, ...]
    totals: tuple[int, ...]

    @property
    def solution(self) -> str:
        """Explicit chain of thought: every step but the last, which the answer itself states."""
        before = (self.start, *self.totals)
        return " ".join(
            step.equation(before[place], self.totals[:place])
            for place, step in enumerate(self.operations[:-1])
        )

    @property
    def references(self) -> tuple[Reference, ...]:
        """The steps that refer to an earlier one, in order."""
        n = len(self.operations)
        return tuple(
            Reference(n, number, step.refers_to)
            for number, step in enumerate(self.operations, 1)
            if step.refers_to is not None
        )

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The recalls, as (query, key): which position has to read which thought.

        Where step j refers to step k, the query is `ct{j-2}`, or `answer` where j is the last step
        (attention scores read it in row `anchor`), and the key `ct{k-1}`; see `Reference.edge`.

        >>> problem = word_problems(1, family="mixed", seed=3, n_operations=5)[0]
        >>> [step.refers_to for step in problem.operations], problem.edges
        ([None, None, 1, None, None], (('ct1', 'ct0'),))
        """
        return tuple(reference.edge for reference in self.references)


def word_problems(
    n: Whole,
    *,
    seed: Whole = 0,
    split: Split = "test",
    n_operations: Whole | Sequence[Whole] | None = None,
    family: Family = "plain",
) -> list[WordProblem]:
    """Generate `n` multi-step word problems whose every running total is known.

    The conditional steps do not compose in parallel, so a model has to follow the running total.
    Totals stay in 0..49. A *chain* (start and operations) belongs to the test split if its hash
    falls in the held-out 5 %, so no chain is in both splits, whatever the seeds.

    In the other families one or two steps add or subtract the total after an earlier step, which
    is no number of the text and no other total before it: one thought has to read another one. See
    `WordProblem.edges`. "hub": every reference is to step 1; "skip": the last step refers to one of
    the first half; "sequential": step j refers to step j - 2; "mixed": to any but the one before.

    Args:
        n: how many problems.
        seed: the same seed gives the same problems, on every platform.
        split: "train" or "test".
        n_operations: the number of steps, or the numbers to draw from, each as often as it is
            given: 1 to 5, in families that refer back 3 to 5; all of these by default.
        family: which steps refer to which.

    Raises:
        ProblemError: `n` below 1 or above a million, a negative seed, an unknown split or family,
            or a number of operations that the family does not have.

    >>> problem = word_problems(1, seed=6, n_operations=2)[0]
    >>> problem.question.split(". ")[:3]
    ['Mia has 15 stamps', 'Then she buys 5 more', 'If she has over 20, she halves them']
    >>> problem.totals, problem.answer, problem.id
    ((20, 20), 20, 'test-6-0')
    """
    n = whole_number("The number of problems", n, high=MOST_PROBLEMS)
    seed = check_seed(seed)
    check_split(split)
    check_choice("family", family, Family, ProblemError)
    lengths = _lengths(n_operations, 1 if family == "plain" else _FEWEST_REFERRING)
    named = "" if family == "plain" else f"{family}-"
    draw = random.Random(f"codi_lens word problems {split} {named}{seed}")
    problems: list[WordProblem] = []
    while len(problems) < n:
        start, operations, totals = draw_chain(draw, lengths, family)
        if split_of(start, operations) == split:
            question = tell(draw_story(draw), start, operations)
            id = f"{split}-{named}{seed}-{len(problems)}"
            problems.append(WordProblem(question, totals[-1], id, start, operations, totals))
    return problems


def with_one_operand_changed(
    problem: WordProblem, operand: Whole, split: Split | None = None
) -> list[WordProblem]:
    """The same story with one other number: every variant that the generator could have drawn.

    Name, item, verbs and every other number stay. A variant may belong to another split, and may
    have the same answer; its id is that of the problem with the operand and its new number.

    Args:
        problem: of `word_problems`.
        operand: 0 for the start, i for an amount or a threshold of operation i, or for the step
            that it refers to.
        split: "train" or "test", for the variants of one alone.

    Raises:
        ProblemError: an operand that the problem does not have.

    >>> problem = word_problems(1, seed=6, n_operations=2)[0]
    >>> [variant.question.split(". ")[1] for variant in with_one_operand_changed(problem, 1)[:2]]
    ['Then she buys 2 more', 'Then she buys 3 more']
    """
    built_in([problem], "change")
    last = len(problem.operations)
    try:
        operand = whole_number("The operand", operand, low=0, high=last)
    except ProblemError:
        raise ProblemError(
            f"The problem {problem.id!r} has the operands 0..{last}, not {shown(operand)}."
        ) from None
    story = story_of(problem.question)
    if story is None:
        raise ProblemError(
            f"The problem {problem.id!r} does not tell a story of `word_problems`; give one that "
            "does."
        )
    chain = (problem.start, problem.operations, problem.totals)
    return [
        WordProblem(
            tell(story, start, operations),
            totals[-1],
            f"{problem.id} operand {operand} {changed}",
            start,
            operations,
            totals,
        )
        for (start, operations, totals), changed in with_other_operand(chain, operand)
        if split is None or split_of(start, operations) == split
    ]


def built_in(problems: Problems, doing: str) -> list[WordProblem]:
    """Problems as a list, all of them built-in ones.

    Raises:
        ProblemError: something else, or something else among them.

    >>> len(built_in(word_problems(2), "change"))
    2
    """
    listed = problem_list(problems, doing)
    numbers_only(listed, "Running totals")
    for each in listed:
        if not isinstance(each, WordProblem):
            raise ProblemError(
                f"The running totals of {each.id!r} are not known; give built-in word problems."
            )
    return [each for each in listed if isinstance(each, WordProblem)]


def _lengths(given: Any, fewest: int) -> tuple[int, ...]:
    lengths: tuple[Any, ...] = (given,)
    if given is None:
        lengths = tuple(range(fewest, MAX_OPERATIONS + 1))
    with suppress(TypeError):
        lengths = tuple(lengths if given is None else given)
    try:
        if not lengths:
            raise ProblemError("")
        return tuple(whole_number("", each, low=fewest, high=MAX_OPERATIONS) for each in lengths)
    except ProblemError:
        raise ProblemError(
            f"n_operations must lie in {fewest}..{MAX_OPERATIONS}, not {shown(given)}."
        ) from None
