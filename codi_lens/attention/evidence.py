"""How firm the findings about one model are: what the single numbers are made of, in tables.

One place for what the pages and notebooks set beside a ranking: hub ratios against the number of
problems, where each query's attention goes, the skip profile, clusters beside the study's types,
the agreement of disjoint halves, what the answer reads and, for the built-in word problems, which
running totals a linear probe finds in which thought.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import xarray as xr

from codi_lens.attention.clusters import HeadClusters, cluster_heads
from codi_lens.attention.hubs import hub_ratio_by_n_problems, hub_ratios
from codi_lens.attention.labels import heads_in, labelled
from codi_lens.attention.probes import answer_reads_by_length
from codi_lens.attention.profiles import (
    answer_view,
    average_heads,
    destinations,
    skip_null,
    skip_profile,
    with_intervals,
)
from codi_lens.attention.stability import split_halves
from codi_lens.attention.views import n_thoughts_of
from codi_lens.problems.problem import Problems, problem_list
from codi_lens.problems.words import WordProblem

_FEWEST_HEADS = 3


@dataclass(frozen=True, eq=False)
class Evidence:
    """What stands behind the findings about one model; all averages are over heads and problems.

    Attributes:
        heads: `rank_heads` in the position view: ranks with their intervals.
        types: the published study's type of each head, by head name.
        hubs: `hub_ratios`; `hubs_by_n` is `hub_ratio_by_n_problems`.
        hubs_by_n: see above.
        goes: `with_intervals(destinations(…))`.
        distances: `with_intervals(skip_profile(…))`; `distances_null` is that of the causal null.
        distances_null: see above.
        clusters: `cluster_heads`; None for fewer than three heads.
        halves: `split_halves`; None for a single problem or thought.
        answer: `with_intervals(answer_view(…))`, without a query that no problem has.
        answer_by_length: `answer_reads_by_length`; None unless the problems are built-in.
        probes: `probe_totals`; None if no thoughts were probed.
        supervised: the thoughts that training made hold a running total; None if nobody says.
    """

    heads: pd.DataFrame
    types: pd.Series
    hubs: pd.DataFrame
    hubs_by_n: pd.DataFrame
    goes: pd.DataFrame
    distances: pd.DataFrame
    distances_null: pd.DataFrame
    clusters: HeadClusters | None
    halves: pd.DataFrame | None
    answer: pd.DataFrame
    answer_by_length: pd.DataFrame | None = None
    probes: pd.DataFrame | None = None
    supervised: tuple[str, ...] | None = None

    @property
    def n_thoughts(self) -> int:
        """How many thoughts a run has."""
        return len(self.hubs)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table, under the name of its file."""
        distances = self.distances.assign(null=self.distances_null["mean"])
        tables: dict[str, pd.DataFrame | None] = {
            "hub_ratios": self.hubs,
            "hub_ratio_by_n_problems": self.hubs_by_n,
            "destinations": self.goes,
            "skip_profile": distances,
            "head_clusters": None if self.clusters is None else self._clusters_beside_types(),
            "cluster_test": None if self.clusters is None else self.clusters.summary(),
            "split_halves": self.halves,
            "answer_reads": self.answer,
            "answer_reads_by_length": self.answer_by_length,
            "probed_totals": self.probes,
        }
        return {name: table for name, table in tables.items() if table is not None}

    def _clusters_beside_types(self) -> pd.DataFrame:
        assert self.clusters is not None
        heads = self.clusters.heads
        types = self.types[heads["name"]].to_numpy()
        return heads.assign(study_type=types, clusters_found=self.clusters.found)


def gather_evidence(
    attention: xr.DataArray,
    heads: pd.DataFrame,
    types: pd.Series,
    *,
    problems: Problems = (),
    probes: pd.DataFrame | None = None,
    supervised: Sequence[str] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Evidence:
    """Compute what stands behind the findings about one model.

    Args:
        attention: labelled attention [problem, layer, head, query, key].
        heads: `rank_heads` of it, in the position view.
        types: the study's type of each head, by head name:
            `run_study(…).heads.set_index("name")["functional_type"]`.
        problems: those of the attention; built-in ones also give the answer's view by length.
        probes: from `probe_thoughts` or `probe_totals`.
        supervised: from `probes.supervised_thoughts`.
        n_resamples: bootstrap resamples of the problems.
        seed: of the bootstrap.

    Raises:
        AttentionError: not labelled attention, no problems, or NaN between thoughts.

    >>> from codi_lens import CodiModel, extract, problems, rank_heads
    >>> model = CodiModel.from_pretrained("checkpoints/tiny-gpt2")
    >>> attention = extract(model, problems.word_problems(8), max_new_tokens=8, progress=False)
    >>> heads = rank_heads(attention)
    >>> evidence = gather_evidence(attention, heads, heads.set_index("name")["type"])
    >>> evidence.n_thoughts, evidence.halves.columns[0], evidence.probes is None
    (6, 'score', True)
    """
    options: dict[str, Any] = {"n_resamples": n_resamples, "seed": seed}
    attention = labelled(attention)
    n_heads = len(heads_in(attention))
    # A single thought gives every head the same composite, which no two halves can disagree on.
    several = attention.sizes["problem"] > 1 and n_thoughts_of(attention) > 1
    # All but clusters and halves is linear in the heads; averaged first, it is small.
    mean = average_heads(attention)[0]
    answer = with_intervals(answer_view(mean), **options)
    problems = problem_list(problems, "compare")
    known = [problem for problem in problems if isinstance(problem, WordProblem)]
    has_answers = bool(answer.loc[answer["query"] == "anchor", "mean"].notna().any())
    by_length = None
    if known and len(known) == len(problems) and has_answers:
        by_length = answer_reads_by_length(mean, known, **options)
    return Evidence(
        heads=heads,
        types=types,
        hubs=hub_ratios(mean, **options),
        hubs_by_n=hub_ratio_by_n_problems(mean, **options),
        goes=with_intervals(destinations(mean), **options),
        distances=with_intervals(skip_profile(mean), **options),
        distances_null=with_intervals(skip_null(mean), **options),
        clusters=cluster_heads(attention) if n_heads >= _FEWEST_HEADS else None,
        halves=split_halves(attention) if several else None,
        answer=answer.dropna(subset="mean").reset_index(drop=True),
        answer_by_length=by_length,
        probes=probes,
        supervised=None if supervised is None else tuple(supervised),
    )
