"""SIM-CoT's auxiliary decoder: a language model that writes a step of reasoning from a thought.

Source: Wei et al. 2025, "SIM-CoT", and `CODI/src/model.py` of its code, which trains it beside a
CODI model: the decoder reads a thought, then the model's own embeddings of the step's tokens, all
of them through `pj_in`; its logits pass `pj_out`. Both are there only where its sizes differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from codi_lens.errors import CheckpointError
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.keys import (
    check_finite,
    check_float,
    check_language_model,
    empty_model,
    merge,
    tied_names,
)


@dataclass(frozen=True, eq=False)
class Auxiliary:
    """A decoder that writes in words what a thought holds.

    Attributes:
        decoder: a Hugging Face language model.
        enter: from the model's embeddings to the decoder's.
        leave: from the decoder's logits to those of the model's vocabulary.
    """

    decoder: PreTrainedModel
    enter: nn.Module
    leave: nn.Module


def to_auxiliary(
    checkpoint: Checkpoint,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Auxiliary | None:
    """The auxiliary decoder that a checkpoint was read with; None without one.

    Raises:
        CheckpointError: a tensor is missing or left over, has the wrong shape, or holds NaN.
    """
    if not checkpoint.auxiliary:
        return None
    name = f"{checkpoint.config.source}'s auxiliary decoder"
    parts: dict[str, dict[str, Tensor]] = {"decoder": {}, "pj_in": {}, "pj_out": {}}
    for key, value in checkpoint.auxiliary.items():
        part, _, target = key.partition(".")
        parts[part][target] = value
    backbone = deepcopy(checkpoint.auxiliary_backbone or checkpoint.backbone)
    ends = tied_names(empty_model(backbone))
    for key, value in checkpoint.auxiliary.items():
        check_float(key, value, name)
        check_finite(key, value, name)
    given = [value for key, value in parts["decoder"].items() if key in ends]
    if not given or any(value.ndim != 2 for value in given):
        raise CheckpointError(f"{name} holds no embedding and no unembedding.")
    backbone.vocab_size = max(map(len, given))
    backbone.tie_word_embeddings = len(given) < 2 or torch.equal(*given)
    check_language_model(parts["decoder"], backbone, name)
    weights = merge(parts["decoder"], None, backbone, name, dtype=dtype, device=device)
    # Built in full, not without memory: rotary frequencies are buffers that no file holds.
    decoder = AutoModelForCausalLM.from_config(backbone, dtype=dtype).to(device)
    decoder.load_state_dict(weights)
    inner, vocabulary = backbone.hidden_size, backbone.vocab_size
    outer = checkpoint.backbone
    enter = _linear(parts["pj_in"], "pj_in", (outer.hidden_size, inner), name).to(device, dtype)
    made = parts["pj_out"].get("weight")
    most = vocabulary if made is None or made.ndim != 2 else len(made)
    sizes = (vocabulary, min(most, outer.vocab_size))
    leave = _linear(parts["pj_out"], "pj_out", sizes, name).to(device, dtype)
    for module in (decoder, enter, leave):
        module.requires_grad_(False).eval()
    return Auxiliary(decoder, enter, leave)


def _linear(
    tensors: Mapping[str, Tensor], part: str, sizes: tuple[int, int], name: str
) -> nn.Module:
    """A linear layer as it is in the file, or the identity where none is needed.

    Raises:
        CheckpointError: something else, or of another size.
    """
    n_in, n_out = sizes
    expected = {"weight": (n_out, n_in), "bias": (n_out,)}
    found = {key: tuple(value.shape) for key, value in tensors.items()}
    if not found and n_in == n_out:
        return nn.Identity()
    if found != expected:
        raise CheckpointError(
            f"{name} holds {part} as {found or 'nothing'}; a linear layer from {n_in} to {n_out} "
            "is needed there, and nothing else is known to be made."
        )
    layer = nn.Linear(n_in, n_out, device="meta")
    layer.load_state_dict({key: value.float() for key, value in tensors.items()}, assign=True)
    return layer
