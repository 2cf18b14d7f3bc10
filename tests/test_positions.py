"""Positions have names, and every name leads to the right column."""

from __future__ import annotations

import numpy as np
import pytest

from codi_lens import PositionError
from codi_lens.positions import Layout, key_names, possible_cells, query_names, resolve


def test_thinking_is_the_queries_that_generate_consumed_thoughts() -> None:
    assert resolve("thinking", 6) == {"bot", "ct0", "ct1", "ct2", "ct3", "ct4"}
    assert resolve("thoughts", 2) == {"ct0", "ct1"}


@pytest.mark.parametrize("at", ["ct6", "thought", ["ct0", "nowhere"]])
def test_unknown_names_are_errors_that_list_the_valid_ones(at: str | list[str]) -> None:
    with pytest.raises(PositionError, match="there are thinking, thoughts, all, question, bot"):
        resolve(at, 6)


def test_empty_scope_and_anchor_are_errors() -> None:
    with pytest.raises(PositionError, match="at least one"):
        resolve([], 6)
    with pytest.raises(PositionError, match="use 'answer'"):
        resolve("anchor", 6)


@pytest.mark.parametrize("n", [1, 2, 6, 9])
def test_possible_cells_are_causal(n: int) -> None:
    cells = possible_cells(n)
    queries, keys = query_names(n), key_names(n)
    assert cells.shape == (len(queries), len(keys))
    assert cells[:, 0].all(), "every query sees the question"
    assert not cells[queries.index("bot"), keys.index("ct0")]
    assert np.diag(cells[1 : n + 1, 2 : n + 2]).all(), "a thought sees itself"
    assert cells[-1].all(), "the anchor sees everything before it"
    assert (cells.sum(axis=1)[1:] >= cells.sum(axis=1)[:-1]).all()


def test_layout_columns_of_a_left_padded_batch() -> None:
    layout = Layout((3, 5), n_thoughts=2, n_closing=2, answer_lengths=(4, 0), anchors=(3, None))
    assert layout.index("bot").tolist() == [5, 5]
    assert layout.index("ct1").tolist() == [7, 7]
    assert layout.index("eot").tolist() == [9, 9]
    assert layout.span("question") == [slice(2, 5), slice(0, 5)]
    assert layout.span("eot") == [slice(8, 10), slice(8, 10)]
    assert layout.span("answer") == [slice(10, 14), slice(10, 10)]
    with pytest.raises(PositionError, match=r"problems \[1\] hold no number"):
        layout.index("anchor")
    with pytest.raises(PositionError, match="'question' is not a single position"):
        layout.index("question")
