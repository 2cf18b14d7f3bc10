"""How well scores put what is true before what is not, for one short list of them after another.

What scikit-learn's `roc_auc_score` and `average_precision_score` give, to the bit, without their
checks of every list, which for lists of a few edges take nearly all of their time.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def recovery(
    labels: Float[np.ndarray, " item"],
    values: Float[np.ndarray, " item"],
    weights: Float[np.ndarray, " item"] | None = None,
) -> tuple[float, float]:
    """The area under the ROC curve of scores, and their average precision.

    Args:
        labels: 1 where an item is true, 0 elsewhere; both occur.
        values: the scores: the higher, the more an item is claimed. Finite; equal ones are tied.
        weights: how often each item counts, 1 if not given.

    >>> recovery(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.4, 0.3, 0.1]))
    (0.75, 0.8333333333333333)
    """
    if weights is not None:
        labels, values, weights = (each[weights != 0] for each in (labels, values, weights))
    order = np.argsort(values, kind="stable")[::-1]
    counts = np.ones(len(order)) if weights is None else weights[order]
    true, ends = labels[order], np.append(np.diff(values[order]) != 0, True)
    hits = np.cumsum(true * counts)[ends]
    misses = np.cumsum((1 - true) * counts)[ends]
    gained = -np.diff(np.append((hits / hits[-1])[::-1], 0.0))
    precision = (hits / (hits + misses))[::-1]
    return _area(hits, misses), float(np.sum(gained * precision))


def _area(hits: Float[np.ndarray, " end"], misses: Float[np.ndarray, " end"]) -> float:
    """Under the curve of hits over misses, whose points on straight lines are left out."""
    if len(hits) > 2:
        bends = (np.diff(hits, 2) != 0) | (np.diff(misses, 2) != 0)
        corners = np.concatenate([[True], bends, [True]])
        hits, misses = hits[corners], misses[corners]
    hits, misses = np.append(0.0, hits), np.append(0.0, misses)
    return float(np.trapezoid(hits / hits[-1], misses / misses[-1]))
