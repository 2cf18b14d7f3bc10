"""What the sentences of sections share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from codi_lens.wording import fixed, p_text, percent, with_interval

_THOUGHTS = "thought_change"
_FEWEST = 10  # an interval over fewer problems says next to nothing


def effect_rows(table: pd.DataFrame, label: str, title: str) -> tuple[list[str], list[list[str]]]:
    """A table of effects as the page shows it: titles of columns, and rows of text.

    Args:
        table: of `codi_lens.causal.effects.summarise`.
        label: the column that names the rows.
        title: of that column.
    """
    least = f"{_least(table):g}"
    columns = [title, "effect, nats [95 %]", "median", f"problems with ≥ {least}", "q"]
    columns += [f"q beyond {least}", "matters", "accuracy [95 %]", "McNemar p"]
    columns += ["answers changed", *(["thoughts changed"] if _THOUGHTS in table else [])]
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
                fixed(row["effect_median"]),
                f"{row['affected']:.0%}",
                _p(row["q"]),
                _p(row["beyond_q"]),
                "yes" if row["matters"] else "",
                accuracy,
                _p(row["mcnemar_p"]),
                f"{row['changed']:.0%}",
                *([f"{row[_THOUGHTS]:.2f}"] if _THOUGHTS in row else []),
            ]
        )
    return columns, rows


def extreme_row(table: pd.DataFrame, column: str, *, largest: bool) -> dict[str, Any]:
    """The row with the largest, or the smallest, value of a column."""
    row = table.sort_values(column, ascending=not largest).to_dict("records")[0]
    return {str(name): value for name, value in row.items()}


def rule(table: pd.DataFrame) -> str:
    """When an effect of this table is said to matter, and its head or edge to be needed.

    >>> rule(pd.DataFrame({"min_effect": [0.1]}))
    'An effect matters if it is shown to be more than 0.1 nats, in either direction (q < 0.05 over \
what is compared); what matters and makes the clean answer less likely is needed.'
    """
    return (
        f"An effect matters if it is shown to be more than {_least(table):g} nats, in either "
        "direction (q < 0.05 over what is compared); what matters and makes the clean answer less "
        "likely is needed."
    )


def shown_beyond(table: pd.DataFrame) -> str:
    """The same in a bracket: "more than 0.1 nats lost, q < 0.05"."""
    return f"more than {_least(table):g} nats lost, q < 0.05"


def about_spread(row: Any, label: str) -> str:
    """How an effect spreads over problems: the mean beside the median and the share affected.

    Args:
        row: of `codi_lens.causal.effects.summarise`.
        label: the column that names it.
    """
    low, high = 100 * row["affected_low"], 100 * row["affected_high"]
    return (
        f"{row[label]} changes the log-probability by {with_interval(row, 'effect')} nats on "
        f"average, by {fixed(row['effect_median'])} at the median problem, and by at least "
        f"{row['min_effect']:g} on {percent(row['affected'], 0)} [{low:.0f}, {high:.0f}] of "
        "problems."
    )


def about_strata(table: pd.DataFrame, label: str) -> str:
    """What the strongest effect is where the clean answer was right, and wrong; with n of both.

    Args:
        table: of `codi_lens.causal.effects.summarise`.
        label: the column that names the rows.
    """
    n_right, n_wrong = (int(table[name].iloc[0]) for name in ("n_right", "n_wrong"))
    text = f"{n_right} clean answers are right and {n_wrong} wrong"
    if not n_right or not n_wrong:
        return f"{text}."
    row = extreme_row(table, "effect", largest=False)
    right, wrong = (_stratum(row, name, n) for name, n in (("right", n_right), ("wrong", n_wrong)))
    return f"{text}: {row[label]} changes the right by {right} nats, the wrong by {wrong}."


def _stratum(row: Mapping[str, Any], name: str, n: int) -> str:
    column = f"effect_{name}"
    return with_interval(row, column) if n >= _FEWEST else fixed(row[column])


def _least(table: pd.DataFrame) -> float:
    return float(table["min_effect"].iloc[0])


def smallest_p(n: int) -> str:
    """A warning where so few problems allow no small p (all sign patterns are 2 ** n)."""
    least = 2.0 ** (1 - n)
    return f" With {n} problems p cannot fall below {least:.2f}." if least >= 0.05 else ""


def _p(p: float) -> str:
    return p_text(p, "").removeprefix(" = ").strip() if np.isfinite(p) else ""
