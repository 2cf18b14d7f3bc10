"""The formats of the field, known by their fields: a table, and what a record says by it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any

from codi_lens.errors import ProblemError, shown
from codi_lens.problems.arguments import check_text
from codi_lens.problems.gold import is_missing, read_gold
from codi_lens.problems.kinds import BOOLEANS, Kind, normal


@dataclass(frozen=True)
class Format:
    """Which fields of a record say what.

    Attributes:
        corpora: that have it.
        question: the fields whose texts, one after the other, are the question.
        answer: the field of the gold answer; "" where there is none.
        choices: the field of labelled choices, which the question is given with.
        numbers: the field whose numbers stand for `number0`, `number1` … in the question.
        alone: whether the answer stands alone in a list.
    """

    corpora: str
    question: tuple[str, ...]
    answer: str
    choices: str = ""
    numbers: str = ""
    alone: bool = False

    @property
    def asked(self) -> set[str]:
        """The fields that a record needs, whether it is answered or not."""
        return {*self.question, self.choices, self.numbers} - {""}


FORMATS = (
    Format("ASDiv-A, MAWPS", ("Question",), "Answer", numbers="Numbers"),
    Format("SVAMP", ("question_concat",), "Answer"),
    Format("SVAMP", ("Body", "Question"), "Answer"),
    Format("tables with capitals", ("Question",), "Answer"),
    Format("MultiArith", ("sQuestion",), "lSolutions", alone=True),
    Format("MultiArith", ("question",), "final_ans"),
    Format("GSM-Hard", ("input",), "target"),
    Format("GSM-Hard", ("instruction",), "response"),
    Format("CommonsenseQA, ARC", ("question",), "answerKey", choices="choices"),
    Format("OpenBookQA", ("question_stem",), "answerKey", choices="choices"),
    Format("AQuA", ("question",), "correct", choices="options"),
    Format("multiple choice", ("question",), "answer", choices="choices"),
    Format("multiple choice", ("question",), "answer", choices="options"),
    Format("GSM8K, GSM8K-Aug, StrategyQA, ProsQA, ProntoQA", ("question",), "answer"),
    Format("MATH", ("problem",), "answer"),
    Format("MATH", ("problem",), "solution"),
)
"""The first that fits counts: those that need more stand before those that need less."""
QUESTIONS = frozenset(name for each in FORMATS for name in each.question)
_ANSWERS = tuple(dict.fromkeys(each.answer for each in FORMATS))
_IDS = ("id", "ID", "qid", "unique_id", "iIndex")
_CHAINS = ("steps", "cot", "rationale")
_ANNOTATION = re.compile(r"<<[^<>]*>>")
_PLACEHOLDER = re.compile(r"\bnumber(\d+)\b")
_LISTED = re.compile(r"(?<![\w.])\(?([A-Z])(?:[):]|\.(?!\w))\s*")
_NAMING = "name them: question= and answer= (--question-field and --answer-field)"


@dataclass(frozen=True)
class Raw:
    """What a record says, as it says it.

    Attributes:
        where: it stands.
        fields: all of its fields.
        read: those that were read.
        answered: whether the field of the answer is there.
        question: with its choices, and its numbers filled in.
        gold: the content of the answer's field; None without one.
        choices: by label, or None.
        steps: of the reference chain.
        by_steps: whether the chain is a list, as in ProsQA, whose answers are texts.
        id: the corpus' own, or None.
    """

    where: str
    fields: frozenset[str]
    read: frozenset[str]
    answered: bool
    question: str
    gold: Any
    choices: dict[str, str] | None
    steps: tuple[str, ...]
    by_steps: bool
    id: str | None


def read_record(
    record: object, where: str, question: Sequence[str] = (), answer: str | None = None
) -> Raw:
    """What a record says, by its format or by the named fields.

    Args:
        record: an object.
        where: it stands, for errors.
        question: fields that make the question, instead of those of a format.
        answer: the field of the answer, instead; "" where there is none.

    Raises:
        ProblemError: no object, no question, fields that fit no format, choices or numbers that
            cannot be read.

    >>> raw = read_record({"Body": "Ada has 3 plums.", "Question": "How many?", "Answer": 3.0}, "")
    >>> raw.question, raw.gold
    ('Ada has 3 plums. How many?', 3.0)
    """
    if not isinstance(record, Mapping):
        raise ProblemError(f"{where} is not an object with a question.")
    fields = {str(name): value for name, value in record.items() if name}  # "" is pandas' index
    asked = fields.get("question")
    if isinstance(asked, Mapping) and "stem" in asked:  # CommonsenseQA as it was published
        fields |= {"question": asked["stem"], "choices": asked.get("choices")}
    found = _format_of(fields, where, tuple(question), answer)
    texts = [_text(fields[name], where, name) for name in found.question]
    text = _filled(" ".join(texts), fields, found, where)
    choices = _choices(fields.get(found.choices), where)
    gold = fields.get(found.answer)
    if found.alone and isinstance(gold, list) and len(gold) == 1:
        gold = gold[0]
    if isinstance(gold, float) and math.isnan(gold):
        raise ProblemError(
            f"{where} has the answer NaN, in which there is no number; write null where there is "
            "no answer."
        )
    chain = next((name for name in _CHAINS if fields.get(name) is not None), "")
    id = next((name for name in _IDS if fields.get(name) is not None), "")
    return Raw(
        where,
        frozenset(fields),
        frozenset({*found.asked, *_IDS, *_CHAINS}),
        found.answer in fields,
        text if choices is None else _laid_out(text, choices),
        gold,
        choices,
        _steps(fields.get(chain), gold),
        isinstance(fields.get(chain), list),
        _id(fields[id], where) if id else None,
    )


def kinds_of(raws: Sequence[Raw]) -> list[Kind]:
    """The kind of each answer, where nobody says it.

    A record with choices is a choice. Of the others all are booleans if every answer is a truth
    value, or yes, no, true or false; choices if every answer is a label that its question lists;
    texts if all come with a list of steps and none is a number; else numbers.
    """
    golds = [raw for raw in raws if raw.choices is None and not is_missing(raw.gold)]
    kind: Kind = "number"
    if golds and all(_is_boolean(raw.gold) for raw in golds):
        kind = "boolean"
    elif golds and all(_is_listed(raw) for raw in golds):
        kind = "choice"
    elif golds and all(raw.by_steps and isinstance(raw.gold, str) for raw in golds):
        kind = "text" if not any(map(_is_number, golds)) else "number"
    return ["choice" if raw.choices is not None else kind for raw in raws]


def check_answered(raws: Sequence[Raw]) -> None:
    """Refuse a record without an answer that has fields which may hold it.

    Raises:
        ProblemError: it has a field that is neither read nor in any record with an answer.
    """
    known = frozenset[str]().union(*(raw.fields for raw in raws if raw.answered))
    for raw in raws:
        unknown = sorted(raw.fields - known - raw.read)
        if not raw.answered and unknown:
            raise ProblemError(
                f"{raw.where} has no answer that is known: beside the question there are "
                f"{', '.join(map(shown, unknown[:9]))}; name the answer's field with answer= "
                "(--answer-field), or give '' where there is none."
            )


def choices_in(question: str) -> dict[str, str] | None:
    """The choices that a question lists: "A: desk B: sea", "(A) desk (B) sea", "A. …".

    >>> choices_in("Where do you keep a pen? A: desk B: sea")
    {'A': 'desk', 'B': 'sea'}
    >>> choices_in("Plan A: none.") is None
    True
    """
    marks: list[re.Match[str]] = []
    for mark in _LISTED.finditer(question):
        if mark[1] == chr(ord("A") + len(marks)):
            marks.append(mark)
    ends = [*(mark.start() for mark in marks[1:]), len(question)]
    texts = [question[mark.end() : end] for mark, end in zip(marks, ends, strict=False)]
    texts = [text.strip(" \n,;") for text in texts]
    if len(marks) < 2 or not all(texts):
        return None
    texts[-1] = texts[-1].split("\n")[0].strip()
    return {mark[1]: text for mark, text in zip(marks, texts, strict=True)}


def _format_of(
    fields: Mapping[str, Any], where: str, question: tuple[str, ...], answer: str | None
) -> Format:
    absent = [name for name in (*question, answer or "") if name and name not in fields]
    if question and absent[:1] and absent[0] in question:
        raise ProblemError(f"{where} has no field {shown(absent[0])}; it has {_names(fields)}.")
    fitting = [each for each in FORMATS if each.asked <= fields.keys()]
    if not question:
        if not fitting:
            raise ProblemError(
                f"{where} has no question that is known; its fields: {_names(fields)}; {_NAMING}."
            )
        unanswered = max(fitting, key=lambda each: len(each.asked))
        found = next((each for each in fitting if each.answer in fields), unanswered)
        return found if answer is None else Format("", found.question, answer, found.choices)
    if answer is None:
        known = [name for name in _ANSWERS if name in fields and name not in question]
        if len(known) > 1:
            raise ProblemError(
                f"{where} may hold its answer in {' or '.join(map(shown, known))}; name it with "
                "answer= (--answer-field)."
            )
        answer = known[0] if known else ""
    choices = next((each.choices for each in FORMATS if each.choices in fields), "")
    return Format("", question, answer, choices)


def _names(fields: Mapping[str, Any]) -> str:
    names = [shown(name) for name in fields]
    return ", ".join(names[:12]) + (", …" if len(names) > 12 else "") if names else "none"


def _text(value: object, where: str, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ProblemError(f"{where} has no question: {shown(name)} is {shown(value)}; give text.")
    return check_text(f"{where}, the {name}", value).strip()


def _filled(text: str, fields: Mapping[str, Any], found: Format, where: str) -> str:
    """The question with its numbers in the place of `number0`, `number1` …"""
    if not found.numbers:
        return text
    given = fields[found.numbers]
    numbers = str(given).split() if not isinstance(given, list) else list(map(str, given))

    def number(placeholder: re.Match[str]) -> str:
        place = int(placeholder[1][:9])
        if place >= len(numbers):
            raise ProblemError(
                f"{where} has {len(numbers)} numbers and a question with {placeholder[0]}."
            )
        return numbers[place]

    return _PLACEHOLDER.sub(number, text)


_MARKED = re.compile(
    r"\(?(?:(?P<letter>[A-Za-z])[).:]|(?P<digit>\d)(?:\)|[.:](?=\s)))\s*(?P<text>.*)", re.DOTALL
)
"""A choice that begins with its label; "1.5" and "3:00" do not."""
_LABELS = (ascii_uppercase, ascii_lowercase, digits[1:])
"""What labels of a list are, in order."""


def _choices(given: Any, where: str) -> dict[str, str] | None:
    """Choices as corpora have them: labels and texts, labelled texts, or texts alone."""
    if given is None:
        return None
    pairs: list[tuple[Any, Any]] = []
    with suppress(TypeError, KeyError, AttributeError):
        if isinstance(given, Mapping) and {"label", "text"} <= given.keys():
            pairs = list(zip(given["label"], given["text"], strict=False))
        elif isinstance(given, Mapping):
            pairs = list(given.items())
        elif all(isinstance(each, Mapping) for each in given):
            pairs = [(each["label"], each["text"]) for each in given]
        elif isinstance(given, list):
            marked = [_MARKED.match(each) for each in given]
            labels = "".join(mark["letter"] or mark["digit"] for mark in marked if mark)
            in_order = any(run.startswith(labels) for run in _LABELS)
            if in_order and len(labels) == len(given):
                pairs = [(mark[1] or mark[2], mark["text"]) for mark in marked if mark]
            else:
                pairs = [(chr(ord("A") + i), each) for i, each in enumerate(given)]
    sound = all(isinstance(each, str) for pair in pairs for each in pair)
    found = {label.strip(): text.strip() for label, text in pairs} if sound else {}
    if not found or len(found) < len(pairs) or not all(re.fullmatch(r"\w+", k) for k in found):
        raise ProblemError(
            f"{where} has the choices {shown(given)}; give texts with labels of one word each."
        )
    return found


def _laid_out(question: str, choices: Mapping[str, str]) -> str:
    """A question with its choices below, as the corpus of CODI's authors has it."""
    if (choices_in(question) or {}).keys() == choices.keys():
        return question
    lines = (f"{label}: {text}" for label, text in choices.items())
    return "\n".join([f"Question: {question}", "Choices:", *lines])


def _steps(chain: Any, gold: Any) -> tuple[str, ...]:
    """A list of steps; of a text its annotations, or else its lines; of an answer annotations."""
    if isinstance(chain, list) and all(isinstance(step, str) for step in chain):
        return tuple(chain)
    text, lines = (chain, True) if isinstance(chain, str) else (gold, False)
    if not isinstance(text, str):
        return ()
    found = _ANNOTATION.findall(text)
    if not found and lines:
        found = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(found)


def _id(given: Any, where: str) -> str:
    if isinstance(given, bool | list | Mapping):
        raise ProblemError(f"{where} has the id {shown(given)}; give text or a number.")
    return check_text(f"{where}, the id", str(given))


def _is_listed(raw: Raw) -> bool:
    return isinstance(raw.gold, str) and raw.gold in (choices_in(raw.question) or {})


def _is_boolean(gold: Any) -> bool:
    return isinstance(gold, bool) or (isinstance(gold, str) and normal(gold) in BOOLEANS)


def _is_number(raw: Raw) -> bool:
    try:
        read_gold(raw.gold)
    except ProblemError:
        return False
    return True
