"""Commands that are stopped at a file operation go on; `make faults` stops them everywhere."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from support.oracle import ROOT


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="stops need fork")
def test_what_is_stopped_goes_on() -> None:
    script = str(ROOT / "benchmarks" / "faults.py")
    command = [sys.executable, script, "--points", "3", "--kills", "1"]
    command += ["--only", "extract", "analyze", "ablate --heads", "save_pretrained"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (.+?) \| (\d*) \| (.+) \|$", done.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == [
        *("`extract`", "`analyze`", "`ablate --heads`", "`save_pretrained`", "all")
    ]
    assert rows[-1][2] == "16 | 16 | 0 | 0 | 0"
