"""A problem, and the number that an answer gives."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codi_lens.errors import ProblemError
from codi_lens.problems.arguments import Whole, check_text, repeated, whole_number
from codi_lens.problems.gold import MOST_DIGITS, Number, read_gold, shown


@dataclass(frozen=True)
class Problem:
    """A question and its answer.

    Attributes:
        question: the text of the question.
        answer: the correct number, or None where the corpus gives none. May be given as a number
            of any library, NaN or NA, or a text that is one number: see `read_gold`.
        id: unique within a corpus; reports, donors and resumed runs refer to it. May be given as a
            whole number.

    Raises:
        ProblemError: a question or an id that is no text or cannot be written, or an answer that
            is not one number.

    >>> Problem("Half of 3?", "1 1/2", 7)
    Problem(question='Half of 3?', answer=1.5, id='7')
    """

    question: str
    answer: Number | None
    id: str

    def __init__(self, question: str, answer: object, id: object) -> None:
        """Take more than is kept: any answer that `read_gold` reads."""
        self._keep(question=question, answer=answer, id=id)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Read what was given; the `__init__` of a subclass calls this too."""
        id = _id_of(self.id)
        of = f"The problem {shown(id)}"
        question = check_text(f"The question of the problem {shown(id)}", self.question)
        self._keep(question=question, answer=read_gold(self.answer, of=of), id=id)

    @property
    def edges(self) -> tuple[tuple[str, str], ...]:
        """The reads that are known to be needed, as (query, key): none, but see `WordProblem`."""
        return ()

    def _keep(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)  # as dataclasses do where they are frozen


if TYPE_CHECKING:
    Problems = Iterable[Problem]
else:  # refused by `problem_list`, in a sentence, and not by a type checker at run time
    Problems = object


_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]%])[-−]\s?(?=[$€£¥]?\.?\d)|(?<=[$€£¥])[-−](?=\.?\d))?"
    r"(?(sign)[$€£¥]?)"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)
"""A number, from its sign (which may stand before or after a currency symbol) or first digit."""
_MARKER = re.compile(r"####|answer\s+is", re.IGNORECASE)
_EQUALS = re.compile(r"=\s*[$€£¥]?")
_OPERATOR = re.compile(r"\s*[-−+*/×÷=]")


def parse_answer(text: str) -> Number | None:
    """The number that an answer gives, or None if it holds no number (of up to 300 digits).

    After "####" or "answer is" (the last of them) the first number counts; in a text without
    either, the last number does, as in the original CODI evaluation.

    Raises:
        ProblemError: no text.

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

    Raises:
        ProblemError: no text.

    >>> answer_span("The answer is: 42.")
    (15, 17)
    """
    if not isinstance(text, str):
        raise ProblemError(f"The text to read a number from is {shown(text)}; give text.")
    markers = list(_MARKER.finditer(text))
    if markers:
        found = _NUMBER.search(text, markers[-1].end())
    else:
        found = next(iter(reversed(list(_NUMBER.finditer(text)))), None)
    return found.span() if found and len(found[0]) <= MOST_DIGITS else None


def result_spans(text: str) -> list[tuple[int, int]]:
    """Where in a written chain of thought the results of its steps begin and end, in characters.

    A result is a number right behind "=" that no operator follows, so that only the last one of
    "2 + 3 = 4 + 1 = 5" is.

    >>> text = "<<16-3-4=9>> so 9 * 2 = $18.50, which is 18.5"
    >>> [text[slice(*span)] for span in result_spans(text)]
    ['9', '18.50']
    """
    found = (_NUMBER.match(text, sign.end()) for sign in _EQUALS.finditer(text))
    return [each.span() for each in found if each and not _OPERATOR.match(text, each.end())]


def is_correct(text: str, answer: object) -> bool:
    """Whether the number in `text` is `answer`.

    Whole numbers have to be equal. Others have to agree to 1e-6, or to 1e-6 of what is above 1, so
    that 0.1 + 0.2 counts as 0.3; tiny answers to a thousandth.

    Args:
        text: what a model wrote, read by `parse_answer`.
        answer: the correct number, read by `read_gold`.

    Raises:
        ProblemError: an answer that is not one number, or what is no text.

    >>> is_correct("The answer is: 12.0", 12), is_correct("no idea", 12)
    (True, False)
    >>> is_correct("The answer is: 0.75", "3/4"), is_correct("12345679", 12345678)
    (True, False)
    """
    gold = read_gold(answer)
    if gold is None:
        raise ProblemError(f"There is no answer to compare with: {shown(answer)} is no number.")
    value = parse_answer(text)
    if value is None or (isinstance(value, int) and isinstance(gold, int)):
        return value == gold
    size = abs(gold)
    return abs(value - gold) <= min(1e-6 * max(1.0, size), max(1e-3 * size, 1e-12))


def problem_list(problems: Problems, doing: str) -> list[Problem]:
    """Problems as a list, whatever they come in, a generator too.

    Args:
        problems: any number of them.
        doing: what is to be done with them: "run", "extract".

    Raises:
        ProblemError: something else, or something else among them.

    >>> len(problem_list((Problem("1 + 1?", 2, id) for id in "ab"), "run"))
    2
    """
    advice = "give a list of Problem(question, answer, id)"
    if isinstance(problems, str | bytes | dict) or not isinstance(problems, Iterable):
        if isinstance(problems, Problem):
            advice = "put the single problem in a list"
        raise ProblemError(f"The problems to {doing} are {shown(problems)}; {advice}.")
    try:
        listed = list(problems)
    except TypeError:  # a tensor without dimensions
        raise ProblemError(f"The problems to {doing} are {shown(problems)}; {advice}.") from None
    for place, each in enumerate(listed):
        if not isinstance(each, Problem):
            raise ProblemError(f"The problem to {doing} at {place} is {shown(each)}; {advice}.")
    return listed


def check_problems(problems: Problems, doing: str, **numbers: Whole) -> list[str]:
    """The ids of problems that something is to be done with.

    Args:
        problems: at least one, each with an id of its own.
        doing: what is to be done with them: "run", "extract".
        numbers: by name, how many at once, or of what; each at least 1.

    Raises:
        ProblemError: no problem, what is none, an id that occurs twice, or a number below 1.

    >>> check_problems([Problem("1 + 1?", 2, "a")], "run", batch_size=1)
    ['a']
    """
    ids = [problem.id for problem in problem_list(problems, doing)]
    if not ids:
        raise ProblemError(f"There are no problems to {doing}; give at least one.")
    twice = repeated(ids)
    if twice is not None:
        raise ProblemError(f"The problem id {twice!r} occurs twice; ids must be unique.")
    for name, value in numbers.items():
        whole_number(name, value)
    return ids


def _id_of(given: object) -> str:
    if not isinstance(given, str | bool):
        try:
            given = str(operator.index(given))  # type: ignore[arg-type]
        except (TypeError, ValueError):  # no whole number, or one of more digits than are printed
            raise ProblemError(
                f"The id of a problem is {shown(given)}; give text or a whole number."
            ) from None
    return check_text("The id of a problem", given)
