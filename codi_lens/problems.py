"""Problems to think about: built-in word problems with known running totals, GSM8K, JSON files.

A `Problem` is a question with a number for an answer. The built-in `word_problems` also know every
operation and every running total, which is what makes claims about thoughts testable. One parser,
`parse_answer`, reads the number out of any answer, so that every accuracy means the same thing.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

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


@dataclass(frozen=True)
class Operation:
    """One step of a word problem: change the running total, perhaps only on a condition.

    Attributes:
        kind: "add" or "subtract" `amount`; or a conditional: "lose_if_over" (subtract `amount` if
            the total is over `threshold`), "double_if_under", "halve_if_over" (rounding down).
        amount: the number added or subtracted, None for doubling and halving.
        threshold: what the running total is compared with, None for the unconditional kinds.
        verb: the word the question uses.

    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(25)
    12
    >>> Operation("halve_if_over", threshold=20, verb="halves").apply(20)
    20
    """

    kind: Literal["add", "subtract", "lose_if_over", "double_if_under", "halve_if_over"]
    amount: int | None = None
    threshold: int | None = None
    verb: str = ""

    def fires(self, total: int) -> bool:
        """Whether this step changes a running total of `total`."""
        if self.threshold is None:
            return True
        return total < self.threshold if self.kind == "double_if_under" else total > self.threshold

    def apply(self, total: int) -> int:
        """The running total after this step."""
        if not self.fires(total):
            return total
        match self.kind:
            case "add":
                return total + (self.amount or 0)
            case "subtract" | "lose_if_over":
                return total - (self.amount or 0)
            case "double_if_under":
                return total * 2
            case "halve_if_over":
                return total // 2

    def equation(self, total: int) -> str:
        """The step as a chain-of-thought model writes it.

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
            change = f"{'+' if self.kind == 'add' else '-'} {self.amount}"
        return f"<< {total} {change} = {self.apply(total)} >>"


@dataclass(frozen=True)
class WordProblem(Problem):
    """A built-in word problem, with the ground truth of every step.

    Attributes:
        start: the number the story begins with.
        operations: the steps, in order.
        totals: the running total after each step; the last one is the answer.
    """

    start: int
    operations: tuple[Operation, ...]
    totals: tuple[int, ...]

    @property
    def solution(self) -> str:
        """Explicit chain of thought: every step but the last, which the answer itself states."""
        before = (self.start, *self.totals)
        steps = zip(self.operations, before, strict=False)
        return " ".join(operation.equation(total) for operation, total in list(steps)[:-1])


MAX_TOTAL = 49
MAX_OPERATIONS = 5
_STARTS = range(8, 36)
_AMOUNTS = range(2, 10)
_OVER = (10, 15, 20)
_UNDER = (20, 25)
_PEOPLE = (("Zoe", "she"), ("Ana", "she"), ("Mia", "she"), ("Ivy", "she"))
_PEOPLE += (("Tom", "he"), ("Max", "he"), ("Leo", "he"), ("Sam", "he"))
_ITEMS = ("coins", "cards", "books", "shells", "stamps", "apples")
_ADD_VERBS = ("finds", "buys", "wins", "gets")
_SUBTRACT_VERBS = ("loses", "sells", "spends", "drops")
_HELD_OUT = 0.05


def word_problems(
    n: int,
    *,
    seed: int = 0,
    split: Split = "test",
    n_operations: int | Sequence[int] = tuple(range(1, MAX_OPERATIONS + 1)),
) -> list[WordProblem]:
    """Generate `n` multi-step word problems whose every running total is known.

    The conditional steps do not compose in parallel, so a model has to follow the running total.
    Totals stay in 0..49. A *chain* (start and operations) belongs to the test split if its hash
    falls in the held-out 5 %, so no chain is in both splits, whatever the seeds.

    Args:
        n: how many problems.
        seed: the same seed gives the same problems, on every platform.
        split: "train" or "test".
        n_operations: the number of steps, or the numbers to draw from uniformly (1 to 5).

    Raises:
        ProblemError: `n` below 1, an unknown split or a number of operations outside 1..5.

    >>> problem = word_problems(1, seed=6, n_operations=2)[0]
    >>> problem.question.split(". ")[:3]
    ['Mia has 15 stamps', 'Then she buys 5 more', 'If she has over 20, she halves them']
    >>> problem.totals, problem.answer, problem.id
    ((20, 20), 20, 'test-6-0')
    """
    if n < 1:
        raise ProblemError(f"The number of problems must be at least 1, not {n}.")
    if split not in ("train", "test"):
        raise ProblemError(f'The split must be "train" or "test", not {split!r}.')
    lengths = (n_operations,) if isinstance(n_operations, int) else tuple(n_operations)
    if not lengths or any(length not in range(1, MAX_OPERATIONS + 1) for length in lengths):
        raise ProblemError(f"n_operations must lie in 1..{MAX_OPERATIONS}, not {n_operations!r}.")
    draw = random.Random(f"codi_lens word problems {split} {seed}")
    problems: list[WordProblem] = []
    while len(problems) < n:
        start = draw.choice(_STARTS)
        operations, totals = _draw_chain(draw, start, draw.choice(lengths))
        if split_of(start, operations) == split:
            question = _write(draw, start, operations)
            id = f"{split}-{seed}-{len(problems)}"
            problems.append(WordProblem(question, totals[-1], id, start, operations, totals))
    return problems


