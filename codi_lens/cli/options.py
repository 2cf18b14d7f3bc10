"""Options that commands share: how to load the model, which problems, how to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console

from codi_lens.errors import CodiLensError, ProblemError
from codi_lens.model import CodiModel
from codi_lens.problems.corpora import gsm8k, load_problems, sample_indices
from codi_lens.problems.words import word_problems

DEFAULT_N = 100


@dataclass(frozen=True)
class Loading:
    """How to load the model; what its files do not say has to be given.

    Attributes:
        base: Folder or hub name of the base model, for its config and tokenizer.
        lora_alpha: LoRA scaling, where the checkpoint does not say it.
        n_thoughts: Number of thoughts, where the checkpoint does not say it.
        remove_eos: Whether no EOS follows the question, where the checkpoint does not say it.
        bot: Token or id that opens thinking, where the tokenizer has its own.
        eot: Token or id that closes thinking, where the tokenizer has its own.
        revision: Branch, tag or commit of the hub repository.
        device: Where to run, such as cpu or cuda.
        dtype: Of weights and activations.
        threads: CPU threads; all cores by default.
    """

    base: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    lora_alpha: Annotated[float | None, tyro.conf.arg(metavar="ALPHA")] = None
    n_thoughts: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    remove_eos: Annotated[Literal["yes", "no"] | None, tyro.conf.arg(metavar="{yes,no}")] = None
    bot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    eot: Annotated[str | None, tyro.conf.arg(metavar="TOKEN")] = None
    revision: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = "cpu"
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    threads: Annotated[int | None, tyro.conf.arg(metavar="N")] = None

    def load(self, model: str, console: Console) -> CodiModel:
        """Load a checkpoint, with a spinner.

        Raises:
            CheckpointError: it cannot be loaded exactly.
        """
        self.check()
        with console.status("loading the model"):
            import torch

            from codi_lens.model import CodiModel

            torch.set_num_threads(self.threads or os.cpu_count() or 1)
            return CodiModel.from_pretrained(
                model,
                self.base,
                lora_alpha=self.lora_alpha,
                n_thoughts=self.n_thoughts,
                remove_eos=None if self.remove_eos is None else self.remove_eos == "yes",
                bot=_token(self.bot),
                eot=_token(self.eot),
                revision=self.revision,
                device=self.device,
                dtype=getattr(torch, self.dtype),
            )

    def check(self) -> None:
        """Refuse what is wrong without loading anything.

        Raises:
            CodiLensError: fewer than one thread.
        """
        if self.threads is not None and self.threads < 1:
            raise CodiLensError(f"threads must be at least 1, not {self.threads}.")


def _token(text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]


Corpus = Annotated[str, tyro.conf.arg(metavar="builtin|gsm8k|FILE")]


Count = Annotated[int | None, tyro.conf.arg(metavar="N")]


LoadingOptions = Annotated[Loading, tyro.conf.arg(name="")]


def scope(text: str) -> str | list[str]:
    """Positions by name, as an intervention takes them."""
    return split_names(text) if "," in text else text.strip()


def split_names(text: str) -> list[str]:
    """Names with commas between them."""
    return [name.strip() for name in text.split(",")]


def donor_candidates(problems: str, chosen: Sequence[Any], seed: int) -> list[Any]:
    """Problems of the same corpus among which donors with the same answer are looked for."""

    if problems == "builtin":
        return list(word_problems(20 * len(chosen), seed=seed + 1))
    return list(chosen)


def choose_problems(
    problems: str, n: int | None, seed: int, default: int = DEFAULT_N
) -> tuple[list[Any], str]:
    """The problems that the command line names, and what to call them; `default` of them.

    Raises:
        ProblemError: an unknown corpus, a bad file, or `n` outside the corpus.
    """
    from codi_lens.problems.words import word_problems

    if problems == "builtin":
        return list(word_problems(default if n is None else n, seed=seed)), "built-in, test split"
    if problems == "gsm8k":
        return list(gsm8k(default if n is None else n, seed=seed)), "GSM8K train"
    if not Path(problems).is_file():
        raise ProblemError(
            f"There is no problem file {problems}; give a file, or one of builtin and gsm8k."
        )
    loaded = load_problems(problems)
    n = min(default, len(loaded)) if n is None else n
    return [loaded[i] for i in sample_indices(len(loaded), n, seed=seed)], Path(problems).name
