"""The report's question whether a score of heads predicts their effects, and beats a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.attention.reading import READING_SCORES
from codi_lens.causal.measure import Running
from codi_lens.causal.output_changes import output_changes
from codi_lens.causal.reliability import (
    Reliability,
    effects_by_problem,
    split_half_reliability,
)
from codi_lens.causal.scores_vs_effects import BASELINE, STRATA, rankings_vs_effect
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.plots.causal.scores import rankings_figure
from codi_lens.plots.causal.sweeps import score_effect_scatter
from codi_lens.positions import Scope, scope_name
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import extreme_row
from codi_lens.wording import fixed, p_text, percent

WHERE = {"": "over all heads", "within_": "within layers"}


def scores_section(
    model: CodiModel,
    problems: Sequence[Problem],
    views: Mapping[str, pd.DataFrame],
    effects: pd.DataFrame,
    outcomes: Path,
    *,
    mode: Mode,
    at: Scope,
    donors: Donors | None,
    seed: int,
    **running: Unpack[Running],
) -> Section:
    """Every score of every view against the effects, beside the baseline and the ceiling.

    Args:
        model: the model.
        problems: those that `effects` were measured on.
        views: tables of scores by what to call them, of other problems; the first has `composite`.
        effects: of `sweep_heads`, of all heads.
        outcomes: the folder of the report's outcomes: `heads-{mode}` in it is that of the sweep,
            and `outputs-{mode}` becomes that of the baseline.
        mode, at, donors, seed: of the sweep.
        running: of the sweep.
    """
    kept = outcomes / f"outputs-{mode}"
    asked: dict[str, Any] = {"mode": mode, "at": at, "donors": donors, "seed": seed, **running}
    baseline = output_changes(model, problems, out=kept, **asked)
    table = rankings_vs_effect(views, effects, baseline, seed=seed)
    measured = pd.read_parquet(outcomes / f"heads-{mode}" / "outcomes.parquet")
    each = effects_by_problem(measured, effects["arm"].tolist())
    layers = effects["layer"].to_numpy(dtype=int)
    ceilings = {
        prefix: split_half_reliability(each, strata, seed=seed)
        for prefix, strata in zip(STRATA, (None, layers), strict=True)
    }
    first = next(iter(views))
    return Section(
        "scores",
        "Does a score of attention predict what a head is needed for?",
        "Scores of attention come from other problems than the effects. The baseline is how far "
        "the same ablation moves what the head writes, ‖(replacement − z) W_O‖ over all ablated "
        "positions, in the clean runs of the problems that the effects were measured on; it knows "
        "the replacement, and nothing of the answer. The ceiling is what a score that equals the "
        "true effects is expected to reach: the square root of the effects' split-half "
        "reliability; the baseline, measured on the very same problems, may lie above it. "
        "Stratified by layer, ranks are centred within each layer, so that what "
        "differs only between layers does not count.",
        score_findings(table, ceilings, first, scope_name(at), views[first].attrs["n_problems"]),
        {
            "rankings": rankings_figure(
                table.assign(label=_labels(table)),
                {prefix: found.ceiling for prefix, found in ceilings.items()},
            ),
            "baseline_vs_effect": _scatter(baseline, effects, table, BASELINE, "output_change"),
            "score_vs_effect": _scatter(views[first], effects, table, first, "composite"),
        },
        {
            "score_vs_effect": table,
            "output_changes": baseline,
            "effect_reliability": pd.DataFrame(
                [{"over": WHERE[prefix], **vars(found)} for prefix, found in ceilings.items()]
            ),
        },
        {"Every score, the baseline first": _rows(table)},
    )


def score_findings(
    table: pd.DataFrame, ceilings: Mapping[str, Reliability], first: str, scope: str, n_scored: int
) -> list[str]:
    """What is shown about scores, baseline and ceiling, in sentences.

    Args:
        table: of `rankings_vs_effect`, with a baseline.
        ceilings: by the prefix of the columns that they are for: "" and "within_".
        first: the view whose composite is named.
        scope: where heads were ablated.
        n_scored: problems that the scores are of.
    """
    return [
        _against_effects(table, scope, ceilings[""].n_problems, n_scored),
        *(_against_baseline(table, prefix) for prefix in STRATA),
        _about_ceilings(ceilings),
        _best(table),
        _composite(table, first),
    ]


def _against_effects(table: pd.DataFrame, scope: str, n_problems: int, n_scored: int) -> str:
    scores, n_heads = table[table["view"] != BASELINE], int(table["n"].iloc[0])
    found = {
        prefix: scores[(scores[f"{prefix}q"] < 0.05) & (scores[f"{prefix}rho"] > 0)]
        for prefix in STRATA
    }
    opposite = scores[(scores["q"] < 0.05) & (scores["rho"] < 0)]
    text = (
        f"Of {int(scores['rho'].notna().sum())} scores of attention, {_counted(found[''])} go with "
        f"the loss over all heads, {_counted(found['within_'])} within layers: q < 0.05, corrected "
        "once over all scores and the baseline, in both together; effects at "
        f"{scope} on {n_problems} problems, scores on {n_scored} others, {n_heads} heads."
    )
    if len(opposite):
        text += f" Heads with more of it are needed less: {_names(opposite)}."
    return text + f" With {n_heads} heads, what the intervals hold is not excluded."


def _against_baseline(table: pd.DataFrame, prefix: str) -> str:
    """What the baseline reaches, and which scores are shown to be better or worse."""
    base, scores = table.iloc[0], table[table[f"{prefix}difference"].notna()]
    sure = scores[scores[f"{prefix}difference_q"] < 0.05]
    better = sure[sure[f"{prefix}difference"] > 0]
    text = (
        f"How far the ablation moves what a head writes has ρ = {_interval(base, prefix)} with the "
        f"loss {WHERE[prefix]}"
    )
    if np.isfinite(base[f"{prefix}q"]):
        text += f" ({p_text(base[f'{prefix}q'], 'q')})"
    if not len(scores):
        return f"{text}; there is no score to hold against it."
    return (
        f"{text}. Of {len(scores)} scores {_counted(better)} are shown to beat this baseline, and "
        f"{len(sure) - len(better)} to fall short of it (q < 0.05, corrected once over all "
        "differences, in both together; paired bootstrap over heads)."
    )


def _about_ceilings(ceilings: Mapping[str, Reliability]) -> str:
    found = ceilings[""]
    if not np.isfinite(found.value):
        return "The effects are too few, or too alike, to say how reliable they are."
    within = ceilings["within_"]
    return (
        f"Measured again on {found.n_problems} other problems, effects are expected to rank the "
        f"heads as here with ρ = {fixed(found.value)} (halves of the problems, {found.n_splits} "
        f"splits, Spearman-Brown), within layers {fixed(within.value)}; so a score that equals the "
        f"true effects is expected to reach {fixed(found.ceiling)}, within layers "
        f"{fixed(within.ceiling)}."
    )


def _best(table: pd.DataFrame) -> str:
    best = extreme_row(table[table["view"] != BASELINE], "rho", largest=True)
    text = (
        f"The best score over all heads (chosen on the same data) is {_name(best)} with ρ = "
        f"{_interval(best)} ({p_text(best['q'], 'q')}), within layers "
        f"{_interval(best, 'within_')} ({p_text(best['within_q'], 'q')})"
    )
    if np.isfinite(best["difference"]):
        text += (
            f"; its ρ minus that of the baseline is {_interval(best, '', 'difference')}, within "
            f"layers {_interval(best, 'within_', 'difference')}"
        )
    return f"{text}."


def _composite(table: pd.DataFrame, view: str) -> str:
    row = table[(table["view"] == view) & (table["metric"] == "composite")].iloc[0]
    return (
        f"The composite score ({view}) has ρ = {_interval(row)}, within layers "
        f"{_interval(row, 'within_')}."
    )


def _scatter(
    heads: pd.DataFrame, effects: pd.DataFrame, table: pd.DataFrame, view: str, metric: str
) -> go.Figure:
    return score_effect_scatter(heads, effects, table[table["view"] == view], metric)


def _rows(table: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    columns = ["score"]
    for where in WHERE.values():
        columns += [f"ρ {where} [95 %]", "q", "minus the baseline's [95 %]", "of the baseline's"]
    rows = []
    for label, row in zip(_labels(table), table.to_dict("records"), strict=True):
        cells = [label]
        for prefix in STRATA:
            cells += [_interval(row, prefix), _q(row[f"{prefix}q"])]
            cells += [_interval(row, prefix, "difference"), _percent(row[f"{prefix}ratio"])]
        rows.append(cells)
    return columns, rows


def _interval(row: Any, prefix: str = "", name: str = "rho") -> str:
    """A value with its interval; nothing where it is not defined."""
    low, high = ("low", "high") if name == "rho" else (f"{name}_low", f"{name}_high")
    value, *ends = (row[f"{prefix}{each}"] for each in (name, low, high))
    if not np.isfinite(value):
        return "–"
    return f"{fixed(value)} [{fixed(ends[0])}, {fixed(ends[1])}]"


def _q(q: float) -> str:
    return p_text(q, "").removeprefix(" = ").strip() if np.isfinite(q) else "–"


def _percent(share: float) -> str:
    return percent(share, 0) if np.isfinite(share) else "–"


def _labels(table: pd.DataFrame) -> list[str]:
    """What a page calls each score: its name, and the view unless the name says it."""
    return [_name(row) for row in table.to_dict("records")]


def _name(row: Mapping[Any, Any]) -> str:
    if row["view"] == BASELINE:
        return "output change (baseline)"
    name = READING_SCORES.get(row["metric"]) or str(row["metric"])
    view = row["view"].removeprefix("reading").removeprefix(", ")
    view = view.replace(" view", "").replace("value-weighted", "weighted")
    return f"{name} ({view})" if view else name


def _names(table: pd.DataFrame) -> str:
    return ", ".join(_labels(table))


def _counted(table: pd.DataFrame) -> str:
    """How many scores, and which."""
    return f"{len(table)} ({_names(table)})" if len(table) else "none"
