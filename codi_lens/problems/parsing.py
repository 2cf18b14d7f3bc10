"""What a written answer gives: where it stands in a text, its value, and whether it is right."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from codi_lens.errors import ProblemError, shown
from codi_lens.problems.gold import MARKER, MOST_DIGITS, Number
from codi_lens.problems.kinds import (
    BOOLEANS,
    CLOSING,
    LABELS,
    WHITE,
    Answer,
    Choices,
    Form,
    KindGiven,
    alike,
    form_of,
    read_answer,
)
from codi_lens.problems.problem import Problem

if TYPE_CHECKING:
    from typing import Literal, overload

_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]%])[-−]\s?(?=[$€£¥]?\.?\d)|(?<=[$€£¥])[-−](?=\.?\d))?"
    r"(?(sign)[$€£¥]?)"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|(?<!\d)\.\d+)"
)
"""A number, from its sign (which may stand before or after a currency symbol) or first digit."""
_EQUALS = re.compile(r"=\s*[$€£¥]?")
_OPERATOR = re.compile(r"\s*[-−+*/×÷=]")
_ALONE = r"(?<![\w&/+-])(?<!\w['’.])(?<![nN]ot )(?<![nN]ot \()(?:{})(?![\w&/+#]|[-'’.]\w)"
"""A whole word that is not denied: no part of "kEpt", "E-mail", "D.C.", "C++", "A/B" or "not A"."""
_YES_OR_NO = re.compile(_ALONE.format("|".join(BOOLEANS)), re.IGNORECASE)
_DIRECTLY = re.compile(r"\W*(?:(?:option|choice)\W+)?", re.IGNORECASE)
_A_WORD_FOLLOWS = re.compile(r"\s+[^\W\d_]")
_WORDS_TOO = frozenset({"A", "I", "no"})
"""Labels and answers that before another word are mostly no answer: "A dog", "no doubt"."""


if TYPE_CHECKING:

    @overload
    def parse_answer(
        text: str, kind: Literal["number"] = "number", choices: Choices = None
    ) -> Number | None: ...
    @overload
    def parse_answer(text: str, kind: KindGiven, choices: Choices = None) -> Answer | None: ...


def parse_answer(text: str, kind: KindGiven = "number", choices: Choices = None) -> Answer | None:
    """The answer that a text gives, or None if it holds none of this kind.

    After "####", "###" or "answer is" (the last of them) the first answer counts; in a text without
    any, the last one does, as in the original CODI evaluation. A number has up to 300 digits. A
    choice is a label as a whole word in its own case, a boolean yes, no, true or false in any
    case. Before another word "A", "I" and "no" are part of a sentence ("A dog", "no doubt"), unless
    they directly follow the marker, or "no" begins the text; behind "not" nothing counts. A text is
    all that follows the marker, else the whole, without its closing punctuation.

    Args:
        text: what a model wrote.
        kind: "number", "choice", "boolean" or "text".
        choices: labels of a choice, with their texts or without; A to E by default.

    Returns:
        A number, the label, "yes" or "no", or the text.

    Raises:
        ProblemError: no text, or no such kind.

    >>> parse_answer("The answer is: 1,234"), parse_answer("... so ### -4")
    (1234, -4)
    >>> parse_answer("It costs $2.50."), parse_answer("no idea")
    (2.5, None)
    >>> parse_answer("A pen is kEpt on a desk, so (B).", kind="choice")
    'B'
    >>> parse_answer("The answer is: False", kind="boolean")
    'no'
    >>> parse_answer("### Tom is a scrompus.", kind="text")
    'Tom is a scrompus'
    """
    return parsed(text, form_of(kind, choices))


def parsed(text: str, form: Form) -> Answer | None:
    """The answer of a form that a text gives; see `parse_answer`."""
    span = span_of(text, form)
    if span is None:
        return None
    found = text[slice(*span)]
    if form.kind == "number":
        return _value(found)
    return BOOLEANS[found.casefold()] if form.kind == "boolean" else found


def answer_span(
    text: str, kind: KindGiven = "number", choices: Choices = None
) -> tuple[int, int] | None:
    """Where in `text` what `parse_answer` reads begins and ends, in characters.

    Args:
        text: what a model wrote.
        kind: see `parse_answer`.
        choices: see `parse_answer`.

    Raises:
        ProblemError: no text, or no such kind.

    >>> answer_span("The answer is: 42."), answer_span("The answer is: (B)", kind="choice")
    ((15, 17), (16, 17))
    """
    return span_of(text, form_of(kind, choices))


def span_of(text: str, form: Form) -> tuple[int, int] | None:
    """Where an answer of a form stands in a text; see `answer_span`."""
    if not isinstance(text, str):
        raise ProblemError(f"The text to read an answer from is {shown(text)}; give text.")
    markers = list(MARKER.finditer(text))
    start = markers[-1].end() if markers else 0
    if form.kind == "text":
        return _text_span(text, start)
    pattern = {"number": _NUMBER, "boolean": _YES_OR_NO}.get(form.kind) or re.compile(
        _ALONE.format("|".join(map(re.escape, form.labels or LABELS)))
    )
    directly = _DIRECTLY.match(text, start)
    at = directly.end() if directly and (markers or form.kind == "boolean") else -1
    found = [
        each
        for each in pattern.finditer(text, start)
        if each.start() == at or not _part_of_a_sentence(text, each)
    ]
    if not found:
        return None
    chosen = found[0 if markers else -1]
    return None if form.kind == "number" and len(chosen[0]) > MOST_DIGITS else chosen.span()


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


def is_correct(
    text: str, answer: object, kind: KindGiven = "number", choices: Choices = None
) -> bool:
    """Whether the answer in `text` is `answer`.

    Whole numbers have to be equal. Others have to agree to 1e-6, or to 1e-6 of what is above 1, so
    that 0.1 + 0.2 counts as 0.3; tiny answers to a thousandth. Texts are the same where they differ
    in case, white space and closing punctuation alone.

    Args:
        text: what a model wrote, read by `parse_answer`.
        answer: the correct answer, or the problem, which knows its kind and its choices.
        kind: of the answer, as of `parse_answer`.
        choices: as of `parse_answer`.

    Raises:
        ProblemError: an answer that is not one of this kind, or what is no text.

    >>> is_correct("The answer is: 12.0", 12), is_correct("no idea", 12)
    (True, False)
    >>> is_correct("The answer is: 0.75", "3/4"), is_correct("12345679", 12345678)
    (True, False)
    >>> is_correct("True", "yes", kind="boolean")
    True
    >>> is_correct("It is (B).", Problem("A: sea B: desk?", "B", 1, kind="choice"))
    True
    """
    if isinstance(answer, Problem):
        form, gold = answer.form, answer.answer
    else:
        form = form_of(kind, choices)
        gold = read_answer(answer, form)
    if gold is None:
        missing = "number" if form.kind == "number" else "answer"
        raise ProblemError(f"There is no answer to compare with: {shown(answer)} is no {missing}.")
    value = parsed(text, form)
    both = isinstance(value, int) and isinstance(gold, int)
    if value is None or both or isinstance(value, str) or isinstance(gold, str):
        return value is not None and alike(value, gold)
    size = abs(gold)
    return abs(value - gold) <= min(1e-6 * max(1.0, size), max(1e-3 * size, 1e-12))


def _value(text: str) -> Number:
    digits = re.sub(r"[^\d.]", "", text)
    value = float(digits) if "." in digits else int(digits)
    value = -value if any(sign in text for sign in "-−") else value
    return int(value) if value == int(value) else value


def _text_span(text: str, start: int) -> tuple[int, int] | None:
    """From the first character behind a marker and its colon to the last before what closes it."""
    first = len(text) - len(text[start:].lstrip(f": {WHITE}"))
    last = len(text.rstrip(CLOSING))
    return (first, last) if first < last else None


def _part_of_a_sentence(text: str, found: re.Match[str]) -> bool:
    word = found[0]
    known = word in _WORDS_TOO or word.casefold() == "no"
    return known and _A_WORD_FOLLOWS.match(text, found.end()) is not None
