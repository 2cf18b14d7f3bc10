"""Jobs as bytes, with the large arrays in them beside, which the workers of a node share."""

from __future__ import annotations

import os
import warnings
from functools import cached_property
from importlib import import_module
from io import BytesIO
from typing import Any

import numpy as np
import torch

_OUTSIDE = 1 << 16
"""Bytes from which an array is laid beside the pickle, where all workers of a node share it."""
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # what becomes the default, without its warning
}


def the_ray() -> Any:
    """The package, imported when it is first needed, and told to keep quiet."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    return import_module("ray")


class _Bytes:
    """The memory that tensors are views of: once in a pickle, however many they are."""

    def __init__(self, array: np.ndarray, device: str) -> None:
        self._array, self._device = array, device

    def __reduce__(self) -> tuple[Any, ...]:
        return _Bytes, (self._array, self._device)

    @cached_property
    def storage(self) -> torch.UntypedStorage:
        """The same memory on a CPU, a copy on its device else."""
        with warnings.catch_warnings():  # what workers share is read alone, as weights are
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return torch.from_numpy(self._array).to(self._device).untyped_storage()


def _typed(memory: _Bytes, dtype: torch.dtype) -> torch.TypedStorage:
    return torch.TypedStorage(wrap_storage=memory.storage, dtype=dtype, _internal=True)


def pack(job: Any) -> tuple[bytes, list[np.ndarray]]:
    """A job as bytes, and the large arrays in it beside them, tensors too; nothing twice."""
    ray = the_ray()
    kept: dict[tuple[str, int], _Bytes] = {}
    outside: list[np.ndarray] = []

    class Packer(ray.cloudpickle.CloudPickler):
        def reducer_override(self, obj: Any) -> Any:
            if type(obj) is not torch.TypedStorage:
                return super().reducer_override(obj)
            memory = obj._untyped_storage
            key = str(memory.device), memory.data_ptr()
            if key not in kept:
                values = torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
                kept[key] = _Bytes(values.cpu().numpy(), memory.device.type)
            return _typed, (kept[key], obj.dtype)

    def inside(buffer: Any) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _OUTSIDE:
            outside.append(np.frombuffer(raw, dtype=np.uint8))
        return raw.nbytes < _OUTSIDE

    with BytesIO() as file:
        Packer(file, protocol=5, buffer_callback=inside).dump(job)
        return file.getvalue(), outside


def unpack(pickled: bytes, outside: list[np.ndarray]) -> Any:
    """What was packed; large arrays stay where they are given."""
    return the_ray().cloudpickle.loads(pickled, buffers=outside)
