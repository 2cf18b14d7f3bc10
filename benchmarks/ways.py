"""Ways to let a model think: the study's, a plain HookedTransformer's, and a forward pass alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache, PretrainedConfig

from codi_lens import CodiModel
from codi_lens.loading.backends import Backend, Lens
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.language_model import build_lens
from codi_lens.loading.projection import to_projection
from codi_lens.loading.releases import cached

LORA_RANK, LORA_SCALE = 128, 32 / 128
LORA_TARGETS = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}

TOKENIZERS = Path(__file__).parent.parent / "tests" / "fixtures" / "oracle"
# Characters of each question of the study's sample (100 of GSM8K, seed 42) over 4.2, which is how
# many GPT-2 puts into a token of such text; the mean is 57.5.
_LENGTHS = (
    "20 24 26 27 28 28 30 30 31 33 33 33 33 35 35 36 37 37 37 38 38 38 38 39 40 40 40 40 41 "
    "42 42 43 46 46 47 47 47 47 48 48 48 48 49 49 50 50 50 50 51 52 52 53 54 54 55 55 55 55 "
    "58 58 58 59 59 60 61 63 63 65 65 65 66 67 67 68 69 70 71 73 74 75 75 76 79 79 80 80 82 "
    "84 85 87 90 94 100 100 103 104 106 112 122 163"
)
LENGTHS = [int(length) for length in _LENGTHS.split()]

Batch = Sequence[Sequence[int]]


class Lora(nn.Module):
    """A linear layer with its low-rank update beside it, as in training."""

    def __init__(self, base: nn.Module, d_in: int, d_out: int) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(LORA_RANK, d_in) * d_in**-0.5)
        self.b = nn.Parameter(torch.randn(d_out, LORA_RANK) * 0.002)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + (x @ self.a.T @ self.b.T) * LORA_SCALE


def random_lora(backbone: PretrainedConfig) -> nn.Module:
    """A random Hugging Face model (its own initialisation) with unmerged LoRA, eager attention."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(backbone, attn_implementation="eager")
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in LORA_TARGETS[backbone.model_type]:
                sizes = tuple(child.weight.shape)  # Conv1D holds [in, out], Linear [out, in]
                d_in, d_out = sizes if backbone.model_type == "gpt2" else sizes[::-1]
                setattr(module, name, Lora(child, d_in, d_out))
    return model.requires_grad_(False).eval()


def merged(unmerged: nn.Module) -> dict[str, Tensor]:
    """Its dense state dict."""
    dense = {key.replace(".base.", "."): value for key, value in unmerged.state_dict().items()}
    for path, module in unmerged.named_modules():
        if isinstance(module, Lora):
            update = LORA_SCALE * module.b @ module.a
            weight: Any = module.base.weight
            linear = isinstance(module.base, nn.Linear)
            dense[f"{path}.weight"] = weight + (update if linear else update.T)
            dense.pop(f"{path}.a")
            dense.pop(f"{path}.b")
    return dense


def random_projection(d_model: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    square = [torch.randn(d_model, d_model, generator=generator) * d_model**-0.5 for _ in range(2)]
    return {
        "1.weight": square[0],
        "1.bias": torch.zeros(d_model),
        "3.weight": square[1],
        "3.bias": torch.zeros(d_model),
        "ln.weight": torch.ones(d_model),
        "ln.bias": torch.zeros(d_model),
    }


def codi_model(
    backbone: PretrainedConfig,
    weights: dict[str, Tensor],
    tokenizer: str,
    dtype: torch.dtype,
    backend: Backend = "hooked",
) -> CodiModel:
    own = AutoTokenizer.from_pretrained(tokenizer)
    n = backbone.vocab_size
    config = CodiConfig("random", 6, True, 32.0, LORA_RANK, n - 3, n - 2, n - 1, n - 4)
    return CodiModel(
        build_lens(backend, backbone, weights, own, device="cpu", dtype=dtype),
        to_projection(random_projection(backbone.hidden_size), dtype=dtype),
        own,
        config,
        backbone,
    )


def plain_lens(lens: Lens) -> HookedTransformer:
    """The same model with weights in TransformerLens' default layout."""
    plain = copy.deepcopy(lens)
    assert isinstance(plain, HookedTransformer)
    for parameter in plain.parameters():
        parameter.data = parameter.data.contiguous()
    return plain


def study(model: Any, projection: nn.Module, config: CodiConfig, question: Sequence[int]) -> Tensor:
    """Hugging Face, eager, batch 1, all attention returned in every pass; logits after `eot`.

    As in the original code and the study, every pass returns the logits of all its positions.
    """
    cache, kept = DynamicCache(), []

    def step(**inputs: Tensor) -> Any:
        out = model(
            **inputs,
            **cached(model, cache),
            use_cache=True,
            output_attentions=True,
            output_hidden_states=True,
        )
        kept.append(out.attentions)
        return out

    hidden = step(input_ids=torch.tensor([[*question, *config.opening]])).hidden_states[-1]
    for _ in range(config.n_thoughts):
        hidden = step(inputs_embeds=projection(hidden[:, -1:])).hidden_states[-1]
    return step(input_ids=torch.tensor([config.closing])).logits[:, -1]


def by_hand(
    lens: HookedTransformer, projection: nn.Module, config: CodiConfig, question: Sequence[int]
) -> Tensor:
    """TransformerLens, batch 1, patterns captured in every pass; logits after `eot`."""
    kept: list[Tensor] = []
    cache = TransformerLensKeyValueCache.init_cache(lens.cfg, lens.cfg.device, 1)

    def step(vectors: Tensor) -> Tensor:
        past = cache.previous_attention_mask.shape[1]
        cache.append_attention_mask(torch.ones(1, vectors.shape[1], dtype=torch.int64))
        residual, _ = lens.get_residual(vectors, past)
        residual = lens(
            residual, start_at_layer=0, stop_at_layer=lens.cfg.n_layers, past_kv_cache=cache
        )
        return lens.ln_final(residual)

    def keep(pattern: Tensor, hook: object) -> None:
        kept.append(pattern)

    with lens.hooks(fwd_hooks=[(lambda name: name.endswith("hook_pattern"), keep)]):
        hidden = step(lens.embed(torch.tensor([[*question, *config.opening]])))
        for _ in range(config.n_thoughts):
            hidden = step(projection(hidden[:, -1:]))
        hidden = step(lens.embed(torch.tensor([config.closing])))
    return lens.unembed(hidden[:, -1:])[:, 0]


def floor(model: Any, config: CodiConfig, batch: Batch) -> Tensor:
    """The same number of tokens in one pass, SDPA, left-padded; logits at the last position."""
    around = [*config.opening, *[config.bot] * config.n_thoughts, *config.closing]
    width = max(map(len, batch))
    pads = [width - len(question) for question in batch]
    rows = zip(batch, pads, strict=True)
    ids = torch.tensor([[config.pad] * pad + [*question, *around] for question, pad in rows])
    mask = (torch.arange(ids.shape[1]) >= rearrange(torch.tensor(pads), "b -> b 1")).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    hidden = model.base_model(
        ids, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state[:, -1]
    # Not logits_to_keep: the strided slice it takes multiplies many times slower on a CPU.
    return model.lm_head(hidden.contiguous())
