"""The published study comes out of its formulas, and its questions get their answers."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr
from support.constructed import label, random_attention

from codi_lens.attention.quantities import corrected_quantities
from codi_lens.attention.ranking import functional_types, rank_heads
from codi_lens.errors import AttentionError
from codi_lens.positions import possible_cells, thought_names
from codi_lens.study.heads import counts, mean_and_std, rank_by, study_heads
from codi_lens.study.measured import what_the_study_measured
from codi_lens.study.published import (
    published_heads,
    published_hubs,
    published_matrix,
    published_spread,
    published_study,
)
from codi_lens.study.run import Study, run_study
from codi_lens.study.settings import StudyThresholds
from codi_lens.study.summary import attention_summary

MODELS = published_study()["models"]
ROUNDING = 0.005
RANGES = published_study()["normalisation"]


def planted_attention(pattern: np.ndarray, n_problems: int = 4, n_heads: int = 3) -> xr.DataArray:
    """Every head gives thoughts this attention (position view), and the question the rest."""
    n = len(pattern)
    values = np.zeros((n_problems, 1, n_heads, *possible_cells(n).shape))
    values[..., 0] = 1
    values[..., 1 : n + 1, 0] = 1 - pattern.sum(axis=1)
    values[..., 1 : n + 1, 2 : n + 2] = pattern
    return label(values, n)


def blocks_of(attention: xr.DataArray) -> np.ndarray:
    """[problem, layer, head, step, thought]: the loop of the study's extraction, by names."""
    n = sum(str(key).startswith("ct") for key in attention["key"].values)
    blocks = np.zeros((*attention.shape[:3], n, n))
    for step in range(1, n):
        for thought in range(step):
            cell = attention.sel(query=f"ct{step - 1}", key=f"ct{thought}")
            blocks[..., step, thought] = cell.values
    return blocks


def as_mean(matrices: list[np.ndarray]) -> xr.DataArray:
    keys = list(thought_names(len(matrices[0])))
    labels = {"layer": [0], "head": range(len(matrices)), "query": ["bot", *keys[:-1]], "key": keys}
    return xr.DataArray(
        np.array(matrices)[None], dims=("layer", "head", "query", "key"), coords=labels
    )


def published_mean(model: str) -> xr.DataArray:
    """The printed heads, and two more that span the model's published ranges of scores."""
    matrices = [np.array(head["mean_attention_6x6"]) for head in MODELS[model]["heads"]]
    longest_skip = np.zeros((6, 6))
    longest_skip[5, :3] = RANGES[model]["skip"][1]
    almost_nothing = np.tril(np.full((6, 6), 1e-9), -1)  # with nothing at all, flow would be 0
    return as_mean([*matrices, almost_nothing, longest_skip])


@pytest.mark.parametrize("model", MODELS)
def test_published_heads_get_their_published_scores_types_and_order(model: str) -> None:
    heads = study_heads(published_mean(model)).set_index("head")
    for place, published in enumerate(MODELS[model]["heads"]):
        row: Any = heads.loc[place]
        assert row["functional_type"] == published["functional_type"]
        # Matrices are printed to two decimals; the worst case would allow three times as much.
        assert row["composite_score"] == pytest.approx(published["composite"], abs=0.015)
        assert row["hub_score"] == pytest.approx(published["hub"], abs=0.007)
        assert row["skip_score"] == pytest.approx(published["skip"], abs=ROUNDING + 0.0006)
        assert row["flow_score"] == pytest.approx(published["flow"], abs=1e-12)
        assert row["max_attention"] == pytest.approx(
            published["max_attention"], abs=ROUNDING + 0.0006
        )
    ranks = heads["rank"].loc[list(range(3))].tolist()
    assert ranks == sorted(ranks), "in the published order"
    assert heads["composite_score"].max() <= 0.6 + 1e-9, "flow adds nothing"


def test_published_llama_averages_give_the_published_summary() -> None:
    """A matrix with LLaMA's printed column sums, steps and skips; the free cells share the rest."""
    llama = MODELS["llama"]
    matrix = np.zeros((6, 6))
    matrix[range(1, 6), range(5)] = llama["sequential_scores"]
    matrix[5, :3] = llama["skip_scores"]
    for column, row in ((0, 2), (1, 3), (2, 4), (3, 5)):
        matrix[row, column] += llama["hub_scores"][column] - matrix[:, column].sum()
    assert (matrix >= 0).all()
    summary = attention_summary(as_mean([matrix]), "llama")
    hub, flow, skip = (
        summary[name] for name in ("hub_analysis", "sequential_flow", "skip_connections")
    )
    np.testing.assert_allclose(hub["all_hub_scores"], llama["hub_scores"], atol=1e-12)
    assert (hub["hub_position"], round(hub["hub_ratio"], 2)) == (0, 1.18)
    assert not hub["is_strong_hub"]
    assert round(flow["avg_sequential_attention"], 4) == 0.0380
    assert flow["position_5_to_4"] == 0.0391
    assert round(skip["avg_skip_attention"], 4) == 0.0292
    assert summary["answers"] == {
        "which_position_is_hub": 0,
        "is_there_sequential_flow": False,
        "does_pos5_attend_to_pos4": False,
        "are_there_skip_connections": False,
    }


