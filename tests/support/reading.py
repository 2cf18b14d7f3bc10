"""Cells and traces as what they are, where the types of pandas and plotly allow for anything."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pandas as pd


def number(table: pd.DataFrame, row: Hashable, column: Hashable) -> float:
    """One cell of a table that holds a number there."""
    cell: Any = table.loc[row, column]  # type: ignore[index]
    return float(cell)


def traces_of(figure: Any) -> tuple[Any, ...]:
    """The traces of a figure, in the order in which they are drawn."""
    return figure.data


def layout_of(figure: Any) -> Any:
    """A figure's layout, whose attributes plotly makes up as it runs."""
    return figure.layout
