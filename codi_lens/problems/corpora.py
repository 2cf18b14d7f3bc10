"""Problems from files and from GSM8K."""

from __future__ import annotations

import codecs
import json
import math
import random
import re
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from codi_lens.errors import ProblemError
from codi_lens.problems.arguments import (
    Split,
    Whole,
    check_seed,
    check_split,
    check_text,
    repeated,
    whole_number,
)
from codi_lens.problems.gold import read_gold, shown
from codi_lens.problems.problem import Problem

_FORMATS = "problems are JSON or JSON lines"
_TABLES = (".csv", ".tsv", ".xls", ".xlsx", ".parquet")
_SEPARATORS = re.compile(r"[ \t\r\n,]*")


def load_problems(path: str | PathLike[str]) -> list[Problem]:
    """Read problems from a JSON list or a JSON-lines file.

    Each record has a `question` (text), and optionally an `answer` (a number, or text that is one
    number, as `read_gold` reads it, also behind GSM8K's "####") and an `id` (text or a number;
    default: the file's stem and the record's number).

    Raises:
        ProblemError: no such file, no problems in it, malformed JSON, a record without a question,
            an answer that is not one number, or an id that occurs twice; names the line or record.
    """
    path, text = _content(path)
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


def gsm8k(n: Whole | None = None, *, seed: Whole = 42, split: Split = "train") -> list[Problem]:
    """Draw `n` GSM8K problems through the `datasets` library (all of the split if `n` is None).

    `gsm8k(100, seed=42)` is the sample of the published study: indices
    `sorted(random.Random(42).sample(range(7473), 100))` of the training split.

    Raises:
        ProblemError: `n` exceeds the split, a negative seed, an unknown split, `datasets` is not
            installed, or the hub is unreachable.
    """
    n, seed = None if n is None else whole_number("n", n), check_seed(seed)
    check_split(split)
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
        Problem(row["question"], row["answer"], f"{split}_{index}")
        for index in sample_indices(len(rows), n, seed=seed)
        for row in [rows[index]]
    ]


def sample_indices(size: int, n: Whole | None, *, seed: Whole) -> list[int]:
    """Which of `size` problems to take: `n` of them, drawn with `seed`, in order of the corpus.

    Raises:
        ProblemError: `n` is below 1 or larger than the corpus, or a negative seed.

    >>> sample_indices(7473, 100, seed=42)[:3]
    [53, 204, 217]
    """
    seed = check_seed(seed)
    if n is None:
        return list(range(size))
    try:
        n = whole_number("n", n, high=size)
    except ProblemError:
        raise ProblemError(
            f"n must lie in 1..{size}, the size of the corpus, not {shown(n)}."
        ) from None
    return sorted(random.Random(seed).sample(range(size), n))


def _content(given: object) -> tuple[Path, str]:
    """A file's path and its text, or one sentence on what is there instead."""
    try:
        path = Path(given)  # type: ignore[arg-type]
        name = check_text("The name of a problem file", str(path))
        name = name if len(name) <= 500 else shown(name)  # as a sentence bears it
    except TypeError:
        raise ProblemError(f"A problem file is given by its path, not {shown(given)}.") from None
    try:
        if path.is_dir():
            raise ProblemError(f"{name} is a folder; give a problem file, JSON or JSON lines.")
        if not path.is_file():
            raise ProblemError(f"There is no problem file at {name}.")
        content = path.read_bytes()
    except OSError as error:
        raise ProblemError(f"{name} cannot be read: {error.strerror or error}.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        begins = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        advice = "but begins as UTF-16 does; save it as UTF-8" if begins else _FORMATS
        raise ProblemError(f"{name} is not UTF-8 text{', ' if begins else '; '}{advice}.")
    if path.suffix.lower() in _TABLES and not text.lstrip().startswith(("[", "{")):
        raise ProblemError(f"{name} is a table; {_FORMATS}.")
    return path, text


def _records(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    """Each record with the line it begins on: of a JSON list, one object, or JSON lines."""
    if not text.strip():
        return
    if text.lstrip().startswith("["):
        yield from _list_items(path, text)
        return
    first = 1 + text[: len(text) - len(text.lstrip())].count("\n")
    try:
        whole = _parsed(text)
    except ProblemError as error:
        raise ProblemError(f"{path}, line {first} {error}") from None
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, Mapping):
        yield f"line {first}", whole
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _item(path, number, lambda line=line: _parsed(line))


def _list_items(path: Path, text: str) -> Iterable[tuple[str, Any]]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}, line {error.lineno} is not JSON: {error.msg}.") from error
    except RecursionError:
        raise ProblemError(f"{path} is nested too deeply; {_FORMATS}.") from None
    except ValueError as error:
        raise ProblemError(f"{path} is not JSON: {_reason(error)}.") from error
    at, line = text.index("[") + 1, 1
    counted = 0
    while True:
        at = _SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
        if text[at] == "]":
            return
        line += text.count("\n", counted, at)
        counted = at
        record, at = _item(path, line, lambda at=at: _DECODER.raw_decode(text, at))
        yield f"line {line}", record


def _item(path: Path, line: int, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ProblemError as error:
        raise ProblemError(f"{path}, line {line} {error}") from None
    except RecursionError:
        raise ProblemError(f"{path}, line {line} is nested too deeply; {_FORMATS}.") from None
    except ValueError as error:
        raise ProblemError(f"{path}, line {line} is not JSON: {_reason(error)}.") from error


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON lets a later field silently replace an earlier one."""
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = repeated(name for name, _ in pairs)
        raise ProblemError(f"gives {shown(twice)} twice in one object; give it once.")
    return record


_DECODER = json.JSONDecoder(object_pairs_hook=_without_twins)


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_without_twins)


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(";")[0]


def _problem_from(record: Any, *, where: str, default_id: str) -> Problem:
    if not isinstance(record, Mapping):
        raise ProblemError(f"{where} is not an object with a question.")
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise ProblemError(f"{where} has no question; every record needs a `question` text.")
    answer = record.get("answer")
    if isinstance(answer, float) and math.isnan(answer):
        raise ProblemError(
            f"{where} has the answer NaN, in which there is no number; write null where there is "
            "no answer."
        )
    id = record.get("id")
    if id is None:
        id = default_id
    elif isinstance(id, bool | list | Mapping):
        raise ProblemError(f"{where} has the id {shown(id)}; give text or a number.")
    question, id = (
        check_text(f"{where}, the {name}", text)
        for name, text in (("question", question), ("id", str(id)))
    )
    return Problem(question, read_gold(answer, of=where), id)
