"""Do the rankings hold? Agreement between disjoint halves of the problems.

The bootstrap intervals of ranks, and how often a head is among the best ten, are columns of
`rank_heads`; how the hub ratio depends on the number of problems is
`hubs.hub_ratio_by_n_problems`.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from scipy.stats import rankdata

from codi_lens.attention.ranking import TOP, ranks
from codi_lens.attention.scores import HeadScores
from codi_lens.attention.views import View
from codi_lens.errors import AttentionError, check_seed, whole_number
from codi_lens.stats import percentile_interval


def split_halves(
    attention: xr.DataArray,
    view: View = "position",
    *,
    n_splits: int = 200,
    top: int = TOP,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """How well two disjoint halves of the problems, drawn at random, agree on every score.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        view: "position" or "generation".
        n_splits: how often the problems are halved.
        top: how many heads count as the best.
        level: of the ranges over splits.
        seed: of the splits.

    Returns:
        One row per score: Spearman's `correlation` between the halves over all heads (median over
        splits, with the range `low` to `high`), `shared_top`, the mean number of heads that are
        among the best `top` in both halves (both NaN for a constant score), and `shared_by_chance`,
        what two unrelated rankings would share.

    Raises:
        AttentionError: not labelled attention, NaN in it, or fewer than two problems.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> split_halves(attention, n_splits=10)["score"].tolist()
    ['flow', 'hub', 'skip', 'sequential', 'sequential_excess', 'self', 'composite']
    """
    whole_number("top", top, 1, error=AttentionError)
    scores = HeadScores.of(attention, view)
    first, second = half_weights(scores.n_problems, n_splits=n_splits, seed=seed)
    samples = scores.reweighted(np.concatenate([first, second]))
    n_heads = len(scores.mean)
    table = []
    for name, values in samples.items():
        halves = values[:n_splits], values[n_splits:]
        median, low, high, shared = (np.nan,) * 4
        if name not in scores.constant:
            correlations = _spearman(*halves)
            median = float(np.median(correlations))
            low, high = map(float, percentile_interval(correlations, level=level))
            best = [ranks(half) <= top for half in halves]
            shared = float((best[0] & best[1]).sum(axis=1).mean())
        table.append(
            {
                "score": name,
                "correlation": median,
                "low": low,
                "high": high,
                "shared_top": shared,
                "shared_by_chance": min(top, n_heads) ** 2 / n_heads,
            }
        )
    result = pd.DataFrame(table)
    result.attrs |= {"view": view, "n_problems": scores.n_problems, "n_splits": n_splits}
    return result


def half_weights(
    n_problems: int, *, n_splits: int, seed: int = 0
) -> tuple[Float[np.ndarray, "split problem"], Float[np.ndarray, "split problem"]]:
    """Weights that give each problem to one of two halves of equal size, in each split.

    With an odd number of problems one of them sits out.

    Raises:
        AttentionError: fewer than two problems.

    >>> first, second = half_weights(4, n_splits=1)
    >>> (first + second)[0].tolist(), float((first * second).sum())
    ([0.5, 0.5, 0.5, 0.5], 0.0)
    """
    if n_problems < 2:
        raise AttentionError(f"Two halves need at least 2 problems, not {n_problems}.")
    check_seed(seed, AttentionError)
    whole_number("n_splits", n_splits, 1, error=AttentionError)
    size = n_problems // 2
    base = np.repeat([1.0, 2.0, 0.0], [size, size, n_problems - 2 * size])
    draw = np.random.default_rng(seed).permuted(np.tile(base, (n_splits, 1)), axis=1)
    return (draw == 1) / size, (draw == 2) / size


def _spearman(
    one: Float[np.ndarray, "split head"], other: Float[np.ndarray, "split head"]
) -> Float[np.ndarray, " split"]:
    centred = [
        rank - rank.mean(axis=1, keepdims=True)
        for rank in (rankdata(one, axis=1), rankdata(other, axis=1))
    ]
    norms = [np.sqrt((rank**2).sum(axis=1)) for rank in centred]
    return (centred[0] * centred[1]).sum(axis=1) / (norms[0] * norms[1])
