"""Is a ranking of heads any good? Dose and response, and scores against causal effects.

Attention says where heads look. Whether heads that a score ranks high matter more than others is
asked three times: by ablating the top k for growing k (are they necessary?) and by ablating all
but the top k (do they suffice?), each against random orders of the same heads; and by
correlating the score with the effect of ablating each head alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import pandas as pd
from einops import rearrange
from jaxtyping import Float

from codi_lens.causal.arms import Arm
from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import check_known, summarise
from codi_lens.causal.means import mean_test
from codi_lens.causal.measure import CLEAN, Running, measure
from codi_lens.errors import InterventionError, listed
from codi_lens.head_names import Head, all_heads, as_heads, head_name
from codi_lens.interventions.donors import Donors
from codi_lens.interventions.heads import ablate_heads, keep_heads
from codi_lens.interventions.replacements import Mode
from codi_lens.model import CodiModel
from codi_lens.positions import Scope
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.stats import area_p
from codi_lens.thinking.given import problems_for

TOP = "top"
"""The order of the dose-response curve that follows the ranking."""
_NONE_KEPT = "no head kept"


@dataclass(frozen=True, eq=False)
class DoseResponse:
    """How much is lost when the k highest-ranked heads go, or alone stay, against random orders.

    Attributes:
        curves: one row per order and k: `order` ("top", "random 1", …), `k`, and the columns of
            `codi_lens.causal.effects.summarise`.
        area: between the curve of the ranking and the mean of the random ones, in nats of the clean
            number's log-probability, averaged over k from 0 to the largest; positive where the
            ranking's heads matter more: ablated they cost more, kept alone they leave more.
        low, high: its interval over problems.
        p: one-sided permutation p-value: the share of orders whose area reaches the ranking's.
        n_random: how many random orders.
        keep: whether the k heads are the ones that stay.
        at_zero: what is lost at k = 0: nothing, or, where heads are kept, what all heads cost.
    """

    curves: pd.DataFrame
    area: float
    low: float
    high: float
    p: float
    n_random: int
    keep: bool
    at_zero: float


def dose_response(
    model: CodiModel,
    problems: Problems,
    ranking: Sequence[Head],
    ks: Sequence[int] = (1, 2, 4, 8),
    out: str | Path | None = None,
    *,
    keep: bool = False,
    n_random: int = 39,
    mode: Mode = "resample",
    at: Scope = "thinking",
    donors: Donors | None = None,
    seed: int = 0,
    **running: Unpack[Running],
) -> DoseResponse:
    """Ablate the top k heads of a ranking, or all but them; and so for orders matched by layer.

    A random order permutes the heads of each layer, so that its i-th head lies in the layer of the
    ranking's i-th head. If, within layers, the ranking were arbitrary, it would be one of those
    orders: then its area exceeds theirs by chance alone, which is what `p` tests.

    Args:
        model: the model.
        problems: to ablate on; not those that the heads were ranked on (see `halves`).
        ranking: every head of the model, best first.
        ks: how many heads to ablate, or to keep.
        out: a folder for the outcomes, resumable.
        keep: ablate all heads but the k, which asks whether they suffice.
        n_random: random orders; p cannot fall below 1 / (n_random + 1).
        mode: "resample", "mean" or "zero".
        at: where, by name.
        donors: whose values replace the heads'; by default the problems themselves.
        seed: of donors and random orders.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        InterventionError: no clean answer with a number, a ranking without every head, or a k it
            does not hold (when heads are kept, also all of them: then nothing is ablated).

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> heads = [(layer, head) for layer in (2, 1, 0) for head in range(8)]
    >>> dose = dose_response(model, word_problems(4), heads, [1, 3], n_random=2, progress=False)
    >>> dose.curves["order"].unique().tolist(), dose.curves["k"].unique().tolist()
    (['top', 'random 1', 'random 2'], [1, 3])
    """
    check_seed(seed)
    problems = problems_for(model, problems)
    ranking = as_heads(ranking)
    ks = listed("dose_response", ks, "numbers of heads", InterventionError)
    _check_ranking(model, ranking, ks, n_random, keep)
    orders = {TOP: list(ranking)}
    rng = np.random.default_rng(seed)
    for i in range(n_random):
        orders[f"random {i + 1}"] = _permuted_within_layers(ranking, rng)
    prepared = donors_for(model, problems, mode=mode, donors=donors, seed=seed)
    change = keep_heads if keep else ablate_heads
    arms: dict[str, Arm] = {
        f"{order} {k}: {'+'.join(map(head_name, heads[:k]))}": change(
            heads[:k], mode, at, prepared, seed
        )
        for order, heads in orders.items()
        for k in ks
    }
    curved = list(arms)
    if keep:
        arms[_NONE_KEPT] = ablate_heads(ranking, mode, at, prepared, seed)
    outcomes = measure(model, problems, arms, out, **running)
    curves = summarise(outcomes)
    check_known(curves)
    wide = outcomes.pivot(index="problem", columns="arm", values="log_prob").dropna()
    lost = wide[[CLEAN]].to_numpy() - wide[curved].to_numpy()
    lost = rearrange(lost, "problem (order k) -> problem order k", k=len(ks))
    at_zero = np.zeros(len(wide))
    if keep:
        at_zero = (wide[CLEAN] - wide[_NONE_KEPT]).to_numpy()
        curves = curves[curves["arm"] != _NONE_KEPT].reset_index(drop=True)
    curves.insert(0, "order", [order for order in orders for _ in ks])
    curves.insert(1, "k", [k for _ in orders for k in ks])
    first = np.broadcast_to(at_zero[:, None, None], (*lost.shape[:2], 1))
    areas = mean_over_dose(np.concatenate([first, lost], axis=-1), [0, *ks])
    areas = -areas if keep else areas
    between = areas[:, 0] - areas[:, 1:].mean(axis=1)
    found = mean_test(between)
    area, low, high = (float(each) for each in (found.mean, found.low, found.high))
    totals = areas.mean(axis=0)
    p = area_p(float(totals[0]), totals[1:])
    start = float(at_zero.mean())
    return DoseResponse(curves, area, low, high, p, n_random, keep, start)


def mean_over_dose(
    lost: Float[np.ndarray, "*batch k"], ks: Sequence[int]
) -> Float[np.ndarray, "*batch"]:
    """The mean height of a curve from the smallest to the largest k (trapezoids).

    >>> mean_over_dose(np.array([0.0, 1.0, 2.0]), [0, 1, 2])
    array(1.)
    """
    return np.asarray(np.trapezoid(lost, ks, axis=-1) / (ks[-1] - ks[0]))


def _permuted_within_layers(ranking: Sequence[Head], rng: np.random.Generator) -> list[Head]:
    layers = np.array([layer for layer, _ in ranking])
    order = np.arange(len(ranking))
    for layer in np.unique(layers):
        order[layers == layer] = rng.permutation(order[layers == layer])
    return [ranking[int(i)] for i in order.tolist()]


def _check_ranking(
    model: CodiModel, ranking: Sequence[Head], ks: Sequence[int], n_random: int, keep: bool
) -> None:
    every = set(all_heads(model.lens.cfg))
    if set(ranking) != every or len(ranking) != len(every):
        raise InterventionError(
            f"The ranking holds {len(set(ranking) & every)} of the model's {len(every)} heads; "
            "give every head once, best first."
        )
    most = len(every) - keep
    if list(ks) != sorted(set(ks)) or not ks or not 1 <= ks[0] <= ks[-1] <= most:
        raise InterventionError(
            f"ks is {list(ks)}; give increasing numbers of heads from 1 to {most}."
        )
    if n_random < 1:
        raise InterventionError(f"n_random must be at least 1, not {n_random}.")
