"""What the functions on problems are given, checked where it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Literal, SupportsIndex, get_args

from codi_lens import errors
from codi_lens.errors import ProblemError, shown

if TYPE_CHECKING:
    Whole = SupportsIndex
else:  # refused by `whole_number`, in a sentence, and not by a type checker at run time
    Whole = object

Split = Literal["train", "test"]
whole_number = partial(errors.whole_number, low=1, error=ProblemError)
"""A whole number, by default of at least 1; see `codi_lens.errors.whole_number`."""
check_seed = partial(errors.check_seed, error=ProblemError)
"""A seed; see `codi_lens.errors.check_seed`."""


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
