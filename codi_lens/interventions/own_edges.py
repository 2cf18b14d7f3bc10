"""Interventions on edges that differ from problem to problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from codi_lens.errors import InterventionError
from codi_lens.interventions.edges import knock_out
from codi_lens.positions import rank
from codi_lens.thinking.hooks import Intervention
from codi_lens.thinking.plan import Context, Planned, digest, for_rows

Edge = tuple[str, str]
"""A query and a key, by name."""


def knock_out_each(edges: Mapping[str, Iterable[Edge]], name: str = "cut own edges") -> Planned:
    """Cut other edges in every problem, in all heads: those that a problem is known to need, say.

    Args:
        edges: by the id of each problem, pairs of query and key; see `WordProblem.edges`.
        name: for tables.

    Raises:
        InterventionError: no edge at all, or (while it runs) a problem that is not named, or an
            edge whose query does not come after its key.
        PositionError: a position that does not exist.

    >>> from codi_lens.problems import word_problems
    >>> some = word_problems(3, family="hub")
    >>> knock_out_each({problem.id: problem.edges for problem in some}).name
    'cut own edges'
    """
    by_problem = {id: tuple(dict.fromkeys(each)) for id, each in edges.items()}
    every = sorted({edge for each in by_problem.values() for edge in each}, key=_order)
    if not every:
        raise InterventionError("knock_out_each was given no edge; give at least one.")

    def build(context: Context) -> list[Intervention]:
        unknown = [id for id in context.ids if id not in by_problem]
        if unknown:
            raise InterventionError(
                f"knock_out_each was given no edges for the problem {unknown[0]!r}; name every "
                "problem, with () for one that keeps its edges."
            )
        planned: list[Intervention] = []
        for query, key in every:
            rows = [i for i, id in enumerate(context.ids) if (query, key) in by_problem[id]]
            if rows:
                cut = for_rows(knock_out(query, key), rows)
                planned += cut.plan(context) if isinstance(cut, Planned) else [cut]
        return planned

    return Planned(name, every[0][0], build, digest(sorted(by_problem.items())))


def _order(edge: Edge) -> tuple[int, int]:
    return rank(edge[0]), rank(edge[1])
