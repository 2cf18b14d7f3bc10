"""The model under one changed setting: what its files do not prove, varied one at a time.

A setting stands in codi_config.json, in the base model's config or in the tokenizer; a wrong one
is read alike by every implementation. `settings` compares these variants with what was given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn
from transformers import PretrainedConfig

from codi_lens.loading.backends import backend_of
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.language_model import build_lens
from codi_lens.loading.loaded import Loaded
from codi_lens.thinking.prompts import prepare

PUBLISHED_THOUGHTS = 6
ALPHAS = (8.0, 16.0, 32.0, 64.0, 128.0)
EPSILONS = (1e-5, 1e-6)
"""Of the norms of every supported family."""
THETAS = (1e4, 5e5, 1e6)
"""Rotary bases of GPT-NeoX and LLaMA 2, of LLaMA 3, of Qwen."""
ACTIVATIONS = ("gelu_new", "gelu", "relu", "silu")
GATED_ACTIVATIONS = ("silu", "gelu")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "eps": ("layer_norm_epsilon", "layer_norm_eps", "rms_norm_eps"),
    "activation": ("activation_function", "hidden_act"),
}
"""What families call the same field of their config."""


@dataclass(frozen=True)
class Variant:
    """A model under one changed setting.

    Attributes:
        name: what is changed, as in "lora_alpha 32 → 16".
        build: makes the model; weights are shared unless the setting is in them.
        bos: True if its questions begin with BOS where the tokenizer adds none, and the other way.
    """

    name: str
    build: Callable[[], Loaded]
    bos: bool = False

    def prompts(self, model: Loaded, questions: Sequence[str]) -> list[list[int]]:
        """Questions as the token ids that this variant reads, without what opens thinking."""
        after = len(model.config.opening)
        bare = [tokens[:-after] for tokens in prepare(model, questions)]
        return [_other_bos(tokens, model) for tokens in bare] if self.bos else bare


def variants(
    model: Loaded, checkpoint: Checkpoint, base: PretrainedConfig | None = None
) -> Iterator[Variant]:
    """Every setting that no file proves, changed to its neighbours and to usual values.

    Args:
        model: under the given settings.
        checkpoint: its files, from which weights are built anew where a setting is in them.
        base: the base model's own config, where it is at hand: its values are tried too.
    """
    yield from _codi_settings(model, checkpoint)
    yield from _backbone_settings(model, checkpoint, base)
    bos: Any = model.tokenizer.bos_token_id
    if bos is not None:
        first = model.tokenizer("1")["input_ids"][:1] == [bos]
        yield Variant(
            "BOS before the question left out" if first else "BOS before the question added",
            lambda: model,
            bos=True,
        )
    yield from _projection_norm(model)


def rebuilt(
    model: Loaded,
    checkpoint: Checkpoint,
    config: CodiConfig | None = None,
    fields: Mapping[str, Any] | None = None,
) -> Loaded:
    """The model built once more from its files, under other settings.

    Args:
        model: whose device, dtype and tokenizer count.
        checkpoint: its files.
        config: other CODI settings.
        fields: other fields of the base model's config, by their names there.
    """
    config, backbone = config or model.config, copy.deepcopy(checkpoint.backbone)
    for name, value in (fields or {}).items():
        setattr(backbone, name, value)
    device, dtype = str(model.lens.cfg.device), model.lens.cfg.dtype
    backend = backend_of(model.lens)
    weights = replace(checkpoint, config=config, backbone=backbone).merged(dtype, device)
    placed: dict[str, Any] = {"device": device, "dtype": dtype}
    lens = build_lens(backend, backbone, weights, model.tokenizer, **placed)
    return replace(model, lens=lens, config=config, backbone=backbone)


def field_of(backbone: PretrainedConfig, kind: str) -> str:
    """What a config calls its norms' epsilon or its activation."""
    return next(name for name in FIELDS[kind] if hasattr(backbone, name))


