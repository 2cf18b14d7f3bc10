"""What a rehearsal takes for the results of batches that it does not run."""

from __future__ import annotations

import numpy as np
import pandas as pd


def made_up(sample: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """A table as long as these labels: rows of a sample over and over, a little moved."""
    rows = sample.iloc[np.arange(len(labels)) % len(sample)].reset_index(drop=True)
    for name in rows.columns.difference(labels.columns):
        rows[name] = moved(rows[name].to_numpy())
    return rows.assign(**{str(name): labels[name].to_numpy() for name in labels})


def moved(values: np.ndarray) -> np.ndarray:
    """Values that were made up from others: what is no whole number is moved a little.

    No two runs give the same numbers, and files of equal ones would be smaller.

    >>> moved(np.array([1.0, 0.0])).tolist(), bool(moved(np.array([0.5]))[0] == 0.5)
    ([1.0, 0.0], False)
    """
    if values.dtype.kind != "f" or (values[np.isfinite(values)] % 1 == 0).all():
        return values
    noise = np.random.default_rng(0).standard_normal(values.shape, dtype=np.float32)
    return values * (1 + 1e-3 * noise)
