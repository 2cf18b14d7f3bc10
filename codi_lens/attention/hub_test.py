"""Whether a thought is a hub: more than rows without preference, and than smooth ones, would give.

The permutation test asks whether a thought's attention could come from rows without preference: the
entries of each row are permuted among the keys that the query could see. All problems and heads get
the same permutation, because they share whatever makes a position attractive; permuting each of
them alone would call any stable pattern a hub. The maximum over thoughts of the standardised
statistic corrects for asking about every thought (Westfall & Young 1993).

Rows that all prefer early keys, smoothly, are no rows without preference: the test alone calls ct0
a hub in most constructed ones. So a hub must also stand out from a smooth profile over the keys,
exponential or a power of their order, fitted to the *other* keys of the same rows (a multinomial
logit, in which leaving a key out leaves the odds of the others as they were). The profile is
divided out and the rest tested as above. Where either profile explains a thought, it is no hub: of
100 simulations of each of eight smooth profiles (exponential, power, linear, by distance,
bell-shaped; two levels of noise) 0 to 7 % then hold one. A fourfold weight of ct0 is found in 64 to
98 % of 50 on top of weak and moderate primacy, in 14 to 40 % on top of strong or bell-shaped one.
What no such test can tell from a hub is primacy that is not smooth: rows that prefer the first key
alone.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product
from math import factorial, prod

import numpy as np
from jaxtyping import Float, Int

from codi_lens import metrics
from codi_lens.errors import AttentionError, check_seed

MOST_EXACT = 50_000
"""Up to so many permutations all are enumerated (34,560 at six thoughts); beyond, some drawn."""
ALPHA = 0.05
_STEEPEST = 20.0
"""Of the fitted profiles, between first and last key, in nats: rows are then one key alone."""


def hub_test(
    pattern: Float[np.ndarray, "*head query key"], *, seed: int = 0
) -> dict[str, Float[np.ndarray, "*head key"]]:
    """Whether each thought receives more than an even spread and any smooth profile would give it.

    Args:
        pattern: position view, averaged over problems.
        seed: of the permutations, where they are drawn.

    Returns:
        `ratio_smooth`: what each key receives over what the smooth profile that gives it most
        would give it. `p`: the largest p of the permutation test over the pattern and over what
        either profile leaves of it, so that it is small only where all are; `p_even`, that of the
        pattern alone; `p_smallest`, the least that this and so `p` could have been.

    >>> hub = np.tril(np.full((6, 6), 0.1), -1)
    >>> hub[2:, 1] = 0.5
    >>> hub_test(hub)["p"].round(3)
    array([1.   , 0.017, 1.   , 1.   , 1.   ,   nan])
    >>> primacy = np.tril(np.exp(-np.arange(6.0)) * np.ones((6, 6)), -1)
    >>> found = hub_test(primacy)
    >>> [float(found[name][0].round(3)) for name in ("p_even", "p", "ratio_smooth")]
    [0.017, 1.0, 0.811]
    """
    *shape, n, _ = pattern.shape
    even, smallest = permutation_test(pattern, seed=seed)
    p, expected = even.copy(), np.zeros((*shape, n))
    for key in range(n - 1):
        for profile in _profiles(n):
            given, rest = without_profile(pattern, key, profile)
            expected[..., key] = np.maximum(expected[..., key], given)
            tested, _ = permutation_test(rest, seed=seed)
            p[..., key] = np.maximum(p[..., key], tested[..., key])
    received = metrics.attention_from_later(pattern)
    nothing = expected <= 0
    ratio = np.where(nothing, np.nan, received / np.where(nothing, 1, expected))
    return {"ratio_smooth": ratio, "p": p, "p_even": even, "p_smallest": smallest}


def without_profile(
    pattern: Float[np.ndarray, "*head query key"], key: int, profile: Float[np.ndarray, " key"]
) -> tuple[Float[np.ndarray, "*head"], Float[np.ndarray, "*head query key"]]:
    """What a smooth profile would give a key, and the pattern with the profile divided out.

    Args:
        pattern: position view, averaged over problems.
        key: the one that the profile is not fitted to.
        profile: the shape, whose slope is fitted: attention goes as exp(slope · profile).

    >>> primacy = np.tril(np.exp(-np.arange(3.0)) * np.ones((3, 3)), -1)
    >>> given, rest = without_profile(primacy, 2, np.arange(3.0))
    >>> rest[2].round(3)
    array([0.684, 0.684, 0.   ])
    """
    *shape, n, _ = pattern.shape
    earlier = np.tril(np.ones((n, n)), -1)
    flat = pattern.reshape(-1, n, n) * earlier
    others = earlier.copy()
    others[:, key] = 0
    slope = _slope(flat * others, others, profile)
    weight = np.exp(slope[:, None] * profile)[:, None, :] * earlier
    total = weight.sum(axis=-1, keepdims=True)
    amount = flat.sum(axis=-1, keepdims=True)
    predicted = amount * weight / np.where(total > 0, total, 1)
    rest = flat / np.where(weight > 0, weight, 1)
    left = rest.sum(axis=-1, keepdims=True)
    rest = amount * rest / np.where(left > 0, left, 1)
    return predicted[:, :, key].sum(axis=-1).reshape(shape), rest.reshape(pattern.shape)


def permutation_test(
    pattern: Float[np.ndarray, "*head query key"],
    *,
    n_permutations: int = 20_000,
    most_exact: int = MOST_EXACT,
    seed: int = 0,
) -> tuple[Float[np.ndarray, "*head key"], Float[np.ndarray, "*head key"]]:
    """Whether each thought receives more than rows without preference would give it.

    The null: the i entries before query i are exchangeable. The statistic of key j is its hub
    excess over its standard deviation under the null (the root of the summed variances within the
    rows that see it); p is the share of permutations, the identity included, whose *largest*
    statistic reaches it. Up to `most_exact` permutations all are enumerated; if there are more,
    some are drawn.

    Args:
        pattern: position view, averaged over problems.
        n_permutations: how many to draw where there are too many to enumerate.
        most_exact: how many may be enumerated (34,560 are at six thoughts).
        seed: of that draw.

    Returns:
        p per head and key, and the least p that the key could have got, had it been first in every
        row that sees it. NaN for the last key, and where fewer than three thoughts leave nothing to
        permute.

    >>> hub = np.tril(np.full((6, 6), 0.1), -1)
    >>> hub[2:, 1] = 0.5
    >>> p, smallest = permutation_test(hub)
    >>> p.round(3)
    array([1.   , 0.017, 1.   , 1.   , 1.   ,   nan])
    >>> smallest.round(3)
    array([0.017, 0.017, 0.033, 0.083, 0.283,   nan])
    """
    *shape, n, _ = pattern.shape
    metrics.attention_to_earlier(pattern)  # raises unless the pattern is square
    check_seed(seed, AttentionError)
    p = np.full((prod(shape), n), np.nan)
    smallest = p.copy()
    if n < 3:
        return p.reshape(*shape, n), smallest.reshape(*shape, n)
    orders = _permutations(n, n_permutations, most_exact, seed)
    n_orders = orders[n - 1].shape[1]
    exact = n_orders == prod(factorial(i) for i in range(2, n))
    for head, matrix in enumerate(pattern.reshape(-1, n, n)):
        rows = {i: matrix[i, :i] for i in range(2, n)}
        scale = np.sqrt([sum(row.var() for i, row in rows.items() if i > j) for j in range(n - 1)])
        flat = scale < 1e-12  # equal entries: no order of them differs
        scale[flat] = np.inf
        excess = np.zeros((n - 1, n_orders))
        best = np.zeros(n - 1)
        observed = np.zeros(n - 1)
        for i, row in rows.items():
            centred = row - row.mean()
            excess[:i] += centred[orders[i]]
            observed[:i] += centred
            best[:i] += centred.max()
        largest = (excess / scale[:, None]).max(axis=0)
        for result, statistic in ((p, observed), (smallest, best)):
            reached = np.array([(largest >= each).sum() for each in statistic / scale - 1e-9])
            share = reached / n_orders if exact else (1 + reached) / (1 + n_orders)
            result[head, : n - 1] = np.where(flat, 1.0, share)
    return p.reshape(*shape, n), smallest.reshape(*shape, n)


@lru_cache(maxsize=4)  # the enumeration takes longer than the test of a model
def _permutations(
    n: int, n_drawn: int, most_exact: int, seed: int
) -> dict[int, Int[np.ndarray, "key order"]]:
    """For each row i that sees several keys, an order of its keys in each joint permutation."""
    rows = range(2, n)
    if prod(factorial(i) for i in rows) <= most_exact:
        orders = {i: np.array(list(permutations(range(i)))) for i in rows}
        joint = np.array(list(product(*(range(len(orders[i])) for i in rows))))
        drawn = {i: orders[i][joint[:, place]] for place, i in enumerate(rows)}
    else:
        draw = np.random.default_rng(seed)
        drawn = {i: draw.permuted(np.tile(np.arange(i), (n_drawn, 1)), axis=1) for i in rows}
    return {i: np.ascontiguousarray(each.T) for i, each in drawn.items()}


def _profiles(n: int) -> list[Float[np.ndarray, " key"]]:
    """Exponential and power law in the order of the keys, which range from 0 to 1.

    The power law counts from 0.75, not 1: a little steeper at the first key, since a slope that is
    estimated from four keys is often too flat. It halves the false hubs of exact power laws.
    """
    order = np.arange(n)
    power = np.log((order + 0.75) / 0.75)
    return [order / max(n - 1, 1), power / max(power[-1], 1e-9)]


def _slope(
    amounts: Float[np.ndarray, "head query key"],
    seen: Float[np.ndarray, "query key"],
    profile: Float[np.ndarray, " key"],
) -> Float[np.ndarray, " head"]:
    """The most likely slope of a multinomial logit of each row's shares, by Newton's method."""
    total = amounts.sum(axis=-1, keepdims=True)
    shares = amounts / np.where(total > 0, total, 1)
    rows = (total[..., 0] > 0) & (seen.sum(axis=-1) > 1)
    observed = shares @ profile
    slope = np.zeros(len(amounts))
    for _ in range(60):
        weight = np.exp(slope[:, None, None] * profile) * seen
        weight /= np.maximum(weight.sum(axis=-1, keepdims=True), 1e-300)
        mean = weight @ profile
        variance = np.where(rows, weight @ profile**2 - mean**2, 0).sum(axis=-1)
        gradient = np.where(rows, observed - mean, 0).sum(axis=-1)
        step = np.clip(gradient / np.maximum(variance, 1e-9), -2, 2)
        step = np.where(np.abs(gradient) < 1e-10, 0, step)
        slope = np.clip(slope + step, -_STEEPEST, _STEEPEST)
        if (np.abs(step) < 1e-9).all():
            break
    return slope
