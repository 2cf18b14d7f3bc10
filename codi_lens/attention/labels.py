"""Labelled attention at the door: layers, heads, queries and keys are known by their labels.

A selection keeps its labels, whatever its order, so the third layer of a model stays layer 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from codi_lens.errors import AttentionError
from codi_lens.head_names import Head
from codi_lens.positions import key_names, query_names, thought_names

_GRID = ("layer", "head")
_AS_GIVEN = "as run.attention and extract give"


def labelled(attention: object) -> xr.DataArray:
    """Attention in the one order that everything here computes in, by its labels.

    Layers and heads ascend and queries and keys follow the run, whatever order they were selected
    in; a layer or a head that was selected alone is a dimension again. Nothing is copied that is in
    order already, and other dimensions are left as they are.

    Args:
        attention: with the labels of `run.attention`; any layers and heads of it.

    Raises:
        AttentionError: not labelled attention, or layers, heads or positions that are unlabelled,
            repeated, none, or no labels of a run.

    >>> from codi_lens.attention.example import two_heads
    >>> turned = two_heads().isel(head=[1, 0], query=slice(None, None, -1))
    >>> labelled(turned).identical(two_heads()), labelled(turned.sel(head=1)).sizes["head"]
    (True, 1)
    """
    found = _on_grid(attention)
    n = sum(name.startswith("ct") for name in _names(found, "key"))
    if n == 0 and {"question", "answer"} <= set(_names(found, "key")):
        raise AttentionError(
            "This is attention of a run without thoughts (model.skip, model.explain), so nothing "
            "can be measured between them; give that of model.think or extract."
        )
    wanted = {"query": query_names(n), "key": key_names(n)}
    if n < 1 or any(sorted(_names(found, dim)) != sorted(wanted[dim]) for dim in wanted):
        raise AttentionError(
            "The queries must be labelled bot, ct0, …, eot, anchor and the keys question, bot, "
            f"ct0, …, eot, answer, each once, with at least one thought, {_AS_GIVEN} them, not "
            f"{_names(found, 'query')} and {_names(found, 'key')}."
        )
    return _in_order(found, wanted)


def labelled_steps(mean: object) -> xr.DataArray:
    """A mean of the generation view, [layer, head, query, key], in order as `labelled` gives it.

    Raises:
        AttentionError: other dimensions, or rows that are not the steps of the generation view.

    >>> from codi_lens.attention.example import two_heads
    >>> from codi_lens.attention.views import generation_view
    >>> labelled_steps(generation_view(two_heads().mean("problem")))["query"].values.tolist()
    ['bot', 'ct0', 'ct1']
    """
    found = _on_grid(mean)
    keys = thought_names(found.sizes["key"])
    wanted = {"query": ("bot", *keys)[:-1], "key": keys}
    if found.ndim != 4 or any(sorted(_names(found, d)) != sorted(wanted[d]) for d in wanted):
        raise AttentionError(
            "The study takes the generation view averaged over problems: layer, head, the queries "
            f"bot, ct0, … and the keys ct0, ct1, …, not {', '.join(map(str, found.dims))} with "
            f"{_names(found, 'query')} and {_names(found, 'key')}."
        )
    return _in_order(found, wanted).transpose("layer", "head", "query", "key")


def heads_in(attention: xr.DataArray) -> list[Head]:
    """The heads of attention that `labelled` gave, layer by layer.

    >>> from codi_lens.attention.example import two_heads
    >>> heads_in(two_heads().isel(head=[1]))
    [(0, 1)]
    """
    layers, heads = (attention[dim].values.tolist() for dim in _GRID)
    return [(layer, head) for layer in layers for head in heads]


def model_layers(attention: xr.DataArray) -> int:
    """How many layers the model has, of which `labelled` attention may hold a few.

    `run.attention` and `extract` note it (`attrs["n_layers"]`); where it is not noted, the last
    layer that there is counts as the model's last.

    >>> from codi_lens.attention.example import two_heads
    >>> third = two_heads().assign_coords(layer=[2])
    >>> model_layers(third), model_layers(third.assign_attrs(n_layers=12))
    (3, 12)
    """
    least = int(attention["layer"].values.max()) + 1
    noted = attention.attrs.get("n_layers")
    return max(least, int(noted)) if isinstance(noted, int | np.integer) else least


def _on_grid(attention: object) -> xr.DataArray:
    """With layer and head as dimensions that ascend, labelled by whole numbers."""
    if not isinstance(attention, xr.DataArray):
        advice = '; give its "attention"' if isinstance(attention, xr.Dataset) else ""
        raise AttentionError(
            f"Attention is a labelled array, {_AS_GIVEN} it, not a {type(attention).__name__}"
            f"{advice}."
        )
    for dim in _GRID:
        if dim not in attention.dims and dim in attention.coords and not attention[dim].ndim:
            attention = attention.expand_dims(dim)
    wanted = (*_GRID, "query", "key")
    if any(name not in attention.dims for name in wanted):
        raise AttentionError(
            f"Attention needs the dimensions {', '.join(wanted)} ({_AS_GIVEN}); this array has "
            f"{', '.join(map(str, attention.dims))}."
        )
    bare = [name for name in _GRID if name not in attention.coords]
    if bare:
        raise AttentionError(
            f"The attention has no labels along {bare[0]}, so its {bare[0]}s cannot be named; keep "
            f"the coordinates that run.attention and extract give, or assign_coords({bare[0]}=…)."
        )
    numbers = {dim: _numbers(attention, dim) for dim in _GRID}
    other = {dim: (dim, whole) for dim, whole in numbers.items() if whole is not None}
    return attention.assign_coords(other) if other else attention


def _numbers(attention: xr.DataArray, dim: str) -> np.ndarray | None:
    """The labels of layers or heads as whole numbers; None where they are that already."""
    given = attention[dim].values
    whole = given
    if given.dtype.kind in "fO":
        try:
            whole = given.astype(int)
        except (TypeError, ValueError, OverflowError):
            whole = np.array(["not a number"])
    fine = whole.dtype.kind in "iu" and len(whole) and bool((whole == given).all())
    if not fine or whole.min() < 0 or len(set(whole.tolist())) < len(whole):
        labels = ", ".join(map(str, given[:8].tolist())) + (", …" if len(given) > 8 else "")
        raise AttentionError(
            f"The {dim}s must be labelled by their numbers in the model, from 0 and each once, and "
            f"be at least one, not [{labels}]."
        )
    return None if whole is given else whole


def _names(attention: xr.DataArray, dim: str) -> list[str]:
    return [str(name) for name in attention[dim].values]


def _in_order(attention: xr.DataArray, wanted: Mapping[str, Sequence[str]]) -> xr.DataArray:
    orders = {dim: np.argsort(attention[dim].values, kind="stable").tolist() for dim in _GRID}
    for dim, names in wanted.items():
        given = _names(attention, dim)
        orders[dim] = [given.index(name) for name in names]
    moved = {dim: order for dim, order in orders.items() if order != list(range(len(order)))}
    return attention.isel(moved) if moved else attention
