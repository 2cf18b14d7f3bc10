"""Which running totals can be read linearly from which thought, and what attention says of it.

The built-in word problems know every running total, which the published study's corpora do not. A
linear classifier is fitted on some problems' thoughts and asked for the totals of others; the same
fit on shuffled totals shows what it finds where there is nothing.

Three cautions. Decodable is not used: only an intervention shows that. Neighbouring totals are
often equal (a condition that does not hold changes nothing), so `accuracy_distinct` counts only
chains whose total at this step occurs at no other step. And where training *supervised* a thought
to hold a total, that it is decodable is no discovery.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from jaxtyping import Float, Int
from sklearn import config_context
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import Tensor

from codi_lens.attention.hubs import hub_ratios
from codi_lens.attention.profiles import answer_view, sequential_attention, with_intervals
from codi_lens.attention.repeats import numbered
from codi_lens.attention.views import n_thoughts_of
from codi_lens.errors import ProblemError
from codi_lens.loading.sources import local_folder
from codi_lens.model import CodiModel
from codi_lens.positions import thought_names
from codi_lens.problems.arguments import check_seed
from codi_lens.problems.chains import chain_of
from codi_lens.problems.problem import Problem, Problems, problem_list
from codi_lens.problems.words import MAX_OPERATIONS, WordProblem, built_in, word_problems
from codi_lens.stats import wilson_interval
from codi_lens.thinking.ways import check_thoughts
from codi_lens.work import Stage

MIN_PROBLEMS = 50
"""With fewer distinct chains that have a total, its cells are NaN."""


def probe_totals(
    thoughts: Float[np.ndarray | Tensor, "problem thought d_model"],
    problems: Problems,
    *,
    n_folds: int = 5,
    n_shuffles: int = 3,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Held-out accuracy of linear probes of every running total in every thought.

    The probe is scikit-learn's linear discriminant analysis with a fixed shrinkage of 0.1, which is
    linear, needs no iterations and copes with fifty classes. Of problems that tell one chain in
    other words only the first counts: a probe that was fitted on the others has seen it. Totals
    that occur in fewer chains than there are folds are left out.

    Args:
        thoughts: `run.thoughts` of the problems, in their order.
        problems: built-in word problems.
        n_folds: of the stratified cross-validation.
        n_shuffles: how often the totals are shuffled over problems for the control.
        level: of the Wilson intervals.
        seed: of the folds and the shuffles.

    Returns:
        One row per thought and total: `thought`; `step`, the operation after which the total holds
        (0 is the number that the story starts with); `n` distinct chains that have it; `accuracy`
        with `low` and `high`; `control`, the mean accuracy on shuffled totals, and `control_max`;
        `accuracy_distinct` and `n_distinct`. NaN below 50 chains.

    Raises:
        ProblemError: thoughts of another number of problems, or problems without known totals.
    """
    values = thoughts.detach().cpu().numpy() if isinstance(thoughts, Tensor) else thoughts
    problems = problem_list(problems, "probe")
    if len(values) != len(problems):
        raise ProblemError(
            f"There are thoughts of {len(values)} problems but {len(problems)} problems; give both "
            "in the same order."
        )
    chains = numbered([chain_of(problem.question) for problem in problems])
    first = np.unique(chains, return_index=True)[1]
    values, totals = values[first], _totals(problems)[first]
    draw = np.random.default_rng(check_seed(seed))
    table = []
    for place, thought in enumerate(thought_names(values.shape[1])):
        for step in range(totals.shape[1]):
            known = _often_enough(totals[:, step], n_folds)
            row: dict[str, float | int | str] = {"thought": thought, "step": step, "n": len(known)}
            if len(known) >= MIN_PROBLEMS:
                features, labels = values[known, place], totals[known, step]
                distinct = (totals[known] == labels[:, None]).sum(axis=1) == 1
                row |= _probe(features, labels, distinct, n_folds, n_shuffles, level, draw)
            table.append(row)
    columns = ["accuracy", "low", "high", "control", "control_max"]
    columns += ["accuracy_distinct", "n_distinct"]
    return pd.DataFrame(table, columns=["thought", "step", "n", *columns])


