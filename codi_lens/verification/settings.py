"""The given settings against others, by right answers: what parity with a reference cannot see.

Two implementations agree on a wrong LoRA scaling or a missing EOS. Trained models answer best under
the settings that they were trained with, so each variant answers the same problems, as many as it
takes to tell it apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from tqdm import tqdm
from transformers import PretrainedConfig

from codi_lens.errors import CodiLensError
from codi_lens.loading.checkpoint import Checkpoint
from codi_lens.loading.loaded import Loaded
from codi_lens.problems.kinds import Answer, Kind, opposite
from codi_lens.problems.parsing import is_correct, span_of
from codi_lens.problems.problem import Problem
from codi_lens.stats import benjamini_hochberg, mcnemar_p, sign_flip_p
from codi_lens.thinking.think import think
from codi_lens.verification.variants import Variant, variants

LEVEL = 0.05
"""How often, at most, any variant at all is told apart by chance."""
LOOKS = (20, 50, 100, 200)
"""After how many problems a variant is looked at, and dropped once it is told apart."""
ALIKE = 50
"""After how many problems a variant that gets the same ones right is no longer asked."""
LIKELIER = 0.01
"""Nats by which right answers are likelier, from which on it is worth a sentence."""
ENOUGH = 100
"""Problems that the given settings answer at least: their accuracy is a finding too."""


@dataclass(frozen=True)
class Compared:
    """What the comparison of settings found.

    Attributes:
        table: one row per setting, the given one first. `n` problems, of which `correct` are right;
            `given_correct` of the same are under the given settings; `gained` and `lost` count the
            problems that only the variant, or only the given settings, get right. `p`: exact
            McNemar test, times variants and looks. `log_prob` of the right answer, its `difference`
            and `p_log_prob` (paired, adjusted) only where answers decide nothing. `verdict`:
            "given", "given better", "variant better" or "not shown".
        correct: of the given settings, per problem with a known answer that was run.
        sentences: what to tell the user.
    """

    table: pd.DataFrame
    correct: Bool[np.ndarray, " problem"]
    sentences: tuple[str, ...]


def compare_settings(
    model: Loaded,
    checkpoint: Checkpoint,
    problems: Sequence[Problem],
    *,
    base: PretrainedConfig | None = None,
    max_new_tokens: int = 64,
) -> Compared:
    """Compare the given settings with their neighbours on problems with known answers.

    Right answers decide. Log-probabilities of the right answer, in the words that the best setting
    answers with, only hint at what answers cannot tell apart.

    Args:
        model: under the given settings.
        checkpoint: its files, for settings that are in the weights.
        problems: as many as are run at most; all with a known answer.
        base: the base model's own config, where it is at hand.
        max_new_tokens: longest answer.
    """
    looks = [n for n in LOOKS if n < len(problems)] + [len(problems)]
    given = _Answers(Variant("given", lambda: model), model, problems, max_new_tokens)
    tried = list(variants(model, checkpoint, base))
    rows: list[dict[str, Any]] = []
    answers, sentences = {"given": given}, []
    for variant in tqdm(tried, desc="settings", leave=False, disable=None):
        try:
            answers[variant.name] = _Answers(variant, variant.build(), problems, max_new_tokens)
            rows.append(_look(answers[variant.name], given, looks, len(tried) * len(looks)))
        except CodiLensError as error:
            answers.pop(variant.name, None)
            sentences.append(f"{variant.name} is not compared: {error}")
        else:
            answers[variant.name].model = None  # one variant's weights at a time
    correct = given.first(min(len(problems), max([ENOUGH, *(row["n"] for row in rows)])))
    n, right = len(correct), int(correct.sum())
    first = {"setting": "given", "n": n, "correct": right, "given_correct": right}
    table = pd.DataFrame([first | {"gained": 0, "lost": 0, "p": np.nan, "verdict": "given"}, *rows])
    _add_log_probs(table, answers, {variant.name: variant for variant in tried})
    return Compared(table, correct, (*sentences, *_sentences(table)))


@dataclass
class _Answers:
    """What one setting answers, as far as it was asked."""

    variant: Variant
    model: Loaded | None
    problems: Sequence[Problem]
    max_new_tokens: int
    texts: list[str] = field(default_factory=list)
    correct: list[bool] = field(default_factory=list)

    def first(self, n: int) -> Bool[np.ndarray, " problem"]:
        """Which of the first n problems are right; runs those that were not run before."""
        new = self.problems[len(self.texts) : n]
        if new and self.model is not None:
            prompts = self.variant.prompts(self.model, [each.question for each in new])
            run = think(self.model, prompts, max_new_tokens=self.max_new_tokens)
            self.texts += run.answers
            self.correct += map(is_correct, run.answers, new)
        return np.array(self.correct[:n])


def _look(variant: _Answers, given: _Answers, looks: Sequence[int], tests: int) -> dict[str, Any]:
    """One variant against the given settings, on more problems until they differ."""
    row: dict[str, Any] = {}
    for n in looks:
        theirs, ours = variant.first(n), given.first(n)
        gained, lost = int((theirs & ~ours).sum()), int((~theirs & ours).sum())
        p = min(1.0, tests * mcnemar_p(ours, theirs))  # Bonferroni: over variants and looks
        better = "variant better" if gained > lost else "given better"
        row = {
            "setting": variant.variant.name,
            "n": n,
            "correct": int(theirs.sum()),
            "given_correct": int(ours.sum()),
            "gained": gained,
            "lost": lost,
            "p": p,
            "verdict": better if p <= LEVEL else "not shown",
        }
        if p <= LEVEL or (n >= ALIKE and gained + lost == 0):
            break
    return row


def _add_log_probs(
    table: pd.DataFrame, answers: Mapping[str, _Answers], tried: Mapping[str, Variant]
) -> None:
    """Log-probabilities of right answers, for settings that answers do not tell apart."""
    for column in ("log_prob", "difference", "p_log_prob"):
        table[column] = np.nan
    templates = _templates(answers)
    unshown = table.index[table["verdict"] == "not shown"]
    given = answers["given"]
    if not len(unshown) or given.model is None:
        return
    n = int(table.loc[unshown, "n"].max())
    problems = [each for each in given.problems[:n] if each.kind in templates]
    texts = [templates[p.kind].format(p.answer) for p in problems if p.answer is not None]
    if not texts:
        return
    ours = _log_probs(given.variant, given.model, problems, texts)
    table.loc[0, "log_prob"] = ours.mean()
    for index in unshown:
        variant = tried[str(table.loc[index, "setting"])]
        difference = _log_probs(variant, variant.build(), problems, texts) - ours
        table.loc[index, "log_prob"] = (ours + difference).mean()
        table.loc[index, "difference"] = difference.mean()
        # Float noise between equal runs is no difference; a lone problem has nothing to flip to.
        alike = len(texts) < 2 or np.abs(difference).max() <= 1e-4
        table.loc[index, "p_log_prob"] = 1.0 if alike else float(sign_flip_p(difference))
    p = table.loc[unshown, "p_log_prob"].to_numpy()
    table.loc[unshown, "p_log_prob"] = benjamini_hochberg(p)


@dataclass(frozen=True)
class _Template:
    """What a model writes around an answer, and how it spells yes, where that is one."""

    before: str
    after: str
    yes: str = ""

    def format(self, answer: Answer) -> str:
        if self.yes:
            answer = self.yes if answer == "yes" else opposite(self.yes)
        return f"{self.before}{answer}{self.after}"


def _templates(answers: Mapping[str, _Answers]) -> dict[Kind, _Template]:
    """The most common text around right answers of the setting with most of them, by their kind."""
    best = max(answers.values(), key=lambda each: np.mean(each.correct))
    found: dict[Kind, Counter[_Template]] = {}
    for text, right, problem in zip(best.texts, best.correct, best.problems, strict=False):
        span = span_of(text, problem.form) if right else None
        if span is not None:
            word = text[slice(*span)] if problem.kind == "boolean" else ""
            yes = opposite(word) if word and problem.answer == "no" else word
            template = _Template(text[: span[0]], text[span[1] :], yes)
            found.setdefault(problem.kind, Counter())[template] += 1
    return {kind: counted.most_common(1)[0][0] for kind, counted in found.items()}


def _log_probs(
    variant: Variant, model: Loaded, problems: Sequence[Problem], answers: Sequence[str]
) -> Float[np.ndarray, " problem"]:
    """Log-probability of each whole answer, EOS included, in nats."""
    prompts = variant.prompts(model, [each.question for each in problems])
    run = think(model, prompts, answers=answers)
    return np.array([float(tokens.double().sum()) for tokens in run.answer_log_probs or []])


def _sentences(table: pd.DataFrame) -> Iterator[str]:
    for row in table[table["verdict"] == "variant better"].to_dict("records"):
        yield (
            f"CHECK THIS SETTING: with {row['setting']}, {row['correct']} of {row['n']} answers "
            f"are right, as given {row['given_correct']} (p = {row['p']:.2g}, adjusted)."
        )
    unshown = table[table["verdict"] == "not shown"]
    likelier = unshown[(unshown["difference"] >= LIKELIER) & (unshown["p_log_prob"] <= LEVEL)]
    if len(likelier):
        names = "; ".join(likelier["setting"])
        yield (
            f"Answers do not tell the given settings from {names}, but the right answer is "
            f"likelier there (by up to {likelier['difference'].max():.2f} nats); this changes no "
            "verdict."
        )
