"""What interventions did, with paired statistics; the controls; the halves of the problems.

Every experiment is a `codi_lens.measure.measure`, summarised by `summarise`: one clean baseline,
the same problems, prompts, decoding and parser on both sides of every comparison.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from codi_lens.errors import CodiLensError, InterventionError, ProblemError
from codi_lens.interventions import Donors, ablate_heads
from codi_lens.measure import CLEAN, Arm, measure
from codi_lens.model import CodiModel
from codi_lens.positions import Scope, resolve, thought_names
from codi_lens.problems import Problem
from codi_lens.significance import mcnemar_p, sign_flip_p
from codi_lens.stats import benjamini_hochberg, mean_interval, wilson_interval

Head = tuple[int, int]


def compare_interventions(
    model: CodiModel,
    problems: Sequence[Problem],
    arms: Mapping[str, Arm],
    out: str | Path | None = None,
    *,
    seed: int = 0,
    **running: Any,
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

    >>> from codi_lens.problems import word_problems
    >>> model, some = CodiModel.from_pretrained("checkpoints/tiny-gpt2"), word_problems(8)
    >>> arms = {mode: ablate_heads([(1, 7)], mode) for mode in ("zero", "mean", "resample")}
    >>> table = compare_interventions(model, some, arms, progress=False)
    >>> table["arm"].tolist(), bool((table["effect"] < 0).all())
    (['zero', 'mean', 'resample'], True)
    """
    return summarise(measure(model, problems, arms, out, **running), seed=seed)


def donors_for(
    model: CodiModel,
    problems: Sequence[Problem],
    *,
    mode: str,
    donors: Donors | None = None,
    seed: int = 0,
) -> Donors | None:
    """The given donors, or the problems themselves; their head outputs are computed at once."""
    if mode == "zero":
        return donors
    donors = Donors(model, problems, seed=seed) if donors is None else donors
    donors.prepare([f"blocks.{layer}.attn.hook_z" for layer in range(model.lens.cfg.n_layers)])
    return donors


def head_controls(
    model: CodiModel,
    problems: Sequence[Problem],
    heads: Sequence[Head],
    *,
    mode: Any = "resample",
    at: Scope = "thinking",
    n_random: int = 5,
    donors: Donors | None = None,
    candidates: Sequence[Problem] = (),
    seed: int = 0,
) -> dict[str, Arm]:
    """A set of heads ablated in every mode, with the controls that the effect has to beat.

    Random sets have as many heads in every layer as the set itself, and none of its heads where the
    layer has enough others. The placebo ablates the same heads at the last thought, which generates
    nothing that is consumed; it is left out where `at` holds that thought. Donors whose correct
    answer is the same, and donors whose answer is another, tell what a head says about the
    answer from what any foreign value breaks; see `answer_donors`.

    Args:
        model: the model.
        problems: what to think about; donors by default.
        heads: the set.
        mode: of the controls, and first of the modes.
        at: where, by name.
        n_random: how many random sets.
        donors: whose values replace the heads'.
        candidates: among which donors with the same and with other answers are looked for; none
            leaves these two arms out, and so does a problem whose answer no candidate has.
        seed: of donors and random sets.

    Raises:
        PositionError: a head or position that does not exist.
    """
    prepared = donors_for(model, problems, mode="resample", donors=donors, seed=seed)
    modes = [mode, *(other for other in ("resample", "mean", "zero") if other != mode)]
    arms: dict[str, Arm] = {
        f"heads, {each}": ablate_heads(heads, each, at, prepared, seed) for each in modes
    }
    for i in range(n_random):
        matched = matched_heads(heads, model.lens.cfg.n_heads, seed=seed + i)
        arms[f"random {i + 1}, {mode}"] = ablate_heads(matched, mode, at, prepared, seed)
    last = thought_names(model.config.n_thoughts)[-1]
    if last not in resolve(at, model.config.n_thoughts):
        arms[f"heads at {last}, {mode}"] = ablate_heads(heads, mode, last, prepared, seed)
    chosen = answer_donors(problems, candidates, seed=seed)
    if chosen is not None:
        for name, pairs in chosen.items():
            corpus = list({donor.id: donor for donor in pairs.values()}.values())
            matching = donors_for(model, corpus, mode="resample", seed=seed)
            assert matching is not None
            matching = matching.paired({id: donor.id for id, donor in pairs.items()})
            arms[f"heads, {name}"] = ablate_heads(heads, "resample", at, matching, seed)
    return arms


SAME_ANSWER, OTHER_ANSWER = "donors with the same answer", "donors with another answer"


