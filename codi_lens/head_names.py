"""Names of heads: (4, 5) is `L4H5`; which a model has, and what many of them are called."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Protocol, runtime_checkable

import pandas as pd

from codi_lens.errors import (
    CodiLensError,
    InterventionError,
    PositionError,
    needs,
    shown,
    whole_number,
)
from codi_lens.stats import seeded

Head = tuple[int, int]
Heads = Sequence[Head]
GivenHeads = Heads | Head | str | Sequence[str]
"""Heads as people write them: pairs of layer and head, one pair, or names ("L1H7,L2H0")."""
_NAME = re.compile(r"L(\d{1,6})H(\d{1,6})", re.IGNORECASE)  # Python reads no 5,000 digits


@runtime_checkable
class HeadCounts(Protocol):
    """Whatever says how many heads there are: the configuration of a model (`model.lens.cfg`)."""

    @property
    def n_layers(self) -> int:
        """The number of layers."""
        ...

    @property
    def n_heads(self) -> int:
        """The number of heads of each layer."""
        ...


def all_heads(counts: HeadCounts) -> list[Head]:
    """Every head of a model, layer by layer."""
    return list(product(range(counts.n_layers), range(counts.n_heads)))


def head_name(head: Head) -> str:
    """`L4H5`.

    >>> head_name((4, 5))
    'L4H5'
    """
    return f"L{head[0]}H{head[1]}"


def heads_name(heads: Heads) -> str:
    """What tables call a set of heads.

    Raises:
        InterventionError: no head.

    >>> heads_name([(1, 5), (2, 0)]), heads_name([(0, i) for i in range(9)])
    ('L1H5+L2H0', 'L0H0+L0H1+… (9 heads, 2420f2)')
    """
    if not heads:
        raise InterventionError("The intervention was given no head; give pairs of layer and head.")
    names = [head_name(head) for head in heads]
    if len(names) <= 6:
        return "+".join(names)
    # The digest keeps names of different sets apart, which tables and resumed runs rely on.
    digest = f"{seeded(0, *sorted(names)):x}"[:6]
    return f"{names[0]}+{names[1]}+… ({len(names)} heads, {digest})"


def as_heads(given: Any) -> list[Head]:
    """Heads as pairs, from pairs (of any integers), one pair, names, or one name.

    Raises:
        InterventionError: something that is no head.
        PositionError: a number that no layer or head has.

    >>> as_heads("L1H7"), as_heads((1, 7)), as_heads([(1, 5), "L2H0"])
    ([(1, 7)], [(1, 7)], [(1, 5), (2, 0)])
    """
    try:
        given = given.tolist() if hasattr(given, "tolist") else given
    except (NotImplementedError, RuntimeError):  # a tensor without data
        raise InterventionError(f"{shown(given)} names no head; give numbers.") from None
    if isinstance(given, str):
        items: list[Any] = [name for name in given.split(",") if name.strip()]
    else:
        items = _parts(given)
        if len(items) == 2 and not any(isinstance(item, Iterable) for item in items):
            items = [tuple(items)]
    return [_as_head(item) for item in items]


def heads_of(table: pd.DataFrame) -> list[Head]:
    """The heads of a table, in its order: the ranking that `rank_heads` gives, say.

    Raises:
        InterventionError: a table without the columns `layer` and `head`.

    >>> heads_of(pd.DataFrame({"layer": [1, 0], "head": [7, 2]}))
    [(1, 7), (0, 2)]
    """
    needs(table, "layer", "head")
    check_rows(table, "layer", "head", numbers=["layer", "head"])
    pairs = table[["layer", "head"]].to_numpy(dtype=int).tolist()
    return [(layer, head) for layer, head in pairs]


def check_rows(
    table: pd.DataFrame,
    *key: str,
    numbers: Sequence[str] = (),
    error: type[CodiLensError] = InterventionError,
) -> None:
    """Refuse a table that holds a row twice, or texts where numbers belong.

    Args:
        table: with the columns that are named.
        key: columns that tell its rows apart.
        numbers: columns of numbers; NaN counts as one.
        error: what to raise.

    Raises:
        CodiLensError: of the class `error`; names the row or the column.

    >>> check_rows(pd.DataFrame({"layer": [1, 0], "head": [7, 2]}), "layer", "head")
    """
    for column in numbers:
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise error(f"The column {column!r} must hold numbers, not {table[column].dtype}.")
    twice = table[table.duplicated(list(key))]
    if len(twice):
        row = ", ".join(f"{name} {shown(twice[name].iloc[0])}" for name in key)
        raise error(f"The table holds the row of {row} twice; give each once.")


def parse_heads(text: str, n_layers: int, n_heads: int) -> list[Head]:
    """Heads from their names, as the command line takes them.

    Raises:
        CodiLensError: not a name of a head, a head that the model does not have, or one twice.

    >>> parse_heads("L0H3,L2H5", 3, 8)
    [(0, 3), (2, 5)]
    """
    heads: list[Head] = []
    for name in text.replace(" ", "").split(","):
        found = _NAME.fullmatch(name)
        if found is None:
            raise CodiLensError(f"{shown(name)} names no head; write heads like L0H3,L5H3.")
        if (int(found[1]), int(found[2])) in heads:
            raise CodiLensError(f"The head {name} is given twice.")
        heads.append((int(found[1]), int(found[2])))
    check_heads(heads, list(product(range(n_layers), range(n_heads))))
    return heads


def check_heads(heads: Heads, known: Collection[Head]) -> None:
    """Refuse heads that the model, or its attention, does not have.

    Args:
        heads: that are asked for.
        known: all that there are (`all_heads`).

    Raises:
        PositionError: names the first that is missing.

    >>> check_heads([(1, 1)], [(0, 0), (0, 1), (1, 0), (1, 1)])
    """
    every = set(known)
    missing = [head for head in heads if head not in every]
    if missing:
        raise PositionError(
            f"There is no head {head_name(missing[0])}; the model has {head_name(min(every))} to "
            f"{head_name(max(every))}."
        )


def by_layer(heads: Heads) -> dict[int, list[int]]:
    """The heads of each layer.

    >>> by_layer([(1, 5), (0, 2), (1, 0)])
    {0: [2], 1: [0, 5]}
    """
    layers = sorted({layer for layer, _ in heads})
    return {layer: sorted({h for other, h in heads if other == layer}) for layer in layers}


def _parts(given: Any) -> list[Any]:
    """What an iterable holds; anything else stands for itself."""
    single = not isinstance(given, Iterable) or isinstance(given, (str, bytes, Mapping))
    try:
        return [given] if single or isinstance(given, pd.DataFrame) else list(given)
    except TypeError:  # an array without dimensions
        return [given]


def _as_head(item: Any) -> Head:
    found = _NAME.fullmatch(item.strip()) if isinstance(item, str) else None
    parts = _parts(item) if found is None else [int(found[1]), int(found[2])]
    if len(parts) != 2 or any(isinstance(part, str) for part in parts):
        raise InterventionError(
            f"{shown(item)} names no head; give pairs of layer and head, as [(1, 7)], or names, "
            "as 'L1H7'."
        )
    layer, head = (whole_number("A layer or head", part, 0, 10**6, PositionError) for part in parts)
    return layer, head
