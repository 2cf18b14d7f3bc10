"""The study's own printed numbers, and what follows from them without any model.

`published_heads.json` holds the mean matrices and scores of six heads, printed to two decimals in
the study's figures, and its column sums. A few averages come from the text of its reports.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens import metrics
from codi_lens.errors import AttentionError

MODELS = {"llama": "CODI LLaMA-3.2-1B", "gpt2": "CODI GPT-2"}
SPREAD = {"llama": 0.0113, "gpt2": 0.0161}
"""The mean deviation over problems that each report gives, over all 36 cells."""
SEQUENTIAL = {"llama": 0.038, "gpt2": 0.055}
"""The mean of the entries [i, i-1], which the reports call sequential flow."""


@cache
def published_study() -> dict[str, Any]:
    """The contents of `published_heads.json`."""
    path = resources.files("codi_lens.study").joinpath("published_heads.json")
    return json.loads(path.read_text(encoding="utf-8"))


def published_matrix(model: str, head: str) -> xr.DataArray:
    """The printed mean matrix of a head, generation view: [query, key], labelled.

    Raises:
        AttentionError: the study printed no such matrix.

    >>> float(published_matrix("gpt2", "L5H3").sel(query="ct2", key="ct1"))
    0.91
    """
    models = published_study()["models"]
    heads = models[model]["heads"] if model in models else []
    found = [each for each in heads if each["head"] == head]
    if not found:
        there = ", ".join(
            f"{name} {each['head']}" for name in models for each in models[name]["heads"]
        )
        raise AttentionError(f"The study printed no matrix of {model} {head}; there are {there}.")
    matrix = np.array(found[0]["mean_attention_6x6"])
    keys = [f"ct{j}" for j in range(len(matrix))]
    coords = {"query": ["bot", *keys[:-1]], "key": keys}
    return xr.DataArray(matrix, dims=("query", "key"), coords=coords)


def published_hubs() -> pd.DataFrame:
    """The published column sums, divided by the number of steps that can see each thought.

    Returns:
        One row per model and thought but the last, which no step sees: model, thought,
        `column_sum`, `steps` (that see it, the thought's own included), `per_step`, and
        `per_step_without_self`, NaN where the study printed no self-attention ("sequential
        scores") to take off.
    """
    rows = []
    for model, numbers in published_study()["models"].items():
        sums = numbers["hub_scores"]
        own = numbers.get("sequential_scores", [np.nan] * len(sums))
        for j, column_sum in enumerate(sums[:-1]):
            steps = len(sums) - 1 - j
            others = steps - 1
            rows.append(
                {
                    "model": model,
                    "thought": f"ct{j}",
                    "column_sum": column_sum,
                    "steps": steps,
                    "per_step": column_sum / steps,
                    "per_step_without_self": (column_sum - own[j]) / others if others else np.nan,
                }
            )
    return pd.DataFrame(rows)


def published_heads() -> pd.DataFrame:
    """The six printed heads: what the study reads off each matrix, and what the position view does.

    Returns:
        One row per head: model, name, functional_type, composite; `sequential_flow`, the study's
        mean of [i, i-1], which is self-attention; `previous`, the mean of ct{i} → ct{i-1} over the
        four pairs that the study's steps see; `strongest` with `at`, the largest entry between two
        different thoughts; `hub`, the study's, and `hub_ratio_at` with `hub_ratio`, the thought
        with the highest ratio to the causal null.
    """
    rows = []
    for model, numbers in published_study()["models"].items():
        for head in numbers["heads"]:
            printed = published_matrix(model, head["head"])
            names = [str(name) for name in printed["key"].values]
            thoughts = printed.values[1:, :-1]  # position view: queries and keys ct0 … ct4
            links = np.tril(thoughts, -1)
            i, j = np.unravel_index(links.argmax(), links.shape)
            ratios = metrics.hub_ratio(thoughts)
            best = int(np.nanargmax(ratios))
            rows.append(
                {
                    "model": model,
                    "name": head["head"],
                    "functional_type": head["functional_type"],
                    "composite": head["composite"],
                    "sequential_flow": float(np.diagonal(printed.values, -1).mean()),
                    "previous": float(np.diagonal(thoughts, -1).mean()),
                    "strongest": float(links[i, j]),
                    "at": f"{names[i]}→{names[j]}",
                    "hub": names[int(metrics.hub_position(printed.values))],
                    "hub_ratio": float(ratios[best]),
                    "hub_ratio_at": names[best],
                }
            )
    return pd.DataFrame(rows)


def published_spread() -> pd.DataFrame:
    """The published deviations over problems, over the cells that a step can fill.

    Returns:
        One row per model: `mean_std` as published (over all 36 cells), `mean_std_possible` (over
        the 15 below the diagonal; the others are 0 on every problem) and `relative`, that over the
        mean attention in these cells, which the column sums give.
    """
    rows = []
    for model, numbers in published_study()["models"].items():
        n = len(numbers["hub_scores"])
        possible = n * (n - 1) // 2
        spread = SPREAD[model] * n * n / possible
        mean = sum(numbers["hub_scores"]) / possible
        rows.append(
            {
                "model": model,
                "mean_std": SPREAD[model],
                "mean_std_possible": spread,
                "relative": spread / mean,
            }
        )
    return pd.DataFrame(rows)
