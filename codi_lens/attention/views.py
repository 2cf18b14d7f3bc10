"""The two views of attention between thoughts, both first-class and never mixed.

- **position view**: row = the thought that is the query; the diagonal is self-attention.
- **generation view** (the published study's): row i = the loop step that generates thought i, so
  its query is `bot` for row 0 and `ct{i-1}` after; entry [i, i-1] is self-attention.
"""

from __future__ import annotations

from typing import Literal, get_args

import xarray as xr

from codi_lens.attention.labels import labelled
from codi_lens.errors import AttentionError, check_choice
from codi_lens.positions import thought_names

View = Literal["position", "generation"]
VIEWS: tuple[View, ...] = get_args(View)


def n_thoughts_of(attention: xr.DataArray) -> int:
    """How many thoughts a labelled attention array holds.

    Raises:
        AttentionError: the array lacks the dimensions or labels of `run.attention`.
    """
    return labelled(attention).sizes["key"] - 4  # all but question, bot, eot and answer


def thought_view(attention: xr.DataArray) -> xr.DataArray:
    """The position view: `[..., n, n]`, row = the thought that is the query token.

    The diagonal is self-attention; cells above it are 0, since causality forbids them.

    Raises:
        AttentionError: not labelled attention.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(2), max_new_tokens=8, progress=False)
    >>> view = thought_view(attention)
    >>> view["query"].values.tolist(), float(view.sel(query="ct1", key="ct2").max())
    (['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5'], 0.0)
    """
    attention = labelled(attention)
    names = thought_names(n_thoughts_of(attention))
    thoughts = slice(names[0], names[-1])  # a slice selects without copying
    view = attention.sel(query=thoughts, key=thoughts).transpose(..., "query", "key")
    return view.assign_attrs(view="position")


def generation_view(attention: xr.DataArray) -> xr.DataArray:
    """The published study's view: `[..., n, n]`, row i = the loop step that generates thought i.

    The query label tells which token that is: `bot`, `ct0` … `ct{n-2}`. Row 0 and the last column
    are empty: `bot` sees no thought, and no step sees the last one.

    Raises:
        AttentionError: not labelled attention.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(2), max_new_tokens=8, progress=False)
    >>> generation_view(attention)["query"].values.tolist()
    ['bot', 'ct0', 'ct1', 'ct2', 'ct3', 'ct4']
    >>> bool((generation_view(attention)[..., 1, 0] == thought_view(attention)[..., 0, 0]).all())
    True
    """
    attention = labelled(attention)
    names = thought_names(n_thoughts_of(attention))
    steps = slice("bot", ("bot", *names)[-2])
    view = attention.sel(query=steps, key=slice(names[0], names[-1])).transpose(..., "query", "key")
    return view.assign_attrs(view="generation")


def select_view(attention: xr.DataArray, view: View) -> xr.DataArray:
    """`thought_view` or `generation_view`, by name.

    Raises:
        AttentionError: no such view.
    """
    check_choice("view", view, View, AttentionError)
    return thought_view(attention) if view == "position" else generation_view(attention)
