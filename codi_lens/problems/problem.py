"""A problem, and the number that an answer gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from codi_lens.errors import ProblemError

Number = int | float
Split = Literal["train", "test"]


@dataclass(frozen=True)
class Problem:
    """A question and its answer.

    Attributes:
        question: the text of the question.
        answer: the correct number, or None where the corpus gives none.
        id: unique within a corpus; reports, donors and resumed runs refer to it.
    """

    question: str
    answer: Number | None
    id: str


_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]%])[-−]\s?(?=[$€£¥]?\.?\d)|(?<=[$€£¥])[-−](?=\.?\d))?"
    r"(?(sign)[$€£¥]?)"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)
"""A number, from its sign (which may stand before or after a currency symbol) or first digit."""
_MOST_DIGITS = 300
"""Longer numbers do not fit a float; degenerate models write them, no problem asks for them."""
_MARKER = re.compile(r"####|answer\s+is", re.IGNORECASE)


def parse_answer(text: str) -> Number | None:
    """The number that an answer gives, or None if it holds no number (of up to 300 digits).

    After "####" or "answer is" (the last of them) the first number counts; in a text without
    either, the last number does, as in the original CODI evaluation.

    >>> parse_answer("The answer is: 1,234"), parse_answer("... so #### -4")
    (1234, -4)
    >>> parse_answer("It costs $2.50."), parse_answer("no idea")
    (2.5, None)
    """
    span = answer_span(text)
    if span is None:
        return None
    digits = re.sub(r"[^\d.]", "", text[slice(*span)])
    value = float(digits) if "." in digits else int(digits)
    if any(sign in text[slice(*span)] for sign in "-−"):
        value = -value
    return int(value) if value == int(value) else value


def answer_span(text: str) -> tuple[int, int] | None:
    """Where in `text` the number that `parse_answer` reads begins and ends, in characters.

    >>> answer_span("The answer is: 42.")
    (15, 17)
    """
    markers = list(_MARKER.finditer(text))
    if markers:
        found = _NUMBER.search(text, markers[-1].end())
    else:
        found = next(iter(reversed(list(_NUMBER.finditer(text)))), None)
    return found.span() if found and len(found[0]) <= _MOST_DIGITS else None


def is_correct(text: str, answer: Number) -> bool:
    """Whether the number in `text` is `answer` (to 1e-6, so that 0.1 + 0.2 counts as 0.3).

    >>> is_correct("The answer is: 12.0", 12), is_correct("no idea", 12)
    (True, False)
    """
    value = parse_answer(text)
    return value is not None and abs(value - answer) <= 1e-6 * max(1.0, abs(answer))


def check_problems(problems: Sequence[Problem], doing: str, **numbers: int) -> list[str]:
    """The ids of problems that something is to be done with.

    Args:
        problems: at least one, each with an id of its own.
        doing: what is to be done with them: "run", "extract".
        numbers: by name, how many at once, or of what; each at least 1.

    Raises:
        ProblemError: no problem, an id that occurs twice, or a number below 1.

    >>> check_problems([Problem("1 + 1?", 2, "a")], "run", batch_size=1)
    ['a']
    """
    ids = [problem.id for problem in problems]
    if not ids:
        raise ProblemError(f"There are no problems to {doing}; give at least one.")
    twice = repeated(ids)
    if twice is not None:
        raise ProblemError(f"The problem id {twice!r} occurs twice; ids must be unique.")
    for name, value in numbers.items():
        if value < 1:
            raise ProblemError(f"{name} must be at least 1, not {value}.")
    return ids


def repeated(ids: Iterable[str]) -> str | None:
    """The first id that occurs a second time, or None.

    >>> repeated(["a", "b", "b", "a"])
    'b'
    """
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None
