"""What a folder, file or repository holds, and whether it loads, without loading it.

Tensors are mapped from their files and not read, but for embedding and projection, whose numbers
say something of the settings; the base of an adapter alone is read as loading reads it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from codi_lens.errors import CheckpointError, CheckpointWarning
from codi_lens.loading.architectures import settings_of
from codi_lens.loading.backends import Backend, usable_backend
from codi_lens.loading.bases import read_config
from codi_lens.loading.checkpoint import open_checkpoint, read_checkpoint
from codi_lens.loading.config import CodiConfig, said_settings
from codi_lens.loading.families import CODI, Family
from codi_lens.loading.hub import Hub, resolve_folder

_ROLES = {
    "model": "language model",
    "projection": "projection",
    "auxiliary": "auxiliary decoder (dropped)",
    "twin": "input embedding, again (dropped)",
    "unknown": "unknown",
}
_SHAPES = (
    "d_model", "n_layers", "n_heads", "n_key_value_heads", "d_head", "d_mlp", "n_ctx",
)  # fmt: skip
_USUAL_NAMES = {
    "hidden_size": "d_model",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
}
"""What configs call sizes, of architectures that have no TransformerLens config here."""
_TOKENS = ("bot", "eot", "eos")
_ASKED = ("n_thoughts", "remove_eos", "lora_alpha")


@dataclass(frozen=True)
class Group:
    """Tensors of one kind.

    Attributes:
        name: what they are of.
        first: the key of the first of them.
        tensors: how many there are.
        parameters: how many numbers they hold.
        dtypes: in which precisions.
    """

    name: str
    first: str
    tensors: int
    parameters: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds.

    Attributes:
        source: what was inspected.
        family: whose code saved it, as in "SIM-CoT on CODI, LoRA"; None of what is unknown.
        files: the files of its folder, by name, in bytes.
        groups: its tensors, by what they are of.
        architecture: `model_type`, vocabulary, and sizes by TransformerLens' names; maybe empty.
        settings: by name, the value and who says it.
        missing: settings that nothing says, and an argument that gives each.
        notes: a sentence for all that is dropped, or read otherwise than one may expect.
        problem: why it does not load, in one sentence; None if it does.
    """

    source: str
    family: str | None
    files: Mapping[str, int]
    groups: tuple[Group, ...]
    architecture: Mapping[str, Any]
    settings: Mapping[str, tuple[Any, str]]
    missing: Mapping[str, str]
    notes: tuple[str, ...]
    problem: str | None

    @property
    def loadable(self) -> bool:
        """Whether `CodiModel.from_pretrained` takes it with the same arguments, NaN aside."""
        return self.problem is None


