"""The base model of a checkpoint: its config, its tokenizer and, for an adapter, its weights.

All are read by transformers, from the checkpoint's own folder where it holds them, else from the
base that it names; whatever keeps them from being read is one sentence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub.errors import GatedRepoError
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerBase,
)
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils.hub import cached_file

from codi_lens.errors import CheckpointError, shown
from codi_lens.loading.files import first_line, says_nothing
from codi_lens.loading.hub import Hub
from codi_lens.loading.sources import check_path, is_folder, is_hub_name, local_folder
from codi_lens.loading.wrappers import some_of

_LAYERS = ("num_hidden_layers", "n_layer")  # as configs call their number
_PROBE = (
    " Zoe has 14 coins, she's 7.5% older: 12345 (3 * 2)\n = £9"  # what ways to split tell apart
)
_LARGEST_ID = 2**24
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


def read_config(
    folder: Path,
    base: str | Path | None,
    named_base: str | Path | None,
    name: str,
    hub: Hub,
    n_tensors: int,
) -> tuple[PretrainedConfig, dict[str, Any]]:
    """The given base's config, else the checkpoint's own, else that of the base it names.

    Published repositories hold a config.json of no bytes beside a base that is known: what says
    nothing counts as not there.

    Args:
        folder: the checkpoint's.
        base: the caller's.
        named_base: that, or the one that the settings name.
        name: what errors call the checkpoint.
        hub: how repositories are read.
        n_tensors: how many the checkpoint holds at least, by which a config is believed.

    Returns:
        The config, and what its file says itself: the rest are transformers' defaults.

    Raises:
        CheckpointError: none is there, or it cannot be read.
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
    read = partial(_config_and_values, n_tensors=n_tensors, hub=hub)
    return from_base(where, read)


def config_of(base: str | Path, hub: Hub) -> PretrainedConfig:
    """The config of a base model.

    Raises:
        CheckpointError: it cannot be read.
    """
    read = partial(AutoConfig.from_pretrained, trust_remote_code=False, **hub.arguments)
    return from_base(base, read, "config")


def read_weights(base: str | Path, hub: Hub) -> dict[str, Tensor]:
    """The language model of a base, as in its files; a tied unembedding is left out.

    Raises:
        CheckpointError: it cannot be read, or is not whole.
    """
    read = partial(
        AutoModelForCausalLM.from_pretrained,
        dtype="auto",
        trust_remote_code=False,
        output_loading_info=True,
        **hub.arguments,
    )
    model, found = from_base(base, read, "weights")
    if found["missing_keys"]:
        raise CheckpointError(
            f"The base model {base} lacks {some_of(sorted(found['missing_keys']))}, so no adapter "
            "can be merged into it."
        )
    state = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        head = next(n for n, m in model.named_modules() if m is model.get_output_embeddings())
        state.pop(f"{head}.weight", None)
    return state


def damaged_config(
    folder: Path, base: str | Path | None, named_base: str | Path | None
) -> tuple[str, ...]:
    """A note where a config that holds something, and nothing to be read, was passed over."""
    path = folder / "config.json"
    if base is not None or not says_nothing(folder) or not path.stat().st_size:
        return ()
    return (f"{path} is damaged; the config of its base {named_base} was read instead.",)


def read_tokenizer(
    folder: Path, named_base: str | Path | None, name: str, backbone: PretrainedConfig, hub: Hub
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """The checkpoint's own tokenizer, which knows its thought tokens, else the base model's.

    One beside a config that says nothing is read with that of the base.

    With a note where transformers splits text otherwise than its file says: without a
    `tokenizer_class`, and for Qwen2 with most, it takes that of the architecture, which has a
    pre-tokenizer of its own.

    Raises:
        CheckpointError: none is there, it cannot be read, or it holds what no tokenizer does.
    """
    own = any((folder / file_name).is_file() for file_name in _TOKENIZER_FILES)
    if not own and named_base is None:
        raise CheckpointError(
            f"{name} holds no tokenizer; pass base=, the folder or hub name of the model that it "
            "was trained from."
        )
    where = folder if own or named_base is None else named_base
    given: dict[str, Any] = {"config": backbone} if where == folder and says_nothing(folder) else {}
    tokenizer = from_base(where, partial(_tokenizer_at, **given, **hub.arguments))
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float):
        raise CheckpointError(
            f"The tokenizer in {where} gives model_max_length = {shown(longest)}; it must be a "
            "number."
        )
    _check_tokens(tokenizer, where)
    if from_base(where, partial(_reads_as_file, tokenizer, hub=hub)):
        return tokenizer, ()
    return tokenizer, (
        f"The tokenizer in {where} is read by transformers as a {type(tokenizer).__name__}, which "
        "splits text otherwise than its tokenizer.json says; if the model was trained with that "
        'file, its tokenizer_config.json may lack "tokenizer_class": "PreTrainedTokenizerFast".',
    )