def test_published_column_sums_per_step_leave_no_hub_in_llama_and_another_in_gpt2() -> None:
    hubs = published_hubs()
    per_step = {model: rows["per_step"].round(3).tolist() for model, rows in hubs.groupby("model")}
    assert per_step["llama"] == [0.039, 0.034, 0.026, 0.028, 0.039]
    assert per_step["gpt2"] == [0.036, 0.068, 0.042, 0.08, 0.05]
    llama = hubs[hubs["model"] == "llama"]["per_step_without_self"]
    assert llama.round(4).tolist()[:4] == [0.0365, 0.0309, 0.0224, 0.0334]
    assert math.isnan(llama.iloc[4])


def test_published_l5h3_reads_the_previous_thought_and_is_said_to_have_no_sequential_flow() -> None:
    head: Any = published_heads().set_index("name").loc["L5H3"]
    assert (head["at"], head["strongest"]) == ("ct2→ct1", 0.91)
    assert head["sequential_flow"] == pytest.approx(np.mean([0.09, 0.03, 0.01, 0.04, 0.01]))
    assert head["sequential_flow"] < StudyThresholds().sequential
    assert head["previous"] == pytest.approx(np.mean([0.01, 0.91, 0.01, 0.69]))
    with pytest.raises(AttentionError, match=r"no matrix of gpt2 L9H9; there are gpt2 L0H3, .*"):
        published_matrix("gpt2", "L9H9")


def test_published_spread_is_taken_over_the_cells_that_a_step_can_fill() -> None:
    spread = published_spread().set_index("model")
    assert spread.loc["llama", "mean_std_possible"] == pytest.approx(0.0113 * 36 / 15)
    mean = sum(MODELS["llama"]["hub_scores"]) / 15
    assert spread.loc["llama", "relative"] == pytest.approx(0.0113 * 36 / 15 / mean)


