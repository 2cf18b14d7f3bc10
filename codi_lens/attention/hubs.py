"""Which thoughts are hubs: attention received from later thoughts, against the causal null.

With m_i the attention that thought i gives to earlier thoughts, thought j would receive m_i / i
from each later thought i if that attention were spread evenly. Its **hub ratio** is what it
receives over what it would receive. Both are averaged over problems (and heads) before they are
divided: the ratio of one head on one problem is undefined where the head looks elsewhere, and very
noisy where it almost does.

The permutation test asks whether a ratio could come from rows without preference: the entries of
each row are permuted among the keys that the query could see. All problems and heads get the same
permutation, because they share whatever makes a position attractive; permuting each of them alone
would call any stable pattern a hub. The maximum over thoughts of the standardised statistic
corrects for asking about every thought (Westfall & Young 1993).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import permutations, product
from math import factorial, prod

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange, reduce
from jaxtyping import Float, Int

from codi_lens import metrics
from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.scores import problem_blocks
from codi_lens.attention.views import n_thoughts_of, thought_view
from codi_lens.errors import AttentionError, check_seed
from codi_lens.head_names import head_name
from codi_lens.stats import benjamini_hochberg, percentile_interval, resample_weights

MOST_EXACT = 50_000
"""Up to so many permutations all are enumerated (34,560 at six thoughts); beyond, some drawn."""


def hub_ratios(
    attention: xr.DataArray, *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The hub ratio of every thought, all heads averaged, with interval and permutation test.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        n_resamples: bootstrap resamples of the problems.
        level: of the percentile intervals.
        seed: of the bootstrap, and of the permutations where they are drawn.

    Returns:
        One row per thought: `thought`; `ratio`, `low`, `high` (NaN for the last thought, which no
        thought sees); `received` and `expected`, the two sums it is made of; `given`, the m_i of
        this thought; `p` of the permutation test, corrected for the number of thoughts; and
        `p_smallest`, the least p that the test could give this thought: where it exceeds 0.05, too
        few thoughts come later for any pattern to be called a hub.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> table = hub_ratios(attention)
    >>> table.columns.tolist()
    ['thought', 'ratio', 'low', 'high', 'received', 'expected', 'given', 'p', 'p_smallest']
    >>> table["thought"].tolist(), table["ratio"].notna().sum()
    (['ct0', 'ct1', 'ct2', 'ct3', 'ct4', 'ct5'], np.int64(5))
    """
    names = [str(name) for name in thought_view(attention)["key"].values]
    received, given, mean = _per_problem(attention, average_heads=True)
    table = _ratios(received, given, n_resamples, level, seed)
    p, smallest = permutation_test(mean, seed=seed)
    columns = {name: values[0] for name, values in table.items()}
    return pd.DataFrame({"thought": names} | columns | {"p": p[0], "p_smallest": smallest[0]})


