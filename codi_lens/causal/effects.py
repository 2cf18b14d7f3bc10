"""What interventions did, with paired statistics, and which of it matters.

Every experiment is a `measure`, summarised by `summarise`: one clean baseline,
the same problems, prompts, decoding and parser on both sides of every comparison.

What *matters* is shown to be more than a least effect of interest, `min_effect` nats: the null
hypothesis that the mean effect lies from -min_effect to min_effect is rejected with q < 0.05 over
what was compared. What matters and has an effect below 0 is *needed*. Tables, counts, figures and
sentences all go by this one rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from codi_lens.causal.arms import Arm
from codi_lens.causal.means import MIN_EFFECT, check_min_effect, mean_columns, mean_test
from codi_lens.causal.measure import Running, measure
from codi_lens.causal.outcomes import Outcome
from codi_lens.causal.strata import CLEAN, Only, kept
from codi_lens.errors import InterventionError
from codi_lens.model import CodiModel
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.problem import Problems
from codi_lens.stats import benjamini_hochberg, mcnemar_p, wilson_interval

ALPHA = 0.05
"""What matters has a q below it."""
_EFFECTS = {
    "log_prob": "effect",
    "logit_difference": "logit_effect",
    "logit_margin": "margin_effect",
}


class Comparing(Running, total=False):
    """How effects are measured, and which problems and sizes count.

    Attributes:
        min_effect: the least effect of interest, in nats; 0.1 by default.
        only: "all" problems, or those whose clean answer is "right", or "wrong".
    """

    min_effect: float | int
    only: Only


def compare_interventions(
    model: CodiModel,
    problems: Problems,
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    min_effect: float | int = MIN_EFFECT,
    only: Only = "all",
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """What each intervention does to the same problems; see `measure` and `summarise`.

    Args:
        model: the model.
        problems: what to think about.
        arms: interventions by name.
        out: a folder for the outcomes, resumable.
        min_effect: the least effect of interest, in nats.
        only: "all" problems, or those whose clean answer is "right", or "wrong".
        seed: of nothing, since statistics are computed and not drawn; for calls that give it.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        CodiLensError: see `measure`; a `min_effect` below 0.

    >>> from codi_lens.interventions.heads import ablate_heads
    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> arms = {mode: ablate_heads([(1, 7)], mode) for mode in ("zero", "mean", "resample")}
    >>> table = compare_interventions(model, some, arms, progress=False)
    >>> table["arm"].tolist(), bool((table["effect"] < 0).all())
    (['zero', 'mean', 'resample'], True)
    """
    check_seed(seed)
    check_min_effect(min_effect)
    outcomes = measure(model, problems, arms, out, only=only, **running)
    return summarise(outcomes, min_effect=min_effect)


def summarise(
    outcomes: pd.DataFrame, *, min_effect: float | int = MIN_EFFECT, level: float = 0.95
) -> pd.DataFrame:
    """One row per arm: what it did, against the clean runs of the same problems.

    Args:
        outcomes: of `measure`.
        min_effect: the least effect of interest, in nats.
        level: of the intervals.

    Returns:
        `arm`; `n` problems, `n_known` of them with a number in the clean answer, and of all
        problems `n_right` and `n_wrong`, whose clean answer was right and wrong. `effect`, the
        mean change of the clean number's log-probability in nats (negative: less likely), with its
        interval `_low`, `_high` and `p` (see `mean_test`), and `q` over the arms
        (Benjamini-Hochberg); `effect_median`; `affected`, the share of problems that it changes by
        at least `min_effect`, with its Wilson interval. `beyond_p`, `beyond_q` of the null
        hypothesis that the size of the mean is at most `min_effect`, and `matters`, whether that is
        rejected (`beyond_q` < 0.05). `effect_right`, `effect_wrong`: where the clean answer was
        right, and wrong, with intervals. `logit_effect` and `margin_effect`, of
        `logit_difference` and `logit_margin`, with intervals. `accuracy_clean` and
        `accuracy` with Wilson intervals and the exact `mcnemar_p` and `mcnemar_q` (NaN where no
        answer is known); `changed`, the share of answers whose number changed, with its Wilson
        interval; `thought_change`, the mean relative change of the thoughts, where there are any.

    Raises:
        InterventionError: no clean runs in the table.
    """
    clean, arms = _by_arm(outcomes)
    change = _changes(clean, arms, "log_prob")
    found = mean_test(change, beyond=min_effect, level=level)
    effects = mean_effects(outcomes, level=level)
    known = np.isfinite(change).any(axis=1)
    columns: dict[str, Any] = {"p": found.p, "q": np.nan}
    columns["effect_median"] = (
        np.nanmedian(change[known], axis=0) if known.any() else np.full(len(arms), np.nan)
    )
    shares = [share_of("affected", np.abs(each[known]) >= min_effect, level) for each in change.T]
    columns |= {name: [share[name] for share in shares] for name in shares[0]}
    columns |= {"min_effect": float(min_effect), "beyond_p": found.beyond_p, "beyond_q": np.nan}
    columns["matters"] = False
    for name, right in (("effect_right", 1), ("effect_wrong", 0)):
        some = (clean["correct"] == right).to_numpy()[:, None]
        columns |= mean_columns(name, np.where(some, change, np.nan), level)
    rows = [_proportions(clean, table, level) for table in arms.values()]
    after = list(effects).index("effect_high") + 1
    parts = [effects.iloc[:, :after], pd.DataFrame(columns), effects.iloc[:, after:]]
    return adjusted(pd.concat([*parts, pd.DataFrame(rows).assign(mcnemar_q=np.nan)], axis=1))


def adjusted(table: pd.DataFrame, family: str | None = None) -> pd.DataFrame:
    """A table of effects with `q`, `beyond_q`, `mcnemar_q` and `matters` over what was compared.

    Args:
        table: of `summarise`.
        family: the column that tells apart what is adjusted by itself; None for all rows together.
    """
    whole = pd.Series(0, index=table.index) if family is None else table[family]
    for name in ("", "beyond_", "mcnemar_"):
        p = table[f"{name}p"].astype(float)
        table[f"{name}q"] = p.groupby(whole, sort=False).transform(
            lambda each: benjamini_hochberg(each.to_numpy())
        )
    table["matters"] = table["beyond_q"] < ALPHA
    return table


def needed(table: pd.DataFrame) -> pd.DataFrame:
    """What an answer needs: the rows that matter and make the clean answer less likely.

    Args:
        table: of `summarise`.

    >>> table = pd.DataFrame({"effect": [-1.0, -0.1, 0.5], "matters": [True, False, True]})
    >>> needed(table)["effect"].tolist()
    [-1.0]
    """
    return table[table["matters"].astype(bool) & (table["effect"] < 0)]


def mean_effects(outcomes: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """The effects of `summarise` with their intervals, where nothing else is asked.

    Raises:
        InterventionError: no clean runs in the table.
    """
    clean, arms = _by_arm(outcomes)
    columns: dict[str, Any] = {"arm": list(arms), "n": len(clean)}
    columns["n_known"] = int(clean["log_prob"].notna().sum())
    counted = clean if "n_right" in clean else kept(outcomes, "all")
    columns |= {name: int(counted[name].iloc[0]) for name in ("n_right", "n_wrong")}
    for column, name in _EFFECTS.items():
        columns |= mean_columns(name, _changes(clean, arms, column), level)
    return pd.DataFrame(columns)


def contrasts(
    outcomes: pd.DataFrame,
    weights: Mapping[str, Mapping[str, float | int]],
    *,
    column: Outcome = "log_prob",
    level: float = 0.95,
) -> pd.DataFrame:
    """Weighted sums of arms, problem by problem: whether one costs more than another, say.

    Args:
        outcomes: of `measure`.
        weights: by the name of the contrast, the weight of each arm's outcome; arms that are not
            named weigh 0.
        column: the outcome: "log_prob" of the clean number, or "logit_difference".
        level: of the interval.

    Returns:
        One row per contrast: `name`; `contrast` in nats (or logits) with its interval over problems
        `contrast_low`, `contrast_high` and `p` that it is 0 (see `mean_test`); `q` over the
        contrasts (Benjamini-Hochberg); `n_known`, the problems with a number in the clean answer.

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
    found = mean_test(values, level=level)
    table = {"name": list(weights), "contrast": found.mean}
    table |= {"contrast_low": found.low, "contrast_high": found.high, "p": found.p}
    table |= {"q": benjamini_hochberg(found.p), "n_known": np.isfinite(values).sum(axis=0)}
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
    return clean, {
        str(name): runs.set_index("problem").loc[clean.index]
        for name, runs in outcomes.groupby("arm", sort=False, observed=True)
        if name != CLEAN
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
    if thoughts:
        row["thought_change"] = float(table[thoughts].to_numpy().mean())
    return row


def check_known(table: pd.DataFrame) -> None:
    """Refuse effects of which none is known.

    Args:
        table: of `summarise`.

    Raises:
        InterventionError: no clean answer holds a number, or an answer of its kind.

    >>> check_known(pd.DataFrame({"n_known": [3]}))
    """
    if not table["n_known"].any():
        raise InterventionError(
            "No clean answer holds a number, or what else its problem asks for, so there is no "
            "effect to compare; allow longer answers, or give other problems."
        )
