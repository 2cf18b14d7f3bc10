"""What the functions on problems are given, checked where it comes in."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

from codi_lens.errors import ProblemError
from codi_lens.problems.gold import shown

if TYPE_CHECKING:
    Whole = SupportsIndex
else:  # refused by `whole_number`, in a sentence, and not by a type checker at run time
    Whole = object

Split = Literal["train", "test"]
LARGEST_SEED = 2**63 - 1


def whole_number(name: str, value: Whole, *, low: int = 1, high: int | None = None) -> int:
    """A whole number, of whatever library, within bounds.

    Args:
        name: what it is, as the error says it.
        value: the number.
        low, high: the least and the greatest that will do.

    Raises:
        ProblemError: not a whole number, or outside the bounds.

    >>> whole_number("n", 3)
    3
    >>> whole_number("n", 0)
    Traceback (most recent call last):
    codi_lens.errors.ProblemError: n must be at least 1, not 0.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise ProblemError(f"{name} must be a whole number, not {shown(value)}.")
    if number < low:
        raise ProblemError(f"{name} must be at least {low}, not {shown(number)}.")
    if high is not None and number > high:
        raise ProblemError(f"{name} must be at most {high}, not {shown(number)}.")
    return number


def check_seed(seed: Whole) -> int:
    """A seed; negative ones are refused, since Python's generator takes -1 for 1.

    Raises:
        ProblemError: not a whole number, negative, or above 2^63 - 1.

    >>> check_seed(42)
    42
    """
    return whole_number("The seed", seed, low=0, high=LARGEST_SEED)


def check_split(split: object) -> None:
    """Refuse what is none of the splits.

    Raises:
        ProblemError: not "train" or "test".

    >>> check_split("train")
    """
    if split not in get_args(Split):
        raise ProblemError(f'The split must be "train" or "test", not {shown(split)}.')


def check_text(what: str, text: object) -> str:
    """A text that can be written: to a file, to a table, to a tokenizer.

    Raises:
        ProblemError: not text, or one with a NUL character or half of a surrogate pair.

    >>> check_text("The question", "1 + 1?")
    '1 + 1?'
    """
    if not isinstance(text, str):
        raise ProblemError(f"{what} is {shown(text)}; give text.")
    if "\0" in text:
        raise ProblemError(f"{what}, {shown(text)}, holds a NUL character; leave it out.")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ProblemError(
            f"{what}, {shown(text)}, holds half of a character (a lone surrogate); leave it out."
        )
    return str(text)


def repeated(ids: Iterable[str]) -> str | None:
    """The first id that occurs a second time, or None.

    >>> repeated(["a", "b", "b", "a"])
    'b'
    """
    seen: set[str] = set()
    for id in ids:
        if id in seen:
            return id
        seen.add(id)
    return None
