"""Random CODI checkpoints in every layout and architecture, saved the way the original code does.

The original keeps a language model (wrapped by PEFT where LoRA is used) as `codi` and the
projection as `prj` of one module, and saves that module's state dict: so does `RandomCodi`.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file, save_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.pytorch_utils import Conv1D

from codi_lens import CodiModel

FIXTURES = Path(__file__).parents[1] / "fixtures"
VOCABULARY = 400
EMBEDDINGS = ("wte.weight", "embed_tokens.weight", "embed_in.weight")
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
GROUPED = COMMON | {"num_key_value_heads": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "gpt2",
        {"vocab_size": VOCABULARY, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 256},
    ),
    "llama": ("llama", GROUPED),
    "llama3": ("llama", GROUPED | {"rope_parameters": LLAMA3_ROPE, "tie_word_embeddings": True}),
    "llama-wide-heads": ("llama", COMMON | {"head_dim": 16, "num_key_value_heads": 6}),
    "mistral": ("mistral", GROUPED | {"sliding_window": 24}),
    "qwen2": ("qwen2", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "pythia": ("gpt_neox", COMMON),
    "neox-sequential": ("gpt_neox", COMMON | {"use_parallel_residual": False}),
}
"""Name of a backbone → its Hugging Face `model_type` and config."""
BRIDGED: dict[str, tuple[str, dict[str, Any]]] = {
    "phi": ("phi", COMMON),
    "gemma": ("gemma", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma3": ("gemma3_text", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
    "olmo2": ("olmo2", GROUPED),
    "falcon": ("falcon", COMMON),
    "bloom": ("bloom", COMMON | {"n_layer": 3, "n_head": 6}),
    "opt": ("opt", COMMON | {"ffn_dim": 72, "word_embed_proj_dim": 48}),
    "cohere": ("cohere", GROUPED),
    "gemma2": ("gemma2", GROUPED | {"head_dim": 16, "tie_word_embeddings": True}),
}
"""The same of backbones that no HookedTransformer computes; a bridge refuses the last three."""
TARGETS: dict[str, tuple[str, ...]] = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "phi": ("q_proj", "v_proj", "dense", "fc1", "fc2"),
    "falcon": ("query_key_value", "dense"),
    "gpt_neox": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}
GATED_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")

FileLayout = Literal[
    "bin", "safetensors", "shards", "shards without index", "merged export", "prj.pt", "PEFT",
    "LatentTTS", "Coconut",
]  # fmt: skip
APART = ("PEFT", "Coconut")
"""Config and tokenizer are not in the checkpoint's folder but in `base` within it."""
UNTOLD = ("LatentTTS", "Coconut")
"""There is no codi_config.json: the code settles all but the number of thoughts."""
LATENT_TOKENS = ("<|start-latent|>", "<|end-latent|>", "<|latent|>")


class RandomCodi(nn.Module):
    """The module tree of the original: `codi` and, unless it thinks without one, `prj`."""

    def __init__(self, codi: nn.Module, d_model: int, projection: str | None, width: int) -> None:
        super().__init__()
        self.codi = codi
        if projection is not None:
            self.prj = nn.Sequential(
                nn.Dropout(0.0), nn.Linear(d_model, width), nn.GELU(), nn.Linear(width, d_model)
            )
            if projection == "layer norm":
                self.prj.add_module("ln", nn.LayerNorm(d_model))


@dataclass(frozen=True)
class Recipe:
    """One checkpoint to make.

    Attributes:
        backbone: a key of `ARCHITECTURES`.
        files: how the tensors lie on disk.
        lora: target modules, None for the usual ones, () for a full fine-tune.
        projection: "layer norm", "plain" (without one) or None.
        width: of the projection.
        own_tokens: the tokenizer has its own thought tokens, the vocabulary no others; "latent"
            are Coconut's.
        padding: rows of the vocabulary beyond the special tokens.
        sim_cot: with the auxiliary decoder of SIM-CoT's training.
    """

    backbone: str = "gpt2"
    files: FileLayout = "bin"
    lora: Sequence[str] | None = None
    rank: int = 8
    alpha: int | float = 16
    projection: Literal["layer norm", "plain"] | None = "layer norm"
    width: int = 64
    own_tokens: bool | Literal["latent"] = False
    padding: int = 0
    sim_cot: bool = False
    remove_eos: bool = True
    n_thoughts: int = 6
    tied: bool | None = None
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """What the files do not say: the arguments of `from_pretrained`."""
        return {
            "lora_alpha": self.alpha,
            "n_thoughts": self.n_thoughts,
            "remove_eos": self.remove_eos,
        } | ({"projection": False} if self.projection is None else {})


