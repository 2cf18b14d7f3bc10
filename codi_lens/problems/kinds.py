"""Answers that are not numbers: which kinds there are, and how a gold answer of each is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from codi_lens.errors import ProblemError, check_choice, shown
from codi_lens.problems.arguments import check_text
from codi_lens.problems.gold import MARKER, Number, boxed, is_missing, read_gold

Kind = Literal["number", "choice", "boolean", "text"]
Answer = Number | str
"""A number; the label of a choice; "yes" or "no"; or a text, by the kind of the problem."""

if TYPE_CHECKING:
    KindGiven = Kind
    Choices = Mapping[str, str] | Iterable[str] | None
else:  # refused by `form_of`, in a sentence, and not by a type checker at run time
    KindGiven = Choices = object

LABELS = ("A", "B", "C", "D", "E")
"""The labels of choices that nobody names, as CODI's own evaluation has them."""
BOOLEANS = {"yes": "yes", "true": "yes", "no": "no", "false": "no"}
"""How a boolean is written, in any case, and its canonical form."""
_OPPOSITES = {"yes": "no", "no": "yes", "true": "false", "false": "true"}
WHITE = " \t\r\n\v\f"
CLOSING = f"{WHITE}.!?,;:"
"""What may close a text without belonging to it."""
_AROUND = f"{CLOSING}()[]*\"'"


@dataclass(frozen=True)
class Form:
    """What an answer has to look like, so that it can be found in a text.

    Attributes:
        kind: of the answer.
        labels: of its choices; of other kinds none.
    """

    kind: Kind = "number"
    labels: tuple[str, ...] = ()

    @property
    def told(self) -> list[Any]:
        """What settings say of it: nothing of a number, else kind and labels, as arguments."""
        return [] if self.kind == "number" else [self.kind, list(self.labels)]


NUMBER = Form()


def form_of(kind: KindGiven, choices: Choices = None) -> Form:
    """The form of an answer of this kind.

    Args:
        kind: "number", "choice", "boolean" or "text".
        choices: labels of a choice, with their texts or without; A to E by default.

    Raises:
        ProblemError: no such kind, or labels that are none.

    >>> form_of("choice", {"A": "desk", "B": "sea"})
    Form(kind='choice', labels=('A', 'B'))
    """
    check_choice("kind of answer", kind, Kind, ProblemError)
    if kind != "choice":
        return Form(kind)
    if choices is None:
        return Form(kind, LABELS)
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise ProblemError(f"Choices are a dict of texts by label, not {shown(choices)}.")
    labels = tuple(choices)
    for label in labels:
        if not isinstance(label, str) or not re.fullmatch(r"\w+", label):
            raise ProblemError(
                f"The label of a choice is one word, such as 'A', not {shown(label)}."
            )
    if not labels or len(set(labels)) < len(labels):
        raise ProblemError(f"Choices need labels, each of its own, not {shown(list(labels))}.")
    return Form(kind, labels)


def read_answer(
    answer: object, form: Form, choices: Mapping[str, str] | None = None, *, of: str = "A problem"
) -> Answer | None:
    """A gold answer in the canonical form of its kind: see `read_gold` for numbers.

    A choice is its label, or the text of one choice alone; a boolean is a truth value, or yes, no,
    true or false in any case; a text is what it says. Behind "####", "###" or "answer is", and in a
    box, only what stands there counts. None, NaN and NA mean that there is no answer.

    Args:
        answer: the content of the field.
        form: its kind and labels.
        choices: texts by label.
        of: whose answer it is, as the error says it.

    Raises:
        ProblemError: not an answer of this kind; says what would be one.

    >>> read_answer("(B)", Form("choice", ("A", "B"))), read_answer(False, Form("boolean"))
    ('B', 'no')
    """
    if form.kind == "number":
        return read_gold(answer, of=of)
    if is_missing(answer):
        return None
    if form.kind == "text":
        text = _marked(check_text(f"{of}, the answer", answer))
        if not text:
            raise ProblemError(f"{of} has an empty answer; leave it out where there is none.")
        return text
    if form.kind == "boolean":
        word = _marked(_written(answer)).strip(_AROUND).casefold()
        if word in BOOLEANS:
            return BOOLEANS[word]
        valid = "give yes, no, true or false"
    else:
        if isinstance(answer, int) and shown(answer) not in form.labels and choices:
            raise ProblemError(
                f"{of} has the answer {shown(answer)}, which may be the place of a choice or its "
                f"text; give one of the labels {', '.join(form.labels)}."
            )
        word = _marked(_written(answer))
        found = [label for label in form.labels if word.strip(_AROUND) == label]
        found = found or [k for k, text in (choices or {}).items() if normal(text) == normal(word)]
        if len(found) == 1:
            return found[0]
        valid = f"give one of the labels {', '.join(form.labels)}"
    raise ProblemError(f"{of} has the answer {shown(answer)}, which is no {form.kind}; {valid}.")


def normal(text: str) -> str:
    """A text as answers are compared: case, inner white space and closing punctuation aside.

    >>> normal("Tom  is a Scrompus. ")
    'tom is a scrompus'
    """
    return " ".join(text.split()).rstrip(CLOSING).casefold()


def alike(one: Answer | None, other: Answer | None) -> bool:
    """Whether two answers are the same.

    >>> alike("Tom is a scrompus.", "tom is a scrompus"), alike(3, 3.0), alike(None, "yes")
    (True, True, False)
    """
    if isinstance(one, str) and isinstance(other, str):
        return normal(one) == normal(other)
    return one == other


def opposite(word: str) -> str:
    """The other boolean in the spelling of this one.

    >>> opposite("True"), opposite("no"), opposite("YES")
    ('False', 'yes', 'NO')
    """
    other = _OPPOSITES[word.casefold()]
    return other.upper() if word.isupper() else other.title() if word.istitle() else other


def spellings(answer: Answer | None, kind: Kind) -> tuple[str, ...]:
    """Every way to write an answer that is no number.

    >>> spellings("yes", "boolean")
    ('yes', 'Yes', 'YES', 'true', 'True', 'TRUE')
    """
    if answer is None:
        return ()
    if kind != "boolean":
        return (str(answer),)
    words = [word for word, meant in BOOLEANS.items() if meant == answer]
    return tuple(each for word in words for each in (word, word.title(), word.upper()))


def _written(answer: object) -> str:
    """A truth value of any library as a word; another value as messages name it."""
    if type(answer).__name__ in ("bool", "bool_"):
        return "yes" if answer else "no"
    return answer if isinstance(answer, str) else shown(answer)


def _marked(text: str) -> str:
    """What follows the last marker, or is in the last box, or the whole."""
    markers = list(MARKER.finditer(text))
    text = text[markers[-1].end() :].lstrip(" :") if markers else text
    boxes = boxed(text)
    return (boxes[-1] if boxes else text).strip()