def _tokenizer_at(where: str | Path, **given: Any) -> PreTrainedTokenizerBase:
    """A tokenizer that knows where its files are: TransformerLens reads it there once more."""
    tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=False, **given)
    hub = {key: value for key, value in given.items() if key != "config"}
    file = cached_file(
        where, TOKENIZER_CONFIG_FILE, _raise_exceptions_for_missing_entries=False, **hub
    )
    if file is not None:
        tokenizer.init_kwargs["name_or_path"] = str(Path(file).parent)
    return tokenizer


def _check_tokens(tokenizer: PreTrainedTokenizerBase, where: str | Path) -> None:
    for name in ("bos_token", "unk_token"):
        token = getattr(tokenizer, name)
        try:
            missing = token is not None and getattr(tokenizer, f"{name}_id") is None
        except RecursionError:  # transformers looks an unknown token up as the unknown token
            missing = True
        if missing:
            raise CheckpointError(
                f"The tokenizer in {where} gives {name} = {shown(token)}, which is none of its "
                "tokens; correct it in tokenizer_config.json."
            )
    token, id = max(tokenizer.get_vocab().items(), key=lambda item: item[1], default=("", 0))
    if id > _LARGEST_ID:  # a copy of the tokenizer would take as much memory
        raise CheckpointError(
            f"The tokenizer in {where} gives {shown(token)} the id {id}; ids are at most "
            f"{_LARGEST_ID}."
        )


def _reads_as_file(tokenizer: PreTrainedTokenizerBase, where: str | Path, hub: Hub) -> bool:
    """Whether a tokenizer splits text as its tokenizer.json says, if there is such a file."""
    path = cached_file(
        where, "tokenizer.json", _raise_exceptions_for_missing_entries=False, **hub.arguments
    )
    if path is None:
        return True
    own = Tokenizer.from_file(path).encode(_PROBE, add_special_tokens=False).ids
    return own == tokenizer.encode(_PROBE, add_special_tokens=False)


def _config_and_values(
    where: str | Path, *, n_tensors: int, hub: Hub
) -> tuple[PretrainedConfig, dict[str, Any]]:
    """A config, and what its file says itself: the rest are transformers' defaults."""
    values = PretrainedConfig.get_config_dict(where, **hub.arguments)[0]
    for key in _LAYERS:
        layers = values.get(key)
        # Transformers makes lists and modules as long, before anything is held against the file.
        if isinstance(layers, int) and layers > max(n_tensors, 1000):
            raise CheckpointError(
                f"The config in {where} says {key} = {shown(layers)}, but its checkpoint holds "
                f"{n_tensors} tensors, fewer than so many layers have."
            )
    return AutoConfig.from_pretrained(where, trust_remote_code=False, **hub.arguments), values


def from_base(
    where: str | Path, read: Callable[[str | Path], Any], what: str = "config and tokenizer"
) -> Any:
    """What transformers reads from a folder, a shipped model or a hub repository.

    Raises:
        CheckpointError: there is nothing of that name, or it cannot be read; says what to pass.
    """
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
                "`hf auth login` or pass token=, or pass base= a local copy."
            ) from error
        raise CheckpointError(
            f"The {what} of the base model could not be read from {where} "
            f"({first_line(error)}); pass base= a folder that holds them."
        ) from error


def _is_gated(error: BaseException | None) -> bool:
    """Transformers wraps the hub's error in one of its own."""
    while error is not None:
        if isinstance(error, GatedRepoError) or "gated repo" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