LATENT_TTS: dict[str, Any] = {"lora": (), "files": "LatentTTS", "own_tokens": "latent"}
LAYOUTS: dict[str, dict[str, Any]] = {
    "LoRA in one .bin": {},
    "LoRA on two modules, .safetensors": {"lora": "two", "files": "safetensors"},
    "LoRA in shards, with SIM-CoT's decoder": {"files": "shards", "sim_cot": True},
    "full fine-tune, projection without LayerNorm": {"lora": (), "projection": "plain"},
    "full fine-tune, no projection, EOS kept": {
        "lora": (),
        "projection": None,
        "remove_eos": False,
        "files": "shards without index",
    },
    "merged export, narrow projection": {"lora": (), "files": "merged export", "width": 20},
    "own thought tokens, padded vocabulary, 3 thoughts": {
        "own_tokens": True,
        "padding": 5,
        "n_thoughts": 3,
    },
    "merged export with prj.pt": {"lora": (), "files": "prj.pt"},
    "PEFT adapter with prj.pt, weights in its base": {"files": "PEFT"},
    "LatentTTS, CODI": LATENT_TTS,
    "LatentTTS, Coconut": LATENT_TTS | {"projection": None},
    "Coconut's file": {"lora": (), "files": "Coconut", "projection": None, "n_thoughts": 4},
    "Coconut's file, with SIM-CoT's decoder": {
        "lora": (),
        "files": "Coconut",
        "projection": None,
        "n_thoughts": 10,
        "sim_cot": True,
    },
}
"""What published and home-made checkpoints look like: arguments of `Recipe` beside the backbone."""


def recipe(backbone: str, layout: str) -> Recipe:
    """The recipe of a backbone in a layout."""
    values = dict(LAYOUTS[layout])
    if values.get("lora") == "two":
        model_type = ARCHITECTURES[backbone][0]
        values["lora"] = TARGETS.get(model_type, GATED_TARGETS)[:2]
    return Recipe(backbone=backbone, **values)


def load(folder: Path, recipe: Recipe, **options: Any) -> CodiModel:
    """Load what `make` made, with the arguments that its files leave out."""
    if recipe.files in UNTOLD:
        options["n_thoughts"] = recipe.n_thoughts
    if recipe.files == "Coconut":
        return CodiModel.from_pretrained(folder / "checkpoint_28", folder / "base", **options)
    return CodiModel.from_pretrained(folder, **options)


def make(folder: Path, recipe: Recipe, *, settings: bool = True) -> Path:
    """Write a checkpoint; with its settings in codi_config.json unless told otherwise."""
    torch.manual_seed(recipe.seed)
    model_type, values = (ARCHITECTURES | BRIDGED)[recipe.backbone]
    config = AutoConfig.for_model(model_type, **values)
    if recipe.tied is not None:
        config.tie_word_embeddings = recipe.tied
    tokenizer = AutoTokenizer.from_pretrained(FIXTURES / "oracle/llama/base")
    home = folder / "base" if recipe.files in APART else folder
    home.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_config(config)
    if recipe.own_tokens:
        own = LATENT_TOKENS if recipe.own_tokens == "latent" else ("<|bocot|>", "<|eocot|>")
        tokenizer.add_special_tokens({"additional_special_tokens": own, "pad_token": "[PAD]"})
        rows = len(tokenizer)
    elif recipe.files == "Coconut":  # behind the tokenizer, as transformers reads it
        config.save_pretrained(home)
        tokenizer.save_pretrained(home)
        rows = len(AutoTokenizer.from_pretrained(home)) + 3
    else:
        rows = VOCABULARY + 3
    model.resize_token_embeddings(rows + recipe.padding, mean_resizing=False)
    _randomize(model)
    if recipe.files == "PEFT":
        base = copy.deepcopy(model)
        base.resize_token_embeddings(VOCABULARY)
        base.save_pretrained(home)
    targets = TARGETS.get(model_type, GATED_TARGETS) if recipe.lora is None else recipe.lora
    if targets:
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.rank,
            lora_alpha=recipe.alpha,  # type: ignore[arg-type]  # PEFT computes with any number
            target_modules=list(targets),
            fan_in_fan_out=model_type == "gpt2",
        )
        with warnings.catch_warnings():  # PEFT asks transformers in a way it deprecates
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            model = get_peft_model(model, lora)
    codi = RandomCodi(model, config.hidden_size, recipe.projection, recipe.width)
    for name, parameter in codi.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter, std=0.5 / parameter.shape[1] ** 0.5)
    _randomize(codi.prj if recipe.projection else nn.Module())
    AutoConfig.for_model(
        model_type, **values | {"tie_word_embeddings": config.tie_word_embeddings}
    ).save_pretrained(home)
    tokenizer.save_pretrained(home)
    _write(folder, codi, recipe)
    if settings and recipe.files not in UNTOLD:
        (folder / "codi_config.json").write_text(json.dumps(recipe.settings))
    return folder


