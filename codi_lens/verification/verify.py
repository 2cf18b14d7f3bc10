"""A checkpoint proves that it loaded right: the model against an independent reference.

The reference (`reference`) reads the same files and shares nothing else with the model;
`parity` compares the two. What both could get wrong together, a setting that the files
do not hold, `settings` measures on problems with known answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor
from tqdm import tqdm

from codi_lens.errors import CheckpointError, CheckpointWarning, ProblemError, check_flags
from codi_lens.loading.checkpoint import Checkpoint, read_checkpoint
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.arguments import whole_number
from codi_lens.problems.problem import Problem, Problems, is_correct, problem_list
from codi_lens.problems.words import word_problems
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.think import think
from codi_lens.verification.parity import WAYS, coarse_noise, parity_table
from codi_lens.verification.reference import Reference, ReferenceRun
from codi_lens.verification.reference_model import SpecialTokens
from codi_lens.verification.settings import compare_settings, settings_table
from codi_lens.wording import Stages

DEFAULT_N = 8


@dataclass(frozen=True)
class OfficialBatch:
    """What the padding leak of the original evaluation's batched loop does to the answers.

    Attributes:
        n: the number of problems, run as one batch.
        n_changed: answers that differ from those of the same problems one at a time.
        n_known: problems with a known answer.
        single_correct: of those, answered right one at a time.
        batched_correct: of those, answered right in the original's batch.
    """

    n: int
    n_changed: int
    n_known: int
    single_correct: int
    batched_correct: int

    def __str__(self) -> str:
        """One sentence that says it all."""
        text = (
            f"The original's batched loop, which attends to its padding, changes {self.n_changed} "
            f"of {self.n} answers"
        )
        if self.n_known:
            text += (
                f"; right are {self.batched_correct} of {self.n_known} in its batch and "
                f"{self.single_correct} one at a time"
            )
        return f"{text}."


@dataclass(frozen=True, eq=False)
class Verification:
    """Whether a model computes what its checkpoint holds.

    Attributes:
        source: the folder or hub name of the checkpoint.
        dtype: of the model's weights and activations.
        n: the number of problems.
        table: one row per quantity. `size` is its root mean square. Errors are the largest absolute
            differences between the model (all problems in one batch) and the reference (one at a
            time), `forced_…` with the reference's thoughts fed to both, `free_…` without; `noise`
            is the reference in this dtype against the reference in the next more precise one. For
            tokens and answers, errors count problems that differ.
        settings: one row per setting that was tried, the given ones first; maybe empty.
        warnings: what to look at before trusting the model, one sentence each.
        official: the original evaluation's batched loop, where asked for.
    """

    source: str
    dtype: str
    n: int
    table: pd.DataFrame
    settings: pd.DataFrame
    warnings: tuple[str, ...]
    official: OfficialBatch | None = None

    @property
    def passed(self) -> bool:
        """Whether every quantity agrees; warnings about settings do not count."""
        return bool(self.table["passed"].all())

    @property
    def verdict(self) -> str:
        """The outcome in one sentence."""
        what = f"on {self.n} problem{'s' if self.n > 1 else ''}, in {self.dtype}"
        if self.passed:
            return f"Verified: {self.source} equals the independent reference {what}."
        failed = self.table.loc[~self.table["passed"], "quantity"].tolist()
        more = f" and {len(failed) - 4} more" if len(failed) > 4 else ""
        return (
            f"FAILED: {self.source} differs from the independent reference in "
            f"{', '.join(failed[:4])}{more} {what}."
        )

    def __rich__(self) -> RenderableType:
        """What `rich.print` shows: the tables, the warnings, and the verdict last."""
        parts: list[RenderableType] = [_parity_table(self)]
        if len(self.settings):
            parts.append(settings_table(self.settings))
        if self.official is not None:
            parts.append(Text(f"{self.official}\n"))
        for sentence in self.warnings:
            parts.append(Text(f"! {sentence}", style="yellow"))
        parts.append(Text(self.verdict, style="bold green" if self.passed else "bold red"))
        return Group(*parts)


def verify(
    model: Loaded,
    problems: Problems | None = None,
    n: int | None = None,
    *,
    settings: bool = True,
    official_batch: bool = False,
    max_new_tokens: int = 64,
) -> Verification:
    """Compare a model with an independent implementation that reads the same files.

    The rule: an error passes up to 5e-5 with forced thoughts, 1e-3 free running (attention 3e-4),
    or ten times the measured noise floor where that is more. Answers must be the same tokens,
    unless at the first that differs the reference's two best logits are closer than twice what
    logits may differ by.

    Args:
        model: as `CodiModel.from_pretrained` gives it; hooks that are set count.
        problems: to run; built-in word problems by default.
        n: how many: the first n given ones (all by default), or 8 built-in ones.
        settings: also compare the settings that no file proves, where answers are known.
        official_batch: also run the original evaluation's batched loop, with its padding leak.
        max_new_tokens: longest answer.

    Raises:
        ProblemError: no problem, `n` out of range, or a question that does not fit.
        CheckpointError: the checkpoint's files cannot be read again.

    >>> from codi_lens import CodiModel
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> verification = verify(model, n=2, settings=False)
    >>> verification.passed
    True
    >>> print(verification.verdict)
    Verified: checkpoints/tiny-gpt2 equals the independent reference on 2 problems, in float32.
    """
    chosen = _choose(problems, n)
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
    check_flags(settings=settings, official_batch=official_batch)
    questions = [problem.question for problem in chosen]
    notes: list[str] = []
    prompts = prepare_problems(model, chosen)
    begin = Stages("verifying", 4 + settings)
    begin("the files, read again")
    checkpoint = _read_again(model)
    special = _special_tokens(model, checkpoint, notes)
    device, dtype = model.device, model.lens.cfg.dtype
    # One reference in memory at a time: the more precise one is twice as large as the model.
    reference = Reference.from_checkpoint(checkpoint, special=special, dtype=dtype, device=device)
    begin("the reference")
    runs = _think(reference, questions, max_new_tokens=max_new_tokens)
    official = _official(reference, chosen, runs, max_new_tokens) if official_batch else None
    del reference
    thoughts = torch.stack([run.thoughts for run in runs])
    begin("the model")
    both = {
        "forced": think(model, questions, thoughts=thoughts, max_new_tokens=max_new_tokens),
        "free": think(model, questions, max_new_tokens=max_new_tokens),
    }
    begin("the reference, more precisely")
    precise = Reference.from_checkpoint(checkpoint, special=special, **_more_precise(dtype, device))
    table = parity_table(
        runs,
        both,
        {
            "forced": _think(precise, questions, thoughts, max_new_tokens=1),
            "free": _think(precise, questions, max_new_tokens=1),
        },
        _tokens_differ(model, special, prompts, runs),
    )
    del precise
    dtype_name = str(dtype).removeprefix("torch.")
    notes += coarse_noise(table, dtype_name)

    compared = pd.DataFrame()
    if settings:
        begin("settings that no file proves")
        compared, sentences = compare_settings(
            model, checkpoint, chosen, max_new_tokens=max_new_tokens
        )
        notes += sentences
    begin.end()
    source, n = model.config.source, len(chosen)
    return Verification(source, dtype_name, n, table, compared, tuple(notes), official)


def _choose(problems: Problems | None, n: int | None) -> list[Problem]:
    if problems is None:
        return list(word_problems(DEFAULT_N if n is None else n, seed=42))
    problems = problem_list(problems, "verify")
    if not problems:
        raise ProblemError("verify was given no problem; give at least one.")
    return problems if n is None else problems[: whole_number("n", n, high=len(problems))]


def _read_again(model: Loaded) -> Checkpoint:
    config = model.config
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # loading the model has said it
        return read_checkpoint(
            config.source,
            base=config.base,
            lora_alpha=config.lora_alpha,
            n_thoughts=config.n_thoughts,
            remove_eos=config.remove_eos,
            bot=config.bot,
            eot=config.eot,
            revision=config.revision,
        )


def _special_tokens(model: Loaded, checkpoint: Checkpoint, notes: list[str]) -> SpecialTokens:
    config = model.config
    try:
        special = SpecialTokens.from_checkpoint(checkpoint)
    except CheckpointError as error:
        notes.append(f"{error} The given ids bot {config.bot} and eot {config.eot} are unproved.")
        n_tokens = config.n_tokens or model.lens.cfg.d_vocab
        return SpecialTokens(config.pad, config.bot, config.eot, config.eos, n_tokens)
    for name in ("bot", "eot", "eos"):
        ours, theirs = getattr(config, name), getattr(special, name)
        if ours != theirs:
            notes.append(f"The model's {name} is the token {ours}; its files make it {theirs}.")
    return special


def _tokens_differ(
    model: Loaded,
    special: SpecialTokens,
    prompts: Sequence[Sequence[int]],
    runs: Sequence[ReferenceRun],
) -> int:
    """In how many problems other tokens are fed; a wrong `bot`, `eot` or EOS concerns all."""
    names = ("bot", "eot", "eos")
    if any(getattr(model.config, name) != getattr(special, name) for name in names):
        return len(runs)
    return sum(list(prompt) != run.prompt for prompt, run in zip(prompts, runs, strict=True))


def _more_precise(dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """A dtype whose rounding is negligible beside that of `dtype`, and where it can run."""
    if dtype not in (torch.float32, torch.float64):
        return {"dtype": torch.float32, "device": device}
    # Apple's GPUs have no float64.
    return {"dtype": torch.float64, "device": "cpu" if device.type == "mps" else device}


def _think(
    reference: Reference,
    questions: Sequence[str],
    thoughts: Float[Tensor, "problem thought d_model"] | None = None,
    *,
    max_new_tokens: int,
) -> list[ReferenceRun]:
    return [
        reference.think(
            question,
            thoughts=None if thoughts is None else thoughts[i],
            max_new_tokens=max_new_tokens,
        )
        for i, question in enumerate(
            tqdm(questions, desc=f"reference in {reference.dtype}", leave=False, disable=None)
        )
    ]


def _official(
    reference: Reference,
    problems: Sequence[Problem],
    runs: Sequence[ReferenceRun],
    max_new_tokens: int,
) -> OfficialBatch:
    batched = reference.think_batched(
        [problem.question for problem in problems], max_new_tokens=max_new_tokens
    )
    known = [
        (problem.answer, run.answer, answer)
        for problem, run, answer in zip(problems, runs, batched.answers, strict=True)
        if problem.answer is not None
    ]
    return OfficialBatch(
        n=len(runs),
        n_changed=sum(a.tokens != b for a, b in zip(runs, batched.tokens, strict=True)),
        n_known=len(known),
        single_correct=sum(is_correct(single, gold) for gold, single, _ in known),
        batched_correct=sum(is_correct(answer, gold) for gold, _, answer in known),
    )


def _parity_table(verification: Verification) -> Table:
    table = Table(
        title=f"Model against reference, {verification.n} problems, {verification.dtype}",
        caption="largest error / noise floor / allowed, or how many differ",
        box=SIMPLE_HEAD,
        title_style="bold",
    )
    table.add_column("quantity", no_wrap=True)
    table.add_column("same thoughts fed", justify="right", no_wrap=True)
    table.add_column("free running", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in verification.table.to_dict("records"):
        counted = pd.isna(row["size"])
        cells = []
        for way in WAYS:
            values = [row[f"{way}_{part}"] for part in ("error", "noise", "allowed")]
            if counted:
                text = f"{values[0]:.0f} of {verification.n}"
                text += f" (+{values[1]:.0f} noise)" if values[1] else ""
            else:
                text = " / ".join(f"{value:.0e}" for value in values)
            cells.append(text)
        verdict = "[green]ok[/green]" if row["passed"] else "[bold red]FAILED[/bold red]"
        table.add_row(row["quantity"], *cells, verdict)
    return table
