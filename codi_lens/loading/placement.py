"""Where a model runs and in which precision: the arguments `device` and `dtype`, made sure."""

from __future__ import annotations

from typing import Any

import torch

from codi_lens.errors import CheckpointError, shown

DTYPES = ("float32", "float64", "bfloat16", "float16")
"""Precisions that a model can run in."""


def usable_dtype(dtype: Any) -> torch.dtype:
    """A dtype by itself or by name.

    Raises:
        CheckpointError: not one that a model can run in.

    >>> usable_dtype("bfloat16"), usable_dtype("torch.float32")
    (torch.bfloat16, torch.float32)
    """
    try:
        name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", None) or str(dtype)
        found = getattr(torch, name.removeprefix("torch."), None)
    except ValueError:  # a number of more digits than Python prints
        found = None
    if not isinstance(found, torch.dtype) or str(found).removeprefix("torch.") not in DTYPES:
        raise CheckpointError(
            f"A model cannot run in dtype {_shown(dtype)}; it must be one of {', '.join(DTYPES)}."
        )
    return found


def usable_device(device: Any) -> torch.device:
    """A device on which tensors can be made; "auto" is a CUDA device, else the CPU.

    Apple's GPUs ("mps") have to be asked for: TransformerLens warns that some releases of torch
    compute wrongly there without saying so.

    Raises:
        CheckpointError: no such device here; names those that are.
    """
    try:
        if isinstance(device, str) and device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        found = torch.device(device)
        torch.empty(1, device=found).sum().item()  # "meta" has no numbers
    except Exception as error:  # every backend fails in its own way
        here = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        here += ["mps"] if torch.backends.mps.is_available() else []
        raise CheckpointError(
            f"The device {_shown(device)} cannot be used; usable here: {', '.join(here)}."
        ) from error
    return found


def usable_placement(targets: tuple[Any, ...]) -> tuple[torch.device | None, torch.dtype | None]:
    """The device and the dtype that are among arguments as those of `torch.nn.Module.to`.

    Raises:
        CheckpointError: no such device or dtype, two of one kind, or none of either.

    >>> usable_placement(("cpu", torch.bfloat16))
    (device(type='cpu'), torch.bfloat16)
    """
    dtypes = [each for each in targets if _names_dtype(each)]
    devices = [each for each in targets if not _names_dtype(each)]
    if not targets or len(dtypes) > 1 or len(devices) > 1:
        raise CheckpointError(
            f"A model moves to one device, one dtype or both, not to {shown(targets)}; give "
            "to('cuda'), to('bfloat16') or to('cuda', 'bfloat16')."
        )
    device = usable_device(devices[0]) if devices else None
    return device, usable_dtype(dtypes[0]) if dtypes else None


def _names_dtype(target: Any) -> bool:
    name = target.removeprefix("torch.") if isinstance(target, str) else ""
    return isinstance(getattr(torch, name, target), torch.dtype)


def _shown(value: Any) -> str:
    named = isinstance(value, (str, torch.dtype, torch.device)) and str(value).isprintable()
    return str(value) if named and 0 < len(str(value)) <= 60 else shown(value)
