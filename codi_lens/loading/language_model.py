"""The language model of a checkpoint on either backend, its weights, and its way elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from codi_lens.loading.backends import Backend, Lens, backend_of


def build_lens(
    backend: Backend,
    backbone: PretrainedConfig,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: str | torch.device,
    dtype: torch.dtype,
) -> Lens:
    """A `HookedTransformer`, or a `TransformerBridge`, that computes what Hugging Face computes.

    Args:
        backend: which of them.
        backbone: the Hugging Face configuration.
        weights: its complete state dict, Hugging Face names; shared where nothing is changed.
        tokenizer: a copy is set on the result, with TransformerLens' conventions.
        device: where the weights go.
        dtype: what they are cast to.

    Raises:
        CheckpointError: the backend does not compute it exactly, or the weights are not complete.
    """
    if backend == "bridge":
        from codi_lens.loading.bridge import to_bridge as to_lens
    else:
        from codi_lens.loading.hooked import to_hooked_transformer as to_lens
    return to_lens(backbone, weights, tokenizer, device=device, dtype=dtype)


def dense_weights(lens: Lens, backbone: PretrainedConfig) -> dict[str, Tensor]:
    """The complete state dict of a model, Hugging Face names: the inverse of `build_lens`.

    Raises:
        CheckpointError: the model has parameters that the architecture does not have.
    """
    if backend_of(lens) == "bridge":
        from codi_lens.loading.bridge import to_hugging_face as weights_of
    else:
        from codi_lens.loading.hooked import to_hugging_face as weights_of
    own: Any = lens
    return weights_of(own, backbone)


def move_lens(lens: Lens, device: torch.device | None, dtype: torch.dtype | None) -> None:
    """Move a model in place; weights keep their order in memory.

    Args:
        lens: the model.
        device: where to; None stays.
        dtype: cast to; None stays. What was rounded before stays so.
    """
    for target in (each for each in (device, dtype) if each is not None):
        lens.to(target, print_details=False)
    if device is not None:
        lens.cfg.device = str(device)  # with its index, which TransformerLens leaves out
    if dtype is not None:
        lens.cfg.dtype = dtype
        if backend_of(lens) == "hooked" and lens.cfg.positional_embedding_type == "rotary":
            for block in lens.blocks:  # worked out anew, not cast twice
                block.attn._extend_rotary_embeddings(len(block.attn.rotary_sin))


def output_bias(lens: Lens, layer: int) -> Tensor:
    """What an attention layer adds whatever it reads, [d_model]; zeros where it has no bias."""
    attention = lens.blocks[layer].attn
    if attention.b_O is None:  # of a bridge
        return attention.W_O.new_zeros(attention.W_O.shape[-1])
    return attention.b_O