def inspect_checkpoint(
    source: str | Path,
    base: str | Path | None = None,
    *,
    lora_alpha: int | float | None = None,
    n_thoughts: int | None = None,
    remove_eos: bool | None = None,
    bot: str | int | None = None,
    eot: str | int | None = None,
    backend: Backend | None = None,
    hub: Hub = Hub(),  # noqa: B008  (frozen)
) -> Inspection:
    """Say what a checkpoint holds, and whether it would load; damaged and foreign ones too.

    Args:
        source: a folder, a file of weights, a shipped model, or the name of a hub repository, which
            is fetched as for loading.
        base: folder or hub name of the base model.
        lora_alpha, n_thoughts, remove_eos, bot, eot: as `CodiModel.from_pretrained` takes them.
        backend: what it would be loaded for, as `CodiModel.from_pretrained` takes it.
        hub: how repositories are read.

    Raises:
        CheckpointError: there is nothing of that name, or a repository cannot be fetched.

    >>> found = inspect_checkpoint("tiny-gpt2")
    >>> found.family, found.loadable, found.settings["n_thoughts"]
    ('CODI, LoRA', True, (6, 'codi_config.json'))
    """
    backend = usable_backend(backend)
    name, folder = str(source), resolve_folder(source, hub)
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    given = {"lora_alpha": lora_alpha, "n_thoughts": n_thoughts, "remove_eos": remove_eos}
    given |= {"bot": bot, "eot": eot}
    opened, family = None, None
    with suppress(CheckpointError):  # which reading the whole says again
        opened = open_checkpoint(source, hub)
        family = opened.family
    groups = () if opened is None else tuple(_groups(opened.state, family))
    with_lora = any(group.name == "LoRA" for group in groups)
    settings: dict[str, tuple[Any, str]] = {}
    readable = False
    with suppress(CheckpointError):
        for who, said in said_settings(folder, name, given, family and family.settings):
            settings |= {key: (value, who) for key, value in said.items()}
        readable = True
    if base is not None:
        settings["base"] = base, "the call"
    architecture: dict[str, Any] = {}
    notes, problem = (), None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # they are its notes
        with suppress(CheckpointError):
            where = settings.get("base", (None, ""))[0]
            config, _ = read_config(
                folder, base, where, name, hub, len(opened.state) if opened else 0
            )
            architecture = _architecture(config)
        try:
            checkpoint = read_checkpoint(source, base=base, **given, backend=backend, hub=hub)
            architecture = _architecture(checkpoint.backbone)
            if backend == "hooked":
                settings_of(checkpoint.backbone)
            settings |= _tokens(checkpoint.config, settings)
            notes = checkpoint.config.notes
        except CheckpointError as error:
            problem = str(error)
    # Where settings cannot be read, what they would say is not missing.
    known = bool(architecture)
    missing = _missing(settings, family or CODI, with_lora, known) if readable else {}
    kind = None if family is None else _kind(family, groups, with_lora)
    return Inspection(name, kind, files, groups, architecture, settings, missing, notes, problem)


def _kind(family: Family, groups: tuple[Group, ...], with_lora: bool) -> str:
    name = family.name
    if any(group.name == _ROLES["auxiliary"] for group in groups):
        name = f"SIM-CoT on {name}"
    if family is CODI:
        name += ", LoRA" if with_lora else ", full fine-tune"
    return name


def _groups(state: Mapping[str, Tensor], family: Family | None) -> list[Group]:
    """Tensors by what they are of; of an unknown family, by the first step of their names."""
    sorted_keys: dict[str, list[str]] = {}
    for key in state:
        role = key.partition(".")[0] if family is None else _ROLES[family.sort(key)[0]]
        lora = role == _ROLES["model"] and ".lora_" in key
        sorted_keys.setdefault("LoRA" if lora else role, []).append(key)
    return [
        Group(
            name,
            keys[0],
            len(keys),
            sum(state[key].numel() for key in keys),
            tuple(sorted({str(state[key].dtype).removeprefix("torch.") for key in keys})),
        )
        for name, keys in sorted_keys.items()
    ]


def _architecture(backbone: Any) -> dict[str, Any]:
    said = {"model_type": backbone.model_type, "vocabulary": getattr(backbone, "vocab_size", None)}
    said |= {ours: getattr(backbone, theirs, None) for theirs, ours in _USUAL_NAMES.items()}
    with suppress(CheckpointError):
        computed = settings_of(backbone)
        said |= {key: computed.get(key) for key in _SHAPES}
    return {key: value for key, value in said.items() if value is not None}


def _tokens(config: CodiConfig, settings: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """The tokens that neither a file nor the call names."""
    who = "tokenizer and vocabulary"
    return {key: (getattr(config, key), who) for key in _TOKENS if key not in settings}


def _missing(
    settings: Mapping[str, Any], family: Family, with_lora: bool, known: bool
) -> dict[str, str]:
    examples = {"n_thoughts": family.n_thoughts[0], "remove_eos": "True", "lora_alpha": "32"}
    asked = [key for key in _ASKED if key not in settings and (key != "lora_alpha" or with_lora)]
    found = {key: f"{key}={examples[key]}" for key in asked}
    return found if known or "base" in settings else found | {"base": "base=owner/name"}
