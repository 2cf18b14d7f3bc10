"""The report's questions about heads: what each section runs, shows and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from codi_lens.dose import DoseResponse, dose_response, rankings_vs_effect
from codi_lens.experiments import (
    OTHER_ANSWER,
    SAME_ANSWER,
    Head,
    check_known,
    compare_interventions,
    head_controls,
    head_name,
)
from codi_lens.model import CodiModel
from codi_lens.outputs import fixed, p_text, with_interval
from codi_lens.plots.causal import causal_map, dose_response_curves, score_effect_scatter
from codi_lens.plots.causal_page import Section
from codi_lens.plots.effects import effect_points, redundancy_matrix
from codi_lens.positions import Scope
from codi_lens.problems import Problem
from codi_lens.redundancy import redundancy
from codi_lens.sweeps import sweep_heads
from codi_lens.transplants import OWN, mean_block, stand_ins, transplants

MOST_PAIRED = 8
"""So many of the top heads are ablated in pairs."""


def controls_section(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    out: Path,
    *,
    mode: Any,
    at: Scope,
    candidates: Sequence[Problem],
    seed: int,
    **running: Any,
) -> Section:
    """The set in every mode, beside random sets, a placebo and donors matched by answer."""
    arms = head_controls(model, problems, heads, mode=mode, at=at, candidates=candidates, seed=seed)
    table = compare_interventions(model, problems, arms, out, seed=seed, **running)
    check_known(table)
    figure = effect_points(
        table,
        "arm",
        title="What the heads cost, beside their controls",
        subtitle="mean change of the clean number's log-probability, with 95 % intervals",
    )
    return Section(
        "controls",
        "Does the answer need these heads?",
        f"The heads {_names(heads)} are ablated together: their output comes from another "
        "problem's run (resample), is the mean over problems, or zero, which no model ever sees in "
        "training. Random sets have as many heads in the same layers. The placebo ablates the same "
        "heads at the last thought, which generates no thought: only eot and the answer can read "
        "what it changes. Donors with the same "
        "correct answer, and donors with another, tell what the heads say about the answer from "
        "what any foreign value breaks.",
        _about_controls(table, mode, candidates=bool(candidates)),
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
    seed: int,
    **settings: Any,
) -> Section:
    """Necessity and sufficiency of the top k, against random orders of the same layers' heads."""
    necessary = dose_response(model, problems, ranking, ks, out / "ablated", seed=seed, **settings)
    most = len(ranking) - 1
    kept = sorted({min(k, most) for k in ks} | {min(2 * ks[-1], most)})
    suffices = dose_response(
        model, problems, ranking, kept, out / "kept", keep=True, seed=seed, **settings
    )
    return Section(
        "dose_response",
        "Are the top-ranked heads necessary, and do they suffice?",
        "The k highest-ranked heads are ablated together; then all heads but these k are. Random "
        "orders permute the heads within each layer, so that k heads always lie in the same "
        "layers. The ranking comes from other problems.",
        [_about_dose(necessary), _about_dose(suffices)],
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
    seed: int,
    **settings: Any,
) -> Section:
    """Pairs of the top heads, against the sum of each alone."""
    table = redundancy(model, problems, heads, out, seed=seed, **settings)
    check_known(table)
    found = table[table["q"] < 0.05]
    backing = found[found["interaction"] < 0]
    redundant = table[table["redundant"]]
    sentences = [
        f"Of {len(table)} pairs of {len(heads)} heads, {len(backing)} cost more log-probability "
        f"together than their sum (q < 0.05: {_pairs(backing)}), {len(found) - len(backing)} less "
        f"({_pairs(found[found['interaction'] > 0])}). A log-probability near certainty makes "
        "such interactions by itself.",
        f"Of these, {len(redundant)} cost more of the logit difference than their sum too "
        f"(q < 0.05): {_pairs(redundant)}."
        if len(redundant)
        else "None of them costs more of the logit difference than its sum too (q < 0.05): no pair "
        "is shown to be redundant.",
    ]
    if len(redundant):
        strongest = _extreme(redundant, "logit_interaction", largest=False)
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


