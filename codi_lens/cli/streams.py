"""Printing never fails: what the terminal, file or pipe cannot show is spelt in ASCII."""

from __future__ import annotations

import codecs
import io
import os
import sys

_SPELT = {
    "→": "->", "•": "*", "…": "...", "−": "-", "×": "x", "–": "-", "≥": ">=", "≤": "<=", "·": "-",
    "“": '"', "”": '"', "’": "'", "\u00a0": " ", "±": "+-",
}  # fmt: skip


def spell_what_cannot_be_printed() -> None:
    """Let stdout and stderr take any text, whatever their encoding: cp1252, ascii, and UTF-8 too.

    UTF-8 has no bytes for names of files that are not UTF-8, which Python keeps as surrogates.
    """
    codecs.register_error("codi_lens.spell", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="codi_lens.spell")


def one_line(text: str) -> str:
    r"""Text on one line, without what would move a terminal's cursor.

    >>> print(one_line("no folder a\nb\x1b[31m"))
    no folder a b\x1b[31m
    """
    line = " ".join(text.splitlines())
    return "".join(c if c.isprintable() else _escaped(c) for c in line)


def leave_quietly() -> None:
    """Forget what is still to be printed: whoever read it (`| head`) has gone."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    given = error.object[error.start : error.end]
    return "".join(_SPELT.get(c) or _escaped(c) for c in given), error.end


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
