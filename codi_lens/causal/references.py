"""Which edges problems are known to need, by kind of reference, and which of them a model uses.

Where a step of a built-in problem refers to an earlier one, the total that it refers to stands in
one thought alone (`WordProblem.edges`). Whether a model reads it there, or carries it along in
every later thought, is measured, not assumed: only edges that it was shown to use are the truth
that scores are graded against.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from codi_lens.errors import CheckpointError, ProblemError
from codi_lens.interventions.own_edges import Edge
from codi_lens.loading.sources import files_of
from codi_lens.outputs import write_text
from codi_lens.positions import thought_names
from codi_lens.problems.operations import Reference
from codi_lens.problems.problem import Problems
from codi_lens.problems.words import WordProblem, built_in

EDGES_FILE = "edges.json"


def referring(problems: Problems, n_thoughts: int) -> list[WordProblem]:
    """Problems as a list, each of which needs an edge that the model has.

    Raises:
        ProblemError: no problem, or one that needs no edge, or one of a thought that the model
            does not have.
    """
    chosen = built_in(problems, "grade")
    names = {*thought_names(n_thoughts), "answer"}
    if not chosen:
        raise ProblemError("There are no problems to grade; give at least one.")
    for problem in chosen:
        if not problem.edges:
            raise ProblemError(
                f"The problem {problem.id!r} needs no edge; give problems of "
                'word_problems(n, family="mixed") or of another family that refers back.'
            )
        if any(name not in names for edge in problem.edges for name in edge):
            raise ProblemError(
                f"The problem {problem.id!r} needs more thoughts than the {n_thoughts} that the "
                "model has; give shorter ones."
            )
    return chosen


def candidate_edges(n_thoughts: int) -> list[Edge]:
    """All edges from a thought, or from the answer, to an earlier thought.

    >>> candidate_edges(2)
    [('ct1', 'ct0'), ('answer', 'ct0'), ('answer', 'ct1')]
    """
    keys = thought_names(n_thoughts)
    queries = [*keys[1:], *(["answer"] if keys else [])]
    return [(query, key) for i, query in enumerate(queries, 1) for key in keys[:i]]


def graded_edges(problem: WordProblem, n_thoughts: int) -> list[Edge]:
    """The candidate edges of a problem, less the one that carries its running total.

    The answer has to read the total before the last step too, which stands in `ct{n-2}`: that edge
    is needed, and by no reference, so that it counts neither for nor against a score.

    >>> from codi_lens.problems import word_problems
    >>> problem = word_problems(1, family="hub", n_operations=3)[0]
    >>> len(graded_edges(problem, 6)), ("answer", "ct1") in graded_edges(problem, 6)
    (20, False)
    """
    carried = ("answer", f"ct{len(problem.operations) - 2}")
    return [edge for edge in candidate_edges(n_thoughts) if edge != carried]


def references_in(table: pd.DataFrame) -> list[Reference]:
    """The kind of reference of each row of `costs_by_reference`."""
    columns = ["n_operations", "step", "refers_to"]
    return [Reference(*map(int, row)) for row in table[columns].to_numpy()]


def used_references(table: pd.DataFrame) -> frozenset[Reference]:
    """The kinds of reference whose edge a model was shown to use; of `costs_by_reference`."""
    return frozenset(references_in(table[table["used"]]))


def write_used(table: pd.DataFrame, folder: Path) -> None:
    """Write what `costs_by_reference` found as `edges.json` into a checkpoint's folder."""
    kinds: list[dict[str, Any]] = []
    for (n, step, refers_to), rows in table.groupby(["n_operations", "step", "refers_to"]):
        known = rows[rows["known"]].iloc[0]
        costs = {
            f"{row['query']}→{row['key']}": [
                round(float(row[name]), 4) for name in ("cost", "cost_low", "cost_high")
            ]
            for row in rows.to_dict("records")
        }
        kinds.append(
            {"n_operations": n, "step": step, "refers_to": refers_to, "n": int(known["n"])}
            | {"edge": [known["query"], known["key"]], "used": bool(known["used"]), "costs": costs}
        )
    what = "nats that cutting each edge in every head costs the right number, with 95 % intervals"
    text = json.dumps({"costs": what, "references": kinds}, indent=1)
    write_text(folder / EDGES_FILE, f"{text}\n")


def used_edges_of(source: str | Path) -> frozenset[Reference] | None:
    """The kinds of reference whose edge `edges.json` in a checkpoint's folder says are used.

    Args:
        source: a folder, its file of weights, or the name of a shipped model.

    Returns:
        None where there is no such folder or file.

    Raises:
        CheckpointError: the file holds something else.
    """
    folder = files_of(source)
    path = None if folder is None else folder / EDGES_FILE
    if path is None or not path.is_file():
        return None
    try:
        return frozenset(
            Reference(int(each["n_operations"]), int(each["step"]), int(each["refers_to"]))
            for each in json.loads(path.read_text(encoding="utf-8"))["references"]
            if each["used"]
        )
    except (ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{path} does not say which edges the model uses; delete it to have them measured."
        ) from None


def truth_of(
    problems: Sequence[WordProblem], used: Iterable[Reference], like: xr.DataArray
) -> xr.DataArray:
    """Which edges each problem is known to need and the model was shown to use.

    Args:
        problems: of a family that refers back.
        used: of `used_references`.
        like: whose queries and keys count.

    Returns:
        1 and 0, with dimensions problem, query, key.
    """
    kinds = frozenset(used)
    queries, keys = (list(map(str, like[axis].values)) for axis in ("query", "key"))
    found: Float[np.ndarray, "problem query key"]
    found = np.zeros((len(problems), len(queries), len(keys)))
    for i, problem in enumerate(problems):
        for each in problem.references:
            if each in kinds:
                query, key = each.edge
                found[i, queries.index(query), keys.index(key)] = 1
    coords: Mapping[str, Any] = {
        "problem": [problem.id for problem in problems],
        "query": queries,
        "key": keys,
    }
    return xr.DataArray(found, dims=("problem", "query", "key"), coords=coords, name="needed")
