"""Problems from files and from GSM8K."""

from __future__ import annotations

import random
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any

from codi_lens.errors import ProblemError, listed, shown
from codi_lens.problems.arguments import (
    Split,
    Whole,
    check_seed,
    check_split,
    repeated,
    whole_number,
)
from codi_lens.problems.files import records_of
from codi_lens.problems.formats import (
    QUESTIONS,
    Raw,
    check_answered,
    choices_in,
    kinds_of,
    read_record,
)
from codi_lens.problems.gold import read_gold
from codi_lens.problems.kinds import Kind, KindGiven, form_of, read_answer
from codi_lens.problems.problem import Problem

if TYPE_CHECKING:
    Field = str
    Fields = str | Sequence[str]
else:  # refused by `load_problems`, in a sentence, and not by a type checker at run time
    Field = Fields = object

_SIZES = {"train": 7473, "test": 1319}
"""Of the splits of GSM8K."""


def load_problems(
    path: str | PathLike[str],
    question: Fields | None = None,
    answer: Field | None = None,
    kind: KindGiven | None = None,
) -> list[Problem]:
    """Read problems from a file, in whichever format of the field it is.

    The format is known by the fields of the records: `question` and `answer` (GSM8K, StrategyQA,
    ProsQA), `Body`, `Question` and `Answer` (SVAMP), `Question` and `Numbers` (ASDiv-A, MAWPS),
    `sQuestion` and `lSolutions` (MultiArith), `input` and `target` (GSM-Hard), `problem` and
    `solution` (MATH), `question`, `choices` and `answerKey` (CommonsenseQA), `options` and
    `correct` (AQuA); lines of GSM8K-Aug, `question||chain #### answer`. Records may come as JSON
    (a list, lines, under one field, as columns), CSV, TSV, parquet, or a folder of `datasets`.
    `id`, where there is one, is the problem's, else the file's stem and the record's number.

    Args:
        path: of the file, or of the folder.
        question: the field that holds the question, or several, one after the other; by default
            that of the format.
        answer: the field that holds the answer, "" where there is none; by default that of the
            format.
        kind: of the answers: "number", "choice", "boolean" or "text"; by default choices where the
            format has them or every question lists them, booleans where every answer is one, texts
            where all come with a list of steps and none is a number, and else numbers.

    Raises:
        ProblemError: no such file, no problems in it, malformed content, fields that fit no format,
            an answer that is not one of its kind, or an id that occurs twice; names the line or
            row.

    >>> import tempfile
    >>> from pathlib import Path
    >>> line = "A shop has 6 boxes of 3 pens. How many pens?||<<6*3=18>> #### 18"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "some.txt")
    ...     written = file.write_text(line)
    ...     problem = load_problems(file)[0]
    >>> problem.question, problem.answer, problem.steps, problem.id
    ('A shop has 6 boxes of 3 pens. How many pens?', 18, ('<<6*3=18>>',), 'some-0')
    """
    names = _names(question)
    if answer is not None and not isinstance(answer, str):
        raise ProblemError(f"answer= is the name of a field, not {shown(answer)}.")
    if kind is not None:
        form_of(kind)
    path, records = records_of(path, {*names} if names else QUESTIONS)
    raws = [read_record(each, f"{path}, {where}", names, answer) for where, each in records]
    if not raws:
        raise ProblemError(f"{path} holds no problems; give one object with a question each.")
    if answer and not any(raw.answered for raw in raws):
        raise ProblemError(
            f"No record of {path} has a field {shown(answer)}; there are "
            f"{', '.join(map(shown, sorted(raws[0].fields)))}."
        )
    if answer != "":
        check_answered(raws)
    kinds: list[Kind] = kinds_of(raws) if kind is None else [kind] * len(raws)
    problems = [
        _problem(raw, each, f"{path.stem}-{number}")
        for number, (raw, each) in enumerate(zip(raws, kinds, strict=True))
    ]
    twice = repeated(problem.id for problem in problems)
    if twice is not None:
        raise ProblemError(f"{path} gives the id {twice!r} twice; ids must be unique.")
    return problems


def gsm8k(
    n: Whole | None = None,
    *,
    seed: Whole = 42,
    split: Split = "train",
    path: str | PathLike[str] | None = None,
) -> list[Problem]:
    """Draw `n` GSM8K problems (all of the split if `n` is None).

    `gsm8k(100, seed=42)` is the sample of the published study: indices
    `sorted(random.Random(42).sample(range(7473), 100))` of the training split.

    Args:
        n: how many.
        seed: of the draw.
        split: "train" or "test".
        path: a file of the whole split, such as `train.jsonl` of the published corpus; by default
            it comes through the `datasets` library.

    Raises:
        ProblemError: `n` exceeds the split, a negative seed, an unknown split, a file of something
            else, `datasets` is not installed, or the hub is unreachable.
    """
    n, seed = None if n is None else whole_number("n", n), check_seed(seed)
    check_split(split)
    if path is None:
        name, rows = "GSM8K", _from_hub(split)
    else:
        name, records = records_of(path, QUESTIONS)
        rows = [record for _, record in records]
        if len(rows) != _SIZES[split]:
            raise ProblemError(
                f"{name} holds {len(rows)} problems, and the {split} split of GSM8K "
                f"{_SIZES[split]}; give the file of the whole split, or use load_problems."
            )
    chosen = {
        i: read_record(rows[i], f"{name}, row {i + 1}")
        for i in sample_indices(len(rows), n, seed=seed)
    }
    return [
        Problem(raw.question, read_gold(raw.gold, of=raw.where), f"{split}_{i}", steps=raw.steps)
        for i, raw in chosen.items()
    ]


def _from_hub(split: Split) -> Any:
    """The rows of a split."""
    try:
        import datasets
    except ImportError as error:
        raise ProblemError(
            "GSM8K needs the `datasets` package: pip install 'codi_lens[gsm8k]'; or give path=."
        ) from error
    try:
        return datasets.load_dataset("openai/gsm8k", "main", split=split)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ProblemError(
            f"GSM8K could not be loaded from the Hugging Face hub ({reason}); give a problem file, "
            "or use the built-in problems."
        ) from error


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


def _names(given: object) -> list[str]:
    """The fields that make a question; none if nobody names them."""
    if given is None:
        return []
    names = (
        [given] if isinstance(given, str) else listed("question=", given, "fields", ProblemError)
    )
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ProblemError(f"question= is the name of a field, or several, not {shown(given)}.")
    return names


def _problem(raw: Raw, kind: Kind, default_id: str) -> Problem:
    choices = raw.choices or choices_in(raw.question) if kind == "choice" else None
    answer = read_answer(raw.gold, form_of(kind, choices), choices, of=raw.where)
    id = default_id if raw.id is None else raw.id
    return Problem(raw.question, answer, id, kind=kind, choices=choices, steps=raw.steps)
