"""Built-in word problems: every operation and every running total is known."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

from codi_lens.errors import ProblemError, shown
from codi_lens.problems.arguments import Split, Whole, check_seed, check_split, whole_number
from codi_lens.problems.problem import Problem, Problems, problem_list


@dataclass(frozen=True)
class Operation:
    """One step of a word problem: change the running total, perhaps only on a condition.

    Attributes:
        kind: "add" or "subtract" `amount`; or a conditional: "lose_if_over" (subtract `amount` if
            the total is over `threshold`), "double_if_under", "halve_if_over" (rounding down).
        amount: the number added or subtracted, None for doubling and halving.
        threshold: what the running total is compared with, None for the unconditional kinds.
        verb: the word the question uses.

    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(25)
    12
    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(20)
    20
    """

    kind: Literal["add", "subtract", "lose_if_over", "double_if_under", "halve_if_over"]
    amount: int | None = None
    threshold: int | None = None
    verb: str = ""

    def fires(self, total: int) -> bool:
        """Whether this step changes a running total of `total`."""
        if self.threshold is None:
            return True
        return total < self.threshold if self.kind == "double_if_under" else total > self.threshold

    def apply(self, total: int) -> int:
        """The running total after this step."""
        if not self.fires(total):
            return total
        match self.kind:
            case "add":
                return total + (self.amount or 0)
            case "subtract" | "lose_if_over":
                return total - (self.amount or 0)
            case "double_if_under":
                return total * 2
            case "halve_if_over":
                return total // 2

    def equation(self, total: int) -> str:
        """The step as a chain-of-thought model writes it.

        >>> Operation("add", amount=7, verb="finds").equation(14)
        '<< 14 + 7 = 21 >>'
        """
        if not self.fires(total):
            change = "+ 0"
        elif self.kind == "double_if_under":
            change = "* 2"
        elif self.kind == "halve_if_over":
            change = "/ 2"
        else:
            change = f"{'+' if self.kind == 'add' else '-'} {self.amount}"
        return f"<< {total} {change} = {self.apply(total)} >>"


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
        steps = zip(self.operations, before, strict=False)
        return " ".join(operation.equation(total) for operation, total in list(steps)[:-1])


MAX_TOTAL = 49
MAX_OPERATIONS = 5
MOST_PROBLEMS = 1_000_000
"""Hours of thinking for any model; a larger number is a slip."""
_STARTS = range(8, 36)
_AMOUNTS = range(2, 10)
_OVER = (10, 15, 20)
_UNDER = (20, 25)
_PEOPLE = (("Zoe", "she"), ("Ana", "she"), ("Mia", "she"), ("Ivy", "she"))
_PEOPLE += (("Tom", "he"), ("Max", "he"), ("Leo", "he"), ("Sam", "he"))
_ITEMS = ("coins", "cards", "books", "shells", "stamps", "apples")
_ADD_VERBS = ("finds", "buys", "wins", "gets")
_SUBTRACT_VERBS = ("loses", "sells", "spends", "drops")
_HELD_OUT = 0.05


def word_problems(
    n: Whole,
    *,
    seed: Whole = 0,
    split: Split = "test",
    n_operations: Whole | Sequence[Whole] = tuple(range(1, MAX_OPERATIONS + 1)),
) -> list[WordProblem]:
    """Generate `n` multi-step word problems whose every running total is known.

    The conditional steps do not compose in parallel, so a model has to follow the running total.
    Totals stay in 0..49. A *chain* (start and operations) belongs to the test split if its hash
    falls in the held-out 5 %, so no chain is in both splits, whatever the seeds.

    Args:
        n: how many problems.
        seed: the same seed gives the same problems, on every platform.
        split: "train" or "test".
        n_operations: the number of steps, or the numbers to draw from uniformly (1 to 5).

    Raises:
        ProblemError: `n` below 1 or above a million, a negative seed, an unknown split or a number
            of operations outside 1..5.

    >>> problem = word_problems(1, seed=6, n_operations=2)[0]
    >>> problem.question.split(". ")[:3]
    ['Mia has 15 stamps', 'Then she buys 5 more', 'If she has over 20, she halves them']
    >>> problem.totals, problem.answer, problem.id
    ((20, 20), 20, 'test-6-0')
    """
    n = whole_number("The number of problems", n, high=MOST_PROBLEMS)
    seed = check_seed(seed)
    check_split(split)
    lengths = _lengths(n_operations)
    draw = random.Random(f"codi_lens word problems {split} {seed}")
    problems: list[WordProblem] = []
    while len(problems) < n:
        start = draw.choice(_STARTS)
        operations, totals = _draw_chain(draw, start, draw.choice(lengths))
        if split_of(start, operations) == split:
            question = _write(draw, start, operations)
            id = f"{split}-{seed}-{len(problems)}"
            problems.append(WordProblem(question, totals[-1], id, start, operations, totals))
    return problems


def split_of(start: int, operations: Iterable[Operation]) -> Split:
    """Which split a chain belongs to: "test" for the held-out 5 %, by its hash.

    >>> problem = word_problems(1, split="train")[0]
    >>> split_of(problem.start, problem.operations)
    'train'
    """
    chain = [(step.kind, step.amount, step.threshold) for step in operations]
    digest = hashlib.sha256(repr((start, chain)).encode()).digest()
    held_out = int.from_bytes(digest[:8], "big") < _HELD_OUT * 2**64
    return "test" if held_out else "train"


def totals_of(start: int, operations: Iterable[Operation]) -> tuple[int, ...]:
    """The total after each operation; the last one is the answer.

    >>> totals_of(30, [Operation("add", 7), Operation("halve_if_over", threshold=20)])
    (37, 18)
    """
    return tuple(accumulate(operations, lambda total, step: step.apply(total), initial=start))[1:]


def with_one_operand_changed(
    problem: WordProblem, operand: Whole, split: Split | None = None
) -> list[WordProblem]:
    """The same story with one other number: every variant that the generator could have drawn.

    Name, item, verbs and every other number stay. A variant may belong to another split, and may
    have the same answer; its id is that of the problem with the operand and its new number.

    Args:
        problem: of `word_problems`.
        operand: 0 for the start, i for an amount or a threshold of operation i.
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
    first = re.match(r"(\w+) has \d+ (\w+)\.", problem.question)
    if first is None or first[1] not in dict(_PEOPLE):
        raise ProblemError(
            f"The problem {problem.id!r} does not tell a story of `word_problems`; give one that "
            "does."
        )
    story = (first[1], dict(_PEOPLE)[first[1]], first[2])
    variants: list[WordProblem] = []
    for start, operations, changed in _variants(problem, operand):
        if split is not None and split_of(start, operations) != split:
            continue
        totals = totals_of(start, operations)
        if all(0 <= total <= MAX_TOTAL for total in totals):
            id = f"{problem.id} operand {operand} {changed}"
            question = _tell(story, start, operations)
            variants.append(WordProblem(question, totals[-1], id, start, operations, totals))
    return variants


