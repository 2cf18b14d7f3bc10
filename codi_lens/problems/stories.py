"""How the chains of built-in word problems are drawn, and the stories that tell them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

from codi_lens.problems.operations import MAX_TOTAL, Operation, totals_of

Family = Literal["plain", "hub", "skip", "sequential", "mixed"]
STARTS = range(8, 36)
_AMOUNTS = range(2, 10)
_OVER = (10, 15, 20)
_UNDER = (20, 25)
_PEOPLE = (("Zoe", "she"), ("Ana", "she"), ("Mia", "she"), ("Ivy", "she"))
_PEOPLE += (("Tom", "he"), ("Max", "he"), ("Leo", "he"), ("Sam", "he"))
_ITEMS = ("coins", "cards", "books", "shells", "stamps", "apples")
_ADD_VERBS = ("finds", "buys", "wins", "gets")
_SUBTRACT_VERBS = ("loses", "sells", "spends", "drops")
_FIRST_REFERRING = 3  # a step can refer to the one before the last at the latest
_MOST_REFERRING = 2

Chain = tuple[int, tuple[Operation, ...], tuple[int, ...]]
"""The start, the operations, and the total after each of them."""


class Story(NamedTuple):
    """Who has what."""

    name: str
    pronoun: str
    item: str


def draw_chain(draw: random.Random, lengths: Sequence[int], family: Family) -> Chain:
    """Draw a start, how many operations, and operations whose totals stay in 0..49."""
    start, length = draw.choice(STARTS), draw.choice(lengths)
    referring = {} if family == "plain" else _references(draw, length, family)
    while True:
        chain = _continued(draw, start, length, referring)
        if chain is not None and needs_its_references(chain):
            return chain
        start = draw.choice(STARTS)


def needs_its_references(chain: Chain) -> bool:
    """Whether the answer needs every total that a step refers to, from the thought about it alone.

    Such a total is no number of the text and no other total before the step that refers to it, and
    to leave out one reference, or all of them, changes the answer.
    """
    start, operations, totals = chain
    told = {start, *range(len(operations) + 1)}
    told |= {step.amount for step in operations} | {step.threshold for step in operations}
    referring = [place for place, step in enumerate(operations) if step.refers_to is not None]
    for place in referring:
        value = totals[(operations[place].refers_to or 0) - 1]
        if value in told or totals[:place].count(value) > 1:
            return False
    left_out = [[place] for place in referring] + ([referring] if referring else [])
    return all(_answer_without(start, operations, places) != totals[-1] for places in left_out)


def _answer_without(start: int, operations: Sequence[Operation], left_out: Sequence[int]) -> int:
    kept = [Operation("add", 0) if i in left_out else step for i, step in enumerate(operations)]
    return totals_of(start, kept)[-1]


def draw_story(draw: random.Random) -> Story:
    """Draw who has what."""
    return Story(*draw.choice(_PEOPLE), draw.choice(_ITEMS))


def story_of(question: str) -> Story | None:
    """Who has what in a question of `tell`; None in any other."""
    first = re.match(r"(\w+) has \d+ (\w+)\.", question)
    if first is None or first[1] not in dict(_PEOPLE):
        return None
    return Story(first[1], dict(_PEOPLE)[first[1]], first[2])


def tell(story: Story, start: int, operations: Sequence[Operation]) -> str:
    """The question; steps are numbered where one of them refers to another."""
    name, pronoun, item = story
    numbered = any(step.refers_to is not None for step in operations)
    sentences = [f"{name} has {start} {item}."]
    for number, step in enumerate(operations, 1):
        happens = _happens(step, pronoun)
        if numbered:
            sentences.append(f"Step {number}: {happens}.")
        elif step.threshold is None:
            sentences.append(f"Then {happens}.")
        else:
            sentences.append(f"{happens[0].upper()}{happens[1:]}.")
    sentences.append(f"How many {item} does {pronoun} have?")
    return " ".join(sentences)


def with_other_operand(chain: Chain, operand: int) -> Iterator[tuple[Chain, str]]:
    """The chains with another number for one operand that could be drawn too, and that number."""
    start, operations, _ = chain
    for other, others, changed in _with_other_operand(start, operations, operand):
        totals = totals_of(other, others)
        varied = (other, others, totals)
        if all(0 <= total <= MAX_TOTAL for total in totals) and needs_its_references(varied):
            yield varied, changed


def _references(draw: random.Random, length: int, family: Family) -> dict[int, int]:
    """Which step refers to which: {3: 1} where the third adds or subtracts the first total."""
    if family == "skip":
        return {length: draw.randint(1, (length - 1) // 2)}
    able = range(_FIRST_REFERRING, length + 1)
    chosen = draw.sample(able, draw.randint(1, min(_MOST_REFERRING, len(able))))
    match family:
        case "hub":
            return dict.fromkeys(chosen, 1)
        case "sequential":
            return {number: number - 2 for number in chosen}
        case _:
            return {number: draw.randint(1, number - 2) for number in chosen}


def _continued(
    draw: random.Random, start: int, length: int, referring: dict[int, int]
) -> Chain | None:
    """Operations drawn one after the other; None where a step can refer to no total in range."""
    operations: list[Operation] = []
    totals: list[int] = []
    total = start
    while len(operations) < length:
        number = len(operations) + 1
        if number in referring:
            able = [
                step
                for step in _recalls(referring[number])
                if 0 <= step.apply(total, totals) <= MAX_TOTAL
            ]
            if not able:
                return None
            operation = draw.choice(able)
        else:
            operation = _draw_operation(draw)
        after = operation.apply(total, totals)
        if 0 <= after <= MAX_TOTAL:
            operations.append(operation)
            totals.append(after)
            total = after
    return start, tuple(operations), tuple(totals)


def _recalls(step: int) -> tuple[Operation, Operation]:
    return (
        Operation("add", verb="gets", refers_to=step),
        Operation("subtract", verb="loses", refers_to=step),
    )


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


def _with_other_operand(
    start: int, operations: tuple[Operation, ...], operand: int
) -> Iterator[tuple[int, tuple[Operation, ...], str]]:
    if operand == 0:
        yield from ((other, operations, str(other)) for other in STARTS if other != start)
        return
    step = operations[operand - 1]
    for other, changed in _with_other_number(step, operand):
        if other != step:
            yield start, (*operations[: operand - 1], other, *operations[operand:]), changed


def _with_other_number(step: Operation, number: int) -> Iterable[tuple[Operation, str]]:
    if step.amount is not None:
        for amount in _AMOUNTS:
            yield replace(step, amount=amount), str(amount)
    if step.threshold is not None:
        for threshold in _UNDER if step.kind == "double_if_under" else _OVER:
            yield replace(step, threshold=threshold), f"threshold {threshold}"
    if step.refers_to is not None:
        for earlier in range(1, number - 1):
            yield replace(step, refers_to=earlier), f"step {earlier}"


def _happens(step: Operation, pronoun: str) -> str:
    if step.refers_to is not None:
        return f"{pronoun} {step.verb} as many as after step {step.refers_to}"
    match step.kind:
        case "add":
            return f"{pronoun} {step.verb} {step.amount} more"
        case "subtract":
            return f"{pronoun} {step.verb} {step.amount}"
        case "lose_if_over":
            return f"if {pronoun} has over {step.threshold}, {pronoun} {step.verb} {step.amount}"
        case "double_if_under" | "halve_if_over":
            side = "under" if step.kind == "double_if_under" else "over"
            return f"if {pronoun} has {side} {step.threshold}, {pronoun} {step.verb} them"