@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_study_equals_a_plain_loop_over_heads(n: int) -> None:
    attention = random_attention(n=n)
    study = run_study(attention, "random")
    blocks = blocks_of(attention)
    mean = blocks.mean(axis=0)
    np.testing.assert_allclose(study.mean.values, mean, atol=1e-12)
    np.testing.assert_allclose(study.std.values, blocks.std(axis=0), atol=1e-12)
    by_head = study.heads.set_index(["layer", "head"])
    for layer, head in np.ndindex(*mean.shape[:2]):
        matrix = mean[layer, head]
        below = sum(matrix[i, j] for i in range(n) for j in range(i))
        visible = sum(matrix[i, j] for i in range(n) for j in range(i + 1))
        columns = [sum(matrix[i, j] for i in range(n)) for j in range(n)]
        row = by_head.loc[(layer, head)]
        assert row["flow_score"] == pytest.approx(below / visible)
        assert row["hub_score"] == pytest.approx(float(np.var(columns)))
        assert row["hub_position"] == int(np.argmax(columns))
        assert row["skip_score"] == pytest.approx(sum(matrix[n - 1, : n // 2]) / (n // 2))
        assert row["mean_attention"] == pytest.approx(matrix.sum() / n**2)
        step, thought = map(int, row["max_position"].split("→"))
        assert matrix[step, thought] == row["max_attention"] == matrix.max()
    incoming = mean.sum(axis=2).mean(axis=(0, 1))
    hub = study.summary["hub_analysis"]
    assert hub["hub_position"] == int(incoming.argmax())
    assert hub["hub_ratio"] == pytest.approx(incoming.max() * n)
    steps = [mean[:, :, i, i - 1].mean() for i in range(1, n)]
    np.testing.assert_allclose(study.summary["sequential_flow"]["sequential_scores"], steps)
    for position, stats in enumerate(study.stats["position_stats"]):
        outgoing = mean[:, :, position].sum(axis=-1).mean()
        assert stats["avg_outgoing_attention"] == pytest.approx(outgoing)
        assert stats["avg_incoming_attention"] == pytest.approx(incoming[position])


def test_mean_and_spread_do_not_depend_on_how_many_problems_are_read_at_once() -> None:
    attention = random_attention(11)
    whole, parts = mean_and_std(attention, chunk=100), mean_and_std(attention, chunk=4)
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-12)


def test_top_heads_are_those_with_the_largest_mean_entry() -> None:
    study = run_study(random_attention(n_layers=6, n_heads=5))
    top = study.stats["top_20_heads"]
    assert len(top) == 20
    largest = study.mean.max(("query", "key")).values
    assert [head["max_attention"] for head in top] == sorted(largest.ravel(), reverse=True)[:20]
    for head in top:
        matrix = study.mean.values[head["layer"], head["head"]]
        step, thought = map(int, head["max_position"].split("→"))
        assert matrix[step, thought] == head["max_attention"]
        assert head["std_attention"] == study.std.values[head["layer"], head["head"]].mean()


def test_heads_are_ranked_by_each_score_and_ties_by_layer_and_head() -> None:
    heads = run_study(random_attention()).heads
    assert heads["composite_score"].is_monotonic_decreasing
    assert rank_by(heads, "hub")["hub_score"].is_monotonic_decreasing
    assert rank_by(heads, "skip")["skip_score"].is_monotonic_decreasing
    flow = rank_by(heads, "flow")
    places = list(zip(flow["layer"], flow["head"], strict=True))
    assert places == sorted(places), "all heads have flow 1, so none comes before another"
    with pytest.raises(AttentionError, match="ranks heads by flow, hub, skip, not by 'composite'"):
        rank_by(heads, "composite")


def test_findings_text_says_what_the_table_says() -> None:
    study = run_study(random_attention(n_layers=4, n_heads=6), "some model")
    best = study.heads.iloc[0]
    assert "SOME MODEL - CRITICAL HEADS FINDINGS" in study.findings
    assert f"1. {best['name']} - {best['functional_type']}" in study.findings
    assert f"Composite score: {best['composite_score']:.3f}" in study.findings
    for column in ("functional_type", "layer_type"):
        found = counts(study.heads, column)
        assert sum(found.values()) == 20
        for kind, count in found.items():
            assert f"  {kind[0].upper() + kind[1:]}: {count}\n" in study.findings
    hub = study.heads["hub_score"]
    assert f"Hub: mean={hub.mean():.3f}, max={hub.max():.3f}" in study.findings
    assert "CRITICAL HEADS (composite > 0.7): 0" in study.findings


def test_thresholds_decide_the_verdicts() -> None:
    attention = random_attention()
    low = StudyThresholds(
        consistent_std=0, strong_hub=0, sequential=0, last_step=0, skip=0, critical=0, strong_head=0
    )
    strict, lenient = run_study(attention), run_study(attention, thresholds=low)
    assert lenient.summary["hub_analysis"]["is_strong_hub"]
    answers = lenient.summary["answers"]
    assert all(value for name, value in answers.items() if name != "which_position_is_hub")
    assert strict.stats["consistency"]["consistent"]
    assert not lenient.stats["consistency"]["consistent"]
    assert "CRITICAL HEADS (composite > 0): 1" in lenient.findings
    np.testing.assert_array_equal(strict.mean, lenient.mean)
    scores = [np.array([0.0, 0.0]), np.array([1.0, 1.0]), np.array([0.6, 0.6])]
    assert functional_types(*scores)[0] == "Hub Aggregator"
    assert functional_types(*scores, threshold=0.5)[0] == "Multi-Purpose"


def test_single_thought_has_no_steps_to_judge() -> None:
    study = run_study(random_attention(n=1))
    assert study.summary["sequential_flow"]["has_sequential_flow"] is None
    assert study.summary["answers"]["are_there_skip_connections"] is None
    measured = compare_with_corrected(random_attention(n=1))[0]
    assert "nan" not in json.dumps(measured)


def verdicts(study: Study) -> dict[str, bool]:
    return {check.name: check.passed for check in study.checks}


def test_validation_checks_pass_on_sound_attention_and_name_what_is_not() -> None:
    attention = random_attention()
    assert verdicts(run_study(attention)) == dict.fromkeys(
        [
            "every problem extracted",
            "ids unique",
            "questions present",
            "answers present",
            "flow scores in range",
            "hub scores in range",
            "skip scores in range",
            "composite scores in range",
            "flow is 1 for every head",
            "patterns consistent across problems",
            "patterns not random",
            "top heads strong",
        ],
        True,
    ) | {"top heads strong": False}
    even = attention.where(attention == 0, 1)
    weak = verdicts(run_study(even / even.sum("key")))
    assert not weak["patterns not random"], "no head has an entry above 0.4"
    failed = attention.copy(deep=True)
    failed[2] = 0  # a failed problem that enters as zeros, as in the study
    assert not verdicts(run_study(failed))["every problem extracted"]
    twice = attention.assign_coords(problem=["p0", "p0", *attention["problem"].values[2:]])
    assert not verdicts(run_study(twice))["ids unique"]
    expected = attention["expected"].values.copy()
    expected[0] = np.nan
    unknown = attention.assign_coords(expected=("problem", expected))
    assert not verdicts(run_study(unknown))["answers present"]
    blank = attention.assign_coords(question=("problem", [" ", *attention["question"].values[1:]]))
    assert not verdicts(run_study(blank))["questions present"]


def test_planted_strong_heads_pass_the_success_criteria() -> None:
    pattern = np.tril(np.full((6, 6), 0.02))
    pattern[0, 0] = 0.8
    passed = verdicts(run_study(planted_attention(pattern)))
    assert passed["patterns not random"]
    assert passed["top heads strong"]


def test_attention_without_problems_is_refused() -> None:
    with pytest.raises(AttentionError, match="averages over problems"):
        run_study(random_attention().isel(problem=[]))
    with pytest.raises(AttentionError, match="averages over problems"):
        run_study(random_attention().mean("problem"))


def compare_with_corrected(attention: xr.DataArray) -> tuple[list[dict[str, str]], Any]:
    study = run_study(attention, "planted")
    corrected = corrected_quantities(attention, n_resamples=50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heads = rank_heads(attention, n_resamples=50)
    rows = what_the_study_measured(study, corrected, heads)
    return [vars(row) for row in rows], corrected.set_index(["quantity", "at"])


def answers(rows: list[dict[str, str]], question: str) -> tuple[str, str]:
    row = next(row for row in rows if question in row["question"])
    return row["study"], row["corrected"]


def test_pure_sequential_attention_is_missed_by_the_study_and_found_by_the_correction() -> None:
    rows, corrected = compare_with_corrected(planted_attention(0.8 * np.eye(6, k=-1)))
    study, answer = answers(rows, "each thought attend to the one before")
    assert study.startswith("No: entries [i, i−1] average 0.000")
    assert answer.startswith("ct{i} → ct{i−1} averages 0.800 [0.800, 0.800]")
    assert corrected.loc[("sequential", "ct5→ct4"), "value"] == pytest.approx(0.8)
    assert corrected.loc[("by distance", "2"), "value"] == 0
    assert corrected.loc[("strongest link", "L0H0 ct1→ct0"), "value"] == pytest.approx(0.8)


def test_self_attention_alone_is_sequential_flow_to_the_study_and_not_to_the_correction() -> None:
    rows, corrected = compare_with_corrected(planted_attention(0.5 * np.eye(6)))
    study, answer = answers(rows, "each thought attend to the one before")
    assert study.startswith("Yes: entries [i, i−1] average 0.500")
    assert answer.startswith("ct{i} → ct{i−1} averages 0.000")
    assert corrected.loc[("self", "mean"), "value"] == pytest.approx(0.5)
    assert corrected.loc[("destination", "self"), "value"] == pytest.approx(0.5)
    assert "Undefined" in answers(rows, "read most")[1]


def test_uniform_attention_has_a_hub_only_in_the_study() -> None:
    weights = np.tril(np.ones((6, 6)), -1) * 0.6 / np.maximum(np.arange(6), 1)[:, None]
    rows, corrected = compare_with_corrected(planted_attention(weights))
    study, answer = answers(rows, "read most")
    assert study.startswith("Position 0, ")
    np.testing.assert_allclose(corrected.loc["hub ratio"]["value"][:-1], 1)
    assert "not told apart from rows without preference" in answer or "too few" in answer
    for back in ("1", "3", "5"):
        row = corrected.loc[("by distance", back)]
        assert row["value"] == pytest.approx(row["null"])


def test_pure_hub_is_found_and_passes_the_permutation_test() -> None:
    pattern = np.tril(np.full((6, 6), 0.01), -1)
    pattern[2:, 1] = 0.7
    rows, corrected = compare_with_corrected(planted_attention(pattern))
    _, answer = answers(rows, "read most")
    assert answer.startswith("ct1: ")
    assert "smooth primacy p = 0.017, a hub." in answer
    assert corrected.loc["hub ratio"]["value"].idxmax() == "ct1"
    goes = corrected.loc["destination"]["value"]
    assert goes.sum() == pytest.approx(1)
    assert goes["earlier thoughts"] == pytest.approx(pattern.sum() / 6)


def test_spread_counts_only_cells_that_a_step_can_fill() -> None:
    attention = random_attention()
    rows, _ = compare_with_corrected(attention)
    study, answer = answers(rows, "same on every problem")
    filled = blocks_of(attention).std(axis=0)[..., np.tril(np.ones((6, 6), dtype=bool), -1)]
    assert f"mean std {filled.mean() * 15 / 36:.4f}" in study
    assert f"deviation over problems is {filled.mean():.4f}" in answer
