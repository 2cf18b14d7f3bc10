"""Problems whose steps refer back: the edges that they need, and that nothing else will do."""

from __future__ import annotations

import hashlib
import re
from typing import get_args

import pytest

from codi_lens import ProblemError
from codi_lens.problems import (
    MAX_TOTAL,
    Family,
    Operation,
    Problem,
    WordProblem,
    is_correct,
    split_of,
    totals_of,
    with_one_operand_changed,
    word_problems,
)
from codi_lens.problems.chains import chain_of

REFERRING: tuple[Family, ...] = tuple(each for each in get_args(Family) if each != "plain")


def steps_of(question: str) -> tuple[int, list[str]]:
    """Start and steps, read off the text by other code than wrote it."""
    story, *steps, _ = re.split(r"(?<=\.) ", question)
    start = re.search(r"\d+", story)
    assert start is not None
    assert all(step.startswith(f"Step {number}: ") for number, step in enumerate(steps, 1))
    return int(start[0]), [step.split(": ")[1] for step in steps]


def solve(question: str, forced: dict[int, int] | None = None, *, refer: bool = True) -> list[int]:
    """The totals after 0, 1, 2, ... steps, some of them forced; perhaps blind to references."""
    start, steps = steps_of(question)
    totals = [start]
    for number, step in enumerate(steps, 1):
        total, (amount, *rest) = totals[-1], [int(n) for n in re.findall(r"\d+", step)]
        if "as many as after step" in step:
            amount = totals[amount] if refer else 0
            total += amount if "gets" in step else -amount
        elif step.startswith("if"):
            if total > amount if "over" in step else total < amount:
                total = total * 2 if "doubles" in step else total
                total = total // 2 if "halves" in step else total
                total -= rest[0] if rest else 0
        else:
            total += amount if step.endswith("more.") else -amount
        totals.append((forced or {}).get(number, total))
    return totals


def dependencies(question: str) -> set[tuple[int, int]]:
    """(j, k): total j changes with total k although every total between them is held."""
    totals = solve(question)
    found = set()
    for k in range(1, len(totals)):
        for j in range(k + 2, len(totals)):
            held = {step: totals[step] for step in range(k + 1, j)}
            outcomes = {solve(question, held | {k: other})[j] for other in range(MAX_TOTAL + 1)}
            if len(outcomes) > 1:
                found.add((j, k))
    return found


@pytest.mark.parametrize("family", REFERRING)
def test_edges_are_what_the_text_depends_on(family: Family) -> None:
    for problem in word_problems(60, family=family, seed=2):
        assert solve(problem.question)[1:] == list(problem.totals)
        last = len(problem.operations)
        assert set(problem.edges) == {
            ("answer" if j == last else f"ct{j - 2}", f"ct{k - 1}")
            for j, k in dependencies(problem.question)
        }
        assert len(problem.edges) in (1, 2)


