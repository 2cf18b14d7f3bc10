"""What a figure asks of a table of effects before it draws anything."""

from __future__ import annotations

import pandas as pd

from codi_lens.errors import InterventionError


def needs(table: pd.DataFrame, *columns: str, give: str = "") -> None:
    """Raise an InterventionError unless the table has these columns.

    Args:
        table: what the figure was given.
        columns: what it draws.
        give: which table would do, for the message.
    """
    missing = [column for column in columns if column not in table]
    if missing:
        hint = f"; give {give}" if give else ""
        raise InterventionError(f"The table has no column {missing[0]!r}{hint}.")
