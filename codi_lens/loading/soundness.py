"""Whether a model still thinks as CODI does, after whatever was done to it since it was loaded.

Edited weights are experiments and never refused. Refused is what would make a thought something
else than the hidden state after the final norm, passed through the projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from codi_lens.errors import CheckpointError
from codi_lens.loading.backends import backend_of
from codi_lens.loading.loaded import Loaded

_RELOAD = "load the model again and leave its weights unprocessed"


def check_thinks(model: Loaded) -> None:
    """Refuse a model whose thoughts would no longer be CODI's; takes well under a millisecond.

    Raises:
        CheckpointError: the final norm is folded or gone, grouped attention was ungrouped, layers
            or vocabulary do not match the config, or language model and projection differ in dtype
            or device.
    """
    for sentence in _problems(model):
        raise CheckpointError(sentence)


def _problems(model: Loaded) -> Iterator[str]:
    lens, cfg = model.lens, model.lens.cfg
    if _is_folded(lens):
        yield (
            "The final norm of model.lens is folded into other weights or gone "
            f"(normalization_type {cfg.normalization_type!r}), but a thought is the hidden state "
            f"after it; {_RELOAD} (no fold_ln, no enable_compatibility_mode())."
        )
    if getattr(cfg, "ungroup_grouped_query_attention", False):
        yield (
            "The grouped attention of model.lens was ungrouped, but its cache holds keys and "
            "values by group; call model.lens.set_ungroup_grouped_query_attention(False)."
        )
    if len(lens.blocks) != cfg.n_layers:
        yield (
            f"model.lens has {len(lens.blocks)} layers and its config says {cfg.n_layers}; "
            "set model.lens.cfg.n_layers to what it has."
        )
    rows, columns = lens.embed.W_E.shape[0], lens.unembed.W_U.shape[1]
    if (rows, columns) != (cfg.d_vocab, cfg.d_vocab_out):
        yield (
            f"model.lens embeds {rows} tokens and predicts {columns}, but its config says "
            f"{cfg.d_vocab}; {_RELOAD}."
        )
    yield from _mixed(model)


def _is_folded(lens: Any) -> bool:
    """Whether the final norm has lost its weights."""
    final = getattr(lens, "ln_final", None)
    weight = getattr(final, "w", None)
    if backend_of(lens) == "bridge":  # whose compatibility mode leaves ones behind
        ones = weight is not None and bool((weight == 1).all())
        return final is None or (lens.compatibility_mode and ones)
    return lens.cfg.normalization_type not in ("LN", "RMS") or weight is None


def _mixed(model: Loaded) -> Iterator[str]:
    cfg = model.lens.cfg
    lens, projection = _places(model.lens), _places(model.projection)
    dtypes = {dtype for dtype, _ in lens | projection}
    devices = {device.type for _, device in lens | projection}
    if dtypes - {cfg.dtype}:
        yield (
            f"model.lens holds {_named(lens)} (its config says {_short(cfg.dtype)}) and "
            f"model.projection {_named(projection)}; give both one dtype with "
            "model.lens.to(dtype) and model.projection.to(dtype), or load with dtype=."
        )
    if devices - {model.device.type}:
        yield (
            f"The weights are on {', '.join(sorted(devices))} and model.lens.cfg.device is "
            f"{cfg.device}; move model.lens and model.projection to one device with .to(device)."
        )


def _places(module: nn.Module) -> set[tuple[torch.dtype, torch.device]]:
    return {(value.dtype, value.device) for value in module.parameters()}


def _named(places: set[tuple[torch.dtype, torch.device]]) -> str:
    return " and ".join(sorted({_short(dtype) for dtype, _ in places})) or "no weights"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
