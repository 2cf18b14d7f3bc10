"""Redundancy, sufficiency, hubs, transplants and controls: each on a case whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.constructed import block, from_blocks
from support.oracle import ROOT
from support.reading import number

from codi_lens import CodiModel
from codi_lens.attention.extract import extract
from codi_lens.attention.views import thought_view
from codi_lens.causal.controls import OTHER_ANSWER, SAME_ANSWER, answer_donors, head_controls
from codi_lens.causal.dose import dose_response
from codi_lens.causal.effects import compare_interventions, contrasts
from codi_lens.causal.hub_moves import hub_moves, hub_of
from codi_lens.causal.measure import CLEAN, measure
from codi_lens.causal.redundancy import redundancy
from codi_lens.causal.scores_vs_effects import rankings_vs_effect
from codi_lens.causal.transplants import (
    EVEN,
    OWN,
    mean_block,
    spread_evenly,
    stand_ins,
    transplants,
)
from codi_lens.errors import InterventionError, OutputError, PositionError
from codi_lens.interventions import (
    Donors,
    ablate_heads,
    force_hub,
    keep_heads,
    knock_out,
    swap_columns,
    swap_thoughts,
    transplant_pattern,
)
from codi_lens.problems import Problem, word_problems

PROBLEMS = word_problems(12, seed=6, n_operations=[3, 4])
EVERY = [(layer, head) for layer in range(3) for head in range(8)]
# The tiny models' answers have fewer tokens; what an intervention broke would talk on to 64.
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}
SHORT: dict[str, Any] = QUIET | {"max_new_tokens": 4}


def effects_of(model: CodiModel, arms: dict[str, Any]) -> pd.Series:
    table = compare_interventions(model, PROBLEMS, arms, **QUIET)
    return table.set_index("arm")["effect"]


@pytest.fixture(scope="module")
def twins() -> CodiModel:
    """tiny-gpt2 with the work of L1H7 shared out: L1H2 is the same head, each writes one half."""
    model = CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-gpt2")
    attention: Any = model.lens.blocks[1].attn
    for weight in (attention.W_Q, attention.W_K, attention.W_V, attention.W_O):
        weight.data[2] = weight.data[7]
    for bias in (attention.b_Q, attention.b_K, attention.b_V):
        bias.data[2] = bias.data[7]
    attention.W_O.data[[2, 7]] *= 0.5
    return model


def simulated(effects: dict[str, np.ndarray]) -> pd.DataFrame:
    """Outcomes whose log-probabilities are the given effects below a clean run of -0.1."""
    n = len(next(iter(effects.values())))
    every = {CLEAN: np.zeros(n), **effects}
    return pd.concat(
        [
            pd.DataFrame({"problem": range(n), "arm": name, "log_prob": values - 0.1})
            for name, values in every.items()
        ]
    )


def test_contrasts_are_the_paired_sums_of_arms_and_leave_out_what_is_unknown() -> None:
    rng = np.random.default_rng(0)
    a, b, both = rng.normal(-1, 1, (3, 40))
    a[3] = np.nan
    weights = {"interaction": {"both": 1, "a": -1, "b": -1, CLEAN: 1}, "b": {"b": 1, CLEAN: -1}}
    table = contrasts(simulated({"a": a, "b": b, "both": both}), weights).set_index("name")
    assert table.loc["interaction", "contrast"] == pytest.approx(np.nanmean(both - a - b))
    assert table.loc["b", "contrast"] == pytest.approx(b.mean())
    assert table["n_known"].tolist() == [39, 40]
    assert len(contrasts(simulated({"a": a}), {})) == 0
    other = simulated({"a": a}).assign(logit_difference=lambda table: 2 * table["log_prob"])
    twice = contrasts(other, {"a": {"a": 1, CLEAN: -1}}, column="logit_difference")
    assert twice["contrast"][0] == pytest.approx(2 * np.nanmean(a))
    with pytest.raises(InterventionError, match="no arm 'c'"):
        contrasts(simulated({"a": a}), {"x": {"c": 1}})


def test_heads_that_share_one_job_are_redundant_and_unrelated_ones_are_not(
    twins: CodiModel, tiny_gpt2: CodiModel
) -> None:
    problems = word_problems(24, seed=6, n_operations=[3, 4])
    table = redundancy(twins, problems, [(1, 2), (1, 7), (0, 5)], mode="mean", **QUIET)
    table = table.set_index(["a", "b"])
    pair: Any = table.loc[("L1H2", "L1H7")]
    assert pair["interaction_high"] < 0
    assert pair["logit_interaction_high"] < 0
    assert pair["redundant"]
    assert table["redundant"].sum() == 1
    assert pair["effect_a"] == pytest.approx(pair["effect_b"], abs=1e-4)
    assert abs(number(table, ("L1H7", "L0H5"), "interaction")) < abs(pair["interaction"]) / 5
    # In the untouched model the two heads do different things.
    before: Any = redundancy(tiny_gpt2, problems, [(1, 2), (1, 7)], mode="mean", **QUIET).iloc[0]
    assert abs(before["interaction"]) < abs(pair["interaction"]) / 5


def test_an_interaction_is_the_joint_effect_minus_both_alone(tiny_gpt2: CodiModel) -> None:
    donors = Donors(tiny_gpt2, PROBLEMS)
    row = redundancy(tiny_gpt2, PROBLEMS, [(1, 7), (2, 1)], donors=donors, **QUIET).iloc[0]
    sets = {"a": [(1, 7)], "b": [(2, 1)], "both": [(1, 7), (2, 1)]}
    effects = effects_of(
        tiny_gpt2, {name: ablate_heads(heads, donors=donors) for name, heads in sets.items()}
    )
    assert row["effect_a"] == pytest.approx(effects["a"])
    assert row["effect_b"] == pytest.approx(effects["b"])
    assert row["effect"] == pytest.approx(effects["both"])
    interaction = effects["both"] - effects["a"] - effects["b"]
    assert row["interaction"] == pytest.approx(interaction, abs=1e-6)


def test_what_is_kept_suffices_when_it_is_all_that_matters(tiny_gpt2: CodiModel) -> None:
    effects = compare_interventions(
        tiny_gpt2, PROBLEMS, {str(head): ablate_heads([head], "mean") for head in EVERY}, **QUIET
    )
    best = [EVERY[i] for i in np.argsort(effects["effect"].to_numpy())]
    settings: dict[str, Any] = {"keep": True, "n_random": 4, "mode": "mean", **QUIET}
    good = dose_response(tiny_gpt2, PROBLEMS, best, [4, 12], **settings)
    bad = dose_response(tiny_gpt2, PROBLEMS, best[::-1], [4, 12], **settings)
    assert good.area > 0 > bad.area
    assert good.low > 0
    nothing_kept = effects_of(tiny_gpt2, {"all": ablate_heads(EVERY, "mean")})["all"]
    assert good.at_zero == pytest.approx(-nothing_kept)
    top = good.curves[good.curves["order"] == "top"].set_index("k")["effect"]
    kept = effects_of(tiny_gpt2, {"kept": keep_heads(best[:12], "mean")})["kept"]
    assert top[12] == pytest.approx(kept, abs=1e-5)
    assert "arm" in good.curves
    assert len(good.curves) == 5 * 2
    with pytest.raises(InterventionError, match="from 1 to 23"):
        dose_response(tiny_gpt2, PROBLEMS, best, [24], keep=True, **QUIET)


def test_the_strongest_hub_is_found_with_its_share() -> None:
    blocks = np.stack([np.stack([[block("uniform"), block("ct2")]] * 2)] * 5)
    hub = hub_of(from_blocks(blocks))
    assert hub.thought == "ct2"
    later = blocks[..., 3:, 2]
    assert hub.share == pytest.approx(later.mean(), rel=1e-6)


def test_moving_a_hub_is_cutting_exchanging_and_forcing_columns(oracle_gpt2: CodiModel) -> None:
    # The random model attends among its thoughts, so that all of this changes something.
    table = hub_moves(oracle_gpt2, PROBLEMS, "ct1", 0.4, **SHORT)
    changes = table.set_index(["what", "thought"])["thought_change"]
    arms = {
        "cut": knock_out(["ct3", "ct4", "ct5"], "ct2"),
        "exchanged": swap_columns("ct1", "ct3"),
        "forced": force_hub("ct3", 0.4),
    }
    alone = compare_interventions(oracle_gpt2, PROBLEMS, arms, **SHORT)
    alone = alone.set_index("arm")["thought_change"]
    for what, thought in (("cut", "ct2"), ("exchanged", "ct3"), ("forced", "ct3")):
        assert changes[what, thought] == pytest.approx(alone[what], abs=1e-5)
        assert changes[what, thought] > 1e-3
    assert changes.nunique() > 10


def test_a_thought_is_held_against_the_hub_problem_by_problem(tiny_gpt2: CodiModel) -> None:
    table = hub_moves(tiny_gpt2, PROBLEMS, "ct1", 0.9, **QUIET).set_index(["what", "thought"])
    for what in ("cut", "forced"):
        for thought in ("ct0", "ct2", "ct3", "ct4"):
            row: Any = table.loc[(what, thought)]
            difference = row["effect"] - number(table, (what, "ct1"), "effect")
            assert row["against_hub"] == pytest.approx(difference, abs=1e-6)
        assert np.isnan(number(table, (what, "ct1"), "against_hub"))
    # Nine tenths of all attention on one thought leave too little for the question.
    assert number(table, ("forced", "ct0"), "effect_high") < 0
    with pytest.raises(InterventionError, match="'ct5' cannot be a hub"):
        hub_moves(tiny_gpt2, PROBLEMS, "ct5", 0.1, **QUIET)


@pytest.fixture(scope="module")
def attention() -> xr.DataArray:
    model = CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-gpt2")
    return extract(model, word_problems(10, seed=9), **QUIET)


def test_a_block_keeps_its_mass_when_it_is_spread(attention: xr.DataArray) -> None:
    own = mean_block(attention, (1, 7))
    by_hand = thought_view(attention).values[:, 1, 7].mean(axis=0)
    np.testing.assert_allclose(own, by_hand, rtol=1e-6)
    even = spread_evenly(own)
    np.testing.assert_allclose(even.sum(axis=1), own.sum(axis=1))
    assert not np.triu(even, 1).any()
    assert np.allclose(even[5], even[5, 0])
    with pytest.raises(PositionError, match="no head L1H9"):
        mean_block(attention, (1, 9))


def test_transplants_are_held_against_the_own_block_and_the_even_one(
    tiny_gpt2: CodiModel, attention: xr.DataArray
) -> None:
    head, own = (1, 7), mean_block(attention, (1, 7))
    nearly_all = np.tril(np.ones((6, 6)))
    nearly_all *= 0.95 / nearly_all.sum(axis=1, keepdims=True)
    blocks = {"the same": own, "nearly all": nearly_all}
    table = transplants(tiny_gpt2, PROBLEMS, head, own, blocks, **QUIET).set_index("block")
    assert list(table.index) == [OWN, EVEN, "the same", "nearly all"]
    assert table.loc["the same", "against_own"] == 0
    expected = effects_of(tiny_gpt2, {"x": transplant_pattern(nearly_all, [head])})["x"]
    assert table.loc["nearly all", "effect"] == pytest.approx(expected, abs=1e-6)
    # The head reads the question; a block that takes nearly all its attention costs the answer.
    assert number(table, "nearly all", "against_own_high") < 0
    assert number(table, "nearly all", "against_even_high") < 0
    with pytest.raises(InterventionError, match="the name of a control"):
        transplants(tiny_gpt2, PROBLEMS, head, own, {OWN: own}, **QUIET)


def test_a_stand_in_acts_beside_the_ablation(tiny_gpt2: CodiModel, attention: xr.DataArray) -> None:
    head, other, own = (1, 7), (1, 3), mean_block(attention, (1, 7))
    donors = Donors(tiny_gpt2, PROBLEMS)
    row = stand_ins(tiny_gpt2, PROBLEMS, head, own, [other], donors=donors, **QUIET).iloc[0]
    ablated = ablate_heads([head], donors=donors)
    given = transplant_pattern(own, [other])
    effects = effects_of(tiny_gpt2, {"a": ablated, "b": [ablated, given], "c": given})
    assert row["ablated"] == pytest.approx(effects["a"])
    assert row["effect"] == pytest.approx(effects["b"])
    assert row["block_alone"] == pytest.approx(effects["c"], abs=1e-6)
    assert row["made_up"] == pytest.approx(effects["b"] - effects["a"], abs=1e-6)
    even = [ablated, transplant_pattern(spread_evenly(own), [other])]
    by_hand = effects["b"] - effects_of(tiny_gpt2, {"e": even})["e"]
    assert row["over_even"] == pytest.approx(by_hand, abs=1e-6)
    with pytest.raises(InterventionError, match="must be other heads"):
        stand_ins(tiny_gpt2, PROBLEMS, head, own, [head], **QUIET)


def test_donors_matched_by_answer_match_and_are_never_the_question_itself() -> None:
    candidates = [*word_problems(800, seed=3, split="train"), *PROBLEMS]
    found = answer_donors(PROBLEMS, candidates, seed=4)
    assert found is not None
    for problem in PROBLEMS:
        same, other = (found[kind][problem.id] for kind in (SAME_ANSWER, OTHER_ANSWER))
        assert same.answer == problem.answer != other.answer
        assert same.question != problem.question
    assert found == answer_donors(PROBLEMS, candidates, seed=4)
    assert found != answer_donors(PROBLEMS, candidates, seed=5)
    unanswered = Problem("How many?", None, "x")
    assert answer_donors([*PROBLEMS, unanswered], candidates) is None


def test_controls_take_their_donors_from_the_matched_problems(tiny_gpt2: CodiModel) -> None:
    candidates = word_problems(800, seed=3, split="train")
    heads = [(1, 7), (2, 1)]
    arms = head_controls(
        tiny_gpt2, PROBLEMS, heads, n_random=1, candidates=candidates, at="bot", seed=2
    )
    table = compare_interventions(tiny_gpt2, PROBLEMS, arms, **QUIET).set_index("arm")
    found = answer_donors(PROBLEMS, candidates, seed=2)
    assert found is not None
    for kind in (SAME_ANSWER, OTHER_ANSWER):
        donors = Donors(tiny_gpt2, list({d.id: d for d in found[kind].values()}.values()))
        paired = donors.paired({id: donor.id for id, donor in found[kind].items()})
        by_hand = effects_of(tiny_gpt2, {"x": ablate_heads(heads, at="bot", donors=paired)})["x"]
        assert table.loc[f"heads, {kind}", "effect"] == pytest.approx(by_hand, abs=1e-5)
    assert not any("donors" in name for name in head_controls(tiny_gpt2, PROBLEMS, heads))


def test_a_measurement_is_resumed_only_with_the_same_seeds_donors_and_values(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    some = PROBLEMS[:3]

    def run(arm: Any) -> None:
        measure(tiny_gpt2, some, {"arm": arm}, tmp_path / "out", **QUIET)

    corpus = word_problems(6, seed=8)
    run(ablate_heads([(1, 7)], donors=Donors(tiny_gpt2, corpus, seed=1)))
    run(ablate_heads([(1, 7)], donors=Donors(tiny_gpt2, corpus, seed=1)))
    pairs = {problem.id: "test-8-0" for problem in some}
    others = [
        ablate_heads([(1, 7)], donors=Donors(tiny_gpt2, corpus, seed=2)),
        ablate_heads([(1, 7)], donors=Donors(tiny_gpt2, corpus[:5], seed=1)),
        ablate_heads([(1, 7)], seed=1),
        ablate_heads([(1, 7)], donors=Donors(tiny_gpt2, corpus).paired(pairs)),
    ]
    for other in others:
        with pytest.raises(OutputError, match="their arms differ"):
            run(other)
    first, second = np.eye(6) / 2, np.eye(6) / 3
    given = [transplant_pattern(each, [(1, 7)]) for each in (first, second)]
    assert given[0].name == given[1].name
    assert given[0].details != given[1].details
    vectors = tiny_gpt2.think([some[0].question]).thoughts
    assert swap_thoughts("ct1", vectors).details != swap_thoughts("ct1", vectors + 1).details


def test_every_ranking_is_held_against_the_effects_and_q_is_over_all_of_them() -> None:
    rng = np.random.default_rng(3)
    names = [f"L{i // 8}H{i % 8}" for i in range(24)]
    loss = rng.gamma(1.0, size=24)
    base = {"name": names, "layer": np.arange(24) // 8}
    views = {
        "good": pd.DataFrame({**base, "hub": loss + rng.normal(0, 0.05, 24), "flow": np.ones(24)}),
        "bad": pd.DataFrame({**base, "hub": rng.normal(size=24), "skip": rng.normal(size=24)}),
    }
    effects = pd.DataFrame({"name": names, "effect": -loss})
    table = rankings_vs_effect(views, effects)
    assert table[["view", "metric"]].values.tolist() == [
        ["good", "flow"],
        ["good", "hub"],
        ["bad", "hub"],
        ["bad", "skip"],
    ]
    row = table.iloc[1]
    assert row["rho"] > 0.9
    assert row["q"] == pytest.approx(min(3 * row["p"], 1))
    assert np.isnan(table.iloc[0]["rho"])
    assert np.isnan(table.iloc[0]["q"])
