"""The ground truth beside attention: which thought holds which running total, and who reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots

from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import cell_numbers, outlines, share_cells
from codi_lens.plots.drawing.whiskers import LEGEND, error_bar

SUPERVISED_NOTE = "outlined = training supervised this thought to hold this total"


def decodable_totals(probes: pd.DataFrame, supervised: Sequence[str] | None = None) -> go.Figure:
    """Which running total each thought holds: held-out probe accuracy, beside shuffled labels.

    Args:
        probes: from `probe_totals`.
        supervised: thoughts that training made decode to the total of their own step (`ct0` to that
            after operation 1, and so on); outlined and named in the figure. None says that it is
            not known.

    >>> probes = pd.DataFrame({"thought": ["ct0", "ct1"], "step": [1, 2], "accuracy": [0.9, 0.8],
    ...     "control": [0.1, 0.2]})
    >>> figure = decodable_totals(probes, supervised=["ct0"])
    >>> figure.data[0].z.tolist(), len(figure.layout.shapes)
    ([[0.9, nan], [nan, 0.8]], 1)
    """
    thoughts = [str(name) for name in probes["thought"].unique()]
    steps = [int(step) for step in probes["step"].unique()]
    labels = ["start" if step == 0 else str(step) for step in steps]
    figure = make_subplots(
        rows=1,
        cols=2,
        subplot_titles=["held-out accuracy", "control: shuffled totals"],
        horizontal_spacing=0.1,
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    for place, column in enumerate(("accuracy", "control"), 1):
        grid = probes.pivot(index="thought", columns="step", values=column)
        values = grid.reindex(index=thoughts, columns=steps).to_numpy(dtype=float)
        for trace in _accuracies(values, thoughts, labels, column):
            figure.add_trace(trace, row=1, col=place)
    cells = [(thoughts.index(name), thoughts.index(name) + 1) for name in supervised or ()]
    outlined = outlines([(row, steps.index(step)) for row, step in cells if step in steps])
    figure.update_layout(
        style.base_layout(
            "Which running total can be read from which thought",
            f"linear probes on held-out problems; {_supervised_note(supervised)};<br>"
            "– = too few problems",
            coloraxis={
                "colorscale": style.SCORE_SCALE,
                "cmin": 0,
                "cmax": 1,
                "colorbar": style.colorbar_of("accuracy"),
            },
            plot_bgcolor=style.IMPOSSIBLE_COLOUR,
            width=940,
            height=200 + 44 * len(thoughts),
        )
    )
    figure.update_layout(shapes=outlined, margin_t=144)
    figure.update_xaxes(style.cell_axis("running total after operation"))
    figure.update_yaxes(style.cell_axis("", rows=True))
    figure.update_yaxes(title_text="thought", col=1)
    return figure


def answer_reads_by_length(table: pd.DataFrame, probes: pd.DataFrame | None = None) -> go.Figure:
    """Which thought the answer reads, by the number of operations of the problem.

    Args:
        table: from `codi_lens.attention.probes.answer_reads_by_length`.
        probes: from `probe_totals`; if given, the thought that holds the total before the last
            operation best is outlined in each row.

    >>> table = pd.DataFrame({"n_operations": 3, "thought": ["ct0", "ct1"], "mean": [0.1, 0.4],
    ...     "n": 50})
    >>> figure = answer_reads_by_length(table)
    >>> figure.data[0].y, figure.data[0].z.tolist()
    (('3 (50 problems)',), [[0.1, 0.4]])
    """
    thoughts = [str(name) for name in table["thought"].unique()]
    lengths = [int(length) for length in table["n_operations"].unique()]
    counts = table.groupby("n_operations", sort=False)["n"].first()
    rows = [f"{length} ({counts[length]} problems)" for length in lengths]
    values = table.pivot(index="n_operations", columns="thought", values="mean")
    grid = values.reindex(index=lengths, columns=thoughts).to_numpy(dtype=float)
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            x=thoughts,
            y=rows,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            hovertemplate="%{y}<br>anchor → %{x}: %{z:.3f}<extra></extra>",
        ),
        layout=style.base_layout(
            "Which thought the answer reads, by length of the problem",
            "attention of the anchor, whose logits give the answer's number; mean over all heads;"
            "<br>the rest goes to question, bot, eot and answer"
            + (
                ""
                if probes is None
                else ";<br>outlined = the thought whose probe reads the total before the last "
                "operation best"
            ),
            coloraxis=style.attention_axis(),
            xaxis=style.cell_axis(style.KEY_TITLE),
            yaxis=style.cell_axis("operations", rows=True),
            width=720,
            height=220 + 44 * len(rows),
        ),
    )
    figure.add_trace(
        cell_numbers(grid, rows, thoughts, style.ATTENTION_SCALE, *style.ATTENTION_RANGE)
    )
    if probes is not None:
        known = probes.dropna(subset="accuracy")
        best = known.loc[known.groupby("step")["accuracy"].idxmax()].set_index("step")["thought"]
        cells = [
            (row, thoughts.index(best[length - 1]))
            for row, length in enumerate(lengths)
            if length > 1 and length - 1 in best
        ]
        figure.update_layout(shapes=outlines(cells))
    return figure


def thoughts_and_attention(truth: pd.DataFrame) -> go.Figure:
    """Per thought: the total it holds, what the answer reads of it, and its hub ratio.

    Args:
        truth: from `ground_truth`.

    >>> truth = pd.DataFrame({"thought": ["ct0", "ct1"], "step": [1, 2], "control": 0.1,
    ...     "supervised": [True, False]})
    >>> for name in ("accuracy", "from_eot", "from_anchor", "hub_ratio"):
    ...     truth = truth.assign(**{name: [0.9, 0.8], f"{name}_low": 0.7, f"{name}_high": 1.0})
    >>> [trace.name for trace in thoughts_and_attention(truth).data][-2:]
    ['supervised in training', 'control: shuffled totals']
    """
    thoughts = [str(name) for name in truth["thought"]]
    taught = bool(truth["supervised"].any())
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.06)
    _add_series(figure, truth)
    if taught:
        _add_rings(figure, truth)
    figure.add_scatter(
        x=np.arange(len(thoughts)),
        y=truth["control"],
        mode="markers",
        marker={"symbol": "line-ew-open", "size": 16, "color": style.NULL_COLOUR},
        name="control: shuffled totals",
        showlegend=True,
        row=1,
        col=1,
    )
    _add_notes(figure, truth)
    figure.add_hline(y=1, line={"color": style.NULL_COLOUR, "width": 1.5, "dash": "dash"}, row=3)  # type: ignore
    figure.update_layout(
        style.base_layout(
            "What each thought holds, and who reads it",
            "top: the running total that a linear probe reads best; middle: attention of the "
            "answer; bottom: hub ratio<br>(dashed: no preference; × = impossible). Whiskers: 95 %."
            + (" A total that training supervised is no discovery." if taught else ""),
            width=760,
            height=720,
            legend=LEGEND,
        )
    )
    figure.update_layout(margin_b=112)
    ticks: dict[str, Any] = {"tickvals": list(range(len(thoughts))), "ticktext": thoughts}
    ticks |= {"showgrid": False, "zeroline": False, "range": [-0.5, len(thoughts) - 0.5]}
    figure.update_xaxes(style.value_axis("", **ticks))
    figure.update_xaxes(title_text="thought", row=3)
    figure.update_yaxes(style.value_axis("held-out accuracy", range=[0, 1.08]), row=1)
    figure.update_yaxes(style.value_axis("attention", rangemode="tozero"), row=2)
    figure.update_yaxes(style.value_axis("hub ratio", rangemode="tozero"), row=3)
    return figure


def _supervised_note(supervised: Sequence[str] | None) -> str:
    if supervised is None:
        return "the checkpoint does not say which thoughts training supervised"
    if supervised:
        return f"{SUPERVISED_NOTE}<br>({', '.join(supervised)}): no discovery"
    return "no thought was supervised to hold a total"


def _accuracies(
    values: Float[np.ndarray, "thought step"], thoughts: list[str], steps: list[str], name: str
) -> list[go.Heatmap | go.Scatter]:
    """The cells of one panel and their numbers."""
    hover = f"%{{y}} → running total after %{{x}}<br>{name} %{{z:.3f}}<extra></extra>"
    return share_cells(values, thoughts, steps, hover)


def _add_series(figure: go.Figure, truth: pd.DataFrame) -> None:
    """What each thought holds, gives to the answer and receives, a panel for each."""
    for row, column, name, colour, shift in (
        (1, "accuracy", "probe accuracy", style.LATER_COLOUR, 0.0),
        (2, "from_eot", "attention of eot", "#7b6ca8", -0.1),
        (2, "from_anchor", "attention of the anchor", "#00795b", 0.1),
        (3, "hub_ratio", "hub ratio", style.SELF_BAR_COLOUR, 0.0),
    ):
        ends = truth[f"{column}_low"], truth[f"{column}_high"]
        figure.add_scatter(
            x=np.arange(len(truth)) + shift,
            y=truth[column],
            error_y=error_bar(truth[column], *ends, thickness=1.6, width=5),
            mode="markers",
            marker={"size": 9, "color": colour},
            name=name,
            showlegend=True,
            customdata=[str(thought) for thought in truth["thought"]],
            hovertemplate="%{customdata}: %{y:.3f}<extra>" + name + "</extra>",
            row=row,
            col=1,
        )


def _add_rings(figure: go.Figure, truth: pd.DataFrame) -> None:
    """Rings around the accuracies that training supervised."""
    supervised = truth["supervised"].to_numpy(dtype=bool)
    figure.add_scatter(
        x=np.flatnonzero(supervised),
        y=truth["accuracy"][supervised],
        mode="markers",
        marker={
            "size": 17,
            "symbol": "circle-open",
            "color": style.SELF_COLOUR,
            "line": {"width": 2.5},
        },
        name="supervised in training",
        showlegend=True,
        hoverinfo="skip",
        row=1,
        col=1,
    )


def _add_notes(figure: go.Figure, truth: pd.DataFrame) -> None:
    """Which total each accuracy is of, and × where no later thought could read it."""
    for place, row in enumerate(truth.to_dict("records")):
        step = row["step"]
        figure.add_annotation(
            x=place,
            y=row["accuracy"],
            yshift=-20,
            yanchor="top",
            text="start" if step == 0 else f"total<br>after {step}",
            showarrow=False,
            font={"size": style.SMALL_FONT_SIZE, "color": style.MUTED},
            row=1,
            col=1,
        )
        if pd.isna(row["hub_ratio"]):
            figure.add_annotation(
                x=place, y=0, yanchor="bottom", text="×", showarrow=False, row=3, col=1
            )
