"""The fuzz runs: a few inputs, all of them drawn again by their numbers."""

from __future__ import annotations

import subprocess
import sys

from support.oracle import ROOT


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "fuzz.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_few_odd_inputs_end_without_a_traceback() -> None:
    done = fuzz("--n", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| all")]
    assert rows and rows[0][1] == "60" and rows[0][4:6] == ["0", "0"]
