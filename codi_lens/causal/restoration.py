"""Restoration: what a patch at one layer and position brings over from a problem's counterpart.

Two runs that differ in one operand end in two numbers. One point of one run is replaced by the
same point of the other; how far the logit difference between the two numbers moves to the other
run's says how much of what differs passes through that point (causal tracing; Vig et al. 2020,
Meng et al. 2022, "Locating and editing factual associations in GPT").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Unpack, get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from codi_lens.causal.arms import Arm
from codi_lens.causal.means import mean_test
from codi_lens.causal.measure import CLEAN, Running, measure
from codi_lens.errors import InterventionError, PositionError, check_choice
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.residual import (
    Component,
    check_layers,
    fraction_recovered,
    patch_residual,
)
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.pairs import Pair, Pairs, both_problems, pair_list
from codi_lens.problems.problem import Problem
from codi_lens.stats import benjamini_hochberg, percentile_interval, resample_weights
from codi_lens.thinking.prompts import positions_in, prepare_problems, questions_of

Direction = Literal["clean into corrupted", "corrupted into clean"]


def restore(
    model: CodiModel,
    pairs: Pairs,
    at: Scope | Mapping[str, Scope] = "thinking",
    layers: Sequence[int] | None = None,
    component: Component = "resid_pre",
    out: str | Path | None = None,
    *,
    direction: Direction | None = None,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Patch one layer and position at a time with the counterpart's value at the very same point.

    The logit difference is between the first tokens of the two numbers that the clean runs of a
    pair give, read where the patched run's number is written. Its fraction recovered is that of
    `codi_lens.interventions.fraction_recovered` (Wang et al. 2022, "Interpretability in the wild"):
    0, the patched run is as before; 1, it is as the run whose value was put in. It is pooled, a
    ratio of means over pairs, because the ratio of a single pair explodes where its two runs hardly
    differ; the interval resamples pairs.

    Args:
        model: the model.
        pairs: of `operand_pairs`, or your own. Question tokens are matched by their
            distance from `bot`, so patches of "question" need the two questions of every pair to
            have equally many (see `unequal_pairs`).
        at: positions, each patched by itself; or names of your own for positions patched together.
        layers: from 0; all by default.
        component: "resid_pre", "resid_post", "mlp_out" or "attn_out".
        out: a folder for the outcomes, resumable.
        direction: "clean into corrupted" (restoration) patches the counterparts with values of the
            clean problems, "corrupted into clean" the other way round. None gives both; they are
            measured together in any case.
        level: of the intervals.
        seed: of the bootstrap.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per direction, layer and position: `fraction` with its bootstrap interval `_low`,
        `_high`; `whole`, the mean logit difference between the two runs of a pair that it is a
        fraction of; `shift`, the mean part of it that the patch moved, with its interval and `p`
        (see `mean_test`), `q` over the rows (Benjamini-Hochberg); `n` pairs,
        `n_known` of them with a logit difference (both runs give a number, and the two begin with
        different tokens).

    Raises:
        InterventionError: an unknown direction or component, or no pair with a logit difference.
        PositionError: a position or layer that does not exist, "answer", whose tokens have no
            counterpart, or "question" where the questions of a pair differ in length.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems.pairs import operand_pairs
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = restore(model, operand_pairs(4), "question", [0], progress=False)
    >>> table[["direction", "fraction"]].round(3).values.tolist()
    [['clean into corrupted', 1.0], ['corrupted into clean', 1.0]]
    """
    check_seed(seed)
    if direction is not None:
        check_choice("direction", direction, Direction)
    pairs = pair_list(pairs)
    problems = both_problems(pairs)
    places = check_places(model, at)
    chosen = list(range(model.lens.cfg.n_layers)) if layers is None else list(layers)
    check_layers(chosen, model.lens.cfg.n_layers)
    groups = {"question"} & {name for each in places.values() for name in positions_in(model, each)}
    if groups:
        check_lengths(model, pairs)
    partner = {pair.clean.id: pair.corrupted.id for pair in pairs}
    partner |= {mine: clean for clean, mine in partner.items()}
    donors = Donors(model, problems, seed=seed).paired(partner)
    cells = [(layer, place) for layer in chosen for place in places]
    patches = [
        patch_residual(layer, places[place], "resample", component, donors, seed)
        for layer, place in cells
    ]
    arms: dict[str, Arm] = {patch.name: patch for patch in patches}
    if len(arms) < len(patches) or not arms:
        raise InterventionError("restore needs layers and positions, and each of them once.")
    hook_names = [f"blocks.{layer}.hook_{component}" for layer in chosen]
    donors.prepare(hook_names, sorted(groups), later=True)
    outcomes = measure(model, problems, arms, out, rivals=partner, **running)
    wide = outcomes.pivot(index="problem", columns="arm", values="logit_difference")
    labels = pd.DataFrame(cells, columns=["layer", "position"]).assign(component=component)
    tables = []
    directions: Sequence[Direction] = get_args(Direction) if direction is None else [direction]
    for name in directions:
        values = _differences(wide, pairs, name, list(arms))
        found = pd.concat([labels, _recovered(*values, level=level, seed=seed)], axis=1)
        found.insert(0, "direction", name)
        tables.append(found)
    table = pd.concat(tables, ignore_index=True)
    table["q"] = benjamini_hochberg(table["p"].to_numpy(dtype=float))
    return table


