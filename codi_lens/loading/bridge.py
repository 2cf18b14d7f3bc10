"""From a dense state dict to a TransformerLens `TransformerBridge`, and back.

A bridge wraps the Hugging Face model itself: its weights, its norms and its forward pass are
Hugging Face's, and TransformerLens' hooks sit between its modules. Nothing is converted, so any
causal language model that the bridge knows computes what Hugging Face computes.
"""

from __future__ import annotations

import copy
import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from accelerate import init_empty_weights
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)

from codi_lens.errors import CheckpointError
from codi_lens.loading.files import first_line
from codi_lens.loading.keys import tied_names
from codi_lens.loading.releases import arguments_of, cached
from codi_lens.loading.wrappers import some_of

_PARAMETERS: WeakKeyDictionary[TransformerBridge, dict[str, Tensor]] = WeakKeyDictionary()
"""Of each bridge, the parameters of Hugging Face's model, by the names that they had there."""
_MUST_ACT = tuple(f"blocks.0.attn.hook_{name}" for name in ("attn_scores", "pattern", "z"))
_PATCHED = "eager_attention_forward"


def to_bridge(
    backbone: PretrainedConfig,
    weights: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TransformerBridge:
    """Build a bridge around the Hugging Face model with these weights.

    Weights that already have the right dtype and device are shared, not copied.

    Args:
        backbone: the Hugging Face configuration.
        weights: its complete state dict, Hugging Face names; tied ones may come once.
        tokenizer: set on the result, with TransformerLens' conventions.
        device: where the weights go.
        dtype: what they are cast to.

    Raises:
        CheckpointError: TransformerLens has no bridge for the architecture, it does not fit, or the
            logits are not the unembedding of the hidden state after the final norm.
    """
    backbone, own = copy.deepcopy(backbone), copy.deepcopy(tokenizer)  # both are written to
    with init_empty_weights(include_buffers=False):  # rotary frequencies are in no file
        model = AutoModelForCausalLM.from_config(backbone, dtype=dtype, attn_implementation="eager")
    cast = {key: value.to(device=device, dtype=dtype) for key, value in weights.items()}
    missing = model.load_state_dict(cast, strict=False, assign=True).missing_keys
    if absent := sorted(set(missing) - tied_names(model)):
        raise CheckpointError(f"The weights lack {some_of(absent)} of {type(model).__name__}.")
    model.tie_weights()
    model.to(device).requires_grad_(False).eval()
    parameters = dict(model.named_parameters())  # a tied unembedding is listed once
    model.config.architectures = [type(model).__name__]  # by which a bridge is chosen
    with torch.no_grad():
        expected = model(_trial(model)).logits
    try:
        with _transformers_as_it_is(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            lens = TransformerBridge.boot_transformers(
                type(model).__name__, hf_model=model, tokenizer=own, device=None, dtype=dtype
            )
    except Exception as error:  # whatever an adapter meets in a module that it does not know
        raise CheckpointError(
            f"TransformerLens has no bridge for {type(model).__name__} ({first_line(error)})."
        ) from error
    lens.cfg.device, lens.cfg.dtype = str(torch.device(device)), dtype
    lens.requires_grad_(False).eval()
    _PARAMETERS[lens] = parameters
    for block in lens.blocks:
        block.attn.register_forward_pre_hook(_rename_cache, with_kwargs=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of modules that are refused for it
        _check(lens, expected)
    return lens


def run_below_head(
    lens: TransformerBridge,
    vectors: Float[Tensor, "problem pos d_model"],
    mask: Int[Tensor, "problem key"],
    cache: DynamicCache,
) -> Float[Tensor, "problem pos d_model"]:
    """The hidden states after the final norm, with hooks, and without logits that nobody reads.

    Positions are given: with vectors for tokens, neither the bridge nor Hugging Face's models work
    them out from the mask (TransformerLens issues 1607 and 1609), and with padding they would be
    wrong from the second pass on.

    Args:
        lens: the model.
        vectors: what takes the place of embeddings.
        mask: 1 where a position is real, of past and new ones.
        cache: keys and values of the past ones; the new ones are appended.

    Raises:
        CheckpointError: the bridge does not append them.
    """
    model: Any = lens.original_model
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -vectors.shape[1] :]
    given = cached(model.base_model, cache)
    if "position_ids" in arguments_of(type(model.base_model)):
        given["position_ids"] = positions
    output = model.base_model(inputs_embeds=vectors, attention_mask=mask, use_cache=True, **given)
    if cache.get_seq_length() != mask.shape[1]:
        raise CheckpointError(
            f"The bridge of {type(model).__name__} keeps no keys and values with the installed "
            "releases of TransformerLens and transformers, so that a thought would not see what "
            "came before it."
        )
    return output.last_hidden_state


def embedding_of(lens: TransformerBridge) -> torch.nn.Module:
    """From tokens to what enters the model, without hooks."""
    model: Any = lens.original_model
    return model.get_input_embeddings().original_component


def to_hugging_face(lens: TransformerBridge, backbone: PretrainedConfig) -> dict[str, Tensor]:
    """The Hugging Face state dict of a bridge's model: the inverse of `to_bridge`.

    Raises:
        CheckpointError: its weights were processed, or it is a copy that `copy.deepcopy` made of
            the bridge instead of the model that holds it.
    """
    known = _PARAMETERS.get(lens, {})
    alive = {id(parameter) for parameter in lens.original_model.parameters()}
    if not known or not all(id(parameter) in alive for parameter in known.values()):
        raise CheckpointError(
            "The weights of model.lens are no longer those that were loaded, by their names (its "
            "compatibility mode processes them; a copy has others); load the model again."
        )
    return {name: parameter.detach().cpu() for name, parameter in known.items()}


def _trial(model: Any) -> Int[Tensor, "1 4"]:
    return torch.arange(4, device=next(model.parameters()).device)[None]


@torch.no_grad()
def _check(lens: TransformerBridge, expected: Float[Tensor, "1 4 vocab"]) -> None:
    """That two passes on vectors, and the unembedding, give what Hugging Face gave in one pass."""
    model: Any = lens.original_model
    name, cache, tokens = type(model).__name__, DynamicCache(), _trial(model)
    vectors, mask = embedding_of(lens)(tokens), torch.ones_like(tokens)
    try:
        hidden = [
            run_below_head(lens, vectors[:, start:end], mask[:, :end], cache)
            for start, end in ((0, 3), (3, 4))
        ]
        found = lens.unembed(torch.cat(hidden, dim=1))
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"The bridge of {name} cannot think with the installed releases of TransformerLens and "
            f"transformers ({first_line(error)})."
        ) from error
    silent = [name for name in _MUST_ACT if not _acts(lens, name, vectors, mask)]
    if silent:
        raise CheckpointError(
            f"The bridge of {name} computes attention where hooks cannot reach it: an edit at "
            f"{some_of(silent)} changes nothing."
        )
    scale = expected.abs().amax().clamp(min=1)
    if (found - expected).abs().amax() > 100 * torch.finfo(expected.dtype).eps * scale:
        raise CheckpointError(
            f"The logits of {name} are not the unembedding of the hidden state after its final "
            "norm, which codi_lens takes them for: it scales or caps them, or its bridge does not "
            "compute what Hugging Face does."
        )


def _acts(lens: TransformerBridge, name: str, vectors: Tensor, mask: Tensor) -> bool:
    """Whether what a hook makes of an activation goes on, whatever the weights: NaN does."""

    def break_one(activation: Tensor, hook: Any) -> Tensor:
        changed = activation.clone()
        changed[:, :1, -1, :1] = torch.nan
        return changed

    if name not in lens.hook_dict:
        return False
    with lens.hooks(fwd_hooks=[(name, break_one)]):
        return bool(run_below_head(lens, vectors, mask, DynamicCache()).isnan().any())


def _rename_cache(module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """TransformerLens 4.3 knows the cache by the name that it has until transformers 5.23."""
    return given, named | ({"past_key_values": named["cache"]} if "cache" in named else {})


@contextmanager
def _transformers_as_it_is() -> Iterator[None]:
    """Undo what building a bridge does to transformers, for everybody in the process.

    It replaces the eager attention of Gemma 2 and 3 by a function that nothing of a bridge calls
    (TransformerLens issue 1795).
    """
    for family in ("gemma2", "gemma3"):
        importlib.import_module(f"transformers.models.{family}.modeling_{family}")
    modules = [
        (module, getattr(module, _PATCHED))
        for name, module in list(sys.modules.items())
        if name.startswith("transformers.models.") and hasattr(module, _PATCHED)
    ]
    try:
        yield
    finally:
        for module, function in modules:
            setattr(module, _PATCHED, function)
