"""A checkpoint proves that it loaded right: the model against an independent reference.

The reference (`reference`) reads the same files and shares nothing else with the model;
`parity` compares the two. What both could get wrong together, a setting that the files
do not hold, `settings` measures on problems with known answers.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from codi_lens.errors import CheckpointError, CheckpointWarning, ProblemError, check_flags
from codi_lens.loading.backends import backend_of
from codi_lens.loading.checkpoint import Checkpoint, read_checkpoint
from codi_lens.loading.config import read_settings
from codi_lens.loading.hub import resolve_folder
from codi_lens.loading.loaded import Loaded
from codi_lens.loading.sources import learnt_family
from codi_lens.problems.arguments import whole_number
from codi_lens.problems.parsing import is_correct
from codi_lens.problems.problem import Problem, Problems, problem_list
from codi_lens.problems.words import word_problems
from codi_lens.thinking.prompts import prepare_problems
from codi_lens.thinking.think import think
from codi_lens.thinking.ways import check_thoughts
from codi_lens.verification.expected import expected_accuracy
from codi_lens.verification.hearsay import base_config, contradictions, zeroed
from codi_lens.verification.parity import coarse_noise, parity_table
from codi_lens.verification.reference import Reference, ReferenceRun
from codi_lens.verification.reference_model import SpecialTokens
from codi_lens.verification.settings import LOOKS, Compared, compare_settings
from codi_lens.verification.verdict import Accuracy, OfficialBatch, Verification
from codi_lens.wording import Stages

DEFAULT_N = 8
"""Problems for the reference, which runs one at a time."""


def verify(
    model: Loaded,
    problems: Problems | None = None,
    n: int | None = None,
    *,
    settings: bool = True,
    expect_accuracy: float | int | None = None,
    official_batch: bool = False,
    max_new_tokens: int = 64,
) -> Verification:
    """Compare a model with an independent implementation that reads the same files.

    The rule: an error passes up to 5e-5 with forced thoughts, 1e-3 free running (attention 3e-4),
    or ten times the measured noise floor where that is more. Answers must be the same tokens,
    unless at the first that differs the reference's two best logits are closer than twice what
    logits may differ by.

    Parity cannot see a setting that both sides read alike, so others are tried: `Verification`
    says which, and its `exit_code` what follows.

    Args:
        model: as `CodiModel.from_pretrained` gives it; hooks that are set count.
        problems: to run; built-in word problems by default.
        n: how many, the first ones; by default 8 for the reference, and for settings as many as it
            takes to tell them apart, up to 200.
        settings: also compare the settings that no file proves, where answers are known.
        expect_accuracy: the share of answers that should be right; by default what the folder's
            evaluation.json (built-in problems) or the known table (GSM8K) says, else half.
        official_batch: also run the original evaluation's batched loop, with its padding leak.
        max_new_tokens: longest answer.

    Raises:
        ProblemError: no problem, `n` out of range, an expected share that is none, or a question
            that does not fit.
        CheckpointError: the checkpoint's files cannot be read again.

    >>> from codi_lens import CodiModel
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> verification = verify(model, n=2, settings=False)
    >>> verification.passed
    True
    >>> print(verification.verdict)
    Verified: checkpoints/tiny-gpt2 equals the independent reference on 2 problems, in float32.
    """
    check_thoughts(model, "verify")
    asked = _choose(problems, n, model.config.source)
    chosen = asked if n is not None else asked[:DEFAULT_N]
    max_new_tokens = whole_number("max_new_tokens", max_new_tokens)
    check_flags(settings=settings, official_batch=official_batch)
    expected, notes = expected_accuracy(model.config, asked, expect_accuracy)
    questions = [problem.question for problem in chosen]
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

    compared, accuracy = pd.DataFrame(), None
    if settings:
        begin("settings that no file proves")
        found = _compare(model, checkpoint, asked, notes, max_new_tokens)
        if found is not None:
            compared = found.table
            accuracy = Accuracy(int(found.correct.sum()), len(found.correct), expected)
    begin.end()
    source, n = model.config.source, len(chosen)
    return Verification(source, dtype_name, n, table, compared, accuracy, tuple(notes), official)


def _choose(problems: Problems | None, n: int | None, source: str) -> list[Problem]:
    if problems is None:
        family = learnt_family(source)
        return list(word_problems(LOOKS[-1] if n is None else n, seed=42, family=family))
    problems = problem_list(problems, "verify")
    if not problems:
        raise ProblemError("verify was given no problem; give at least one.")
    n = min(LOOKS[-1], len(problems)) if n is None else whole_number("n", n, high=len(problems))
    return problems[:n]


def _compare(
    model: Loaded,
    checkpoint: Checkpoint,
    problems: Sequence[Problem],
    notes: list[str],
    max_new_tokens: int,
) -> Compared | None:
    """The settings against others, and what is known of them; None without known answers."""
    base = base_config(checkpoint)
    notes += [*contradictions(model.config, checkpoint.backbone, base), *zeroed(checkpoint)]
    known = [problem for problem in problems if problem.answer is not None]
    if not known:
        notes.append("No problem has a known answer, so the settings are not checked.")
        return None
    found = compare_settings(model, checkpoint, known, base=base, max_new_tokens=max_new_tokens)
    notes += found.sentences
    return found


def _read_again(model: Loaded) -> Checkpoint:
    config = model.config
    folder = resolve_folder(config.source, config.hub)
    named = read_settings(folder, config.source, {}).get("base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # loading the model has said it
        return read_checkpoint(
            config.source,
            base=None if named is not None and str(named) == config.base else config.base,
            lora_alpha=config.lora_alpha,
            n_thoughts=config.n_thoughts,
            remove_eos=config.remove_eos,
            bot=config.bot,
            eot=config.eot,
            backend=backend_of(model.lens),
            hub=config.hub,
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
        (problem, run.answer, answer)
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
