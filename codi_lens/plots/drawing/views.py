"""What a figure draws of an attention array: the cells of a view, possible or not, self or not.

Position view: row = the thought that is the query token; the diagonal is self-attention. Generation
view (the published study's): row `i` = the loop step that generates thought `i`, so its query is
`bot` or `ct{i-1}` and entry `[i, i-1]` is self-attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Bool, Float

from codi_lens.attention.labels import labelled
from codi_lens.attention.views import View, n_thoughts_of, select_view
from codi_lens.errors import AttentionError, PositionError, needs, shown, whole_number
from codi_lens.head_names import check_rows
from codi_lens.positions import key_names, possible_cells, query_names, thought_names

PatternView = Literal["position", "generation", "run"]

DIMS = ("layer", "head", "query", "key")


@dataclass(frozen=True)
class Cells:
    """The labelled cells of one view of an attention array.

    Attributes:
        attention: dims (layer, head, query, key); NaN where causality forbids the cell.
        possible: which cells causality allows.
        is_self: which cells are a thought (or `bot`) attending to itself.
    """

    attention: xr.DataArray
    possible: Bool[np.ndarray, "query key"]
    is_self: Bool[np.ndarray, "query key"]

    @property
    def queries(self) -> list[str]:
        """The names of the rows."""
        return [str(name) for name in self.attention["query"].values]

    @property
    def keys(self) -> list[str]:
        """The names of the columns."""
        return [str(name) for name in self.attention["key"].values]

    def of_head(self, layer: int, head: int) -> Float[np.ndarray, "query key"]:
        """The cells of one head, NaN where impossible.

        Raises:
            PositionError: there is no such layer or head.
        """
        for dim, label in (("layer", layer), ("head", head)):
            labels = self.attention[dim].values.tolist()
            if label not in labels:
                raise PositionError(
                    f"There is no {dim} {label!r}; the attention has {dim}s {_span(labels)}."
                )
        return self.attention.sel(layer=layer, head=head).to_numpy()

    def mean(self) -> Float[np.ndarray, "query key"]:
        """The cells averaged over all layers and heads, NaN where impossible."""
        return self.attention.mean(("layer", "head")).to_numpy()


def cells(attention: xr.DataArray, view: PatternView) -> Cells:
    """The cells of `attention` that `view` shows.

    Args:
        attention: dims (layer, head, query, key), the mean over problems, labelled as
            `ThoughtRun.attention` is.
        view: "position" or "generation" for the thought block, "run" for all labelled rows.

    Raises:
        AttentionError: another view, other dims (a problem axis, say), or other labels.
    """
    check_view(view, ("position", "generation", "run"))
    attention = labelled(attention)
    if set(attention.dims) != set(DIMS):
        hint = " (average first: attention.mean('problem'))" if "problem" in attention.dims else ""
        raise AttentionError(
            f"Figures draw attention with dims {DIMS}, not {tuple(attention.dims)}{hint}."
        )
    n_thoughts = n_thoughts_of(attention)
    shown = attention if view == "run" else select_view(attention, view)
    mask = xr.DataArray(
        possible_cells(n_thoughts),
        dims=("query", "key"),
        coords={"query": list(query_names(n_thoughts)), "key": list(key_names(n_thoughts))},
    ).sel(query=shown["query"], key=shown["key"])
    shown = shown.astype(float).where(mask).transpose(*DIMS)
    queries, keys = shown["query"].to_numpy(), shown["key"].to_numpy()
    own = {"bot", *thought_names(n_thoughts)}
    is_self = np.array([[query == key and query in own for key in keys] for query in queries])
    return Cells(shown, mask.to_numpy(), is_self)


def check_view(view: str, allowed: tuple[str, ...] = get_args(View)) -> None:
    """Raise an AttentionError unless `view` is one of `allowed`."""
    if not isinstance(view, str) or view not in allowed:
        names = ", ".join(f'"{name}"' for name in allowed)
        raise AttentionError(f"The view must be one of {names}, not {shown(view)}.")


def metric_names(heads: pd.DataFrame) -> list[str]:
    """The metrics of a heads table: every column with an interval (but rank), composite first.

    >>> metric_names(pd.DataFrame(columns=["layer", "hub", "hub_low", "hub_high", "composite"]))
    ['composite', 'hub']
    """
    names = [
        str(name) for name in heads.columns if f"{name}_low" in heads.columns and name != "rank"
    ]
    return sorted({*names, "composite"} & {*heads.columns}, key=[*_FIRST, *names].index)


def check_metric(heads: pd.DataFrame, metric: str) -> None:
    """Raise an AttentionError unless the heads table has rows and `metric`."""
    needs(
        heads, "layer", "head", "name", advice="give what rank_heads returns", error=AttentionError
    )
    names = metric_names(heads)
    if not isinstance(metric, str) or metric not in names:
        raise AttentionError(
            f"There is no metric {shown(metric)} in the heads table; there are {', '.join(names)}."
        )
    if heads.empty:
        raise AttentionError("The heads table has no rows; it needs one row per head.")
    check_rows(heads, "layer", "head", numbers=[metric], error=AttentionError)


def best_heads(heads: pd.DataFrame, metric: str, n: int) -> pd.DataFrame:
    """The `n` heads with the highest `metric`, best first; heads where it is undefined left out.

    Raises:
        AttentionError: no such metric, no rows, or `n` below 1.
    """
    check_metric(heads, metric)
    n = whole_number("The number of heads", n, 1, error=AttentionError)
    known = heads[heads[metric].notna()]
    return known.sort_values([metric, "layer", "head"], ascending=[False, True, True]).head(n)


def constant_metrics(heads: pd.DataFrame) -> list[str]:
    """The metrics that are the same for every head, as `rank_heads` flagged them."""
    return [str(name) for name in heads.attrs.get("constant", [])]


_FIRST = ("composite",)


def _span(labels: list[int]) -> str:
    first, last = labels[0], labels[-1]
    if labels == list(range(first, last + 1)):
        return f"{first}..{last}" if len(labels) > 1 else f"{first} only"
    return ", ".join(map(str, labels))
