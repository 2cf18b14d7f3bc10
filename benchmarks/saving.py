"""Where a benchmark's page goes: printed, and with SAVE=1 written into `results/`."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "results"


def save(name: str, text: str) -> None:
    """Write `results/<name>.md` if the environment says SAVE=1; a run that only looks leaves it."""
    if os.environ.get("SAVE") == "1":
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.md").write_text(text, encoding="utf-8")
