"""What is known of a checkpoint beside its own files: the base model's config, the known table.

A config that contradicts them is no proof of a mistake, and it is the first place to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from codi_lens.errors import CodiLensError
from codi_lens.loading.architectures import architecture_of
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.config import CodiConfig, known_bases, known_checkpoints

_SETTINGS = ("lora_alpha", "n_thoughts", "remove_eos", "eos_after_eot", "question_end")


def base_config(checkpoint: Checkpoint) -> PretrainedConfig | None:
    """The base model's own config where it is at hand: a folder, the hub's cache, or the table."""
    base = checkpoint.config.base
    if base is None:
        return None
    try:  # nothing is downloaded for a comparison
        hub = checkpoint.config.hub.arguments
        return AutoConfig.from_pretrained(base, trust_remote_code=False, **hub)
    except (OSError, ValueError):
        known = dict(known_bases().get(base, {}))
        return AutoConfig.for_model(known.pop("model_type"), **known) if known else None


def contradictions(
    config: CodiConfig, backbone: PretrainedConfig, base: PretrainedConfig | None
) -> Iterator[str]:
    """A sentence for each setting that the base model or the known table has otherwise."""
    known = known_checkpoints().get(config.source, {})
    for key in _SETTINGS:
        given = getattr(config, key)
        if key in known and given is not None and given != known[key]:
            yield (
                f"CHECK THIS SETTING: {key} is {given}, and {known[key]} in the table of known "
                "checkpoints."
            )
    if base is None or base.model_type != backbone.model_type:
        return
    try:
        own, others = _computed(backbone), _computed(base)
    except (CodiLensError, AttributeError, KeyError, TypeError):  # a base of another kind
        return
    for key in own.keys() & others.keys():
        if own[key] != others[key]:
            yield (
                f"CHECK THIS SETTING: the config gives {key} = {own[key]}, and the base model "
                f"{config.base} has {others[key]}."
            )


def zeroed(checkpoint: Checkpoint) -> Iterator[str]:
    """A sentence if weights of one kind are 0 in every layer; those of trained models are not."""
    kinds: dict[str, list[bool]] = {}
    for name, tensor in checkpoint.tensors.items():
        kind = ".".join("*" if part.isdigit() else part for part in name.split("."))
        kinds.setdefault(kind, []).append(not bool(tensor.any()))
    zero = sorted(kind for kind, each in kinds.items() if all(each))
    if zero:
        yield (
            f"All of {', '.join(zero)} is 0 in the file; trained weights seldom are, and no answer "
            "need show it."
        )


def _computed(backbone: PretrainedConfig) -> Mapping[str, Any]:
    """What decides a result, by TransformerLens' names; the vocabulary grows in training."""
    return architecture_of(backbone).settings(backbone)
