"""From a dense state dict to a TransformerLens `HookedTransformer` and back.

The thought is the hidden state *after* the final norm, so nothing is folded and nothing is centred.
The Hugging Face architecture is built without memory, filled with the checkpoint's tensors, and
handed to TransformerLens' own weight conversion.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights
from transformer_lens.pretrained.weight_conversions.llama import convert_llama_weights
from transformer_lens.pretrained.weight_conversions.mistral import convert_mistral_weights
from transformer_lens.pretrained.weight_conversions.neox import convert_neox_weights
from transformer_lens.pretrained.weight_conversions.qwen2 import convert_qwen2_weights
from transformer_lens.pretrained.weight_conversions.qwen3 import convert_qwen3_weights
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from codi_lens.errors import CheckpointError
from codi_lens.loading.architectures import settings_of
from codi_lens.loading.files import says_nothing
from codi_lens.loading.keys import empty_model
from codi_lens.loading.wrappers import some_of

_CONVERSIONS = {
    "gpt2": convert_gpt2_weights,
    "gpt_neox": convert_neox_weights,
    "llama": convert_llama_weights,
    "mistral": convert_mistral_weights,
    "qwen2": convert_qwen2_weights,
    "qwen3": convert_qwen3_weights,
}
"""TransformerLens' own, by `model_type`."""
# How TransformerLens rearranges each weight in every forward pass. A weight that is stored in
# that order, and seen through a view, makes the rearrangement free and bit-identical.
_FORWARD_ORDER = {
    "W_Q": "n m h -> (n h) m",
    "W_K": "n m h -> (n h) m",
    "W_V": "n m h -> (n h) m",
    "_W_K": "n m h -> (n h) m",
    "_W_V": "n m h -> (n h) m",
    "W_O": "n h m -> m (n h)",
    "W_U": "m v -> v m",
}
_GATED_FORWARD_ORDER: dict[str, str] = dict.fromkeys(("W_gate", "W_in", "W_out"), "i o -> o i")


def lens_config(
    backbone: PretrainedConfig, *, name: str, device: str, dtype: torch.dtype
) -> HookedTransformerConfig:
    """The TransformerLens config that computes what the Hugging Face config describes.

    Args:
        backbone: the Hugging Face config.
        name: of its Hugging Face class, such as "GPT2LMHeadModel".
        device: where the model will run.
        dtype: of its weights.

    Raises:
        CheckpointError: see `settings_of`.
    """
    return HookedTransformerConfig(
        **settings_of(backbone),
        d_vocab=backbone.vocab_size,
        original_architecture=name,
        device=device,
        dtype=dtype,
        init_weights=False,
    )


