"""Which thought carries which running total, asked by swapping thoughts between problems.

Two questions. `operand_swaps`: if a thought comes from a counterpart that differs in one operand,
does the answer follow the counterpart? It does where the thought carries a total that this operand
is part of and the rest of the run relies on it. `total_swaps`: if a thought comes from an unrelated
problem, is the answer what the donor's total after operation k and the problem's own remaining
operations come to? Only the total that the thought stands for predicts the answers, and neither
the donor's answer nor the problem's own does (interchange interventions, Geiger et al. 2021,
"Causal abstractions of neural networks").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from codi_lens.causal.effects import share_of
from codi_lens.causal.measure import Running
from codi_lens.causal.swaps import (
    ALONE,
    COUNTERPART,
    UNRELATED,
    UP_TO,
    Swap,
    SwapOutcomes,
    chance,
    effect_of,
    run_swaps,
    unrelated_donors,
)
from codi_lens.errors import ProblemError, needs
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.chains import chain_of
from codi_lens.problems.kinds import Answer
from codi_lens.problems.operations import MAX_TOTAL, totals_of
from codi_lens.problems.pairs import Pairs, both_problems, pair_list
from codi_lens.problems.problem import Problems
from codi_lens.problems.words import WordProblem, built_in
from codi_lens.stats import benjamini_hochberg
from codi_lens.thinking.ways import check_thoughts

_HALF = 0.5


def operand_swaps(
    model: CodiModel,
    pairs: Pairs,
    out: str | Path | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Feed a problem the thoughts of its counterpart: for which operands does the answer follow?

    Each thought is swapped alone, and with all thoughts before it. As a baseline the same thoughts
    come from an unrelated problem of the same pairs: the answer should then be that problem's only
    by coincidence of their operations (see `total_swaps`, which leaves such pairs out).
    A pair counts only where the model answers the problem and the donor right. Pairs that tell the
    same two chains in other words count once.

    Args:
        model: the model.
        pairs: of `operand_pairs`, of one or several numbers of operations.
        out: a folder for the outcomes, resumable.
        level: of the intervals.
        seed: of the unrelated donors.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per `n_operations`, `donor` ("counterpart" or "unrelated"), `thought`, `swapped`
        ("alone" or "with all before") and `operand` (0 for the start, missing where the donor is
        unrelated): `n` distinct pairs, `n_wrong` left out because a clean answer is wrong;
        `donor_share`, `own_share` and `neither_share` of the answers that equal the donor's answer,
        the problem's own, or neither, with Wilson intervals `_low`, `_high`; `chance`, the share of
        answers that equal the answer of another pair's donor; `effect`, the mean change of the
        log-probability of the own number in nats, with its interval and `p` (see `mean_test`), `q`
        over the rows (Benjamini-Hochberg). Shares are NaN without a pair.

    Raises:
        ProblemError: pairs not of built-in word problems, without a known operand, or with ids that
            occur twice.
        InterventionError: a problem without an unrelated donor.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems.pairs import operand_pairs
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = operand_swaps(model, operand_pairs(16), progress=False)
    >>> some = table[(table["donor"] == "counterpart") & (table["swapped"] == "alone")]
    >>> some.query("thought == 'ct0'")[["operand", "donor_share"]].values.tolist()
    [[0, 1.0], [1, 1.0], [2, 0.0], [3, 0.0]]
    """
    check_thoughts(model, "operand_swaps")
    check_seed(seed)
    pairs = pair_list(pairs)
    every = built_in(both_problems(pairs), "patch")
    problems = every[: len(pairs)]
    if any(pair.operand is None for pair in pairs):
        raise ProblemError("A pair names no operand; operand_swaps needs to know where it differs.")
    partners = {
        COUNTERPART: {pair.clean.id: pair.corrupted.id for pair in pairs},
        UNRELATED: unrelated_donors(problems, seed),
    }
    swaps = [
        Swap(donor, thought, swapped, partner)
        for donor, partner in partners.items()
        for swapped in (ALONE, UP_TO)
        for thought in thought_names(model.config.n_thoughts)
    ]
    outcomes = run_swaps(model, problems, every, swaps, out, **running)
    answers = {problem.id: problem.answer for problem in every}
    operands = {pair.clean.id: pair.operand for pair in pairs}
    lengths = {problem.id: len(problem.operations) for problem in problems}
    chains = {
        pair.clean.id: (chain_of(pair.clean.question), chain_of(pair.corrupted.question))
        for pair in pairs
    }
    distinct = _first_of_each(chains)
    rows: list[dict[str, Any]] = []
    for n_operations in sorted(set(lengths.values())):
        group = [id for id in distinct if lengths[id] == n_operations]
        for swap in swaps:
            paired = swap.donor == COUNTERPART
            for operand in range(n_operations + 1) if paired else [None]:
                ids = [id for id in group if not paired or operands[id] == operand]
                if not ids:
                    continue
                labels = {"n_operations": n_operations, **swap.labels, "operand": operand}
                shares = _shares(outcomes, swap, ids, answers, level)
                right = outcomes.right(swap, ids)
                rows.append(labels | shares | effect_of(outcomes, swap, right, level))
    return _with_q(rows).astype({"operand": "Int64"})


