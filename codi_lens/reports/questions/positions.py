"""The report's questions about positions: thoughts, edges between them, and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import pandas as pd
import xarray as xr

from codi_lens.causal.arms import Arm
from codi_lens.causal.effects import check_known, compare_interventions, needed
from codi_lens.causal.hub_moves import Hub, check_hub_question, hub_moves, hub_of
from codi_lens.causal.means import MIN_EFFECT
from codi_lens.causal.measure import Running
from codi_lens.causal.sweeps import sweep_edges, sweep_thoughts
from codi_lens.interventions.edges import knock_out
from codi_lens.interventions.thoughts import truncate_thoughts
from codi_lens.model import CodiModel
from codi_lens.plots.causal.effects import effect_points
from codi_lens.plots.causal.maps import edge_matrix
from codi_lens.positions import thought_names
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import about_strata, effect_rows, rule, shown_beyond
from codi_lens.wording import count, fixed, p_text, with_interval

HUB_TITLE = "Is the hub position necessary, and can it be moved?"
_DONE = {
    "cut": "cut off from later thoughts",
    "exchanged": "exchanged with it",
    "forced": "forced to its share",
}
BETWEEN = "between thoughts"
THOUGHT_MODES = ("resample", "mean", "zero", "noise")
ENOUGH_PROBLEMS = 20
"""From so many problems on is anything said of answers that differ at an unchanged number."""
LITTLE = 0.1
"""A share of the attention below which forcing it is called little."""


def thoughts_section(
    model: CodiModel,
    problems: Sequence[Problem],
    out: Path,
    *,
    min_effect: float | int = MIN_EFFECT,
    seed: int,
    **running: Unpack[Running],
) -> Section:
    """Every thought replaced in every mode, and thinking cut short after every thought."""
    settings: dict[str, Any] = {"min_effect": min_effect, "seed": seed, **running}
    table = sweep_thoughts(model, problems, THOUGHT_MODES, out / "replaced", **settings)
    check_known(table)
    n = model.config.n_thoughts
    cuts: dict[str, Arm] = {f"first {k} of {n}": truncate_thoughts(k) for k in range(n)}
    short = compare_interventions(model, problems, cuts, out / "cut_short", **settings)
    own = table[table["mode"] == "resample"]
    effects = ", ".join(
        f"{row['thought']} {with_interval(row, 'effect')}" for row in own.to_dict("records")
    )
    enough = short[short["effect_low"] > -min_effect]["arm"].tolist()
    sentences = [
        "With another problem's thought in its place the clean number's log-probability changes by "
        f"{effects} nats; {len(needed(own))} of {n} are needed ({shown_beyond(own)}).",
        about_strata(own, "thought"),
        _about_modes(table),
        f"Thinking can end early without losing more than {min_effect:g} nats (lower end of the "
        f"interval): {', '.join(enough) or 'nowhere'}.",
    ]
    return Section(
        "thoughts",
        "Which thoughts does the answer need?",
        "Each thought is replaced as it is fed: by another problem's (resample), the mean thought, "
        "zero, or noise of the same length; the last two never occur in a run. Later thoughts "
        "follow from the replaced one. Then thinking ends after the first thoughts.",
        sentences,
        {
            "thoughts": effect_points(
                table,
                "thought",
                "mode",
                title="What each thought is needed for",
                subtitle="mean change of the clean number's log-probability, with 95 % intervals",
            ),
            "cut_short": effect_points(
                short, "arm", title="How many thoughts are enough?", subtitle="eot follows the last"
            ),
        },
        {"thoughts": table, "cut_short": short},
        {"Replaced by another problem's": effect_rows(own, "thought", "thought")},
    )


def edges_section(
    model: CodiModel,
    problems: Sequence[Problem],
    out: Path,
    *,
    min_effect: float | int = MIN_EFFECT,
    seed: int,
    **running: Unpack[Running],
) -> Section:
    """Every edge cut in all heads, one at a time, and all edges between thoughts at once."""
    settings: dict[str, Any] = {"min_effect": min_effect, "seed": seed, **running}
    table = sweep_edges(model, problems, out=out / "edges", **settings)
    check_known(table)
    thoughts = thought_names(model.config.n_thoughts)
    between = [knock_out(query, list(thoughts[:i])) for i, query in enumerate(thoughts) if i]
    groups: dict[str, Arm] = {BETWEEN: between} if between else {}
    groups |= {
        "thoughts → question": knock_out("thoughts", "question"),
        "thoughts → bot": knock_out("thoughts", "bot"),
        "eot → thoughts": knock_out("eot", "thoughts"),
        "eot → question": knock_out("eot", "question"),
        "answer → thoughts": knock_out("answer", "thoughts"),
        "answer → question": knock_out("answer", "question"),
        "eot and answer → thoughts": [
            knock_out("eot", "thoughts"),
            knock_out("answer", "thoughts"),
        ],
        "eot and answer → question": [
            knock_out("eot", "question"),
            knock_out("answer", "question"),
        ],
    }
    lacking = [] if thoughts else ["thoughts"]
    lacking += ["eot"] if model.config.written else []
    groups = {n: arm for n, arm in groups.items() if not any(each in n for each in lacking)}
    together = compare_interventions(model, problems, groups, out / "groups", **settings)
    sentences = [about_edges(table), *about_groups(together)]
    return Section(
        "edges",
        "Which attention between positions does the answer need?",
        "An edge is cut before the softmax in all heads, and the rest of the row grows to sum to "
        f"1. The later positions follow from what the query then computes. {rule(table)}",
        sentences,
        {
            "edges": edge_matrix(table),
            "edge_groups": effect_points(
                together,
                "arm",
                title="Many edges cut at once",
                subtitle="query → key, in all heads",
            ),
        },
        {"edges": table, "edge_groups": together},
        {"Many edges cut at once": effect_rows(together, "arm", "edges")},
    )


def hub_section(
    model: CodiModel,
    problems: Sequence[Problem],
    attention: xr.DataArray,
    out: Path,
    *,
    seed: int,
    **running: Unpack[Running],
) -> Section:
    """Whether the hub position is necessary, and whether it can be moved.

    Args:
        model: the model.
        problems: to intervene on.
        attention: of other problems; its strongest hub is taken.
        out: for the outcomes.
        seed: of bootstrap and permutations.
        running: see `measure`.
    """
    check_hub_question(model)
    hub = hub_of(attention, seed=seed)
    table = hub_moves(model, problems, hub.thought, hub.share, out, seed=seed, **running)
    check_known(table)
    own: Any = table[(table["what"] == "cut") & (table["thought"] == hub.thought)].iloc[0]
    moved = table[table["what"] == "exchanged"]
    forced = table[(table["what"] == "forced") & (table["thought"] != hub.thought)]
    little = ", which is little and can show little," if hub.share < LITTLE else ""
    sentences = [
        about_hub(hub),
        f"{hub.thought} cut off from later thoughts changes the clean number's log-probability by "
        f"{with_interval(own, 'effect', 3)} nats ({p_text(own['q'], 'q')}).",
        _about_moves("Exchanging its column with another thought's", moved),
        _about_moves(f"Forcing another thought to get its {hub.share:.1%}{little}", forced),
    ]
    name = "hub" if hub.significant else "most attended thought"
    drawn = table.assign(what=table["what"].map(_DONE))
    return Section(
        "hub",
        HUB_TITLE,
        "Asked about is the thought with the highest ratio of received attention to what the "
        "causal mask alone gives, on other problems. In all heads, the queries of later thoughts "
        "lose each thought in turn; exchange its column with each other thought's; and are forced "
        "to give each thought its share.",
        sentences,
        {
            "hub": effect_points(
                drawn,
                "thought",
                "what",
                title=f"The {name} {hub.thought}, cut off, moved and forced",
                subtitle="mean change of the clean number's log-probability, with 95 % intervals",
            )
        },
        {"hub": table, "hub_ratio": pd.DataFrame([asdict(hub)])},
    )


def about_hub(hub: Hub) -> str:
    """Which thought is asked about, and whether a test calls it a hub.

    >>> about_hub(Hub("ct1", 0.5, 2.0, 1.9, 2.1, 0.017, 0.017, 40)).partition(";")[0]
    'By a permutation test over positions ct1 is a hub: averaged over all heads and 40 distinct \
problems, it gets 2.00 [1.90, 2.10] times what the causal mask alone gives it (interval for all \
thoughts at once), more than an even spread and smooth primacy explain (p = 0.017)'
    """
    known = hub.low == hub.low
    value = (
        f"{fixed(hub.ratio)} [{fixed(hub.low)}, {fixed(hub.high)}]"
        if known
        else (f"{fixed(hub.ratio)} (one problem has no interval)")
    )
    over = f"averaged over all heads and {count(hub.n, 'distinct problem')}"
    times = f"{value} times what the causal mask alone gives it"
    times += " (interval for all thoughts at once)" if known else ""
    share = f"; later thoughts give it {hub.share:.1%} of their attention on average."
    if hub.significant:
        return (
            f"By a permutation test over positions {hub.thought} is a hub: {over}, it gets "
            f"{times}, more than an even spread and smooth primacy explain ({p_text(hub.p)}){share}"
        )
    text = (
        f"The most attended thought is {hub.thought}: {over}, it gets {times}{share} By a "
        "permutation test over positions, against an even spread and smooth primacy, no thought is "
        f"a hub ({p_text(hub.p)} for {hub.thought}); the most attended one is asked about all the "
        "same."
    )
    if not hub.p_smallest < 0.05:
        text += (
            f" So few thoughts come after {hub.thought} that no pattern could give it a p below "
            f"{hub.p_smallest:.3f}."
        )
    return text


def about_edges(table: pd.DataFrame) -> str:
    """How many single edges are needed, and the dearest of them."""
    found = needed(table).sort_values("effect")
    first = ", ".join(
        f"{row['query']} → {row['key']} {fixed(row['effect'])}"
        for row in found.head(5).to_dict("records")
    )
    verb = "is" if len(found) == 1 else "are"
    return (
        f"Of {count(len(table), 'single edge')}, {len(found)} {verb} needed "
        f"({shown_beyond(table)}): {first or 'none'}."
    )


def about_groups(together: pd.DataFrame) -> list[str]:
    """What many edges cut at once do to the number, and to the answers that the model writes."""
    sentences: list[str] = []
    for row in together[together["arm"] == BETWEEN].to_dict("records"):
        sentence = (
            "With all attention from thoughts to earlier thoughts cut in every head, the "
            f"log-probability changes by {with_interval(row, 'effect', 3)} nats "
            f"({p_text(row['p'])}, n = {row['n_known']})"
        )
        if row["effect_low"] > -row["min_effect"]:
            sentence += (
                ": a thought is also passed on as the very vector that the next step starts from, "
                "which no edge carries"
            )
        sentences.append(f"{sentence}.")
    least = together["min_effect"]
    unchanged = together["effect_low"].gt(-least) & together["effect_high"].lt(least)
    enough = together["n_known"] >= ENOUGH_PROBLEMS
    for row in together[unchanged & enough & (together["changed_low"] > 0.1)].to_dict("records"):
        sentences.append(
            f"With {row['arm']} cut, the number's log-probability after the words of the clean "
            f"answer is unchanged ({with_interval(row, 'effect', 3)} nats, n = {row['n_known']}); "
            f"the answers that the model then writes by itself hold another number in "
            f"{row['changed']:.0%} [{row['changed_low']:.0%}, {row['changed_high']:.0%}] of "
            f"{row['n']} problems."
        )
    return sentences


def _about_moves(what: str, table: pd.DataFrame) -> str:
    found = table[table["q"] < 0.05]
    return (
        f"{what} changes it by {fixed(table['effect'].min(), 3)} to "
        f"{fixed(table['effect'].max(), 3)} nats ({len(found)} of {len(table)} with q < 0.05)."
    )


def _about_modes(table: pd.DataFrame) -> str:
    parts = [
        f"{mode} {fixed(some['effect'].mean())}" for mode, some in table.groupby("mode", sort=False)
    ]
    return f"Averaged over the thoughts, by mode: {', '.join(parts)} nats."
