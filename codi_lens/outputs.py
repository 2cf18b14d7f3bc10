"""Output folders and files: nothing overwritten by mistake, nothing left half-written."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from codi_lens.errors import OutputError


def check_output(out: str | Path, holds: str = "attention.zarr") -> Path:
    """The output folder, if an analysis may be written there.

    Args:
        out: new, empty, or that of an earlier analysis.
        holds: the folder in it that tells an earlier analysis.

    Raises:
        OutputError: it is a file, or a folder with content other than an analysis.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder for the analysis.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / holds).is_dir():
        raise OutputError(
            f"{folder} exists with other content; give a new folder, or that of an analysis."
        )
    return folder


def to_json(value: Any) -> str:
    """Valid JSON: a number that is not finite (no anchor in any answer, say) becomes null.

    >>> print(to_json({"a": float("nan")}), end="")
    {
      "a": null
    }
    """
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_text(path: Path, text: str) -> None:
    """Write through a temporary file, so that nothing half-written is left behind."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