def split_of(start: int, operations: Iterable[Operation]) -> Split:
    """Which split a chain belongs to: "test" for the held-out 5 %, by its hash.

    >>> problem = word_problems(1, split="train")[0]
    >>> split_of(problem.start, problem.operations)
    'train'
    """
    chain = [(step.kind, step.amount, step.threshold) for step in operations]
    digest = hashlib.sha256(repr((start, chain)).encode()).digest()
    held_out = int.from_bytes(digest[:8], "big") < _HELD_OUT * 2**64
    return "test" if held_out else "train"


def totals_of(start: int, operations: Iterable[Operation]) -> tuple[int, ...]:
    """The total after each operation; the last one is the answer.

    >>> totals_of(30, [Operation("add", 7), Operation("halve_if_over", threshold=20)])
    (37, 18)
    """
    return tuple(accumulate(operations, lambda total, step: step.apply(total), initial=start))[1:]


def with_one_operand_changed(problem: WordProblem, operand: int) -> list[WordProblem]:
    """The same story with one other number: every variant that the generator could have drawn.

    Name, item, verbs and every other number stay. A variant may belong to another split, and may
    have the same answer; its id is that of the problem with the operand and its new number.

    Args:
        problem: of `word_problems`.
        operand: 0 for the start, i for an amount or a threshold of operation i.

    Raises:
        ProblemError: an operand that the problem does not have.

    >>> problem = word_problems(1, seed=6, n_operations=2)[0]
    >>> [variant.question.split(". ")[1] for variant in with_one_operand_changed(problem, 1)[:2]]
    ['Then she buys 2 more', 'Then she buys 3 more']
    """
    if not 0 <= operand <= len(problem.operations):
        raise ProblemError(
            f"The problem {problem.id!r} has the operands 0..{len(problem.operations)}, not "
            f"{operand}."
        )
    name, _, _, item = problem.question.split(".")[0].split()
    story = (name, dict(_PEOPLE)[name], item)
    variants: list[WordProblem] = []
    for start, operations, changed in _variants(problem, operand):
        totals = totals_of(start, operations)
        if all(0 <= total <= MAX_TOTAL for total in totals):
            id = f"{problem.id} operand {operand} {changed}"
            question = _tell(story, start, operations)
            variants.append(WordProblem(question, totals[-1], id, start, operations, totals))
    return variants


