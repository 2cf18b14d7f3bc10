"""What the study measured, beside what answers its questions, on the same attention.

The study asks good questions and answers some of them with another quantity than the one meant:
its "sequential flow" is self-attention, its hub partly a matter of counting, its flow score 1 for
every head. Each published quantity stands here beside the corrected one, with its uncertainty.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from codi_lens.study.run import Study

ALPHA = 0.05
"""The level of the permutation test."""


@dataclass(frozen=True)
class Measured:
    """One question of the study, its answer, and the corrected one.

    Attributes:
        question: what was meant to be asked.
        study: the study's number and verdict.
        measures: what that number is.
        corrected: what answers the question, with its interval where it has one.
    """

    question: str
    study: str
    measures: str
    corrected: str


def what_the_study_measured(
    study: Study, corrected: pd.DataFrame, heads: pd.DataFrame
) -> list[Measured]:
    """Each published quantity beside the corrected one, in words and numbers.

    Args:
        study: what the study reports of a model.
        corrected: `corrected_quantities` of the same attention.
        heads: `rank_heads` of the same attention, in the position view.
    """
    rows = [_hub(study, corrected)]
    if study.mean.sizes["key"] > 1:
        rows += [_sequential(study, corrected), _last_step(study, corrected)]
        rows += [_skips(study, corrected)]
    return [
        *rows,
        _flow(study, heads),
        _composite(study, heads),
        _top_heads(study, corrected),
        _spread(study),
        _forward(corrected),
    ]


def _hub(study: Study, corrected: pd.DataFrame) -> Measured:
    hub = study.summary["hub_analysis"]
    n = len(hub["all_hub_scores"])
    ratios = corrected[corrected["quantity"] == "hub ratio"].dropna(subset="value")
    answer = "Undefined: no thought attends to an earlier one."
    if len(ratios):
        hubs = ratios[(ratios["p"] < ALPHA) & (ratios["low"] > 1)]
        best = (hubs if len(hubs) else ratios).sort_values("value").iloc[-1]
        answer = (
            f"{best['at']}: {_interval(best, 2)} times what an even spread over earlier thoughts "
            f"would give it; {_verdict(best)}. All: "
            + ", ".join(f"{row['at']} {row['value']:.2f}" for row in ratios.to_dict("records"))
            + "."
        )
    return Measured(
        "Which thought do the others read most?",
        f"Position {hub['hub_position']}, {hub['hub_ratio']:.2f} × 1/{n} "
        f"({'strong' if hub['is_strong_hub'] else 'weak'} hub)",
        f"Sums over all steps that can see a thought: {n - 1} see ct0, one sees ct{n - 2}, none "
        f"ct{n - 1}. Under uniform attention the sums fall from left to right; each thought's "
        "attention to itself counts too."
        if n > 1
        else "A single thought, which no step sees.",
        answer,
    )


def _sequential(study: Study, corrected: pd.DataFrame) -> Measured:
    flow = study.summary["sequential_flow"]
    mean = _row(corrected, "sequential", "mean")
    own = _row(corrected, "self", "mean")
    return Measured(
        "Does each thought attend to the one before it?",
        f"{'Yes' if flow['has_sequential_flow'] else 'No'}: entries [i, i−1] average "
        f"{flow['avg_sequential_attention']:.3f}, threshold {study.thresholds.sequential}",
        "At step i the query is ct{i−1}, so entry [i, i−1] is a thought attending to itself.",
        f"ct{{i}} → ct{{i−1}} averages {_interval(mean)}; an even spread over earlier thoughts "
        f"would give {mean['null']:.3f}. To itself: {_interval(own)}.",
    )


def _last_step(study: Study, corrected: pd.DataFrame) -> Measured:
    n = study.mean.sizes["key"]
    flow = study.summary["sequential_flow"]
    answer = next(v for k, v in study.summary["answers"].items() if k.startswith("does_pos"))
    pair = _row(corrected, "sequential", f"ct{n - 1}→ct{n - 2}")
    return Measured(
        "Does the last thought attend to the one before it?",
        f"{'Yes' if answer else 'No'}: entry [{n - 1}, {n - 2}] is "
        f"{flow[f'position_{n - 1}_to_{n - 2}']:.3f}, threshold {study.thresholds.last_step}",
        f"It is ct{n - 2} attending to itself. The last thought, ct{n - 1}, is the query of no "
        "step, so the study never sees what it attends to.",
        f"ct{n - 1} → ct{n - 2}: {_interval(pair)}; even spread {pair['null']:.3f}.",
    )


def _skips(study: Study, corrected: pd.DataFrame) -> Measured:
    skip = study.summary["skip_connections"]
    n = study.mean.sizes["key"]
    rows = corrected[(corrected["quantity"] == "by distance") & (corrected["at"] != "0")]
    return Measured(
        "Do late thoughts reach back over intermediate ones?",
        f"{'Yes' if skip['has_skip_connections'] else 'No'}: entries [{n - 1}, 0..{n // 2 - 1}] "
        f"average {skip['avg_skip_attention']:.3f}, threshold {study.thresholds.skip}",
        f"The query of that row is ct{n - 2}, and nothing says how much attention to expect: an "
        "even spread over the thoughts it can see is one answer.",
        "Attention per pair, by thoughts back (even spread in brackets): "
        + ", ".join(
            f"{row['at']}: {row['value']:.3f} ({row['null']:.3f})"
            for row in rows.to_dict("records")
        )
        + ".",
    )


def _flow(study: Study, heads: pd.DataFrame) -> Measured:
    low, high = (f"{bound(study.heads['flow_score']):.3f}" for bound in (min, max))
    return Measured(
        "How much of a thought's attention goes to earlier thoughts?",
        f"Flow score {low} for every head" if low == high else f"Flow scores {low} to {high}",
        "The share of the matrix below its diagonal, which the study never fills: 1 by "
        "construction for a head that attends to thoughts at all. It drops out of the composite, "
        "which then cannot exceed 0.6.",
        "With self-attention on the diagonal, the share that goes to earlier thoughts is "
        f"{heads['flow'].mean():.3f} on average, {heads['flow'].min():.3f} to "
        f"{heads['flow'].max():.3f} over heads.",
    )


def _composite(study: Study, heads: pd.DataFrame) -> Measured:
    n = min(10, len(heads))
    best, published = heads.iloc[0], study.heads.iloc[0]
    shared = len(set(heads["name"].head(n)) & set(study.heads["name"].head(n)))
    left_out = heads.attrs.get("constant", [])
    return Measured(
        "Which heads matter most for how thoughts read each other?",
        f"{published['name']}, composite {published['composite_score']:.3f} "
        f"({published['functional_type']})",
        "Variance of the column sums and the last row's first half, on the mean matrix only: no "
        "spread over problems, no interval on a rank. No causal claim follows from attention.",
        f"{best['name']}, composite {best['composite']:.3f} [{best['composite_low']:.3f}, "
        f"{best['composite_high']:.3f}]"
        + (f", constant metrics left out ({', '.join(left_out)})" if left_out else "")
        + f"; {shared} of the study's top {n} heads are among the corrected top {n}.",
    )


def _top_heads(study: Study, corrected: pd.DataFrame) -> Measured:
    top = study.stats["top_20_heads"]
    entry, count = Counter(head["max_position"] for head in top).most_common(1)[0]
    own = sum(_is_self(head["max_position"]) for head in top)
    links = corrected[corrected["quantity"] == "strongest link"]
    return Measured(
        "What is the strongest link between thoughts?",
        f"{top[0]['max_attention']:.3f} at [{top[0]['max_position']}] in "
        f"L{top[0]['layer']}H{top[0]['head']}; {count} of the top {len(top)} heads peak at "
        f"[{entry}]",
        f"In {own} of these {len(top)} heads the largest entry is a thought attending to itself "
        "([1→0] is ct0 → ct0).",
        "A single thought has no link to another."
        if links.empty
        else f"Self-attention apart: {_interval(links.iloc[0])} in {links.iloc[0]['at']}.",
    )


def _spread(study: Study) -> Measured:
    n = study.mean.sizes["key"]
    possible = np.tril(np.ones((n, n), dtype=bool), -1)
    spread = study.std.values[..., possible]
    mean = study.mean.values[..., possible]
    consistency = study.stats["consistency"]
    relative = f", {spread.mean() / mean.mean():.0%} of their mean" if mean.sum() else ""
    return Measured(
        "Are the patterns the same on every problem?",
        f"{'Yes' if consistency['consistent'] else 'No'}: mean std {consistency['mean_std']:.4f}, "
        f"threshold {study.thresholds.consistent_std}",
        f"{n * n - possible.sum()} of the {n * n} cells averaged are 0 on every problem, because "
        "no step fills them.",
        f"Over the {possible.sum()} cells that a step can fill, the deviation over problems is "
        f"{spread.mean():.4f}{relative}."
        if possible.any()
        else "A single thought leaves no cell to fill.",
    )


def _forward(corrected: pd.DataFrame) -> Measured:
    goes = corrected[corrected["quantity"] == "destination"]
    parts = [
        f"{row['at']} {row['value']:.1%}" for row in goes.to_dict("records") if row["value"] > 0
    ]
    return Measured(
        "Where does a thought's attention go?",
        "“100% of attention goes to earlier positions”",
        "Only attention between thoughts was kept, and causality forbids later ones.",
        "Averaged over thoughts and heads: " + ", ".join(parts) + ".",
    )


def _row(corrected: pd.DataFrame, quantity: str, at: str) -> pd.Series:
    found = corrected[(corrected["quantity"] == quantity) & (corrected["at"] == at)]
    return found.iloc[0]


def _verdict(hub: pd.Series) -> str:
    """What interval and permutation test say of the thought with the highest hub ratio."""
    if np.isnan(hub["p"]) or hub["p_smallest"] > ALPHA:
        return "too few thoughts come after it for the permutation test to call it a hub"
    result = f"permutation test against an even spread and smooth primacy p = {hub['p']:.2g}"
    if hub["p"] >= ALPHA:
        return f"{result}, so it is not told apart from rows that prefer no one thought"
    return f"{result}, {'a' if hub['low'] > 1 else 'but an interval that reaches 1 is no'} hub"


def _interval(row: pd.Series, digits: int = 3) -> str:
    text = f"{row['value']:.{digits}f}"
    if np.isnan(row["low"]):
        return text
    return f"{text} [{row['low']:.{digits}f}, {row['high']:.{digits}f}]"


def _is_self(entry: str) -> bool:
    row, column = map(int, entry.split("→"))
    return row == column + 1
