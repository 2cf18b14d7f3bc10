"""The digest that says whether two results come from the same model.

It covers everything that decides a result: weights, architecture, settings, tokenizer, dtype. It
leaves out where the model came from and how it was stored: a copy, a merged save and the LoRA
checkpoint that it was made from have one fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from codi_lens.loading.loaded import Loaded

_FORMAT = 2
"""Raised when what the digest covers changes, so that no old digest is taken for a new one."""
_ARCHITECTURE = (
    "d_model", "d_head", "d_mlp", "d_vocab", "n_layers", "n_heads", "n_key_value_heads",
    "n_ctx", "dtype", "act_fn", "gated_mlp", "normalization_type", "final_rms", "use_qk_norm",
    "parallel_attn_mlp", "attention_dir", "use_attn_scale", "attn_scale",
    "scale_attn_by_inverse_layer_idx", "attn_scores_soft_cap", "output_logits_soft_cap",
    "use_local_attn", "window_size", "attn_types", "positional_embedding_type", "rotary_dim",
    "rotary_base", "rotary_adjacent_pairs", "rotary_scaling_factor", "use_NTK_by_parts_rope",
    "NTK_by_parts_factor", "NTK_by_parts_low_freq_factor", "NTK_by_parts_high_freq_factor",
    "NTK_original_ctx_len",
)  # fmt: skip
"""What a TransformerLens config says about the computation; the rest is names and bookkeeping."""
_PARTS = ("eps", "attn_scale", "approximate")  # numbers that modules hold outside their weights
_BOOKKEEPING = ("version", "truncation", "padding")  # of a tokenizer; calls change the last two


def fingerprint(model: Loaded) -> str:
    """The digest of a model, as 16 hexadecimal digits; see `CodiModel.fingerprint`."""
    config, cfg = model.config, model.lens.cfg
    digest = hashlib.blake2b(digest_size=8)
    described = {
        "format": _FORMAT,
        "architecture": {name: getattr(cfg, name, None) for name in _ARCHITECTURE},
        "n_thoughts": config.n_thoughts,
        "opening": config.opening,
        "closing": config.closing,
        "eos": config.eos,
        "n_tokens": config.n_tokens or cfg.d_vocab,
        **({"question_end": config.question_end} if config.question_end else {}),
        "tokenizer": _tokenizer(model.tokenizer),
        "modules": [_modules(model.lens), _modules(model.projection)],
    }
    digest.update(json.dumps(_plain(described), sort_keys=True).encode())
    for module in (model.lens, model.projection):
        # Parameters alone: buffers follow from the config, and masks grow with what was run.
        for name, value in sorted(module.named_parameters(remove_duplicate=False)):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
    return digest.hexdigest()


def _modules(module: nn.Module) -> list[list[Any]]:
    """What modules hold outside their weights: an epsilon that was changed after loading counts."""
    return [
        [name, key, getattr(part, key)]
        for name, part in module.named_modules()
        for key in _PARTS
        if isinstance(getattr(part, key, None), Real | str)
    ]


def _tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """A digest of how a tokenizer turns text into ids and back, its BOS rule included."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return _digest_of(backend.to_str())
    described = {
        "class": type(tokenizer).__name__,
        "vocabulary": tokenizer.get_vocab(),
        "around": list(tokenizer("")["input_ids"]),
    }
    return _digest_of(json.dumps(described))


@lru_cache(maxsize=8)
def _digest_of(text: str) -> str:
    values = {key: value for key, value in json.loads(text).items() if key not in _BOOKKEEPING}
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """The same value, whatever numpy, torch or an integer for a float has made of it."""
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case None | bool() | str():
            return value
        case Integral() | Real():
            return repr(float(value))
        case _:
            return str(value)
