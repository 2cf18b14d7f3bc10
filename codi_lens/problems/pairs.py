"""Pairs of problems that differ in one thing, so that what a patch brings over is known.

Activations of one run are put into the run of its counterpart (Vig et al. 2020; Meng et al. 2022).
What the two have in common cancels; what comes over is what depends on the one operand.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING

from codi_lens.errors import ProblemError, shown
from codi_lens.problems.arguments import (
    Split,
    Whole,
    check_seed,
    check_split,
    repeated,
    whole_number,
)
from codi_lens.problems.operations import MAX_OPERATIONS, split_of
from codi_lens.problems.problem import Problem, Problems, problem_list
from codi_lens.problems.stories import Family
from codi_lens.problems.words import (
    WordProblem,
    built_in,
    with_one_operand_changed,
    word_problems,
)

MOST_PAIRS = 5_000
"""Many for any patching; the test split holds few chains of two steps more, and all are drawn."""
_DRAWN_AT_ONCE = 50
_PATIENCE = 20  # so many draws in a row without a new pair, and there are no more to be had


_ONE_WAY = 3  # the last of three steps refers to the first, and can to no other


@dataclass(frozen=True)
class Pair:
    """A problem and its counterpart, which asks for another number.

    Attributes:
        clean: the problem.
        corrupted: its counterpart.
        operand: where they differ: 0 for the start, i for operation i, None if that is not known.
    """

    clean: Problem
    corrupted: Problem
    operand: int | None = None


if TYPE_CHECKING:
    Pairs = Iterable[Pair]
else:  # refused by `pair_list`, in a sentence, and not by a type checker at run time
    Pairs = object


def operand_pairs(
    n: Whole,
    *,
    seed: Whole = 0,
    n_operations: Whole = 3,
    split: Split = "test",
    family: Family = "plain",
) -> list[Pair]:
    """Built-in word problems, each with a counterpart that differs in exactly one number.

    From that number on all running totals differ, to the answer: what is equal once stays equal,
    and the answers differ. Wording and length are the same, and both chains belong to the split.
    Operands take turns: start, operation 1, operation 2, and so on; where the last of three steps
    refers back it can only to the first, and is left out.

    Args:
        n: how many pairs.
        seed: the same seed gives the same pairs, on every platform.
        n_operations: steps of every problem, from 1 to 5, or those that the family has.
        split: "train" or "test".
        family: of `word_problems`; an operand may then be the step that one refers to.

    Raises:
        ProblemError: `n` below 1 or above 5,000, a negative seed, an unknown split, a number of
            operations outside 1..5, or a split that has fewer such pairs.

    >>> pair = operand_pairs(2, seed=1, n_operations=2)[1]
    >>> for words in zip(pair.clean.question.split(), pair.corrupted.question.split()):
    ...     if words[0] != words[1]:
    ...         print(pair.operand, *words)
    1 7 3
    """
    n, seed = whole_number("The number of pairs", n, high=MOST_PAIRS), check_seed(seed)
    n_operations = whole_number("n_operations", n_operations, high=MAX_OPERATIONS)
    check_split(split)
    named = "" if family == "plain" else f"{family}-"
    draw = random.Random(f"codi_lens operand pairs {split} {named}{seed} {n_operations}")
    operands = list(range(n_operations + 1))
    if family != "plain" and n_operations == _ONE_WAY:
        operands.remove(_ONE_WAY)
    pairs: list[Pair] = []
    seen: set[object] = set()
    last = 0
    for part in count():
        for problem in _drawn(draw, n_operations, split, family):
            operand = operands[len(pairs) % len(operands)]
            chain = (problem.start, problem.operations)
            variants = [] if chain in seen else _variants(problem, operand, split)
            if not variants:
                continue
            seen.add(chain)
            id = f"{split}-{named}{seed}-{n_operations}-{len(pairs)}"
            other = replace(draw.choice(variants), id=f"{id} counterpart")
            pairs.append(Pair(replace(problem, id=id), other, operand))
            last = part
            if len(pairs) == n:
                return pairs
        if part - last == _PATIENCE:
            raise ProblemError(
                f"The {split} split yields only {len(pairs)} pairs of problems with {n_operations} "
                f"operations, not {n}; ask for fewer, or for longer problems."
            )
    raise AssertionError


def counterparts(problems: Problems, *, seed: Whole = 0) -> list[Pair]:
    """These very problems, each with a counterpart that differs in exactly one number.

    As in `operand_pairs`, the answers differ, and the counterpart belongs to the problem's own
    split. Operands take turns; where one allows no counterpart, the next one is taken.

    Args:
        problems: built-in ones, whose order decides on the operand.
        seed: of the choice among possible counterparts, with each problem's id.

    Returns:
        One pair for each problem that has a counterpart; compare the lengths for those without.

    Raises:
        ProblemError: other problems than built-in ones, or a negative seed.

    >>> some = word_problems(9, seed=3)
    >>> pairs = counterparts(some)
    >>> [pair.clean for pair in pairs] == some, [pair.operand for pair in pairs][:3]
    (True, [0, 0, 2])
    """
    seed = check_seed(seed)
    pairs: list[Pair] = []
    for place, problem in enumerate(built_in(problems, "pair")):
        split, n_operands = split_of(problem.start, problem.operations), len(problem.operations) + 1
        for turn in range(n_operands):
            operand = (place + turn) % n_operands
            variants = _variants(problem, operand, split)
            if variants:
                draw = random.Random(f"codi_lens counterpart {seed} {problem.id}")
                other = replace(draw.choice(variants), id=f"{problem.id} counterpart")
                pairs.append(Pair(problem, other, operand))
                break
    return pairs


def random_pairs(problems: Problems, *, seed: Whole = 0) -> list[Pair]:
    """Problems of any corpus in pairs whose answers are not known to be equal, each in one at most.

    Such pairs differ in everything, so that a patch brings over all of a problem: for what depends
    on one number, `operand_pairs` and `counterparts` are the ones to use.

    Args:
        problems: one may be left over, or more if most answers are equal. Those without a known
            answer are paired with any; a model may then give both the same number.
        seed: of the pairing.

    Raises:
        ProblemError: fewer than two problems, or all have the same answer; a negative seed.

    >>> pairs = random_pairs(word_problems(5))
    >>> len(pairs), all(pair.clean.answer != pair.corrupted.answer for pair in pairs)
    (2, True)
    """
    rest = problem_list(problems, "pair")
    random.Random(f"codi_lens random pairs {check_seed(seed)}").shuffle(rest)
    pairs: list[Pair] = []
    while rest:
        clean = rest.pop()
        other = next((each for each in rest if _may_differ(each, clean)), None)
        if other is not None:
            rest.remove(other)
            pairs.append(Pair(clean, other))
    if not pairs:
        raise ProblemError("No two of the problems can have different answers; give others.")
    return pairs


def pair_list(pairs: Pairs) -> list[Pair]:
    """Pairs as a list, whatever they come in, a generator too.

    Raises:
        ProblemError: something else, or something else among them.

    >>> len(pair_list(pair for pair in operand_pairs(2)))
    2
    """
    advice = "give a list of Pair(clean, corrupted), as operand_pairs does"
    if isinstance(pairs, str | bytes | dict) or not isinstance(pairs, Iterable):
        raise ProblemError(f"The pairs are {shown(pairs)}; {advice}.")
    listed = list(pairs)
    for place, each in enumerate(listed):
        if not isinstance(each, Pair):
            raise ProblemError(f"The pair at {place} is {shown(each)}; {advice}.")
    return listed


def both_problems(pairs: Pairs) -> list[Problem]:
    """The clean problems of pairs, then their counterparts.

    Raises:
        ProblemError: no pair, or an id that occurs twice.

    >>> [problem.id for problem in both_problems(operand_pairs(1))]
    ['test-0-3-0', 'test-0-3-0 counterpart']
    """
    pairs = pair_list(pairs)
    if not pairs:
        raise ProblemError("There are no pairs of problems; give at least one.")
    problems = [pair.clean for pair in pairs] + [pair.corrupted for pair in pairs]
    twice = repeated(problem.id for problem in problems)
    if twice is not None:
        raise ProblemError(
            f"The problem id {twice!r} occurs twice in the pairs; each problem needs its own, also "
            "one that is in two pairs."
        )
    return problems


def _variants(problem: WordProblem, operand: int, split: Split) -> list[WordProblem]:
    return [
        other
        for other in with_one_operand_changed(problem, operand, split)
        if other.answer != problem.answer
    ]


def _may_differ(a: Problem, b: Problem) -> bool:
    return a.answer is None or b.answer is None or a.answer != b.answer


def _drawn(
    draw: random.Random, n_operations: int, split: Split, family: Family
) -> list[WordProblem]:
    seed = draw.getrandbits(32)
    return word_problems(
        _DRAWN_AT_ONCE, seed=seed, split=split, n_operations=n_operations, family=family
    )
