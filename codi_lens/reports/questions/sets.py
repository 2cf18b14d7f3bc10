"""The report's questions about a set of heads: what each section runs, shows and says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from codi_lens.causal.controls import OTHER_ANSWER, SAME_ANSWER, head_controls
from codi_lens.causal.dose import DoseResponse, dose_response
from codi_lens.causal.effects import check_known, compare_interventions
from codi_lens.causal.means import MIN_EFFECT
from codi_lens.causal.measure import Running
from codi_lens.causal.redundancy import redundancy
from codi_lens.head_names import Head, head_name
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.plots.causal.effects import effect_points, redundancy_matrix
from codi_lens.plots.causal.sweeps import dose_response_curves
from codi_lens.positions import Scope, scope_name
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import (
    about_spread,
    about_strata,
    effect_rows,
    extreme_row,
    smallest_p,
)
from codi_lens.wording import count, fixed, p_text, with_bounds, with_interval

MOST_PAIRED = 8
"""So many of the top heads are ablated in pairs."""


def controls_section(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    out: Path,
    *,
    mode: Mode,
    at: Scope,
    candidates: Sequence[Problem],
    min_effect: float | int = MIN_EFFECT,
    seed: int,
    **running: Unpack[Running],
) -> Section:
    """The set in every mode, beside random sets, a placebo and donors matched by answer."""
    arms = head_controls(model, problems, heads, mode=mode, at=at, candidates=candidates, seed=seed)
    table = compare_interventions(model, problems, arms, out, min_effect=min_effect, **running)
    check_known(table)
    figure = effect_points(
        table,
        "arm",
        title="What the heads cost, beside their controls",
        subtitle="mean change of the clean number's log-probability, with 95 % intervals",
    )
    placebo = (
        "The placebo ablates the same heads at the last thought, which generates no thought: only "
        "eot and the answer can read what it changes. "
    )
    placebo = placebo if model.config.n_thoughts else ""
    return Section(
        "controls",
        "Does the answer need these heads?",
        f"The heads {_names(heads)} are ablated together: their output comes from another "
        "problem's run (resample), is the mean over problems, or zero, which no model ever sees in "
        "training. Random sets have as many heads in the same layers. "
        f"{placebo}Donors with the same correct answer, and donors with another, tell what the "
        "heads say about the answer from what any foreign value breaks.",
        _about_controls(table, mode, at, candidates=bool(candidates)),
        {"controls": figure},
        {"controls": table},
        {"In numbers": effect_rows(table, "arm", "intervention")},
    )


def dose_section(
    model: CodiModel,
    problems: Sequence[Problem],
    ranking: Sequence[Head],
    ks: Sequence[int],
    out: Path,
    *,
    at: Scope,
    **settings: Any,
) -> Section:
    """Necessity and sufficiency of the top k, against random orders of the same layers' heads."""
    settings["at"] = at
    necessary = dose_response(model, problems, ranking, ks, out / "ablated", **settings)
    most = len(ranking) - 1
    kept = sorted({min(k, most) for k in ks} | {min(2 * ks[-1], most)})
    suffices = dose_response(model, problems, ranking, kept, out / "kept", keep=True, **settings)
    return Section(
        "dose_response",
        "Are the top-ranked heads necessary, and do they suffice?",
        "The k highest-ranked heads are ablated together; then all heads but these k are. Random "
        "orders permute the heads within each layer, so that k heads always lie in the same "
        "layers. The ranking comes from other problems.",
        [_about_dose(necessary, at), _about_dose(suffices, at)],
        {
            "dose_response": dose_response_curves(necessary),
            "sufficiency": dose_response_curves(suffices),
        },
        {"dose_response": necessary.curves, "sufficiency": suffices.curves},
    )


