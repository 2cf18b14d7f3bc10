"""Evidence repeats what its parts say and leaves out what is not known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.constructed import random_attention
from support.reading import number

from codi_lens import rank_heads
from codi_lens.attention.evidence import Evidence, gather_evidence
from codi_lens.attention.hubs import hub_ratio_by_n_problems, hub_ratios
from codi_lens.attention.probes import probe_thoughts
from codi_lens.attention.profiles import (
    answer_view,
    destinations,
    skip_null,
    skip_profile,
    with_intervals,
)
from codi_lens.model import CodiModel
from codi_lens.problems import word_problems
from codi_lens.reports.pages.evidence import evidence_figures


def evidence_of(attention: xr.DataArray, **options: Any) -> Evidence:
    heads = rank_heads(attention, n_resamples=10)
    types = heads.set_index("name")["type"]
    return gather_evidence(attention, heads, types, n_resamples=50, **options)


def test_averaging_heads_first_changes_no_number() -> None:
    attention = random_attention(20)
    evidence = evidence_of(attention)
    for found, expected in (
        (evidence.hubs, hub_ratios(attention, n_resamples=50)),
        (evidence.hubs_by_n, hub_ratio_by_n_problems(attention, n_resamples=50)),
        (evidence.goes, with_intervals(destinations(attention), n_resamples=50)),
        (evidence.distances, with_intervals(skip_profile(attention), n_resamples=50)),
        (evidence.distances_null, with_intervals(skip_null(attention), n_resamples=50)),
        (evidence.answer, with_intervals(answer_view(attention), n_resamples=50)),
    ):
        pd.testing.assert_frame_equal(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_answers_by_length_need_built_in_problems() -> None:
    problems = word_problems(30, seed=2)
    attention = random_attention(30).assign_coords(problem=[p.id for p in problems])
    assert evidence_of(attention).answer_by_length is None
    table = evidence_of(attention, problems=problems).answer_by_length
    assert table is not None and table.drop_duplicates("n_operations")["n"].sum() == 30


def test_what_is_not_known_is_left_out() -> None:
    attention = random_attention(6)
    attention.loc[{"query": "anchor"}] = np.nan  # no answer holds a number
    evidence = evidence_of(attention.isel(head=[0], layer=[0, 1]))
    assert evidence.clusters is None and "anchor" not in set(evidence.answer["query"])
    assert not {"head_clusters", "probed_totals", "answer_reads_by_length"} & set(evidence.tables())
    figures = evidence_figures(evidence)
    assert not {"clusters", "decodable_totals"} & set(figures)
    assert "nan%" not in "".join(str(figure.to_json()) for figure in figures.values())
    single = evidence_of(attention.isel(problem=[0]))
    assert single.halves is None and single.clusters is not None


@pytest.mark.slow
def test_probed_thoughts_are_those_of_the_problems(tiny_gpt2: CodiModel) -> None:
    """In batches or in one, the probes see the same thoughts in the same order."""
    probes = probe_thoughts(tiny_gpt2, 180, seed=5, n_shuffles=0).set_index(["thought", "step"])
    assert number(probes, ("ct0", 1), "accuracy") > 0.9, "supervised to hold it"
    assert number(probes, ("ct5", 1), "accuracy") < 0.5
    assert probes["n"].max() <= 180


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::codi_lens.ConstantMetricWarning")
@pytest.mark.parametrize("n", [1, 2])
def test_any_number_of_thoughts_has_evidence(n: int) -> None:
    evidence = evidence_of(random_attention(5, n=n))
    assert evidence.n_thoughts == n
    assert ("hub_ratios" in evidence_figures(evidence)) == (n > 1)
