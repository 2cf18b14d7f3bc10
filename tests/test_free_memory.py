"""Memory that nothing needs any longer goes back to the system."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from threading import Thread

import psutil
import pytest

from codi_lens import memory
from codi_lens.memory import mapped, tidy

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(psutil, "heap_trim"), reason="not glibc's memory"
)


@pytest.fixture(autouse=True)
def untidied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_tidied", {})


def resident() -> float:
    """Memory of this process, in MB."""
    return psutil.Process().memory_info().rss / 1e6


def in_a_thread(work: Callable[[], None]) -> None:
    thread = Thread(target=work)
    thread.start()
    thread.join()


def fill(size: int, n: int) -> None:
    """Have n pieces of memory at once, and none of them at the end."""
    pieces = [b"x" * size for _ in range(n)]
    pieces.clear()


@glibc
def test_what_is_free_below_what_is_not_goes_back() -> None:
    left = [bytearray(40_000) for _ in range(5000)]  # 200 MB, too small to be mapped by themselves
    del left[:-1]  # what lives longer lies above, so that the heap cannot shrink
    free = resident()
    tidy("batch")
    assert free - resident() > 150


@glibc
def test_what_a_thread_frees_goes_back_where_memory_is_mapped() -> None:
    with mapped():
        pass  # now glibc keeps what is smaller than 32 MB
    before = resident()
    with mapped():
        in_a_thread(lambda: fill(300_000, 180))
    assert resident() - before < 10


def test_memory_goes_back_at_most_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[None] = []
    monkeypatch.setattr(psutil, "heap_trim", lambda: trims.append(None), raising=False)
    clock = iter([0.0, 0.25, 0.49, 0.5, 0.9, 1.25, 1.3, 1.5, 1.9])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert [(tidy("pass"), len(trims))[1] for _ in range(6)] == [1, 1, 1, 2, 2, 3]
    assert [(tidy("batch"), len(trims))[1] for _ in range(3)] == [4, 4, 5], "though it was a pass"


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_other_systems_are_left_alone(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.delattr(psutil, "heap_trim", raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # which is not called
    tidy("batch")
    with mapped():
        pass