def total_swaps(
    model: CodiModel,
    problems: Problems,
    out: str | Path | None = None,
    *,
    level: float = 0.95,
    seed: int = 0,
    **running: Unpack[Running],
) -> pd.DataFrame:
    """Feed one thought of an unrelated problem: whose total after which operation does it bring?

    For each k the prediction is the donor's total after operation k, then the problem's own
    operations after k. A pair counts where the model answers both problems right and the prediction
    lies in 0..49 and differs from the problem's own answer, from the donor's answer, and from the
    predictions of all other k: then one prediction at most can come true, and neither a thought
    that carries the donor's answer nor one that carries nothing makes it so. Of problems that tell
    one chain in other words only the first counts.

    Args:
        model: the model.
        problems: of `codi_lens.problems.word_problems`; donors have as many operations, another
            start, other operations and another answer.
        out: a folder for the outcomes, resumable.
        level: of the intervals.
        seed: of the donors.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        One row per `n_operations`, `thought` and `operation` k (0 for the start): `predicted_share`
        of the answers that equal the prediction, with its Wilson interval; `own_share` and
        `donor_share` of the same pairs; `chance`, the share of answers that equal the prediction of
        another pair; `effect`, the mean change of the log-probability of the own number in nats,
        with its interval, `p` and `q` as in `operand_swaps`; `n` pairs. The last k is
        missing: its prediction is the donor's answer.

    Raises:
        ProblemError: problems that are not built-in word problems.
        InterventionError: a problem without an unrelated donor.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> table = total_swaps(model, word_problems(24, n_operations=3), progress=False)
    >>> (table.query("thought == 'ct1'")["predicted_share"] > 0.5).tolist()
    [False, False, True]
    """
    check_thoughts(model, "total_swaps")
    check_seed(seed)
    chosen = built_in(problems, "swap")
    donor_of = unrelated_donors(chosen, seed)
    swaps = [
        Swap(UNRELATED, thought, ALONE, donor_of)
        for thought in thought_names(model.config.n_thoughts)
    ]
    outcomes = run_swaps(model, chosen, chosen, swaps, out, **running)
    by_id = {problem.id: problem for problem in chosen}
    distinct = _first_of_each({problem.id: chain_of(problem.question) for problem in chosen})
    rows: list[dict[str, Any]] = []
    for n_operations in sorted({len(problem.operations) for problem in chosen}):
        group = [id for id in distinct if len(by_id[id].operations) == n_operations]
        for swap in swaps:
            for operation in range(n_operations):
                found = {
                    id: _prediction(by_id[id], by_id[donor_of[id]], operation)
                    for id in outcomes.right(swap, group)
                }
                ids = [id for id, value in found.items() if value is not None]
                given = outcomes.answered(swap, ids)
                expected = np.array([found[id] for id in ids], dtype=float)
                own = np.array([by_id[id].answer for id in ids], dtype=float)
                donor = np.array([by_id[donor_of[id]].answer for id in ids], dtype=float)
                row: dict[str, Any] = {"n_operations": n_operations, "thought": swap.thought}
                row |= {"operation": operation, "n": len(ids)}
                row |= share_of("predicted_share", given == expected, level)
                row |= share_of("own_share", given == own, level)
                row |= share_of("donor_share", given == donor, level)
                row["chance"] = chance(given, expected)
                rows.append(row | effect_of(outcomes, swap, ids, level))
    return _with_q(rows)


