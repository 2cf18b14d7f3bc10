"""The reference's model: transformers' own modules, the file's tensors, LoRA left unmerged.

Everything is worked out anew from a checkpoint's files, the special tokens included, so that a
mistake in loading cannot be shared with what it is compared to (see `codi_lens.verify`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from codi_lens.errors import CheckpointError
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.config import read_settings
from codi_lens.loading.families import COCONUT
from codi_lens.loading.files import says_nothing
from codi_lens.loading.hub import resolve_folder
from codi_lens.loading.sources import local_folder

_THOUGHT_TOKENS = {
    "<|bocot|>": "bot",
    "<|eocot|>": "eot",
    "<|start-latent|>": "bot",
    "<|end-latent|>": "eot",
    "<|bot|>": "bot",
    "<|eot|>": "eot",
}


@dataclass(frozen=True)
class SpecialTokens:
    """The token ids that a run needs, worked out anew: nothing is taken from `CodiConfig`'s ids.

    Attributes:
        pad, bot, eot: what the settings of the checkpoint name; else the tokenizer's own tokens
            for opening and closing thinking; else the three ids after the base vocabulary, or for
            Coconut, which has no pad, the first two after the tokenizer's.
        eos: the tokenizer's end of sequence.
        n_tokens: ids from here on are padding rows of the vocabulary.
    """

    pad: int
    bot: int
    eot: int
    eos: int
    n_tokens: int

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> SpecialTokens:
        """Work the ids out from the base model's configuration, the tokenizer and the settings.

        Raises:
            CheckpointError: they do not say which tokens open and close thinking.
        """
        config = checkpoint.config
        folder = resolve_folder(config.source, config.hub)
        settings = read_settings(folder, config.source, {})
        vocabulary = checkpoint.tokenizer.get_vocab()
        named = {name: settings[name] for name in ("pad", "bot", "eot") if name in settings}
        if "bot" not in named:
            named |= {_THOUGHT_TOKENS[t]: t for t in vocabulary if t in _THOUGHT_TOKENS}
        if "bot" in named:
            ids = {n: t if isinstance(t, int) else vocabulary[t] for n, t in named.items()}
            own_pad: Any = checkpoint.tokenizer.pad_token_id
            ids.setdefault("pad", ids["bot"] if own_pad is None else own_pad)
            n_tokens = max(len(checkpoint.tokenizer), *(i + 1 for i in ids.values()))
        else:
            if checkpoint.family is COCONUT:
                base = first = len(vocabulary)
            else:
                base = _base_vocabulary(checkpoint, folder, settings)
                first = base + 1
            ids = {"pad": base, "bot": first, "eot": first + 1}
            n_tokens = base + 3
            if {first, first + 1} & set(vocabulary.values()):
                raise CheckpointError(
                    f"Nothing in {config.source} says which tokens open and close thinking: the "
                    f"tokenizer uses the ids after the base vocabulary of {base}; name bot and eot "
                    "in its codi_config.json."
                )
        eos: Any = checkpoint.tokenizer.eos_token_id
        return cls(**ids, eos=int(eos), n_tokens=n_tokens)


def build_language_model(checkpoint: Checkpoint, dtype: torch.dtype) -> PreTrainedModel:
    """The Hugging Face model with the checkpoint's tensors, LoRA wrapped around its modules.

    Raises:
        CheckpointError: a tensor is missing or left over, or has the wrong shape.
    """
    backbone = checkpoint.backbone
    # Built in full, not on the meta device: rotary frequencies are buffers that no file holds.
    model = AutoModelForCausalLM.from_config(backbone, dtype=dtype, attn_implementation="eager")
    tensors = dict(checkpoint.tensors)
    lora = {name: tensors.pop(name) for name in list(tensors) if ".lora_" in name}
    dense = {name.replace(".base_layer.", "."): value for name, value in tensors.items()}
    paths = {module: name for name, module in model.named_modules()}
    embedding, unembedding = (
        f"{paths[end]}.weight"
        for end in (model.get_input_embeddings(), model.get_output_embeddings())
    )
    if backbone.tie_word_embeddings:
        for one, other in ((embedding, unembedding), (unembedding, embedding)):
            if one not in dense and other in dense:
                dense[one] = dense[other]
    try:
        model.load_state_dict(dense)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"transformers cannot load {checkpoint.config.source}: {reason}"
        ) from error
    for name in lora:
        if not name.endswith(".lora_A.default.weight"):
            continue
        path = name.removesuffix(".lora_A.default.weight")
        a, b = lora[name], lora[f"{path}.lora_B.default.weight"]
        alpha = checkpoint.config.lora_alpha
        if alpha is None:
            raise CheckpointError(f"{checkpoint.config.source} holds LoRA without a lora_alpha.")
        wrapped = LoraModule(
            model.get_submodule(path), a.to(dtype), b.to(dtype), float(alpha) / a.shape[0]
        )
        model.set_submodule(path, wrapped)
    return model


def build_projection(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Linear, GELU (erf), Linear, optional LayerNorm, in float64; the identity without tensors."""
    if not tensors:
        return nn.Identity()
    inner, d_model = tensors["1.weight"].shape
    modules: list[tuple[str, nn.Module]] = [
        ("1", nn.Linear(d_model, inner)),
        ("gelu", nn.GELU(approximate="none")),
        ("3", nn.Linear(inner, d_model)),
    ]
    if "ln.weight" in tensors:
        modules.append(("ln", nn.LayerNorm(d_model)))
    projection = nn.Sequential(OrderedDict(modules)).double()
    projection.load_state_dict(dict(tensors))
    return projection


class LoraModule(nn.Module):
    """A module with its LoRA path beside it: `x -> base(x) + scale · (x Aᵀ) Bᵀ`."""

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(a, requires_grad=False)
        self.b = nn.Parameter(b, requires_grad=False)
        self.scale = scale

    def forward(self, x: Float[Tensor, "*pos d_in"]) -> Float[Tensor, "*pos d_out"]:
        """The base's output plus the low-rank path's."""
        return self.base(x) + self.scale * F.linear(F.linear(x, self.a), self.b)


def _base_vocabulary(checkpoint: Checkpoint, folder: Path, settings: Mapping[str, Any]) -> int:
    """The base model's vocabulary, from its own file: the checkpoint's, or that of a given base."""
    base, named = checkpoint.config.base, settings.get("base")
    own = (folder / "config.json").is_file() and not says_nothing(folder) and base == named
    where = folder if own or base is None else local_folder(base) or base
    try:
        hub = checkpoint.config.hub.arguments
        config: Any = AutoConfig.from_pretrained(where, trust_remote_code=False, **hub)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"The configuration of the base model at {where} cannot be read."
        ) from error
    return int(config.vocab_size)