def answer_donors(
    problems: Sequence[Problem], candidates: Sequence[Problem], *, seed: int = 0
) -> dict[str, dict[str, Problem]] | None:
    """For each problem a donor with the same correct answer, and one with another.

    Args:
        problems: that need donors.
        candidates: that may be donors; never for their own question.
        seed: of the draws.

    Returns:
        By kind (`SAME_ANSWER`, `OTHER_ANSWER`) and problem id, the donor; None if a problem has no
        known answer, or none of the candidates has the same one.

    >>> from codi_lens.problems import word_problems
    >>> some = word_problems(5)
    >>> found = answer_donors(some, word_problems(600, split="train"))
    >>> all(found[SAME_ANSWER][each.id].answer == each.answer for each in some)
    True
    >>> answer_donors(some, []) is None
    True
    """
    found: dict[str, dict[str, Problem]] = {SAME_ANSWER: {}, OTHER_ANSWER: {}}
    for problem in problems:
        draw = random.Random(f"{seed} {problem.id}")
        order = draw.sample(candidates, len(candidates))
        for name, same in ((SAME_ANSWER, True), (OTHER_ANSWER, False)):
            donor = next(
                (
                    each
                    for each in order
                    if each.question != problem.question
                    and each.answer is not None
                    and (each.answer == problem.answer) == same
                ),
                None,
            )
            if donor is None or problem.answer is None:
                return None
            found[name][problem.id] = donor
    return found


def matched_heads(heads: Sequence[Head], n_heads: int, *, seed: int = 0) -> list[Head]:
    """Random heads, as many in each layer as in the set, none of the set where others suffice.

    >>> matched = matched_heads([(0, 1), (2, 5), (2, 6)], 8, seed=1)
    >>> [layer for layer, _ in matched], set(matched) & {(0, 1), (2, 5), (2, 6)}
    ([0, 2, 2], set())
    """
    draw = random.Random(seed)
    chosen: list[Head] = []
    for layer in sorted({layer for layer, _ in heads}):
        own = {head for at, head in heads if at == layer}
        others = [head for head in range(n_heads) if head not in own]
        some = draw.sample(others, min(len(own), len(others)))
        some += draw.sample(sorted(own), len(own) - len(some))
        chosen += [(layer, head) for head in sorted(some)]
    return chosen


def halves(problems: Sequence[Problem], *, seed: int = 0) -> tuple[list[Problem], list[Problem]]:
    """Two disjoint random halves: one to rank heads on, the other to ablate them on.

    Raises:
        ProblemError: fewer than two problems.

    >>> from codi_lens.problems import word_problems
    >>> first, second = halves(word_problems(5))
    >>> len(first), len(second), {p.id for p in first} & {p.id for p in second}
    (2, 3, set())
    """
    if len(problems) < 2:
        raise ProblemError(f"Two halves need at least 2 problems; there are {len(problems)}.")
    order = random.Random(seed).sample(range(len(problems)), len(problems))
    middle = len(problems) // 2
    return (
        [problems[i] for i in sorted(order[:middle])],
        [problems[i] for i in sorted(order[middle:])],
    )


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
    clean = outcomes[outcomes["arm"] == CLEAN].set_index("problem")
    if not len(clean):
        raise InterventionError(f"The outcomes hold no {CLEAN!r} runs to compare with.")
    names = [name for name in outcomes["arm"].unique() if name != CLEAN]
    tables = [
        outcomes[outcomes["arm"] == name].set_index("problem").loc[clean.index] for name in names
    ]
    columns: dict[str, Any] = {"arm": names, "n": len(clean)}
    columns["n_known"] = int(clean["log_prob"].notna().sum())
    effects: dict[str, np.ndarray] = {}
    for column, name in (("log_prob", "effect"), ("logit_difference", "logit_effect")):
        before = clean[column].to_numpy()[:, None]
        effects[name] = np.stack([table[column].to_numpy() for table in tables], axis=1) - before
        mean, low, high = mean_interval(effects[name], level=level, seed=seed)
        columns |= {name: mean, f"{name}_low": low, f"{name}_high": high}
        if name == "effect":
            columns["p"] = sign_flip_p(effects[name], seed=seed)
            columns["q"] = benjamini_hochberg(columns["p"])
    rows = [_proportions(clean, table, level) for table in tables]
    table = pd.concat([pd.DataFrame(columns), pd.DataFrame(rows)], axis=1)
    table["mcnemar_q"] = benjamini_hochberg(table["mcnemar_p"].to_numpy(dtype=float))
    return table


