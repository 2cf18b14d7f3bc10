"""From the files of a CODI checkpoint to its settings, its tensors and its base model's config.

Reading is strict: what a checkpoint holds is consumed or named, and what it does not say is asked
for. The weights stay as they are in the file until `Checkpoint.merged` makes them dense.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import GatedRepoError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from codi_lens.errors import CheckpointError, CheckpointWarning, shown
from codi_lens.loading.architectures import check_said, supported
from codi_lens.loading.config import CodiConfig, read_settings, require
from codi_lens.loading.files import (
    first_line,
    read_tensors,
    resolve_folder,
    says_nothing,
)
from codi_lens.loading.keys import (
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
from codi_lens.loading.sources import check_path, is_folder, is_hub_name, local_folder
from codi_lens.loading.special_tokens import special_tokens

_LAYERS = ("num_hidden_layers", "n_layer")  # as configs call their number
_PROBE = (
    " Zoe has 14 coins, she's 7.5% older: 12345 (3 * 2)\n = £9"  # what ways to split tell apart
)
_LARGEST_ID = 2**24
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Checkpoint:
    """A CODI checkpoint, every key accounted for.

    Attributes:
        config: the CODI settings.
        backbone: the Hugging Face configuration, its vocabulary as large as the checkpoint's.
        tensors: the language model as in the file: Hugging Face names, LoRA unmerged.
        projection: the projection's tensors ("1.weight", "3.bias", "ln.weight", …), maybe empty.
        tokenizer: the checkpoint's own, or the base model's.
    """

    config: CodiConfig
    backbone: PretrainedConfig
    tensors: Mapping[str, Tensor]
    projection: Mapping[str, Tensor]
    tokenizer: PreTrainedTokenizerBase

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
    revision: str | None = None,
) -> Checkpoint:
    """Read a CODI checkpoint from a folder or a Hugging Face hub repository.

    Settings left None come from `codi_config.json`, the adapter config or the table of known
    checkpoints (`known_checkpoints.toml`).

    Args:
        source: a folder, the name of a shipped model, or that of a hub repository.
        base: where configuration and tokenizer of the base model are (a folder, a shipped model
            or a hub name); by default the checkpoint's own folder, or what the settings name.
        lora_alpha: the LoRA scaling; accepted and unused where the file holds no LoRA.
        n_thoughts: how many thoughts to think.
        remove_eos: whether the model was trained without EOS between question and thoughts.
        bot, eot: the tokens that open and close thinking, or their ids; by default the tokenizer's
            own (`<|bocot|>`, `<|start-latent|>`) or the ones CODI adds to the base vocabulary.
        revision: a branch, tag or commit of the hub repository.

    Raises:
        CheckpointError: the source does not exist, is not a CODI checkpoint, is truncated, holds
            code, NaN, missing or unexpected keys, or leaves a setting unsaid.
    """
    name = str(source)
    folder = resolve_folder(source, revision)
    given = {
        "lora_alpha": lora_alpha,
        "n_thoughts": n_thoughts,
        "remove_eos": remove_eos,
        "bot": bot,
        "eot": eot,
    }
    settings = read_settings(folder, name, given)
    layout = sort_keys(read_tensors(folder), name, plain=(folder / "codi_config.json").is_file())

    named_base = base if base is not None else settings.get("base")
    backbone, values = _read_config(folder, base, named_base, name, len(layout.tensors))
    tokenizer, read_otherwise = _read_tokenizer(folder, named_base, name, backbone)
    base_vocabulary = backbone.vocab_size
    embedding = _embedding(layout.tensors, backbone, name)
    backbone.vocab_size = len(embedding)
    tokens = special_tokens(settings, tokenizer, base_vocabulary, embedding, name)
    notes = layout.notes + read_otherwise + _damaged_config(folder, base, named_base)
    if backbone.tie_word_embeddings and not is_tied(layout.tensors, backbone):
        backbone.tie_word_embeddings = False
        notes += (
            f"{name} holds an unembedding of its own, though its config ties it to the embedding; "
            "the file counts.",
        )
    check_language_model(layout.tensors, backbone, name)
    check_projection(layout.projection, backbone.hidden_size, name)

    pairs = lora_pairs(layout.tensors, name)
    notes += check_said(backbone, values, name)
    for note in notes:
        warnings.warn(note, CheckpointWarning, stacklevel=3)
    config = CodiConfig(
        source=name,
        n_thoughts=_n_thoughts(settings, backbone, name),
        remove_eos=require(settings, "remove_eos", name, "True"),
        lora_alpha=require(settings, "lora_alpha", name, "32") if pairs else None,
        lora_rank=max(a.shape[0] for a, _ in pairs.values()) if pairs else None,
        eos_after_eot=settings.get("eos_after_eot"),
        base=None if named_base is None else str(named_base),
        revision=revision,
        notes=notes,
        **tokens,
    )
    return Checkpoint(config, backbone, layout.tensors, layout.projection, tokenizer)


def _read_config(
    folder: Path, base: str | Path | None, named_base: str | Path | None, name: str, n_tensors: int
) -> tuple[PretrainedConfig, dict[str, Any]]:
    """The given base's config, else the checkpoint's own, else that of the base it names.

    Published repositories hold a config.json of no bytes beside a base that is known: what says
    nothing counts as not there.
    """
    own = (folder / "config.json").is_file()
    usable = own and not says_nothing(folder)
    where = base if base is not None else folder if usable else named_base
    if where is None and own:
        where = folder  # what is wrong with it is said there
    if where is None:
        raise CheckpointError(
            f"{name} does not say its base model; pass base=, the folder or hub name of the "
            "model that it was trained from (for its config and tokenizer)."
        )
    config, values = _from_base(where, partial(_config_and_values, n_tensors=n_tensors))
    if config.model_type not in supported():
        raise CheckpointError(
            f"The architecture {config.model_type!r} of {name} is not supported; supported are "
            f"{', '.join(supported())}."
        )
    return config, values


def _damaged_config(
    folder: Path, base: str | Path | None, named_base: str | Path | None
) -> tuple[str, ...]:
    """A note where a config that holds something, and nothing to be read, was passed over."""
    path = folder / "config.json"
    if base is not None or not says_nothing(folder) or not path.stat().st_size:
        return ()
    return (f"{path} is damaged; the config of its base {named_base} was read instead.",)


def _read_tokenizer(
    folder: Path, named_base: str | Path | None, name: str, backbone: PretrainedConfig
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The checkpoint's own tokenizer, which knows its thought tokens, else the base model's.

    One beside a config that says nothing is read with that of the base.

    With a note where transformers splits text otherwise than its file says: without a
    `tokenizer_class`, and for Qwen2 with most, it takes that of the architecture, which has a
    pre-tokenizer of its own.
    """
    own = any((folder / file_name).is_file() for file_name in _TOKENIZER_FILES)
    if not own and named_base is None:
        raise CheckpointError(
            f"{name} holds no tokenizer; pass base=, the folder or hub name of the model that it "
            "was trained from."
        )
    where = folder if own or named_base is None else named_base
    given = {"config": backbone} if where == folder and says_nothing(folder) else {}
    read = partial(AutoTokenizer.from_pretrained, trust_remote_code=False, **given)
    tokenizer = _from_base(where, read)
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float):
        raise CheckpointError(
            f"The tokenizer in {where} gives model_max_length = {shown(longest)}; it must be a "
            "number."
        )
    _check_tokens(tokenizer, where)
    if _from_base(where, partial(_reads_as_file, tokenizer)):
        return tokenizer, ()
    return tokenizer, (
        f"The tokenizer in {where} is read by transformers as a {type(tokenizer).__name__}, which "
        "splits text otherwise than its tokenizer.json says; if the model was trained with that "
        'file, its tokenizer_config.json may lack "tokenizer_class": "PreTrainedTokenizerFast".',
    )


