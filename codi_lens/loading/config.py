"""What a CODI model needs to think, beside its weights: `CodiConfig`, and where it is read from.

A setting comes from an argument, else from the checkpoint's `codi_config.json`, else from its
adapter config, else from the table of known checkpoints, else from the code of its family. What
none of them says is never guessed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from codi_lens.errors import CheckpointError, shown
from codi_lens.loading.files import read_json
from codi_lens.loading.hub import Hub


@dataclass(frozen=True)
class CodiConfig:
    """The settings a CODI model was loaded with.

    Attributes:
        source: the folder or hub name that the model came from.
        n_thoughts: how many thoughts it is run with (6 for the published models).
        remove_eos: True if no EOS stands between the question and `bot`.
        lora_alpha: the LoRA scaling that was merged, None without LoRA.
        lora_rank: the largest rank of the LoRA matrices, None without LoRA.
        pad, bot, eot, eos: token ids; `bot` and `eot` open and close thinking.
        eos_after_eot: whether an EOS follows `eot`; None means where it stands before `bot`, as
            in the original code.
        n_tokens: how many ids are tokens; rows of the vocabulary beyond them are padding. None
            means all.
        question_end: ends the text of every question (a newline in Coconut); token lists are taken
            as they are.
        base: where config and tokenizer came from, if not from `source`.
        revision: the revision of the hub repository, if one was asked for.
        cache_dir: where the files from the hub are, if not in its usual cache.
        notes: what was left out in loading, one sentence each.
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
    eos_after_eot: bool | None = None
    n_tokens: int | None = None
    question_end: str = ""
    base: str | None = None
    revision: str | None = None
    cache_dir: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def opening(self) -> list[int]:
        """The tokens after a question: `[bot]`, or `[eos, bot]` where EOS is kept."""
        return [self.bot] if self.remove_eos else [self.eos, self.bot]

    @property
    def closing(self) -> list[int]:
        """The tokens after the thoughts: `[eot]`, or `[eot, eos]` where EOS is kept."""
        after = not self.remove_eos if self.eos_after_eot is None else self.eos_after_eot
        return [self.eot, self.eos] if after else [self.eot]

    @property
    def written(self) -> bool:
        """Whether runs write their chain of thought, as CODI's teacher: neither `bot` nor `eot`."""
        return not self.closing

    @property
    def n_ends(self) -> int:
        """Which EOS ends an answer.

        The teacher that has one behind the question has one between chain and answer too.
        """
        return 1 + len(self.opening) if self.written else 1

    @property
    def hub(self) -> Hub:
        """How the files are read again: from where they lie since they were loaded."""
        return Hub(self.revision, cache_dir=self.cache_dir, offline=True)

    def prepared(self, question: str) -> str:
        """The text of a question as the model reads it: stripped, and with what ends it.

        Empty where the question is.

        >>> CodiConfig("m", 6, True, None, None, 4, 5, 6, 0).prepared(" Two  coins? ")
        'Two coins?'
        """
        text = question.strip().replace("  ", " ")
        return text + self.question_end if text else ""

    def never_decoded(self, vocabulary: int) -> list[int]:
        """The ids that greedy decoding passes over: `eot`, as in the original, and padding rows.

        >>> CodiConfig("m", 6, True, None, None, 4, 5, 6, 0, n_tokens=7).never_decoded(9)
        [6, 7, 8]
        """
        return [self.eot, *range(self.n_tokens or vocabulary, vocabulary)]


def known_checkpoints() -> Mapping[str, Mapping[str, Any]]:
    """Settings of the published checkpoints, by hub name.

    >>> known_checkpoints()["zen-E/CODI-gpt2"]["lora_alpha"]
    32
    """
    return {name: values for name, values in _known().items() if name != "bases"}


def known_bases() -> Mapping[str, Mapping[str, Any]]:
    """What decides the results of the published base models, by hub name, as their configs say it.

    >>> known_bases()["openai-community/gpt2"]["n_head"]
    12
    """
    return _known()["bases"]


@cache
def _known() -> Mapping[str, Mapping[str, Any]]:
    table = resources.files("codi_lens.loading").joinpath("known_checkpoints.toml")
    return tomllib.loads(table.read_text("utf-8"))


