"""Where the results of a reference chain show up among decoded tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from codi_lens.errors import ProblemError, listed, shown
from codi_lens.stats import wilson_interval

_STEP = re.compile(r"<<[^<>]*=([^<>=]*)>>")
_NUMBER = re.compile(r"[-−]?(\d{1,3}(,\d{3})+|\d+)?(\.\d+)?")


def number_of(text: object) -> Decimal | None:
    """The number that a token or a result is, whole; None if it is anything else.

    >>> [str(number_of(text)) for text in (" 9", "9.0", ".5", "1,000", "-3", "nine", "", "-")]
    ['9', '9', '0.5', '1E+3', '-3', 'None', 'None', 'None']
    """
    written = str(text).strip().replace("−", "-")
    if not any(each.isdecimal() for each in written) or not _NUMBER.fullmatch(written):
        return None
    try:
        return Decimal(written.replace(",", "")).normalize()
    except InvalidOperation:  # digits that Decimal does not read
        return None


def step_results(chain: str) -> list[str]:
    """The results of a reference chain as GSM8k-Aug writes it; none of an empty one.

    Raises:
        ProblemError: no text, or a text without a step.

    >>> step_results("<<16-3-4=9>> <<9*2=18>>")
    ['9', '18']
    """
    found = _STEP.findall(chain) if isinstance(chain, str) else []
    if not found and chain != "":
        raise ProblemError(
            f"A reference chain is written <<16-3-4=9>> <<9*2=18>>; {shown(chain)} holds no step."
        )
    return [result.strip() for result in found]


def match_steps(
    top_tokens: Sequence[Sequence[str]], results: str | Iterable[object]
) -> Bool[np.ndarray, "row result"]:
    """Which results appear among the top tokens of which rows.

    A token and a result match where both are numbers of the same value: "9", " 9" and "9.0" are,
    and so are "0.5" and ".5", "1000" and "1,000".

    Args:
        top_tokens: the texts of the top tokens of each row, as of `decode_thoughts`.
        results: of a reference chain: its text, its steps (`Problem.steps`), or the results as
            numbers or texts. A result that is no plain number, such as "3/4", matches nothing.

    Raises:
        ProblemError: a chain without a step, what holds no results, or steps in words alone.

    >>> match_steps([[" 13", "9.0"], ["-", " than"], [" 9", " 18"]], "<<16-3-4=9>> <<9*2=18>>")
    array([[ True, False],
           [False, False],
           [ True,  True]])
    """
    values = [number_of(result) for result in _results(results)]
    rows = [{number_of(token) for token in row} for row in top_tokens]
    found = [[value is not None and value in row for value in values] for row in rows]
    return np.array(found, dtype=bool).reshape(len(rows), len(values))


def step_matches(
    top_tokens: Sequence[Sequence[Sequence[str]]],
    chains: Sequence[str | Sequence[object]],
    *,
    level: float = 0.95,
) -> pd.DataFrame:
    """How often intermediate results show up in the top tokens, by the length of the chain.

    Of a chain of several steps the results of all but the last count, as the last is the answer; of
    a chain of one step its result; empty chains are left out. The control holds each problem's
    tokens against the chain of the next problem with as many steps: what is found there is what
    small numbers give by chance.

    Args:
        top_tokens: for each problem, for each row, the texts of its top tokens.
        chains: for each problem its reference chain, as of `match_steps`: `problem.steps`.
        level: of the Wilson intervals.

    Returns:
        One row per number of `steps` and `rows`: "any" row, "even" or "odd" ones, or one row alone
        ("0" …); `found` of `n` results with the `share` and its interval `low`, `high`;
        `control_found` of `control_n` and their share with its interval. The control leaves out
        problems that are alone with their number of steps.

    Raises:
        ProblemError: as many chains as problems are needed, and as many rows in each problem.

    >>> tokens = [[[" 9"], ["-"]], [["7"], ["+"]]]
    >>> table = step_matches(tokens, ["<<4+5=9>> <<9*2=18>>", "<<2+2=4>> <<4+1=5>>"])
    >>> table.query("rows == 'any'")[["steps", "found", "n", "control_found"]].values.tolist()
    [[2, 1, 2, 0]]
    """
    if len(top_tokens) != len(chains):
        raise ProblemError(
            f"step_matches was given {len(top_tokens)} problems and {len(chains)} chains; give one "
            "each."
        )
    if len({len(rows) for rows in top_tokens}) > 1:
        raise ProblemError("step_matches needs as many rows in each problem.")
    whole = [_results(each) for each in chains]
    results = [intermediate(each) for each in whole]
    table: list[dict[str, Any]] = []
    for n_steps, pairs in sorted(with_others(whole).items()):
        own = [match_steps(top_tokens[i], results[i]) for i, _ in pairs]
        control = [match_steps(top_tokens[i], results[j]) for i, j in pairs if j is not None]
        for name, chosen in _row_groups(len(top_tokens[0])).items():
            found, n = _count(own, chosen)
            control_found, control_n = _count(control, chosen)
            row: dict[str, Any] = {"steps": n_steps, "rows": name}
            row |= share_row(found, n, level)
            control_row = share_row(control_found, control_n, level)
            table.append(row | {f"control_{name}": value for name, value in control_row.items()})
    return pd.DataFrame(table)


def with_others(chains: Sequence[Sequence[object]]) -> dict[int, list[tuple[int, int | None]]]:
    """By number of steps, each problem and its control: the next with as many, None if alone.

    Args:
        chains: the results of each problem; those without any are left out.

    >>> with_others([[9], [], [1, 2], [3, 4]])
    {1: [(0, None)], 2: [(2, 3), (3, 2)]}
    """
    groups: dict[int, list[int]] = {}
    for i, each in enumerate(chains):
        if each:
            groups.setdefault(len(each), []).append(i)
    return {
        n: [(i, after if after != i else None) for i, after in zip(own, next_ones, strict=True)]
        for n, own in groups.items()
        for next_ones in [[*own[1:], own[0]]]
    }


def intermediate(results: Sequence[object]) -> list[object]:
    """The results of all steps but the last, which is the answer; of one step its result.

    >>> intermediate([9, 18]), intermediate([9])
    ([9], [9])
    """
    return list(results[:-1] if len(results) > 1 else results)


def _results(chain: str | Iterable[object]) -> list[object]:
    """The results of a chain, whichever way it is given."""
    if isinstance(chain, str):
        return list(step_results(chain))
    written = listed("match_steps", chain, "results", ProblemError)
    steps = [_STEP.fullmatch(each.strip()) if isinstance(each, str) else None for each in written]
    results: list[object] = [
        step[1] if step else each for step, each in zip(steps, written, strict=True)
    ]
    if results and not any(re.search(r"\d", str(each)) for each in results):
        raise ProblemError(
            f"match_steps needs results that are numbers; {shown(results[0])} has none."
        )
    return results


def _row_groups(n_rows: int) -> dict[str, list[int]]:
    every = list(range(n_rows))
    return {"any": every, "even": every[::2], "odd": every[1::2]} | {str(i): [i] for i in every}


def _count(found: Sequence[Bool[np.ndarray, "row result"]], rows: list[int]) -> tuple[int, int]:
    hits = np.concatenate([each[rows].any(axis=0) for each in found] or [np.zeros(0, dtype=bool)])
    return int(hits.sum()), len(hits)


def share_row(found: int, n: int, level: float) -> dict[str, Any]:
    """A share with its Wilson interval and what it is of, as columns; NaN of nothing.

    >>> share_row(0, 0, 0.95)
    {'found': 0, 'n': 0, 'share': nan, 'low': nan, 'high': nan}
    """
    low, high = wilson_interval(found, n, level=level) if n else (float("nan"), float("nan"))
    share = found / n if n else float("nan")
    return {"found": found, "n": n, "share": share, "low": low, "high": high}
