"""The figures of the published study for one model, drawn from what `run_study` computes.

All are in the generation view and on the mean matrix. Self-attention is outlined and impossible
cells carry an ×, which the study's own figures leave to the reader.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float
from plotly.subplots import make_subplots

from codi_lens.errors import AttentionError
from codi_lens.plots.drawing import style
from codi_lens.plots.drawing.panels import PATTERN_NOTES, pattern_panels
from codi_lens.plots.drawing.views import Cells
from codi_lens.plots.study.bars import BAND_COLOURS, count_bars, limit_line, score_bars
from codi_lens.study.heads import N_TOP
from codi_lens.study.run import Study

_NOTE = (
    f"generation view: {PATTERN_NOTES['generation']};<br>outlined = self-attention, × = impossible"
)
_SELF, _LATER = style.SELF_BAR_COLOUR, style.LATER_COLOUR


def study_figures(study: Study) -> dict[str, go.Figure]:
    """The six figures that the study draws of one model, under its own names of files."""
    draw: dict[str, Callable[[Study], go.Figure]] = {
        "1_top_heads_attention": strongest_heads,
        "2_attention_by_layer": attention_by_layer,
        "3_hub_analysis": hub_flow_skip,
        "4_critical_heads_attention": critical_heads,
        "5_top3_critical_heads": lambda study: critical_heads(study, 3),
        "6_metric_distributions": metric_distributions,
    }
    return {name: function(study) for name, function in draw.items()}


def strongest_heads(study: Study, n: int = N_TOP) -> go.Figure:
    """The mean matrices of the `n` heads with the largest entry, 20 at most (figure 1).

    Raises:
        AttentionError: `n` is below 1.

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> [note.text for note in strongest_heads(study).layout.annotations[:2]]
    ['1. L0H1<br>max 0.60 [2→0]', '2. L0H0<br>max 0.40 [2→0]']
    """
    heads = study.stats["top_20_heads"]
    _check_n(n)
    panels = [
        (
            f"{place}. L{head['layer']}H{head['head']}<br>max {head['max_attention']:.2f} "
            f"[{head['max_position']}]",
            _head(study, head),
        )
        for place, head in enumerate(heads[:n], 1)
    ]
    title = f"{study.model}: top {len(panels)} attention heads by their largest entry"
    return _panels(study, panels, title)


def critical_heads(study: Study, n: int = 10) -> go.Figure:
    """The mean matrices of the `n` heads with the highest composite (figures 4 and 5).

    Raises:
        AttentionError: `n` is below 1.

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> critical_heads(study, 1).layout.title.text
    'two heads: top 1 critical heads by composite score'
    """
    _check_n(n)
    panels = [
        (
            f"{row['rank']}. {row['name']} · {row['composite_score']:.3f}<br>"
            f"{row['functional_type']}<br>flow {row['flow_score']:.2f}, "
            f"hub {row['hub_score']:.3f},<br>skip {row['skip_score']:.3f}",
            _head(study, row),
        )
        for row in study.heads.head(n).to_dict("records")
    ]
    title = f"{study.model}: top {len(panels)} critical heads by composite score"
    return _panels(study, panels, title, columns=min(5, len(panels)))


def attention_by_layer(study: Study, n: int = 5) -> go.Figure:
    """Attention averaged over the heads of `n` layers from first to last (figure 2).

    The study's choice: layers 0, 4, 8, 12, 15 of sixteen and 0, 3, 6, 9, 11 of twelve.

    Raises:
        AttentionError: `n` is below 2.

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> figure = attention_by_layer(study)
    >>> figure.layout.annotations[0].text, figure.data[0].z[2].round(2).tolist()
    ('layer 0', [0.5, 0.15, nan])
    """
    if n < 2:
        raise AttentionError(f"The number of layers drawn must be at least 2, not {n}.")
    n_layers = study.mean.sizes["layer"]
    chosen = sorted({min(k * n_layers // (n - 1), n_layers - 1) for k in range(n)})
    by_layer = study.mean.mean("head")
    layers = study.mean["layer"].values[chosen].tolist()
    panels = [(f"layer {layer}", by_layer.sel(layer=layer).to_numpy()) for layer in layers]
    title = f"{study.model}: attention by layer, mean over heads"
    return _panels(study, panels, title, columns=len(panels))


def hub_flow_skip(study: Study) -> go.Figure:
    """The study's triptych: incoming attention, "sequential flow" and skips (figure 3).

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> [note.text for note in hub_flow_skip(study).layout.annotations[:2]]
    ['Incoming attention:<br>hub is ct0, 1.95 × uniform', '“Sequential flow”:<br>mean 0.150']
    """
    hub = study.summary["hub_analysis"]
    flow, skip = study.summary["sequential_flow"], study.summary["skip_connections"]
    n = len(hub["all_hub_scores"])
    limits = study.thresholds
    figure = make_subplots(
        rows=1,
        cols=3,
        horizontal_spacing=0.08,
        subplot_titles=[
            "Incoming attention:<br>"
            f"hub is ct{hub['hub_position']}, {hub['hub_ratio']:.2f} × uniform",
            f"“Sequential flow”:<br>mean {_number(flow['avg_sequential_attention'])}",
            f"Skip connections:<br>mean {_number(skip['avg_skip_attention'])}",
        ],
    )
    figure.update_layout(
        style.base_layout(
            f"{study.model}: hub, flow and skip connections as the study measures them",
            "mean over problems, layers and heads; [i→j] = step i to thought j, whose query is "
            "ct{i−1}, so that [i→i−1] is self-attention; × = impossible",
            width=1240,
            height=446,
        )
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    figure.update_layout(margin={"t": 126, "b": 66})
    # No step sees the last thought, so its sum is not a small one but none.
    incoming = [*hub["all_hub_scores"][:-1], np.nan]
    colours = [_SELF if j == hub["hub_position"] else _LATER for j in range(n)]
    thoughts = [f"ct{j}" for j in range(n)]
    score_bars(figure, thoughts, incoming, colours, row=1, col=1, showlegend=False)
    limit_line(figure, 1, hub["uniform_baseline"], f"uniform 1/{n}")
    tops = {1: max(hub["hub_score"], hub["uniform_baseline"])}
    steps, skips = flow["sequential_scores"], skip["skip_scores"]
    for column, labels, values, colour, limit in (
        (2, [f"{i + 1}→{i}" for i in range(len(steps))], steps, _SELF, limits.sequential),
        (3, [f"{n - 1}→{j}" for j in range(len(skips))], skips, _LATER, limits.skip),
    ):
        score_bars(figure, labels, values, colour, row=1, col=column, showlegend=False)
        limit_line(figure, column, limit, f"threshold {limit}")
        tops[column] = max([limit, *values])
    figure.update_xaxes(style.cell_axis(""))
    for column, (x_title, y_title) in enumerate(
        [
            ("thought (key)", "sum over steps"),
            ("entry [step→thought]", "attention"),
            ("entry [last step→thought]", "attention"),
        ],
        1,
    ):
        figure.update_xaxes(title_text=x_title, col=column)
        figure.update_yaxes(style.value_axis(y_title, range=[0, 1.12 * tops[column]]), col=column)
    return figure


def metric_distributions(study: Study, n: int = N_TOP) -> go.Figure:
    """Hub and skip scores of the `n` best heads, their bands and types (figure 6).

    Raises:
        AttentionError: `n` is below 1.

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> study = run_study(two_heads(), "two heads")
    >>> figure = metric_distributions(study)
    >>> [(trace.name, len(trace.x)) for trace in figure.data]
    [('hub_score', 2), ('skip_score', 2), ('layer_type', 3), ('functional_type', 4)]
    """
    _check_n(n)
    best = study.heads.head(n)
    figure = make_subplots(
        rows=2,
        cols=2,
        row_heights=[0.64, 0.36],
        horizontal_spacing=0.1,
        vertical_spacing=0.13,
        subplot_titles=[
            "Hub score<br>(variance of column sums)",
            "Skip score<br>(last row, first half)",
            "Layer bands",
            "Functional types",
        ],
    )
    figure.update_layout(
        style.base_layout(
            f"{study.model}: metrics of the top {len(best)} heads by composite score",
            "as the study defines them; colour = functional type or layer band",
            width=1100,
            height=max(560, 300 + 26 * len(best)),
        )
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    figure.update_layout(margin={"t": 128, "l": 84})
    for column, metric in enumerate(("hub_score", "skip_score"), 1):
        figure.add_bar(
            x=best[metric],
            y=best["name"],
            orientation="h",
            marker={"color": [style.TYPE_COLOURS[kind] for kind in best["functional_type"]]},
            customdata=best["functional_type"],
            hovertemplate="%{y}: %{x:.3f}<br>%{customdata}<extra></extra>",
            name=metric,
            showlegend=False,
            row=1,
            col=column,
        )
        figure.update_yaxes(style.cell_axis("", rows=True) | {"dtick": 1}, row=1, col=column)
        figure.update_xaxes(style.value_axis("", rangemode="tozero"), row=1, col=column)
    count_bars(figure, best, "layer_type", BAND_COLOURS, row=2, col=1)
    count_bars(figure, best, "functional_type", style.TYPE_COLOURS, row=2, col=2)
    return figure


def study_cells(mean: xr.DataArray) -> Cells:
    """What is possible and what is self-attention in a mean matrix of the generation view."""
    n = mean.sizes["key"]
    possible = np.tril(np.ones((n, n), dtype=bool), -1)
    mask = xr.DataArray(possible, dims=("query", "key"))
    return Cells(mean.astype(float).where(mask), possible, np.eye(n, k=-1, dtype=bool))


def _head(study: Study, head: dict[Any, Any]) -> Float[np.ndarray, "query key"]:
    return study.mean.sel(layer=head["layer"], head=head["head"]).to_numpy()


def _panels(
    study: Study,
    panels: list[tuple[str, Float[np.ndarray, "query key"]]],
    title: str,
    columns: int = 5,
) -> go.Figure:
    shown = study_cells(study.mean)
    return pattern_panels(
        [(heading, np.where(shown.possible, values, np.nan)) for heading, values in panels],
        shown,
        "generation",
        title=title,
        subtitle=_NOTE,
        columns=columns,
        numbers=True,
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _check_n(n: int) -> None:
    if n < 1:
        raise AttentionError(f"The number of heads must be at least 1, not {n}.")
