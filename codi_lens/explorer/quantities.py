"""What the map of heads can show: the scores of each view, causal effects, attributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from codi_lens.errors import AttentionError, needs, shown
from codi_lens.head_names import Head, check_rows
from codi_lens.plots.drawing.views import check_view, constant_metrics, metric_names

_CAUSAL = {"effect": "nats", "attribution": "nats"}
"""What a table of interventions on heads is read for, with its unit; else for every metric."""
_LABELS = {"position": ("type", "band"), "generation": ("type",)}


def score_quantities(
    tables: Mapping[str, pd.DataFrame], grid: Sequence[Head], n: int | None
) -> list[dict[str, Any]]:
    """The scores of each view's heads table.

    Args:
        tables: of `rank_heads`, by view.
        grid: every head, layer by layer.
        n: problems behind them, where that is known.

    Raises:
        AttentionError: an unknown view, a table of another one, or of other heads.
    """
    made = []
    for view, table in tables.items():
        check_view(view)
        _check_grid(table, grid, f"heads table of the {view} view")
        if table.attrs.get("view", view) != view:
            raise AttentionError(
                f"The heads table given as {shown(view)} was computed in the "
                f"{table.attrs['view']} view."
            )
        ordered = _ordered(table, grid)
        made += [
            _quantity(ordered, metric, f"{view}/{metric}", metric.replace("_", " "))
            | {
                "group": f"scores, {view} view",
                "view": view,
                "n": None if n is None else table.attrs.get("n_problems", n),
                "constant": metric in constant_metrics(table),
            }
            for metric in metric_names(table)
        ]
    return made


def score_labels(tables: Mapping[str, pd.DataFrame], grid: Sequence[Head]) -> list[dict[str, Any]]:
    """What heads can be filtered by: their type in each view, and the band of their layer."""
    return [
        {
            "name": name,
            "view": view if name == "type" else None,
            "values": [str(value) for value in _ordered(table, grid)[name]],
        }
        for view, table in tables.items()
        for name in _LABELS.get(view, ())
        if name in table and (name == "type" or view == next(iter(tables)))
    ]


def table_quantities(
    tables: Mapping[str, pd.DataFrame], grid: Sequence[Head]
) -> list[dict[str, Any]]:
    """Effects, attributions or other metrics of tables with one row per head (and scope).

    Args:
        tables: by what to call them; as of `sweep_heads` or `attribute_heads`.
        grid: every head, layer by layer.

    Raises:
        AttentionError: a table without heads or numbers, or with heads that the attention lacks.
    """
    return [
        quantity for name, table in tables.items() for quantity in _of_table(str(name), table, grid)
    ]


def _of_table(name: str, table: pd.DataFrame, grid: Sequence[Head]) -> list[dict[str, Any]]:
    needs(table, "layer", "head", advice="give what sweep_heads returns", error=AttentionError)
    found = [each for each in _CAUSAL if each in table]
    metrics = found[:1] or metric_names(table)
    if not metrics:
        raise AttentionError(
            f"The table {shown(name)} has no column effect or attribution, and none with an "
            f"interval; it has {', '.join(map(str, table.columns))}."
        )
    if strangers := sorted(set(_heads(table)) - set(grid)):
        raise AttentionError(
            f"The table {shown(name)} has the head L{strangers[0][0]}H{strangers[0][1]}, which the "
            "attention does not have."
        )
    scopes = list(dict.fromkeys(table["scope"])) if "scope" in table else [None]
    made = []
    for scope in scopes:
        part = table if scope is None else table[table["scope"] == scope]
        check_rows(part, "layer", "head", numbers=metrics, error=AttentionError)
        ordered = _ordered(part, grid)
        n = int(part["n"].max()) if "n" in part and part["n"].notna().any() else None
        for metric in metrics:
            label = name if metric in _CAUSAL else f"{name}: {metric.replace('_', ' ')}"
            place = "" if scope is None or len(scopes) == 1 else f", {scope}"
            made.append(
                _quantity(ordered, metric, f"{name}/{metric}{place}", f"{label}{place}")
                | {
                    "group": name,
                    "scope": None if scope is None else str(scope),
                    "unit": _CAUSAL.get(metric),
                    "n": n,
                    "signed": metric in _CAUSAL,
                }
            )
    return made


def _quantity(ordered: pd.DataFrame, metric: str, name: str, label: str) -> dict[str, Any]:
    def column(end: str) -> list[float | None] | None:
        wanted = "q" if end == "q" else f"{metric}{end}"
        return _numbers(ordered[wanted]) if wanted in ordered else None

    return {
        "name": name,
        "label": label[:1].upper() + label[1:],
        "group": "",
        "view": None,
        "scope": None,
        "unit": None,
        "n": None,
        "signed": False,
        "constant": False,
        "values": column(""),
        "low": column("_low"),
        "high": column("_high"),
        "q": column("q"),
    }


def _numbers(column: pd.Series) -> list[float | None]:
    """Six significant figures: more than any page shows."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in column.astype(float)]


def _heads(table: pd.DataFrame) -> list[Head]:
    return [(int(a), int(b)) for a, b in zip(table["layer"], table["head"], strict=True)]


def _ordered(table: pd.DataFrame, grid: Sequence[Head]) -> pd.DataFrame:
    indexed = table.set_index(pd.MultiIndex.from_tuples(_heads(table)))
    return indexed.reindex(pd.MultiIndex.from_tuples(list(grid)))


def _check_grid(table: pd.DataFrame, grid: Sequence[Head], what: str) -> None:
    needs(table, "layer", "head", advice="give what rank_heads returns", error=AttentionError)
    heads = _heads(table)
    if sorted(heads) != sorted(grid):
        raise AttentionError(
            f"The {what} must list each head of the attention once: {len(grid)} heads, not "
            f"{len(heads)}."
        )