def _check_tokens(tokenizer: PreTrainedTokenizerBase, where: str | Path) -> None:
    try:
        tokenizer.unk_token_id  # noqa: B018
    except RecursionError:  # transformers looks an unknown token up as the unknown token
        raise CheckpointError(
            f"The tokenizer in {where} gives unk_token = {shown(tokenizer.unk_token)}, which is "
            "none of its tokens; correct it in tokenizer_config.json."
        ) from None
    token, id = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", 0))
    if id > _LARGEST_ID:  # a copy of the tokenizer would take as much memory
        raise CheckpointError(
            f"The tokenizer in {where} gives {shown(token)} the id {id}; ids are at most "
            f"{_LARGEST_ID}."
        )


def _reads_as_file(tokenizer: PreTrainedTokenizerBase, where: str | Path) -> bool:
    """Whether a tokenizer splits text as its tokenizer.json says, if there is such a file."""
    path = cached_file(where, "tokenizer.json", _raise_exceptions_for_missing_entries=False)
    if path is None:
        return True
    own = Tokenizer.from_file(path).encode(_PROBE, add_special_tokens=False).ids
    return own == tokenizer.encode(_PROBE, add_special_tokens=False)


def _config_and_values(
    where: str | Path, *, n_tensors: int
) -> tuple[PretrainedConfig, dict[str, Any]]:
    """A config, and what its file says itself: the rest are transformers' defaults."""
    values = PretrainedConfig.get_config_dict(where)[0]
    for key in _LAYERS:
        layers = values.get(key)
        # Transformers makes lists and modules as long, before anything is held against the file.
        if isinstance(layers, int) and layers > max(n_tensors, 1000):
            raise CheckpointError(
                f"The config in {where} says {key} = {shown(layers)}, but its checkpoint holds "
                f"{n_tensors} tensors, fewer than so many layers have."
            )
    return AutoConfig.from_pretrained(where, trust_remote_code=False), values


def _from_base(where: str | Path, read: Callable[[str | Path], Any]) -> Any:
    check_path(where)
    where = local_folder(where) or where
    if not is_folder(where) and not is_hub_name(str(where)):
        raise CheckpointError(
            f"There is no base model folder {str(where)!r}, and it is not a hub name (owner/name)."
        )
    try:
        return read(where)
    except CheckpointError:
        raise
    except BaseException as error:  # transformers raises many kinds, and Rust's panics are not
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if _is_gated(error):
            raise CheckpointError(
                f"The base model {where} is gated: accept its licence on huggingface.co and run "
                "`hf auth login`, or pass base= a local copy of its config and tokenizer."
            ) from error
        raise CheckpointError(
            f"The config and tokenizer of the base model could not be read from {where} "
            f"({first_line(error)}); pass base= a folder that holds them."
        ) from error


def _is_gated(error: BaseException | None) -> bool:
    """Transformers wraps the hub's error in one of its own."""
    while error is not None:
        if isinstance(error, GatedRepoError) or "gated repo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _n_thoughts(settings: Mapping[str, Any], backbone: PretrainedConfig, name: str) -> int:
    n_thoughts: int = require(settings, "n_thoughts", name, "6")
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
