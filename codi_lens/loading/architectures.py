"""The backbones that TransformerLens can compute exactly, and how their configs translate.

Weights are converted by TransformerLens' own conversion for the architecture. Its config is built
here from the Hugging Face config, field by field; whatever a field says that TransformerLens does
not compute is refused rather than approximated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformer_lens.utilities.activation_functions import SUPPORTED_ACTIVATIONS
from transformers import PretrainedConfig

from codi_lens.errors import LARGEST, CheckpointError, shown
from codi_lens.loading.backends import Backend


@dataclass(frozen=True)
class Architecture:
    """How one Hugging Face architecture becomes a `HookedTransformer`.

    Attributes:
        settings: from its config to arguments of `HookedTransformerConfig`.
        said: what its config must say, since weights of the same shape allow several values.
        usual: what old configs leave out, and is then the default of transformers.
    """

    settings: Callable[[Any], dict[str, Any]]
    said: tuple[str, ...]
    usual: tuple[str, ...] = ()


def supported() -> tuple[str, ...]:
    """The `model_type` of every supported architecture.

    >>> supported()
    ('gpt2', 'gpt_neox', 'llama', 'mistral', 'qwen2', 'qwen3')
    """
    return tuple(sorted(_ARCHITECTURES))


def check_supported(model_type: str, name: str = "the model", backend: Backend = "hooked") -> None:
    """Refuse an architecture that a `HookedTransformer` does not compute exactly.

    A `TransformerBridge` computes what Hugging Face computes, and is made or refused as a whole.

    Raises:
        CheckpointError: names those that are, and what runs the others.
    """
    if backend == "hooked" and model_type not in _ARCHITECTURES:
        raise CheckpointError(
            f"The architecture {model_type!r} of {name} is not supported, as a HookedTransformer "
            "does not compute it exactly as Hugging Face does; supported are "
            f"{', '.join(supported())}, and backend='bridge' runs many others."
        )


def architecture_of(backbone: PretrainedConfig) -> Architecture:
    """The architecture of a Hugging Face config.

    Raises:
        CheckpointError: not supported; names those that are.
    """
    check_supported(backbone.model_type)
    return _ARCHITECTURES[backbone.model_type]


def settings_of(backbone: PretrainedConfig) -> dict[str, Any]:
    """What a Hugging Face config describes, as arguments of `HookedTransformerConfig`.

    Raises:
        CheckpointError: the architecture, its activation, its biases or its rope scaling is not
            computed exactly by TransformerLens.
    """
    try:
        settings = architecture_of(backbone).settings(backbone)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise CheckpointError(
            f"The base model's config is incomplete or odd ({type(error).__name__}: {error})."
        ) from error
    _check_positive(settings)
    if settings["act_fn"] not in SUPPORTED_ACTIVATIONS:
        raise CheckpointError(
            f"The activation {settings['act_fn']!r} is not supported; supported are "
            f"{', '.join(SUPPORTED_ACTIVATIONS)}."
        )
    return settings


def check_said(backbone: PretrainedConfig, values: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """That a config says what the shapes of the weights do not, and no default stands in for it.

    Args:
        backbone: the config as transformers completes it.
        values: what the file says.
        name: what errors call the checkpoint.

    Returns:
        A sentence for each default that is usual and was used.

    Raises:
        CheckpointError: names what the config does not say.
    """
    architecture = _ARCHITECTURES.get(backbone.model_type)
    said, usual = (architecture.said, architecture.usual) if architecture else (_LEAST, ())
    aliases = {own: other for other, own in backbone.attribute_map.items()}
    aliases |= backbone.attribute_map
    missing = [key for key in said if not {key, aliases.get(key)} & values.keys()]
    if missing:
        raise CheckpointError(
            f"The config.json of {name} does not say {missing[0]}, which the weights cannot tell; "
            "add the value that the model was trained with."
        )
    given = {*values, *(values.get("rope_parameters") or {})}
    taken = vars(backbone) | (getattr(backbone, "rope_parameters", None) or {})
    return tuple(
        f"The config.json of {name} does not say {key}; the default of {backbone.model_type}, "
        f"{taken.get(key)}, is used."
        for key in usual
        if not _NAMES.get(key, {key}) & given
    )


def _check_positive(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key in _POSITIVE and value is not None and not _is_positive(value):
            raise CheckpointError(
                f"The base model's config gives {_POSITIVE[key]} = {shown(value)}; it must be a "
                "positive number, of a size that torch computes with."
            )


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LARGEST


def _gpt2(backbone: Any) -> dict[str, Any]:
    _refuse(backbone, add_cross_attention=False)
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


def _gpt_neox(backbone: Any) -> dict[str, Any]:
    _refuse(backbone, attention_bias=True)
    d_head = backbone.hidden_size // backbone.num_attention_heads
    share = backbone.rope_parameters.get("partial_rotary_factor", 1.0)
    return {
        "d_model": backbone.hidden_size,
        "d_head": d_head,
        "n_heads": backbone.num_attention_heads,
        "d_mlp": backbone.intermediate_size,
        "n_layers": backbone.num_hidden_layers,
        "n_ctx": backbone.max_position_embeddings,
        "eps": backbone.layer_norm_eps,
        "act_fn": backbone.hidden_act,
        "parallel_attn_mlp": backbone.use_parallel_residual,
        "normalization_type": "LN",
        "default_prepend_bos": False,
        **_rotary(backbone, int(d_head * share)),
    }


def _llama(backbone: Any) -> dict[str, Any]:
    _refuse(backbone, attention_bias=False, mlp_bias=False)
    return _gated(backbone) | {"default_prepend_bos": True}


def _mistral(backbone: Any) -> dict[str, Any]:
    return _gated(backbone, always_grouped=True) | {"default_prepend_bos": True}


def _qwen2(backbone: Any) -> dict[str, Any]:
    return _gated(backbone, always_grouped=True) | {"default_prepend_bos": False}


def _qwen3(backbone: Any) -> dict[str, Any]:
    _refuse(backbone, attention_bias=False)
    return _gated(backbone) | {"default_prepend_bos": False, "use_qk_norm": True}


def _gated(backbone: Any, *, always_grouped: bool = False) -> dict[str, Any]:
    """LLaMA and its relatives: RMS norms, rotary positions, gated MLP, grouped-query attention."""
    n_heads = backbone.num_attention_heads
    n_groups = backbone.num_key_value_heads or n_heads
    d_head = getattr(backbone, "head_dim", None) or backbone.hidden_size // n_heads
    return {
        "d_model": backbone.hidden_size,
        "d_head": d_head,
        "n_heads": n_heads,
        "n_key_value_heads": n_groups if always_grouped or n_groups != n_heads else None,
        "d_mlp": backbone.intermediate_size,
        "n_layers": backbone.num_hidden_layers,
        "n_ctx": backbone.max_position_embeddings,
        "eps": backbone.rms_norm_eps,
        "act_fn": backbone.hidden_act,
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        **_rotary(backbone, d_head),
        **_windows(backbone),
    }


def _rotary(backbone: Any, rotary_dim: int) -> dict[str, Any]:
    rope = dict(backbone.rope_parameters)
    rotary = {
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": rotary_dim,
        "rotary_base": rope["rope_theta"],
    }
    match rope.get("rope_type", "default"):
        case "default":
            return rotary
        case "llama3":
            return rotary | {
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


def _windows(backbone: Any) -> dict[str, Any]:
    """Sliding-window attention, in all layers (Mistral) or in those that `layer_types` names."""
    window = getattr(backbone, "sliding_window", None)
    if window is None:
        return {}
    n_layers = backbone.num_hidden_layers
    types = getattr(backbone, "layer_types", None) or ["sliding_attention"] * n_layers
    return {
        "use_local_attn": True,
        "window_size": window,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in types],
    }


def _refuse(backbone: Any, **expected: bool) -> None:
    for key, value in expected.items():
        if getattr(backbone, key, value) != value:
            raise CheckpointError(
                f"{backbone.model_type} models with {key} = {not value} are not supported; "
                f"TransformerLens computes only those with {key} = {value}."
            )


_SAID = ("num_attention_heads", "hidden_act", "rms_norm_eps", "max_position_embeddings")
_USUAL = ("rope_theta",)
_NAMES = {
    "rope_theta": {"rope_theta", "rotary_emb_base"},
    "partial_rotary_factor": {"partial_rotary_factor", "rotary_pct"},
}
"""Under which names a config says a thing; others have one."""
_POSITIVE = {
    **{key: key for key in ("d_model", "d_head", "n_heads", "d_mlp", "n_layers", "rotary_dim")},
    "n_key_value_heads": "num_key_value_heads",
    "n_ctx": "the length of the context",
    "eps": "the epsilon of its norms",
    "window_size": "sliding_window",
    "rotary_base": "rope_theta",
    "NTK_by_parts_factor": "factor",
    "NTK_by_parts_low_freq_factor": "low_freq_factor",
    "NTK_by_parts_high_freq_factor": "high_freq_factor",
    "NTK_original_ctx_len": "original_max_position_embeddings",
}
"""What must be above zero, and what a config calls it."""
_LEAST = ("num_attention_heads",)
"""What the config of any other must say, which runs on a bridge alone."""
_ARCHITECTURES: dict[str, Architecture] = {
    "gpt2": Architecture(_gpt2, ("n_head", "activation_function", "layer_norm_epsilon")),
    "gpt_neox": Architecture(
        _gpt_neox,
        ("num_attention_heads", "hidden_act", "layer_norm_eps", "max_position_embeddings"),
        ("rope_theta", "partial_rotary_factor", "use_parallel_residual"),
    ),
    "llama": Architecture(_llama, _SAID, _USUAL),
    "mistral": Architecture(_mistral, _SAID, _USUAL),
    "qwen2": Architecture(_qwen2, _SAID, _USUAL),
    "qwen3": Architecture(_qwen3, _SAID, _USUAL),
}
