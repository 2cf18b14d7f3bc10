"""Probes find totals that were planted, nothing in noise, and what the tiny models were taught."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from support.constructed import random_attention
from support.reading import number

from codi_lens import CodiModel, ProblemError
from codi_lens.attention.extract import extract
from codi_lens.attention.probes import (
    answer_reads_by_length,
    ground_truth,
    probe_totals,
    supervised_thoughts,
)
from codi_lens.problems import MAX_TOTAL, Problem, word_problems


@pytest.fixture(scope="module")
def planted() -> pd.DataFrame:
    """`ct0` codes the total after operation 1 linearly, with noise; `ct1` is noise."""
    problems = word_problems(600, seed=3)
    rng = np.random.default_rng(0)
    code = rng.normal(size=(MAX_TOTAL + 1, 32))
    thoughts = rng.normal(size=(600, 2, 32))
    thoughts[:, 0] = code[[problem.totals[0] for problem in problems]]
    thoughts[:, 0] += 0.1 * rng.normal(size=(600, 32))
    return probe_totals(thoughts, problems).set_index(["thought", "step"])


@pytest.mark.slow
def test_a_planted_total_is_found_and_only_in_its_thought(planted: pd.DataFrame) -> None:
    assert number(planted, ("ct0", 1), "accuracy") > 0.98
    assert number(planted, ("ct0", 1), "accuracy_distinct") > 0.98
    assert number(planted, ("ct0", 1), "control") < 0.1
    for _, noise in planted.loc["ct1"].dropna().iterrows():
        assert noise["low"] <= noise["control_max"] + 0.02
        assert noise["accuracy"] < 0.15


def test_what_neighbouring_totals_share_is_not_counted_as_held(planted: pd.DataFrame) -> None:
    """The total after operation 2 is often that after 1: decodable, but not where they differ."""
    after_two: Any = planted.loc[("ct0", 2)]
    assert after_two["accuracy"] > 2 * after_two["control"]
    assert after_two["accuracy_distinct"] < after_two["accuracy"] - 0.03


def test_rows_count_the_problems_that_have_a_total(planted: pd.DataFrame) -> None:
    n: Any = planted.loc["ct0", "n"]
    assert n.is_monotonic_decreasing and n[5] < n[1] / 2
    known = planted["accuracy"].notna()
    assert (planted["low"] <= planted["accuracy"])[known].all()
    assert (planted["accuracy"] <= planted["high"])[known].all()


def test_a_chain_in_other_words_is_counted_once() -> None:
    """Noise that repeats with its chain would be read perfectly from its own repeat."""
    once = word_problems(150, seed=4, n_operations=3)
    thoughts = np.random.default_rng(0).normal(size=(150, 1, 16))
    table, repeated = (
        probe_totals(np.tile(thoughts, (times, 1, 1)), once * times, n_shuffles=0)
        for times in (1, 4)
    )
    pd.testing.assert_frame_equal(table, repeated)
    assert table["n"].max() <= 150 and table["accuracy"].max() < 0.2


def test_too_few_problems_are_undefined_and_wrong_ones_an_error() -> None:
    problems = word_problems(60, seed=1)
    thoughts = torch.zeros(60, 2, 8)
    table = probe_totals(thoughts, problems, n_shuffles=1)
    assert table["accuracy"].isna().any()
    with pytest.raises(ProblemError, match="thoughts of 59 problems but 60 problems"):
        probe_totals(thoughts[:59], problems)
    with pytest.raises(ProblemError, match="built-in word problems"):
        probe_totals(thoughts[:1], [Problem("How many?", 3, "p")])


def test_ground_truth_sets_attention_beside_what_thoughts_hold(planted: pd.DataFrame) -> None:
    attention = random_attention(n=2)
    truth = ground_truth(planted.reset_index(), attention, supervised=["ct0"], n_resamples=20)
    assert truth["thought"].tolist() == ["ct0", "ct1"]
    assert truth["supervised"].tolist() == [True, False]
    assert truth["step"][0] == 1
    mean = attention.mean(["problem", "layer", "head"])
    for query in ("eot", "anchor"):
        np.testing.assert_allclose(
            truth[f"from_{query}"], mean.sel(query=query, key=["ct0", "ct1"]), rtol=1e-5
        )
    from_next = [mean.sel(query="ct1", key="ct0"), np.nan]
    np.testing.assert_allclose(truth["from_next"], from_next, rtol=1e-5)
    with pytest.raises(ProblemError, match="must be of the same model"):
        ground_truth(planted.reset_index(), random_attention(n=3))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"training": {"supervised": True}, "n_thoughts": 3}, ("ct0", "ct1", "ct2")),
        ({"training": {"supervised": False}}, ()),
        ({"training": {}}, None),
        ({"n_thoughts": 6}, None),
    ],
)
def test_supervision_is_what_the_checkpoint_says(
    tmp_path: Path, said: dict[str, Any], expected: tuple[str, ...] | None
) -> None:
    (tmp_path / "codi_config.json").write_text(json.dumps(said))
    assert supervised_thoughts(tmp_path) == expected


def test_reads_by_length_average_the_right_problems() -> None:
    problems = word_problems(30, seed=2)
    attention = random_attention(30).assign_coords(problem=[p.id for p in problems])
    table = answer_reads_by_length(attention, problems[::-1], n_resamples=10)
    for length, rows in table.groupby("n_operations"):
        ids = [problem.id for problem in problems if len(problem.totals) == length]
        assert (rows["n"] == len(ids)).all()
        expected = attention.sel(problem=ids, query="anchor", key=rows["thought"].tolist())
        np.testing.assert_allclose(
            rows["mean"], expected.mean(["problem", "layer", "head"]), rtol=1e-5
        )
    with pytest.raises(ProblemError, match=f"holds the problem {problems[0].id}"):
        answer_reads_by_length(attention, problems[1:])


@pytest.mark.slow
def test_the_tiny_model_answers_from_the_total_before_the_last_operation(
    tiny_gpt2: CodiModel,
) -> None:
    """Known from the recipe: `ct{i}` was supervised to hold the total after operation i + 1."""
    problems = word_problems(400, seed=21)
    questions = [problem.question for problem in problems]
    runs = [tiny_gpt2.think(questions[i : i + 100], max_new_tokens=1) for i in range(0, 400, 100)]
    thoughts = torch.cat([run.thoughts for run in runs])
    probes = probe_totals(thoughts, problems, n_shuffles=1)
    probes = probes.dropna()
    best = probes.loc[probes.groupby("step")["accuracy"].idxmax()].set_index("step")
    assert best.loc[[1, 2, 3], "thought"].tolist() == ["ct0", "ct1", "ct2"]
    assert (best.loc[[1, 2, 3], "accuracy"] > 0.95).all()
    assert (best["control"] < 0.15).all()
    attention = extract(tiny_gpt2, problems[:100], max_new_tokens=8, progress=False)
    reads = answer_reads_by_length(attention, problems, n_resamples=50)
    most = reads.loc[reads.groupby("n_operations")["mean"].idxmax()].set_index("n_operations")
    assert most.loc[[2, 3, 4, 5], "thought"].tolist() == ["ct0", "ct1", "ct2", "ct3"]
    assert (most.loc[[2, 3, 4, 5], "mean"] > 0.15).all()