def _codi_settings(model: Loaded, checkpoint: Checkpoint) -> Iterator[Variant]:
    config = model.config
    alpha = config.lora_alpha
    for other in [] if alpha is None else _other_alphas(alpha):
        changed = replace(config, lora_alpha=other)
        yield Variant(
            f"lora_alpha {alpha:g} → {other:.4g}",
            lambda changed=changed: rebuilt(model, checkpoint, changed),
        )
    changes: list[tuple[str, dict[str, Any]]] = [
        (
            f"remove_eos {config.remove_eos} → {not config.remove_eos}",
            {"remove_eos": not config.remove_eos},
        ),
        ("bot and eot swapped", {"bot": config.eot, "eot": config.bot}),
    ]
    if config.question_end:
        changes.append((f"question_end {config.question_end!r} left out", {"question_end": ""}))
    if config.eos_after_eot is not None:
        after = not config.eos_after_eot
        changes.append((f"eos_after_eot {not after} → {after}", {"eos_after_eot": after}))
    given = config.n_thoughts
    for n in sorted({given - 1, given + 1, PUBLISHED_THOUGHTS} - {0, given}):
        changes.append((f"n_thoughts {given} → {n}", {"n_thoughts": n}))
    for name, fields in changes:
        changed = replace(config, **fields)
        yield Variant(name, lambda changed=changed: replace(model, config=changed))


def _other_alphas(alpha: int | float) -> list[float]:
    """A third and a half off, and usual values between these."""
    near = [float(each) for each in (alpha / 2, alpha * 2 / 3, alpha * 3 / 2, alpha * 2)]
    return sorted({*near, *(a for a in ALPHAS if near[0] <= a <= near[-1])} - {alpha})


def _backbone_settings(
    model: Loaded, checkpoint: Checkpoint, base: PretrainedConfig | None
) -> Iterator[Variant]:
    for name, fields in _changes(checkpoint.backbone, base, gated=model.lens.cfg.gated_mlp):
        yield Variant(name, lambda fields=fields: rebuilt(model, checkpoint, fields=fields))


def _changes(
    backbone: Any, base: PretrainedConfig | None, *, gated: bool
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Other fields of the config, and what to call the change."""
    usual = GATED_ACTIVATIONS if gated else ACTIVATIONS
    for kind, values in (("eps", EPSILONS), ("activation", usual)):
        field = field_of(backbone, kind)
        given, own = getattr(backbone, field), getattr(base, field, None)
        for value in dict.fromkeys([*([] if own is None else [own]), *values]):
            if value != given:
                yield f"{field} {given} → {value}", {field: value}
    rope = dict(getattr(backbone, "rope_parameters", None) or {})
    if rope:
        given = rope["rope_theta"]
        own = (getattr(base, "rope_parameters", None) or {}).get("rope_theta", given)
        for theta in dict.fromkeys([own, *THETAS, given / 2, given * 2]):
            if theta != given:
                parameters = rope | {"rope_theta": theta}
                yield f"rope_theta {given:g} → {theta:g}", {"rope_parameters": parameters}
    yield from _head_counts(backbone)
    for field in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
        if hasattr(backbone, field):
            given = getattr(backbone, field)
            yield f"{field} {given} → {not given}", {field: not given}


def _head_counts(backbone: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Half and twice as many heads, where the weights keep their shapes."""
    if backbone.model_type == "qwen3":  # its norms of queries and keys fix the size of a head
        return
    n_heads = backbone.num_attention_heads
    size = getattr(backbone, "head_dim", None) or backbone.hidden_size // n_heads
    groups = getattr(backbone, "num_key_value_heads", None)
    for n, fits in (
        (n_heads // 2, n_heads % 2 == 0 and (groups or 2) % 2 == 0),
        (n_heads * 2, size % 4 == 0),  # rotary positions turn pairs
    ):
        if not fits:
            continue
        if backbone.model_type == "gpt2":
            fields: dict[str, Any] = {"n_head": n}
        else:
            fields = {"num_attention_heads": n, "head_dim": size * n_heads // n}
            if groups is not None:
                fields["num_key_value_heads"] = groups * n // n_heads
        yield f"{n_heads} heads → {n}", fields


def _projection_norm(model: Loaded) -> Iterator[Variant]:
    layers = dict(model.projection.named_children())
    if not layers:
        return
    d_model = model.lens.cfg.d_model
    if "ln" in layers:
        name = "LayerNorm of the projection left out"
        others = [layer for key, layer in layers.items() if key != "ln"]
    else:
        name = "LayerNorm added to the projection"
        others = [*layers.values(), nn.LayerNorm(d_model, elementwise_affine=False)]
    yield Variant(name, lambda: replace(model, projection=nn.Sequential(*others)))


def _other_bos(tokens: list[int], model: Loaded) -> list[int]:
    bos: Any = model.tokenizer.bos_token_id
    return tokens[1:] if tokens[:1] == [bos] and len(tokens) > 1 else [bos, *tokens]
