"""Copies of the shipped models that are wrong in a file which every implementation reads alike."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@dataclass(frozen=True)
class Wrong:
    """One mistake in the files of a shipped model.

    Attributes:
        model: the shipped model.
        mistake: what is wrong, in words.
        damage: makes it, in a copy of the folder.
        named: what names it where no answer shows it: the setting, or the weights.
    """

    model: str
    mistake: str
    damage: Callable[[Path], None]
    named: str = ""

    def make(self, folder: Path) -> Path:
        """The wrong copy, in a folder that does not exist yet."""
        shutil.copytree(CHECKPOINTS / self.model, folder)
        self.damage(folder)
        return folder


def _json(name: str, **values: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | values))

    return damage


def _config(**values: Any) -> Callable[[Path], None]:
    return _json("config.json", **values)


def _codi(**values: Any) -> Callable[[Path], None]:
    return _json("codi_config.json", **values)


def _theta(value: float) -> Callable[[Path], None]:
    return _config(rope_parameters={"rope_theta": value, "rope_type": "default"})


def _weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "pytorch_model.bin"
        if file.exists():
            torch.save(change(torch.load(file)), file)
        else:
            file = folder / "model.safetensors"
            save_file(change(load_file(file)), file)

    return damage


def _zeroed(part: str) -> Callable[[Path], None]:
    return _weights(
        lambda tensors: {k: v * 0 if k.endswith(part) else v for k, v in tensors.items()}
    )


def _without(part: str) -> Callable[[Path], None]:
    return _weights(lambda tensors: {k: v for k, v in tensors.items() if part not in k})


def _tokenizer(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return damage


def _exchange(content: Mapping[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary[" 7"], vocabulary[" 8"] = vocabulary[" 8"], vocabulary[" 7"]


def _without_bos(content: dict[str, Any]) -> None:
    content["post_processor"]["single"] = content["post_processor"]["single"][1:]


WRONG: tuple[Wrong, ...] = (
    Wrong("tiny-llama", "rope theta 5e5", _theta(5e5), "rope_theta"),
    Wrong("tiny-llama", "rope theta 2e4", _theta(2e4), "rope_theta"),
    Wrong("tiny-llama", "RMS eps 1e-2", _config(rms_norm_eps=1e-2), "rms_norm_eps"),
    Wrong("tiny-llama", "RMS eps 1e-5", _config(rms_norm_eps=1e-5), "rms_norm_eps"),
    Wrong(
        "tiny-llama",
        "heads 8 to 4",
        _config(num_attention_heads=4, num_key_value_heads=2, head_dim=24),
        "4 heads",
    ),
    Wrong("tiny-llama", "BOS missing", _tokenizer(_without_bos), "BOS"),
    Wrong("tiny-llama", "SiLU to GELU", _config(hidden_act="gelu"), "hidden_act"),
    Wrong("tiny-llama", "n_thoughts 4", _codi(n_thoughts=4), "n_thoughts"),
    Wrong("tiny-llama", 'tokens " 7" and " 8" exchanged', _tokenizer(_exchange)),
    Wrong("tiny-gpt2", "n_head 4", _config(n_head=4), "4 heads"),
    Wrong(
        "tiny-gpt2", "no attention scale", _config(scale_attn_weights=False), "scale_attn_weights"
    ),
    Wrong(
        "tiny-gpt2",
        "scale by inverse layer",
        _config(scale_attn_by_inverse_layer_idx=True),
        "scale_attn_by_inverse_layer_idx",
    ),
    Wrong("tiny-gpt2", "LayerNorm eps 1e-2", _config(layer_norm_epsilon=1e-2), "layer_norm_eps"),
    Wrong("tiny-gpt2", "LayerNorm eps 1e-3", _config(layer_norm_epsilon=1e-3), "layer_norm_eps"),
    Wrong("tiny-gpt2", "gelu_new to gelu", _config(activation_function="gelu"), "activation"),
    Wrong("tiny-gpt2", "gelu_new to relu", _config(activation_function="relu"), "activation"),
    Wrong("tiny-gpt2", "qkv biases zeroed", _zeroed("attn.c_attn.base_layer.bias"), "c_attn"),
    Wrong("tiny-gpt2", "projection LayerNorm dropped", _without("prj.ln"), "LayerNorm"),
    Wrong("tiny-gpt2", "alpha 96", _codi(lora_alpha=96), "lora_alpha"),
    Wrong("tiny-gpt2", "alpha 72", _codi(lora_alpha=72), "lora_alpha"),
    Wrong("tiny-gpt2", "n_thoughts 5", _codi(n_thoughts=5), "n_thoughts"),
    Wrong("tiny-gpt2", "n_thoughts 7", _codi(n_thoughts=7), "n_thoughts"),
    Wrong("tiny-gpt2", "n_thoughts 12", _codi(n_thoughts=12), "n_thoughts"),
    Wrong("tiny-gpt2", "remove_eos false", _codi(remove_eos=False), "remove_eos"),
    Wrong("tiny-gpt2", 'tokens " 7" and " 8" exchanged', _tokenizer(_exchange)),
)
