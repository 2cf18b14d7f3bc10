"""What the keys of a CODI checkpoint mean: language model, LoRA, projection, and what is dropped.

Every key of a file is consumed, dropped with a sentence that says so, or named in an error; every
parameter of the architecture is filled or named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from codi_lens.errors import CheckpointError
from codi_lens.loading.families import Family, Role
from codi_lens.loading.files import first_line
from codi_lens.loading.foreign import refuse_foreign_keys
from codi_lens.loading.lora import check_lora, lora_pairs, one_adapter
from codi_lens.loading.wrappers import some_of

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_EMBEDDINGS = (".wte.weight", ".embed_tokens.weight", ".embed_in.weight")
_OLD_BUFFERS = (".attn.masked_bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
_OLD_MASKS = (".attn.bias", ".attention.bias")
_RENAMED = {"embed_out.weight": "lm_head.weight"}  # GPT-NeoX's head before transformers 5.14
_SAVED_WHOLE = re.compile(r"(.+)\.modules_to_save\.\w+(\..+)")  # PEFT's copy of a trained module


@dataclass(frozen=True)
class Layout:
    """The tensors of a checkpoint, sorted by what they are.

    Attributes:
        tensors: of the language model, as in the file: Hugging Face names, LoRA unmerged
            (`X.base_layer.weight`, `X.lora_A.default.weight`, `X.lora_B.default.weight`).
        projection: "1.weight", "1.bias", "3.weight", "3.bias", perhaps "ln.…"; empty without one.
        auxiliary: of a decoder that only training uses, as in the file; maybe empty.
    """

    tensors: dict[str, Tensor]
    projection: dict[str, Tensor]
    auxiliary: dict[str, Tensor]


def sort_keys(state: Mapping[str, Tensor], name: str, family: Family) -> Layout:
    """Sort a checkpoint's keys.

    Args:
        state: the file's tensors, without what training wrapped around their names.
        name: what errors call the checkpoint.
        family: whose names they are.

    Raises:
        CheckpointError: quantised weights, a key that the family does not know, or an input
            embedding that is there twice and differs.
    """
    refuse_foreign_keys(state, name)
    parts: dict[str, dict[str, Tensor]] = {role: {} for role in get_args(Role)}
    for key, value in state.items():
        role, target = family.sort(key)
        if not _is_old_buffer(key, value) and ".original_module." not in key:
            target = _SAVED_WHOLE.sub(r"\1\2", target)
            parts[role][_RENAMED.get(target, target)] = value
    known = {f"{i}.{part}" for i in (1, 3, "ln") for part in ("weight", "bias")}
    strange = sorted(parts["projection"].keys() - known)
    unexpected = [*parts["unknown"], *map(family.projection_key, strange)]
    if unexpected:
        raise CheckpointError(
            f"{name} holds keys that {family.name} does not know: {some_of(unexpected)}."
        )
    tensors = parts["model"]
    if not tensors:
        raise CheckpointError(f"{name} holds no language model, only {some_of(state)}.")
    for key, value in (*tensors.items(), *parts["projection"].items()):
        check_float(key, value, name)
    for key, value in parts["twin"].items():
        _check_twin(key, value, tensors, name)
    return Layout(one_adapter(tensors, name), parts["projection"], parts["auxiliary"])


def check_projection(
    projection: Mapping[str, Tensor], d_model: int, name: str, family: Family
) -> None:
    """That a projection is complete and fits the model; of any inner width.

    Raises:
        CheckpointError: names what is missing or has the wrong shape.
    """
    if not projection:
        return
    needed = {f"{i}.{part}" for i in (1, 3) for part in ("weight", "bias")}
    if any(key.startswith("ln.") for key in projection):
        needed |= {"ln.weight", "ln.bias"}
    missing = sorted(needed - projection.keys())
    if missing:
        raise CheckpointError(f"{name} lacks {some_of(map(family.projection_key, missing))}.")
    inner = projection["1.weight"].shape[0] if projection["1.weight"].ndim else 0
    expected = {
        "1.weight": (inner, d_model),
        "1.bias": (inner,),
        "3.weight": (d_model, inner),
        "3.bias": (d_model,),
        "ln.weight": (d_model,),
        "ln.bias": (d_model,),
    }
    for key, value in projection.items():
        if tuple(value.shape) != expected[key]:
            raise CheckpointError(
                f"{family.projection_key(key)} of {name} has shape {tuple(value.shape)}; a "
                f"projection within d_model {d_model} has {expected[key]}."
            )
        check_finite(family.projection_key(key), value, name)


def check_language_model(
    tensors: Mapping[str, Tensor], backbone: PretrainedConfig, name: str
) -> None:
    """That tensors and architecture match: names, shapes, and complete LoRA pairs.

    Raises:
        CheckpointError: names what is missing, unknown or of the wrong shape.
    """
    model = empty_model(backbone)
    expected = model.state_dict()
    dense = {base_name(key): value for key, value in tensors.items() if ".lora_" not in key}
    if len(dense) < sum(".lora_" not in key for key in tensors):
        twice = next(key for key in dense if key in tensors and _wrapped(key) in tensors)
        raise CheckpointError(f"{name} holds {twice} both with and without .base_layer.")
    missing = expected.keys() - dense.keys()
    if backbone.tie_word_embeddings:
        tied = tied_names(model)
        missing = {key for key in missing if key not in tied or not tied & dense.keys()}
    unexpected = sorted(dense.keys() - expected.keys())
    if missing or unexpected:
        problems = [f"lacks {some_of(sorted(missing))}"] * bool(missing)
        problems += [f"holds unknown {some_of(unexpected)}"] * bool(unexpected)
        raise CheckpointError(
            f"{name} does not fit the architecture {type(model).__name__}: it "
            f"{' and '.join(problems)}."
        )
    for key, value in dense.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{key} of {name} has shape {tuple(value.shape)}; the base model's config makes "
                f"{tuple(expected[key].shape)}."
            )
    transposed = conv1d_weights(model)
    for module, (a, b) in lora_pairs(tensors, name).items():
        check_lora(module, a, b, dense, transposed, name)


def merge(
    tensors: Mapping[str, Tensor],
    alpha: int | float | None,
    backbone: PretrainedConfig,
    name: str,
    *,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
) -> dict[str, Tensor]:
    """The dense state dict of the architecture: W + alpha / rank · B A, in at least float32.

    One tensor at a time, so that no more than one is in memory in two precisions. Tied tensors
    are the same object. The result never shares memory with the file.

    Raises:
        CheckpointError: NaN or infinite values.
    """
    model = empty_model(backbone)
    transposed = conv1d_weights(model)
    pairs = lora_pairs(tensors, name)
    exact = torch.promote_types(torch.float32, dtype)
    merged: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if ".lora_" in key:
            continue
        target = base_name(key)
        pair = pairs.get(target.removesuffix(".weight")) if target.endswith(".weight") else None
        if pair is not None and alpha is not None:
            a, b = (matrix.to(device=device, dtype=exact) for matrix in pair)
            delta = b @ a
            delta = delta.T if target in transposed else delta
            value = value.to(device=device, dtype=exact).add(delta, alpha=alpha / a.shape[0])
            merged[target] = value.to(dtype)
        else:
            merged[target] = value.to(device=device, dtype=dtype, copy=True)
        check_finite(target, merged[target], name)
    if backbone.tie_word_embeddings:
        tied = tied_names(model)
        given = next(key for key in merged if key in tied)
        merged |= dict.fromkeys(tied, merged[given])
    return merged


def is_tied(tensors: Mapping[str, Tensor], backbone: PretrainedConfig) -> bool:
    """Whether embedding and unembedding are one, as the config says and the file bears out."""
    if not backbone.tie_word_embeddings:
        return False
    ends = tied_names(empty_model(backbone))
    given = [value for key, value in tensors.items() if base_name(key) in ends]
    return len(given) < 2 or torch.equal(given[0], given[1])


def empty_model(backbone: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The Hugging Face architecture without memory for its weights.

    Raises:
        CheckpointError: the config does not describe a model.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(backbone, dtype=dtype)
    except Exception as error:  # whatever transformers thinks of an odd config
        raise CheckpointError(
            f"The base model's config does not describe a model ({first_line(error)})."
        ) from error


def tied_names(model: PreTrainedModel) -> set[str]:
    """The names of the input embedding and of the unembedding."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {f"{path}.weight" for path, module in model.named_modules() if module in ends}


