"""Which edges a model uses, and which scores find them."""

from __future__ import annotations

from textwrap import wrap

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.causal.references import references_in
from codi_lens.errors import needs
from codi_lens.plots.causal.effects import effect_points
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_labels, outlines
from codi_lens.wording import fixed

_SERIES = {
    "auroc": "edges of the problem",
    "shuffled_auroc": "of another problem",
    "control_auroc": "same score, control",
}
_CELL, _ROW = 42, 30
_LINE = 20  # characters of a label, so that a phone has room for the points


def edge_costs_figure(table: pd.DataFrame) -> go.Figure:
    """What cutting each edge costs, by kind of reference; the known edge is outlined.

    Args:
        table: of `codi_lens.causal.edge_costs.costs_by_reference`.

    Raises:
        InterventionError: a column that the table does not have.

    >>> table = pd.DataFrame({"n_operations": 3, "step": 3, "refers_to": 1, "query": "answer",
    ...     "key": ["ct0", "ct1"], "known": [True, False], "n": 40, "cost": [3.0, 0.0],
    ...     "cost_low": [2.5, -0.1], "cost_high": [3.5, 0.1]})
    >>> figure = edge_costs_figure(table)
    >>> figure.data[0].y, list(map(str, figure.data[1].text)), len(figure.layout.shapes)
    (('step 3 of 3 refers to 1',), ['3.0'], 1)
    """
    numbers = ("n", "cost", "cost_low", "cost_high")
    needs(table, "n_operations", "step", "refers_to", "query", "key", "known", *numbers)
    # Edges that cost no kind of reference anything would be columns of zeros.
    named = table.assign(
        edge=table["query"] + "→" + table["key"],
        kind=[each.name for each in references_in(table)],
    )
    shown = named[named["known"]]["edge"].tolist()
    shown += named[named["cost"] >= 0.05]["edge"].tolist()
    edges = [edge for edge in dict.fromkeys(named["edge"]) if edge in shown]
    kinds = list(dict.fromkeys(named["kind"]))
    values = [
        named.pivot(index="kind", columns="edge", values=each).reindex(index=kinds, columns=edges)
        for each in ("cost", "cost_low", "cost_high", "n")
    ]
    cost = values[0].to_numpy(dtype=float)
    most = max(1.0, float(np.nanmax(cost)))
    text = np.array([["×" if np.isnan(each) else fixed(each, 1) for each in row] for row in cost])
    left_out = len(set(named["edge"])) - len(edges)
    figure = go.Figure(
        layout=style.base_layout(
            "What cutting an edge costs",
            # Labels of rows take a quarter of the width.
            "nats of the clean number's log-probability;<br>outlined = the edge that the reference "
            "needs,<br>× = every such problem needs it for another one;<br>"
            f"not shown: {left_out} edges that cost less than 0.05 everywhere",
            xaxis=style.cell_axis("cut edge (query→key)") | {"tickangle": -40},
            yaxis=style.cell_axis("", rows=True),
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=280 + max(_CELL * len(edges), 320),
            least_width=280 + _CELL * len(edges),
            height=290 + _ROW * len(kinds),
        )
    )
    figure.add_heatmap(
        x=edges,
        y=kinds,
        z=cost,
        zmin=0,
        zmax=most,
        colorscale=style.SCORE_SCALE,
        xgap=1,
        ygap=1,
        customdata=np.stack([each.to_numpy(dtype=float) for each in values[1:]], axis=-1),
        hovertemplate="%{y}<br>%{x}: %{z:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}] nats, "
        "n = %{customdata[2]}<extra></extra>",
        colorbar=style.colorbar_of("cost (nats)"),
    )
    figure.add_trace(cell_labels(text, cost, kinds, edges, style.SCORE_SCALE, 0.0, most))
    known = named[named["known"]]
    cells = [
        (kinds.index(row), edges.index(column))
        for row, column in zip(known["kind"], known["edge"], strict=True)
    ]
    figure.update_layout(shapes=outlines(cells, width=3, colour=style.NEEDED_COLOUR))
    return figure


def grades_figure(scores: pd.DataFrame) -> go.Figure:
    """How well every score finds the edges of each problem, beside those of another problem.

    Args:
        scores: the table `scores` of `codi_lens.grade`.

    Raises:
        InterventionError: a column that the table does not have.

    >>> row = {"score": ["attention"], "n": 9}
    >>> for name in ("auroc", "shuffled_auroc"):
    ...     row |= {name: 0.9, f"{name}_low": 0.8, f"{name}_high": 0.95}
    >>> [trace.name for trace in grades_figure(pd.DataFrame(row)).data]
    ['edges of the problem', 'of another problem']
    """
    needs(scores, "score", "n", "auroc", "shuffled_auroc")
    ends = ("", "_low", "_high")
    labels = ["<br>".join(wrap(str(name), _LINE)) for name in scores["score"]]
    drawn = pd.concat(
        [
            pd.DataFrame(
                {"score": labels, "where": label}
                | {f"auroc{end}": scores[f"{name}{end}"] for end in ends}
            )
            for name, label in _SERIES.items()
            if name in scores
        ]
    )
    n = int(scores["n"].iloc[0])
    figure = effect_points(
        drawn,
        "score",
        "where",
        column="auroc",
        title="Which scores find the edges that a problem needs?",
        subtitle=f"mean AUROC over {n} problems with 95 % intervals; 0.5 is chance",
        axis="AUROC of the needed edges among all",
    )
    figure.add_vline(x=0.5, line={"color": style.MUTED, "width": 1.5, "dash": "dash"})
    figure.update_layout(xaxis_range=[-0.02, 1.02])
    return figure