def read_settings(
    folder: Path, name: str, given: Mapping[str, Any], family: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of a checkpoint, from the arguments, its files, the known table, its family.

    Args:
        folder: where its files are.
        name: what the caller called it: a folder or a hub name.
        given: arguments; None means not given.
        family: what the code of its family settles.

    Raises:
        CheckpointError: a setting of the wrong kind, or an adapter that merges otherwise.
    """
    settings: dict[str, Any] = {}
    for _, said in said_settings(folder, name, given, family):
        settings |= said
    return settings


def said_settings(
    folder: Path, name: str, given: Mapping[str, Any], family: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Who says which settings, as in `read_settings`; those who come later count.

    Raises:
        CheckpointError: as in `read_settings`.
    """
    yield "the code of its family", dict(family or {})
    yield "the table of known checkpoints", dict(known_checkpoints().get(name, {}))
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        yield adapter.name, _of_adapter(adapter)
    own = folder / "codi_config.json"
    if own.is_file():
        said = _checked(read_json(own), tuple(_KINDS), str(own))
        for key in ("base", "auxiliary_base"):
            if key in said and (folder / said[key]).is_dir():  # as seen from the file
                said[key] = folder / said[key]
        yield own.name, said
    yield "the call", _checked(given, tuple(_KINDS), "The call")


def _of_adapter(path: Path) -> dict[str, Any]:
    """What PEFT says of an adapter: its scaling, and the model that it was trained on."""
    values = read_json(path)
    for key in ("use_rslora", "use_dora", "alpha_pattern", "rank_pattern"):
        if values.get(key):
            raise CheckpointError(
                f"{path} sets {key}, which codi_lens does not merge; merge the adapter into the "
                "weights first."
            )
    kind = values.get("peft_type", "LORA")
    if kind != "LORA":
        raise CheckpointError(
            f"{path} is of an adapter of type {shown(kind)}; codi_lens merges LoRA alone."
        )
    said = _checked(values, ("lora_alpha",), str(path))
    base = values.get("base_model_name_or_path")
    if base:
        said["base"] = base
    return said


def require(
    settings: Mapping[str, Any],
    key: str,
    name: str,
    example: str,
    why: str = "the value of the published models",
) -> Any:
    """A setting that nothing else can stand in for.

    Raises:
        CheckpointError: it is not there; says how to pass it.
    """
    if key not in settings:
        raise CheckpointError(f"{name} does not say {key}; pass it, as in {key}={example} ({why}).")
    return settings[key]


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "base": ((str, Path), "a folder or hub name"),
    "lora_alpha": ((int, float), "a number"),
    "n_thoughts": ((int,), "a whole number"),
    "remove_eos": ((bool,), "true or false"),
    "eos_after_eot": ((bool,), "true or false"),
    "pad": ((int, str), "a token or its id"),
    "bot": ((int, str), "a token or its id"),
    "eot": ((int, str), "a token or its id"),
    "n_tokens": ((int,), "a whole number"),
    "question_end": ((str,), "a text"),
    "projection": ((bool,), "true or false"),
    "auxiliary_base": ((str, Path), "a folder or hub name"),
}


def _checked(values: Mapping[str, Any], keys: tuple[str, ...], where: str) -> dict[str, Any]:
    settings = {key: _plain(values[key]) for key in keys if values.get(key) is not None}
    for key, value in settings.items():
        kinds, expected = _KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise CheckpointError(f"{where} gives {key} = {shown(value)}; it must be {expected}.")
    if settings.get("n_thoughts", 1) < 1:
        raise CheckpointError(
            f"{where} gives n_thoughts = {settings['n_thoughts']}; it must be at least 1."
        )
    alpha = settings.get("lora_alpha", 1)
    if not 0 < alpha < 2.0**127:
        raise CheckpointError(
            f"{where} gives lora_alpha = {shown(alpha)}; it must be a positive number that float32 "
            "holds, as LoRA is scaled by it."
        )
    return settings


def _plain(value: Any) -> Any:
    """A number as Python's own, where numpy or torch hold it."""
    scalar = hasattr(value, "item") and getattr(value, "ndim", 1) == 0
    return value.item() if scalar else value
