"""What made a result: versions of the libraries that compute, and the commit of this one."""

from __future__ import annotations

import platform
import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import codi_lens

_LIBRARIES = ("torch", "transformers", "transformer-lens", "numpy", "xarray", "zarr")


@cache
def versions() -> dict[str, str]:
    """Of Python and of the libraries, by name.

    >>> list(versions())[:3]
    ['python', 'torch', 'transformers']
    """
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


@cache
def git_commit() -> str | None:
    """The commit of the checkout that codi_lens runs from; None where it runs from none."""
    checkout = Path(codi_lens.__file__).resolve().parents[1]
    if not (checkout / ".git").exists():
        return None
    with suppress(OSError, subprocess.CalledProcessError):
        asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    return None
