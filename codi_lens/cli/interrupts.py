"""^C is one line and exit code 130, whenever it comes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = "codi-lens: stopped; the same command resumes."
EXIT_CODE = 130


@contextmanager
def one_line_on_interrupt() -> Iterator[None]:
    """Turn ^C into `SystemExit(130)`; during an import, end the process at once.

    Libraries catch what is raised while they are imported (transformers makes a ModuleNotFoundError
    of it) or let it out as a warning, so nothing is raised there.
    """
    if threading.current_thread() is not threading.main_thread():  # only this one gets signals
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        # Python 3.11 dies of the signal if KeyboardInterrupt ever left an `exec` of text, such as
        # those of dataclasses; another `exec` makes it forget.
        exec("")
        print(STOPPED, file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            if sys.stdout.isatty():  # a spinner hides the cursor
                os.write(sys.stdout.fileno(), b"\r\x1b[K\x1b[?25h")
            os.write(sys.stderr.fileno(), f"{STOPPED}\n".encode())
            os._exit(EXIT_CODE)
        frame = frame.f_back
    raise KeyboardInterrupt