def head_hub_ratios(
    attention: xr.DataArray, *, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """The hub ratio of every thought in every head, as `hub_ratios` gives it for all heads.

    Returns:
        One row per head and thought: layer, head, name, and the columns of `hub_ratios`. `q` is `p`
        after control of the false discovery rate over heads and thoughts (Benjamini & Hochberg).

    Raises:
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    names = [str(name) for name in thought_view(attention)["key"].values]
    received, given, mean = _per_problem(attention, average_heads=False)
    table = _ratios(received, given, n_resamples, level, seed)
    p, smallest = permutation_test(mean, seed=seed)
    heads = heads_in(labelled(attention))
    places = [head for head in heads for _ in names]
    q = benjamini_hochberg(p)
    columns = {name: values.ravel() for name, values in table.items()}
    return pd.DataFrame(
        {
            "layer": [layer for layer, _ in places],
            "head": [head for _, head in places],
            "name": [head_name(head) for head in places],
            "thought": names * len(heads),
            **columns,
            "p": p.ravel(),
            "p_smallest": smallest.ravel(),
            "q": q.ravel(),
        }
    )


def hub_ratio_by_n_problems(
    attention: xr.DataArray,
    sizes: list[int] | None = None,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """The hub ratio of every thought, had fewer problems been analysed: does it strengthen?

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        sizes: numbers of problems; by default 5, 10, 20, 50, … and all.
        n_resamples: how often each number of problems is drawn, with replacement.
        level: of the band.
        seed: of the draws.

    Returns:
        One row per size and thought: n_problems, thought, the median `ratio` of the draws, and the
        band `low` to `high`.

    Raises:
        AttentionError: not labelled attention, or a size outside 1 … all problems.
    """
    received, given, _ = _per_problem(attention, average_heads=True)
    n_problems = len(received)
    if sizes is None:
        steps = (digit * 10**power for power in range(7) for digit in (1, 2, 5))
        sizes = [*(size for size in steps if 5 <= size < n_problems), n_problems]
    outside = [size for size in sizes if not 1 <= size <= n_problems]
    if outside:
        raise AttentionError(
            f"The number of problems must lie in 1..{n_problems}, all that there are, not "
            f"{outside[0]}."
        )
    names = [str(name) for name in thought_view(attention)["key"].values]
    tables = []
    for size in sizes:
        weights = resample_weights(n_problems, n_resamples=n_resamples, size=size, seed=seed)
        samples = _quotient(*_sums(weights, received, given))[:, 0]
        low, high = percentile_interval(samples, level=level)
        columns = {"ratio": np.median(samples, axis=0), "low": low, "high": high}
        tables.append(pd.DataFrame({"n_problems": size, "thought": names, **columns}))
    return pd.concat(tables, ignore_index=True)


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
    n_orders = len(orders[n - 1])
    exact = n_orders == prod(factorial(i) for i in range(2, n))
    for head, matrix in enumerate(pattern.reshape(-1, n, n)):
        rows = {i: matrix[i, :i] for i in range(2, n)}
        scale = np.sqrt([sum(row.var() for i, row in rows.items() if i > j) for j in range(n - 1)])
        flat = scale < 1e-12  # equal entries: no order of them differs
        scale[flat] = np.inf
        excess = np.zeros((n_orders, n - 1))
        best = np.zeros(n - 1)
        observed = np.zeros(n - 1)
        for i, row in rows.items():
            centred = row - row.mean()
            excess[:, :i] += centred[orders[i]]
            observed[:i] += centred
            best[:i] += centred.max()
        largest = np.sort((excess / scale).max(axis=1))
        for result, statistic in ((p, observed), (smallest, best)):
            below = np.searchsorted(largest, statistic / scale - 1e-9)
            reached = n_orders - below
            share = reached / n_orders if exact else (1 + reached) / (1 + n_orders)
            result[head, : n - 1] = np.where(flat, 1.0, share)
    return p.reshape(*shape, n), smallest.reshape(*shape, n)


@lru_cache(maxsize=4)  # the enumeration takes longer than the test of a model
def _permutations(
    n: int, n_drawn: int, most_exact: int, seed: int
) -> dict[int, Int[np.ndarray, "order key"]]:
    """For each row i that sees several keys, an order of its keys in each joint permutation."""
    rows = range(2, n)
    if prod(factorial(i) for i in rows) <= most_exact:
        orders = {i: np.array(list(permutations(range(i)))) for i in rows}
        joint = np.array(list(product(*(range(len(orders[i])) for i in rows))))
        return {i: orders[i][joint[:, place]] for place, i in enumerate(rows)}
    draw = np.random.default_rng(seed)
    return {i: draw.permuted(np.tile(np.arange(i), (n_drawn, 1)), axis=1) for i in rows}


def _per_problem(
    attention: xr.DataArray, *, average_heads: bool
) -> tuple[
    Float[np.ndarray, "problem head key"],
    Float[np.ndarray, "problem head query"],
    Float[np.ndarray, "head query key"],
]:
    """What each thought receives from later ones, what it gives to earlier ones; the mean block."""
    n = n_thoughts_of(attention)
    received, given, total = [], [], np.zeros((1, n, n))
    for _, blocks in problem_blocks(attention, "position"):
        if average_heads:
            blocks = reduce(blocks, "problem head q k -> problem 1 q k", "mean")
        received.append(metrics.attention_from_later(blocks))
        given.append(metrics.attention_to_earlier(blocks))
        total = total + blocks.sum(axis=0)
    return np.concatenate(received), np.concatenate(given), total / attention.sizes["problem"]


def _ratios(
    received: np.ndarray, given: np.ndarray, n_resamples: int, level: float, seed: int
) -> dict[str, np.ndarray]:
    n_problems = len(received)
    everything = np.full((1, n_problems), 1 / n_problems)
    mean_received, mean_expected = _sums(everything, received, given)
    ratio = _quotient(mean_received, mean_expected)[0]
    low = high = np.full(ratio.shape, np.nan)
    if n_problems > 1:
        weights = resample_weights(n_problems, n_resamples=n_resamples, seed=seed)
        low, high = percentile_interval(_quotient(*_sums(weights, received, given)), level=level)
    return {
        "ratio": ratio,
        "low": low,
        "high": high,
        "received": mean_received[0],
        "expected": mean_expected[0],
        "given": given.mean(axis=0),
    }


def _sums(
    weights: np.ndarray, received: np.ndarray, given: np.ndarray
) -> tuple[Float[np.ndarray, "resample head key"], Float[np.ndarray, "resample head key"]]:
    """Received and expected attention under each weighting of the problems."""
    n = received.shape[-1]
    means = [
        rearrange(
            weights @ rearrange(values, "problem head name -> problem (head name)"),
            "resample (head name) -> resample head name",
            name=n,
        )
        for values in (received, given)
    ]
    # The causal null: query i spreads its m_i over the i keys before it.
    shares = np.tril(np.ones((n, n)), -1) / np.maximum(np.arange(n), 1)[:, None]
    return means[0], means[1] @ shares


def _quotient(received: np.ndarray, expected: np.ndarray) -> np.ndarray:
    nothing = expected <= 0
    return np.where(nothing, np.nan, received / np.where(nothing, 1, expected))
