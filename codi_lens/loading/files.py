"""The files of a checkpoint: its JSON, its tensors.

Tensors are memory-mapped where the format allows it, so that a file is never in memory twice.
Pickles are read without ever running code from them.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from codi_lens.errors import CheckpointError
from codi_lens.loading.foreign import lone_weights, refuse_folder
from codi_lens.loading.wrappers import opened

_HEAD = 20  # bytes that tell what a file is
PROJECTIONS = ("projection.safetensors", "prj.safetensors", "prj.pt")
"""Names of a file that holds the projection alone."""
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of a file that PEFT writes."""


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


def weight_files(folder: Path, named: Path | None = None) -> list[Path]:
    """Where the tensors of a checkpoint are: one file or its shards, the projection's last.

    Args:
        folder: the checkpoint's.
        named: the one of its files that was asked for.

    Raises:
        CheckpointError: no weights, several that could be meant, or a missing shard.
    """
    files = [named] if named is not None else _whole(folder)
    files = files or [folder / name for name in ADAPTERS if (folder / name).is_file()][:1]
    files = files or lone_weights(folder)
    if not files:
        refuse_folder(folder)
    beside = (folder / name for name in PROJECTIONS)
    return files + [path for path in beside if path.is_file() and path not in files]


def read_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Every tensor of these files, mapped from them where the format allows it.

    Raises:
        CheckpointError: a file that is truncated or holds code, or a key that two files give.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        tensors = _read(path)
        if path.name in PROJECTIONS:
            tensors = {f"prj.{key.removeprefix('prj.')}": v for key, v in tensors.items()}
        _add(state, tensors, path)
    return state


def first_line(error: BaseException) -> str:
    """What an exception says, as part of one sentence that stays one."""
    lines = str(error).strip().splitlines()
    line = lines[0].strip().rstrip(".:") if lines else type(error).__name__
    return line if len(line) <= 300 else f"{line[:297]}..."


def _whole(folder: Path) -> list[Path]:
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