def redundancy_section(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    out: Path,
    *,
    at: Scope,
    **settings: Any,
) -> Section:
    """Pairs of the top heads, against the sum of each alone."""
    table = redundancy(model, problems, heads, out, at=at, **settings)
    check_known(table)
    found = table[table["q"] < 0.05]
    backing = found[found["interaction"] < 0]
    redundant = table[table["redundant"]]
    sentences = [
        f"Of {count(len(table), 'pair')} of {len(heads)} heads, ablated at {scope_name(at)}, "
        f"{len(backing)} cost more log-probability together than their sum "
        f"(q < 0.05: {_pairs(backing)}), {len(found) - len(backing)} less "
        f"({_pairs(found[found['interaction'] > 0])}). A log-probability near certainty makes "
        "such interactions by itself.",
        f"Of these, {len(redundant)} cost more of the logit difference than their sum too "
        f"(q < 0.05): {_pairs(redundant)}."
        if len(redundant)
        else "None of them costs more of the logit difference than its sum too (q < 0.05): no pair "
        "is shown to be redundant.",
    ]
    if len(redundant):
        strongest = extreme_row(redundant, "logit_interaction", largest=False)
        sentences.append(
            f"The most redundant pair, {strongest['a']} and {strongest['b']} (chosen on the same "
            f"problems), has an interaction of {with_interval(strongest, 'logit_interaction')} "
            f"logits and {with_interval(strongest, 'interaction')} nats."
        )
    return Section(
        "redundancy",
        "Do the heads cover for each other?",
        "Every pair is ablated together, and each head alone. A pair that costs more than its "
        "parts is redundant: each does the other's work. One that costs less breaks the same "
        "thing twice. The matrix shows the logit difference between the clean number and the "
        "runner-up, which does not saturate as a log-probability does.",
        sentences,
        {"redundancy": redundancy_matrix(table)},
        {"redundancy": table},
    )


def _about_controls(table: pd.DataFrame, mode: str, at: Scope, *, candidates: bool) -> list[str]:
    rows = table.set_index("arm")
    own: Any = rows.loc[f"heads, {mode}"]
    random = rows[[str(name).startswith("random") for name in rows.index]]["effect"]
    effects = rows["effect"].to_dict()
    modes = ", ".join(
        f"{fixed(effects[f'heads, {each}'])} with {each}" for each in ("resample", "mean", "zero")
    )
    others = "there are no other heads in these layers"
    if len(random):
        others = (
            f"random heads of the same layers by {fixed(random.mean())} (from "
            f"{fixed(random.min())} to {fixed(random.max())} in {len(random)} sets)"
        )
    findings = [
        f"Ablated ({mode}) at {scope_name(at)}, the heads change the log-probability of the clean "
        f"number by {with_interval(own, 'effect')} nats on {int(own['n_known'])} problems "
        f"({p_text(own['p'])}, against no more than {own['min_effect']:g} "
        f"{p_text(own['beyond_p'])}); {others}." + smallest_p(int(own["n_known"])),
        about_spread(rows.reset_index().iloc[0], "arm"),
        about_strata(table.head(1), "arm"),
        f"By mode: {modes} (zero is off-distribution).",
    ]
    if np.isfinite(own["accuracy"]):
        findings.append(
            f"Accuracy {100 * own['accuracy_clean']:.1f} % → {100 * own['accuracy']:.1f} % "
            f"[{100 * own['accuracy_low']:.1f}, {100 * own['accuracy_high']:.1f}] (exact McNemar "
            f"{p_text(own['mcnemar_p'])})."
        )
    if f"heads, {SAME_ANSWER}" in rows.index:
        same: Any = rows.loc[f"heads, {SAME_ANSWER}"]
        other: Any = rows.loc[f"heads, {OTHER_ANSWER}"]
        findings.append(
            "Donors with the same correct answer change it by "
            f"{with_interval(same, 'effect')}, with another answer by "
            f"{with_interval(other, 'effect')}."
        )
    elif candidates:
        findings.append(
            "Donors are not matched by answer: some problem's correct answer is unknown, or no "
            "other problem has the same."
        )
    return findings


def _about_dose(dose: DoseResponse, at: Scope) -> str:
    more, where = "more" if dose.area > 0 else "less", scope_name(at)
    what = (
        f"Ablated together at {where}, the ranking's top heads cost {abs(dose.area):.2f} nats "
        f"{more}"
    )
    if dose.keep:
        what = (
            f"Kept alone while all other heads are ablated at {where}, the ranking's top heads "
            f"save {abs(dose.area):.2f} nats {more}"
        )
    return (
        f"{what} than random heads of the same layers (area between the curves "
        f"{with_bounds(dose.area, dose.low, dose.high)}; permutation {p_text(dose.p)} over "
        f"{dose.n_random} orders, which cannot give less than {1 / (dose.n_random + 1):.2f}). The "
        "interval is over problems, p over orders."
    )


def _names(heads: Sequence[Head]) -> str:
    return ", ".join(map(head_name, heads))


def _pairs(table: pd.DataFrame) -> str:
    return ", ".join(f"{a}+{b}" for a, b in zip(table["a"], table["b"], strict=True)) or "none"
