"""The study's seven-panel comparison of two models."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from codi_lens.plots.drawing import style
from codi_lens.plots.study.bars import BAND_COLOURS, count_bars, score_bars
from codi_lens.study.comparison import compare_studies
from codi_lens.study.heads import N_TOP
from codi_lens.study.run import Study

MODEL_COLOURS = ("#2f5d9b", "#c2410c")
Pair = tuple[Study, Study]
_MARKERS = ("circle", "square")


def model_comparison(first: Study, second: Study) -> go.Figure:
    """Hubs, top composites, types and bands of the top 20, mean scores: two models side by side.

    A thought that only one of the models has is a gap in the other's bars, and each model's hub
    scores have their own uniform baseline of 1 / n_thoughts.

    Raises:
        AttentionError: both models have the same name.

    >>> from codi_lens import run_study
    >>> from codi_lens.attention.example import two_heads
    >>> studies = [run_study(two_heads(), name) for name in ("gpt2", "llama")]
    >>> model_comparison(*studies).layout.title.text
    'gpt2 and llama, as the study compares them'
    """
    compare_studies(first, second)  # refuses what cannot be compared
    studies = (first, second)
    names = [_short(study.model) for study in studies]
    figure = make_subplots(
        rows=3,
        cols=3,
        specs=[[{"colspan": 3}, None, None], [{}, {}, {}], [{}, {}, {}]],
        horizontal_spacing=0.08,
        vertical_spacing=0.12,
        subplot_titles=[
            "Incoming attention per thought (hub score)",
            f"Composite of the top {N_TOP} heads",
            *(f"{name}: functional types" for name in names),
            *(f"{name}: layer bands" for name in names),
            "Mean scores over all heads",
        ],
    )
    figure.update_layout(
        style.base_layout(
            f"{names[0]} and {names[1]}, as the study compares them",
            "generation view, mean matrices; types and bands of the top 20 heads by composite; "
            "× = impossible",
            width=1240,
            height=1060,
            barmode="group",
            bargap=0.25,
            legend={
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.045,
                "yanchor": "bottom",
            },
        )
    )
    figure.update_annotations(font={"size": style.FONT_SIZE})
    figure.update_layout(margin={"t": 124})
    _hubs(figure, studies)
    _composites(figure, studies)
    for place, study in enumerate(studies):
        best = study.heads.head(N_TOP)
        types = style.TYPE_COLOURS
        count_bars(figure, best, "functional_type", types, row=2, col=2 + place)
        count_bars(figure, best, "layer_type", BAND_COLOURS, row=3, col=1 + place)
    means = [
        [float(study.heads[f"{metric}_score"].mean()) for metric in ("hub", "skip")]
        for study in studies
    ]
    _model_bars(figure, studies, means, ["hub", "skip"], row=3)
    top = max(map(max, means))
    figure.update_yaxes(style.value_axis("mean score", range=[0, 1.12 * top or 1]), row=3, col=3)
    figure.update_xaxes(style.cell_axis(""), row=3, col=3)
    return figure


def _hubs(figure: go.Figure, studies: Pair) -> None:
    hubs = [study.summary["hub_analysis"] for study in studies]
    # No step sees the last thought, so its sum is not a small one but none.
    scores = [[*hub["all_hub_scores"][:-1], np.nan] for hub in hubs]
    most = max(map(len, scores))
    top = max(max(hub["hub_score"], hub["uniform_baseline"]) for hub in hubs)
    _model_bars(figure, studies, scores, [f"ct{j}" for j in range(most)], row=1)
    baselines: dict[float, list[str]] = {}
    for study, hub in zip(studies, hubs, strict=True):
        baselines.setdefault(hub["uniform_baseline"], []).append(_short(study.model))
    for place, (value, names) in enumerate(baselines.items()):
        whose = f" ({names[0]})" if len(baselines) > 1 else ""
        figure.add_scatter(
            x=[f"ct{j}" for j in range(most)],
            y=np.full(most, value),
            mode="lines",
            line={"color": style.THRESHOLD_COLOUR, "width": 2, "dash": ("dash", "dot")[place]},
            name=f"uniform 1/{round(1 / value)}{whose}",
            hovertemplate="uniform %{y:.3f}<extra></extra>",
            showlegend=True,
            row=1,
            col=1,
        )
    figure.update_xaxes(style.cell_axis("thought (key)"), row=1, col=1)
    figure.update_yaxes(style.value_axis("sum over steps", range=[0, 1.12 * top]), row=1, col=1)


def _composites(figure: go.Figure, studies: Pair) -> None:
    for place, study in enumerate(studies):
        best = study.heads.head(N_TOP)
        figure.add_scatter(
            x=best["rank"],
            y=best["composite_score"],
            customdata=best["name"],
            mode="lines+markers",
            marker={"symbol": _MARKERS[place], "size": 7, "color": MODEL_COLOURS[place]},
            line={"color": MODEL_COLOURS[place], "width": 2},
            name=_short(study.model),
            showlegend=False,
            hovertemplate="rank %{x}: %{customdata}, %{y:.3f}<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_xaxes(style.value_axis("rank", dtick=5, tick0=0), row=2, col=1)
    figure.update_yaxes(style.value_axis("composite", rangemode="tozero"), row=2, col=1)


def _model_bars(
    figure: go.Figure, studies: Pair, scores: list[list[float]], labels: list[str], row: int
) -> None:
    # A group of two bars is 0.75 wide, so their middles are a quarter of that off the category's.
    for place, study in enumerate(studies):
        score_bars(
            figure,
            labels[: len(scores[place])],
            scores[place],
            MODEL_COLOURS[place],
            row=row,
            col=1 if row == 1 else 3,
            shift=(-0.1875, 0.1875)[place],
            name=_short(study.model),
            showlegend=row == 1,
        )


def _short(name: str, most: int = 28) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
