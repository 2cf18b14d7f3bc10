"""Output folders and files: nothing overwritten by mistake, nothing left half-written."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from codi_lens import __version__
from codi_lens.errors import CodiLensError, OutputError, as_path
from codi_lens.work import check_may_write

VERSION = "codi_lens"
"""Under this name work says which version began it; another version may go on with it."""
_PARTIAL = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.codi_lens\.partial", re.DOTALL)


@dataclass(frozen=True)
class Kind:
    """A kind of work that has a folder of its own, and how an earlier part of it is known.

    Attributes:
        marker: what every folder of such work holds, as a path in it.
        foreign: the end of the sentence on a folder that holds something else.
        other: that on one with other settings; may name `differing`, `found` and `wanted`.
        settings: the JSON file in it that says what the work is, where `begin` writes one.
        takes_empty: whether an empty folder will do for a new one; one with nothing but what a
            stopped process left of its own counts as empty.
        ours: tells work that is known by more than its marker.
    """

    marker: str
    foreign: str
    other: str = "holds other work ({differing} differ); choose another folder."
    settings: str = ""
    takes_empty: bool = True
    ours: Callable[[Path], bool] | None = None


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
    ours = (folder / kind.marker).exists() if kind.ours is None else kind.ours(folder)
    if not ours:
        if kind.takes_empty and all(_PARTIAL.fullmatch(each.name) for each in folder.iterdir()):
            return False
        raise OutputError(f"{folder} {kind.foreign}")
    described = folder / kind.settings
    if wanted is not None and (read is not None or described.is_file()):
        found = read_json(described) if read is None else read(folder)
        names = sorted({*wanted, *found} - {VERSION})
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
        write_text(described, to_json({**wanted, VERSION: __version__}))
    return going_on


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a folder to this process, and clear what a stopped one left half-written beside it.

    Where the place cannot be written to or its file system knows no locks, nothing is kept.

    Raises:
        OutputError: another process keeps it, or `check_may_write` refuses it.
    """
    check_may_write(folder)
    folder = folder.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.codi_lens.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise OutputError(
            f"{folder} is being written by another process; wait for it, or choose another folder."
        ) from None
    except (OSError, NotImplementedError):
        pass
    try:
        if lock.is_locked:
            _clear(folder.parent.glob(f".{_escaped(folder.name)}.*.partial"))
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                if not Path(lock.lock_file).stat().st_size:
                    Path(lock.lock_file).unlink()
            lock.release()


@contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A new name to write a file or a folder under; it takes its place once it is whole.

    The name is of this process alone. What stood under it is removed if writing fails.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.codi_lens.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        _remove(partial)


def clear_partials(folder: Path) -> None:
    """Remove what a stopped process left half-written in a folder; ours, and `held`."""
    _clear(folder.rglob(".*.partial"))


def _clear(paths: Iterable[Path]) -> None:
    for path in [each for each in paths if _PARTIAL.fullmatch(each.name)]:
        _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def check_folder(given: str | Path) -> Path:
    """A folder that is there, to be read.

    Raises:
        OutputError: there is none under this name.
    """
    folder = as_path("folder", given)
    if not folder.is_dir():
        raise OutputError(f"{folder} is no folder; give that of a codi-lens command.")
    return folder


def check_output(out: str | Path, command: str, *, whole: bool = False) -> Path:
    """The folder of a report, if this command may write it.

    Args:
        out: new, empty, or that of an earlier run of the same command.
        command: what the report is of, such as "ablate --all"; or its first word.
        whole: whether one word is all of it.

    Raises:
        OutputError: it is a file, holds something else, or the report of another command.
    """
    out = as_path("out", out)
    word = "" if whole else command
    resumes(out, _REPORT, {"command": command}, lambda folder: _report_of(folder, word))
    return out


@contextmanager
def open_report(out: str | Path, command: str) -> Iterator[Path]:
    """The folder of a report, kept to this process, and marked as this command's before all else.

    Args:
        out: see `check_output`.
        command: what the report is of.

    Raises:
        OutputError: see `check_output`; or another process writes it.
    """
    folder = check_output(out, command, whole=True)
    with held(folder):
        check_output(folder, command, whole=True)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        clear_partials(folder)
        if not (folder / _MARKER).is_file():
            write_text(folder / _MARKER, to_json({"command": command, VERSION: __version__}))
        try:
            yield folder
        except CodiLensError:  # a mistake that came out before there was anything to keep
            if made and [each.name for each in folder.iterdir()] == [_MARKER]:
                shutil.rmtree(folder)
            raise


_MARKER = "codi_lens.json"
_OLDER = {
    "outcomes/command.json": None,
    "attention.zarr/zarr.json": "analyze",
    "results/*/attention.zarr/zarr.json": "study",
}
"""What tells reports that are older than the marker, and of which command; None if it says so."""


def _report_of(folder: Path, asked: str = "") -> dict[str, Any]:
    """The command that a folder is the report of; empty for what is no report of ours."""
    found = None
    if (folder / _MARKER).is_file():
        found = read_json(folder / _MARKER).get("command")
    else:
        for pattern, command in _OLDER.items():
            for path in folder.glob(pattern):
                said = read_json(path)
                if command is None:
                    found = said.get("command")
                elif "fingerprint" in said.get("attributes", {}):
                    found = command
    if not isinstance(found, str):
        return {}
    return {"command": asked if found.split()[:1] == [asked] else found}


_REPORT = Kind(
    marker=_MARKER,
    foreign="exists with other content; give a new folder, or that of an earlier run of the same "
    "command.",
    other="holds the report of `{found[command]}`, not of `{wanted[command]}`; choose another "
    "folder.",
    ours=lambda folder: bool(_report_of(folder)),
)


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
    with in_place_of(path) as partial:
        partial.write_text(text, encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """What `to_json` wrote.

    Raises:
        OutputError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise OutputError(f"{path} is damaged; delete its folder and run again.") from error
    if not isinstance(found, dict):
        raise OutputError(f"{path} is damaged; delete its folder and run again.")
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