def conv1d_weights(model: PreTrainedModel) -> set[str]:
    """The weights that are stored as [in, out], GPT-2's convention."""
    return {f"{p}.weight" for p, module in model.named_modules() if isinstance(module, Conv1D)}


def base_name(key: str) -> str:
    """The architecture's name of a tensor that LoRA may have wrapped.

    >>> base_name("transformer.h.0.attn.c_attn.base_layer.weight")
    'transformer.h.0.attn.c_attn.weight'
    """
    return key.replace(".base_layer.", ".")


def _is_old_buffer(key: str, value: Tensor) -> bool:
    """Buffers that old releases of transformers saved; GPT-2's causal mask has four axes."""
    return key.endswith(_OLD_BUFFERS) or (key.endswith(_OLD_MASKS) and value.ndim == 4)


def _wrapped(key: str) -> str:
    module, _, part = key.rpartition(".")
    return f"{module}.base_layer.{part}"


def _check_twin(key: str, value: Tensor, tensors: Mapping[str, Tensor], name: str) -> None:
    """The input embedding that Coconut keeps a second time, under the name of its module."""
    own = {k: v for k, v in tensors.items() if k.endswith(_EMBEDDINGS) and v.shape == value.shape}
    if not any(torch.equal(value, other) for other in own.values()):
        raise CheckpointError(
            f"{name} holds the input embedding a second time, as {key}, and the two differ; in "
            "Coconut they are one, so the file is damaged or of another code."
        )


def check_float(key: str, value: Tensor, name: str) -> None:
    """That a tensor holds weights as they are.

    Raises:
        CheckpointError: in another precision than floating point of 16 bits or more.
    """
    if value.dtype not in _FLOATS:
        raise CheckpointError(
            f"{name} holds {key} in {value.dtype} without scales that make weights of it; save it "
            "in bfloat16 or float32."
        )


def check_finite(key: str, value: Tensor, name: str) -> None:
    """That a tensor holds numbers alone.

    Raises:
        CheckpointError: NaN or infinite values.
    """
    if not torch.isfinite(value).all():
        raise CheckpointError(f"{name} holds NaN or infinite values in {key}.")