def supervised_thoughts(source: str | Path) -> tuple[str, ...] | None:
    """Which thoughts training made hold a running total, as the checkpoint's own files say.

    `codi_config.json` of the shipped models records how they were trained; the recipe supervises
    `ct{i}` to hold the total after operation i + 1, for every total but the answer itself.

    Args:
        source: the folder of the checkpoint, or the name of a shipped model.

    Returns:
        Their names; none of them if training was not supervised; None if the files do not say.

    >>> supervised_thoughts("tiny-gpt2")
    ('ct0', 'ct1', 'ct2', 'ct3')
    >>> supervised_thoughts("no such folder") is None
    True
    """
    folder = local_folder(source)
    said = folder and folder / "codi_config.json"
    if not said or not said.is_file():
        return None
    config = json.loads(said.read_text(encoding="utf-8"))
    supervised = config.get("training", {}).get("supervised")
    if supervised is None:
        return None
    most = min(config.get("n_thoughts", MAX_OPERATIONS), MAX_OPERATIONS - 1)
    return thought_names(most) if supervised else ()


def ground_truth(
    probes: pd.DataFrame,
    attention: xr.DataArray,
    *,
    supervised: Sequence[str] = (),
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Per thought: which total it holds, and what attention says about it.

    Args:
        probes: from `probe_totals`.
        attention: labelled attention [problem, layer, head, query, key] of the same model.
        supervised: thoughts that training made decode to a running total.
        n_resamples: bootstrap resamples of the problems.
        seed: of the bootstrap.

    Returns:
        One row per thought: `thought`, `supervised`; `step`, `accuracy` and `control` of the total
        it holds best; `hub_ratio`; `from_next`, the attention that the next thought gives it, and
        `from_eot` and `from_anchor`, what the answer gives it, all means over heads and problems
        with `_low` and `_high`.

    Raises:
        ProblemError: probes of another number of thoughts or of too few problems, or an unknown
            supervised thought.
        AttentionError: not labelled attention, no problems, or NaN in it.
    """
    names = list(thought_names(n_thoughts_of(attention)))
    if list(dict.fromkeys(probes["thought"])) != names or not set(supervised) <= set(names):
        raise ProblemError(
            f"The attention has the thoughts {', '.join(names)}; probes and supervised thoughts "
            "must be of the same model."
        )
    known = probes.dropna(subset="accuracy")
    if known["thought"].nunique() < len(names):
        raise ProblemError(f"No total has the {MIN_PROBLEMS} problems that a probe needs.")
    best = known.loc[known.groupby("thought", sort=False)["accuracy"].idxmax()]
    table = best[["thought", "step", "accuracy", "low", "high", "control"]].rename(
        columns={"low": "accuracy_low", "high": "accuracy_high"}
    )
    table.insert(1, "supervised", table["thought"].isin(list(supervised)))
    hubs = hub_ratios(attention, n_resamples=n_resamples, seed=seed).set_index("thought")
    following = with_intervals(sequential_attention(attention), n_resamples=n_resamples, seed=seed)
    following["thought"] = names[:-1]  # the key of the query's row
    answer = with_intervals(answer_view(attention), n_resamples=n_resamples, seed=seed)
    sources = {
        "hub_ratio": hubs.rename(columns={"ratio": "mean"}),
        "from_next": following.set_index("thought"),
    }
    for query in ("eot", "anchor"):
        sources[f"from_{query}"] = answer[answer["query"] == query].set_index("key")
    for name, source in sources.items():
        for column, end in (("mean", ""), ("low", "_low"), ("high", "_high")):
            table[name + end] = source[column].reindex(table["thought"]).to_numpy()
    return table.reset_index(drop=True)


def answer_reads_by_length(
    attention: xr.DataArray,
    problems: Problems,
    *,
    n_resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """What the anchor reads, by number of operations: an average over all hides a moving target.

    Args:
        attention: labelled attention of these problems, from `extract`.
        problems: built-in word problems, of the ids that label the attention, in any order.
        n_resamples: bootstrap resamples of the problems of each length.
        level: of the percentile intervals.
        seed: of the bootstrap.

    Returns:
        One row per number of operations and thought: `n_operations`, `n` problems, `thought`, and
        the anchor's attention to it, averaged over heads: `mean`, `low`, `high`.

    Raises:
        ProblemError: attention to a problem that is not given.
        AttentionError: not labelled attention.
    """
    view = answer_view(attention).sel(query="anchor", drop=True)
    view = view.sel(key=list(thought_names(n_thoughts_of(attention))))
    lengths = {each.id: len(each.totals) for each in built_in(problems, "compare")}
    ids = [str(id) for id in attention["problem"].values]
    unknown = [id for id in ids if id not in lengths]
    if unknown:
        raise ProblemError(
            f"The attention holds the problem {unknown[0]}, which is not among the problems given."
        )
    tables = []
    for length in sorted({lengths[id] for id in ids}):
        chosen = np.flatnonzero([lengths[id] == length for id in ids])
        rows = with_intervals(
            view.isel(problem=chosen), n_resamples=n_resamples, level=level, seed=seed
        )
        rows = rows.rename(columns={"key": "thought"})
        rows.insert(0, "n", len(chosen))
        rows.insert(0, "n_operations", length)
        tables.append(rows)
    return pd.concat(tables, ignore_index=True)


def _probe(
    features: Float[np.ndarray, "problem d_model"],
    labels: Int[np.ndarray, " problem"],
    distinct: np.ndarray,
    n_folds: int,
    n_shuffles: int,
    level: float,
    draw: np.random.Generator,
) -> dict[str, float | int]:
    right = _held_out(features, labels, n_folds) == labels
    shuffled = [draw.permutation(labels) for _ in range(n_shuffles)]
    control = [float((_held_out(features, each, n_folds) == each).mean()) for each in shuffled]
    low, high = wilson_interval(int(right.sum()), len(right), level=level)
    return {
        "accuracy": float(right.mean()),
        "low": low,
        "high": high,
        "control": float(np.mean(control)) if control else np.nan,
        "control_max": max(control, default=np.nan),
        "accuracy_distinct": float(right[distinct].mean()) if distinct.any() else np.nan,
        "n_distinct": int(distinct.sum()),
    }


def _held_out(features: np.ndarray, labels: np.ndarray, n_folds: int) -> np.ndarray:
    probe = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1)
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
    # scikit-learn would check the same arrays once for every value of the label.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        return np.asarray(cross_val_predict(probe, features, labels, cv=folds))


def _totals(problems: Sequence[Problem]) -> Int[np.ndarray, "problem step"]:
    """The number that each story starts with and its running totals; -1 after the last."""
    known = [problem for problem in problems if isinstance(problem, WordProblem)]
    if not known or len(known) < len(problems):
        raise ProblemError(
            "Probes need the built-in word problems, whose running totals are known."
        )
    totals = np.full((len(known), 1 + max(len(problem.totals) for problem in known)), -1)
    for row, problem in enumerate(known):
        totals[row, : len(problem.totals) + 1] = problem.start, *problem.totals
    return totals


def _often_enough(totals: Int[np.ndarray, " problem"], n_folds: int) -> Int[np.ndarray, " known"]:
    """The problems that have this total (-1 is none), where it occurs at least once per fold."""
    values, counts = np.unique(totals[totals >= 0], return_counts=True)
    return np.flatnonzero(np.isin(totals, values[counts >= n_folds]))


_PROBE_BATCH = 100


def probe_thoughts(model: CodiModel, n: int, *, seed: int = 0, n_shuffles: int = 1) -> pd.DataFrame:
    """`probe_totals` of the thoughts that a model has about `n` built-in word problems.

    A probe needs several problems for every value that a total can have, so it takes more of them
    than the attention does.

    Args:
        model: the model.
        n: how many built-in problems, of the test split.
        seed: draws the problems, the folds and the shuffles.
        n_shuffles: how often the totals are shuffled for the control.
    """
    check_thoughts(model, "probe_thoughts")
    problems, stage = word_problems(n, seed=seed), Stage("probing")

    def think(batch: Sequence[Problem]) -> Float[Tensor, "problem thought d_model"]:
        return model.think([each.question for each in batch], max_new_tokens=1).thoughts.cpu()

    thoughts: list[Tensor] = []
    for start in range(0, n, _PROBE_BATCH):
        batch = problems[start : start + _PROBE_BATCH]
        found, _ = stage("", len(batch), len(batch), partial(think, batch))
        thoughts.append(found[: len(batch)])  # in a rehearsal those of the first batch
    return probe_totals(torch.cat(thoughts), problems, n_shuffles=n_shuffles, seed=seed)
