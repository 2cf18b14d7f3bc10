"""Output folders and files: nothing overwritten by mistake, nothing left half-written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codi_lens.errors import OutputError


@dataclass(frozen=True)
class Kind:
    """A kind of work that has a folder of its own, and how an earlier part of it is known.

    Attributes:
        marker: what every folder of such work holds, as a path in it.
        foreign: the end of the sentence on a folder that holds something else.
        other: that on one with other settings; may name `differing`, `found` and `wanted`.
        settings: the JSON file in it that says what the work is, where `begin` writes one.
        takes_empty: whether an empty folder will do for a new one.
    """

    marker: str
    foreign: str
    other: str = "holds other work ({differing} differ); choose another folder."
    settings: str = ""
    takes_empty: bool = True


def resumes(
    folder: Path,
    kind: Kind,
    wanted: Mapping[str, Any] | None = None,
    read: Callable[[Path], Mapping[str, Any]] | None = None,
) -> bool:
    """THE rule on what may be written where: whether work goes on in a folder, or begins there.

    Work begins where there is nothing, and goes on where there is an earlier part of the same
    work: its kind's marker, and settings that agree. Everything else is left alone. Nothing is
    written here.

    Args:
        folder: where the work is to be written.
        kind: what work.
        wanted: what decides its results, as JSON has it; None if the marker says enough.
        read: the settings of an earlier part, from its folder; by default those of `kind.settings`,
            which agree while nothing is written there.

    Raises:
        OutputError: it is a file, or holds something else, or work with other settings.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file; give a folder.")
    if not (folder / kind.marker).exists():
        if kind.takes_empty and not any(folder.iterdir()):
            return False
        raise OutputError(f"{folder} {kind.foreign}")
    described = folder / kind.settings
    if wanted is not None and (read is not None or described.is_file()):
        found = read_json(described) if read is None else read(folder)
        names = sorted({*wanted, *found})
        differing = [name for name in names if found.get(name) != wanted.get(name)]
        if differing:
            told = kind.other.format(differing=", ".join(differing), found=found, wanted=wanted)
            raise OutputError(f"{folder} {told}")
    return True


def begin(folder: Path, kind: Kind, wanted: Mapping[str, Any]) -> bool:
    """Apply `resumes`, and write what the work is where it begins; whether it goes on.

    Raises:
        OutputError: see `resumes`.

    >>> from tempfile import TemporaryDirectory
    >>> kind = Kind(marker="work.json", foreign="holds no work.", settings="work.json")
    >>> with TemporaryDirectory() as folder:
    ...     print([begin(Path(folder), kind, {"seed": 1}) for _ in range(2)])
    ...     try:
    ...         begin(Path(folder), kind, {"seed": 2})
    ...     except OutputError as error:
    ...         print(str(error).removeprefix(folder))
    [False, True]
     holds other work (seed differ); choose another folder.
    """
    wanted = json.loads(to_json(dict(wanted)))
    going_on = resumes(folder, kind, wanted)
    described = folder / kind.settings
    if not described.is_file():
        described.parent.mkdir(parents=True, exist_ok=True)
        write_text(described, to_json(wanted))
    return going_on


def check_output(out: str | Path, holds: str = "attention.zarr") -> Path:
    """The folder of an analysis, if one may be written there.

    Args:
        out: new, empty, or that of an earlier analysis.
        holds: the folder in it that tells an earlier analysis.

    Raises:
        OutputError: it is a file, or a folder with content other than an analysis.
    """
    foreign = "exists with other content; give a new folder, or that of an analysis."
    resumes(Path(out), Kind(holds, foreign))
    return Path(out)


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


def read_json(path: Path) -> dict[str, Any]:
    """What `to_json` wrote.

    Raises:
        OutputError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{path} is damaged; delete its folder and run again.") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
