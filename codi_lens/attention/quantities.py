"""The corrected quantities of one model, all heads averaged, in one long table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens import metrics
from codi_lens.attention.hubs import hub_ratios
from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.profiles import (
    average_heads,
    destinations,
    sequential_attention,
    skip_null,
    skip_profile,
    with_intervals,
)
from codi_lens.attention.views import n_thoughts_of, thought_view
from codi_lens.head_names import head_name
from codi_lens.positions import thought_names

COLUMNS = ("quantity", "at", "value", "low", "high", "null", "p", "p_smallest")


def corrected_quantities(
    attention: xr.DataArray, *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Hubs, sequential attention, self-attention, skips and destinations, with intervals.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        n_resamples: bootstrap resamples of the problems.
        level: of the percentile intervals.
        seed: of the bootstrap and of the permutation test.

    Returns:
        One row per number: `quantity` ("hub ratio", "given", "sequential", "self", "by distance",
        "destination", all averaged over heads; "strongest link" of any head), `at` (a thought, a
        pair, thoughts back, a kind of key, or "mean"), `value`, `low`, `high` (NaN with a single
        problem), `null` (what an even spread over earlier thoughts would give), and `p` and
        `p_smallest` of `hub_ratios`.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    options: dict[str, Any] = {"n_resamples": n_resamples, "level": level, "seed": seed}
    attention = labelled(attention)
    names = list(thought_names(n_thoughts_of(attention)))
    # All but the strongest link is linear in the heads, so each problem's heads are averaged first.
    by_problem, by_head = average_heads(attention)
    block = thought_view(by_problem)
    mean = block.mean(("problem", "layer", "head")).values
    null = np.diagonal(metrics.causal_null(mean), -1)
    own = block.isel(query=0, drop=True).copy(data=np.diagonal(block.values, 0, -2, -1))
    profile = skip_profile(by_problem)
    expected = skip_null(by_problem).mean(("problem", "layer", "head")).values
    # No thought sees eot or the answer.
    goes = destinations(by_problem).sel(query=names).drop_sel(kind=["eot", "answer"]).mean("query")
    tables = [
        *_hubs(hub_ratios(by_problem, **options)),
        _table("self", own, names, options),
        _table("self", _mean(own, "key"), ["mean"], options),
        _table("by distance", profile, profile["distance"].values, options, null=expected),
        _table("destination", goes, goes["kind"].values, options),
    ]
    if len(names) > 1:
        steps = sequential_attention(by_problem)
        pairs = [f"{late}→{early}" for early, late in pairwise(names)]
        # Chosen as the largest of all on the same problems, so its interval is a little optimistic.
        links = np.tril(by_head.values, -1)
        layer, head, i, j = map(int, np.unravel_index(links.argmax(), links.shape))
        strongest = thought_view(attention).isel(layer=[layer], head=[head], query=i, key=j)
        label = f"{head_name(heads_in(strongest)[0])} {names[i]}→{names[j]}"
        tables += [
            _table("sequential", steps, pairs, options, null=null),
            _table("sequential", _mean(steps, "query"), ["mean"], options, null=null.mean()),
            _table("strongest link", strongest.expand_dims(at=["link"]), [label], options),
        ]
    numbers = dict.fromkeys(COLUMNS[2:], float)
    return pd.concat(
        [table.reindex(columns=COLUMNS).astype(numbers) for table in tables], ignore_index=True
    )


def _hubs(hubs: pd.DataFrame) -> list[pd.DataFrame]:
    ratios = hubs.rename(columns={"thought": "at", "ratio": "value"}).assign(
        quantity="hub ratio", null=np.where(hubs["ratio"].notna(), 1.0, np.nan)
    )
    given = pd.DataFrame({"quantity": "given", "at": hubs["thought"], "value": hubs["given"]})
    return [ratios, given]


def _table(
    quantity: str,
    values: xr.DataArray,
    labels: Iterable[Any],
    options: dict[str, Any],
    null: Any = np.nan,
) -> pd.DataFrame:
    found = with_intervals(values, **options)
    return pd.DataFrame(
        {
            "quantity": quantity,
            "at": [str(label) for label in labels],
            "value": found["mean"],
            "low": found["low"],
            "high": found["high"],
            "null": null,
        }
    )


def _mean(values: xr.DataArray, dim: str) -> xr.DataArray:
    return values.mean(dim).expand_dims(at=["mean"])