def carried_totals(swaps: pd.DataFrame) -> pd.DataFrame:
    """How far the total of each thought reaches, of `operand_swaps` of single thoughts.

    A thought carries the total after operation k if the answer follows the donor for every operand
    up to k and stays for every later one: in more than half of the pairs and in less, beyond the
    interval. k = 0 is the start itself.

    Args:
        swaps: of `operand_swaps`.

    Returns:
        One row per `n_operations` and `thought`: `reaches`, the last operand of those from the
        start on that the answer follows, missing where it does not follow the start; `clear`,
        whether it stays for every later one; `sentence`.

    Raises:
        InterventionError: a table without such swaps.

    >>> rows = [(3, "ct1", 0, 0.8, 1.0), (3, "ct1", 1, 0.8, 1.0), (3, "ct1", 2, 0.0, 0.2)]
    >>> names = ["n_operations", "thought", "operand", "donor_share_low", "donor_share_high"]
    >>> table = pd.DataFrame(rows, columns=names).assign(donor=COUNTERPART, swapped=ALONE)
    >>> carried_totals(table)["sentence"].item()
    'ct1 carries the total after operation 1'
    """
    columns = ("donor", "swapped", "operand", "donor_share_low")
    needs(swaps, *columns, advice="give what operand_swaps returns")
    single = swaps[(swaps["donor"] == COUNTERPART) & (swaps["swapped"] == ALONE)]
    rows: list[dict[str, Any]] = []
    for (n_operations, thought), cells in single.groupby(["n_operations", "thought"], sort=False):
        cells = cells.sort_values("operand")
        follows = (cells["donor_share_low"] > _HALF).to_numpy()
        stays = (cells["donor_share_high"] < _HALF).to_numpy()
        n_followed = int(np.cumprod(follows).sum())
        clear = bool(stays[n_followed:].all())
        reaches = int(cells["operand"].iloc[n_followed - 1]) if n_followed else None
        rows.append(
            {"n_operations": n_operations, "thought": thought, "reaches": reaches, "clear": clear}
            | {"sentence": f"{thought} {_carries(reaches, clear)}"}
        )
    return pd.DataFrame(rows).astype({"reaches": "Int64"})


def _carries(reaches: int | None, clear: bool) -> str:
    if not clear:
        return "is followed for some operands and not clearly for others"
    if reaches is None:
        return "alone carries no total that the answer relies on"
    return f"carries {'the start' if reaches == 0 else f'the total after operation {reaches}'}"


def _shares(
    outcomes: SwapOutcomes,
    swap: Swap,
    ids: Sequence[str],
    answers: Mapping[str, Answer | None],
    level: float,
) -> dict[str, Any]:
    """Whose answer is given, of the pairs whose clean answers are right."""
    right = outcomes.right(swap, ids)
    given = outcomes.answered(swap, right)
    own, donor = (
        np.array([answers[id] for id in some], dtype=float)
        for some in (right, [swap.partner[id] for id in right])
    )
    row: dict[str, Any] = {"n": len(right), "n_wrong": len(ids) - len(right)}
    row |= share_of("donor_share", given == donor, level)
    row |= share_of("own_share", given == own, level)
    row |= share_of("neither_share", (given != donor) & (given != own), level)
    return row | {"chance": chance(given, donor)}


def _first_of_each(chains: Mapping[str, object]) -> list[str]:
    """The first id of every chain, so that a repeat is not counted as another trial."""
    first: dict[object, str] = {}
    for id, chain in chains.items():
        first.setdefault(chain, id)
    return list(first.values())


def _with_q(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table["q"] = benjamini_hochberg(table["p"].to_numpy(dtype=float))
    return table


def _prediction(problem: WordProblem, donor: WordProblem, operation: int) -> int | None:
    """The donor's total after an operation and the own operations after it, if it tells apart."""
    before = (donor.start, *donor.totals)
    steps = [
        (value, *totals_of(problem.start, problem.operations, given={k: value})[k:])
        for k, value in enumerate(before)
    ]
    value = steps[operation][-1]
    possible = all(0 <= total <= MAX_TOTAL for total in steps[operation])
    alike = [value == other[-1] for k, other in enumerate(steps) if k != operation]
    return value if possible and not any(alike) and value != problem.answer else None
