"""A kernel forked from a process that has imported the libraries, which notebooks share.

Importing TransformerLens takes 6 s of CPU, as long as many notebooks. The Makefile puts this kernel
before that of the environment. The process that forks is started by the first notebook of a run of
pytest, and ends when nobody has asked it for two minutes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

IDLE = 120.0  # seconds


def ask(connection_file: str) -> None:
    """Ask for a kernel, and stay until it has ended: whoever ends this process ends the kernel."""
    asked = {"file": connection_file, "folder": str(Path.cwd()), "settings": dict(os.environ)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent before a kernel is told to shut down
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", os.getppid())
    with reached(f"{tempfile.gettempdir()}/codi_lens-kernels-{run}") as server:
        server.sendall(json.dumps(asked).encode() + b"\n")
        server.recv(1)


def reached(address: str) -> socket.socket:
    for turn in range(600):
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(address)
        except OSError:
            server.close()
            if turn == 0:
                subprocess.Popen(
                    [sys.executable, __file__, "--at", address], start_new_session=True
                )
            time.sleep(0.1)
        else:
            return server
    raise TimeoutError(f"Nobody answers at {address}.")


def serve(address: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(address)
    except OSError:  # another notebook's is on its way
        return
    listener.listen()  # who asks meanwhile waits
    import_libraries()
    listener.settimeout(IDLE)
    try:
        while True:
            client, _ = listener.accept()
            with client, client.makefile() as lines:
                asked = json.loads(lines.readline())
                if os.fork() == 0:
                    listener.close()
                    be_a_kernel(client, **asked)
    except TimeoutError:
        Path(address).unlink()


def import_libraries() -> None:
    import ipykernel.kernelapp
    import pandas
    import plotly.io

    import codi_lens

    public: list[str] = getattr(codi_lens, "__all__")  # noqa: B009  (its stub declares names only)
    assert all((ipykernel.kernelapp, pandas, plotly.io, *(getattr(codi_lens, n) for n in public)))


def be_a_kernel(client: socket.socket, file: str, folder: str, settings: dict[str, str]) -> None:
    from ipykernel.kernelapp import IPKernelApp

    os.environ.clear()
    os.environ.update(settings)
    os.environ.pop("JPY_PARENT_PID", None)  # is not the process that this one was forked from
    os.chdir(folder)
    threading.Thread(target=lambda: (client.recv(1), os._exit(1)), daemon=True).start()
    IPKernelApp.launch_instance(["-f", file])
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[2]) if sys.argv[1] == "--at" else ask(sys.argv[1])
