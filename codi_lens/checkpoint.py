"""From the files of a CODI checkpoint to its settings and one dense state dict.

A checkpoint holds a language model under `codi.`, possibly wrapped by LoRA, and a projection under
`prj.`. Reading is strict: every key of the file is consumed or named in an error, every parameter
of the model is filled or named, and nothing that a file does not say is guessed.
"""

from __future__ import annotations

import json
import pickle
import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.pytorch_utils import Conv1D

from codi_lens.errors import CheckpointError

ARCHITECTURES = ("gpt2", "llama")
"""The backbones that `codi_lens.convert` turns into a `HookedTransformer`."""
N_SPECIAL_TOKENS = 3
"""CODI appends pad, bot and eot to the base model's vocabulary, in this order."""


@dataclass(frozen=True)
class CodiConfig:
    """What a CODI model needs to think, beside its weights.

    Attributes:
        source: the folder or hub name that the model came from.
        n_thoughts: how many thoughts it is run with (6 for the published models).
        remove_eos: True if no EOS surrounds the question and the thoughts.
        lora_alpha: the LoRA scaling that was merged, None without LoRA.
        lora_rank: the largest rank of the LoRA matrices, None without LoRA.
        pad, bot, eot, eos: token ids; `bot` and `eot` open and close thinking.
    """

    source: str
    n_thoughts: int
    remove_eos: bool
    lora_alpha: int | float | None
    lora_rank: int | None
    pad: int
    bot: int
    eot: int
    eos: int

    @property
    def opening(self) -> list[int]:
        """The tokens after a question: `[bot]`, or `[eos, bot]` where EOS is kept."""
        return [self.bot] if self.remove_eos else [self.eos, self.bot]

    @property
    def closing(self) -> list[int]:
        """The tokens after the thoughts: `[eot]`, or `[eot, eos]` where EOS is kept."""
        return [self.eot] if self.remove_eos else [self.eot, self.eos]


@dataclass(frozen=True)
class Checkpoint:
    """A CODI checkpoint read into memory: LoRA merged, every key accounted for.

    Attributes:
        config: the CODI settings.
        backbone: the Hugging Face configuration, its vocabulary including pad, bot and eot.
        weights: the language model's dense state dict, Hugging Face names.
        projection: the projection's tensors ("1.weight", "3.bias", "ln.weight", …), maybe empty.
        tokenizer: the base model's tokenizer.
    """

    config: CodiConfig
    backbone: PretrainedConfig
    weights: dict[str, Tensor]
    projection: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerBase


def load_checkpoint(
    source: str | Path,
    *,
    base: str | Path | None = None,
    lora_alpha: int | float | None = None,
    n_thoughts: int | None = None,
    remove_eos: bool | None = None,
    revision: str | None = None,
) -> Checkpoint:
    """Read a CODI checkpoint from a folder or a Hugging Face hub repository.

    Settings left None come from `codi_config.json`, the adapter config or the table of known
    checkpoints (`known_checkpoints.toml`).

    Args:
        source: a folder, or the name of a hub repository.
        base: where configuration and tokenizer of the base model are (folder or hub name);
            by default the checkpoint's own folder, or what the settings name.
        lora_alpha: the LoRA scaling; accepted and unused where the file holds no LoRA.
        n_thoughts: how many thoughts to think.
        remove_eos: whether the model was trained without EOS around question and thoughts.
        revision: a branch, tag or commit of the hub repository.

    Raises:
        CheckpointError: the source does not exist, is not a CODI checkpoint, is truncated, holds
            code, NaN, missing or unexpected keys, or leaves a setting unsaid.
    """
    name = str(source)
    folder = _resolve(source, revision)
    settings = _settings(folder, name)
    given = {"lora_alpha": lora_alpha, "n_thoughts": n_thoughts, "remove_eos": remove_eos}
    settings |= {key: value for key, value in given.items() if value is not None}

    state = _read_weights(folder)
    language_model, projection = _split(state, name)
    backbone, tokenizer = _base(folder, base if base is not None else settings.get("base"), name)
    base_vocabulary = backbone.vocab_size
    backbone.vocab_size = _vocabulary(language_model, base_vocabulary, name)
    weights, rank = _merge_lora(language_model, settings.get("lora_alpha"), backbone, name)
    weights = _complete(weights, backbone, name)
    _check_projection(projection, backbone.hidden_size, name)
    for key, value in (*weights.items(), *((f"prj.{k}", v) for k, v in projection.items())):
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{name} holds NaN or infinite values in {key}.")

    for argument, example in (("n_thoughts", "6"), ("remove_eos", "True")):
        if argument not in settings:
            raise CheckpointError(
                f"{name} does not say {argument}; pass it, as in {argument}={example} "
                "(the value of the published models)."
            )
    if int(settings["n_thoughts"]) < 1:
        raise CheckpointError(f"n_thoughts must be at least 1, not {settings['n_thoughts']}.")
    eos: Any = tokenizer.eos_token_id
    if eos is None:
        raise CheckpointError(f"The tokenizer of {name} has no EOS token, at which answers end.")
    config = CodiConfig(
        source=name,
        n_thoughts=int(settings["n_thoughts"]),
        remove_eos=bool(settings["remove_eos"]),
        lora_alpha=float(settings["lora_alpha"]) if rank is not None else None,
        lora_rank=rank,
        pad=base_vocabulary,
        bot=base_vocabulary + 1,
        eot=base_vocabulary + 2,
        eos=int(eos),
    )
    return Checkpoint(config, backbone, weights, projection, tokenizer)


