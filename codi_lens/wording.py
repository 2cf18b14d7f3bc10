"""What is told: decimals, a value with its interval, a p-value, the stage of a computation."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from tqdm import tqdm


def fixed(number: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number with so many decimals: a true minus, and no sign before zero.

    Args:
        number: the number.
        digits: decimals.
        signed: whether a plus stands before what is more than zero.

    >>> fixed(-0.001), fixed(-1.25, 1), fixed(0.25, signed=True)
    ('0.00', '−1.2', '+0.25')
    """
    text = f"{number:.{digits}f}"
    if float(text) == 0:
        return text.removeprefix("-")
    return f"+{text}" if signed and number > 0 else text.replace("-", "−")


def with_bounds(value: float, low: float, high: float, digits: int = 2) -> str:
    """A value with its interval.

    >>> with_bounds(0.5, -0.001, 0.75)
    '0.50 [0.00, 0.75]'
    """
    return f"{fixed(value, digits)} [{fixed(low, digits)}, {fixed(high, digits)}]"


def with_interval(row: Any, column: str, digits: int = 2) -> str:
    """A value of a table's row with its interval, from `column`, its `_low` and its `_high`.

    >>> with_interval({"effect": -1.0, "effect_low": -1.5, "effect_high": -0.001}, "effect")
    '−1.00 [−1.50, 0.00]'
    """
    return with_bounds(row[column], row[f"{column}_low"], row[f"{column}_high"], digits)


def p_text(p: float, name: str = "p") -> str:
    """A p-value as a sentence gives it.

    >>> p_text(0.0321), p_text(0.00001, "q"), p_text(float("nan"))
    ('p = 0.032', 'q < 0.001', 'p is not known')
    """
    if p != p:
        return f"{name} is not known"
    return f"{name} < 0.001" if p < 0.001 else f"{name} = {p:.3f}"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent.

    >>> percent(0.5), percent(-0.256, 0)
    ('50.0 %', '−26 %')
    """
    return f"{fixed(100 * share, digits)} %"


def count(n: int, noun: str) -> str:
    """A number of things.

    >>> count(1, "problem"), count(1200, "problem")
    ('1 problem', '1,200 problems')
    """
    return f"{n:,} {noun}{'s' if n != 1 else ''}"


def card(title: str, rows: Mapping[str, str]) -> str:
    """What something is in a few lines, for a terminal.

    >>> print(card("A model", {"thoughts": "6", "device": "cpu"}))
    A model
      thoughts  6
      device    cpu
    """
    width = max(map(len, rows), default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())])


def html_card(title: str, rows: Mapping[str, str]) -> str:
    """The same as HTML, for a notebook.

    >>> html_card("A < B", {"device": "cpu"})
    '<b>A &lt; B</b><table><tr><th>device</th><td>cpu</td></tr></table>'
    """
    cells = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<b>{escape(title)}</b><table>{cells}</table>"


class Stages:
    """Call it as each stage begins, and `end` after the last.

    Args:
        what: is computed: "tiny-gpt2".
        n: how many stages there are.
        shown: False for no line, not even in a terminal.

    >>> begin = Stages("tiny-gpt2", 2)
    >>> begin("head scores")
    >>> begin("evidence")
    >>> begin.end()
    """

    def __init__(self, what: str, n: int, *, shown: bool = True) -> None:
        """Show nothing yet."""
        self._what = what
        self._line = tqdm(
            total=n,
            bar_format="{desc} ({n_fmt} of {total_fmt}, {elapsed})",
            leave=False,
            delay=1e-9,  # no line before the first stage has a name
            disable=None if shown else True,  # None: unless stderr is a terminal
        )

    def __call__(self, stage: str) -> None:
        """Show that a stage begins."""
        self._line.set_description_str(f"{self._what}: {stage}", refresh=False)
        self._line.update()
        self._line.refresh()

    def end(self) -> None:
        """Take the line away."""
        self._line.close()
