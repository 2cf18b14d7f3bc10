"""Heads grouped by the shape of their attention, with no types set by hand.

A head's shape is where each thought looks: one distribution per thought over everything outside the
thoughts, each thought before it, and itself. Heads are compared by the Hellinger distance between
these distributions and joined by Ward's criterion; the number of groups is the one with the best
silhouette.

Ward's criterion divides any heads, and groups of heads that merely differ are the same groups in
every half of the problems. So the silhouette and the stability are compared with those of heads
without groups (`codi_lens.attention.cluster_null`); where such heads fall apart as far, or into
groups that halves of the problems agree on better, there are no clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_uppercase

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float, Int
from sklearn.metrics import adjusted_rand_score

from codi_lens import metrics
from codi_lens.attention.cluster_null import (
    NullClusters,
    grouped,
    head_shapes,
    null_clusters,
    silhouettes,
)
from codi_lens.attention.hub_test import ALPHA
from codi_lens.attention.labels import labelled
from codi_lens.attention.repeats import chains_in
from codi_lens.attention.scores import HeadScores
from codi_lens.attention.stability import half_weights
from codi_lens.errors import AttentionError
from codi_lens.wording import count, p_text

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
        n_problems: distinct problems.
        null: what heads without groups would have given (see `null_clusters`).
    """

    heads: pd.DataFrame
    patterns: xr.DataArray
    silhouette: dict[int, float]
    stability: float
    n_problems: int
    null: NullClusters

    @property
    def found(self) -> bool:
        """Whether there are clusters.

        Heads without groups rarely (p < 0.05) fall so far apart, and halves of the problems agree
        on these groups at least as well as on those that are made of heads without any.
        """
        return self.null.p < ALPHA and not self.stability < self.null.stability

    @property
    def verdict(self) -> str:
        """Whether there are clusters, and what that rests on."""
        halves = (
            ""
            if np.isnan(self.stability)
            else f"; disjoint halves of the problems agree on it to {self.stability:.2f} (adjusted "
            f"Rand index), on groups of such heads to {self.null.stability:.2f}"
        )
        return (
            f"{'Clusters' if self.found else 'No clusters'}: the best grouping of "
            f"{count(len(self.heads), 'head')} has a mean silhouette of "
            f"{max(self.silhouette.values()):.2f}; heads of one spread, without groups, reach "
            f"{self.null.silhouette:.2f} in 5 % of draws ({p_text(self.null.p)}){halves}. "
            f"Attention between thoughts, {count(self.n_problems, 'distinct problem')}."
        )

    def summary(self) -> pd.DataFrame:
        """The verdict and its numbers, in one row."""
        return pd.DataFrame(
            {
                "clusters_found": self.found,
                "n_groups": self.heads["cluster"].nunique(),
                "n_heads": len(self.heads),
                "n_problems": self.n_problems,
                "silhouette": max(self.silhouette.values()),
                "null_silhouette_95": self.null.silhouette,
                "p": self.null.p,
                "stability": self.stability,
                "null_stability": self.null.stability,
            },
            index=[0],
        )

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
    n_draws: int = 199,
    seed: int = 0,
) -> HeadClusters:
    """Group the heads of a model by the shape of their attention, and say if there are groups.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        n_clusters: how many groups; by default the number up to 8 with the best mean silhouette.
        n_splits: how often the problems are halved to measure stability; a repeated problem stays
            with the first.
        n_draws: of heads without groups.
        seed: of the splits and the draws.

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
    shapes = head_shapes(scores.mean)
    tried = range(2, most + 1) if n_clusters is None else [n_clusters]
    groups = {number: grouped(shapes, number) for number in tried}
    of_heads = {number: silhouettes(shapes, labels) for number, labels in groups.items()}
    means = {number: float(values.mean()) for number, values in of_heads.items()}
    best = max(means, key=lambda number: means[number])
    labels = np.array([ascii_uppercase[place] for place in _by_size(groups[best])])
    table = pd.DataFrame(
        {
            "layer": [layer for layer, _ in scores.heads],
            "head": [head for _, head in scores.heads],
            "name": scores.head_names,
            "cluster": labels,
            "silhouette": of_heads[best],
            **_where_thoughts_look(scores.mean),
        }
    )
    names = sorted(set(labels))
    patterns = xr.DataArray(
        np.stack([scores.mean[labels == name].mean(axis=0) for name in names]),
        dims=("cluster", "query", "key"),
        coords={"cluster": names, **scores.names},
    )
    chains = chains_in(labelled(attention))
    n_distinct = int(chains.max()) + 1
    halves = None
    if n_distinct > 1:
        weights = half_weights(n_distinct, n_splits=n_splits, seed=seed)
        halves = [head_shapes(scores.mean_under(_of_groups(each, chains))) for each in weights]
    stability = np.nan if halves is None else _stability(*halves, number=best)
    null = null_clusters(
        shapes,
        list(tried),
        None if halves is None else np.subtract(*halves) / 2,
        n_draws=n_draws,
        seed=seed,
    )
    null = null.against(means[best])
    return HeadClusters(table, patterns, means, stability, n_distinct, null)


def _of_groups(weights: np.ndarray, groups: Int[np.ndarray, " problem"]) -> np.ndarray:
    """The weight of each group, shared among its problems."""
    return weights[:, groups] / np.bincount(groups)[groups]


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


def _stability(one: np.ndarray, other: np.ndarray, *, number: int) -> float:
    groups = [[grouped(shapes, number) for shapes in half] for half in (one, other)]
    return float(np.median([adjusted_rand_score(*pair) for pair in zip(*groups, strict=True)]))
