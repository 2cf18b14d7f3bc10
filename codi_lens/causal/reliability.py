"""How well measured effects agree with themselves: what no score of heads can be expected to beat.

Effects are means over problems, and other problems give others. A score that equals the true
effects correlates with measured ones at the square root of their reliability, no higher but by
chance; what falls short of that may fall short of the truth or of the measurement.

Sources: Spearman 1910, "Correlation calculated from faulty data"; Brown 1910, "Some experimental
results in the correlation of mental abilities".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from codi_lens.causal.measure import CLEAN
from codi_lens.errors import InterventionError, check_seed, listed, needs
from codi_lens.stats import percentile_interval, rank_correlations


@dataclass(frozen=True)
class Reliability:
    """How well the effects of all heads agree between random halves of the problems.

    Attributes:
        value: Spearman's rho between halves, averaged over splits, and corrected to the whole
            number of problems (Spearman-Brown: 2 r / (1 + r)); NaN where it is not defined.
        low, high: what 95 % of the splits give. They tell how much it matters how problems are
            divided; they are no interval over problems.
        ceiling: the square root of `value`: the rho that a score equal to the true effects is
            expected to have with the measured ones. 0 where the halves do not agree at all.
        n_problems: with an effect.
        n_splits: random splits.
    """

    value: float
    low: float
    high: float
    ceiling: float
    n_problems: int
    n_splits: int


def effects_by_problem(
    outcomes: pd.DataFrame, arms: Sequence[str]
) -> Float[np.ndarray, "problem arm"]:
    """The effect of each arm on each problem, in nats; problems without a number are left out.

    Args:
        outcomes: of `codi_lens.causal.measure.measure`.
        arms: their names, as the column `arm` of `sweep_heads` has them.

    Raises:
        InterventionError: an arm that the outcomes do not hold.

    >>> rows = [("a", CLEAN, -1.0), ("b", CLEAN, -1.0), ("a", "x", -3.0), ("b", "x", -4.0)]
    >>> outcomes = pd.DataFrame(rows, columns=["problem", "arm", "log_prob"])
    >>> effects_by_problem(outcomes, ["x"]).ravel()
    array([-2., -3.])
    """
    needs(outcomes, "problem", "arm", "log_prob", advice="give what measure returns")
    arms = listed("effects_by_problem", arms, "names of arms", InterventionError)
    wide = outcomes.pivot(index="problem", columns="arm", values="log_prob")
    unknown = [name for name in (CLEAN, *arms) if name not in wide]
    if unknown:
        raise InterventionError(f"The outcomes hold no arm {unknown[0]!r}.")
    changes = wide[arms].to_numpy() - wide[[CLEAN]].to_numpy()
    return changes[np.isfinite(changes).all(axis=1)]


def split_half_reliability(
    effects: Float[np.ndarray, "problem head"],
    strata: Int[np.ndarray, " head"] | None = None,
    *,
    n_splits: int = 1000,
    seed: int = 0,
) -> Reliability:
    """How well heads are ranked by their mean effects on half of the problems, and on the others.

    Args:
        effects: of each head on each problem, as `effects_by_problem` gives them.
        strata: the layer of each head, within which ranks are centred; one for all by default.
        n_splits: random splits into halves (one has a problem more where the number is odd).
        seed: of the splits.

    Returns:
        All NaN with fewer than two problems, or where a half has the same effect for all heads.

    >>> heads = np.array([0.0, 1.0, 2.0, 3.0])
    >>> found = split_half_reliability(np.tile(heads, (6, 1)))
    >>> round(found.value, 6), round(found.ceiling, 6), found.n_problems
    (1.0, 1.0, 6)
    """
    rng = np.random.default_rng(check_seed(seed, InterventionError))
    n, n_heads = effects.shape
    groups = np.zeros(n_heads, dtype=int) if strata is None else np.asarray(strata)
    order = rng.permuted(np.tile(np.arange(n), (n_splits, 1)), axis=1)
    first = order < n // 2  # of a random permutation as good a half as any
    nothing = Reliability(np.nan, np.nan, np.nan, np.nan, n, n_splits)
    if n < 2:
        return nothing
    halves = [half / half.sum(axis=1, keepdims=True) @ effects for half in (first, ~first)]
    rho = rank_correlations(halves[0], halves[1], groups)
    rho = rho[np.isfinite(rho)]
    if not len(rho):
        return nothing
    low, high = percentile_interval(rho)
    value, low, high = (_whole(float(each)) for each in (rho.mean(), low, high))
    return Reliability(value, low, high, max(0.0, value) ** 0.5, n, n_splits)


def _whole(rho: float) -> float:
    """A correlation of halves as one of wholes; no formula makes one of below 0 reliable."""
    return 2 * rho / (1 + rho) if rho > 0 else rho
