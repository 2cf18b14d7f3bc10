"""The report's question about patterns: does a head do another's work with its thought block?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from codi_lens.causal.measure import Running
from codi_lens.causal.transplants import OWN, mean_block, stand_ins, transplants
from codi_lens.head_names import Head, head_name
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.plots.causal.effects import effect_points
from codi_lens.positions import Scope, scope_name
from codi_lens.problems.problem import Problem
from codi_lens.reports.pages.section import Section
from codi_lens.reports.questions.wording import extreme_row
from codi_lens.wording import fixed, p_text, with_interval

TRANSPLANTS, TRANSPLANTS_TITLE = "transplants", "Does a transplanted pattern carry function?"


def transplant_section(
    model: CodiModel,
    problems: Sequence[Problem],
    attention: xr.DataArray,
    head: Head,
    ranking: Sequence[Head],
    out: Path,
    *,
    foreign: Mapping[str, np.ndarray],
    mode: Mode,
    at: Scope,
    seed: int,
    **running: Unpack[Running],
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
    name = head_name(head)
    findings = [_about_blocks(given, name)]
    figures = {"transplants": _blocks_figure(given, name)}
    tables = {"transplants": given}
    others = [(head[0], other) for other in range(model.lens.cfg.n_heads) if other != head[1]]
    if others:
        settings: dict[str, Any] = {"mode": mode, "at": at, "seed": seed, **running}
        taken = stand_ins(model, problems, head, own, others, out / "stand_ins", **settings)
        findings.append(_about_stand_ins(taken, f"{name} ablated at {scope_name(at)}"))
        figures["stand_ins"] = _stand_ins_figure(taken, name)
        tables["stand_ins"] = taken
    return Section(
        TRANSPLANTS,
        TRANSPLANTS_TITLE,
        "A thought block is what each thought gives to itself and to earlier thoughts, averaged "
        f"over other problems. {name} gets its own mean block, the same mass spread evenly, and "
        "other heads' blocks: a block that fits costs less than the even one. Then "
        f"{name} is ablated, and each other head of its layer gets its block.",
        findings,
        figures,
        tables,
    )


def nothing_to_transplant(n: int, min_effect: float | int) -> Section:
    """The section where none of `n` heads matters alone: then no pattern can carry a function.

    Args:
        n: how many heads were ablated alone, on other problems.
        min_effect: the least effect of interest, in nats.
    """
    return Section(
        TRANSPLANTS,
        TRANSPLANTS_TITLE,
        "A head whose ablation costs something would get other heads' thought blocks, and give its "
        "own.",
        [
            f"Of the {n} top-ranked heads, none is needed when ablated alone (more than "
            f"{min_effect:g} nats lost, q < 0.05), so there is no function to carry."
        ],
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


def _about_stand_ins(table: pd.DataFrame, what: str) -> str:
    better = (table["made_up"] > 0) & (table["over_even"] > 0)
    helping = table[better & (table["q"] < 0.05) & (table["over_even_q"] < 0.05)]
    best = extreme_row(table, "made_up", largest=True)
    return (
        f"With {what} ({fixed(best['ablated'])} nats), {len(helping)} of "
        f"{len(table)} heads of its layer make up for some of it when they get its block, and "
        "more so than with the same mass spread evenly (q < 0.05 each); the most is "
        f"{with_interval(best, 'made_up')} ({best['name']}, chosen on the same problems)."
    )


def _blocks_figure(table: pd.DataFrame, name: str) -> go.Figure:
    return effect_points(
        table,
        "block",
        title=f"{name} under other heads' thought blocks",
        subtitle="its queries are the thoughts; each row's attention to question and bot is "
        "rescaled",
    )


def _stand_ins_figure(table: pd.DataFrame, name: str) -> go.Figure:
    return effect_points(
        table,
        "name",
        column="made_up",
        title=f"Who makes up for {name} with its block?",
        subtitle=f"{name} is ablated, and another head of its layer attends among the thoughts "
        "as it did",
        axis="made up (nats)",
    )
