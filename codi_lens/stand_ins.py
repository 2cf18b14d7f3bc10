"""What a rehearsal takes for the results of batches that it does not run."""

from __future__ import annotations

import numpy as np
import pandas as pd

_DRAW = np.random.default_rng(0)


def made_up(sample: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A table as long as these labels: rows of a sample over and over, a little moved."""
    rows = sample.iloc[np.arange(len(labels)) % len(sample)].reset_index(drop=True)
    for name in rows.columns.difference(labels.columns):
        rows[name] = moved(rows[name].to_numpy())
    return rows.assign(**{str(name): labels[name].to_numpy() for name in labels})


def moved(values: np.ndarray) -> np.ndarray:
    """Values that were made up from others: what is no whole number is moved a little.

    No two runs give the same numbers, and files of equal ones would be smaller: each call moves
    them otherwise.

    >>> moved(np.array([1.0, 0.0])).tolist(), len({moved(np.array([0.5]))[0] for _ in range(9)})
    ([1.0, 0.0], 9)
    """
    if values.dtype.kind != "f" or (values[np.isfinite(values)] % 1 == 0).all():
        return values
    return values * (1 + 1e-2 * _DRAW.standard_normal(values.shape, dtype=np.float32))