def transplant_section(
    model: CodiModel,
    problems: Sequence[Problem],
    attention: xr.DataArray,
    head: Head,
    ranking: Sequence[Head],
    out: Path,
    *,
    foreign: Mapping[str, np.ndarray],
    mode: Any,
    at: Scope,
    seed: int,
    **running: Any,
) -> Section:
    """Other heads' thought blocks in a head, and the head's block in others while it is ablated.

    Args:
        model: the model.
        problems: to intervene on.
        attention: of other problems; blocks are averaged over them.
        head: that gets blocks, and whose block the others get.
        ranking: its first heads give their blocks.
        out: for the outcomes.
        foreign: blocks of another model's heads, by name.
        mode: of the ablation.
        at: of the ablation.
        seed: of everything drawn.
        running: see `measure`.
    """
    own = mean_block(attention, head)
    givers = [other for other in ranking[:4] if other != head][:3]
    blocks = {head_name(other): mean_block(attention, other) for other in givers} | dict(foreign)
    given = transplants(model, problems, head, own, blocks, out / "blocks", seed=seed, **running)
    n_heads = model.lens.cfg.n_heads
    others = [(head[0], other) for other in range(n_heads) if (head[0], other) != head]
    name = head_name(head)
    sentences = [_about_blocks(given, name)]
    figures = {
        "transplants": effect_points(
            given,
            "block",
            title=f"{name} under other heads' thought blocks",
            subtitle="its queries are the thoughts; each row's attention to question and bot is "
            "rescaled",
        )
    }
    tables = {"transplants": given}
    if others:
        settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
        taken = stand_ins(model, problems, head, own, others, out / "stand_ins", **settings)
        better = (taken["made_up"] > 0) & (taken["over_even"] > 0)
        helping = taken[better & (taken["q"] < 0.05) & (taken["over_even_q"] < 0.05)]
        best = _extreme(taken, "made_up", largest=True)
        sentences.append(
            f"With {name} ablated ({fixed(best['ablated'])} nats), {len(helping)} of "
            f"{len(taken)} heads of its layer make up for some of it when they get its block, and "
            "more so than with the same mass spread evenly (q < 0.05 each); the most is "
            f"{with_interval(best, 'made_up')} ({best['name']}, chosen on the same problems)."
        )
        figures["stand_ins"] = effect_points(
            taken,
            "name",
            column="made_up",
            title=f"Who makes up for {name} with its block?",
            subtitle=f"{name} is ablated, and another head of its layer attends among the thoughts "
            "as it did",
            axis="made up (nats)",
        )
        tables["stand_ins"] = taken
    return Section(
        "transplants",
        "Does a transplanted pattern carry function?",
        "A thought block is what each thought gives to itself and to earlier thoughts, averaged "
        f"over other problems. {name} gets its own mean block, the same mass spread evenly, and "
        "other heads' blocks: a block that fits costs less than the even one. Then "
        f"{name} is ablated, and each other head of its layer gets its block.",
        sentences,
        figures,
        tables,
    )


def nothing_to_transplant(n: int) -> Section:
    """The section where none of `n` heads matters alone: then no pattern can carry a function.

    Args:
        n: how many heads were ablated alone, on other problems.
    """
    return Section(
        "transplants",
        "Does a transplanted pattern carry function?",
        "A head whose ablation costs something would get other heads' thought blocks, and give its "
        "own.",
        [
            f"Of the {n} top-ranked heads, none makes the clean answer less likely when ablated "
            "alone (p < 0.05), so there is no function to carry."
        ],
    )


def sweep_section(
    model: CodiModel, problems: Sequence[Problem], out: Path, **settings: Any
) -> tuple[Section, pd.DataFrame]:
    """Every head alone."""
    table = sweep_heads(model, problems, out=out, **settings)
    check_known(table)
    found = table[(table["q"] < 0.05) & (table["effect"] < 0)].sort_values("effect")
    names = ", ".join(found["name"]) or "none"
    section = Section(
        "heads",
        "Which heads does the answer need?",
        f"Each head is ablated alone ({settings['mode']}).",
        [
            f"Of {len(table)} heads, {len(found)} make the clean answer less likely when ablated "
            f"({settings['mode']}, q < 0.05, {int(table['n_known'][0])} problems): {names}."
            + _floor(int(table["n_known"][0]))
        ],
        {"causal_map": causal_map(table)},
        {"heads": table.sort_values("effect", ignore_index=True)},
        {"In numbers": effect_rows(table.sort_values("effect").head(12), "name", "head")},
    )
    return section, table


def scores_section(
    views: Mapping[str, pd.DataFrame], effects: pd.DataFrame, *, seed: int
) -> Section:
    """Every score of every view against the effects."""
    table = rankings_vs_effect(views, effects, seed=seed)
    first = next(iter(views))
    good = table[(table["q"] < 0.05) & (table["rho"] > 0)]
    within = table[(table["within_q"] < 0.05) & (table["within_rho"] > 0)]
    sentences = [
        f"Of {int(table['rho'].notna().sum())} rankings, {len(good)} go with the loss over all "
        f"heads (q < 0.05: {_labels(good)}), {len(within)} within layers ({_labels(within)}). "
        f"With {len(effects)} heads, what the intervals hold is not excluded."
    ]
    best = _extreme(table, "rho", largest=True)
    sentences.append(
        f"The best over all heads (chosen on the same data) is {best['metric']} "
        f"({best['view']}) with ρ = {best['rho']:.2f} "
        f"[{best['low']:.2f}, {best['high']:.2f}] ({p_text(best['q'], 'q')}), within layers "
        f"{best['within_rho']:.2f} [{best['within_low']:.2f}, {best['within_high']:.2f}] "
        f"({p_text(best['within_q'], 'q')})."
    )
    named = (table["view"] == first) & (table["metric"] == "composite")
    composite = table[named].to_dict("records")[0]
    sentences.append(
        f"The composite score ({first}) has ρ = {composite['rho']:.2f} [{composite['low']:.2f}, "
        f"{composite['high']:.2f}], within layers {composite['within_rho']:.2f}."
    )
    drawn = table.dropna(subset=["rho"]).rename(columns={"low": "rho_low", "high": "rho_high"})
    figures = {
        "rankings": effect_points(
            drawn,
            "metric",
            "view",
            column="rho",
            title="Which score of attention predicts the loss?",
            subtitle="Spearman's ρ over all heads with 95 % bootstrap intervals over heads",
            axis="Spearman ρ with the loss when ablated",
        ),
        "score_vs_effect": score_effect_scatter(
            views[first], effects, table[table["view"] == first], "composite"
        ),
    }
    return Section(
        "scores",
        "Does a score of attention predict what a head is needed for?",
        "The scores come from other problems than the effects. Stratified by layer, ranks are "
        "centred within each layer, so that what differs only between layers does not count.",
        sentences,
        figures,
        {"score_vs_effect": table},
    )


