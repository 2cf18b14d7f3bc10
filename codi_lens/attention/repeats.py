"""Problems that are one problem: the same question, or the same chain in other words.

The built-in stories of few operations are few chains, so a hundred problems repeat some. A repeat
is no new observation: it is drawn together with the first, counted with it, and never stands in one
half of the problems while the first stands in the other.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Int

from codi_lens.problems.chains import chain_of


def chains_in(attention: xr.DataArray) -> Int[np.ndarray, " problem"]:
    """The number of each problem's chain, from 0 in the order of their first problems.

    Attention that carries no `question` (a hand-made array) counts every problem as its own.

    >>> from codi_lens.attention.example import two_heads
    >>> chains_in(two_heads().assign_coords(question=("problem", ["1 + 1?", "1  + 1?"])))
    array([0, 0])
    """
    n_problems = attention.sizes["problem"]
    if "question" not in attention.coords:
        return np.arange(n_problems)
    return numbered([chain_of(str(text)) for text in attention["question"].values])


def numbered(names: list[str]) -> Int[np.ndarray, " problem"]:
    """Equal names have equal numbers, from 0 in the order in which they first occur.

    >>> numbered(["b", "a", "b"])
    array([0, 1, 0])
    """
    numbers = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], dtype=int)