def load_problems(path: str | Path) -> list[Problem]:
    """Read problems from a JSON list or a JSON-lines file.

    Each record has a `question` (text), and optionally an `answer` (a number, or text holding one,
    also in GSM8K's "#### 42" form) and an `id` (default: the file's stem and the record's number).

    Raises:
        ProblemError: no such file, no problems in it, malformed JSON, a record without a question,
            an answer without a number, or an id that occurs twice; names the line or record.
    """
    path = Path(path)
    if not path.is_file():
        raise ProblemError(f"There is no problem file at {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ProblemError(f"{path} is not UTF-8 text; problems are JSON or JSON lines.") from error
    problems = [
        _problem_from(record, where=f"{path}, {where}", default_id=f"{path.stem}-{index}")
        for index, (where, record) in enumerate(_records(path, text))
    ]
    if not problems:
        raise ProblemError(f"{path} holds no problems; give one JSON object with a question each.")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise ProblemError(f"{path} gives the id {problem.id!r} twice; ids must be unique.")
        seen.add(problem.id)
    return problems


def gsm8k(n: int | None = None, *, seed: int = 42, split: Split = "train") -> list[Problem]:
    """Draw `n` GSM8K problems through the `datasets` library (all of the split if `n` is None).

    `gsm8k(100, seed=42)` is the sample of the published study: indices
    `sorted(random.Random(42).sample(range(7473), 100))` of the training split.

    Raises:
        ProblemError: `n` exceeds the split, `datasets` is not installed, or the hub is unreachable.
    """
    try:
        import datasets
    except ImportError as error:
        raise ProblemError(
            "GSM8K needs the `datasets` package: pip install 'codi_lens[gsm8k]'."
        ) from error
    try:
        rows: Any = datasets.load_dataset("openai/gsm8k", "main", split=split)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProblemError(
            f"GSM8K could not be loaded from the Hugging Face hub ({reason}); give a problem file, "
            "or use the built-in problems."
        ) from error
    return [
        Problem(row["question"], parse_answer(row["answer"]), f"{split}_{index}")
        for index in sample_indices(len(rows), n, seed=seed)
        for row in [rows[index]]
    ]


def sample_indices(size: int, n: int | None, *, seed: int) -> list[int]:
    """Which of `size` problems to take: `n` of them, drawn with `seed`, in order of the corpus.

    Raises:
        ProblemError: `n` is below 1 or larger than the corpus.

    >>> sample_indices(7473, 100, seed=42)[:3]
    [53, 204, 217]
    """
    if n is None:
        return list(range(size))
    if not 1 <= n <= size:
        raise ProblemError(f"n must lie in 1..{size}, the size of the corpus, not {n}.")
    return sorted(random.Random(seed).sample(range(size), n))


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


def _draw_chain(
    draw: random.Random, start: int, length: int
) -> tuple[tuple[Operation, ...], tuple[int, ...]]:
    operations: list[Operation] = []
    totals: list[int] = []
    total = start
    while len(operations) < length:
        operation = _draw_operation(draw)
        after = operation.apply(total)
        if 0 <= after <= MAX_TOTAL:
            operations.append(operation)
            totals.append(after)
            total = after
    return tuple(operations), tuple(totals)


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


def _variants(
    problem: WordProblem, operand: int
) -> Iterator[tuple[int, tuple[Operation, ...], str]]:
    """Start and operations with another number for one operand, and which number that is."""
    if operand == 0:
        for start in _STARTS:
            if start != problem.start:
                yield start, problem.operations, str(start)
        return
    before, after = problem.operations[: operand - 1], problem.operations[operand:]
    step = problem.operations[operand - 1]
    thresholds = _UNDER if step.kind == "double_if_under" else _OVER
    if step.amount is not None:
        for amount in _AMOUNTS:
            if amount != step.amount:
                yield problem.start, (*before, replace(step, amount=amount), *after), str(amount)
    if step.threshold is not None:
        for threshold in thresholds:
            if threshold != step.threshold:
                changed = replace(step, threshold=threshold)
                yield problem.start, (*before, changed, *after), f"threshold {threshold}"


def _write(draw: random.Random, start: int, operations: Iterable[Operation]) -> str:
    name, pronoun = draw.choice(_PEOPLE)
    return _tell((name, pronoun, draw.choice(_ITEMS)), start, operations)


def _tell(story: tuple[str, str, str], start: int, operations: Iterable[Operation]) -> str:
    name, pronoun, item = story
    sentences = [f"{name} has {start} {item}."]
    for step in operations:
        match step.kind:
            case "add":
                sentences.append(f"Then {pronoun} {step.verb} {step.amount} more.")
            case "subtract":
                sentences.append(f"Then {pronoun} {step.verb} {step.amount}.")
            case "lose_if_over":
                sentences.append(
                    f"If {pronoun} has over {step.threshold}, {pronoun} {step.verb} {step.amount}."
                )
            case "double_if_under" | "halve_if_over":
                side = "under" if step.kind == "double_if_under" else "over"
                sentences.append(
                    f"If {pronoun} has {side} {step.threshold}, {pronoun} {step.verb} them."
                )
    sentences.append(f"How many {item} does {pronoun} have?")
    return " ".join(sentences)


def _records(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    """Each record with the line it begins on: of a JSON list, one object, or JSON lines."""
    if not text.strip():
        return
    if text.lstrip().startswith("["):
        yield from _list_items(path, text)
        return
    try:
        whole = json.loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, Mapping):
        yield "line 1", whole
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except ValueError as error:
                raise ProblemError(
                    f"{path}, line {number} is not JSON: {_reason(error)}."
                ) from error


def _list_items(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}, line {error.lineno} is not JSON: {error.msg}.") from error
    except ValueError as error:
        raise ProblemError(f"{path} is not JSON: {_reason(error)}.") from error
    at = text.index("[") + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return
        line = text.count("\n", 0, at) + 1
        record, at = json.JSONDecoder().raw_decode(text, at)
        yield f"line {line}", record


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(";")[0]


def _problem_from(record: Any, *, where: str, default_id: str) -> Problem:
    if not isinstance(record, Mapping):
        raise ProblemError(f"{where} is not an object with a question.")
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(f"{where} has no question; every record needs a `question` text.")
    answer = record.get("answer")
    if isinstance(answer, str):
        value = parse_answer(answer)
    elif isinstance(answer, Number) and not isinstance(answer, bool):
        value = answer
    else:
        value = None
    if value is not None and not math.isfinite(value):
        value = None
    if answer is not None and value is None:
        raise ProblemError(f"{where} has the answer {answer!r}, in which there is no number.")
    id = record.get("id")
    return Problem(question, value, default_id if id is None else str(id))