def _about_controls(table: pd.DataFrame, mode: str, *, candidates: bool) -> list[str]:
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
        f"Ablated ({mode}), the heads change the log-probability of the clean number by "
        f"{with_interval(own, 'effect')} nats on {int(own['n_known'])} problems "
        f"({p_text(own['p'])}); {others}." + _floor(int(own["n_known"])),
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


def _about_dose(dose: DoseResponse) -> str:
    more = "more" if dose.area > 0 else "less"
    what = f"Ablated together, the ranking's top heads cost {abs(dose.area):.2f} nats {more}"
    if dose.keep:
        what = (
            "Kept alone while all other heads are ablated, the ranking's top heads save "
            f"{abs(dose.area):.2f} nats {more}"
        )
    return (
        f"{what} than random heads of the same layers (area between the curves {dose.area:.2f} "
        f"[{dose.low:.2f}, {dose.high:.2f}]; permutation {p_text(dose.p)} over {dose.n_random} "
        f"orders, which cannot give less than {1 / (dose.n_random + 1):.2f}). The interval is over "
        "problems, p over orders."
    )


def _about_blocks(table: pd.DataFrame, name: str) -> str:
    own, even, *foreign = table.to_dict("records")
    parts = ", ".join(
        f"{row['block']} {fixed(row['effect'], 3)} (against {OWN} {fixed(row['against_own'], 3)}, "
        f"{p_text(row['against_own_q'], 'q')}; against the even one "
        f"{fixed(row['against_even'], 3)}, {p_text(row['against_even_q'], 'q')})"
        for row in foreign
    )
    return (
        f"Under its own mean block {name} changes the clean number's log-probability by "
        f"{with_interval(own, 'effect', 3)} nats, with its mass spread evenly by "
        f"{with_interval(even, 'effect', 3)}; under foreign blocks: {parts}."
    )


def effect_rows(table: pd.DataFrame, label: str, title: str) -> tuple[list[str], list[list[str]]]:
    """A table of effects as the page shows it: titles of columns, and rows of text.

    Args:
        table: of `codi_lens.experiments.summarise`.
        label: the column that names the rows.
        title: of that column.
    """
    columns = [title, "effect, nats [95 %]", "p", "q", "accuracy [95 %]", "McNemar p"]
    columns += ["answers changed", "thoughts changed"]
    rows = []
    for row in table.to_dict("records"):
        accuracy = ""
        if np.isfinite(row["accuracy"]):
            accuracy = (
                f"{row['accuracy']:.0%} [{row['accuracy_low']:.0%}, {row['accuracy_high']:.0%}]"
            )
        rows.append(
            [
                str(row[label]),
                f"{with_interval(row, 'effect')}",
                _p(row["p"]),
                _p(row["q"]),
                accuracy,
                _p(row["mcnemar_p"]),
                f"{row['changed']:.0%}",
                f"{row['thought_change']:.2f}",
            ]
        )
    return columns, rows


def _extreme(table: pd.DataFrame, column: str, *, largest: bool) -> dict[str, Any]:
    row = table.sort_values(column, ascending=not largest).to_dict("records")[0]
    return {str(name): value for name, value in row.items()}


def _floor(n: int) -> str:
    """A warning where so few problems allow no small p (all sign patterns are 2 ** n)."""
    least = 2.0 ** (1 - n)
    return f" With {n} problems p cannot fall below {least:.2f}." if least >= 0.05 else ""


def _p(p: float) -> str:
    return p_text(p, "").removeprefix(" = ").strip() if np.isfinite(p) else ""


def _names(heads: Sequence[Head]) -> str:
    return ", ".join(map(head_name, heads))


def _pairs(table: pd.DataFrame) -> str:
    return ", ".join(f"{a}+{b}" for a, b in zip(table["a"], table["b"], strict=True)) or "none"


def _labels(table: pd.DataFrame) -> str:
    pairs = zip(table["metric"], table["view"], strict=True)
    return ", ".join(f"{metric} ({view})" for metric, view in pairs) or "none"
