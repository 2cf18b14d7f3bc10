"""What interventions did, with paired statistics; the controls; the halves of the problems.

Every experiment is a `measure`, summarised by `summarise`: one clean baseline,
the same problems, prompts, decoding and parser on both sides of every comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from codi_lens.causal.measure import CLEAN, Arm, Running, measure
from codi_lens.causal.outcomes import Outcome
from codi_lens.errors import InterventionError
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.stats import (
    benjamini_hochberg,
    mcnemar_p,
    mean_interval,
    sign_flip_p,
    wilson_interval,
)


def compare_interventions(
    model: CodiModel,
    problems: Problems,
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """What each intervention does to the same problems; see `measure` and `summarise`.

    Args:
        model: the model.
        problems: what to think about.
        arms: interventions by name.
        out: a folder for the outcomes, resumable.
        seed: of the bootstrap and the permutations.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`.

    Raises:
        CodiLensError: see `measure`.

    >>> from codi_lens.interventions.heads import ablate_heads
    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> arms = {mode: ablate_heads([(1, 7)], mode) for mode in ("zero", "mean", "resample")}
    >>> table = compare_interventions(model, some, arms, progress=False)
    >>> table["arm"].tolist(), bool((table["effect"] < 0).all())
    (['zero', 'mean', 'resample'], True)
    """
    check_seed(seed)
    return summarise(measure(model, problems, arms, out, **running), seed=seed)


def summarise(outcomes: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """One row per arm: what it did, against the clean runs of the same problems.

    Args:
        outcomes: of `measure`.
        level: of the intervals.
        seed: of the bootstrap and the permutations.

    Returns:
        `arm`; `n` problems, `n_known` of them with a number in the clean answer; `effect`, the mean
        change of the clean number's log-probability in nats (negative: less likely), with
        its bootstrap interval `_low`, `_high`; `p` of the sign-flip permutation test and `q` over
        the arms (Benjamini-Hochberg); `logit_effect` with its interval; `accuracy_clean` and
        `accuracy` with Wilson intervals and the exact `mcnemar_p` and `mcnemar_q` (NaN where no
        answer is known); `changed`, the share of answers whose number changed, with its Wilson
        interval; `thought_change`, the mean relative change of the thoughts.

    Raises:
        InterventionError: no clean runs in the table.
    """
    clean, arms = _by_arm(outcomes)
    effects = mean_effects(outcomes, level=level, seed=seed)
    p = sign_flip_p(_changes(clean, arms, "log_prob"), seed=seed)
    after = list(effects).index("effect_high") + 1
    effects.insert(after, "p", p)
    effects.insert(after + 1, "q", benjamini_hochberg(p))
    rows = [_proportions(clean, table, level) for table in arms.values()]
    table = pd.concat([effects, pd.DataFrame(rows)], axis=1)
    table["mcnemar_q"] = benjamini_hochberg(table["mcnemar_p"].to_numpy(dtype=float))
    return table


def mean_effects(outcomes: pd.DataFrame, *, level: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """The effects of `summarise` with their intervals, where nothing else is asked.

    Raises:
        InterventionError: no clean runs in the table.
    """
    clean, arms = _by_arm(outcomes)
    columns: dict[str, Any] = {"arm": list(arms), "n": len(clean)}
    columns["n_known"] = int(clean["log_prob"].notna().sum())
    for column, name in (("log_prob", "effect"), ("logit_difference", "logit_effect")):
        change = _changes(clean, arms, column)
        mean, low, high = mean_interval(change, level=level, seed=seed)
        columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return pd.DataFrame(columns)


def contrasts(
    outcomes: pd.DataFrame,
    weights: Mapping[str, Mapping[str, float | int]],
    *,
    column: Outcome = "log_prob",
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Weighted sums of arms, problem by problem: whether one costs more than another, say.

    Args:
        outcomes: of `measure`.
        weights: by the name of the contrast, the weight of each arm's outcome; arms that are not
            named weigh 0.
        column: the outcome: "log_prob" of the clean number, or "logit_difference".
        level: of the interval.
        seed: of bootstrap and permutations.

    Returns:
        One row per contrast: `name`; `contrast` in nats (or logits) with its bootstrap interval
        over problems `contrast_low`, `contrast_high`; `p` of the sign-flip permutation test and
        `q` over the contrasts (Benjamini-Hochberg); `n_known`, the problems with a number in the
        clean answer.

    Raises:
        InterventionError: an arm that the outcomes do not hold.

    >>> rows = [("a", CLEAN, -1.0), ("b", CLEAN, -1.0), ("a", "x", -3.0), ("b", "x", -4.0)]
    >>> outcomes = pd.DataFrame(rows, columns=["problem", "arm", "log_prob"])
    >>> float(contrasts(outcomes, {"x": {"x": 1, CLEAN: -1}})["contrast"][0])
    -2.5
    """
    wide = outcomes.pivot(index="problem", columns="arm", values=column)
    unknown = sorted({arm for each in weights.values() for arm in each} - set(wide.columns))
    if unknown:
        raise InterventionError(f"The outcomes hold no arm {unknown[0]!r}.")
    values = np.zeros((len(wide), len(weights)))
    for i, each in enumerate(weights.values()):
        for arm, weight in each.items():
            values[:, i] += weight * wide[arm].to_numpy()
    mean, low, high = mean_interval(values, level=level, seed=seed)
    p = sign_flip_p(values, seed=seed)
    table = {"name": list(weights), "contrast": mean, "contrast_low": low, "contrast_high": high}
    table |= {"p": p, "q": benjamini_hochberg(p), "n_known": np.isfinite(values).sum(axis=0)}
    return pd.DataFrame(table)


def share_of(name: str, hits: Bool[np.ndarray, " pair"], level: float) -> dict[str, float]:
    """A share of problems with its Wilson interval, as columns; NaN without a problem.

    >>> share_of("right", np.array([], dtype=bool), 0.95)
    {'right': nan, 'right_low': nan, 'right_high': nan}
    """
    low = high = share = float("nan")
    if len(hits):
        share = float(hits.mean())
        low, high = wilson_interval(int(hits.sum()), len(hits), level=level)
    return {name: share, f"{name}_low": low, f"{name}_high": high}


def _by_arm(outcomes: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The clean runs, and those of every arm in the same order of problems."""
    clean = outcomes[outcomes["arm"] == CLEAN].set_index("problem")
    if not len(clean):
        raise InterventionError(f"The outcomes hold no {CLEAN!r} runs to compare with.")
    names = [name for name in outcomes["arm"].unique() if name != CLEAN]
    return clean, {
        name: outcomes[outcomes["arm"] == name].set_index("problem").loc[clean.index]
        for name in names
    }


def _changes(
    clean: pd.DataFrame, arms: Mapping[str, pd.DataFrame], column: str
) -> Float[np.ndarray, "problem arm"]:
    after = np.stack([table[column].to_numpy() for table in arms.values()], axis=1)
    return after - clean[column].to_numpy()[:, None]


def _proportions(clean: pd.DataFrame, table: pd.DataFrame, level: float) -> dict[str, float]:
    known = clean["correct"].notna().to_numpy()
    before = clean["correct"].to_numpy()[known] == 1
    after = table["correct"].to_numpy()[known] == 1
    row = share_of("accuracy_clean", before, level) | share_of("accuracy", after, level)
    row["mcnemar_p"] = mcnemar_p(before, after) if known.any() else float("nan")
    row |= share_of("changed", table["changed"].to_numpy(dtype=bool), level)
    thoughts = [name for name in table if str(name).startswith("change_ct")]
    row["thought_change"] = float(table[thoughts].to_numpy().mean())
    return row


def check_known(table: pd.DataFrame) -> None:
    """Refuse effects of which none is known.

    Args:
        table: of `summarise`.

    Raises:
        InterventionError: no clean answer holds a number.

    >>> check_known(pd.DataFrame({"n_known": [3]}))
    """
    if not table["n_known"].any():
        raise InterventionError(
            "No clean answer holds a number, so there is no effect to compare; allow longer "
            "answers, or give other problems."
        )