def known_checkpoints() -> dict[str, dict[str, Any]]:
    """Settings of the published checkpoints, by hub name.

    >>> known_checkpoints()["zen-E/CODI-gpt2"]["lora_alpha"]
    32
    """
    text = resources.files("codi_lens").joinpath("known_checkpoints.toml").read_text("utf-8")
    return tomllib.loads(text)


def _resolve(source: str | Path, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    name = str(source)
    if folder.is_file():
        raise CheckpointError(f"{name} is a file; give the folder that holds the checkpoint.")
    if not _is_hub_name(name):
        raise CheckpointError(
            f"There is no folder {name}, and it is not the name of a hub repository (owner/name)."
        )
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{name} is gated: accept its licence on huggingface.co, then run `hf auth login`."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"There is no folder {name}, and the hub repository of that name could not be fetched "
            f"({_first_line(error)})."
        ) from error


_WANTED = ["*.json", "*.safetensors", "*.bin", "*.model", "*.txt"]


def _is_hub_name(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(parts) and not name.startswith((".", "~", "/"))


def _settings(folder: Path, name: str) -> dict[str, Any]:
    settings = dict(known_checkpoints().get(name, {}))
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        values = _read_json(adapter)
        for key in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
            if values.get(key):
                raise CheckpointError(
                    f"{adapter} sets {key}, which codi_lens does not merge; merge the adapter into "
                    "the weights first."
                )
        settings |= _known_settings(values, ("lora_alpha",), adapter)
    own = folder / "codi_config.json"
    if own.is_file():
        settings |= _known_settings(_read_json(own), tuple(_SETTINGS), own)
    return settings


_SETTINGS: dict[str, tuple[tuple[type, ...], str]] = {
    "base": ((str,), "a folder or hub name"),
    "lora_alpha": ((int, float), "a number"),
    "n_thoughts": ((int,), "a whole number"),
    "remove_eos": ((bool,), "true or false"),
}


def _known_settings(values: dict[str, Any], keys: tuple[str, ...], path: Path) -> dict[str, Any]:
    settings = {key: values[key] for key in keys if values.get(key) is not None}
    for key, value in settings.items():
        kinds, expected = _SETTINGS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise CheckpointError(f"{path} gives {key} = {value!r}; it must be {expected}.")
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is not valid JSON ({_first_line(error)}).") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return value


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the folder's weight file, or of its shards."""
    readers: dict[str, Callable[[Path], dict[str, Tensor]]] = {
        "model.safetensors": _read_safetensors,
        "pytorch_model.bin": _read_pickle,
    }
    for file_name, read in readers.items():
        index = folder / f"{file_name}.index.json"
        if (folder / file_name).is_file():
            return read(folder / file_name)
        if index.is_file():
            state: dict[str, Tensor] = {}
            shards = _read_json(index).get("weight_map")
            if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
                raise CheckpointError(f"{index} must map keys to files in its weight_map.")
            for shard in sorted(set(shards.values())):
                if not (folder / shard).is_file():
                    raise CheckpointError(f"{index} names {shard}, which is not in the folder.")
                state |= read(folder / shard)
            return state
    raise CheckpointError(
        f"{folder} is not a CODI checkpoint: it has neither model.safetensors nor "
        "pytorch_model.bin (nor the index of a sharded one)."
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or not a safetensors file ({_first_line(error)})."
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; checked below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is not a PyTorch file; codi_lens never runs code "
            "from a checkpoint, so save it with torch.save(model.state_dict()) or as safetensors."
        ) from error
    except Exception as error:  # damaged pickles fail in many ways
        raise CheckpointError(
            f"{path} is truncated or not a PyTorch file ({_first_line(error)})."
        ) from error
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise CheckpointError(f"{path} must hold a state dict: a mapping from names to tensors.")
    return dict(state)


_MODEL_PREFIXES = ("codi.base_model.model.", "codi.")
_DROPPED_PREFIXES = ("decoder.",)  # SIM-CoT's auxiliary decoder, used in training only
_DROPPED_SUFFIXES = (".attn.masked_bias", ".rotary_emb.inv_freq")  # buffers of old releases


def _split(state: Mapping[str, Tensor], name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    language_model: dict[str, Tensor] = {}
    projection: dict[str, Tensor] = {}
    unexpected: list[str] = []
    for key, value in state.items():
        prefix = next((p for p in _MODEL_PREFIXES if key.startswith(p)), None)
        if key.startswith(_DROPPED_PREFIXES) or key.endswith(_DROPPED_SUFFIXES):
            continue
        if key.endswith(".attn.bias") and value.ndim == 4:  # GPT-2's causal mask of old releases
            continue
        if prefix is not None:
            language_model[key.removeprefix(prefix)] = value
        elif key.startswith("prj."):
            projection[key.removeprefix("prj.")] = value
        else:
            unexpected.append(key)
    if not language_model:
        raise CheckpointError(
            f"{name} is not a CODI checkpoint: no key begins with `codi.` "
            f"(found {_listed(state)}); expected keys like codi.base_model.model.…"
        )
    known = {f"{i}.{part}" for i in (1, 3, "ln") for part in ("weight", "bias")}
    unexpected += [f"prj.{key}" for key in projection if key not in known]
    if unexpected:
        raise CheckpointError(f"{name} holds keys that CODI does not know: {_listed(unexpected)}.")
    needed = {f"{i}.{part}" for i in (1, 3) for part in ("weight", "bias")}
    if any(key.startswith("ln.") for key in projection):
        needed |= {"ln.weight", "ln.bias"}
    missing = sorted(needed - projection.keys()) if projection else []
    if missing:
        raise CheckpointError(f"{name} lacks {_listed([f'prj.{key}' for key in missing])}.")
    return language_model, projection


def _base(
    folder: Path, base: str | Path | None, name: str
) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    if base is None:
        if not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{name} does not say its base model; pass base=, the folder or hub name of the "
                "model that it was trained from (for its config and tokenizer)."
            )
        base = folder
    elif not Path(base).is_dir() and not _is_hub_name(str(base)):
        raise CheckpointError(f"There is no base model folder {base}.")
    try:
        config = AutoConfig.from_pretrained(base, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    except GatedRepoError as error:
        raise CheckpointError(
            f"The base model {base} is gated: accept its licence on huggingface.co and run "
            "`hf auth login`, or pass base= a local copy of its config and tokenizer."
        ) from error
    except Exception as error:  # transformers raises many kinds for odd files
        raise CheckpointError(
            f"The config and tokenizer of the base model could not be read from {base} "
            f"({_first_line(error)}); pass base= a folder that holds them."
        ) from error
    if config.model_type not in ARCHITECTURES:
        raise CheckpointError(
            f"The architecture {config.model_type!r} of {name} is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}."
        )
    return config, tokenizer


def _vocabulary(state: Mapping[str, Tensor], base_vocabulary: int, name: str) -> int:
    keys = ("wte.weight", "embed_tokens.weight", "embed_in.weight", "lm_head.weight")
    for key, value in state.items():
        if key.endswith(keys):
            expected = base_vocabulary + N_SPECIAL_TOKENS
            if value.shape[0] != expected:
                raise CheckpointError(
                    f"{key} of {name} has {value.shape[0]} rows; the base vocabulary of "
                    f"{base_vocabulary} with pad, bot and eot makes {expected}."
                )
            return value.shape[0]
    raise CheckpointError(f"{name} holds no embedding and no unembedding.")


def _merge_lora(
    state: Mapping[str, Tensor], alpha: int | float | None, backbone: PretrainedConfig, name: str
) -> tuple[dict[str, Tensor], int | None]:
    """Dense weights, W + alpha / r · B A (in float32), and the largest rank."""
    wrapped = {key for key in state if ".lora_" in key}
    dense: dict[str, Tensor] = {}
    for key, value in state.items():
        target = key.replace(".base_layer.", ".")
        if key in wrapped:
            continue
        if target in dense:
            raise CheckpointError(f"{name} holds {target} both with and without .base_layer.")
        dense[target] = value
    if not wrapped:
        return dense, None
    if alpha is None:
        raise CheckpointError(
            f"{name} holds LoRA weights but does not say lora_alpha; pass it, as in lora_alpha=32 "
            "(the value of the published models)."
        )
    transposed = {
        f"{path}.weight"
        for path, module in _empty_model(backbone).named_modules()
        if isinstance(module, Conv1D)
    }
    ranks = []
    for key in sorted(wrapped):
        module, side = _lora_parts(key, name)
        other = f"{module}.lora_{'B' if side == 'A' else 'A'}.default.weight"
        target = f"{module}.weight"
        if other not in wrapped or target not in dense:
            raise CheckpointError(f"{name} holds {key} without {other} or its base weight.")
        if side == "B":
            continue
        a, b = state[key].float(), state[other].float()
        if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
            raise CheckpointError(
                f"The LoRA matrices of {module} in {name} have shapes {tuple(a.shape)} and "
                f"{tuple(b.shape)}; expected [rank, in] and [out, rank]."
            )
        weight = dense[target]
        delta = b @ a if target not in transposed else (b @ a).T
        if delta.shape != weight.shape:
            raise CheckpointError(
                f"The LoRA matrices of {module} in {name} make a delta of shape "
                f"{tuple(delta.shape)}, but its weight has {tuple(weight.shape)}."
            )
        dense[target] = weight.float() + (alpha / a.shape[0]) * delta
        ranks.append(a.shape[0])
    return dense, max(ranks)


def _lora_parts(key: str, name: str) -> tuple[str, str]:
    for side in ("A", "B"):
        suffix = f".lora_{side}.default.weight"
        if key.endswith(suffix):
            return key.removesuffix(suffix), side
    raise CheckpointError(f"{name} holds {key}, which is not a LoRA matrix codi_lens knows.")


def _complete(
    weights: dict[str, Tensor], backbone: PretrainedConfig, name: str
) -> dict[str, Tensor]:
    """`weights` with tied tensors filled in, if it then matches the architecture exactly."""
    model = _empty_model(backbone)
    expected = model.state_dict()
    embedding = f"{model.base_model_prefix}.{_embedding_name(model)}.weight"
    if backbone.tie_word_embeddings:
        for one, other in ((embedding, "lm_head.weight"), ("lm_head.weight", embedding)):
            if one not in weights and other in weights:
                weights[one] = weights[other]
    missing = sorted(expected.keys() - weights.keys())
    unexpected = sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        problems = [f"lacks {_listed(missing)}"] * bool(missing)
        problems += [f"holds unknown {_listed(unexpected)}"] * bool(unexpected)
        raise CheckpointError(
            f"{name} does not fit the architecture {type(model).__name__}: it "
            f"{' and '.join(problems)}."
        )
    for key, value in weights.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"{key} of {name} has shape {tuple(value.shape)}; the base model's config makes "
                f"{tuple(expected[key].shape)}."
            )
    return weights


def _check_projection(projection: dict[str, Tensor], d_model: int, name: str) -> None:
    if not projection:
        return
    hidden = projection["1.weight"].shape[0] if projection["1.weight"].ndim else 0
    expected = {
        "1.weight": (hidden, d_model),
        "1.bias": (hidden,),
        "3.weight": (d_model, hidden),
        "3.bias": (d_model,),
        "ln.weight": (d_model,),
        "ln.bias": (d_model,),
    }
    for key, value in projection.items():
        if tuple(value.shape) != expected[key]:
            raise CheckpointError(
                f"prj.{key} of {name} has shape {tuple(value.shape)}; a projection within d_model "
                f"{d_model} has {expected[key]}."
            )


def _empty_model(backbone: PretrainedConfig) -> PreTrainedModel:
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(backbone)
    except Exception as error:  # whatever transformers thinks of an odd config
        raise CheckpointError(
            f"The base model's config does not describe a model ({_first_line(error)})."
        ) from error


def _embedding_name(model: PreTrainedModel) -> str:
    embedding = model.get_input_embeddings()
    return next(path for path, m in model.base_model.named_modules() if m is embedding)


def _listed(keys: Any, most: int = 4) -> str:
    keys = list(keys)
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
