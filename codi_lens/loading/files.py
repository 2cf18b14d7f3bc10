"""The files of a checkpoint: a folder or a hub repository, its JSON, its tensors.

Tensors are memory-mapped where the format allows it, so that a file is never in memory twice.
Pickles are read without ever running code from them.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codi_lens.errors import CheckpointError
from codi_lens.loading.foreign import refuse_folder
from codi_lens.loading.sources import check_source, local_folder
from codi_lens.loading.wrappers import opened

_HEAD = 20  # bytes that tell what a file is
_SMALL_FILES = ["*.json", "*.model", "*.txt"]
_SAFETENSORS = ["*.safetensors", "prj.pt"]
_PICKLES = ["pytorch_model*.bin"]


def resolve_folder(source: str | Path, revision: str | None = None) -> Path:
    """The folder of a checkpoint, fetched from the hub (or its cache) where needed.

    The hub's own settings hold: `HF_HOME` places the cache, `HF_HUB_OFFLINE=1` uses it alone,
    `hf auth login` or `HF_TOKEN` opens gated repositories. Pickles are fetched only from
    repositories without safetensors.

    Args:
        source: a folder, the name of a shipped model, or that of a hub repository.
        revision: a branch, tag or commit of that repository.

    Raises:
        CheckpointError: neither a folder, nor shipped, nor a repository that can be fetched.
    """
    check_source(source)
    if revision is not None and not isinstance(revision, str):
        raise CheckpointError(f"revision must be a branch, tag or commit, not {revision!r}.")
    folder, name = local_folder(source), str(source)
    if folder is not None:
        return folder
    fetched = _fetch(name, revision, _SMALL_FILES + _SAFETENSORS)
    if not any(fetched.glob("*.safetensors")):
        fetched = _fetch(name, revision, _SMALL_FILES + _PICKLES)
    return fetched


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:  # numbers may be too long, too
        raise CheckpointError(f"{path} is not valid JSON ({first_line(error)}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return value


def says_nothing(folder: Path) -> bool:
    """Whether a folder has a config.json that says nothing: of no bytes, damaged, or no object.

    >>> says_nothing(Path("checkpoints/tiny-gpt2"))
    False
    """
    path = folder / "config.json"
    if not path.is_file():
        return False
    try:
        return not read_json(path)
    except CheckpointError:
        return True


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder: one file or its shards, and a projection in a file of its own.

    Raises:
        CheckpointError: no weights, a missing shard, a file that is truncated or holds code, or a
            key that two files give.
    """
    files = _weight_files(folder)
    if not files:
        refuse_folder(folder)
    state: dict[str, Tensor] = {}
    for path in files:
        _add(state, _read(path), path)
    for file_name in ("projection.safetensors", "prj.safetensors", "prj.pt"):
        path = folder / file_name
        if path.is_file():
            tensors = _read(path).items()
            _add(state, {f"prj.{key.removeprefix('prj.')}": v for key, v in tensors}, path)
    return state


def first_line(error: BaseException) -> str:
    """What an exception says, as part of one sentence that stays one."""
    lines = str(error).strip().splitlines()
    line = lines[0].strip().rstrip(".:") if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:297]}..."


def _fetch(name: str, revision: str | None, patterns: list[str]) -> Path:
    where = f"{name} (revision {revision})" if revision else name
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{where} is gated: accept its licence on huggingface.co, then run `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"The hub repository {name} has no revision {revision}; give a branch, tag or commit."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"There is no folder {name} and no hub repository of that name; if it is private, run "
            "`hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and the hub repository {where} could not be fetched "
            f"({first_line(error)}); it must be in the hub's cache (HF_HOME) to load offline."
        ) from error


def _weight_files(folder: Path) -> list[Path]:
    for file_name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / file_name).is_file():
            return [folder / file_name]
        index = folder / f"{file_name}.index.json"
        if index.is_file():
            return _indexed(index)
        stem, suffix = file_name.rsplit(".", 1)
        shards = sorted(folder.glob(f"{stem}-*-of-*.{suffix}"))
        if shards:
            return _unindexed(shards)
    return []


def _indexed(index: Path) -> list[Path]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
        raise CheckpointError(f"{index} must map keys to files in its weight_map.")
    files = [index.parent / shard for shard in sorted(set(shards.values()))]
    for shard, path in zip(sorted(set(shards.values())), files, strict=True):
        if not shard or set(shard) & set("/\\\0") or shard in (".", ".."):
            raise CheckpointError(
                f"{index} names {shard!r}; a shard must be a file of the folder itself."
            )
        if not path.is_file():
            raise CheckpointError(f"{index} names {path.name}, which is not in the folder.")
    return files


def _unindexed(shards: list[Path]) -> list[Path]:
    """Shards without an index, as some published repositories have them: all must be there."""
    found = re.search(r"-of-0*(\d+)\.", shards[0].name)
    expected = int(found[1]) if found else len(shards)
    if len(shards) != expected:
        raise CheckpointError(
            f"{shards[0].parent} holds {len(shards)} of the {expected} shards that their names "
            "announce."
        )
    return shards


def _add(state: dict[str, Tensor], more: Mapping[str, Tensor], path: Path) -> None:
    twice = sorted(state.keys() & more.keys())
    if twice:
        raise CheckpointError(f"{path} holds {twice[0]}, which another file of the folder holds.")
    state |= more


def _read(path: Path) -> dict[str, Tensor]:
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {".safetensors": _read_safetensors}
    if _begins(path) == b"version https://git-lfs"[:_HEAD]:
        raise CheckpointError(
            f"{path} is a pointer of Git LFS; fetch the file with `git lfs pull`."
        )
    tensors = readers.get(path.suffix, _read_pickle)(path)
    for key, value in tensors.items():
        if value.is_meta or value.layout != torch.strided or value.is_quantized or value.is_nested:
            kind = "meta" if value.is_meta else value.layout
            kind = "quantised" if value.is_quantized else "nested" if value.is_nested else kind
            raise CheckpointError(
                f"{path} holds {key} as a tensor without plain numbers ({kind}); save it dense."
            )
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({first_line(error)})."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; checked below
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is not a PyTorch file; codi_lens never runs code "
            "from a checkpoint, so save it with torch.save(model.state_dict()) or as safetensors."
        ) from error
    except Exception as error:  # damaged pickles fail in many ways
        raise CheckpointError(
            f"{path} is truncated or not a PyTorch file ({first_line(error)})."
        ) from error
    return opened(state, str(path))


def _is_zip(path: Path) -> bool:
    """PyTorch's format since 1.6; only this one can be memory-mapped."""
    return _begins(path).startswith(b"PK\x03\x04")


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
