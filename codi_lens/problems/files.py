"""The records of a file, each with the place that errors name: whichever way it writes them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from codi_lens.errors import ProblemError, shown
from codi_lens.problems.arguments import check_text, repeated

FORMATS = "problems are JSON, JSON lines, CSV, TSV or parquet"
_BLANK_LINES = re.compile(r"(?:[ \t\r]*\n)*")
_SEPARATORS = re.compile(r"[ \t\r\n,]*")
_BETWEEN = "||"  # GSM8K-Aug, between a question and its chain

Record = tuple[str, Any]
"""Where it stands ("line 3"), and what stands there."""


def records_of(given: object, questions: Collection[str]) -> tuple[Path, Iterable[Record]]:
    """A file's path and its records.

    A list of objects, objects line by line, one object that holds the list or its columns, lines of
    GSM8K-Aug, a table with a header, parquet, or a folder that `datasets` saved.

    Args:
        given: its path.
        questions: fields that hold a question, by which columns and headers are known.

    Raises:
        ProblemError: no such file, or one that holds no records; names the line.
    """
    path, name = _path(given)
    if path.is_dir():
        return path, _saved_dataset(path, name)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ProblemError(f"{name} cannot be read: {error.strerror or error}.") from error
    if content.startswith(b"PAR1"):
        return path, _parquet(content, name)
    text = _decoded(content, name)
    first = text.lstrip()[:1]
    if first == "[":
        return path, _list_items(path, text)
    if first in ("{", ""):
        return path, _objects(path, text, questions)
    if _BETWEEN in text.lstrip().split("\n", 1)[0]:
        return path, _augmented(path, text)
    return path, _table(path, text, questions)


def _path(given: object) -> tuple[Path, str]:
    """A path, and its name as a sentence bears it."""
    try:
        path = Path(given)  # type: ignore[arg-type]
        name = check_text("The name of a problem file", str(path))
        name = name if len(name) <= 500 else shown(name)
    except TypeError:
        raise ProblemError(f"A problem file is given by its path, not {shown(given)}.") from None
    try:
        if not (path.is_file() or path.is_dir()):
            raise ProblemError(f"There is no problem file at {name}.")
    except OSError as error:
        raise ProblemError(f"{name} cannot be read: {error.strerror or error}.") from error
    return path, name


def _decoded(content: bytes, name: str) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        begins = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        advice = "but begins as UTF-16 does; save it as UTF-8" if begins else FORMATS
        raise ProblemError(f"{name} is not UTF-8 text{', ' if begins else '; '}{advice}.")
    return text


def _saved_dataset(path: Path, name: str) -> list[Record]:
    """The rows of a folder that `Dataset.save_to_disk` wrote."""
    if (path / "dataset_dict.json").is_file():
        splits = sorted(each.name for each in path.iterdir() if each.is_dir())
        raise ProblemError(f"{name} holds the splits {', '.join(splits)}; give the folder of one.")
    if not (path / "state.json").is_file():
        raise ProblemError(f"{name} is a folder; give a problem file: {FORMATS}.")
    try:
        import datasets
    except ImportError as error:
        raise ProblemError(
            f"{name} is a folder of the `datasets` package: pip install 'codi_lens[gsm8k]'."
        ) from error
    try:
        rows: Any = datasets.load_from_disk(str(path))
        return _numbered(rows)
    except Exception as error:  # whatever datasets and pyarrow make of a damaged folder
        raise ProblemError(f"{name} cannot be read by `datasets`: {_first_line(error)}.") from error


def _parquet(content: bytes, name: str) -> list[Record]:
    from pyarrow import BufferReader, parquet

    try:
        return _numbered(parquet.read_table(BufferReader(content)).to_pylist())
    except Exception as error:  # whatever pyarrow makes of damaged bytes
        raise ProblemError(f"{name} is damaged parquet: {_first_line(error)}.") from error


def _numbered(rows: Iterable[Any]) -> list[Record]:
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _objects(path: Path, text: str, questions: Collection[str]) -> Iterator[Record]:
    """One object, or several line by line."""
    if not text.strip():
        return
    first = 1 + text[: len(text) - len(text.lstrip())].count("\n")
    try:
        whole = _parsed(text)
    except ProblemError as error:
        raise ProblemError(f"{path}, line {first} {error}") from None
    except (ValueError, RecursionError):
        whole = None
    if isinstance(whole, Mapping):
        yield from _unwrapped(path, f"line {first}", whole, questions)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _item(path, number, lambda line=line: _parsed(line))


def _unwrapped(
    path: Path, where: str, whole: Mapping[str, Any], questions: Collection[str]
) -> Iterator[Record]:
    """The records of the only object: its columns, the list that it holds, or itself."""
    asked: Any = next((whole[name] for name in questions if name in whole), None)
    mappings = isinstance(asked, Mapping) and "stem" not in asked
    if mappings or isinstance(asked, list):
        columns = {
            name: dict(enumerate(cells)) if isinstance(cells, list) else cells
            for name, cells in whole.items()
        }
        keys = list(dict(enumerate(asked)) if isinstance(asked, list) else asked)
        for name, cells in columns.items():
            if not isinstance(cells, Mapping) or list(cells) != keys:
                raise ProblemError(
                    f"{path} holds columns, of which {shown(name)} has other rows than the "
                    "question; give each as many."
                )
        yield from _numbered({name: columns[name][key] for name in columns} for key in keys)
        return
    lists = {
        name: cells
        for name, cells in whole.items()
        if isinstance(cells, list) and cells and all(isinstance(each, Mapping) for each in cells)
    }
    if asked is not None or not lists:
        yield where, whole
        return
    if len(lists) > 1:
        raise ProblemError(
            f"{path} holds the lists {', '.join(map(shown, lists))}; give a file of one of them."
        )
    yield from _numbered(next(iter(lists.values())))


def _augmented(path: Path, text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            question, between, answer = line.rpartition(_BETWEEN)
            if not between:
                raise ProblemError(
                    f"{path}, line {number} has no {_BETWEEN} between question and answer."
                )
            yield f"line {number}", {"question": question, "answer": answer.strip() or None}


def _table(path: Path, text: str, questions: Collection[str]) -> Iterator[Record]:
    """The rows below a header; an empty cell is None."""
    begin = len(_BLANK_LINES.match(text)[0])  # type: ignore[index]
    line, text = 1 + text.count("\n", 0, begin), text[begin:]
    header = text.split("\n", 1)[0]
    by = max(",\t;", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=by, strict=True)
    names: list[str] | None = None
    before = line
    try:
        for cells in rows:
            begins, line = line, before + rows.line_num
            if names is None:
                names = [cell.strip() for cell in cells]
                if by not in header and not set(names) & set(questions):
                    _item(path, begins, lambda: _parsed(header))
                    raise ProblemError(f"{path}, line {begins} is not an object; {FORMATS}.")
                twice = repeated(names)
                if twice is not None:
                    raise ProblemError(f"{path} has the column {shown(twice)} twice.")
            elif any(cells):
                if len(cells) != len(names):
                    raise ProblemError(
                        f"{path}, line {begins} has {len(cells)} cells and the header "
                        f"{len(names)}; quote cells that hold what separates them."
                    )
                yield f"line {begins}", dict(zip(names, (c or None for c in cells), strict=True))
    except csv.Error as error:
        raise ProblemError(f"{path}, line {line} is no row of a table: {error}.") from error


def _list_items(path: Path, text: str) -> Iterator[Record]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ProblemError(f"{path}, line {error.lineno} is not JSON: {error.msg}.") from error
    except RecursionError:
        raise ProblemError(f"{path} is nested too deeply; {FORMATS}.") from None
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
        raise ProblemError(f"{path}, line {line} is nested too deeply; {FORMATS}.") from None
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
