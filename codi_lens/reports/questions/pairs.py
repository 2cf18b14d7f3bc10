"""Sections of the causal page about patches between problems that differ in one operand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from codi_lens.causal.effects import check_known
from codi_lens.causal.measure import Running
from codi_lens.causal.restoration import Direction, restore
from codi_lens.causal.running_totals import (
    ALONE,
    COUNTERPART,
    UNRELATED,
    UP_TO,
    carried_totals,
    operand_swaps,
    total_swaps,
)
from codi_lens.interventions.residual import Component
from codi_lens.model import CodiModel
from codi_lens.plots.causal.pairs import restoration_map, thought_swap_matrix, total_swap_matrix
from codi_lens.positions import Scope
from codi_lens.problems.pairs import Pair
from codi_lens.problems.words import WordProblem
from codi_lens.reports.pages.section import Section
from codi_lens.wording import with_interval

RESTORATION_TITLE = "Where does what differs between two problems pass?"
TOTALS, TOTALS_TITLE = "running_totals", "Which thought carries which running total?"
_TOTALS_LEAD = (
    "A thought is fed from another problem's run; later thoughts and the answer are the model's "
    "own. If the donor differs in one operand, the answer should follow it exactly where the "
    "thought's total contains that operand. If the donor is unrelated, the answer should be the "
    "donor's total after one operation, continued with the problem's own remaining operations; the "
    "donor's own answer should come out only where its remaining operations happen to do the same, "
    "as two conditions that do not hold. Intervals are Wilson's, 95 %. What a model was trained to "
    "keep in its thoughts is no discovery; its card says whether it was."
)
_NOT_MOST = "in no case shown to be most"


def restoration_section(
    model: CodiModel,
    pairs: Sequence[Pair],
    out: str | Path | None = None,
    *,
    at: Scope,
    components: Sequence[Component] = ("resid_pre", "mlp_out"),
    note: str = "",
    seed: int = 0,
    **running: Unpack[Running],
) -> Section:
    """What one layer and position brings over from a problem's counterpart, in both directions.

    Args:
        model: the model.
        pairs: as `codi_lens.causal.restoration.restore` takes them.
        out: a folder for the outcomes, one within it per component, resumable.
        at: positions, each patched by itself.
        components: points that are read and written.
        note: about these pairs, for the section's lead.
        seed: of bootstrap and permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `restore`.
    """
    tables: dict[str, pd.DataFrame] = {}
    figures: dict[str, go.Figure] = {}
    findings: list[str] = []
    for component in components:
        folder = None if out is None else Path(out) / component
        table = restore(model, pairs, at, component=component, out=folder, seed=seed, **running)
        tables[f"restoration_{component}"] = table
        for direction in get_args(Direction):
            name = f"restoration_{component}_{direction.replace(' ', '_')}"
            figures[name] = restoration_map(table, direction)
        findings += _about_restoration(table, component)
    return Section(
        "restoration",
        RESTORATION_TITLE,
        "Each problem has a counterpart that asks for another number. One layer and position of a "
        "run is replaced by the same point of the counterpart's run. The outcome is the logit "
        "difference between the two numbers, as the fraction of the way to the counterpart's run "
        "(a ratio of means over pairs, since a single pair's ratio explodes where its runs hardly "
        f"differ). Fractions of several points need not add up to 1. {note}".rstrip(),
        findings,
        figures,
        tables,
    )


def running_totals_section(
    model: CodiModel,
    pairs: Sequence[Pair],
    out: str | Path | None = None,
    *,
    note: str = "",
    seed: int = 0,
    **running: Unpack[Running],
) -> Section:
    """Which thought carries which running total.

    Args:
        model: the model.
        pairs: of `operand_pairs`, of one or several numbers of operations.
        out: a folder for the outcomes, resumable.
        note: about these pairs, for the section's lead.
        seed: of unrelated donors, bootstrap and permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `operand_swaps` and `total_swaps`.
    """
    folders = [None if out is None else Path(out) / name for name in ("operands", "totals")]
    swaps = operand_swaps(model, pairs, folders[0], seed=seed, **running)
    problems = [pair.clean for pair in pairs if isinstance(pair.clean, WordProblem)]
    totals = total_swaps(model, problems, folders[1], seed=seed, **running)
    carried = carried_totals(swaps)
    tables = {"operand_swaps": swaps, "total_swaps": totals, "carried_totals": carried}
    lead = f"{_TOTALS_LEAD} {note}".rstrip()
    if not swaps["n"].any():
        none = (
            f"The model answers none of the {len(pairs)} pairs right, so that no swap can be "
            "judged; allow longer answers, or give other problems."
        )
        return Section(TOTALS, TOTALS_TITLE, lead, [none], tables=tables)
    check_known(swaps.assign(n_known=swaps["effect"].notna()))
    rows = [
        [str(row["n_operations"]), row["thought"], _reaches(row, swaps), _yes_or_no(row["clear"])]
        for row in carried.to_dict("records")
    ]
    return Section(
        TOTALS,
        TOTALS_TITLE,
        lead,
        [*_about_operands(swaps, carried), *_about_totals(totals)],
        {
            "thought_swaps": thought_swap_matrix(swaps),
            "thought_swaps_with_all_before": thought_swap_matrix(swaps, swapped=UP_TO),
            "total_swaps": total_swap_matrix(totals),
        },
        tables,
        {
            "How far the total of each thought reaches": (
                ["operations", "thought", "carries the total after", "clear cut"],
                rows,
            )
        },
    )


def _about_restoration(table: pd.DataFrame, component: str) -> list[str]:
    findings: list[str] = []
    for direction, rows in table.groupby("direction", sort=False):
        inside = rows[rows["position"] != "question"]
        if not len(inside):
            continue
        best = inside.sort_values("fraction").iloc[-1]
        point = f"layer {best['layer']} at {best['position']}"
        whole = (
            f"of a logit difference of {best['whole']:.1f} ({best['n_known']} of {best['n']} pairs "
            "have one)"
        )
        moved = inside[(inside["q"] < 0.05) & (inside["fraction"].abs() >= 0.01)]
        found = with_interval(best, "fraction")
        findings.append(
            f"{component}, {direction}: after the question, {point} brings over most (the largest "
            f"of {len(inside)} points, chosen on the same pairs), {found} {whole}; {len(moved)} of "
            f"{len(inside)} points move at least 0.01 of it (q < 0.05), at "
            f"{', '.join(dict.fromkeys(moved['position']))}."
            if len(moved)
            else f"{component}, {direction}: after the question, none of {len(inside)} points is "
            f"shown to move 0.01 {whole} (q < 0.05); the largest, chosen on the same pairs, is "
            f"{found}, {point}."
        )
    wide = table.pivot(index=["layer", "position"], columns="direction", values="fraction")
    if wide.shape[1] == 2:
        apart = float(np.abs(np.diff(wide.to_numpy(), axis=1)).max())
        findings.append(
            f"{component}: the two directions differ by at most {apart:.2f} at any point."
        )
    return findings


def _about_operands(swaps: pd.DataFrame, carried: pd.DataFrame) -> list[str]:
    findings: list[str] = []
    single = swaps[swaps["swapped"] == ALONE]
    for n_operations, some in carried.groupby("n_operations"):
        cells = single[single["n_operations"] == n_operations].merge(
            some[["thought", "reaches", "clear"]], on="thought"
        )
        paired = cells[cells["donor"] == COUNTERPART]
        inside = (paired["operand"] <= paired["reaches"]).fillna(False).astype(bool)
        unrelated = cells[cells["donor"] == UNRELATED]
        left_out = int(paired[paired["thought"] == paired["thought"].iloc[0]]["n_wrong"].sum())
        carrying = [
            f"{row['thought']} after {row['reaches']}"
            for row in some[some["clear"]].dropna(subset="reaches").to_dict("records")
        ]
        silent = some[some["clear"] & some["reaches"].isna()]["thought"]
        unclear = some[~some["clear"]]["thought"]
        findings.append(
            f"{n_operations} operations: thoughts that carry the total after an operation: "
            f"{', '.join(carrying) or 'none'}; alone followed for no operand: "
            f"{', '.join(silent) or 'none'}; not clear cut: {', '.join(unclear) or 'none'}. "
            f"Operands within reach are followed in {_extreme(paired[inside], 'min')}, those "
            f"beyond it in {_extreme(paired[~inside], 'max')}, unrelated donors in "
            f"{_extreme(unrelated, 'max')}. Pairs left out because a clean answer is wrong: "
            f"{left_out}."
        )
    return findings


def _about_totals(totals: pd.DataFrame) -> list[str]:
    findings: list[str] = []
    for n_operations, some in totals.groupby("n_operations"):
        known = some.dropna(subset="predicted_share")
        parts = [
            f"{row['thought']} {100 * row['predicted_share']:.0f} % "
            f"[{100 * row['predicted_share_low']:.0f}, {100 * row['predicted_share_high']:.0f}] "
            f"after operation {row['operation']} (n = {row['n']})"
            for row in known[known["predicted_share_low"] > 0.5].to_dict("records")
        ]
        rest = known[known["predicted_share_low"] <= 0.5]["predicted_share"]
        highest = f" at most {100 * rest.max():.0f} %" if len(rest) else " nothing left to compare"
        findings.append(
            f"{n_operations} operations, unrelated donors: answers that are the donor's total "
            f"continued with the own operations: {'; '.join(parts) or _NOT_MOST}. All "
            f"other thoughts and operations:{highest}; chance {100 * known['chance'].mean():.1f} %."
        )
    return findings


def _extreme(rows: pd.DataFrame, which: str) -> str:
    """`at least 95 % [82, 99] (ct1, n = 40)`: the lowest or the highest cell.

    Cells are not pooled: those of several thoughts are of the same pairs.
    """
    known = rows.dropna(subset="donor_share")
    if not len(known):
        return "no swap"
    row = known.sort_values("donor_share", ascending=which == "min", kind="stable").iloc[0]
    bounds = f"[{100 * row['donor_share_low']:.0f}, {100 * row['donor_share_high']:.0f}]"
    return (
        f"at {'least' if which == 'min' else 'most'} {100 * row['donor_share']:.0f} % {bounds} of "
        f"answers ({row['thought']}, n = {row['n']})"
    )


def _reaches(carried: Mapping[Any, Any], swaps: pd.DataFrame) -> str:
    """How far a thought's total reaches; too few pairs to tell is not that it reaches nothing."""
    operation = carried["reaches"]
    if pd.isna(operation):
        if carried["clear"]:
            return "none"
        own = (swaps["donor"] == COUNTERPART) & (swaps["swapped"] == ALONE)
        for name in ("n_operations", "thought"):
            own &= swaps[name] == carried[name]
        return f"not clear (n = {swaps[own]['n'].min()})"
    return "the start" if operation == 0 else f"operation {operation}"


def _yes_or_no(clear: bool) -> str:
    return "yes" if clear else "no"
