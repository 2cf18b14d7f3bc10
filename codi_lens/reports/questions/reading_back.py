"""The head that reads back: where it looks moves with the step that a problem refers to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Float

from codi_lens.attention.labels import labelled
from codi_lens.causal.edge_costs import costs_of
from codi_lens.causal.means import MIN_EFFECT, mean_of
from codi_lens.causal.measure import Running, measure
from codi_lens.head_names import Head, head_name
from codi_lens.interventions.edges import knock_out
from codi_lens.model import CodiModel
from codi_lens.positions import row_of
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem
from codi_lens.wording import with_interval

_FEWEST = 5


@dataclass(frozen=True, eq=False)
class ReadingBack:
    """A head whose attention follows what a problem refers to.

    Attributes:
        head: the head.
        title: whether it is shown to read back: to look more at the thought that is needed than at
            the other, whichever of the two that is, where cutting that edge costs more than 0.1
            nats.
        sentences: what it does, and what cutting the edge costs.
        examples: two problems of equal length that differ in what they refer to.
    """

    head: Head
    title: str
    sentences: list[str]
    examples: list[WordProblem]


def reading_back(
    model: CodiModel,
    attention: xr.DataArray,
    problems: Sequence[Problem],
    out: Path | None = None,
    **running: Unpack[Running],
) -> ReadingBack | None:
    """Find the head whose attention moves most with the reference, and cut what it reads.

    The head is chosen on every other one of the problems that are answered right; the numbers are
    those of the rest.

    Args:
        model: the model.
        attention: of `extract`, of these problems.
        problems: what it thought about.
        out: a folder for the outcomes of cutting, resumable.
        running: `problems_at_once`, `rows_at_once`, `max_new_tokens`, `progress`, `workers`,
            `ray_address`.

    Returns:
        None where no query has to read one thought in at least ten problems, and another one in
        ten others.
    """
    right = set(attention["problem"].values[attention["correct"].values == 1].tolist())
    chosen = [each for each in problems if isinstance(each, WordProblem) and each.id in right]
    query, needed = _asked(chosen)
    keys = sorted(set(needed.values()))
    if len(keys) < 2:
        return None
    ids = sorted(needed, key=lambda id: (needed[id], id))
    picking, testing = ids[::2], ids[1::2]
    row = labelled(attention).sel(problem=ids, query=row_of(query), key=keys).load()
    ways = {id: [needed[id], *(key for key in keys if key != needed[id])] for id in ids}
    cells = {id: row.sel(problem=id, key=ways[id]).transpose("key", ...).values for id in ids}
    # Each key counts alike: a head that always looks at the commoner one follows nothing.
    moves = np.mean(
        [
            np.mean([cells[id][0] - cells[id][1] for id in picking if needed[id] == key], axis=0)
            for key in keys
        ],
        axis=0,
    )
    layer, head = map(int, np.unravel_index(int(moves.argmax()), moves.shape))
    chosen_head: Head = (int(row["layer"][layer]), int(row["head"][head]))
    reads = np.array([cells[id][:, layer, head] for id in testing], dtype=float)
    arms = {
        f"{where} {key}": knock_out(query, key, heads)
        for key in keys
        for where, heads in (("every", None), ("one", [chosen_head]))
    }
    tested = [each for each in chosen if each.id in testing]
    table = costs_of(measure(model, tested, arms, out, **running))
    costs = {
        where: np.array([[table.loc[id, f"{where} {key}"] for key in ways[id]] for id in testing])
        for where in ("every", "one")
    }
    name = head_name(chosen_head)
    more, needs = reads[:, 0] - reads[:, 1], np.array([needed[id] for id in testing])
    shown = mean_of("cost", costs["every"][:, 0])["cost_low"] > MIN_EFFECT and all(
        mean_of("more", more[needs == key])["more_low"] > 0 for key in keys
    )
    title = (
        f"{name} reads back the total that a problem refers to"
        if shown
        else f"No head is shown to read back what a problem refers to; {name} looks there most"
    )
    counts = Counter(needed[id] for id in testing)
    told = " and ".join(f"{counts[key]} that need {key}" for key in keys)
    sentences = [
        f"At {row_of(query)}, {name} gives {_mean(reads[:, 0])} of its "
        f"attention to the thought that the problem needs, and {_mean(reads[:, 1])} to the other "
        f"of {' and '.join(keys)} ({told}; the head was chosen on {len(picking)} other problems).",
        f"Cutting the edge to the needed thought costs {_mean(costs['every'][:, 0])} nats in every "
        f"head and {_mean(costs['one'][:, 0])} in {name} alone; cutting the edge to the other one "
        f"{_mean(costs['every'][:, 1])} and {_mean(costs['one'][:, 1])}.",
    ]
    return ReadingBack(chosen_head, title, sentences, _examples(tested, needed))


def _asked(problems: Sequence[WordProblem]) -> tuple[str, dict[str, str]]:
    """The query that has to read either of two thoughts most often, and which one each problem."""
    best: tuple[str, dict[str, str]] = ("", {})
    for query in sorted({query for problem in problems for query, _ in problem.edges}):
        needed = {
            problem.id: keys[0]
            for problem in problems
            for keys in [[key for source, key in problem.edges if source == query]]
            if len(keys) == 1
        }
        keys = [key for key, n in Counter(needed.values()).most_common(2) if n >= 2 * _FEWEST]
        found = {id: key for id, key in needed.items() if key in keys}
        if len(keys) == 2 and len(found) > len(best[1]):
            best = (query, found)
    return best


def _mean(values: Float[np.ndarray, " problem"]) -> str:
    return with_interval(mean_of("mean", values), "mean")


def _examples(problems: Sequence[WordProblem], needed: Mapping[str, str]) -> list[WordProblem]:
    """The first two problems with one reference each, as many operations and different keys."""
    single = [problem for problem in problems if len(problem.edges) == 1]
    for problem in single:
        for other in single:
            alike = len(other.operations) == len(problem.operations)
            if alike and needed[problem.id] < needed[other.id]:
                return [problem, other]
    return []
