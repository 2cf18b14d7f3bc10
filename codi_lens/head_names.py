"""Names of heads: (4, 5) is `L4H5`; who may be asked for, and how many are called what."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from transformer_lens import HookedTransformer

from codi_lens.errors import CodiLensError, InterventionError, PositionError
from codi_lens.stats import seeded

Head = tuple[int, int]


def heads_of(table: pd.DataFrame) -> list[Head]:
    """The heads of a table, in its order: the ranking that `rank_heads` gives, say.

    Raises:
        InterventionError: a table without the columns `layer` and `head`.

    >>> heads_of(pd.DataFrame({"layer": [1, 0], "head": [7, 2]}))
    [(1, 7), (0, 2)]
    """
    if not {"layer", "head"} <= set(table.columns):
        raise InterventionError("The table has no columns 'layer' and 'head'.")
    pairs = table[["layer", "head"]].to_numpy(dtype=int).tolist()
    return [(layer, head) for layer, head in pairs]


def head_name(head: Head) -> str:
    """`L4H5`.

    >>> head_name((4, 5))
    'L4H5'
    """
    return f"L{head[0]}H{head[1]}"


def parse_heads(text: str, n_layers: int, n_heads: int) -> list[Head]:
    """Heads from their names, as the command line takes them.

    Raises:
        CodiLensError: not a name of a head, a head that the model does not have, or one twice.

    >>> parse_heads("L0H3,L2H5", 3, 8)
    [(0, 3), (2, 5)]
    """
    heads: list[Head] = []
    for name in text.replace(" ", "").split(","):
        layer, _, head = name.upper().removeprefix("L").partition("H")
        if not (name[:1] in "Ll" and layer.isdecimal() and head.isdecimal()):
            raise CodiLensError(f"{name!r} names no head; write heads like L0H3,L5H3.")
        if int(layer) >= n_layers or int(head) >= n_heads:
            raise CodiLensError(
                f"There is no head {name}; the model has L0H0 to L{n_layers - 1}H{n_heads - 1}."
            )
        if (int(layer), int(head)) in heads:
            raise CodiLensError(f"The head {name} is given twice.")
        heads.append((int(layer), int(head)))
    return heads


Heads = Sequence[tuple[int, int]]


def all_heads(lens: HookedTransformer) -> list[tuple[int, int]]:
    """Every head of a model."""
    cfg = lens.cfg
    return [(layer, head) for layer in range(cfg.n_layers) for head in range(cfg.n_heads)]


def by_layer(heads: Heads) -> dict[int, list[int]]:
    """The heads of each layer.

    >>> by_layer([(1, 5), (0, 2), (1, 0)])
    {0: [2], 1: [0, 5]}
    """
    layers = sorted({layer for layer, _ in heads})
    return {layer: sorted({h for other, h in heads if other == layer}) for layer in layers}


def check_heads(heads: Heads, lens: HookedTransformer) -> None:
    """Refuse heads that the model does not have.

    Raises:
        PositionError: names the first that is missing.
    """
    cfg = lens.cfg
    for layer, head in heads:
        if not (0 <= layer < cfg.n_layers and 0 <= head < cfg.n_heads):
            raise PositionError(
                f"There is no head L{layer}H{head}; the model has layers 0..{cfg.n_layers - 1} and "
                f"heads 0..{cfg.n_heads - 1}."
            )


def heads_name(heads: Heads) -> str:
    """What tables call a set of heads.

    Raises:
        InterventionError: no head.

    >>> heads_name([(1, 5), (2, 0)]), heads_name([(0, i) for i in range(9)])
    ('L1H5+L2H0', 'L0H0+L0H1+… (9 heads, 2420f2)')
    """
    if not heads:
        raise InterventionError("The intervention was given no head; give pairs of layer and head.")
    names = [f"L{layer}H{head}" for layer, head in heads]
    if len(names) <= 6:
        return "+".join(names)
    # The digest keeps names of different sets apart, which tables and resumed runs rely on.
    digest = f"{seeded(0, *sorted(names)):x}"[:6]
    return f"{names[0]}+{names[1]}+… ({len(names)} heads, {digest})"
