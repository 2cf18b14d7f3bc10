"""Scores beside the baseline and the ceiling: each on numbers whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Never

import numpy as np
import pandas as pd
import pytest
from support.oracle import ROOT

from codi_lens import CodiModel, Donors, InterventionError, output_changes
from codi_lens.causal.measure import CLEAN
from codi_lens.causal.rank_differences import rank_differences
from codi_lens.causal.reliability import effects_by_problem, split_half_reliability
from codi_lens.causal.scores_vs_effects import rankings_vs_effect
from codi_lens.interventions.replacements import Mode
from codi_lens.problems import Problem, word_problems
from codi_lens.reports.questions.scores import score_findings
from codi_lens.stats import benjamini_hochberg

PROBLEMS = word_problems(5, seed=6, n_operations=[3, 4])
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}
NAMES = [f"L{i // 8}H{i % 8}" for i in range(24)]
HEADS = pd.DataFrame({"name": NAMES, "layer": np.arange(24) // 8})


def outputs(model: CodiModel, problem: Problem, layer: int, position: str) -> np.ndarray:
    """What the heads of a layer give at each token of a position: [token, head, d_head]."""
    run = model.think([problem.question], max_new_tokens=12)
    z = run.cache()[f"blocks.{layer}.attn.hook_z"][0]
    return z[run.span(position)[0]].numpy(force=True)


def replaced_by(
    mode: Mode, own: np.ndarray, donor: np.ndarray, every: Sequence[np.ndarray]
) -> np.ndarray:
    if mode == "zero":
        return 0 * own
    if mode == "mean":
        return np.broadcast_to(np.concatenate(every).mean(axis=0), own.shape)
    return np.stack([donor[-1 - i % len(donor)] for i in range(len(own))])[::-1]  # from the right


@pytest.mark.parametrize("mode", ["resample", "mean", "zero"])
def test_the_baseline_is_the_norm_of_what_a_head_writes_otherwise(
    tiny_gpt2: CodiModel, mode: Mode
) -> None:
    at = ["question", "bot", "ct1", "eot"]
    ids = [problem.id for problem in PROBLEMS]
    pairs = dict(zip(ids, [*ids[1:], ids[0]], strict=True))
    donors = Donors(tiny_gpt2, PROBLEMS).paired(pairs)
    table = output_changes(tiny_gpt2, PROBLEMS, mode=mode, at=at, donors=donors, **QUIET)
    assert table["name"].tolist() == NAMES
    assert set(table["n"]) == {5}
    for layer in (0, 2):
        w_o: Any = tiny_gpt2.lens.blocks[layer].attn.W_O
        w_o = w_o.numpy(force=True).astype(float)
        squares = np.zeros((5, 8))
        for position in at:
            every = [outputs(tiny_gpt2, problem, layer, position) for problem in PROBLEMS]
            for i, own in enumerate(every):
                moved = replaced_by(mode, own, every[(i + 1) % 5], every) - own
                for token, head in np.ndindex(len(own), 8):
                    squares[i, head] += ((moved[token, head] @ w_o[head]) ** 2).sum()
        found = table.loc[table["layer"] == layer, "output_change"]
        np.testing.assert_allclose(found, np.sqrt(squares).mean(axis=0), rtol=1e-4)


def test_the_baseline_does_not_depend_on_batches_and_goes_on_where_it_was(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = output_changes(tiny_gpt2, PROBLEMS, at="answer", **QUIET)
    asked: dict[str, Any] = {"at": "answer", "problems_at_once": 2, "out": tmp_path / "o", **QUIET}
    apart = output_changes(tiny_gpt2, PROBLEMS, **asked)
    np.testing.assert_allclose(together["output_change"], apart["output_change"], rtol=1e-4)

    def again(*given: Any) -> Never:
        raise AssertionError("computed again")

    monkeypatch.setattr("codi_lens.causal.output_changes._changes", again)
    pd.testing.assert_frame_equal(output_changes(tiny_gpt2, PROBLEMS, **asked), apart)


def test_a_head_that_writes_nothing_is_moved_by_nothing() -> None:
    model = CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-gpt2")
    attention: Any = model.lens.blocks[1].attn
    attention.W_O.data[3] = 0
    table = output_changes(model, PROBLEMS, **QUIET).set_index("name")["output_change"]
    assert table["L1H3"] == 0
    assert (table.drop("L1H3") > 0).all()


@pytest.mark.parametrize(("noise", "n"), [(1.0, 20), (3.0, 20), (3.0, 80)])
def test_reliability_is_the_share_of_variance_that_is_true(noise: float, n: int) -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(size=600)
    effects = true + noise * rng.normal(size=(n, 600))
    found = split_half_reliability(effects, n_splits=100)
    expected = 1 / (1 + noise**2 / n)
    assert found.value == pytest.approx(expected, abs=0.05)
    assert found.low <= found.value <= found.high
    assert found.n_problems == n
    # What a score that equals the true effects reaches is the ceiling.
    reached = pd.Series(true).corr(pd.Series(effects.mean(axis=0)), method="spearman")
    assert reached == pytest.approx(found.ceiling, abs=0.03)


def test_effects_that_are_noise_or_differ_between_layers_only_are_not_reliable() -> None:
    rng = np.random.default_rng(1)
    noise, layers = rng.normal(size=(30, 600)), np.arange(600) // 200
    assert split_half_reliability(noise, n_splits=200).ceiling < 0.35
    assert split_half_reliability(noise + layers, n_splits=100).value > 0.8
    assert split_half_reliability(noise + layers, layers, n_splits=200).ceiling < 0.35
    for none in (noise[:1], 0 * noise):
        assert np.isnan(split_half_reliability(none, n_splits=20).ceiling)


def test_effects_of_problems_are_paired_and_left_out_where_unknown() -> None:
    rows = [("a", CLEAN, -1.0), ("b", CLEAN, np.nan), ("c", CLEAN, -0.5)]
    rows += [(problem, arm, value) for problem in "abc" for arm, value in (("x", -2), ("y", -4))]
    outcomes = pd.DataFrame(rows, columns=["problem", "arm", "log_prob"])
    assert effects_by_problem(outcomes, ["y", "x"]).tolist() == [[-3, -1], [-3.5, -1.5]]
    with pytest.raises(InterventionError, match="no arm 'z'"):
        effects_by_problem(outcomes, ["z"])


def simulated(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, pd.DataFrame]]:
    """Effects, a baseline that goes with them, and one score that equals them beside noise."""
    rng = np.random.default_rng(seed)
    loss = rng.gamma(1.0, size=24)
    effects = HEADS[["name"]].assign(effect=-loss)
    baseline = HEADS.assign(output_change=np.argsort(np.argsort(loss)) + rng.normal(0, 6, 24))
    shuffled = HEADS.sample(frac=1, random_state=seed).index  # tables need not share an order
    views = {
        "first": HEADS.assign(hub=loss, composite=rng.normal(size=24)).loc[shuffled],
        "reading": HEADS.assign(bot_question=rng.normal(size=24), answer_thoughts=1.0),
    }
    for table in views.values():
        table.attrs["n_problems"] = 20
    return effects, baseline, views


def test_a_score_equal_to_the_effects_beats_the_baseline_and_noise_does_not() -> None:
    effects, baseline, views = simulated()
    table = rankings_vs_effect(views, effects, baseline).set_index(["view", "metric"])
    assert table.index.tolist() == [
        ("baseline", "output_change"),
        ("first", "hub"),
        ("first", "composite"),
        ("reading", "bot_question"),
        ("reading", "answer_thoughts"),
    ]
    rho: Any = table["rho"]
    assert 0.3 < rho["baseline", "output_change"] < 0.9
    equal: Any = table.loc[("first", "hub")]
    for prefix in ("", "within_"):
        assert equal[f"{prefix}rho"] == pytest.approx(1)
        base: Any = table[f"{prefix}rho"].iloc[0]
        assert equal[f"{prefix}difference"] == pytest.approx(1 - base)
        assert equal[f"{prefix}difference_low"] > 0
        assert equal[f"{prefix}ratio"] == pytest.approx(1 / base)
        assert table.index[table[f"{prefix}beats"]].tolist() == [("first", "hub")]
    constant: Any = table.loc[("reading", "answer_thoughts")]
    assert np.isnan([constant[name] for name in ("rho", "q", "difference", "ratio")]).all()
    undefined: Any = table.loc[("baseline", "output_change")]
    assert np.isnan([undefined["difference"], undefined["within_difference_q"]]).all()


def test_one_correction_is_over_all_scores_the_baseline_and_both_strata() -> None:
    effects, baseline, views = simulated(1)
    table = rankings_vs_effect(views, effects, baseline)
    for kind in ("", "difference_"):
        p, q = (table[[f"{kind}{x}", f"within_{kind}{x}"]].to_numpy() for x in ("p", "q"))
        assert np.isfinite(p).sum() == (8 if kind == "" else 6)
        np.testing.assert_allclose(q, benjamini_hochberg(p))


def test_a_score_as_good_as_the_baseline_is_seldom_said_to_differ() -> None:
    rng = np.random.default_rng(2)
    loss, layers = rng.normal(size=24), np.arange(24) // 8
    for strata in (None, layers):
        scores = loss + rng.normal(size=(300, 24))
        baselines = loss + rng.normal(size=(300, 24))
        p = [
            rank_differences(score[None], base, loss, strata, n_resamples=200).p[0]
            for score, base in zip(scores, baselines, strict=True)
        ]
        assert np.mean(np.array(p) < 0.05) < 0.1


def test_the_sentences_say_who_beats_the_baseline_and_who_does_not() -> None:
    effects, baseline, views = simulated()
    ceiling = split_half_reliability(np.random.default_rng(0).normal(size=(9, 24)))
    ceilings = {"": ceiling, "within_": ceiling}
    table = rankings_vs_effect(views, effects, baseline)
    sentences = score_findings(table, ceilings, "first", "thinking", 20)
    assert "Of 3 scores of attention, 1 (hub (first)) go with the loss" in sentences[0]
    assert "effects at thinking on 9 problems, scores on 20 others, 24 heads" in sentences[0]
    assert sum("Of 3 scores 1 (hub (first)) are shown to beat" in each for each in sentences) == 2
    views["first"] = views["first"].assign(hub=views["first"]["composite"] ** 2)
    table = rankings_vs_effect(views, effects, baseline)
    sentences = score_findings(table, ceilings, "first", "thinking", 20)
    assert "none go with the loss over all heads, none within layers" in sentences[0]
    assert sum("Of 3 scores none are shown to beat" in each for each in sentences) == 2
