"""The families of latent reasoners: how each names its tensors, and what its code settles.

A family is told by the keys of a file, a bare language model by what stands beside it. Its settings
are those that its code has for every checkpoint; whatever a checkpoint or a caller says counts
before them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from codi_lens.errors import CheckpointError
from codi_lens.loading.wrappers import some_of

Role = Literal["model", "projection", "auxiliary", "twin", "unknown"]
"""What a tensor is of; a twin is the input embedding once more."""


@dataclass(frozen=True)
class Family:
    """How one training code saves a latent reasoner.

    Attributes:
        name: as people call it.
        model: what the names of the language model begin with; the longest that fits counts.
        projection: what those of the projection begin with, and the name of its norm; empty where
            the thought is the state itself.
        auxiliary: what those of a decoder begin with that only training uses.
        twin: the input embedding once more.
        settings: what its code settles for all its checkpoints.
        appended: the tokens behind the vocabulary of the base model, in order.
        behind: what tells that vocabulary: the base model's config, or how long its tokenizer is.
        n_thoughts: how many thoughts a caller may have in mind, and why.
    """

    name: str
    model: tuple[str, ...] = ("",)
    projection: Mapping[str, str] = field(default_factory=lambda: {"prj.": "ln"})
    auxiliary: tuple[str, ...] = ()
    twin: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    appended: tuple[str, str, str] = ("pad", "bot", "eot")
    behind: Literal["config", "tokenizer"] = "config"
    n_thoughts: tuple[str, str] = ("6", "the value of the published models")

    def sort(self, key: str) -> tuple[Role, str]:
        """What a key is of, and its name there."""
        for prefix, norm in self.projection.items():
            if key.startswith(prefix):
                name = key.removeprefix(prefix)
                return "projection", f"ln.{name[len(norm) + 1 :]}" if _within(name, norm) else name
        if key == self.twin:
            return "twin", key
        if key.startswith(self.auxiliary or ("\0",)):
            return "auxiliary", key
        found = [prefix for prefix in self.model if key.startswith(prefix)]
        return ("model", key.removeprefix(max(found, key=len))) if found else ("unknown", key)

    def projection_key(self, name: str) -> str:
        """What a file calls a tensor of the projection.

        >>> LATENT_TTS.projection_key("ln.weight"), CODI.projection_key("1.bias")
        ('projector.4.weight', 'prj.1.bias')
        """
        prefix, norm = next(iter(self.projection.items()))
        return f"{prefix}{norm}{name[2:]}" if _within(name, "ln") else f"{prefix}{name}"


_THOUGHTS_OF_COCONUT = ("6", "Coconut's c_thought times its stages")
CODI = Family(
    "CODI",
    model=("codi.base_model.model.", "codi."),
    auxiliary=("decoder.", "pj_in.", "pj_out."),
)
MERGED = Family("CODI, merged export", auxiliary=CODI.auxiliary)
PEFT = Family(
    "CODI, PEFT adapter",
    model=("base_model.model.",),
    projection={"prj.": "ln", "base_model.model.prj.": "ln"},
)
LATENT_TTS = Family("LatentTTS CODI", projection={"projector.": "4"}, settings={"remove_eos": True})
COCONUT = Family(
    "Coconut",
    model=("base_causallm.",),
    projection={},
    auxiliary=("expainable_llm.",),
    twin="embedding.weight",
    settings={"remove_eos": True, "question_end": "\n"},
    appended=("bot", "eot", "latent"),
    behind="tokenizer",
    n_thoughts=_THOUGHTS_OF_COCONUT,
)
PLAIN_COCONUT = Family(
    "Coconut, plain",
    projection={},
    settings=COCONUT.settings,
    appended=COCONUT.appended,
    behind=COCONUT.behind,
    n_thoughts=_THOUGHTS_OF_COCONUT,
)


def family_of(keys: Iterable[str], folder: Path, name: str) -> Family:
    """The family of a checkpoint, by the names of its tensors.

    A bare language model is one only where something says that it thinks: a codi_config.json, or
    a tokenizer with Coconut's tokens.

    Args:
        keys: without what training wrapped around.
        folder: where the checkpoint's files are.
        name: what errors call it.

    Raises:
        CheckpointError: none that is known.

    >>> family_of(["base_causallm.lm_head.weight"], Path(), "it").name
    'Coconut'
    """
    keys = list(keys)
    for prefix, family in _TOLD_BY.items():
        if any(key.startswith(prefix) for key in keys):
            return family
    if (folder / "codi_config.json").is_file():
        return MERGED
    if _has_latent_tokens(folder):
        return PLAIN_COCONUT
    raise CheckpointError(
        f"{name} is not a CODI checkpoint: no key begins with `codi.` or `prj.` "
        f"(found {some_of(keys)}); expected keys like codi.base_model.model.…, or a "
        "codi_config.json that says how the model thinks."
    )


_TOLD_BY = {
    "codi.": CODI,
    "base_causallm.": COCONUT,
    "base_model.model.": PEFT,
    "projector.": LATENT_TTS,
    "prj.": MERGED,
}
"""What only the keys of a family begin with; the first that any key has counts."""


def _has_latent_tokens(folder: Path) -> bool:
    names = ("tokenizer.json", "added_tokens.json", "tokenizer_config.json")
    paths = [folder / name for name in names if (folder / name).is_file()]
    return any("<|start-latent|>" in path.read_text("utf-8", "replace") for path in paths)


def _within(name: str, module: str) -> bool:
    return name.startswith(f"{module}.")
