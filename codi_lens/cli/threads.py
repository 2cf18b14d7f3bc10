"""How many threads of the CPU a command takes."""

from __future__ import annotations

import os

from codi_lens.workers.spread import allowed_cores

_LARGE = 50_000_000


def default_threads(n_parameters: int) -> int:
    """How many CPU threads a model of this size gets, where none are asked for.

    Source: `ablate --all` of tiny-gpt2, two threads: 15 s on two idle cores against 17 s of one
    thread, 275 s against 20 s on two busy ones.
    """
    small = n_parameters < _LARGE and _asked_of_openmp() is None
    return 1 if small else cores()


def cores() -> int:
    """The cores that this process may use, no more than OMP_NUM_THREADS."""
    allowed = allowed_cores()
    return min(_asked_of_openmp() or allowed, allowed)


def _asked_of_openmp() -> int | None:
    """OMP_NUM_THREADS, the outermost level of "4,2"; None where it holds no number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and 0 < len(first) < 10 and int(first) > 0 else None
