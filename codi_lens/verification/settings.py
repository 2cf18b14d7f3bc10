"""The model under other settings: what parity with a reference cannot see.

A wrong LoRA scaling or a missing EOS gives numbers that two implementations agree on. Trained
models answer best under the settings they were trained with, so these are compared with their
neighbours on problems with known answers, by accuracy and by the right answer's log-probability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from rich.box import SIMPLE_HEAD
from rich.table import Table
from scipy.stats import binomtest
from tqdm import tqdm

from codi_lens.errors import ProblemError
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.config import CodiConfig
from codi_lens.loading.convert import to_hooked_transformer
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.problem import Number, Problem, answer_span, is_correct
from codi_lens.stats import benjamini_hochberg, sign_flip_p
from codi_lens.thinking.think import think

LEVEL = 0.05
"""False discovery rate of the comparisons (Benjamini and Hochberg)."""


@dataclass(frozen=True)
class Variant:
    """A model under one changed setting.

    Attributes:
        name: what is changed, as in "lora_alpha 32 → 16".
        build: makes the model; weights are shared unless the setting is in them.
    """

    name: str
    build: Callable[[], Loaded]


def compare_settings(
    model: Loaded,
    checkpoint: Checkpoint,
    problems: Sequence[Problem],
    *,
    max_new_tokens: int = 64,
) -> tuple[pd.DataFrame, list[str]]:
    """Compare the given settings with their neighbours on problems with known answers.

    Log-probabilities are those of the right answer written in the model's own words: the most
    common text around the number in its right answers. A paired sign-flip test compares them, an
    exact sign test the accuracies; p-values are adjusted for the number of variants.

    Args:
        model: under the given settings.
        checkpoint: its files, for another LoRA scaling.
        problems: those without a known answer are left out.
        max_new_tokens: longest answer.

    Returns:
        One row per setting, the given ones first, and what to tell the user, one sentence each.
    """
    known = [problem for problem in problems if problem.answer is not None]
    if not known:
        return pd.DataFrame(), ["No problem has a known answer, so the settings are not checked."]
    golds = [problem.answer for problem in known if problem.answer is not None]
    questions = [problem.question for problem in known]
    sentences: list[str] = []
    answers: dict[str, list[str]] = {}
    variants = [Variant("given", lambda: model), *_variants(model, checkpoint)]
    for variant in tqdm(variants, desc="settings", leave=False, disable=None):
        try:
            run = think(variant.build(), questions, max_new_tokens=max_new_tokens)
        except ProblemError as error:
            sentences.append(f"{variant.name} is not compared: {error}")
            continue
        answers[variant.name] = run.answers
    correct = {
        name: np.array([is_correct(text, gold) for text, gold in zip(texts, golds, strict=True)])
        for name, texts in answers.items()
    }
    template = _template(answers, correct)
    if template is None:
        sentences.append(
            f"None of the {len(known)} problems is answered right under any setting, so nothing "
            "can be said about the settings; give problems that the model was trained for."
        )
        return pd.DataFrame(), sentences
    texts = [template.format(gold) for gold in golds]
    log_probs = {
        variant.name: _log_probs(variant.build(), questions, texts)
        for variant in variants
        if variant.name in answers
    }
    table = _compare(log_probs, correct)
    return table, [*sentences, *_sentences(table)]


def settings_table(settings: pd.DataFrame) -> Table:
    """The rows of `compare_settings`, for the terminal."""
    table = Table(
        title="Settings that no file proves",
        caption="log-probability of the right answer; p: paired test on it, adjusted",
        box=SIMPLE_HEAD,
        title_style="bold",
    )
    table.add_column("setting", no_wrap=True)
    for column in ("right", "log-prob", "change", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in settings.to_dict("records"):
        given = row["setting"] == "given"
        table.add_row(
            row["setting"],
            f"{row['correct']}/{row['n']}",
            f"{row['log_prob']:.2f}",
            "" if given else f"{row['difference']:+.2f}",
            "" if given else f"{row['p']:.2g}",
            _STYLED[row["verdict"]],
        )
    return table


_STYLED = {
    "given": "",
    "given better": "[green]given wins[/green]",
    "undecided": "within noise",
    "variant better": "[bold red]THIS WINS[/bold red]",
}


def _variants(model: Loaded, checkpoint: Checkpoint) -> Iterator[Variant]:
    config = model.config
    if config.lora_alpha is not None:
        for alpha in (config.lora_alpha / 2, config.lora_alpha * 2):
            yield Variant(
                f"lora_alpha {config.lora_alpha:g} → {alpha:g}",
                lambda alpha=alpha: _with_alpha(model, checkpoint, alpha),
            )
    changes: list[tuple[str, CodiConfig]] = [
        (
            f"remove_eos {config.remove_eos} → {not config.remove_eos}",
            replace(config, remove_eos=not config.remove_eos),
        ),
        ("bot and eot swapped", replace(config, bot=config.eot, eot=config.bot)),
    ]
    if config.eos_after_eot is not None:
        after = not config.eos_after_eot
        changes.append(
            (f"eos_after_eot {not after} → {after}", replace(config, eos_after_eot=after))
        )
    for n_thoughts in (config.n_thoughts - 1, config.n_thoughts + 1):
        if n_thoughts >= 1:
            name = f"n_thoughts {config.n_thoughts} → {n_thoughts}"
            changes.append((name, replace(config, n_thoughts=n_thoughts)))
    for name, changed in changes:
        yield Variant(name, lambda changed=changed: replace(model, config=changed))


def _with_alpha(model: Loaded, checkpoint: Checkpoint, alpha: int | float) -> Loaded:
    config = replace(model.config, lora_alpha=alpha)
    device, dtype = str(model.lens.cfg.device), model.lens.cfg.dtype
    lens = to_hooked_transformer(
        checkpoint.backbone,
        replace(checkpoint, config=config).merged(dtype, device),
        model.tokenizer,
        device=device,
        dtype=dtype,
    )
    return replace(model, lens=lens, config=config)


@dataclass(frozen=True)
class _Template:
    """What a model writes around a number."""

    before: str
    after: str

    def format(self, number: Number) -> str:
        return f"{self.before}{number}{self.after}"


def _template(
    answers: dict[str, list[str]], correct: dict[str, Bool[np.ndarray, "problem"]]
) -> _Template | None:
    """The most common text around the number in right answers; the given settings' come first.

    A model loaded under a wrong setting may answer nothing right; its neighbour then shows the
    words that it was trained to write.
    """
    for names in (["given"], list(answers)):
        found = Counter(
            _Template(text[: span[0]], text[span[1] :])
            for name in names
            for text, right in zip(answers.get(name, []), correct.get(name, []), strict=True)
            if right and (span := answer_span(text)) is not None
        )
        if found:
            return found.most_common(1)[0][0]
    return None


def _log_probs(
    model: Loaded, questions: Sequence[str], answers: Sequence[str]
) -> Float[np.ndarray, "problem"]:
    """Log-probability of each whole answer, EOS included, in nats."""
    run = think(model, questions, answers=answers)
    return np.array([float(tokens.double().sum()) for tokens in run.answer_log_probs or []])


def _compare(
    log_probs: dict[str, Float[np.ndarray, "problem"]],
    correct: dict[str, Bool[np.ndarray, "problem"]],
) -> pd.DataFrame:
    """Every setting's scores, and how they compare with the given ones'."""
    rows = [
        {
            "setting": name,
            "n": len(score),
            "correct": int(correct[name].sum()),
            "log_prob": float(score.mean()),
            "difference": float((score - log_probs["given"]).mean()),
            "gained": int((correct[name] & ~correct["given"]).sum()),
            "lost": int((~correct[name] & correct["given"]).sum()),
            "p": _paired_p(score - log_probs["given"]),
        }
        for name, score in log_probs.items()
    ]
    table = pd.DataFrame(rows)
    changed = table.index[1:]
    table["p_accuracy"] = [
        float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
        for gained, lost in zip(table["gained"], table["lost"], strict=True)
    ]
    for column in ("p", "p_accuracy"):  # of a family of comparisons with the given settings
        table.loc[changed, column] = benjamini_hochberg(table.loc[changed, column].to_numpy())
        table.loc[0, column] = np.nan
    table["verdict"] = ["given", *(_verdict(row) for row in table.loc[changed].to_dict("records"))]
    return table


def _paired_p(difference: Float[np.ndarray, "problem"]) -> float:
    """The p-value of a mean paired difference in log-probability."""
    # Float noise between equal runs is no difference; a lone problem has nothing to be flipped to.
    if len(difference) < 2 or np.abs(difference).max() <= 1e-4:
        return 1.0
    return float(sign_flip_p(difference))


def _verdict(row: dict[Any, Any]) -> str:
    sides = {
        "variant better": (row["difference"] > 0, row["gained"] > row["lost"]),
        "given better": (row["difference"] < 0, row["gained"] < row["lost"]),
    }
    for verdict, (likelier, more_often_right) in sides.items():
        # A measure decides unless the other one points the opposite way.
        agrees = more_often_right or row["gained"] == row["lost"]
        if (row["p"] <= LEVEL and likelier and agrees) or (
            row["p_accuracy"] <= LEVEL and more_often_right and likelier
        ):
            return verdict
    return "undecided"


def _sentences(table: pd.DataFrame) -> Iterator[str]:
    given = table.iloc[0]
    for row in table[table["verdict"] == "variant better"].to_dict("records"):
        yield (
            f"CHECK THIS SETTING: {row['setting']} does better than what was given "
            f"(log-probability of the right answer {row['log_prob']:.2f} against "
            f"{given['log_prob']:.2f}, right {row['correct']} against {given['correct']} of "
            f"{row['n']})."
        )
    undecided = table.loc[table["verdict"] == "undecided", "setting"].tolist()
    if undecided:
        yield (
            f"On {given['n']} problems the difference from {'; '.join(undecided)} is within noise, "
            "so these settings are neither confirmed nor refuted; more problems may decide."
        )
