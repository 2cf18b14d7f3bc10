"""Problems from files and from GSM8K."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from codi_lens.errors import ProblemError
from codi_lens.problems.problem import Number, Problem, Split, parse_answer, repeated


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
    twice = repeated(problem.id for problem in problems)
    if twice is not None:
        raise ProblemError(f"{path} gives the id {twice!r} twice; ids must be unique.")
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
