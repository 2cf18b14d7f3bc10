"""The exceptions of codi_lens, and the checks that many raise them by.

Each message is one sentence: what was given, what is valid.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any, get_args


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


class OutputError(CodiLensError):
    """An output folder or file that must not be overwritten or cannot be resumed."""


class CheckpointWarning(UserWarning):
    """Something in a checkpoint was left out on purpose, and says so."""


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
    if given not in known:
        raise error(f"There is no {what} {given!r}; there are {', '.join(known)}.")


def needs(table: Container[str], *columns: str, advice: str = "") -> None:
    """Refuse a table without these columns.

    Args:
        table: anything that holds its columns' names, as a DataFrame does.
        columns: that are needed.
        advice: the end of the message: "give what `restore` returns".

    Raises:
        InterventionError: names the first column that is missing.

    >>> needs({"layer": [], "head": []}, "layer", "head")
    """
    missing = [column for column in columns if column not in table]
    if missing:
        end = f"; {advice}" if advice else ""
        raise InterventionError(f"The table has no column {missing[0]!r}{end}.")