def to_hooked_transformer(
    backbone: PretrainedConfig,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> HookedTransformer:
    """Build a `HookedTransformer` that computes what the Hugging Face model computes.

    Weights that already have the right dtype, device and order are shared, not copied: a model
    then takes no more memory than `weights`.

    Args:
        backbone: the Hugging Face configuration, of a supported architecture.
        weights: its complete state dict, Hugging Face names.
        tokenizer: set on the result, with TransformerLens' conventions, where given.
        device: where the weights go.
        dtype: what they are cast to.

    Raises:
        CheckpointError: the architecture, its activation or its rope scaling is not supported, or
            the weights are not complete.
    """
    settings_of(backbone)  # before a model is made of a config that is refused
    hf_model = empty_model(backbone)
    name = type(hf_model).__name__
    config = lens_config(backbone, name=name, device=str(device), dtype=dtype)
    cast = {key: value.to(device=device, dtype=dtype) for key, value in weights.items()}
    hf_model.load_state_dict(cast, assign=True)
    with torch.no_grad():
        state = _CONVERSIONS[backbone.model_type](hf_model, config)
    del hf_model, cast
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        lens = HookedTransformer(config)
    stored: dict[str, Tensor] = {}
    for key in list(state):  # one at a time: a reordered weight replaces its original
        stored[key] = _store(key, state.pop(key).detach().to(device), gated=config.gated_mlp)
    unfilled = lens.load_state_dict(stored, strict=False, assign=True)
    _check_filled(lens, unfilled.missing_keys, unfilled.unexpected_keys)
    if tokenizer is not None:
        own = copy.deepcopy(tokenizer)  # it sets pad and BOS tokens
        place = Path(str(own.init_kwargs.get("name_or_path")))
        if says_nothing(place):
            own.init_kwargs["config"] = backbone  # it may be read from there again
        lens.set_tokenizer(own)
        own.init_kwargs.pop("config", None)
    lens.requires_grad_(False)
    return lens.eval()


def to_hugging_face(lens: HookedTransformer, backbone: PretrainedConfig) -> dict[str, Tensor]:
    """The Hugging Face state dict of a `HookedTransformer`: the inverse of the conversion.

    TransformerLens' conversion moves every number of the Hugging Face model to one place. Its
    Jacobian is therefore a permutation, whose inverse is its transpose: one backward pass with
    the lens' weights as gradients puts every number back where it came from, exactly.

    Raises:
        CheckpointError: the lens has parameters that the architecture does not have, such as
            biases that are not zero.
    """
    hf_model = empty_model(backbone, dtype=lens.cfg.dtype)
    names = [name for name, _ in hf_model.named_parameters()]  # a tied unembedding is listed once
    hf_model.to_empty(device="cpu").requires_grad_(True)
    every = dict(hf_model.named_parameters())
    parameters = {name: every[name] for name in names}
    state = _CONVERSIONS[backbone.model_type](hf_model, lens.cfg)
    tied = backbone.tie_word_embeddings
    own = {key: value.detach().cpu() for key, value in lens.named_parameters()}
    if tied and not torch.equal(own["unembed.W_U"], own["embed.W_E"].T):
        raise CheckpointError(
            "The embedding and the unembedding differ, but the architecture ties them; "
            "save with an architecture that does not."
        )
    moved = {
        key: value
        for key, value in state.items()
        if value.requires_grad and not (tied and key == "unembed.W_U")
    }
    made_up = [key for key in own.keys() - moved.keys() if own[key].any()]
    made_up = [key for key in made_up if not (tied and key == "unembed.W_U")]
    if made_up:
        raise CheckpointError(
            f"The architecture {backbone.model_type!r} has no place for {some_of(made_up)}."
        )
    gradients = torch.autograd.grad(
        list(moved.values()), list(parameters.values()), [own[key] for key in moved]
    )
    return dict(zip(parameters, gradients, strict=True))


def _store(key: str, weight: Tensor, *, gated: bool) -> Tensor:
    """The same weight, in memory in the order in which the forward pass reads it."""
    kind = key.rsplit(".", 1)[-1]
    pattern = _FORWARD_ORDER.get(kind) or (_GATED_FORWARD_ORDER.get(kind) if gated else None)
    if pattern is None:
        return weight.contiguous()
    shape, ordered = pattern.split(" -> ")
    lengths = dict(zip(shape.split(), weight.shape, strict=True))
    stored = rearrange(weight, pattern).contiguous()
    grouped = {axis: lengths[axis] for axis in ("n", "h") if "(" in ordered}
    return rearrange(stored, f"{ordered} -> {shape}", **grouped)


def _check_filled(lens: HookedTransformer, missing: list[str], unexpected: list[str]) -> None:
    """Every parameter came from the checkpoint, but for biases that the architecture lacks."""
    parameters = dict(lens.named_parameters())
    empty = [key for key in missing if key in parameters and not _is_zero_bias(key, parameters)]
    if empty or unexpected:
        raise CheckpointError(
            f"The conversion left {some_of(empty or unexpected)} "
            f"{'unfilled' if empty else 'over'}; the weights do not fit the architecture."
        )


def _is_zero_bias(key: str, parameters: Mapping[str, Tensor]) -> bool:
    return key.rsplit(".", 1)[-1].startswith(("b_", "_b_")) and not parameters[key].any()
