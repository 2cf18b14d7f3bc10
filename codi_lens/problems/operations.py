"""The steps of a built-in word problem, and the running totals that they come to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from codi_lens.errors import ProblemError
from codi_lens.problems.arguments import Split

MAX_TOTAL = 49
MAX_OPERATIONS = 5
_HELD_OUT = 0.05


@dataclass(frozen=True)
class Operation:
    """One step of a word problem: change the running total, perhaps only on a condition.

    Attributes:
        kind: "add" or "subtract" `amount`; or a conditional: "lose_if_over" (subtract `amount` if
            the total is over `threshold`), "double_if_under", "halve_if_over" (rounding down).
        amount: the number added or subtracted; None for doubling and halving, and for a step that
            refers back.
        threshold: what the running total is compared with, None for the unconditional kinds.
        verb: the word the question uses.
        refers_to: k where the step adds or subtracts the total after step k (from 1) instead of an
            `amount`; None elsewhere.

    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(25)
    12
    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(20)
    20
    >>> Operation("add", verb="gets", refers_to=1).apply(8, (5, 8))
    13
    """

    kind: Literal["add", "subtract", "lose_if_over", "double_if_under", "halve_if_over"]
    amount: int | None = None
    threshold: int | None = None
    verb: str = ""
    refers_to: int | None = None

    def fires(self, total: int) -> bool:
        """Whether this step changes a running total of `total`."""
        if self.threshold is None:
            return True
        return total < self.threshold if self.kind == "double_if_under" else total > self.threshold

    def by(self, totals: Sequence[int] = ()) -> int:
        """The number that is added or subtracted; 0 for doubling and halving.

        Args:
            totals: the totals after the steps before this one, for a step that refers back.

        Raises:
            ProblemError: a step that refers to one whose total is not given.

        >>> Operation("subtract", refers_to=2).by((5, 8))
        8
        """
        if self.refers_to is None:
            return self.amount or 0
        if not 1 <= self.refers_to <= len(totals):
            raise ProblemError(
                f"The step refers to the total after step {self.refers_to}, but {len(totals)} "
                "totals are given; give those after all steps before it."
            )
        return totals[self.refers_to - 1]

    def apply(self, total: int, totals: Sequence[int] = ()) -> int:
        """The running total after this step.

        Args:
            total: the one before it.
            totals: those after the steps before this one, for a step that refers back: see `by`.
        """
        if not self.fires(total):
            return total
        match self.kind:
            case "add":
                return total + self.by(totals)
            case "subtract" | "lose_if_over":
                return total - self.by(totals)
            case "double_if_under":
                return total * 2
            case "halve_if_over":
                return total // 2

    def equation(self, total: int, totals: Sequence[int] = ()) -> str:
        """The step as a chain-of-thought model writes it; arguments as for `apply`.

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
            change = f"{'+' if self.kind == 'add' else '-'} {self.by(totals)}"
        return f"<< {total} {change} = {self.apply(total, totals)} >>"


@dataclass(frozen=True, order=True)
class Reference:
    """A step that refers to an earlier one, in a problem of so many operations."""

    n_operations: int
    step: int
    refers_to: int

    @property
    def edge(self) -> tuple[str, str]:
        """The query and the key that it needs.

        The query is the position whose output becomes the thought that stands for the total after
        the step, or `answer` where that is the last one; the key is the thought that stands for
        the total that it refers to.

        >>> Reference(5, 4, 1).edge, Reference(4, 4, 2).edge
        (('ct2', 'ct0'), ('answer', 'ct1'))
        """
        last = self.step == self.n_operations
        return ("answer" if last else f"ct{self.step - 2}", f"ct{self.refers_to - 1}")

    @property
    def name(self) -> str:
        """For tables and figures.

        >>> Reference(5, 4, 1).name
        'step 4 of 5 refers to 1'
        """
        return f"step {self.step} of {self.n_operations} refers to {self.refers_to}"


def split_of(start: int, operations: Iterable[Operation]) -> Split:
    """Which split a chain belongs to: "test" for the held-out 5 %, by its hash.

    >>> from codi_lens.problems import word_problems
    >>> problem = word_problems(1, split="train")[0]
    >>> split_of(problem.start, problem.operations)
    'train'
    """
    chain = [
        (step.kind, step.amount, step.threshold)
        + (() if step.refers_to is None else (step.refers_to,))
        for step in operations
    ]
    digest = hashlib.sha256(repr((start, chain)).encode()).digest()
    held_out = int.from_bytes(digest[:8], "big") < _HELD_OUT * 2**64
    return "test" if held_out else "train"


def totals_of(
    start: int, operations: Iterable[Operation], given: Mapping[int, int] | None = None
) -> tuple[int, ...]:
    """The total after each operation; the last one is the answer.

    Args:
        start: the number that the story begins with.
        operations: the steps, in order.
        given: totals that are these whatever comes before them, by step (0 for the start): what
            the story comes to if a thought brings another problem's total.

    Raises:
        ProblemError: a step that refers to itself or to a later one.

    >>> totals_of(30, [Operation("add", 7), Operation("halve_if_over", threshold=20)])
    (37, 18)
    >>> steps = [Operation("add", 7), Operation("subtract", 2), Operation("add", refers_to=1)]
    >>> totals_of(3, steps), totals_of(3, steps, given={2: 20})
    ((10, 8, 18), (10, 20, 30))
    """
    given = given or {}
    total, totals = given.get(0, start), []
    for number, step in enumerate(operations, 1):
        total = given[number] if number in given else step.apply(total, totals)
        totals.append(total)
    return tuple(totals)
