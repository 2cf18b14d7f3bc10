"""Attribution held against exact sweeps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from codi_lens.causal.outcomes import Outcome
from codi_lens.errors import InterventionError, check_choice, needs
from codi_lens.stats import Association, rank_association


@dataclass(frozen=True, eq=False)
class Agreement:
    """How well attributions predict exact effects.

    Attributes:
        overall: Spearman's rank correlation over all units.
        within: the same within layers, None for thoughts.
        pearson: Pearson's correlation.
        slope: of the effect on the attribution, by least squares; above 1 where attributions are
            too small.
        top: how many units count as the largest, by size of the effect and of the attribution.
        shared: how many of these are the same.
        same_sign: the share of units with the sign of their effect.
        n_effects: units whose effect on the log-probability matters (see `effects`).
        same_sign_effects: the share of those with the sign of their effect; NaN without any.
        units: all units with `attribution`, `effect` and `error` (attribution - effect), the most
            missed first.
    """

    overall: Association
    within: Association | None
    pearson: float
    slope: float
    top: int
    shared: int
    same_sign: float
    n_effects: int
    same_sign_effects: float
    units: pd.DataFrame


def compare_with_exact(
    attributions: pd.DataFrame,
    effects: pd.DataFrame,
    *,
    outcome: Outcome = "log_prob",
    top: int = 5,
    seed: int = 0,
) -> Agreement:
    """Hold attributions against the exact effects of the same units.

    Args:
        attributions: of `attribute_heads` or `attribute_thoughts`.
        effects: of `sweep_heads` or `sweep_thoughts`, on the same problems with the same donors.
        outcome: what was attributed, "log_prob" or "logit_difference".
        top: how many units count as the largest.
        seed: of bootstrap and permutations.

    Raises:
        InterventionError: tables of other kinds, a unit without an effect, or `top` out of range.
        CodiLensError: fewer than three units.

    >>> heads = {"layer": [0, 0, 1], "name": ["L0H0", "L0H1", "L1H0"]}
    >>> guessed = pd.DataFrame(heads | {"attribution": [-1.0, 0.5, 2.0]})
    >>> exact = pd.DataFrame(heads | {"effect": [-2.0, 0.1, 3.0], "matters": [True, False, True]})
    >>> agreement = compare_with_exact(guessed, exact, top=1)
    >>> agreement.overall.rho, agreement.shared, agreement.same_sign
    (1.0, 1, 1.0)
    """
    keys = ["name"] if "name" in attributions else ["thought", "mode"]
    check_choice("outcome", outcome, Outcome)
    if outcome == "logit_difference" and "logit_effect" in effects:
        effects = effects.assign(effect=effects["logit_effect"])
    advice = "compare attribute_heads with sweep_heads, and attribute_thoughts with sweep_thoughts"
    needs(attributions, *keys, "attribution", advice=advice)
    needs(effects, *keys, "effect", "matters", advice=advice)
    labels = [*keys, *(["layer"] if "layer" in attributions else [])]
    units = attributions[[*labels, "attribution"]].merge(
        effects[[*keys, "effect", "matters"]], on=keys
    )
    if len(units) < len(attributions):
        raise InterventionError(
            f"Only {len(units)} of {len(attributions)} attributed units have an exact effect; "
            "sweep all of them."
        )
    if not 1 <= top <= len(units):
        raise InterventionError(f"top must be from 1 to {len(units)}; it is {top}.")
    guess, effect = units["attribution"].to_numpy(), units["effect"].to_numpy()
    largest = [set(np.argsort(-np.abs(each), kind="stable")[:top]) for each in (guess, effect)]
    same, real = np.sign(guess) == np.sign(effect), units["matters"].to_numpy(dtype=bool)
    layers = units["layer"].to_numpy() if "layer" in units else None
    varies = np.ptp(guess) > 0 and np.ptp(effect) > 0
    units["error"] = units["attribution"] - units["effect"]
    return Agreement(
        overall=rank_association(guess, effect, seed=seed),
        within=None if layers is None else rank_association(guess, effect, layers, seed=seed),
        pearson=float(np.corrcoef(guess, effect)[0, 1]) if varies else float("nan"),
        slope=float(np.polyfit(guess, effect, 1)[0]) if varies else float("nan"),
        top=top,
        shared=len(largest[0] & largest[1]),
        same_sign=float(same.mean()),
        n_effects=int(real.sum()),
        same_sign_effects=float(same[real].mean()) if real.any() else float("nan"),
        units=units.iloc[np.argsort(-units["error"].abs().to_numpy(), kind="stable")].reset_index(
            drop=True
        ),
    )