def _randomize(module: nn.Module) -> None:
    """Weights that keep activations of order one, so that parity means something."""
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.5)
        elif isinstance(part, nn.Linear | Conv1D):
            fan_in = part.weight.shape[0 if isinstance(part, Conv1D) else 1]
            nn.init.normal_(part.weight, std=fan_in**-0.5)
            if part.bias is not None:
                nn.init.normal_(part.bias, std=0.1)
        elif isinstance(weight := getattr(part, "weight", None), Tensor):  # norms
            nn.init.normal_(weight, mean=1.0, std=0.1)
            if isinstance(bias := getattr(part, "bias", None), Tensor):
                nn.init.normal_(bias, std=0.1)


def _write(folder: Path, codi: RandomCodi, recipe: Recipe) -> None:
    if recipe.files == "safetensors":
        save_model(codi, str(folder / "model.safetensors"))  # drops one of each tied pair
        return
    state: dict[str, Tensor] = {key: value.clone() for key, value in codi.state_dict().items()}
    if recipe.sim_cot:
        state["decoder.transformer.wte.weight"] = torch.zeros(4, 4)
        state["pj_in.weight"] = torch.zeros(4, 4)
    plain = {key.removeprefix("codi."): v for key, v in state.items() if key.startswith("codi.")}
    projection = {key: v for key, v in state.items() if key.startswith("prj.")}
    match recipe.files:
        case "bin":
            torch.save(state, folder / "pytorch_model.bin")
        case "shards":
            keys = list(state)
            half = len(keys) // 2
            names = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin")
            parts = dict(zip(names, (keys[:half], keys[half:]), strict=True))
            for name, part in parts.items():
                torch.save({key: state[key] for key in part}, folder / name)
            index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        case "shards without index":
            save_file(state, folder / "model-00001-of-00001.safetensors")
        case "merged export":
            save_file(plain | projection, folder / "model.safetensors")
        case "prj.pt":
            save_file(plain, folder / "model.safetensors")
            torch.save(_bare(projection), folder / "prj.pt")
        case "PEFT":
            assert isinstance(codi.codi, PeftModel)
            codi.codi.peft_config["default"].base_model_name_or_path = str(folder / "base")
            codi.codi.save_pretrained(str(folder), save_embedding_layers=True)
            torch.save(_bare(projection), folder / "prj.pt")
        case "LatentTTS":
            numbered = {key.replace("ln.", "4."): v for key, v in _bare(projection).items()}
            save_file(
                plain | {f"projector.{key}": value for key, value in numbered.items()},
                folder / "model.safetensors",
            )
        case "Coconut":
            held = {f"base_causallm.{key}": value for key, value in plain.items()}
            embedding = next(v for k, v in plain.items() if k.endswith(EMBEDDINGS))
            held["embedding.weight"] = embedding
            if recipe.sim_cot:
                held["expainable_llm.lm_head.weight"] = torch.zeros(4, 4)
            torch.save(held, folder / "checkpoint_28")


def _bare(projection: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("prj."): value for key, value in projection.items()}
