"""Output folders and files: nothing overwritten by mistake, nothing left half-written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
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


def model_names(sources: Sequence[str]) -> list[str]:
    """A short, distinct name for each model, from its folder or hub name.

    >>> model_names(["checkpoints/tiny-gpt2", "zen-E/CODI-gpt2"])
    ['tiny-gpt2', 'CODI-gpt2']
    >>> model_names(["first/model", "second/model"]), model_names(["a/model", "a/model"])
    (['first-model', 'second-model'], ['model-1', 'model-2'])
    """
    parts = [
        Path(source).resolve().parts if Path(source).exists() else Path(source).parts
        for source in sources
    ]
    for depth in (1, 2):
        names = ["-".join(part.strip("/\\") for part in each[-depth:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{each[-1]}-{place}" for place, each in enumerate(parts, 1)]


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
