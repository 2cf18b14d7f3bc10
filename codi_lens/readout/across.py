"""Whether what was found on one corpus holds on another: heads, thoughts, and what can be read.

A quantity has a value for each *unit* (each head, each thought, each row that is decoded), a mean
over the problems of a corpus. Two corpora agree as far as they rank the units alike. Means over
other problems of the *same* corpus are not ranked quite alike either: how far halves of a corpus
agree says what two corpora can be expected to reach if the truth is the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
from einops import rearrange
from jaxtyping import Float

from codi_lens.attention.extract import extract
from codi_lens.attention.scores import score_problems
from codi_lens.causal.controls import donors_for
from codi_lens.causal.effects import adjusted, needed, summarise
from codi_lens.causal.measure import Running, decoding, measure
from codi_lens.causal.reliability import effects_by_problem, split_half_reliability
from codi_lens.errors import CodiLensError, ProblemError, check_seed, shown, whole_number
from codi_lens.head_names import all_heads, head_name
from codi_lens.interventions.heads import ablate_heads
from codi_lens.interventions.thoughts import patch_thoughts
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.problem import Problem, Problems
from codi_lens.problems.words import WordProblem
from codi_lens.readout.decode import decode_thoughts
from codi_lens.readout.steps import intermediate, match_steps, number_of, share_row, with_others
from codi_lens.stats import rank_correlations, resample_weights
from codi_lens.thinking.given import problems_for
from codi_lens.thinking.ways import check_thoughts

SCORES = ("flow", "hub", "skip", "sequential")
"""The scores of attention that are compared, in the position view."""
EFFECT, THOUGHT, LENS = "effect of heads", "effect of thoughts", "results read"
_Values = Float[np.ndarray, "problem unit"]


@dataclass(frozen=True, eq=False)
class Across:
    """What a model does on several corpora, and how far they agree.

    Attributes:
        corpora: one row per corpus: `n` problems, `n_known` with an effect, the accuracy with its
            Wilson interval, `n_needed` heads and their names.
        agreement: one row per quantity and pair of corpora `a`, `b` that both have it on at least
            two problems and three units; see `rank_agreement`.
        heads: one row per corpus and head: the scores, and the effect as `summarise` has it.
        thoughts: one row per corpus and thought: its effect.
        lens: one row per corpus and decoded row: in what share of the intermediate results of
            problems that have them they are among the likeliest tokens, and those of another
            problem (`control_…`).
    """

    corpora: pd.DataFrame
    agreement: pd.DataFrame
    heads: pd.DataFrame
    thoughts: pd.DataFrame
    lens: pd.DataFrame


@dataclass(frozen=True, eq=False)
class _Measured:
    tables: dict[str, pd.DataFrame]
    values: dict[str, _Values]


def generalise(
    model: CodiModel,
    corpora: Mapping[str, Problems],
    out: str | Path | None = None,
    *,
    k: int = 5,
    seed: int = 0,
    **running: Unpack[Running],
) -> Across:
    """Measure a model on several corpora, and say how far they agree.

    On each: attention of every head between thoughts; what ablating each head at the thinking
    positions, and replacing each thought, costs ("resample", donors of the same corpus); and where
    intermediate results are among the k likeliest tokens, of problems whose chain is known.

    Args:
        model: the model.
        corpora: at least two, by name, each of at least two problems.
        out: a folder for the outcomes of each corpus, resumable.
        k: how many tokens of each row count as read.
        seed: of donors and the bootstrap.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Raises:
        ProblemError: fewer than two corpora, or than two problems in one.
        CodiLensError: see `measure`.

    >>> from codi_lens.problems import word_problems
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> both = {f"{n} steps": word_problems(4, n_operations=n) for n in (2, 4)}
    >>> found = generalise(model, both, progress=False)
    >>> found.agreement["quantity"].tolist()[3:6]
    ['sequential', 'effect of heads', 'effect of thoughts']
    """
    check_thoughts(model, "generalise")
    check_seed(seed)
    given = _checked(model, corpora)
    k = whole_number("k", k, 1, model.lens.cfg.d_vocab_out, error=ProblemError)
    found = {
        name: _measured(
            model, problems, None if out is None else Path(out) / name, k, seed, running
        )
        for name, problems in given.items()
    }
    rows: list[dict[str, Any]] = []
    for quantity in (*SCORES, EFFECT, THOUGHT, LENS):
        known = {name: each.values[quantity] for name, each in found.items()}
        for a, b in combinations(found, 2):
            if min(len(known[a]), len(known[b])) > 1 and known[a].shape[1] > 2:
                row = rank_agreement(known[a], known[b], seed=seed)
                rows.append({"quantity": quantity, "a": a, "b": b} | row)
    tables = {
        table: pd.concat(
            [each.tables[table].assign(corpus=name) for name, each in found.items()],
            ignore_index=True,
        )
        for table in ("corpora", "heads", "thoughts", "lens")
    }
    for table in tables.values():
        table.insert(0, "corpus", table.pop("corpus"))
    return Across(agreement=pd.DataFrame(rows, columns=_AGREEMENT), **tables)


def rank_agreement(
    a: Float[np.ndarray, "problem_a unit_a"],
    b: Float[np.ndarray, "problem_b unit_b"],
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, float | int]:
    """How far the means of two corpora rank the same units alike.

    Args:
        a, b: a value for each problem of a corpus and each unit, the same units in both.
        n_resamples: bootstrap resamples of the problems of each.
        seed: of the bootstrap and of halves.

    Returns:
        `rho`, Spearman's; `reliability_a`, `reliability_b`, how far halves of each corpus agree,
        corrected to its size (see `split_half_reliability`); `ceiling`, the square root of their
        product: the rho that is expected where the truth is the same in both; `corrected`, rho
        divided by it, which is what the means over all problems of such corpora would have, at most
        1, with its 95 % interval `corrected_low`, `corrected_high` over problems, NaN where either
        corpus has fewer than 10; `n_units`, `n_a`, `n_b`. NaN where a side is the same for all
        units; `corrected` also where the ceiling is below 0.5, since little but noise was measured.

    The interval is normal on Fisher's z, its standard error by the bootstrap. In simulations (6 to
    144 units, 30 to 100 problems, noise from once to three times what units differ by) it covers in
    87 to 95 %, and `corrected` is off by less than 0.05 on average
    (`tests/readout/test_across.py`).

    Raises:
        CodiLensError: fewer than three units, or not the same number.

    >>> a = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 4.0, 3.0]])
    >>> found = rank_agreement(a, a)
    >>> round(found["rho"], 6), found["n_units"], found["n_a"]
    (1.0, 4, 2)
    """
    if a.shape[1] != b.shape[1] or a.shape[1] < 3:
        raise CodiLensError(
            f"Corpora agree on at least 3 units, the same in both, not on {a.shape[1]} and "
            f"{b.shape[1]}."
        )
    groups = np.zeros(a.shape[1], dtype=int)
    drawn = [
        np.concatenate([np.full((1, len(each)), 1 / len(each)), weights]) @ each
        for i, each in enumerate((a, b))
        for weights in [resample_weights(len(each), n_resamples=n_resamples, seed=2 * seed + i)]
    ]
    rho, *samples = rank_correlations(drawn[0], drawn[1], groups)
    largest = 1 - 6 / (a.shape[1] ** 3 - a.shape[1])  # half a step of rho below 1, which has no z
    z = np.arctanh(np.clip([rho, *samples], -largest, largest))
    spread = 1.96 * np.nanstd(z[1:]) if np.isfinite(z[1:]).any() else np.nan
    halves = [split_half_reliability(each, seed=seed).value for each in (a, b)]
    ceiling = float(np.sqrt(np.prod(np.maximum(halves, 0))))
    ends = [rho, min(rho, np.tanh(z[0] - spread)), max(rho, np.tanh(z[0] + spread))]
    measured = ceiling >= _LEAST_CEILING
    corrected = np.clip(np.array(ends) / ceiling, -1, 1) if measured else np.full(3, np.nan)
    if min(len(a), len(b)) < _FEWEST:
        corrected[1:] = np.nan
    names = ("corrected", "corrected_low", "corrected_high")
    return {
        "rho": float(rho),
        **dict(zip(names, corrected.tolist(), strict=True)),
        "ceiling": ceiling,
        "reliability_a": halves[0],
        "reliability_b": halves[1],
        "n_units": a.shape[1],
        "n_a": len(a),
        "n_b": len(b),
    }


_AGREEMENT = ["quantity", "a", "b", "rho", "corrected", "corrected_low", "corrected_high"]
_AGREEMENT += ["ceiling", "reliability_a", "reliability_b", "n_units", "n_a", "n_b"]
_LEAST_CEILING = 0.5
_FEWEST = 10  # problems; an interval over fewer covers in less than it says


def _checked(model: CodiModel, corpora: Mapping[str, Problems]) -> dict[str, list[Problem]]:
    if not isinstance(corpora, Mapping) or len(corpora) < 2:
        raise ProblemError(
            f"generalise takes at least two corpora by name, not {shown(corpora)}; give "
            "{'name': problems, …}."
        )
    for name in corpora:
        if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name:
            raise ProblemError(
                f"The name of a corpus is also that of a folder, which {shown(name)} cannot be."
            )
    given = {name: problems_for(model, problems) for name, problems in corpora.items()}
    small = next((name for name, problems in given.items() if len(problems) < 2), None)
    if small is not None:
        raise ProblemError(f"The corpus {small} has fewer than two problems; give more.")
    asked: dict[frozenset[str], str] = {}
    for name, problems in given.items():
        twin = asked.setdefault(frozenset(each.question for each in problems), name)
        if twin != name:
            raise ProblemError(f"The corpora {twin} and {name} ask the same; give different ones.")
    return given


def _measured(
    model: CodiModel,
    problems: Sequence[Problem],
    out: Path | None,
    k: int,
    seed: int,
    running: Running,
) -> _Measured:
    """Everything about one corpus."""
    attention = extract(model, problems, **decoding(running))
    scored = score_problems(attention)
    scores = {
        name: rearrange(scored[name].values, "problem layer head -> problem (layer head)")
        for name in SCORES
    }
    heads, thoughts = all_heads(model.lens.cfg), thought_names(model.config.n_thoughts)
    donors = donors_for(model, problems, mode="resample", seed=seed)
    arms = {head_name(head): ablate_heads([head], donors=donors, seed=seed) for head in heads}
    replaced = {name: patch_thoughts(name, donors=donors, seed=seed) for name in thoughts}
    outcomes = measure(model, problems, arms | replaced, out, **running)
    whole = summarise(outcomes).rename(columns={"arm": "name"})
    whole = adjusted(whole.assign(head=whole["name"].isin(arms)), "head").drop(columns="head")
    of_heads, of_thoughts = whole.iloc[: len(arms)], whole.iloc[len(arms) :]
    of_heads = of_heads.assign(**{name: each.mean(axis=0) for name, each in scores.items()})
    decoded = decode_thoughts(model, problems, k, **decoding(running))
    lens, found, control = _results_read(decoded, problems)
    names = needed(of_heads)["name"].tolist()
    corpus = of_heads[_CORPUS].head(1).assign(n_needed=len(names), needed=", ".join(names))
    tables = {"corpora": corpus, "heads": of_heads, "thoughts": of_thoughts}
    return _Measured(
        tables | {"lens": lens},
        scores
        | {EFFECT: effects_by_problem(outcomes, list(arms))}
        | {THOUGHT: effects_by_problem(outcomes, list(replaced)), LENS: found - control},
    )


def results_of(problem: Problem) -> list[object]:
    """The results of a problem's steps, where its chain is known: numbers alone, none otherwise.

    >>> from codi_lens.problems import word_problems
    >>> results_of(word_problems(1, seed=6, n_operations=2)[0])
    [20, 20]
    """
    if isinstance(problem, WordProblem):
        return list(problem.totals)
    results = [step.strip("<> ").rpartition("=")[2].strip() for step in problem.steps]
    return list(results) if all(number_of(each) is not None for each in results) else []


def _results_read(
    decoded: pd.DataFrame, problems: Sequence[Problem]
) -> tuple[pd.DataFrame, _Values, _Values]:
    """How often intermediate results are read in each row, beside those of another problem.

    The other one is the next of as many results; problems that have none are left out.
    """
    by_problem = decoded.groupby("problem", sort=False)["tokens"].agg(list)
    tokens = [by_problem[problem.id] for problem in problems]
    places = decoded["position"].unique().tolist()
    chains = [results_of(problem) for problem in problems]
    results = [intermediate(chain) for chain in chains]
    groups = with_others(chains).values()
    pairs = [(i, j) for group in groups for i, j in group if j is not None]
    own = [match_steps(tokens[i], results[i]) for i, _ in pairs]
    others = [match_steps(tokens[i], results[j]) for i, j in pairs]
    rows: list[dict[str, Any]] = []
    for row, place in enumerate(places if own else []):
        hits, chance = (np.concatenate([each[row] for each in some]) for some in (own, others))
        control = share_row(int(chance.sum()), len(chance), 0.95)
        rows.append(
            {"row": row, "position": place, "n_problems": len(own)}
            | share_row(int(hits.sum()), len(hits), 0.95)
            | {f"control_{name}": value for name, value in control.items()}
        )
    found, control = (
        np.array([each.mean(axis=1) for each in some]).reshape(len(some), len(places))
        for some in (own, others)
    )
    return pd.DataFrame(rows, columns=_LENS_COLUMNS), found, control


_CORPUS = ["n", "n_known", "accuracy_clean", "accuracy_clean_low", "accuracy_clean_high"]
_SHARE = ("found", "n", "share", "low", "high")
_LENS_COLUMNS = ["row", "position", "n_problems", *_SHARE, *(f"control_{each}" for each in _SHARE)]
