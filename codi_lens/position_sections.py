"""The report's questions about positions: thoughts, edges between them, and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from codi_lens.experiments import compare_interventions
from codi_lens.head_sections import effect_rows
from codi_lens.hub_moves import hub_moves, hub_of
from codi_lens.interventions import knock_out, truncate_thoughts
from codi_lens.measure import Arm
from codi_lens.model import CodiModel
from codi_lens.outputs import fixed, p_text, with_interval
from codi_lens.plots.causal import edge_matrix
from codi_lens.plots.causal_page import Section
from codi_lens.plots.effects import effect_points
from codi_lens.positions import thought_names
from codi_lens.problems import Problem
from codi_lens.sweeps import sweep_edges, sweep_thoughts

THOUGHT_MODES = ("resample", "mean", "zero", "noise")


def thoughts_section(
    model: CodiModel, problems: Sequence[Problem], out: Path, *, seed: int, **running: Any
) -> Section:
    """Every thought replaced in every mode, and thinking cut short after every thought."""
    settings: dict[str, Any] = {"seed": seed, **running}
    table = sweep_thoughts(model, problems, THOUGHT_MODES, out / "replaced", **settings)
    n = model.config.n_thoughts
    cuts: dict[str, Arm] = {f"first {k} of {n}": truncate_thoughts(k) for k in range(n)}
    short = compare_interventions(model, problems, cuts, out / "cut_short", **settings)
    own = table[table["mode"] == "resample"]
    needed = own[(own["q"] < 0.05) & (own["effect"] < 0)]
    effects = ", ".join(
        f"{row['thought']} {with_interval(row, 'effect')}" for row in own.to_dict("records")
    )
    enough = short[short["effect_low"] > -0.1]["arm"].tolist()
    sentences = [
        "With another problem's thought in its place the clean number's log-probability changes by "
        f"{effects} nats; {len(needed)} of {n} with q < 0.05.",
        _about_modes(table),
        f"Thinking can end early without losing more than 0.1 nats (lower end of the interval): "
        f"{', '.join(enough) or 'nowhere'}.",
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
    model: CodiModel, problems: Sequence[Problem], out: Path, *, seed: int, **running: Any
) -> Section:
    """Every edge cut in all heads, one at a time, and all edges between thoughts at once."""
    settings: dict[str, Any] = {"seed": seed, **running}
    table = sweep_edges(model, problems, out=out / "edges", **settings)
    n = model.config.n_thoughts
    thoughts = thought_names(n)
    groups: dict[str, Arm] = {
        "between thoughts": [
            knock_out(query, list(thoughts[:i]), None) for i, query in enumerate(thoughts) if i
        ],
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
    together = compare_interventions(model, problems, groups, out / "groups", **settings)
    found = table[(table["q"] < 0.05) & (table["effect"] < 0)].sort_values("effect")
    first = ", ".join(
        f"{row['query']} → {row['key']} {fixed(row['effect'])}"
        for row in found.head(5).to_dict("records")
    )
    between: Any = together.set_index("arm").loc["between thoughts"]
    words = together[(together["effect"].abs() < 0.1) & (together["changed"] > 0.1)]
    sentences = [
        f"Of {len(table)} single edges, {len(found)} are needed (q < 0.05): {first or 'none'}.",
        "With all attention from thoughts to earlier thoughts cut in every head, the "
        f"log-probability changes by {with_interval(between, 'effect', 3)} nats "
        f"({p_text(between['p'])}): a thought is also passed on as "
        "the very vector that the next step starts from, which no edge carries.",
    ]
    for row in words.to_dict("records"):
        sentences.append(
            f"Cutting {row['arm']} changes {row['changed']:.0%} of the answers and yet not the "
            f"number's log-probability ({with_interval(row, 'effect')} nats), which is scored "
            "after the words of the clean answer: it changes which words come before the number."
        )
    return Section(
        "edges",
        "Which attention between positions does the answer need?",
        "An edge is cut before the softmax in all heads, and the rest of the row grows to sum to "
        "1. The later positions follow from what the query then computes.",
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
    **running: Any,
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
    hub, share = hub_of(attention)
    table = hub_moves(model, problems, hub, share, out, seed=seed, **running)
    own: Any = table[(table["what"] == "cut") & (table["thought"] == hub)].iloc[0]
    moved = table[table["what"] == "exchanged"]
    forced = table[(table["what"] == "forced") & (table["thought"] != hub)]
    sentences = [
        f"The strongest hub is {hub}: later thoughts give it {share:.1%} of their attention on "
        f"average. Cut off from them, it changes the clean number's log-probability by "
        f"{with_interval(own, 'effect', 3)} nats "
        f"({p_text(own['q'], 'q')}).",
        _about_moves("Exchanging its column with another thought's", moved),
        _about_moves(f"Forcing another thought to get its {share:.1%}", forced),
    ]
    drawn = table.assign(what=table["what"].map(_DONE))
    return Section(
        "hub",
        "Is the hub position necessary, and can it be moved?",
        "The hub is the thought with the highest ratio of received attention to what the causal "
        "mask alone gives, on other problems. In all heads, the queries of later thoughts lose "
        "each thought in turn; exchange the hub's column with each other thought's; and are "
        "forced to give each thought the hub's share.",
        sentences,
        {
            "hub": effect_points(
                drawn,
                "thought",
                "what",
                title=f"The hub {hub}, cut off, moved and forced",
                subtitle="mean change of the clean number's log-probability, with 95 % intervals",
            )
        },
        {"hub": table},
    )


_DONE = {
    "cut": "cut off from later thoughts",
    "exchanged": "exchanged with the hub",
    "forced": "forced to the hub's share",
}


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