def built_in(problems: Problems, doing: str) -> list[WordProblem]:
    """Problems as a list, all of them built-in ones.

    Raises:
        ProblemError: something else, or something else among them.

    >>> len(built_in(word_problems(2), "change"))
    2
    """
    listed = problem_list(problems, doing)
    for each in listed:
        if not isinstance(each, WordProblem):
            raise ProblemError(
                f"The running totals of {each.id!r} are not known; give built-in word problems."
            )
    return [each for each in listed if isinstance(each, WordProblem)]


def _lengths(given: Any) -> tuple[int, ...]:
    lengths: tuple[Any, ...] = (given,)
    with suppress(TypeError):
        lengths = tuple(given)
    try:
        if not lengths:
            raise ProblemError("")
        return tuple(whole_number("", length, high=MAX_OPERATIONS) for length in lengths)
    except ProblemError:
        raise ProblemError(
            f"n_operations must lie in 1..{MAX_OPERATIONS}, not {shown(given)}."
        ) from None


def _draw_chain(
    draw: random.Random, start: int, length: int
) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    operations: list[Operation] = []
    totals: list[int] = []
    total = start
    while len(operations) < length:
        operation = _draw_operation(draw)
        after = operation.apply(total)
        if 0 <= after <= MAX_TOTAL:
            operations.append(operation)
            totals.append(after)
            total = after
    return tuple(operations), tuple(totals)


def _draw_operation(draw: random.Random) -> Operation:
    match draw.randrange(5):
        case 0:
            return Operation("add", draw.choice(_AMOUNTS), verb=draw.choice(_ADD_VERBS))
        case 1:
            return Operation("subtract", draw.choice(_AMOUNTS), verb=draw.choice(_SUBTRACT_VERBS))
        case 2:
            return Operation("lose_if_over", draw.choice(_AMOUNTS), draw.choice(_OVER), "loses")
        case 3:
            return Operation("double_if_under", None, draw.choice(_UNDER), "doubles")
        case _:
            return Operation("halve_if_over", None, draw.choice(_OVER), "halves")


def _variants(
    problem: WordProblem, operand: int
) -> Iterator[tuple[int, tuple[Operation, ...], str]]:
    """Start and operations with another number for one operand, and which number that is."""
    if operand == 0:
        for start in _STARTS:
            if start != problem.start:
                yield start, problem.operations, str(start)
        return
    before, after = problem.operations[: operand - 1], problem.operations[operand:]
    step = problem.operations[operand - 1]
    thresholds = _UNDER if step.kind == "double_if_under" else _OVER
    if step.amount is not None:
        for amount in _AMOUNTS:
            if amount != step.amount:
                yield problem.start, (*before, replace(step, amount=amount), *after), str(amount)
    if step.threshold is not None:
        for threshold in thresholds:
            if threshold != step.threshold:
                changed = replace(step, threshold=threshold)
                yield problem.start, (*before, changed, *after), f"threshold {threshold}"


def _write(draw: random.Random, start: int, operations: Iterable[Operation]) -> str:
    name, pronoun = draw.choice(_PEOPLE)
    return _tell((name, pronoun, draw.choice(_ITEMS)), start, operations)


def _tell(story: tuple[str, str, str], start: int, operations: Iterable[Operation]) -> str:
    name, pronoun, item = story
    sentences = [f"{name} has {start} {item}."]
    for step in operations:
        match step.kind:
            case "add":
                sentences.append(f"Then {pronoun} {step.verb} {step.amount} more.")
            case "subtract":
                sentences.append(f"Then {pronoun} {step.verb} {step.amount}.")
            case "lose_if_over":
                sentences.append(
                    f"If {pronoun} has over {step.threshold}, {pronoun} {step.verb} {step.amount}."
                )
            case "double_if_under" | "halve_if_over":
                side = "under" if step.kind == "double_if_under" else "over"
                sentences.append(
                    f"If {pronoun} has {side} {step.threshold}, {pronoun} {step.verb} them."
                )
    sentences.append(f"How many {item} does {pronoun} have?")
    return " ".join(sentences)
