"""From a checkpoint to the parts of a loaded model, and these parts elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from codi_lens.loading.auxiliary import to_auxiliary
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.convert import to_hooked_transformer, to_projection
from codi_lens.loading.loaded import Loaded


def parts_of(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The fields of a `Loaded` model, its weights in place.

    Raises:
        CheckpointError: weights that the architecture cannot take.
    """
    placed: dict[str, Any] = {"device": device, "dtype": dtype}
    with torch.random.fork_rng(devices=[]):  # building modules draws random numbers
        lens = to_hooked_transformer(
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
    lens, extra = model.lens, model.auxiliary
    beside = [] if extra is None else [extra.decoder, extra.enter, extra.leave]
    for target in (each for each in (device, dtype) if each is not None):
        lens.to(target, print_details=False)
        model.projection.to(target)
    for parameter in (each for module in beside for each in module.parameters()):
        parameter.data = parameter.data.to(dtype or parameter.dtype)
    if device is not None:
        lens.cfg.device = str(device)  # with its index, which TransformerLens leaves out
        for module in beside:  # rotary frequencies too, which are of no dtype but their own
            module.to(device)
    for block in lens.blocks if dtype is not None else ():
        if lens.cfg.positional_embedding_type == "rotary":  # worked out anew, not cast twice
            block.attn._extend_rotary_embeddings(len(block.attn.rotary_sin))
