"""Who does the work: what may be asked for, made sure before anything is loaded."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Any, Literal, TypedDict

from codi_lens.errors import CodiLensError, shown, whole_number

Workers = int | Literal["auto"]


class Spread(TypedDict, total=False):
    """Who does the work.

    Attributes:
        workers: how many workers of Ray: a number, or "auto", one for each GPU if the model is on
            one, else one for each core (or as many cores as it has threads); by default none, and
            the work is done here.
        ray_address: of a running cluster, "auto" or "host:port"; by default Ray starts one on this
            machine, which lasts as long as the process.
    """

    workers: Workers | None
    ray_address: str | None


def allowed_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spread_of(workers: Any, ray_address: Any) -> Spread:
    """Who does the work, checked; an address alone means workers="auto".

    Args:
        workers: see `Spread`.
        ray_address: see `Spread`.

    Raises:
        CodiLensError: no such number of workers, no address, or Ray is not installed.

    >>> spread_of(None, None)
    {}
    >>> spread_of(0, None)
    Traceback (most recent call last):
    codi_lens.errors.CodiLensError: workers must be at least 1, not 0.
    """
    if workers is None and ray_address is None:
        return {}
    if isinstance(workers, str) and workers != "auto":
        raise CodiLensError(f'workers must be a whole number or "auto", not {shown(workers)}.')
    if ray_address is not None and not (isinstance(ray_address, str) and ray_address.strip()):
        raise CodiLensError(
            f'ray_address is "auto" or the host:port of a cluster, not {shown(ray_address)}.'
        )
    if workers is not None and workers != "auto":
        workers = whole_number("workers", workers, 1, 100_000, CodiLensError)
    if find_spec("ray") is None:
        raise CodiLensError(
            "Workers need the `ray` package: pip install 'codi_lens[ray]'; or leave out workers "
            "(--workers)."
        )
    return {"workers": workers or "auto", "ray_address": ray_address}
