"""Several corpora side by side: how far they agree, what heads cost on each, what is read."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Shaped

from codi_lens.errors import needs
from codi_lens.plots.causal.maps import EFFECT_SCALE
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels
from codi_lens.wording import fixed, with_bounds, with_interval

_COLUMN, _ROW = 110, 30
_ENDS = ("", "_low", "_high")
_MOST_ROWS = 40


def corpora_agreement(agreement: pd.DataFrame) -> go.Figure:
    """How far pairs of corpora rank heads, thoughts and rows alike, by quantity.

    Args:
        agreement: of `codi_lens.generalise`.

    Raises:
        InterventionError: a column that the table does not have.

    >>> table = pd.DataFrame({"quantity": ["hub"], "a": "x", "b": "y", "rho": 0.5, "n_units": 24,
    ...     "corrected": 0.55, "corrected_low": 0.2, "corrected_high": 0.7})
    >>> [str(each) for each in corpora_agreement(table).data[1].text]
    ['0.55']
    """
    needs(agreement, "quantity", "a", "b", "n_units", *(f"corrected{end}" for end in _ENDS))
    rows = [
        (
            f"{row['quantity']} (n = {row['n_units']})",
            f"{row['a']} · {row['b']}",
            row["corrected"],
            fixed(row["corrected"]),
            with_interval(row, "corrected"),
        )
        for row in agreement.to_dict("records")
    ]
    return _map(
        pd.DataFrame(rows, columns=list(_CELL)),
        "Do the corpora agree?",
        "Spearman's ρ between means over problems, corrected for<br>the noise of few problems; × = "
        "halves of a corpus do not agree either",
        "ρ",
        1.0,
    )


def effects_by_corpus(effects: pd.DataFrame, label: str = "name") -> go.Figure:
    """What ablating each head, or replacing each thought, costs on each corpus.

    Args:
        effects: `heads` or `thoughts` of `codi_lens.generalise`; of many rows those are drawn that
            have the largest effects on any corpus.
        label: the column that names the rows.

    Raises:
        InterventionError: a column that the table does not have.

    >>> table = pd.DataFrame({"corpus": ["x", "y"], "name": "L0H0", "effect": [-1.0, 0.5],
    ...     "effect_low": [-2.0, 0.1], "effect_high": [-0.5, 1.0], "matters": [True, False]})
    >>> [str(each) for each in effects_by_corpus(table).data[1].text]
    ['−1.0 •', '0.5']
    """
    needs(effects, "corpus", label, "effect", "effect_low", "effect_high", "matters")
    largest = effects["effect"].abs().groupby(effects[label], sort=False).max()
    kept = largest[largest.rank(ascending=False, method="first") <= _MOST_ROWS].index
    drawn = effects[effects[label].isin(kept)]
    rows = [
        (
            row[label],
            row["corpus"],
            row["effect"],
            fixed(row["effect"], 1) + (" •" if row["matters"] else ""),
            with_interval(row, "effect"),
        )
        for row in drawn.to_dict("records")
    ]
    left_out = len(largest) - len(kept)
    limit = max(1.0, float(np.nanmax(np.abs(drawn["effect"]), initial=0)))
    return _map(
        pd.DataFrame(rows, columns=list(_CELL)),
        "What is needed on each corpus?",
        "change of the clean answer's log-probability, nats;<br>• = shown to be more than the "
        "least effect of interest"
        + (f"<br>not drawn: {left_out} with smaller effects everywhere" if left_out else ""),
        "effect (nats)",
        limit,
    )


def results_by_corpus(lens: pd.DataFrame) -> go.Figure:
    """Where intermediate results are read on each corpus, less what another problem's give.

    Args:
        lens: of `codi_lens.generalise`.

    Raises:
        InterventionError: a column that the table does not have.

    >>> table = pd.DataFrame({"corpus": ["x"], "position": "bot", "share": 0.8, "low": 0.7,
    ...     "high": 0.9, "control_share": 0.1})
    >>> [str(each) for each in results_by_corpus(table).data[1].text]
    ['0.80 (0.10)']
    """
    needs(lens, "corpus", "position", "share", "low", "high", "control_share")
    rows = [
        (
            row["position"],
            row["corpus"],
            row["share"] - row["control_share"],
            f"{fixed(row['share'])} ({fixed(row['control_share'])})",
            with_bounds(row["share"], row["low"], row["high"]),
        )
        for row in lens.to_dict("records")
    ]
    return _map(
        pd.DataFrame(rows, columns=list(_CELL)),
        "Where are intermediate results read?",
        "share of results among the likeliest tokens of the state<br>(of another problem's); "
        "coloured by the difference",
        "difference of shares",
        1.0,
    )


_CELL = ("row", "column", "value", "text", "interval")


def _map(cells: pd.DataFrame, title: str, subtitle: str, what: str, limit: float) -> go.Figure:
    """Cells with a value, a text and an interval, rows and columns in the order they come in."""
    rows, columns = (list(dict.fromkeys(cells[axis])) for axis in ("row", "column"))
    values, text, hover = (_square(cells, name, rows, columns) for name in _CELL[2:])
    known = values.astype(float)
    labels = np.where(np.isfinite(known), text, "×")
    margin = 24 + 8 * max(map(len, rows))
    drawn = ["<br>".join(each.split(" · ")) for each in columns]
    width = margin + 90 + max(_COLUMN * len(columns), 420)
    figure = go.Figure(
        layout=style.base_layout(
            title,
            subtitle,
            xaxis=style.cell_axis("") | {"range": [-0.5, len(columns) - 0.5]},
            yaxis=style.cell_axis("", rows=True)
            | {"autorange": False, "range": [len(rows) - 0.5, -0.5]},
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=width,
            least_width=margin + 90 + _COLUMN * len(columns),
            height=190 + _ROW * len(rows),
        )
    )
    figure.update_layout(margin_l=margin)
    figure.add_heatmap(
        x=drawn,
        y=rows,
        z=known,
        zmin=-limit,
        zmax=limit,
        colorscale=EFFECT_SCALE,
        xgap=1,
        ygap=1,
        customdata=hover,
        hovertemplate="%{y}<br>%{x}: %{customdata}<extra></extra>",
        colorbar=style.colorbar_of(what),
    )
    filled = np.where(np.isfinite(known), known, 0)
    figure.add_trace(cell_labels(labels, filled, rows, drawn, EFFECT_SCALE, -limit, limit))
    return figure


def _square(
    cells: pd.DataFrame, name: str, rows: list[str], columns: list[str]
) -> Shaped[np.ndarray, "row column"]:
    table = cells.pivot(index="row", columns="column", values=name)
    return table.reindex(index=rows, columns=columns).to_numpy()
