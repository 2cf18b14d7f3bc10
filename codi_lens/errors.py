"""The exceptions of codi_lens, and the checks that many raise them by.

Each message is one sentence: what was given, what is valid.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Mapping
from errno import EINVAL, ELOOP, ENAMETOOLONG
from pathlib import Path
from typing import Any, get_args

LARGEST = 2**63 - 1
"""The largest whole number that every library takes."""


class CodiLensError(Exception):
    """Base class of every error that codi_lens raises for a caller's mistake."""


class CheckpointError(CodiLensError):
    """A folder, file or hub repository that is not a CODI checkpoint codi_lens can load."""


class PositionError(CodiLensError):
    """A position, layer or head that does not exist in the model or in the run."""


class ProblemError(CodiLensError):
    """A problem file, corpus or question that cannot be used."""


class AttentionError(CodiLensError):
    """Attention that is missing, malformed or in the wrong view."""


class InterventionError(CodiLensError):
    """An intervention that cannot be applied, or one whose hook never fired."""


class ActivationError(CodiLensError):
    """Activations that are NaN or infinite, of which no answer can be read."""


class OutputError(CodiLensError):
    """An output folder or file that must not be overwritten or cannot be resumed."""


class NotOfferedError(CodiLensError, AttributeError):
    """Something that users of other libraries type, and that is called otherwise here."""


class CheckpointWarning(UserWarning):
    """Something in a checkpoint was left out on purpose, and says so."""


class ProblemWarning(UserWarning):
    """The model reads something else than the problem says: words that its tokenizer lacks."""


class InterventionWarning(UserWarning):
    """What an intervention puts in was given by nobody, and where it comes from instead."""


def check_choice(
    what: str, given: object, choices: Any, error: type[CodiLensError] = InterventionError
) -> None:
    """Refuse a name that is none of the choices.

    Args:
        what: the name names: "mode", "component".
        given: the name.
        choices: a `Literal` of all names.
        error: what to raise.

    Raises:
        CodiLensError: of the class `error`; lists the choices.

    >>> from typing import Literal
    >>> check_choice("mode", "mean", Literal["mean", "zero"])
    """
    known = get_args(choices)
    if not (isinstance(given, str) and given in known):
        raise error(f"There is no {what} {shown(given)}; there are {', '.join(known)}.")


def needs(
    table: Any, *columns: str, advice: str = "", error: type[CodiLensError] = InterventionError
) -> None:
    """Refuse what is no table, or one without these columns.

    Args:
        table: anything that holds its columns' names, as a DataFrame does.
        columns: that are needed.
        advice: the end of the message: "give what `restore` returns".
        error: what to raise.

    Raises:
        CodiLensError: of the class `error`; no table, or names the first column that is missing.

    >>> needs({"layer": [], "head": []}, "layer", "head")
    """
    end = f"; {advice}" if advice else ""
    if isinstance(table, type) or not (isinstance(table, Mapping) or hasattr(table, "columns")):
        raise error(f"{shown(table)} is no table{end}.")
    for column in columns:
        if not isinstance(column, str) or column not in table:
            raise error(f"The table has no column {shown(column)}{end}.")


def shown(value: object) -> str:
    """A value as a message names it, on one line and no longer than a glance.

    >>> shown("L1H7"), shown(10**5000), shown([1] * 50)
    ("'L1H7'", 'a value of type int', '[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1...')
    """
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an int of 5,000 digits has no text, nor has what breaks in its own repr
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def whole_number(
    what: str,
    value: Any,
    low: int = 0,
    high: int = LARGEST,
    error: type[CodiLensError] = InterventionError,
) -> int:
    """An argument that counts, as an int: Python's, NumPy's or torch's.

    Raises:
        CodiLensError: of the class `error`; no whole number, or one out of range.

    >>> whole_number("seed", 3)
    3
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    if number is None:
        raise error(f"{what} must be a whole number, not {shown(value)}.")
    if number < low:
        raise error(f"{what} must be at least {low}, not {shown(number)}.")
    if number > high:
        raise error(f"{what} must be at most {high}, not {shown(number)}.")
    return number


def check_seed(seed: Any, error: type[CodiLensError] = InterventionError) -> int:
    """A seed, up to `LARGEST`; none is negative, since Python's generator takes -1 for 1.

    Raises:
        CodiLensError: of the class `error`; anything else.

    >>> check_seed(0)
    0
    """
    return whole_number("The seed", seed, error=error)


def finite_number(
    what: str, value: Any, error: type[CodiLensError] = InterventionError
) -> float | int:
    """An argument that measures, as a Python number.

    Raises:
        CodiLensError: of the class `error`; no number, or NaN, or infinite.

    >>> finite_number("factor", 0.5)
    0.5
    """
    try:
        textual = isinstance(value, (str, bytes, bool))
        number = None if textual else value if isinstance(value, (int, float)) else float(value)
        finite = number is not None and math.isfinite(number)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        number, finite = None, False
    if number is None or not finite:
        raise error(f"{what} is a finite number, not {shown(value)}.")
    return number


def listed(what: str, values: Any, of: str, error: type[CodiLensError]) -> list[Any]:
    """An argument that is many, as a list; a generator is used up.

    Args:
        what: takes it: "think".
        values: any iterable but a text or a mapping.
        of: what it must hold: "questions".
        error: what to raise.

    Raises:
        CodiLensError: of the class `error`; not an iterable of many.

    >>> listed("think", (text for text in ["1 + 1?"]), "questions", ProblemError)
    ['1 + 1?']
    """
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, Mapping)):
        raise error(f"{what} takes a list of {of}, not {shown(values)}.")
    try:
        return list(values)
    except TypeError:  # a tensor without dimensions
        raise error(f"{what} takes a list of {of}, not {shown(values)}.") from None


def as_path(what: str, value: Any, error: type[CodiLensError] = OutputError) -> Path:
    """An argument that names a file or a folder.

    Args:
        what: names it: "out".
        value: a text or a path.
        error: what to raise.

    Raises:
        CodiLensError: of the class `error`; anything else, or a name that no system takes.

    >>> as_path("out", "results").name
    'results'
    """
    try:
        path = Path(value) if isinstance(value, (str, os.PathLike)) else None
    except TypeError:  # a path of bytes
        path = None
    if path is None:
        raise error(f"{what} is the path of a folder, as text or a Path, not {shown(value)}.")
    try:
        path.lstat()
    except ValueError:  # a NUL character, or one that the file system cannot write
        raise error(f"{what} names no folder: {shown(str(path))}.") from None
    except OSError as reason:
        if reason.errno in (ENAMETOOLONG, EINVAL, ELOOP):
            raise error(
                f"{what} names no folder: {shown(str(path))} ({reason.strerror})."
            ) from None
    return path


def check_flags(**flags: Any) -> None:
    """Refuse what is neither True nor False.

    Raises:
        CodiLensError: names the first.

    >>> check_flags(progress=False)
    """
    for name, flag in flags.items():
        if type(flag).__name__ not in ("bool", "bool_"):  # Python's and NumPy's
            raise CodiLensError(f"{name} must be True or False, not {shown(flag)}.")
