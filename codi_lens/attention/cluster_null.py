"""What clustering makes of heads without groups: the null that clusters of heads must beat.

Heads are drawn from one spread with the mean and covariance of the real heads' shapes, once normal
(SigClust, Liu et al. 2008) and once uniform along the principal axes (the reference of the gap
statistic, Tibshirani et al. 2001), and brought back to distributions. They are grouped as the real
ones are, the number of groups chosen anew. The p of a silhouette is the larger of the two: heads
along a gradient fall into even parts, which a normal spread does not.

In simulations of 24 heads in one spread (normal, log-normal, along a gradient, random
distributions) at most 3 % are called clustered, and all of those in two to four noisy groups. Heads
of one mean that differ only in how sharply they look are called clustered in 25 %: sharp and even
heads do lie apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import adjusted_rand_score

from codi_lens.errors import AttentionError, check_seed, whole_number

_HALVED = 30
"""Of how many draws of each kind the stability is taken: a median needs fewer than a tail."""


@dataclass(frozen=True, eq=False)
class NullClusters:
    """What heads without groups give when they are clustered.

    Attributes:
        p: how often their best silhouette reaches the real one (`against`), of the kind of spread
            that reaches it oftener; the real heads count as one draw.
        silhouette: what 5 % of the draws of that kind reach.
        stability: of the same heads between two halves of the problems, median over draws: what
            heads that differ without groups show. NaN for one problem.
        best: the best silhouette of each draw.
    """

    p: float
    silhouette: float
    stability: float
    best: Float[np.ndarray, "kind draw"]

    def against(self, observed: float) -> NullClusters:
        """With the p of this silhouette.

        >>> null = NullClusters(1.0, 0.0, 1.0, np.array([[0.1, 0.2, 0.3], [0.0, 0.1, 0.1]]))
        >>> null.against(0.25).p
        0.5
        """
        reached = (self.best >= observed - 1e-12).sum(axis=1)
        p = (1 + reached.max()) / (1 + self.best.shape[1])
        silhouette = np.quantile(self.best, 0.95, axis=1).max()
        return NullClusters(float(p), float(silhouette), self.stability, self.best)


def head_shapes(
    mean: Float[np.ndarray, "*draw head query key"],
) -> Float[np.ndarray, "*draw head cell"]:
    """Where each thought looks: square roots of its distribution over outside, thoughts and itself.

    The Euclidean distance of the square roots is the Hellinger distance of the distributions.
    """
    visible = np.tril(mean)
    outside = np.clip(1 - visible.sum(axis=-1, keepdims=True), 0, 1)
    rows = np.concatenate([outside, visible], axis=-1)
    return np.sqrt(rearrange(rows, "... head query key -> ... head (query key)"))


def grouped(shapes: Float[np.ndarray, "head cell"], number: int) -> Int[np.ndarray, " head"]:
    """The group of each head, by Ward's criterion."""
    return fcluster(linkage(shapes, "ward"), number, criterion="maxclust").astype(int)


def silhouettes(
    shapes: Float[np.ndarray, "head cell"], labels: Int[np.ndarray, " head"]
) -> Float[np.ndarray, " head"]:
    """How much nearer each head is to its own group than to the next (Rousseeuw 1987).

    -1 for all heads that are too alike to be told apart; 0 for a head alone.

    >>> silhouettes(np.array([[0.0], [0.1], [1.0]]), np.array([1, 1, 2])).round(2)
    array([0.9 , 0.89, 0.  ])
    """
    return _silhouettes(squareform(pdist(shapes)), labels)


def null_clusters(
    shapes: Float[np.ndarray, "head cell"],
    numbers: Sequence[int],
    halves: Float[np.ndarray, "split head cell"] | None,
    *,
    n_draws: int,
    seed: int = 0,
) -> NullClusters:
    """Cluster heads without groups, drawn with the mean and covariance of real ones.

    Args:
        shapes: of the real heads, from `head_shapes`.
        numbers: of groups that are tried; the best is kept in every draw, as in the real heads.
        halves: half the difference between the shapes in two halves of the problems, in several
            splits: what a drawn head's halves may differ by. None for a single problem.
        n_draws: of each kind of spread.
        seed: of the draws.

    Raises:
        AttentionError: no draw, or a seed that is none.
    """
    whole_number("n_draws", n_draws, 1, error=AttentionError)
    draw = np.random.default_rng(check_seed(seed, AttentionError))
    mean = shapes.mean(axis=0)
    _, spread, axes = np.linalg.svd(shapes - mean, full_matrices=False)
    axes = axes * spread[:, None] / np.sqrt(len(shapes) - 1)
    size = (n_draws, len(shapes), len(axes))
    width = np.sqrt(3)  # of a uniform spread with variance 1
    best, stability = np.empty((2, n_draws)), []
    for kind, units in enumerate((draw.normal(size=size), draw.uniform(-width, width, size))):
        for place, unit in enumerate(units):
            heads = _as_shapes(mean + unit @ axes)
            best[kind, place], number = _best(heads, numbers)
            if halves is not None and place < _HALVED:
                differ = halves[place % len(halves)][draw.permutation(len(shapes))]
                pair = [grouped(_as_shapes(heads + way * differ), number) for way in (1, -1)]
                stability.append(adjusted_rand_score(*pair))
    return NullClusters(1.0, np.nan, float(np.median(stability)) if stability else np.nan, best)


def _as_shapes(points: Float[np.ndarray, "head cell"]) -> Float[np.ndarray, "head cell"]:
    """The nearest square roots of distributions, row by row."""
    n = int((np.sqrt(1 + 4 * points.shape[-1]) - 1) / 2)  # n (n + 1) cells
    rows = rearrange(np.clip(points, 0, None), "head (query key) -> head query key", query=n)
    length = np.sqrt((rows**2).sum(axis=-1, keepdims=True))
    return rearrange(rows / np.maximum(length, 1e-12), "head query key -> head (query key)")


def _best(shapes: Float[np.ndarray, "head cell"], numbers: Sequence[int]) -> tuple[float, int]:
    """The best mean silhouette, and the number of groups that gives it."""
    tree, distances = linkage(shapes, "ward"), squareform(pdist(shapes))
    means = []
    for number in numbers:
        labels = fcluster(tree, number, criterion="maxclust").astype(int)
        means.append(float(_silhouettes(distances, labels).mean()))
    best = int(np.argmax(means))
    return means[best], numbers[best]


def _silhouettes(
    distances: Float[np.ndarray, "head other"], labels: Int[np.ndarray, " head"]
) -> Float[np.ndarray, " head"]:
    """As scikit-learn's `silhouette_samples`, without its checks, which take most of the time."""
    member = labels[:, None] == np.unique(labels)
    if not 2 <= member.shape[1] < len(labels):
        return np.full(len(labels), -1.0)
    size, own, heads = member.sum(axis=0), member.argmax(axis=1), np.arange(len(labels))
    total = distances @ member
    within = total[heads, own] / np.maximum(size[own] - 1, 1)
    other = total / size
    other[heads, own] = np.inf
    nearest = other.min(axis=1)
    scale = np.maximum(np.maximum(within, nearest), 1e-300)
    return np.where(size[own] > 1, (nearest - within) / scale, 0.0)
