"""One thread at a time on a model: a run sets hooks on it, which another would set off."""

from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager
from typing import Any
from weakref import WeakKeyDictionary

from codi_lens.loading.loaded import Lens

# Beside the models, not in them, so that they can be copied and pickled.
_LOCKS: WeakKeyDictionary[Lens, AbstractContextManager[Any]] = WeakKeyDictionary()
_GUARD = threading.Lock()


def locked(lens: Lens) -> AbstractContextManager[Any]:
    """The lock of a model; a thread that holds it may take it again.

    >>> from codi_lens import CodiModel
    >>> lens = CodiModel.from_pretrained("checkpoints/tiny-gpt2").lens
    >>> with locked(lens), locked(lens):
    ...     pass
    """
    with _GUARD:
        return _LOCKS.setdefault(lens, threading.RLock())


def _forget() -> None:
    """A forked process has none of the threads that held a lock."""
    global _GUARD
    _GUARD = threading.Lock()
    _LOCKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
