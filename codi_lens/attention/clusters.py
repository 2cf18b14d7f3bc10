"""Heads grouped by the shape of their attention, with no types set by hand.

A head's shape is where each thought looks: one distribution per thought over everything outside the
thoughts, each thought before it, and itself. Heads are compared by the Hellinger distance between
these distributions and joined by Ward's criterion; the number of groups is the one with the best
silhouette.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
import pandas as pd
import xarray as xr
from einops import rearrange
from jaxtyping import Float, Int
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score, silhouette_samples

from codi_lens import metrics
from codi_lens.attention.scores import HeadScores
from codi_lens.attention.stability import half_weights
from codi_lens.errors import AttentionError

MOST_CLUSTERS = 8


@dataclass(frozen=True, eq=False)
class HeadClusters:
    """Heads grouped by the shape of their attention.

    Attributes:
        heads: one row per head: layer, head, name, `cluster` (A is the largest), `silhouette` (of
            the head within its cluster: near 1 inside it, below 0 nearer to another), and where its
            thoughts look: `outside` the thoughts, at `self`, the `previous` thought, or `further`
            back, averaged over thoughts.
        patterns: the mean thought block of each cluster.
        silhouette: mean over heads, for each number of clusters tried.
        stability: adjusted Rand index between the clusterings of two disjoint halves of the
            problems, median over splits; 1 is the same grouping, 0 is chance. NaN for one problem.
    """

    heads: pd.DataFrame
    patterns: xr.DataArray
    silhouette: dict[int, float]
    stability: float

    def agreement(self, types: pd.Series) -> float:
        """Adjusted Rand index between the clusters and other labels of the heads (types, bands).

        Args:
            types: labels indexed by head name, as `rank_heads(…).set_index("name")["type"]`.

        Raises:
            AttentionError: a head without a label.
        """
        missing = [name for name in self.heads["name"] if name not in types.index]
        if missing:
            raise AttentionError(f"There is no type for the head {missing[0]}.")
        return float(adjusted_rand_score(types[self.heads["name"]], self.heads["cluster"]))


def cluster_heads(
    attention: xr.DataArray,
    n_clusters: int | None = None,
    *,
    n_splits: int = 50,
    seed: int = 0,
) -> HeadClusters:
    """Group the heads of a model by the shape of their attention.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        n_clusters: how many groups; by default the number up to 8 with the best mean silhouette.
        n_splits: how often the problems are halved to measure stability.
        seed: of the splits.

    Raises:
        AttentionError: not labelled attention, NaN in it, fewer than three heads, or a number of
            clusters that they cannot form.

    >>> from codi_lens import CodiModel, extract, problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> found = cluster_heads(attention, 3)
    >>> sorted(found.heads["cluster"].unique()), dict(found.patterns.sizes)
    (['A', 'B', 'C'], {'cluster': 3, 'query': 6, 'key': 6})
    """
    scores = HeadScores.of(attention, "position")
    n_heads = len(scores.mean)
    most = min(MOST_CLUSTERS if n_clusters is None else len(ascii_uppercase), n_heads - 1)
    if not 2 <= (n_clusters or 2) <= most:
        raise AttentionError(
            f"{n_heads} heads cannot form {n_clusters or 2} clusters; there must be 2 to "
            f"{len(ascii_uppercase)} of them, and more heads than clusters."
        )
    shapes = _shapes(scores.mean)
    tried = range(2, most + 1) if n_clusters is None else [n_clusters]
    groups = {number: _groups(shapes, number) for number in tried}
    silhouettes = {number: _silhouettes(shapes, labels) for number, labels in groups.items()}
    means = {number: float(values.mean()) for number, values in silhouettes.items()}
    best = max(means, key=lambda number: means[number])
    labels = np.array([ascii_uppercase[place] for place in _by_size(groups[best])])
    table = pd.DataFrame(
        {
            "layer": [layer for layer, _ in scores.heads],
            "head": [head for _, head in scores.heads],
            "name": scores.head_names,
            "cluster": labels,
            "silhouette": silhouettes[best],
            **_where_thoughts_look(scores.mean),
        }
    )
    names = sorted(set(labels))
    patterns = xr.DataArray(
        np.stack([scores.mean[labels == name].mean(axis=0) for name in names]),
        dims=("cluster", "query", "key"),
        coords={"cluster": names, **scores.names},
    )
    stability = np.nan
    if scores.n_problems > 1:
        stability = _stability(scores, best, n_splits, seed)
    return HeadClusters(table, patterns, means, stability)


def _shapes(mean: Float[np.ndarray, "head query key"]) -> Float[np.ndarray, "head cell"]:
    """Square roots of the distributions, so that Euclidean distance is Hellinger distance."""
    visible = np.tril(mean)
    outside = np.clip(1 - visible.sum(axis=-1, keepdims=True), 0, 1)
    rows = np.concatenate([outside, visible], axis=-1)
    return np.sqrt(rearrange(rows, "head query key -> head (query key)"))


def _groups(shapes: np.ndarray, number: int) -> Int[np.ndarray, " head"]:
    return fcluster(linkage(shapes, "ward"), number, criterion="maxclust").astype(int)


def _silhouettes(shapes: np.ndarray, labels: np.ndarray) -> Float[np.ndarray, " head"]:
    if not 2 <= len(set(labels)) < len(labels):
        return np.full(len(labels), -1.0)  # heads too alike to be told apart
    return np.asarray(silhouette_samples(shapes, labels))


def _by_size(labels: Int[np.ndarray, " head"]) -> Int[np.ndarray, " head"]:
    """The labels renumbered from 0, the largest group first."""
    values, counts = np.unique(labels, return_counts=True)
    order = values[np.argsort(-counts, kind="stable")]
    return np.argmax(labels[:, None] == order, axis=1)


def _where_thoughts_look(mean: Float[np.ndarray, "head query key"]) -> dict[str, np.ndarray]:
    n = mean.shape[-1]
    own = np.asarray(metrics.self_score(mean))
    given = np.asarray(metrics.attention_to_earlier(mean)).mean(axis=-1)
    previous = np.asarray(metrics.sequential_score(mean)) * (n - 1) / n  # ct0 has no previous one
    return {
        "outside": 1 - own - given,
        "self": own,
        "previous": previous,
        "further": given - previous,
    }


def _stability(scores: HeadScores, number: int, n_splits: int, seed: int) -> float:
    halves = half_weights(scores.n_problems, n_splits=n_splits, seed=seed)
    means = [scores.mean_under(weights) for weights in halves]
    return float(
        np.median(
            [
                adjusted_rand_score(_groups(_shapes(one), number), _groups(_shapes(other), number))
                for one, other in zip(*means, strict=True)
            ]
        )
    )
