"""What the sentences of sections share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from codi_lens.wording import p_text, with_interval


def effect_rows(table: pd.DataFrame, label: str, title: str) -> tuple[list[str], list[list[str]]]:
    """A table of effects as the page shows it: titles of columns, and rows of text.

    Args:
        table: of `codi_lens.causal.effects.summarise`.
        label: the column that names the rows.
        title: of that column.
    """
    columns = [title, "effect, nats [95 %]", "p", "q", "accuracy [95 %]", "McNemar p"]
    columns += ["answers changed", "thoughts changed"]
    rows = []
    for row in table.to_dict("records"):
        accuracy = ""
        if np.isfinite(row["accuracy"]):
            accuracy = (
                f"{row['accuracy']:.0%} [{row['accuracy_low']:.0%}, {row['accuracy_high']:.0%}]"
            )
        rows.append(
            [
                str(row[label]),
                f"{with_interval(row, 'effect')}",
                _p(row["p"]),
                _p(row["q"]),
                accuracy,
                _p(row["mcnemar_p"]),
                f"{row['changed']:.0%}",
                f"{row['thought_change']:.2f}",
            ]
        )
    return columns, rows


def extreme_row(table: pd.DataFrame, column: str, *, largest: bool) -> dict[str, Any]:
    """The row with the largest, or the smallest, value of a column."""
    row = table.sort_values(column, ascending=not largest).to_dict("records")[0]
    return {str(name): value for name, value in row.items()}


def smallest_p(n: int) -> str:
    """A warning where so few problems allow no small p (all sign patterns are 2 ** n)."""
    least = 2.0 ** (1 - n)
    return f" With {n} problems p cannot fall below {least:.2f}." if least >= 0.05 else ""


def _p(p: float) -> str:
    return p_text(p, "").removeprefix(" = ").strip() if np.isfinite(p) else ""
