"""A problem: a question, its answer, and what is known of both."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codi_lens.errors import ProblemError, listed, shown
from codi_lens.problems.arguments import Whole, check_text, repeated, whole_number
from codi_lens.problems.gold import read_gold
from codi_lens.problems.kinds import NUMBER, Answer, Form, Kind, KindGiven, form_of, read_answer


@dataclass(frozen=True)
class Problem:
    """A question and its answer.

    Attributes:
        question: the text of the question.
        answer: the correct answer, or None where the corpus gives none: a number; of other kinds
            the label of a choice, "yes" or "no", or a text. May be given as a number of any
            library, NaN or NA, a truth value, or a text that is one answer: see `read_gold`.
        id: unique within a corpus; reports, donors and resumed runs refer to it. May be given as a
            whole number.
        kind: of the answer: "number", "choice", "boolean" or "text".
        choices: of a "choice", the texts by their labels, where they are known; None elsewhere.
        steps: a reference chain, step by step as the corpus writes it; () without one.

    Raises:
        ProblemError: a question or an id that is no text or cannot be written, an answer that is
            not one of its kind, choices that are none, or steps that are no texts.

    >>> Problem("Half of 3?", "1 1/2", 7)
    Problem(question='Half of 3?', answer=1.5, id='7')
    >>> Problem("Can a brick float?", False, 8, kind="boolean").answer
    'no'
    """

    question: str
    answer: Answer | None
    id: str
    kind: Kind = field(default="number", repr=False, kw_only=True)
    choices: Mapping[str, str] | None = field(default=None, repr=False, hash=False, kw_only=True)
    steps: tuple[str, ...] = field(default=(), repr=False, kw_only=True)

    def __init__(
        self,
        question: str,
        answer: object,
        id: object,
        *,
        kind: KindGiven = "number",
        choices: object = None,
        steps: object = (),
    ) -> None:
        """Take more than is kept: any answer that `read_gold` reads."""
        self._keep(question=question, answer=answer, id=id, kind=kind, choices=choices, steps=steps)
        self.__post_init__()

    def __post_init__(self) -> None:
        """Read what was given; the `__init__` of a subclass calls this too."""
        id = _id_of(self.id)
        of = f"The problem {shown(id)}"
        question = check_text(f"The question of the problem {shown(id)}", self.question)
        self._keep(question=question, id=id)
        if self.kind == "number" and self.choices is None and self.steps == ():
            self._keep(answer=read_gold(self.answer, of=of))
            return
        choices = None if self.choices is None else _choices_of(self.choices, self.kind, of)
        answer = read_answer(self.answer, form_of(self.kind, choices), choices, of=of)
        steps = tuple(
            check_text(f"A step of the problem {shown(id)}", step)
            for step in listed(f"{of} has steps=, which", self.steps, "texts", ProblemError)
        )
        self._keep(answer=answer, choices=choices, steps=steps)

    @property
    def form(self) -> Form:
        """What an answer to this has to look like."""
        return NUMBER if self.kind == "number" else form_of(self.kind, self.choices)

    @property
    def identity(self) -> list[Any]:
        """What decides what is read off a run of this, the gold answer aside."""
        return [self.id, self.question, *self.form.told]

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


def numbers_only(problems: Sequence[Problem], doing: str) -> None:
    """Refuse problems whose answers are no numbers, where numbers are needed.

    Raises:
        ProblemError: names the first of another kind.

    >>> numbers_only([Problem("1 + 1?", 2, "a")], "Running totals")
    """
    other = next((problem for problem in problems if problem.kind != "number"), None)
    if other is not None:
        raise ProblemError(
            f"{doing} need answers that are numbers; the answer of {other.id!r} is of the kind "
            f"{other.kind!r}."
        )


def _choices_of(given: object, kind: object, of: str) -> dict[str, str]:
    if kind != "choice" or not isinstance(given, Mapping):
        advice = "give a dict of texts by label, and kind='choice'"
        raise ProblemError(
            f"{of}, of kind {shown(kind)}, has the choices {shown(given)}; {advice}."
        )
    form_of("choice", given)
    return {label: check_text(f"{of}, the choice {label}", text) for label, text in given.items()}


def _id_of(given: object) -> str:
    if not isinstance(given, str | bool):
        try:
            given = str(operator.index(given))  # type: ignore[arg-type]
        except (TypeError, ValueError):  # no whole number, or one of more digits than are printed
            raise ProblemError(
                f"The id of a problem is {shown(given)}; give text or a whole number."
            ) from None
    return check_text("The id of a problem", given)
