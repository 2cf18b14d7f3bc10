"""`codi-lens ablate`: are these heads causal? Tables, figures and sentences in one folder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.dose import DoseResponse, dose_response, score_vs_effect
from codi_lens.experiments import Head, compare_interventions, halves, head_controls, head_name
from codi_lens.extract import extract
from codi_lens.heads import ConstantMetricWarning, rank_heads
from codi_lens.model import CodiModel
from codi_lens.outputs import check_output, write_text
from codi_lens.plots.causal import causal_map, dose_response_curves, score_effect_scatter
from codi_lens.positions import Scope
from codi_lens.problems import Problem
from codi_lens.sweeps import sweep_heads

SCORES = ("flow", "hub", "skip", "sequential", "self", "composite")
"""The position-view scores that `ablate_all` holds against the effects."""


@dataclass(frozen=True, eq=False)
class Ablation:
    """What an ablation found, and where it was written.

    Attributes:
        effects: one row per arm, as from `codi_lens.experiments.summarise`.
        findings: plain sentences.
        figures: by file name.
        folder: holds `effects.csv`, `findings.md`, the figures as HTML, and the outcomes of every
            problem as parquet.
    """

    effects: pd.DataFrame
    findings: list[str]
    figures: dict[str, go.Figure]
    folder: Path


def ablate_set(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    out: str | Path,
    *,
    mode: Any = "resample",
    at: Scope = "thinking",
    seed: int = 0,
    **running: Any,
) -> Ablation:
    """Ablate a set of heads in every mode, beside random sets and a placebo; see `head_controls`.

    Raises:
        CodiLensError: see `compare_interventions`; `out` holds something else.
    """
    folder = check_output(out, "outcomes")
    arms = head_controls(model, problems, heads, mode=mode, at=at, seed=seed)
    table = compare_interventions(
        model, problems, arms, folder / "outcomes" / "set", seed=seed, **running
    )
    return _write(table, _about_set(table, mode), {}, folder)


def ablate_top(
    model: CodiModel,
    problems: Sequence[Problem],
    top: int,
    out: str | Path,
    *,
    mode: Any = "resample",
    at: Scope = "thinking",
    seed: int = 0,
    n_random: int = 19,
    **running: Any,
) -> Ablation:
    """Rank heads on one half of the problems, and ablate the top ones on the other.

    The highest `top` by composite score go together, in every mode and with controls, and in
    growing numbers against random orders (`codi_lens.dose.dose_response`).

    Raises:
        CodiLensError: see `dose_response`; `out` holds something else.
    """
    folder = check_output(out, "outcomes")
    for_ranking, rest = halves(problems, seed=seed)
    ranking = _ranking(_rank(model, for_ranking, running))
    ks = sorted({k for k in (1, 2, 4, 8, 16, 32, 64) if k < top} | {top})
    settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
    dose = dose_response(
        model, rest, ranking, ks, folder / "outcomes" / "dose", n_random=n_random, **settings
    )
    arms = head_controls(model, rest, ranking[:top], mode=mode, at=at, seed=seed)
    table = compare_interventions(
        model, rest, arms, folder / "outcomes" / "set", seed=seed, **running
    )
    names = ", ".join(head_name(head) for head in ranking[:top])
    findings = [f"Ranked on {len(for_ranking)} problems, ablated on {len(rest)} others: {names}."]
    findings += [*_about_set(table, mode), _about_dose(dose)]
    dose.curves.to_csv(folder / "dose_response.csv", index=False)
    return _write(table, findings, {"dose_response": dose_response_curves(dose)}, folder)


def ablate_all(
    model: CodiModel,
    problems: Sequence[Problem],
    out: str | Path,
    *,
    mode: Any = "resample",
    at: Scope = "thinking",
    seed: int = 0,
    **running: Any,
) -> Ablation:
    """Ablate every head alone on one half; hold the scores on the other half against the effects.

    Raises:
        CodiLensError: see `sweep_heads`; `out` holds something else.
    """
    folder = check_output(out, "outcomes")
    for_ranking, rest = halves(problems, seed=seed)
    scores = _rank(model, for_ranking, running)
    table = sweep_heads(
        model,
        rest,
        out=folder / "outcomes" / f"heads-{mode}",
        mode=mode,
        at=at,
        seed=seed,
        **running,
    )
    associations = score_vs_effect(scores, table, SCORES, seed=seed)
    associations.to_csv(folder / "score_vs_effect.csv", index=False)
    found = table[(table["q"] < 0.05) & (table["effect"] < 0)].sort_values("effect")
    names = ", ".join(found["name"]) or "none"
    findings = [
        f"Of {len(table)} heads, {len(found)} make the clean answer less likely when ablated "
        f"({mode}, q < 0.05, {len(rest)} problems): {names}."
    ]
    for row in associations.to_dict("records"):
        findings.append(
            f"The {row['metric']} score goes with the loss at ρ = {row['rho']:.2f} "
            f"[{row['low']:.2f}, {row['high']:.2f}] (q = {row['q']:.2f}), within layers "
            f"{row['within_rho']:.2f} [{row['within_low']:.2f}, {row['within_high']:.2f}] "
            f"(q = {row['within_q']:.2f})."
        )
    figures = {
        "causal_map": causal_map(table),
        "score_vs_effect": score_effect_scatter(scores, table, associations, "composite"),
    }
    return _write(table.sort_values("effect", ignore_index=True), findings, figures, folder)


def _rank(model: CodiModel, problems: Sequence[Problem], running: dict[str, Any]) -> pd.DataFrame:
    settings = {k: v for k, v in running.items() if k in ("max_new_tokens", "progress")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantMetricWarning)
        return rank_heads(extract(model, problems, **settings))


def _ranking(heads: pd.DataFrame) -> list[Head]:
    pairs = heads[["layer", "head"]].to_numpy(dtype=int).tolist()
    return [(layer, head) for layer, head in pairs]


def _about_set(table: pd.DataFrame, mode: str) -> list[str]:
    rows = table.set_index("arm")
    own: Any = rows.loc[f"heads, {mode}"]
    zero: Any = rows.loc["heads, zero"]
    random = rows[[str(name).startswith("random") for name in rows.index]]["effect"]
    findings = [
        f"Ablated ({mode}), the heads change the log-probability of the clean number by "
        f"{own['effect']:.2f} nats [{own['effect_low']:.2f}, {own['effect_high']:.2f}] on "
        f"{int(own['n_known'])} problems (p = {own['p']:.4f}); random heads of the same layers by "
        f"{random.mean():.2f} (from {random.min():.2f} to {random.max():.2f} in {len(random)} "
        "sets).",
        f"With zeros in their place, which the model never sees, it is {zero['effect']:.2f}.",
    ]
    if np.isfinite(own["accuracy"]):
        findings.append(
            f"Accuracy {100 * own['accuracy_clean']:.1f} % → {100 * own['accuracy']:.1f} % "
            f"[{100 * own['accuracy_low']:.1f}, {100 * own['accuracy_high']:.1f}] (exact McNemar "
            f"p = {own['mcnemar_p']:.4f})."
        )
    return findings


def _about_dose(dose: DoseResponse) -> str:
    verdict = "more" if dose.area > 0 else "less"
    return (
        f"Over growing numbers of heads the ranking's top ones cost {abs(dose.area):.2f} nats "
        f"{verdict} than random orders (area between the curves {dose.area:.2f} "
        f"[{dose.low:.2f}, {dose.high:.2f}], permutation p = {dose.p:.3f} of {dose.n_random} "
        "orders that it costs more)."
    )


def _write(
    table: pd.DataFrame, findings: list[str], figures: dict[str, go.Figure], folder: Path
) -> Ablation:
    write_text(folder / "effects.csv", table.to_csv(index=False))
    write_text(folder / "findings.md", "".join(f"- {sentence}\n" for sentence in findings))
    for name, figure in figures.items():
        write_text(folder / f"{name}.html", figure.to_html(include_plotlyjs=True))
    return Ablation(table, findings, figures, folder)
