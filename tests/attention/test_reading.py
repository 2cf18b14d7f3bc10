"""What heads read from the question and the thoughts, on attention built to be known."""

from __future__ import annotations

import numpy as np
import pytest
from support.constructed import random_attention

from codi_lens import AttentionError, metrics, reading_scores
from codi_lens.positions import query_names

ROWS = {"bot": slice(0, 1), "thoughts": slice(1, 7), "answer": slice(7, 9)}


def test_each_score_is_moved_by_its_own_cells_and_no_others() -> None:
    """A head that gives all of some rows to some keys has that score 1 and all others 0."""
    attention = random_attention(3, 1, 3).copy(data=np.zeros((3, 1, 3, 9, 10)))
    attention.loc[{"head": 0, "query": "bot", "key": "question"}] = 1
    attention.loc[{"head": 1, "query": [f"ct{i}" for i in range(6)], "key": "question"}] = 1
    attention.loc[{"head": 2, "query": ["eot", "anchor"], "key": ["ct1", "ct4"]}] = 0.5
    attention.loc[{"query": ["eot", "anchor"], "key": "question"}] = 0.3  # counts for none of them
    attention.loc[{"query": "ct3", "key": "ct1"}] = 0.4
    scores = reading_scores(attention).set_index("name")
    assert list(scores)[2:] == ["bot_question", "thoughts_question", "answer_thoughts"]
    np.testing.assert_array_equal(scores.iloc[:, 2:], np.eye(3))


def test_scores_are_means_over_problems_and_rows() -> None:
    attention = random_attention(5, 2, 3)
    strongest = attention.isel(key=0, drop=True) / 3
    scores = reading_scores(attention, strongest)
    assert scores["name"].tolist() == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    assert scores.attrs["n_problems"] == 5
    values = attention.values.astype(float)
    for name in ("bot", "thoughts"):
        by_hand = values[..., ROWS[name], 0].mean(axis=(0, 3)).ravel()
        np.testing.assert_allclose(scores[f"{name}_question"], by_hand)
        np.testing.assert_allclose(scores[f"{name}_token"], by_hand / 3, rtol=1e-6)
    to_thoughts = values[..., ROWS["answer"], 2:8].sum(axis=-1).mean(axis=(0, 3)).ravel()
    np.testing.assert_allclose(scores["answer_thoughts"], to_thoughts)


def test_an_answer_without_a_number_counts_with_its_eot_alone() -> None:
    attention = random_attention(2, 1, 1)
    attention.loc[{"problem": "p1", "query": "anchor"}] = np.nan
    first, second = attention.values[:, 0, 0, 7:, 2:8].astype(float).sum(axis=-1)
    expected = (first.mean() + second[0]) / 2
    assert reading_scores(attention)["answer_thoughts"].item() == pytest.approx(expected)


def test_heads_keep_their_scores_in_a_selection_and_in_any_order() -> None:
    attention = random_attention(4, 2, 3)
    strongest = attention.isel(key=0, drop=True) / 2
    every = reading_scores(attention, strongest).set_index("name")
    turned = attention.isel(layer=[1], head=[2, 0], query=slice(None, None, -1))
    some = reading_scores(turned, strongest).set_index("name")
    assert some.index.tolist() == ["L1H0", "L1H2"]
    np.testing.assert_allclose(some, every.loc[some.index], rtol=1e-6)


def test_attention_of_no_problem_is_refused() -> None:
    attention = random_attention(2)
    for none in (attention.isel(problem=[]), attention.mean("problem")):
        with pytest.raises(AttentionError, match="at least one problem"):
            reading_scores(none)


def test_the_strongest_key_of_a_query_is_its_largest_cell() -> None:
    cells = random_attention(2).values
    given, strongest = metrics.outgoing_attention(cells), metrics.strongest_attention(cells)
    assert cells.shape[-2] == len(query_names(6)) == strongest.shape[-1]
    np.testing.assert_allclose(given, 1, atol=1e-5)
    np.testing.assert_array_equal(strongest, cells.max(axis=-1))