@pytest.mark.parametrize(
    ("family", "rule"),
    [
        ("hub", lambda j, k, n: k == 1),
        ("skip", lambda j, k, n: j == n and k <= (n - 1) // 2),
        ("sequential", lambda j, k, n: k == j - 2),
        ("mixed", lambda j, k, n: 1 <= k <= j - 2),
    ],
)
def test_each_family_refers_as_it_says(family: Family, rule) -> None:
    seen = set()
    for problem in word_problems(400, family=family, split="train"):
        n = len(problem.operations)
        for j, step in enumerate(problem.operations, 1):
            if step.refers_to is not None:
                seen.add((j, step.refers_to, n))
    assert all(rule(*each) for each in seen)
    every = {(j, k, n) for n in (3, 4, 5) for j in range(3, n + 1) for k in range(1, j - 1)}
    assert seen == {each for each in every if rule(*each)}


@pytest.mark.parametrize("family", REFERRING)
def test_what_a_step_refers_to_stands_nowhere_else(family: Family) -> None:
    for problem in word_problems(150, family=family, seed=4):
        told = set(re.findall(r"\d+", problem.question))
        assert all(0 <= total <= MAX_TOTAL for total in problem.totals)
        for place, step in enumerate(problem.operations):
            if step.refers_to is not None:
                value = problem.totals[step.refers_to - 1]
                assert str(value) not in told
                assert problem.totals[:place].count(value) == 1
                assert f"{value}" in problem.solution


@pytest.mark.slow
@pytest.mark.parametrize("family", REFERRING)
def test_without_the_references_answers_are_right_at_chance(family: Family) -> None:
    problems = word_problems(1000, family=family, seed=1)
    answers = [problem.answer for problem in problems]
    chance = sum((answers.count(value) / len(answers)) ** 2 for value in set(answers))

    blind = [solve(problem.question, refer=False)[-1] for problem in problems]
    right = sum(guess == answer for guess, answer in zip(blind, answers, strict=True))
    assert right / len(problems) <= chance < 0.05


def test_plain_problems_are_what_they_were() -> None:
    told = [
        f"{problem.id} {problem.question} {problem.answer} {problem.solution}"
        for split in ("train", "test")
        for n in (2, (3, 5), None)
        for problem in word_problems(50, seed=11, split=split, n_operations=n)
    ]
    assert hashlib.sha256("\n".join(told).encode()).hexdigest() == PLAIN
    assert all(problem.edges == () for problem in word_problems(20))
    assert Problem("1 + 1?", 2, "a").edges == ()


def test_families_differ_and_their_splits_are_disjoint() -> None:
    both = [word_problems(300, family="mixed", split=split) for split in ("train", "test")]
    train, test = ({(p.start, p.operations) for p in problems} for problems in both)
    assert not train & test
    assert all(split_of(start, operations) == "test" for start, operations in test)
    ids = [problem.id for family in REFERRING for problem in word_problems(20, family=family)]
    assert len(set(ids)) == len(ids)
    assert word_problems(9, family="hub", seed=3) == word_problems(9, family="hub", seed=3)


def test_a_variant_refers_to_another_step() -> None:
    problem, other = next(
        (each, variant)
        for each in word_problems(50, family="mixed", n_operations=4)
        if each.edges == (("answer", "ct0"),)
        for variant in with_one_operand_changed(each, 4)
    )
    assert other.edges == (("answer", "ct1"),)
    assert other.question == problem.question.replace("after step 1", "after step 2")
    assert solve(other.question)[-1] == other.answer


def test_a_chain_is_the_same_in_other_words() -> None:
    by_chain: dict[object, set[str]] = {}
    for problem in word_problems(3000, family="hub", n_operations=3, split="train"):
        by_chain.setdefault((problem.start, meaning(problem)), set()).add(
            chain_of(problem.question)
        )
    assert all(len(told) == 1 for told in by_chain.values())
    assert len({told for each in by_chain.values() for told in each}) == len(by_chain)


def meaning(problem: WordProblem) -> tuple[object, ...]:
    return tuple((o.kind, o.amount, o.threshold, o.refers_to) for o in problem.operations)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": "star"}, "plain, hub, skip, sequential, mixed"),
        ({"family": "hub", "n_operations": 2}, r"must lie in 3..5, not 2"),
        ({"family": "hub", "n_operations": (2, 3)}, r"must lie in 3..5"),
        ({"family": "hub", "n_operations": 6}, r"must lie in 3..5"),
    ],
)
def test_what_a_family_does_not_have_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        word_problems(1, **arguments)


def test_a_step_cannot_refer_to_what_comes_later() -> None:
    with pytest.raises(ProblemError, match="refers to the total after step 2, but 1 totals"):
        totals_of(3, [Operation("add", 7), Operation("add", refers_to=2)])


def test_a_given_total_is_what_later_steps_refer_to() -> None:
    problem = word_problems(1, family="hub", n_operations=3, seed=8)[0]
    one = problem.totals[0] + 1
    replaced = totals_of(problem.start, problem.operations, given={1: one})
    assert replaced[0] == one
    assert replaced == tuple(solve(problem.question, {1: one})[1:])
    assert is_correct(f"The answer is: {problem.totals[-1]}", problem.answer)


PLAIN = "3818941ff8235c5256cfd716d84892b7e62ab9e5c9b77d9651581de9af253317"
