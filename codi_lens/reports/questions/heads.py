"""The report's questions about every head: the sweep, and attribution."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import pandas as pd

from codi_lens.causal.agreement import Agreement, compare_with_exact
from codi_lens.causal.attribution import (
    IncompleteAttributionWarning,
    attribute_heads,
    attribute_thoughts,
)
from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import needed
from codi_lens.causal.gradients import Method
from codi_lens.causal.measure import Running
from codi_lens.causal.path import Refining
from codi_lens.causal.sweeps import sweep_thoughts
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.plots.causal.attribution import attribution_scatter, thought_attributions_figure
from codi_lens.plots.causal.maps import causal_map
from codi_lens.positions import Scope, scope_name
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import (
    about_spread,
    about_strata,
    effect_rows,
    extreme_row,
    rule,
    shown_beyond,
    smallest_p,
)
from codi_lens.wording import fixed, percent, with_bounds, with_interval

_SHOWN = 12  # heads in the page's table; heads.csv has all
_FEWEST = 3  # a correlation needs so many thoughts
NAMES: dict[Method, str] = {
    "patching": "attribution patching",
    "integrated": "integrated gradients",
}


def attribution_section(
    model: CodiModel,
    problems: Sequence[Problem],
    effects: pd.DataFrame,
    out: str | Path | None = None,
    *,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    max_steps: int = Refining.max_steps,
    seed: int = 0,
    **running: Unpack[Running],
) -> Section:
    """Attribute heads and thoughts in both ways, and hold them against what was measured.

    Args:
        model: the model.
        problems: those that `effects` were measured on.
        effects: of `sweep_heads`, of all heads, with the same mode, positions, donors and seed.
        out: a folder for the outcomes of the thoughts, and in it for attributions, resumable.
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values replace the heads'; by default the problems themselves.
        max_steps: points of the path of integrated gradients, at most, for each problem.
        seed: of donors, bootstrap and permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `attribute_heads` and `compare_with_exact`.

    >>> from codi_lens.problems import word_problems
    >>> from codi_lens.causal.sweeps import sweep_heads
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(4)
    >>> effects = sweep_heads(model, some, progress=False)
    >>> attribution_section(model, some, effects, max_steps=16, progress=False).title
    'Does attribution predict the sweep?'
    """
    donors = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    shared: dict[str, Any] = {"donors": donors, "max_steps": max_steps, "seed": seed, **running}
    measured = sweep_thoughts(model, problems, [mode], out, donors=donors, seed=seed, **running)
    heads: dict[str, pd.DataFrame] = {}
    thoughts: dict[str, pd.DataFrame] = {}
    agreements: dict[str, Agreement] = {}
    findings: list[str] = []
    for method, name in NAMES.items():
        asked: dict[str, Any] = {"method": method, **shared}
        kept = (_within(out, f"heads-{method}"), _within(out, f"thoughts-{method}"))
        with warnings.catch_warnings():  # the section says it
            warnings.simplefilter("ignore", IncompleteAttributionWarning)
            heads[name] = attribute_heads(model, problems, mode=mode, at=at, out=kept[0], **asked)
            thoughts[name] = attribute_thoughts(model, problems, [mode], out=kept[1], **asked)
        top = min(5, len(heads[name]))
        agreements[name] = compare_with_exact(heads[name], effects, top=top, seed=seed)
        findings.append(_about(f"{name} at {scope_name(at)}", agreements[name]))
        if len(measured) >= _FEWEST:
            findings.append(_about_thoughts(name, thoughts[name], measured, seed))
    figures = {
        f"attribution_{method}": attribution_scatter(
            heads[name], effects, agreements[name].overall, method=name
        )
        for method, name in NAMES.items()
    }
    figures["attribution_thoughts"] = thought_attributions_figure(thoughts, measured, mode)
    tables = {f"attribution_heads_{key}": heads[name] for key, name in NAMES.items()}
    tables |= {f"attribution_thoughts_{key}": thoughts[name] for key, name in NAMES.items()}
    return Section(
        name="attribution",
        title="Does attribution predict the sweep?",
        lead=f"Every head is attributed the effect of replacing it ({mode}) at {scope_name(at)}, "
        "from gradients through all thoughts: at the clean run (attribution patching), and as "
        "the mean on the way to replacing all heads together (integrated gradients). The sweep "
        "replaces one head at a time, by the same values.",
        findings=[*findings, _completeness(heads[NAMES["integrated"]], max_steps)],
        figures=figures,
        tables=tables | {"attribution_thoughts_measured": measured},
        shown={f"Most missed by {name}": _missed(found) for name, found in agreements.items()},
    )


def _missed(found: Agreement) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rows = found.units.head(5).to_dict("records")
    columns = ("head", "estimated (nats)", "measured (nats)")
    return columns, [(r["name"], fixed(r["attribution"], 3), fixed(r["effect"], 3)) for r in rows]


def _within(out: str | Path | None, name: str) -> Path | None:
    return None if out is None else Path(out) / name


def _completeness(heads: pd.DataFrame, max_steps: int) -> str:
    """Whether integrated gradients sum to what they divide among the heads."""
    row = heads.iloc[0]
    complete, known = int(row["n_complete"]), int(row["n_known"])
    text = (
        f"The integrated gradients of {complete} of {known} problems sum to the effect of "
        f"replacing all heads together, to {percent(Refining.tolerance, 0)} or "
        f"{Refining.tolerance:g} nats; the largest gap is {row['largest_gap']:.2f} nats."
    )
    if complete < known:
        text += (
            f" The others had not converged after {max_steps} points, so that heads should not be "
            "ranked by integrated gradients here."
        )
    return text


def _about(name: str, found: Agreement) -> str:
    within = ""
    if found.within is not None:
        within = (
            f", within layers {with_bounds(found.within.rho, found.within.low, found.within.high)}"
        )
    signs = ""
    if found.n_effects:
        share = f"{100 * found.same_sign_effects:.0f} %"
        signs = f" It has the sign of {share} of the {found.n_effects} effects that matter."
    return (
        f"Heads, {name}: Spearman ρ = "
        f"{with_bounds(found.overall.rho, found.overall.low, found.overall.high)}"
        f"{within}; Pearson {fixed(found.pearson)}; {found.shared} of the "
        f"{found.top} largest effects are among its {found.top} largest estimates.{signs}"
    )


def _about_thoughts(name: str, attributions: pd.DataFrame, effects: pd.DataFrame, seed: int) -> str:
    found = compare_with_exact(attributions, effects, top=1, seed=seed)
    worst = found.units.iloc[0]
    return (
        f"Thoughts, {name}: Pearson {fixed(found.pearson)} over {found.overall.n} thoughts; the "
        f"most missed is {worst['thought']}, estimated {fixed(worst['attribution'])} nats, "
        f"measured {fixed(worst['effect'])}."
    )


def sweep_section(effects: pd.DataFrame, mode: str) -> Section:
    """Every head alone.

    Args:
        effects: of `sweep_heads`, of all heads.
        mode: of that sweep.
    """
    table = effects.sort_values("effect", ignore_index=True)
    where, found = table["scope"].iloc[0], needed(table)
    names, n_known = ", ".join(found["name"]) or "none", int(effects["n_known"][0])
    sentences = [
        f"Of {len(table)} heads, {len(found)} are needed at {where} ({mode}; "
        f"{shown_beyond(table)}; {n_known} problems): {names}." + smallest_p(n_known),
        about_spread(table.iloc[0], "name"),
    ]
    others = table[~table["matters"].astype(bool)]
    if len(others):
        reaching = extreme_row(others, "effect_low", largest=False)
        sentences.append(
            f"The other {len(others)} are not shown to be needless: their intervals reach down to "
            f"{fixed(reaching['effect_low'])} nats ({reaching['name']})."
        )
    sentences.append(about_strata(table, "name"))
    return Section(
        "heads",
        "Which heads does the answer need?",
        f"Each head is ablated alone ({mode}) at {where}. {rule(table)}",
        sentences,
        {"causal_map": causal_map(effects)},
        {"heads": table},
        {_numbers_of(len(table)): effect_rows(table.head(_SHOWN), "name", "head")},
    )


def _numbers_of(n: int) -> str:
    """What the table of effects is called, which may hold the first rows only."""
    if n <= _SHOWN:
        return "In numbers"
    return f"In numbers: {_SHOWN} of {n} heads, those with the largest losses"


def positions_section(effects: pd.DataFrame, pooled: str, mode: str) -> Section:
    """Every head alone at every single position, beside the scope that pools some of them.

    Args:
        effects: of `sweep_heads`, of all heads, in several scopes.
        pooled: the scope that all other sections are about.
        mode: of that sweep.
    """
    scopes = {str(name): some for name, some in effects.groupby("scope", sort=False)}
    where = {name: needed(some).sort_values("effect") for name, some in scopes.items()}
    counts = ", ".join(f"{name} {len(found)}" for name, found in where.items() if name != pooled)
    sums = ", ".join(
        f"{name} {fixed(some['effect'].sum())}" for name, some in scopes.items() if name != pooled
    )
    n_heads = effects["name"].nunique()
    together = fixed(scopes[pooled]["effect"].sum())
    rows = [
        [
            name,
            str(len(where[name])),
            ", ".join(where[name]["name"]) or "none",
            f"{fixed(some['effect'].sum())}",
            "{name} ".format_map(strongest := extreme_row(some, "effect", largest=False))
            + with_interval(strongest, "effect"),
        ]
        for name, some in scopes.items()
    ]
    return Section(
        "positions",
        "Where in a run is each head needed?",
        f"Each head is ablated alone ({mode}) at one position at a time. What a head does at "
        f"several positions need not add up, so that {pooled} is not the sum of its positions. "
        "What matters is found among the heads at one position.",
        [
            f"Of {n_heads} heads, {len(where[pooled])} are needed at {pooled} "
            f"({shown_beyond(effects)}); at single positions: {counts}.",
            f"Summed over all heads, ablation at {pooled} changes the clean number's "
            f"log-probability by {together} nats; at single positions: {sums}.",
        ],
        {"causal_map_by_position": causal_map(effects)},
        {"heads_by_position": effects},
        {
            "In numbers": (
                ("ablated at", "needed", "heads", "sum over heads, nats", "strongest [95 %]"),
                rows,
            )
        },
    )
