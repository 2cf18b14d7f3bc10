"""Attention small enough to read, for the examples in docstrings."""

from __future__ import annotations

import numpy as np
import xarray as xr

from codi_lens.positions import key_names, query_names


def two_heads() -> xr.DataArray:
    """What `extract` gives of two problems and a model with two heads and three thoughts.

    In L0H0 each thought reads the one before it, in L0H1 the first. The second problem gives more.

    >>> two_heads().mean("problem").sel(query="ct2", key=["ct0", "ct1", "ct2"]).values.round(2)
    array([[[0. , 0.4, 0.2],
            [0.6, 0. , 0.1]]])
    """
    shape = {"problem": 2, "layer": 1, "head": 2, "query": 6, "key": 7}
    labels = {"problem": ["p0", "p1"], "layer": [0], "head": [0, 1]}
    labels |= {"query": list(query_names(3)), "key": list(key_names(3))}
    attention = xr.DataArray(np.zeros(tuple(shape.values())), dims=tuple(shape), coords=labels)
    for head, own, given in ((0, 0.2, [0.3, 0.5]), (1, 0.1, [0.5, 0.7])):
        for i in range(3):
            query = attention.loc[{"query": f"ct{i}"}][:, 0, head]
            query.loc[{"key": f"ct{i}"}] = own
            if i > 0:
                query.loc[{"key": f"ct{0 if head else i - 1}"}] = given
    attention.loc[{"query": "anchor", "key": "ct2"}] = 0.3
    attention.loc[{"key": "question"}] = 1 - attention.sum("key")
    return attention