def contrasts(
    outcomes: pd.DataFrame,
    weights: Mapping[str, Mapping[str, float | int]],
    *,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Weighted sums of arms, problem by problem: whether one costs more than another, say.

    Args:
        outcomes: of `measure`.
        weights: by the name of the contrast, the weight of each arm's log-probability of the clean
            number; arms that are not named weigh 0.
        level: of the interval.
        seed: of bootstrap and permutations.

    Returns:
        One row per contrast: `name`; `contrast` in nats with its bootstrap interval over problems
        `contrast_low`, `contrast_high`; `p` of the sign-flip permutation test and `q` over the
        contrasts (Benjamini-Hochberg); `n_known`, the problems with a number in the clean answer.

    Raises:
        InterventionError: an arm that the outcomes do not hold.

    >>> rows = [("a", CLEAN, -1.0), ("b", CLEAN, -1.0), ("a", "x", -3.0), ("b", "x", -4.0)]
    >>> outcomes = pd.DataFrame(rows, columns=["problem", "arm", "log_prob"])
    >>> float(contrasts(outcomes, {"x": {"x": 1, CLEAN: -1}})["contrast"][0])
    -2.5
    """
    wide = outcomes.pivot(index="problem", columns="arm", values="log_prob")
    unknown = sorted({arm for each in weights.values() for arm in each} - set(wide.columns))
    if unknown:
        raise InterventionError(f"The outcomes hold no arm {unknown[0]!r}.")
    values = np.stack(
        [sum(weight * wide[arm].to_numpy() for arm, weight in w.items()) for w in weights.values()],
        axis=1,
    )
    mean, low, high = mean_interval(values, level=level, seed=seed)
    p = sign_flip_p(values, seed=seed)
    table = {"name": list(weights), "contrast": mean, "contrast_low": low, "contrast_high": high}
    table |= {"p": p, "q": benjamini_hochberg(p), "n_known": np.isfinite(values).sum(axis=0)}
    return pd.DataFrame(table)


def _proportions(clean: pd.DataFrame, table: pd.DataFrame, level: float) -> dict[str, float]:
    known = clean["correct"].notna().to_numpy()
    before = clean["correct"].to_numpy()[known] == 1
    after = table["correct"].to_numpy()[known] == 1
    row: dict[str, float] = {name: float("nan") for name in _ACCURACIES}
    if known.any():
        for name, values in (("accuracy_clean", before), ("accuracy", after)):
            low, high = wilson_interval(int(values.sum()), len(values), level=level)
            row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
        row["mcnemar_p"] = mcnemar_p(before, after)
    changed = table["changed"].to_numpy(dtype=bool)
    low, high = wilson_interval(int(changed.sum()), len(changed), level=level)
    row |= {"changed": float(changed.mean()), "changed_low": low, "changed_high": high}
    thoughts = [name for name in table if str(name).startswith("change_ct")]
    row["thought_change"] = float(table[thoughts].to_numpy().mean())
    return row


_ACCURACIES = [
    f"{name}{end}" for name in ("accuracy_clean", "accuracy") for end in ("", "_low", "_high")
] + ["mcnemar_p"]


def heads_of(table: pd.DataFrame) -> list[Head]:
    """The heads of a table, in its order: the ranking that `rank_heads` gives, say.

    Raises:
        InterventionError: a table without the columns `layer` and `head`.

    >>> heads_of(pd.DataFrame({"layer": [1, 0], "head": [7, 2]}))
    [(1, 7), (0, 2)]
    """
    if not {"layer", "head"} <= set(table.columns):
        raise InterventionError("The table has no columns 'layer' and 'head'.")
    pairs = table[["layer", "head"]].to_numpy(dtype=int).tolist()
    return [(layer, head) for layer, head in pairs]


def head_name(head: Head) -> str:
    """`L4H5`.

    >>> head_name((4, 5))
    'L4H5'
    """
    return f"L{head[0]}H{head[1]}"


def parse_heads(text: str, n_layers: int, n_heads: int) -> list[Head]:
    """Heads from their names, as the command line takes them.

    Raises:
        CodiLensError: not a name of a head, a head that the model does not have, or one twice.

    >>> parse_heads("L0H3,L2H5", 3, 8)
    [(0, 3), (2, 5)]
    """
    heads: list[Head] = []
    for name in text.replace(" ", "").split(","):
        layer, _, head = name.upper().removeprefix("L").partition("H")
        if not (name[:1] in "Ll" and layer.isdecimal() and head.isdecimal()):
            raise CodiLensError(f"{name!r} names no head; write heads like L0H3,L5H3.")
        if int(layer) >= n_layers or int(head) >= n_heads:
            raise CodiLensError(
                f"There is no head {name}; the model has L0H0 to L{n_layers - 1}H{n_heads - 1}."
            )
        if (int(layer), int(head)) in heads:
            raise CodiLensError(f"The head {name} is given twice.")
        heads.append((int(layer), int(head)))
    return heads


def check_known(table: pd.DataFrame) -> None:
    """Refuse effects of which none is known.

    Raises:
        InterventionError: no clean answer holds a number.
    """
    if not table["n_known"].any():
        raise InterventionError(
            "No clean answer holds a number, so there is no effect to compare; allow longer "
            "answers, or give other problems."
        )
