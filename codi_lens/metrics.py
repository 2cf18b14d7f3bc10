"""Scores of attention patterns: pure functions on `[..., query, key]`, numpy or torch.

`flow_score`, `hub_score`, `skip_score` and `composite_score` are the formulas of the published
study, which applies them to the generation view. The others are for the position view: they set
self-attention apart and compare with `causal_null`, the same attention spread evenly over the keys
that each query could see, since early thoughts are seen by more queries than late ones.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from einops import einsum, reduce
from jaxtyping import Float, Int
from torch import Tensor

from codi_lens.errors import AttentionError

Array = np.ndarray | Tensor

WEIGHTS = {"flow": 0.4, "hub": 0.4, "skip": 0.2}
"""The study's composite: 0.4 flow + 0.4 hub + 0.2 skip, each min-max normalised."""


def flow_score(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head"] | np.floating:
    """Share of the attention to thoughts that goes to earlier ones rather than to `key = query`.

    The study's formula: sum over j < i of A[i, j], divided by the sum over j <= i; 0 where a head
    gives no attention to thoughts. In the generation view its diagonal is empty by construction,
    so the score is 1 for every head; in the position view the diagonal is self-attention.

    Raises:
        AttentionError: the pattern is not square in its last two axes.

    >>> float(flow_score(np.array([[0.5, 0.0], [0.3, 0.1]])).round(2))
    0.33
    """
    n = _size(pattern)
    earlier = _pairs(pattern, np.tril(np.ones((n, n)), -1))
    visible = _pairs(pattern, np.tril(np.ones((n, n))))
    return earlier / (visible + (visible == 0))


def incoming_attention(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head key"]:
    """Column sums: the attention that each key receives from all queries.

    >>> incoming_attention(np.array([[0.0, 0.0], [0.4, 0.0]]))
    array([0.4, 0. ])
    """
    _size(pattern)
    return reduce(pattern, "... query key -> ... key", "sum")


def outgoing_attention(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head query"]:
    """Row sums: the attention that each query gives to all keys there are, sum over j of A[i, j].

    >>> outgoing_attention(np.array([[0.2, 0.5, 0.1]])).round(2)
    array([0.8])
    """
    return reduce(pattern, "... query key -> ... query", "sum")


def strongest_attention(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head query"]:
    """The attention that each query gives to the one key it attends to most, max over j of A[i, j].

    >>> strongest_attention(np.array([[0.2, 0.5, 0.1]]))
    array([0.5])
    """
    return reduce(pattern, "... query key -> ... query", "max")


def hub_score(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head"] | np.floating:
    """Population variance of the attention that the keys receive (the study's formula).

    >>> float(hub_score(np.array([[0.0, 0.0], [0.4, 0.0]])).round(3))
    0.04
    """
    return _variance(incoming_attention(pattern))


def hub_position(pattern: Float[Array, "*head query key"]) -> Int[Array, "*head"] | np.integer:
    """The key that receives most attention (the study's hub), as an index into the keys.

    >>> int(hub_position(np.array([[0.0, 0.0], [0.4, 0.0]])))
    0
    """
    return incoming_attention(pattern).argmax(-1)


def skip_score(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head"] | np.floating:
    """Mean attention of the last query to the first half of the keys.

    For six thoughts this is the study's mean of A[5, 0..2].

    >>> float(skip_score(np.array([[0.0, 0.0], [0.4, 0.0]])))
    0.4
    """
    n = _size(pattern)
    return reduce(pattern[..., -1, : max(1, n // 2)], "... key -> ...", "mean")


def composite_score(
    flow: Float[Array, "*head"],
    hub: Float[Array, "*head"],
    skip: Float[Array, "*head"],
    *,
    leave_out: Collection[str] = (),
    by_row: bool = False,
) -> Float[Array, "*head"] | np.floating:
    """0.4 flow + 0.4 hub + 0.2 skip, each min-max normalised over all heads given.

    Args:
        flow, hub, skip: one value per head.
        leave_out: names of metrics to leave out; the other weights are rescaled to sum to 1. For
            metrics that are constant over all heads, which the study keeps, where they add 0.
        by_row: the last axis alone holds the heads, the others resamples, say.

    >>> ones = np.ones(2)
    >>> composite_score(ones, np.array([0.0, 0.2]), np.array([0.1, 0.3])).round(6)
    array([0. , 0.6])
    >>> composite_score(
    ...     ones, np.array([0.0, 0.2]), np.array([0.1, 0.3]), leave_out=["flow"]
    ... ).round(6)
    array([0., 1.])
    """
    values: dict[str, Any] = {"flow": flow, "hub": hub, "skip": skip}
    used = {name: weight for name, weight in WEIGHTS.items() if name not in leave_out}
    total = sum(used.values()) if leave_out else 1.0
    score: Any = 0.0 * flow
    for name, weight in used.items():
        score = score + weight / total * normalise(values[name], by_row=by_row)
    return score


def normalise(
    values: Float[Array, "*head"], *, by_row: bool = False
) -> Float[Array, "*head"] | np.floating:
    """Min-max normalisation over all heads, with the study's 1e-10 in the denominator.

    Args:
        values: of the heads.
        by_row: the last axis alone holds the heads.

    >>> normalise(np.array([1.0, 2.0, 3.0])).round(6)
    array([0. , 0.5, 1. ])
    >>> normalise(np.array([[1.0, 2.0], [4.0, 3.0]]), by_row=True).round(6)
    array([[0., 1.],
           [1., 0.]])
    """
    low: Any = reduce(values, "... head -> ... 1", "min") if by_row else values.min()
    high: Any = reduce(values, "... head -> ... 1", "max") if by_row else values.max()
    return (values - low) / (high - low + 1e-10)


def is_constant(values: Float[Array, "*head"]) -> bool:
    """Whether a metric is the same for all heads (to 1e-9), and so cannot rank them.

    >>> is_constant(np.array([1.0, 1.0])), is_constant(np.array([1.0, 1.1]))
    (True, False)
    """
    return bool(values.max() - values.min() <= 1e-9)


def attention_to_earlier(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head query"]:
    """m_i, the attention that each query gives to earlier keys (self-attention left out).

    >>> attention_to_earlier(np.array([[0.5, 0.0], [0.3, 0.1]]))
    array([0. , 0.3])
    """
    return einsum(pattern, _earlier(pattern), "... query key, query key -> ... query")


def causal_null(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head query key"]:
    """The same attention to earlier keys, spread evenly: m_i / i in the i cells before query i.

    What any score would be without preference among the keys is that score of this pattern.

    >>> causal_null(np.array([[0.0, 0, 0], [0.6, 0.1, 0], [0.6, 0.2, 0]]))
    array([[0. , 0. , 0. ],
           [0.6, 0. , 0. ],
           [0.4, 0.4, 0. ]])
    """
    earlier = _earlier(pattern)
    share = earlier / _like(np.maximum(np.arange(_size(pattern)), 1), pattern)[:, None]
    given = attention_to_earlier(pattern)
    return einsum(given, share, "... query, query key -> ... query key")


def attention_from_later(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head key"]:
    """Attention that each key receives from later queries: column sums below the diagonal.

    >>> attention_from_later(np.array([[0.5, 0.0], [0.3, 0.1]]))
    array([0.3, 0. ])
    """
    return einsum(pattern, _earlier(pattern), "... query key, query key -> ... key")


def hub_excess(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head key"]:
    """Attention that each key receives from later queries, beyond what `causal_null` gives it.

    The excess of key j is the sum over i > j of A[i, j] - m_i / i. It sums to 0 over the keys;
    self-attention plays no part.

    >>> hub_excess(np.array([[0.0, 0, 0], [0.6, 0, 0], [0.3, 0.3, 0]]))
    array([0., 0., 0.])
    """
    return attention_from_later(pattern) - attention_from_later(causal_null(pattern))


def hub_ratio(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head key"]:
    """Attention that each key receives from later queries, over what `causal_null` gives it.

    The sum over i > j of A[i, j], divided by the sum over i > j of m_i / i: 1 for uniform causal
    attention, NaN for the last key, which no query can see, and where no attention is given.

    >>> hub_ratio(np.array([[0.0, 0, 0], [0.6, 0, 0], [0.6, 0.0, 0]])).round(2)
    array([1.33, 0.  ,  nan])
    """
    expected = attention_from_later(causal_null(pattern))
    nothing = expected == 0
    ratio = attention_from_later(pattern) / (expected + nothing)
    ratio[nothing] = float("nan")
    return ratio


def hub_excess_score(
    pattern: Float[Array, "*head query key"],
) -> Float[Array, "*head"] | np.floating:
    """Population variance of `hub_excess`: the hub score, with the causal null taken off.

    >>> float(hub_excess_score(np.array([[0.0, 0, 0], [0.6, 0, 0], [0.3, 0.3, 0]])))
    0.0
    """
    return _variance(hub_excess(pattern))


def skip_excess_score(
    pattern: Float[Array, "*head query key"],
) -> Float[Array, "*head"] | np.floating:
    """`skip_score` beyond what `causal_null` gives: above 0 if the last query prefers early keys.

    >>> float(skip_excess_score(np.array([[0.0, 0, 0], [0.6, 0, 0], [0.3, 0.1, 0]])).round(2))
    0.1
    """
    earlier: Any = pattern * _earlier(pattern)
    return skip_score(earlier - causal_null(pattern))


def sequential_score(
    pattern: Float[Array, "*head query key"],
) -> Float[Array, "*head"] | np.floating:
    """Mean of the entries [i, i-1]: in the position view, attention to the previous thought.

    In the generation view the same entries are self-attention.

    >>> float(sequential_score(np.array([[0.5, 0.0], [0.3, 0.1]])))
    0.3
    """
    n = _size(pattern)
    return _pairs(pattern, np.eye(n, k=-1)) / max(1, n - 1)


def sequential_excess_score(
    pattern: Float[Array, "*head query key"],
) -> Float[Array, "*head"] | np.floating:
    """`sequential_score` beyond what `causal_null` gives.

    The query that sees one key only has no choice: it counts as 0.

    >>> float(sequential_excess_score(np.array([[0.0, 0, 0], [0.6, 0, 0], [0.1, 0.3, 0]])).round(2))
    0.05
    """
    excess: Any = pattern - causal_null(pattern)
    return sequential_score(excess)


def self_score(pattern: Float[Array, "*head query key"]) -> Float[Array, "*head"] | np.floating:
    """Mean of the diagonal: in the position view, attention of a thought to itself.

    >>> float(self_score(np.array([[0.5, 0.0], [0.3, 0.1]])))
    0.3
    """
    n = _size(pattern)
    return _pairs(pattern, np.eye(n)) / n


def attention_by_distance(
    pattern: Float[Array, "*head query key"],
) -> Float[Array, "*head distance"]:
    """Mean of the cells [i, i-d] for d = 0 … n-1: attention by how many thoughts back the key lies.

    In the position view d = 0 is self-attention and d = 1 attention to the previous thought.

    >>> attention_by_distance(np.array([[0.5, 0.0], [0.3, 0.1]]))
    array([0.3, 0.3])
    """
    n = _size(pattern)
    pairs = np.stack([np.eye(n, k=-distance) / (n - distance) for distance in range(n)])
    return einsum(
        pattern, _like(pairs, pattern), "... query key, distance query key -> ... distance"
    )


def _earlier(pattern: Any) -> Any:
    n = _size(pattern)
    return _like(np.tril(np.ones((n, n)), -1), pattern)


def _variance(values: Any) -> Any:
    mean = reduce(values, "... key -> ... 1", "mean")
    return reduce((values - mean) ** 2, "... key -> ...", "mean")


def _pairs(pattern: Any, weights: np.ndarray) -> Any:
    return einsum(pattern, _like(weights, pattern), "... query key, query key -> ...")


def _like(array: np.ndarray, pattern: Any) -> Any:
    if isinstance(pattern, Tensor):
        return torch.from_numpy(array).to(pattern.device, pattern.dtype)
    return array.astype(pattern.dtype)


def _size(pattern: Any) -> int:
    if pattern.ndim < 2 or pattern.shape[-1] != pattern.shape[-2]:
        raise AttentionError(
            "A pattern of thoughts must be square in its last two axes [query, key], not of shape "
            f"{tuple(pattern.shape)}."
        )
    return pattern.shape[-1]
