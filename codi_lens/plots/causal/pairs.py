"""Figures of patches between two problems: what a point restores, and whose total a thought brings.

Fractions and shares are drawn on one fixed scale from 0 to 1, so that colours compare across
figures; a number outside it is written in its cell, on the colour of the nearest end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.colors import cmocean

from codi_lens.causal.restoration import Direction
from codi_lens.causal.running_totals import ALONE, COUNTERPART, UNRELATED
from codi_lens.errors import InterventionError, needs
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.positions import rank
from codi_lens.wording import fixed

FRACTION_SCALE: list[str] = ["rgb(247,247,247)", *cmocean.matter[1:]]
"""cmocean's "matter", neither the hue of attention nor that of scores, from a neutral 0: its own is
a yellow that looks like something."""
_CELL, _LETTER = 56, 7  # pixels of a cell, and of a letter of an axis' title
_LEFT, _RIGHT, _BETWEEN = 72, 110, 44


def restoration_map(
    restored: pd.DataFrame, direction: Direction = "clean into corrupted"
) -> go.Figure:
    """The fraction of the logit difference that each layer and position brings over.

    Args:
        restored: of `codi_lens.causal.restoration.restore`.
        direction: which of its directions.

    Raises:
        InterventionError: a table of another kind, without this direction, or of several
            components.

    >>> restored = pd.DataFrame({"direction": "clean into corrupted", "layer": 0, "n": 9,
    ...     "n_known": 9, "position": ["ct0", "ct1"], "component": "resid_pre",
    ...     "fraction": [0.1, 0.8], "fraction_low": [-0.1, 0.6], "fraction_high": [0.3, 0.9]})
    >>> restoration_map(restored).data[1].text.tolist()
    ['○ 0.10', '0.80']
    """
    needs(
        restored,
        "direction",
        "layer",
        "position",
        "component",
        "fraction",
        advice="give what restore returns",
    )
    table = restored[restored["direction"] == direction]
    if not len(table):
        raise InterventionError(f"The table holds no rows of the direction {direction!r}.")
    table = table.assign(row="L" + table["layer"].astype(str), column=table["position"])
    components = table["component"].unique()
    if len(components) > 1:
        raise InterventionError(
            f"The table holds the components {', '.join(components)}; draw one at a time."
        )
    n, n_known = int(table["n"].iloc[0]), int(table["n_known"].iloc[0])
    low, high = table["fraction_low"], table["fraction_high"]
    panel = _Panel(
        "",
        [f"L{layer}" for layer in sorted(table["layer"].unique())],
        list(dict.fromkeys(table["position"])),
        table.assign(low=low, high=high, unsure=(low <= 0) & (high >= 0)),
        "fraction",
    )
    verb = "restores" if direction == "clean into corrupted" else "takes over"
    return _panels(
        [panel],
        f"What each point {verb}: {components[0]}, {direction}",
        f"fraction of the logit difference that one patch moves, {n_known} of {n} pairs;"
        "<br>0: as before, 1: as the run it comes from; ○ = 95 % interval holds 0",
        ("position (read and written)", "layer"),
        "fraction",
    )


def thought_swap_matrix(
    swaps: pd.DataFrame, n_operations: int | None = None, swapped: str = ALONE
) -> go.Figure:
    """How often the answer follows the donor of a thought, by the operand that the donor changes.

    Args:
        swaps: of `codi_lens.causal.running_totals.operand_swaps`.
        n_operations: a panel for these problems only; one for each number by default.
        swapped: "alone" or "with all before".

    Raises:
        InterventionError: a table of another kind, or without such rows.

    >>> swaps = pd.DataFrame({"donor": COUNTERPART, "thought": ["ct0", "ct1"], "swapped": ALONE,
    ...     "operand": [1, 2], "n_operations": 2, "donor_share": [0.9, 0.1], "chance": 0.1, "n": 50,
    ...     "donor_share_low": [0.8, 0.0], "donor_share_high": [1.0, 0.2]})
    >>> figure = thought_swap_matrix(swaps)
    >>> figure.data[0].x, figure.data[1].text.tolist()
    (('op. 1', 'op. 2'), ['0.90', '×', '×', '○ 0.10'])
    """
    needs(
        swaps,
        "donor",
        "thought",
        "swapped",
        "operand",
        "donor_share",
        advice="give what operand_swaps returns",
    )
    table = _of_length(swaps[swaps["swapped"] == swapped], n_operations)
    names = [
        _operand(operand) if donor == COUNTERPART else UNRELATED
        for donor, operand in zip(table["donor"], table["operand"], strict=True)
    ]
    which, title = "one thought", "Which thought brings which operand over?"
    if swapped != ALONE:
        which, title = "a thought and all before it", "Which first thoughts bring which operand?"
    return _panels(
        _by_length(table.assign(column=names), "donor_share"),
        title,
        f"share of answers that equal the donor's, when {which} comes from a donor that differs "
        "in one operand;<br>○ = 95 % interval holds chance; unrelated: the donor is another "
        "problem altogether",
        ("operand in which the donor differs", "thought swapped"),
        "share that follows the donor",
    )


def total_swap_matrix(totals: pd.DataFrame, n_operations: int | None = None) -> go.Figure:
    """How often the answer is what the donor's total after an operation predicts, by thought.

    Args:
        totals: of `codi_lens.causal.running_totals.total_swaps`.
        n_operations: a panel for these problems only; one for each number by default.

    Raises:
        InterventionError: a table of another kind, or without such rows.

    >>> totals = pd.DataFrame({"thought": ["ct0", "ct1"], "operation": [1, 2], "n_operations": 2,
    ...     "predicted_share": [0.9, 0.1], "predicted_share_low": [0.8, 0.0],
    ...     "predicted_share_high": [1.0, 0.2], "chance": 0.1, "n": 50})
    >>> figure = total_swap_matrix(totals)
    >>> figure.data[0].y, figure.data[1].text.tolist()
    (('ct0', 'ct1'), ['0.90', '×', '×', '○ 0.10'])
    """
    needs(totals, "thought", "operation", "predicted_share", advice="give what total_swaps returns")
    table = _of_length(totals, n_operations)
    table = table.assign(column=[_operand(operation) for operation in table["operation"]])
    return _panels(
        _by_length(table, "predicted_share"),
        "Whose total does a thought carry, and after which operation?",
        "share of answers that equal the donor's total after the operation, then the own remaining "
        "ones;<br>one thought of an unrelated problem is fed; ○ = 95 % interval holds chance",
        ("donor's total after", "thought swapped"),
        "share as predicted",
    )


@dataclass(frozen=True)
class _Panel:
    """Cells of one panel: `row`, `column`, `low`, `high`, `unsure`, `n` and a value."""

    title: str
    rows: list[str]
    columns: list[str]
    table: pd.DataFrame
    value: str

    def wide(self, column: str) -> np.ndarray:
        pivoted = self.table.pivot(index="row", columns="column", values=column)
        return pivoted.reindex(index=self.rows, columns=self.columns).to_numpy(dtype=float)


def _by_length(table: pd.DataFrame, value: str) -> list[_Panel]:
    panels: list[_Panel] = []
    for n_operations, some in table.groupby("n_operations"):
        low, high = some[f"{value}_low"], some[f"{value}_high"]
        unsure = (low <= some["chance"]) & (some["chance"] <= high)
        columns = sorted(some["column"].unique(), key=lambda name: (name == UNRELATED, name))
        columns.sort(key=lambda name: name != "start")
        panels.append(
            _Panel(
                f"{n_operations} operations",
                sorted(some["thought"].unique(), key=rank),
                columns,
                some.assign(row=some["thought"], low=low, high=high, unsure=unsure),
                value,
            )
        )
    return panels


def _panels(
    panels: Sequence[_Panel],
    title: str,
    subtitle: str,
    axes: tuple[str, str],
    unit: str,
) -> go.Figure:
    """Heatmaps side by side on one scale."""
    widths = [_CELL * len(panel.columns) for panel in panels]
    inner = sum(widths) + _BETWEEN * (len(panels) - 1)
    settings: dict[str, Any] = {}
    figure = go.Figure()
    start, lines = 0, 1
    for number, (panel, width) in enumerate(zip(panels, widths, strict=True), 1):
        name = "" if number == 1 else str(number)
        wrapped = wrap(axes[0], max(width // _LETTER, 12))
        lines = max(lines, len(wrapped))
        heading = "<br>".join([panel.title, *wrapped] if panel.title else wrapped)
        domain = [start / inner, (start + width) / inner]
        settings[f"xaxis{name}"] = style.cell_axis(heading, tick_size=style.SMALL_FONT_SIZE) | {
            "domain": domain,
            "anchor": f"y{name}",
        }
        settings[f"yaxis{name}"] = style.cell_axis(axes[1] if number == 1 else "", rows=True) | {
            "anchor": f"x{name}"
        }
        start += width + _BETWEEN
        figure.add_traces(_cells(panel, f"x{name}", f"y{name}"))
    n_rows = max(len(panel.rows) for panel in panels)
    figure.update_layout(
        style.base_layout(
            title,
            subtitle,
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=max(780, _LEFT + inner + _RIGHT),
            least_width=_LEFT + inner + _RIGHT,
            height=180 + 46 * n_rows + 18 * (lines - 1),
            coloraxis={
                "colorscale": FRACTION_SCALE,
                "cmin": 0,
                "cmax": 1,
                "colorbar": style.colorbar_of(unit, tickvals=[0, 0.25, 0.5, 0.75, 1]),
            },
            **settings,
        )
    )
    return figure


def _cells(panel: _Panel, xaxis: str, yaxis: str) -> list[Any]:
    """The cells, and their numbers in whichever of black and white reads better."""
    value, low, high = (panel.wide(name) for name in (panel.value, "low", "high"))
    unsure, n = panel.wide("unsure") == 1, panel.wide("n")
    axes = {"xaxis": xaxis, "yaxis": yaxis}
    heatmap = go.Heatmap(
        x=panel.columns,
        y=panel.rows,
        z=value,
        customdata=np.stack([low, high, n], axis=-1),
        hovertemplate="%{y}, %{x}: %{z:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], "
        "n = %{customdata[2]:.0f}<extra></extra>",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        **axes,
    )
    marks = np.where(unsure, "○ ", "")
    labels = np.array(
        [
            f"{mark}{fixed(number)}" if np.isfinite(number) else "×"
            for mark, number in zip(marks.ravel(), value.ravel(), strict=True)
        ]
    )
    text = cell_labels(labels, value, panel.rows, panel.columns, FRACTION_SCALE, 0.0, 1.0, **axes)
    return [heatmap, text]


def _operand(number: Any) -> str:
    return "start" if number == 0 else f"op. {int(number)}"


def _of_length(table: pd.DataFrame, n_operations: int | None) -> pd.DataFrame:
    if n_operations is not None:
        table = table[table["n_operations"] == n_operations]
    if not len(table):
        raise InterventionError("The table holds no such swaps to draw.")
    return table
