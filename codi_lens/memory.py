"""Memory that nothing needs any longer, given back to the system.

glibc keeps what is freed, for what comes next. Batches are of many shapes, and a large one seldom
fits where another one was, so that what it keeps grows with their number. Elsewhere nothing is done
here.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_EVERY = 0.5
"""Seconds between which free memory goes back, for 2 to 3 % of them at GPT-2's size."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""What glibc's `mallopt` sets: see malloc.h."""
_LEAST, _MOST = 128 << 10, 32 << 20
"""Bytes from which on memory is mapped: glibc's first threshold, and the one it works up to."""
_tidied: dict[str, float] = {}  # when free memory went back last, before what


def tidy(before: str) -> None:
    """Give memory that is free back, unless that was done a moment ago.

    Args:
        before: what comes next. Most is free before a batch, which therefore does not wait because
            of what went back before a pass.
    """
    now = time.perf_counter()
    last = _tidied.get(before, float("-inf"))
    if now - last >= _EVERY and hasattr(psutil, "heap_trim"):  # not with every libc
        psutil.heap_trim()
        _tidied[before] = now


@contextmanager
def mapped() -> Iterator[None]:
    """Give large pieces of memory back as soon as they are freed, whichever thread needs them.

    What other threads than the first have freed, `tidy` cannot give back. Afterwards glibc keeps
    pieces of less than 32 MB, in the whole process, as it does once one so large was freed.
    """
    _map_from(_LEAST)
    try:
        yield
    finally:
        _map_from(_MOST)


def _map_from(threshold: int) -> None:
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 2 * _MOST)
        libc.mallopt(_MMAP_THRESHOLD, threshold)
