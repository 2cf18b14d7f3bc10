"""The study's formulas give the study's numbers; the corrected ones recover what was built in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codi_lens import AttentionError, metrics
from codi_lens.study.published import published_study

PUBLISHED = published_study()
HEADS = [
    pytest.param(model, head, id=f"{model}-{head['head']}")
    for model, values in PUBLISHED["models"].items()
    for head in values["heads"]
]
ROUNDING = 0.005  # the published matrices have two decimals


def causal(n: int) -> st.SearchStrategy[np.ndarray]:
    """Thought blocks: rows of attention below a total of 1, causal."""
    weights = arrays(np.float64, (n, n), elements=st.floats(0.001, 1))
    return weights.map(lambda w: np.tril(w) / (np.tril(w).sum(axis=1, keepdims=True) + 1))


@pytest.mark.parametrize(("model", "head"), HEADS)
def test_scores_of_published_heads(model: str, head: dict[str, Any]) -> None:
    matrix = np.array(head["mean_attention_6x6"])
    incoming = metrics.incoming_attention(matrix)
    # each of the six entries of a column may be off by ROUNDING, so a sum by 5 of them
    variance_error = 2 * 5 * ROUNDING * np.abs(incoming - incoming.mean()).mean() + 0.0006
    assert metrics.flow_score(matrix) == pytest.approx(head["flow"], abs=1e-9)
    assert metrics.hub_score(matrix) == pytest.approx(head["hub"], abs=variance_error)
    assert metrics.skip_score(matrix) == pytest.approx(head["skip"], abs=ROUNDING + 0.0006)
    assert matrix.max() == pytest.approx(head["max_attention"], abs=ROUNDING + 0.0006)


@pytest.mark.parametrize(("model", "head"), HEADS)
def test_composite_of_published_heads(model: str, head: dict[str, Any]) -> None:
    low_high = PUBLISHED["normalisation"][model]
    # the head between the model's extremes: the composite needs only these three values
    flow, hub, skip = (
        np.array([low_high[name][0], head[name], low_high[name][1]])
        for name in ("flow", "hub", "skip")
    )
    composite = metrics.composite_score(flow, hub, skip)
    assert np.asarray(composite)[1] == pytest.approx(head["composite"], abs=0.0015)


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_hub_of_published_models(model: str) -> None:
    values = PUBLISHED["models"][model]
    scores = np.array(values["hub_scores"])
    assert scores.argmax() == values["hub_position"]
    assert scores.max() * 6 == pytest.approx(values["hub_ratio"], abs=0.01)


def test_published_sequential_flow_is_self_attention() -> None:
    """GPT-2 L5H3: nothing at [i, i-1], 0.91 one further back, which is ct2 to ct1."""
    (head,) = (h for h in PUBLISHED["models"]["gpt2"]["heads"] if h["head"] == "L5H3")
    generation = np.array(head["mean_attention_6x6"])
    assert metrics.sequential_score(generation) < 0.05
    position = generation[1:, :5]  # drop bot's row and the column of ct5, which is never fed
    assert np.allclose(np.diag(position), np.diag(generation, -1))
    assert position[2, 1] == 0.91
    assert metrics.sequential_score(position) > 0.4


@given(causal(6), st.floats(0.1, 1))
def test_flow_ignores_scale_and_hub_and_skip_follow_it(pattern: np.ndarray, scale: float) -> None:
    assert metrics.flow_score(pattern * scale) == pytest.approx(metrics.flow_score(pattern))
    assert metrics.skip_score(pattern * scale) == pytest.approx(metrics.skip_score(pattern) * scale)
    for score in (metrics.hub_score, metrics.hub_excess_score):
        assert score(pattern * scale) == pytest.approx(score(pattern) * scale**2)


@given(causal(6))
def test_scores_lie_in_their_bounds(pattern: np.ndarray) -> None:
    assert 0 <= metrics.flow_score(pattern) <= 1
    assert 0 <= metrics.skip_score(pattern) <= 1
    assert 0 <= metrics.hub_score(pattern) <= 36
    assert 0 <= metrics.hub_position(pattern) <= 5
    assert metrics.hub_excess(pattern).sum() == pytest.approx(0, abs=1e-12)


@given(causal(6))
def test_generation_view_has_flow_one_by_construction(pattern: np.ndarray) -> None:
    generation = np.zeros((6, 6))
    generation[1:, :5] = pattern[:5, :5]
    assert metrics.flow_score(generation) == pytest.approx(1)


@given(causal(5))
def test_numpy_and_torch_agree(pattern: np.ndarray) -> None:
    tensor = torch.from_numpy(pattern)
    for function in (
        metrics.flow_score,
        metrics.hub_score,
        metrics.hub_position,
        metrics.skip_score,
        metrics.incoming_attention,
        metrics.hub_excess,
        metrics.hub_excess_score,
        metrics.hub_ratio,
        metrics.sequential_score,
        metrics.self_score,
    ):
        np.testing.assert_allclose(np.asarray(function(tensor)), function(pattern), atol=1e-12)


@given(causal(4), causal(4))
def test_batched_scores_equal_single_ones(one: np.ndarray, other: np.ndarray) -> None:
    both = np.stack([one, other])[:, None]
    for function in (metrics.flow_score, metrics.hub_score, metrics.hub_excess_score):
        np.testing.assert_allclose(
            np.asarray(function(both))[:, 0], [function(one), function(other)]
        )


def uniform_pattern(n: int) -> np.ndarray:
    """Every thought spreads 0.6 evenly over the thoughts before it, and keeps 0.1 for itself."""
    pattern = np.tril(np.ones((n, n)), -1)
    pattern[1:] *= 0.6 / np.arange(1, n)[:, None]
    return pattern + 0.1 * np.eye(n)


def test_uniform_attention_looks_like_a_hub_only_to_the_study() -> None:
    pattern = uniform_pattern(6)
    assert metrics.hub_score(pattern) > 0.05
    assert metrics.hub_position(pattern) == 0
    assert metrics.hub_excess_score(pattern) == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(metrics.hub_ratio(pattern)[:-1], 1)
    assert np.isnan(metrics.hub_ratio(pattern)[-1])


@pytest.mark.parametrize("hub", range(5))
def test_a_planted_hub_is_recovered_wherever_it_is(hub: int) -> None:
    pattern = uniform_pattern(6) * 0.2
    pattern[hub + 1 :, hub] += 0.7
    excess = metrics.hub_excess(pattern)
    assert excess.argmax() == hub or hub == 0  # row 1 sees only ct0: no excess to gain there
    assert np.nanargmax(metrics.hub_ratio(pattern)) == hub


def test_pure_patterns_have_the_scores_they_should() -> None:
    sequential = np.diag(np.full(5, 0.8), -1)
    assert metrics.sequential_score(sequential) == pytest.approx(0.8)
    assert metrics.flow_score(sequential) == 1
    assert metrics.skip_score(sequential) == 0
    own = np.eye(6) * 0.8
    assert metrics.self_score(own) == pytest.approx(0.8)
    assert metrics.flow_score(own) == 0
    assert metrics.hub_excess_score(own) == 0
    skip = np.zeros((6, 6))
    skip[5, :3] = 0.3
    assert metrics.skip_score(skip) == pytest.approx(0.3)
    assert metrics.flow_score(np.zeros((6, 6))) == 0


@pytest.mark.parametrize(("n", "columns"), [(2, 1), (3, 1), (4, 2), (6, 3), (7, 3)])
def test_skip_covers_the_first_half_of_the_columns(n: int, columns: int) -> None:
    pattern = np.zeros((n, n))
    pattern[-1, :columns] = 0.4
    assert metrics.skip_score(pattern) == pytest.approx(0.4)


def test_composite_can_leave_constant_metrics_out() -> None:
    flow, hub, skip = np.ones(3), np.array([0.0, 0.5, 1.0]), np.array([1.0, 0.0, 0.5])
    study = metrics.composite_score(flow, hub, skip)
    assert study.max() <= 0.6
    corrected = metrics.composite_score(flow, hub, skip, leave_out=["flow"])
    np.testing.assert_allclose(corrected, study / 0.6)


def test_patterns_that_are_not_square_are_errors() -> None:
    with pytest.raises(AttentionError, match=r"square in its last two axes.*\(2, 3\)"):
        metrics.hub_score(np.zeros((2, 3)))
