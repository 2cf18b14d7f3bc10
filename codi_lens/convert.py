"""From a dense state dict to a TransformerLens `HookedTransformer`, and to the projection.

The thought is the hidden state *after* the final norm, so nothing is folded and nothing is centred.
The Hugging Face architecture is built without memory, filled with the checkpoint's tensors, and
handed to TransformerLens' own weight conversion.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from codi_lens.errors import CheckpointError


def to_hooked_transformer(
    backbone: PretrainedConfig,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HookedTransformer:
    """Build a `HookedTransformer` that computes what the Hugging Face model computes.

    Args:
        backbone: the Hugging Face configuration (GPT-2 or LLaMA).
        weights: its complete state dict, Hugging Face names.
        tokenizer: set on the result, with TransformerLens' conventions, where given.
        device: where the weights go.
        dtype: what they are cast to.

    Raises:
        CheckpointError: the architecture, its activation or its rope scaling is not supported.
    """
    config, convert = _CONFIGS.get(backbone.model_type, (None, None))
    if config is None or convert is None:
        raise CheckpointError(
            f"The architecture {backbone.model_type!r} is not supported; "
            f"supported are {', '.join(sorted(_CONFIGS))}."
        )
    with torch.device("meta"):
        hf_model: PreTrainedModel = AutoModelForCausalLM.from_config(backbone)
    cast = {name: value.to(device=device, dtype=dtype) for name, value in weights.items()}
    hf_model.load_state_dict(cast, assign=True)
    settings = config(backbone)
    if settings["act_fn"] not in SUPPORTED_ACTIVATIONS:
        raise CheckpointError(
            f"The activation {settings['act_fn']!r} is not supported; supported are "
            f"{', '.join(SUPPORTED_ACTIVATIONS)}."
        )
    lens_config = HookedTransformerConfig(
        **settings,
        d_vocab=backbone.vocab_size,
        original_architecture=type(hf_model).__name__,
        device=str(device),
        dtype=dtype,
        init_weights=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        lens = HookedTransformer(lens_config)
    with torch.no_grad():
        state = convert(hf_model, lens_config)
        lens.load_and_process_state_dict(
            state,
            fold_ln=False,
            center_writing_weights=False,
            center_unembed=False,
            fold_value_biases=False,
        )
    if tokenizer is not None:
        lens.set_tokenizer(copy.deepcopy(tokenizer))  # a copy: it sets pad and BOS tokens
    lens.requires_grad_(False)
    return lens.eval()


def to_projection(
    tensors: Mapping[str, Tensor],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> nn.Module:
    """The projection: Linear, GELU (erf), Linear, optional LayerNorm; the identity if it is empty.

    Args:
        tensors: the checkpoint's `prj.` tensors without that prefix.
    """
    if not tensors:
        return nn.Identity()
    hidden, d_in = tensors["1.weight"].shape
    d_out = tensors["3.weight"].shape[0]
    projection = nn.Sequential(
        nn.Identity(),  # dropout in the original, which gives the next layers their numbers
        nn.Linear(d_in, hidden),
        nn.GELU(),
        nn.Linear(hidden, d_out),
    )
    if "ln.weight" in tensors:
        projection.add_module("ln", nn.LayerNorm(d_out))
    projection.load_state_dict(dict(tensors))
    projection.requires_grad_(False)
    return projection.to(device=device, dtype=dtype).eval()


def _gpt2(backbone: Any) -> dict[str, Any]:
    return {
        "d_model": backbone.n_embd,
        "d_head": backbone.n_embd // backbone.n_head,
        "n_heads": backbone.n_head,
        "d_mlp": backbone.n_inner or 4 * backbone.n_embd,
        "n_layers": backbone.n_layer,
        "n_ctx": backbone.n_positions,
        "eps": backbone.layer_norm_epsilon,
        "act_fn": backbone.activation_function,
        "use_attn_scale": backbone.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": backbone.scale_attn_by_inverse_layer_idx,
        "normalization_type": "LN",
        "default_prepend_bos": False,
    }


def _llama(backbone: Any) -> dict[str, Any]:
    d_head = getattr(backbone, "head_dim", None) or (
        backbone.hidden_size // backbone.num_attention_heads
    )
    if getattr(backbone, "attention_bias", False) or getattr(backbone, "mlp_bias", False):
        raise CheckpointError("LLaMA models with attention or MLP biases are not supported.")
    grouped = backbone.num_key_value_heads != backbone.num_attention_heads
    return {
        "d_model": backbone.hidden_size,
        "d_head": d_head,
        "n_heads": backbone.num_attention_heads,
        "n_key_value_heads": backbone.num_key_value_heads if grouped else None,
        "d_mlp": backbone.intermediate_size,
        "n_layers": backbone.num_hidden_layers,
        "n_ctx": backbone.max_position_embeddings,
        "eps": backbone.rms_norm_eps,
        "act_fn": backbone.hidden_act,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": d_head,
        **_rope(backbone),
    }


def _rope(backbone: Any) -> dict[str, Any]:
    rope = dict(backbone.rope_parameters)
    base = {"rotary_base": rope["rope_theta"]}
    match rope.get("rope_type", "default"):
        case "default":
            return base
        case "llama3":
            return base | {
                "use_NTK_by_parts_rope": True,
                "NTK_by_parts_factor": rope["factor"],
                "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
                "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
                "NTK_original_ctx_len": rope["original_max_position_embeddings"],
            }
        case other:
            raise CheckpointError(
                f"Rope scaling {other!r} is not supported; supported are default and llama3."
            )


_CONFIGS: dict[str, tuple[Callable[[Any], dict[str, Any]], Callable[..., dict[str, Tensor]]]] = {
    "gpt2": (_gpt2, convert_gpt2_weights),
    "llama": (_llama, convert_llama_weights),
}
