"""Edges that problems are known to need: cutting, attributing and grading them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from sklearn.metrics import average_precision_score, roc_auc_score
from support.constructed import random_attention
from torch import Tensor

from codi_lens import CodiModel, Intervention, InterventionError, ProblemError
from codi_lens.causal.edge_attribution import attribute_edges, edge_attributions
from codi_lens.causal.edge_costs import (
    costs_by_reference,
    edge_costs,
    known_against_others,
    on_edges,
)
from codi_lens.causal.edge_scores import attention_scores
from codi_lens.causal.grade import grade_scores
from codi_lens.causal.measure import measure
from codi_lens.causal.recovery import recovery
from codi_lens.causal.references import (
    candidate_edges,
    truth_of,
    used_references,
)
from codi_lens.interventions import Context, Planned, knock_out, knock_out_each
from codi_lens.interventions.edges import columns
from codi_lens.problems import Reference, WordProblem, word_problems
from codi_lens.stats import seeded

EDGES = candidate_edges(6)


@pytest.fixture(scope="module")
def model() -> CodiModel:
    return CodiModel.from_pretrained("tiny-gpt2")


@pytest.fixture(scope="module")
def precise() -> CodiModel:
    return CodiModel.from_pretrained("tiny-gpt2", dtype=torch.float64)


def cell(table: pd.DataFrame, score: str, name: str) -> float:
    return float(table.loc[score, name])  # type: ignore[arg-type]


def mixed(n: int = 60) -> list[WordProblem]:
    return word_problems(n, family="mixed", seed=3)


def every_edge(value: Callable[[WordProblem, str, str], float], n: int = 60) -> xr.DataArray:
    """A value of each problem and candidate edge."""
    some = mixed(n)
    values = [[value(problem, *edge) for edge in EDGES] for problem in some]
    return on_edges(pd.DataFrame(values, index=[each.id for each in some]), EDGES)


@pytest.fixture(scope="module")
def truth() -> xr.DataArray:
    some = mixed()
    kinds = {each for problem in some for each in problem.references}
    return truth_of(some, kinds, every_edge(lambda *_: 0.0))


def test_each_problem_loses_its_own_edges(model: CodiModel) -> None:
    some = word_problems(6, n_operations=3)
    own = {each.id: [("answer", "ct1")] if i % 2 else [] for i, each in enumerate(some)}
    own[some[1].id] = [("answer", "ct1"), ("ct3", "ct2")]
    each = {"own": knock_out_each(own), "all": knock_out("answer", "ct1")}
    outcomes = measure(model, some, each, progress=False)
    by_arm = outcomes.pivot(index="problem", columns="arm", values="log_prob")
    for i, problem in enumerate(some):
        row = {arm: float(by_arm[arm][problem.id]) for arm in by_arm}
        if i == 1:
            both = [knock_out("answer", "ct1"), knock_out("ct3", "ct2")]
            alone = measure(model, [problem], {"both": both}, progress=False)
            assert row["own"] == pytest.approx(alone["log_prob"].iloc[1], abs=1e-4)
        else:
            assert row["own"] == pytest.approx(row["all" if i % 2 else "clean"], abs=1e-5)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ({}, "no edge"),
        ({"test-0-0": []}, "no edge"),
        ({"other": [("ct2", "ct1")]}, "no edges for the problem 'test-0-0'"),
        ({"test-0-0": [("ct1", "ct2")]}, "no edge from ct1 to ct2"),
    ],
)
def test_edges_that_cannot_be_cut_are_refused(
    model: CodiModel, edges: dict[str, list[tuple[str, str]]], message: str
) -> None:
    with pytest.raises(InterventionError, match=message):
        measure(model, word_problems(1), {"cut": knock_out_each(edges)}, progress=False)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("edge", [("answer", "ct1", 1), ("ct2", "ct0", 0), ("answer", "ct2", 2)])
def test_attributions_of_edges_are_finite_differences(
    precise: CodiModel, edge: tuple[str, str, int], renormalise: bool
) -> None:
    query, key, layer = edge
    some = word_problems(3, n_operations=3, seed=4)
    found = edge_attributions(precise, some, renormalise=renormalise, progress=False)
    for head in (0, 5):
        step = 1e-5

        def moved(by: float, head: int = head) -> Planned:
            def build(context: Context) -> list[Intervention]:
                def hook(pattern: Tensor, hook: object) -> Tensor:
                    row = pattern[:, head].clone()
                    here = columns(context, pattern, frozenset([key]))
                    cut = row.masked_fill(here, 0)
                    if renormalise:
                        cut = cut / (1 - row[..., here])
                    pattern[:, head] = row + by * (cut - row)
                    return pattern

                return [Intervention([(f"blocks.{layer}.attn.hook_pattern", hook)], query)]

            return Planned("moved", query, build)

        arms = {"up": moved(step), "down": moved(-step)}
        outcomes = measure(precise, some, arms, progress=False)
        by_arm = outcomes.pivot(index="problem", columns="arm", values="log_prob")
        slope = ((by_arm["up"] - by_arm["down"]) / (2 * step))[[each.id for each in some]]
        here = found.sel(layer=layer, head=head, query=query, key=key)
        np.testing.assert_allclose(here.values, slope.to_numpy(dtype=float), rtol=1e-3, atol=1e-7)


def test_integrated_edges_sum_to_cutting_them_all(model: CodiModel) -> None:
    some = word_problems(5, n_operations=3, seed=4)
    found = edge_attributions(model, some, method="integrated", progress=False)
    every = [knock_out(query, key) for query, key in EDGES]
    cut = measure(model, some, {"all": every}, progress=False)
    by_arm = cut.pivot(index="problem", columns="arm", values="log_prob")
    effect = (by_arm["all"] - by_arm["clean"])[[each.id for each in some]]
    np.testing.assert_allclose(found["effect"].values, effect, atol=1e-3)
    total = found.sum(("layer", "head", "query", "key"))
    assert (abs(total - found["effect"]) <= 0.02 * np.maximum(1, abs(found["effect"])) + 1e-6).all()
    assert float(abs(found.sel(query="ct2", key="ct4")).max()) == 0


def test_a_query_before_all_thoughts_is_refused(model: CodiModel) -> None:
    with pytest.raises(InterventionError, match="comes after a thought"):
        attribute_edges(model, word_problems(2), ["bot", "ct0"], progress=False)


def test_a_perfect_score_is_graded_1_and_a_random_one_one_half(truth: xr.DataArray) -> None:
    draw = np.random.default_rng(0)
    scores = {
        "perfect": truth,
        "inverted": -truth,
        "random": truth.copy(data=draw.random(truth.shape)),
        "same place": every_edge(lambda _, query, key: float((query, key) == ("answer", "ct0"))),
        "constant": every_edge(lambda *_: 2.0),
    }
    table = grade_scores(scores, truth, mixed(), control={**scores, "perfect": scores["random"]})
    table = table.set_index("score")
    for name in ("auroc", "average_precision", "pooled_auroc", "pooled_average_precision"):
        assert cell(table, "perfect", name) == 1
    assert cell(table, "inverted", "auroc") == 0
    assert cell(table, "random", "auroc") == pytest.approx(0.5, abs=0.1)
    assert cell(table, "random", "auroc_low") < 0.5 < cell(table, "random", "auroc_high")
    assert cell(table, "constant", "auroc") == 0.5
    # It is often right, and never because of the problem.
    assert cell(table, "same place", "auroc") > 0.55
    assert cell(table, "same place", "beyond_shuffled") == pytest.approx(0, abs=0.03)
    assert cell(table, "perfect", "beyond_shuffled_low") > 0.1
    assert cell(table, "perfect", "beyond_control_low") > 0.3
    assert cell(table, "random", "beyond_control") == 0
    assert set(table["n"]) == {60}


def test_grades_are_what_sklearn_gives_problem_by_problem(truth: xr.DataArray) -> None:
    draw = np.random.default_rng(1)
    score = truth.copy(data=truth.values + draw.normal(size=truth.shape))
    row = grade_scores({"noisy": score}, truth, mixed()).iloc[0]
    pairs = []
    lengths = {problem.id: len(problem.operations) for problem in mixed()}
    for id in truth["problem"].values:
        label, value = truth.sel(problem=id), score.sel(problem=id)
        edges = [edge for edge in EDGES if edge != ("answer", f"ct{lengths[str(id)] - 2}")]
        each = [[float(part.sel(query=q, key=k)) for q, k in edges] for part in (label, value)]
        pairs.append(each)
    assert row["auroc"] == pytest.approx(np.mean([roc_auc_score(*each) for each in pairs]))
    assert row["average_precision"] == pytest.approx(
        np.mean([average_precision_score(*each) for each in pairs])
    )
    labels, values = (np.concatenate([each[i] for each in pairs]) for i in (0, 1))
    assert row["pooled_auroc"] == pytest.approx(roc_auc_score(labels, values))
    assert row["pooled_auroc_low"] < row["pooled_auroc"] < row["pooled_auroc_high"]


def test_an_edge_planted_in_attention_is_found(truth: xr.DataArray) -> None:
    some = mixed()
    attention = random_attention(len(some), n_layers=2, n_heads=3)
    attention = attention.assign_coords(problem=[each.id for each in some])
    planted = attention.copy(deep=True)
    for problem in some:
        for query, key in problem.edges:
            place = {"problem": problem.id, "layer": 1, "head": 2}
            row = {**place, "query": "anchor" if query == "answer" else query}
            planted.loc[row] = planted.loc[row] * 0.02
            planted.loc[{**row, "key": key}] = 0.98
    for given, found in ((attention, False), (planted, True)):
        by_head = attention_scores(given)
        scores = {name: each.max(("layer", "head")) for name, each in by_head.items()}
        table = grade_scores(scores, truth, some).set_index("score")
        assert (table["beyond_shuffled_low"].to_numpy() > 0.05).all() == found
        # Beyond its null no attention of ct1 can be: ct0 is the only thought that it sees.
        assert (cell(table, "attention", "auroc_low") > 0.9) == found


def test_kinds_of_reference_are_those_of_the_edges() -> None:
    for problem in mixed():
        assert tuple(each.edge for each in problem.references) == problem.edges
    assert Reference(5, 4, 2).name == "step 4 of 5 refers to 2"


def test_only_edges_that_cost_something_are_used() -> None:
    kind, other = Reference(4, 4, 1), Reference(5, 3, 1)

    def cost(problem: WordProblem, query: str, key: str) -> float:
        noise = (seeded(0, problem.id, query, key) % 100 - 50) / 1000
        needs = any(each == kind and each.edge == (query, key) for each in problem.references)
        return noise + 2.0 * needs

    table = costs_by_reference(every_edge(cost, 300), mixed(300))
    assert used_references(table) == {kind}
    row = table[(table["step"] == 5) & table["known"]].iloc[0]
    assert not row["used"]
    assert row["cost_low"] < row["cost"] < row["cost_high"] < 0.1
    assert other in {each for problem in mixed(300) for each in problem.references}
    known = table[table["known"]]
    assert known["q"].notna().all()
    assert table.loc[~table["known"], "q"].isna().all()


def test_costs_are_those_of_cutting_edges(model: CodiModel) -> None:
    some = word_problems(4, n_operations=3)
    costs = edge_costs(model, some, progress=False)
    alone = measure(model, some[2:3], {"cut": knock_out("answer", "ct1")}, progress=False)
    change = alone["log_prob"].iloc[0] - alone["log_prob"].iloc[1]
    found = costs.sel(problem=some[2].id, query="answer", key="ct1")
    assert float(found) == pytest.approx(change, abs=1e-4)


def test_problems_without_edges_are_refused(model: CodiModel) -> None:
    with pytest.raises(ProblemError, match="needs no edge; give problems of"):
        known_against_others(model, word_problems(3), progress=False)


def test_recovery_is_scikit_learns_to_the_bit() -> None:
    draw = np.random.default_rng(0)
    for n in [3, 10, 21, 300] * 20:
        labels = draw.permutation(np.arange(n) % 3 == 0).astype(float)
        values = draw.integers(0, n, n) / 7  # with ties
        weights = draw.integers(0, 4, n).astype(float)
        weights[[labels.argmax(), labels.argmin()]] = 1.0
        for each in (None, weights):
            area = roc_auc_score(labels, values, sample_weight=each)
            precision = average_precision_score(labels, values, sample_weight=each)
            assert recovery(labels, values, each) == (area, precision)
