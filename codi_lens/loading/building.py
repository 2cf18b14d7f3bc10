"""From a checkpoint to the parts of a loaded model, and these parts elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from codi_lens.loading.auxiliary import to_auxiliary
from codi_lens.loading.backends import Backend
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.language_model import build_lens, move_lens
from codi_lens.loading.loaded import Loaded
from codi_lens.loading.projection import to_projection


def parts_of(
    checkpoint: Checkpoint, backend: Backend, device: torch.device, dtype: torch.dtype
) -> dict[str, Any]:
    """The fields of a `Loaded` model, its weights in place.

    Raises:
        CheckpointError: weights that the architecture cannot take.
    """
    placed: dict[str, Any] = {"device": device, "dtype": dtype}
    with torch.random.fork_rng(devices=[]):  # building modules draws random numbers
        lens = build_lens(
            backend,
            checkpoint.backbone,
            checkpoint.merged(dtype, device),
            checkpoint.tokenizer,
            **placed,
        )
        return {
            "lens": lens,
            "projection": to_projection(checkpoint.projection, **placed),
            "tokenizer": checkpoint.tokenizer,
            "config": checkpoint.config,
            "backbone": checkpoint.backbone,
            "auxiliary": to_auxiliary(checkpoint, **placed),
        }


def move(model: Loaded, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a model in place; weights keep their order in memory.

    Args:
        model: all its parts, an auxiliary decoder too.
        device: where to; None stays.
        dtype: cast to; None stays. What was rounded before stays so.
    """
    extra = model.auxiliary
    beside = [] if extra is None else [extra.decoder, extra.enter, extra.leave]
    move_lens(model.lens, device, dtype)
    for target in (each for each in (device, dtype) if each is not None):
        model.projection.to(target)
    for parameter in (each for module in beside for each in module.parameters()):
        parameter.data = parameter.data.to(dtype or parameter.dtype)
    if device is not None:
        for module in beside:  # rotary frequencies too, which are of no dtype but their own
            module.to(device)
