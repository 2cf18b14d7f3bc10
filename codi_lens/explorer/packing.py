"""Arrays as the page takes them: small, deflated blocks with names."""

from __future__ import annotations

import zlib
from base64 import b64encode

import numpy as np
from jaxtyping import Float, UInt8

MAX_ERROR = 1 / 510
"""How far a value in [0, 1] may move when it is kept in 8 bits."""


def to_bytes(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Values in [0, 1] as whole numbers up to 255, off by 1/510 at most; NaN becomes 0.

    >>> to_bytes(np.array([0.0, 0.5, 1.0, np.nan])).tolist()
    [0, 128, 255, 0]
    """
    # A softmax in float32 may end a rounding error beyond 1.
    return np.rint(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)


def deflated(values: np.ndarray) -> bytes:
    """An array's bytes, little-endian, in the zlib format that browsers inflate."""
    ordered = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return zlib.compress(np.ascontiguousarray(ordered).tobytes(), 6)


def as_text(block: bytes) -> str:
    """A block as it stands in a page."""
    return b64encode(block).decode("ascii")