def _differences(
    wide: pd.DataFrame, pairs: Sequence[Pair], direction: Direction, arms: Sequence[str]
) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"], Float[np.ndarray, "pair cell"]]:
    """Logit differences of the patched runs before, as they should become, and after.

    As the patched run's own number over the other: a source run has it the other way round.
    """
    into = [pair.corrupted.id for pair in pairs]
    source = [pair.clean.id for pair in pairs]
    if direction == "corrupted into clean":
        into, source = source, into
    before = wide.loc[into, CLEAN].to_numpy(dtype=float)
    goal = -wide.loc[source, CLEAN].to_numpy(dtype=float)
    return before, goal, wide.loc[into, arms].to_numpy(dtype=float)


def _recovered(
    before: Float[np.ndarray, " pair"],
    goal: Float[np.ndarray, " pair"],
    after: Float[np.ndarray, "pair cell"],
    *,
    level: float,
    seed: int,
) -> pd.DataFrame:
    known = np.isfinite(before) & np.isfinite(goal) & np.isfinite(after).all(axis=1)
    if not known.any():
        raise InterventionError(
            "No pair has a logit difference: the clean runs of a pair must give two answers that "
            "begin with different tokens."
        )
    n, before, goal, after = len(before), before[known], goal[known], after[known]
    weights = np.concatenate(
        [np.full((1, len(before)), 1 / len(before)), resample_weights(len(before), seed=seed)]
    )
    fractions = fraction_recovered(
        *(torch.as_tensor(weights @ values) for values in (goal[:, None], before[:, None], after))
    ).numpy()
    low, high = percentile_interval(fractions[1:], level=level)
    moved = before[:, None] - after
    shift = mean_test(moved, level=level)
    return pd.DataFrame(
        {"n": n, "n_known": len(before), "fraction": fractions[0]}
        | {"fraction_low": low, "fraction_high": high}
        | {"whole": float((before - goal).mean())}
        | {"shift": shift.mean, "shift_low": shift.low, "shift_high": shift.high, "p": shift.p}
    )


def unequal_pairs(model: CodiModel, pairs: Pairs) -> list[Pair]:
    """The pairs whose questions have different numbers of tokens, so that none corresponds.

    Raises:
        ProblemError: a question that is empty or does not fit into the context.

    >>> from codi_lens.problems.pairs import operand_pairs
    >>> unequal_pairs(CodiModel.from_pretrained("checkpoints/tiny-gpt2"), operand_pairs(4))
    []
    """
    pairs = pair_list(pairs)
    return [
        pair
        for pair, lengths in zip(pairs, _lengths(model, pairs), strict=True)
        if lengths[0] != lengths[1]
    ]


def check_lengths(model: CodiModel, pairs: Sequence[Pair]) -> None:
    """Refuse to patch the question where its tokens do not correspond.

    Raises:
        PositionError: the questions of a pair differ in length; names the first.
    """
    for pair, (clean, corrupted) in zip(pairs, _lengths(model, pairs), strict=True):
        if clean != corrupted:
            raise PositionError(
                f"The questions of {pair.clean.id!r} and {pair.corrupted.id!r} have {clean} and "
                f"{corrupted} tokens, which do not correspond; leave out 'question', or give "
                "pairs of equal length."
            )


def _lengths(model: CodiModel, pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    def lengths(problems: list[Problem]) -> list[int]:
        return [len(each) for each in questions_of(model, prepare_problems(model, problems))]

    clean = lengths([pair.clean for pair in pairs])
    return list(zip(clean, lengths([pair.corrupted for pair in pairs]), strict=True))


def check_places(model: CodiModel, at: Scope | Mapping[str, Scope]) -> dict[str, Scope]:
    """Positions to patch, by the name of their row of the table.

    Raises:
        PositionError: a position that does not exist, or "answer".
    """
    if isinstance(at, Mapping):
        places = {name: positions_in(model, scope) for name, scope in at.items()}
    else:
        places = {name: [name] for name in positions_in(model, at)}
    if any("answer" in place for place in places.values()):
        raise PositionError(
            "The answers of two problems have no tokens that correspond; patch positions before "
            "the answer."
        )
    return {name: place[0] if len(place) == 1 else place for name, place in places.items()}
