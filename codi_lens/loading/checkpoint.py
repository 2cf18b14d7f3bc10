"""From the files of a CODI checkpoint to its settings, its tensors and its base model's config.

Reading is strict: what a checkpoint holds is consumed or named, and what it does not say is asked
for. The weights stay as they are in the file until `Checkpoint.merged` makes them dense.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from codi_lens.errors import CheckpointError, CheckpointWarning, check_choice
from codi_lens.loading.architectures import check_said, check_supported
from codi_lens.loading.backends import Backend
from codi_lens.loading.bases import (
    config_of,
    damaged_config,
    read_config,
    read_tokenizer,
    read_weights,
)
from codi_lens.loading.config import CodiConfig, read_settings, require
from codi_lens.loading.families import COCONUT, PEFT, Family, family_of
from codi_lens.loading.files import read_tensors, weight_files
from codi_lens.loading.hub import Hub, resolve_folder
from codi_lens.loading.keys import (
    Layout,
    base_name,
    check_language_model,
    check_projection,
    empty_model,
    is_tied,
    merge,
    sort_keys,
    tied_names,
)
from codi_lens.loading.lora import lora_pairs
from codi_lens.loading.sources import named_file
from codi_lens.loading.special_tokens import special_tokens
from codi_lens.loading.wrappers import unwrapped

AuxiliaryChoice = Literal["drop", "keep"]
"""What becomes of a decoder that only training uses."""


@dataclass(frozen=True)
class Opened:
    """The tensors of a checkpoint and whose they are, before anything is asked of them.

    Attributes:
        name: what the caller called it.
        folder: where its files are.
        files: those that hold its tensors.
        state: the tensors, mapped from the files, without what training wrapped around their names.
    """

    name: str
    folder: Path
    files: list[Path]
    state: Mapping[str, Tensor]

    @property
    def family(self) -> Family:
        """How its code names its tensors.

        Raises:
            CheckpointError: none that is known.
        """
        return family_of(self.state, self.folder, self.name)


def open_checkpoint(source: str | Path, hub: Hub) -> Opened:
    """Find the files of a checkpoint and map their tensors.

    Raises:
        CheckpointError: there is no such checkpoint, or one of its files cannot be read.
    """
    name, folder = str(source), resolve_folder(source, hub)
    files = weight_files(folder, named_file(source))
    return Opened(name, folder, files, unwrapped(read_tensors(files), name))


@dataclass(frozen=True)
class Checkpoint:
    """A CODI checkpoint, every key accounted for.

    Attributes:
        config: the CODI settings.
        backbone: the Hugging Face configuration, its vocabulary as large as the checkpoint's.
        tensors: the language model as in the file: Hugging Face names, LoRA unmerged.
        projection: the projection's tensors ("1.weight", "3.bias", "ln.weight", …), maybe empty.
        tokenizer: the checkpoint's own, or the base model's.
        family: how its code names tensors and thinks.
        auxiliary: tensors of a decoder that only training uses; empty unless it is kept.
        auxiliary_backbone: the Hugging Face configuration of that decoder, if not the model's.
    """

    config: CodiConfig
    backbone: PretrainedConfig
    tensors: Mapping[str, Tensor]
    projection: Mapping[str, Tensor]
    tokenizer: PreTrainedTokenizerBase
    family: Family
    auxiliary: Mapping[str, Tensor]
    auxiliary_backbone: PretrainedConfig | None = None

    def merged(
        self, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> dict[str, Tensor]:
        """The language model's dense state dict, LoRA merged, Hugging Face names.

        Raises:
            CheckpointError: NaN or infinite values.
        """
        name, alpha = self.config.source, self.config.lora_alpha
        return merge(self.tensors, alpha, self.backbone, name, dtype=dtype, device=device)


def read_checkpoint(
    source: str | Path,
    *,
    base: str | Path | None = None,
    lora_alpha: int | float | None = None,
    n_thoughts: int | None = None,
    remove_eos: bool | None = None,
    bot: str | int | None = None,
    eot: str | int | None = None,
    auxiliary: AuxiliaryChoice = "drop",
    backend: Backend = "hooked",
    hub: Hub = Hub(),  # noqa: B008  (frozen)
) -> Checkpoint:
    """Read a checkpoint from a folder, a file or a Hugging Face hub repository.

    Settings left None come from `codi_config.json`, the adapter config, the table of known
    checkpoints (`known_checkpoints.toml`) or the code of its family.

    Args:
        source: a folder, a file of weights, a shipped model, or the name of a hub repository.
        base: where configuration and tokenizer of the base model are (a folder, a shipped model
            or a hub name); by default the checkpoint's own folder, or what the settings name. An
            adapter alone takes its weights too.
        lora_alpha: the LoRA scaling; accepted and unused where the file holds no LoRA.
        n_thoughts: how many thoughts to think.
        remove_eos: whether the model was trained without EOS between question and thoughts.
        bot, eot: the tokens that open and close thinking, or their ids; by default the tokenizer's
            own (`<|bocot|>`, `<|start-latent|>`) or the ones its code adds to the base vocabulary.
        auxiliary: whether to keep the tensors of a decoder that only training uses.
        backend: what is to run it, and decides which architectures are taken.
        hub: how repositories are read.

    Raises:
        CheckpointError: the source does not exist, is not a CODI checkpoint, is truncated, holds
            code, NaN, missing or unexpected keys, or leaves a setting unsaid.
    """
    check_choice("auxiliary", auxiliary, AuxiliaryChoice, CheckpointError)
    opened = open_checkpoint(source, hub)
    name, folder, family = opened.name, opened.folder, opened.family
    given = {"lora_alpha": lora_alpha, "n_thoughts": n_thoughts, "remove_eos": remove_eos}
    given |= {"bot": bot, "eot": eot}
    settings = read_settings(folder, name, given, family.settings)
    layout = sort_keys(opened.state, name, family)
    lacking = _without_projection(layout, family, settings, name)
    named_base = base if base is not None else settings.get("base")
    backbone, values = read_config(folder, base, named_base, name, hub, len(layout.tensors))
    check_supported(backbone.model_type, name, backend)
    tensors = _with_base(layout, family, named_base, name, hub)
    tokenizer, read_otherwise = read_tokenizer(folder, named_base, name, backbone, hub)
    base_vocabulary = backbone.vocab_size if family.behind == "config" else len(tokenizer)
    embedding = _embedding(tensors, backbone, name)
    backbone.vocab_size = len(embedding)
    tokens = special_tokens(settings, tokenizer, base_vocabulary, embedding, name, family.appended)
    notes = lacking + read_otherwise + damaged_config(folder, base, named_base)
    notes = _of_auxiliary(layout.auxiliary, auxiliary, family, name) + notes
    notes += _untied(tensors, backbone, name)
    check_language_model(tensors, backbone, name)
    check_projection(layout.projection, backbone.hidden_size, name, family)
    pairs = lora_pairs(tensors, name)
    notes += check_said(backbone, values, name)
    for note in notes:
        warnings.warn(note, CheckpointWarning, stacklevel=3)
    config = CodiConfig(
        source=name,
        n_thoughts=_n_thoughts(settings, backbone, name, family),
        remove_eos=require(settings, "remove_eos", name, "True"),
        lora_alpha=require(settings, "lora_alpha", name, "32") if pairs else None,
        lora_rank=max(a.shape[0] for a, _ in pairs.values()) if pairs else None,
        eos_after_eot=settings.get("eos_after_eot"),
        question_end=settings.get("question_end", ""),
        base=None if named_base is None else str(named_base),
        revision=hub.revision,
        cache_dir=None if hub.cache_dir is None else str(hub.cache_dir),
        notes=notes,
        **tokens,
    )
    parts = (backbone, tensors, layout.projection, tokenizer, family)
    if auxiliary == "drop":
        return Checkpoint(config, *parts, {})
    where = settings.get("auxiliary_base")
    return Checkpoint(config, *parts, layout.auxiliary, where and config_of(where, hub))


def _without_projection(
    layout: Layout, family: Family, settings: Mapping[str, Any], name: str
) -> tuple[str, ...]:
    """A note of a projection that is not there, where nothing says that thoughts pass none.

    Raises:
        CheckpointError: one is missing, or there though the settings say that there is none.
    """
    said, found = settings.get("projection"), bool(layout.projection)
    if said is not None and said != found:
        raise CheckpointError(
            f"The settings of {name} say that its thoughts pass {'a' if said else 'no'} "
            f"projection, and its files hold {'one' if found else 'none'}."
        )
    if family is PEFT and not found and said is None:
        raise CheckpointError(
            f"{name} is a PEFT adapter without the projection that its thoughts pass: put that "
            "beside it, as prj.pt or projection.safetensors, or, if they pass none, a "
            'codi_config.json that says "projection": false.'
        )
    if family.projection and not found and said is None:
        return (
            f"{name} holds no projection, so its thoughts are fed back as they are; if it was "
            "trained with one, its file is incomplete, and if not, a codi_config.json that says "
            '"projection": false silences this.',
        )
    return ()


def _with_base(
    layout: Layout, family: Family, base: str | Path | None, name: str, hub: Hub
) -> dict[str, Tensor]:
    """The language model, of which an adapter alone has only what it changes."""
    dense = {base_name(key) for key in layout.tensors}
    missing = [m for m in lora_pairs(layout.tensors, name) if f"{m}.weight" not in dense]
    if family is not PEFT or not missing:
        return layout.tensors
    if base is None:
        raise CheckpointError(
            f"{name} is a PEFT adapter alone, and no adapter_config.json names its base model; "
            "pass base=, the folder or hub name of the model that it was trained on."
        )
    return read_weights(base, hub) | layout.tensors


def _of_auxiliary(
    tensors: Mapping[str, Tensor], choice: AuxiliaryChoice, family: Family, name: str
) -> tuple[str, ...]:
    """A note of a decoder that is dropped.

    Raises:
        CheckpointError: none is there to be kept, or one that cannot be read.
    """
    if choice == "drop" and not tensors:
        return ()
    if choice == "drop":
        return (
            f"{name} holds {len(tensors)} tensors of an auxiliary decoder that only training uses "
            "(SIM-CoT); they are not part of the model and were dropped.",
        )
    if not tensors:
        raise CheckpointError(f"{name} holds no auxiliary decoder that could be kept.")
    if family is COCONUT:
        raise CheckpointError(
            f"The auxiliary decoder of {name} reads several thoughts at a time, and its file does "
            "not say how many; only that of a CODI model can be kept."
        )
    return ()


def _untied(
    tensors: Mapping[str, Tensor], backbone: PretrainedConfig, name: str
) -> tuple[str, ...]:
    """Untie a config whose checkpoint has two embeddings, with a note that says so."""
    if not backbone.tie_word_embeddings or is_tied(tensors, backbone):
        return ()
    backbone.tie_word_embeddings = False
    return (
        f"{name} holds an unembedding of its own, though its config ties it to the embedding; "
        "the file counts.",
    )


def _n_thoughts(
    settings: Mapping[str, Any], backbone: PretrainedConfig, name: str, family: Family
) -> int:
    n_thoughts: int = require(settings, "n_thoughts", name, *family.n_thoughts)
    if n_thoughts >= backbone.max_position_embeddings:
        raise CheckpointError(
            f"{n_thoughts} thoughts do not fit into the context of {name}, which has "
            f"{backbone.max_position_embeddings} positions; give a smaller n_thoughts."
        )
    return n_thoughts


def _embedding(tensors: Mapping[str, Tensor], backbone: PretrainedConfig, name: str) -> Tensor:
    """The embedding, or the unembedding of a file that leaves the tied one out."""
    ends = tied_names(empty_model(backbone))
    found = [value for key, value in tensors.items() if base_name(key) in ends]
    found = [value for value in found if value.ndim == 2]
    if not found:
        raise CheckpointError(f"{name} holds no embedding and no unembedding.")
    return max(found, key=len)
