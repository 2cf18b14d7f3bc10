"""What the functions on problems are given, checked where it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

from codi_lens import errors
from codi_lens.errors import ProblemError, shown

if TYPE_CHECKING:
    Whole = SupportsIndex
else:  # refused by `whole_number`, in a sentence, and not by a type checker at run time
    Whole = object

Split = Literal["train", "test"]


def whole_number(name: str, value: Whole, *, low: int = 1, high: int = errors.LARGEST) -> int:
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
    return errors.whole_number(name, value, low, high, ProblemError)


def check_seed(seed: Whole) -> int:
    """A seed; negative ones are refused, since Python's generator takes -1 for 1.

    Raises:
        ProblemError: not a whole number, negative, or above 2^63 - 1.

    >>> check_seed(42)
    42
    """
    return errors.check_seed(seed, ProblemError)


def check_split(split: object) -> None:
    """Refuse what is none of the splits.

    Raises:
        ProblemError: not "train" or "test".

    >>> check_split("train")
    """
    if not isinstance(split, str) or split not in get_args(Split):
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
