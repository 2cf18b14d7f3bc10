"""Experiments share work between interventions and change nothing by it; their controls control."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from support.oracle import ROOT
from support.reading import number

import codi_lens.causal.batches as measuring
from codi_lens import CodiModel, Intervention
from codi_lens.causal.attribution import attribute_heads, attribute_thoughts
from codi_lens.causal.controls import halves, head_controls, matched_heads
from codi_lens.causal.dose import dose_response
from codi_lens.causal.effects import compare_interventions, needed, summarise
from codi_lens.causal.means import check_min_effect
from codi_lens.causal.measure import CLEAN, measure
from codi_lens.causal.restoration import restore
from codi_lens.causal.running_totals import operand_swaps
from codi_lens.causal.strata import Only
from codi_lens.causal.sweeps import sweep_edges, sweep_heads, sweep_layers, sweep_thoughts
from codi_lens.cli.main import main
from codi_lens.errors import CodiLensError, InterventionError, OutputError, ProblemError
from codi_lens.head_names import parse_heads
from codi_lens.interventions import (
    Donors,
    ablate_heads,
    force_hub,
    freeze_patterns,
    keep_heads,
    knock_out,
    patch_residual,
    patch_thoughts,
    reorder_thoughts,
    scale_heads,
    set_pattern,
    steer_thoughts,
    swap_columns,
    swap_thoughts,
    transplant_pattern,
    truncate_thoughts,
)
from codi_lens.positions import each_position, key_names
from codi_lens.problems import Problem, word_problems
from codi_lens.problems.pairs import operand_pairs
from codi_lens.verification.verify import verify

PROBLEMS = word_problems(7, seed=3)
SHORT = 12  # tokens: every clean answer has fewer, but what an arm broke talks on to the limit


def outcomes_of(model: CodiModel, arms: dict[str, Any], **settings: Any) -> dict[str, pd.DataFrame]:
    table = measure(model, PROBLEMS, arms, progress=False, max_new_tokens=SHORT, **settings)
    return {str(name): rows.reset_index(drop=True) for name, rows in table.groupby("arm")}


def assert_equal_to_think(model: CodiModel, arms: dict[str, Any], **settings: Any) -> None:
    """Every arm gives what `think` gives when it is run alone, decoded and teacher-forced."""
    found = outcomes_of(model, arms, **settings)
    questions = [problem.question for problem in PROBLEMS]
    ids = [problem.id for problem in PROBLEMS]
    clean = model.think(questions, ids=ids, max_new_tokens=SHORT)
    assert found[CLEAN]["answer"].tolist() == clean.answers
    for name, arm in arms.items():
        together = arm if isinstance(arm, list) else [arm]
        run = model.think(questions, ids=ids, interventions=together, max_new_tokens=SHORT)
        assert found[name]["answer"].tolist() == run.answers, name
        distance = (run.thoughts - clean.thoughts).norm(dim=-1) / clean.thoughts.norm(dim=-1)
        changes = found[name].filter(like="change_ct").to_numpy()
        np.testing.assert_allclose(changes, distance, atol=2e-5, err_msg=name)
        forced = model.think(questions, ids=ids, interventions=together, answers=clean.answers)
        assert forced.answer_log_probs is not None
        for row, anchor in enumerate(clean.layout.anchors):
            expected = float(forced.answer_log_probs[row][anchor:-1].sum())
            assert found[name]["log_prob"][row] == pytest.approx(expected, abs=1e-3), name


def test_sharing_a_prefix_and_a_batch_gives_what_each_run_gives_alone(tiny: CodiModel) -> None:
    donors = Donors(tiny, word_problems(9, seed=8))
    arms: dict[str, Any] = {
        f"{mode} {at}": ablate_heads([(1, 7), (2, 1)], mode, at, donors)
        for mode in ("zero", "resample")
        for at in ("thinking", "question", "ct3", "eot", "answer", "all")
    }
    arms["several"] = [ablate_heads([(0, 2)], "mean", "ct4", donors), knock_out("eot", "ct1")]
    arms["thought"] = patch_thoughts("ct1", "mean", donors)
    arms["keep"] = keep_heads([(1, 7), (1, 0), (2, 1)], "resample", donors=donors)
    assert_equal_to_think(tiny, arms, problems_at_once=4, rows_at_once=9)


def test_every_kind_of_intervention_gives_in_a_sweep_what_it_gives_alone(tiny: CodiModel) -> None:
    donors = Donors(tiny, word_problems(9, seed=8))
    direction = donors.mean("hook_embed", "ct1")
    uniform = np.tril(np.ones((6, 6))) / np.arange(8, 14)[:, None]
    even = xr.DataArray(
        [[1 / 4] * 4 + [0.0] * 6],
        dims=("query", "key"),
        coords={"query": ["ct1"], "key": list(key_names(6))},
    )
    arms: dict[str, Any] = {
        "scaled": scale_heads([(1, 7), (2, 1)], 0.5),
        "all but": keep_heads([(1, 7)], "mean", donors=donors),
        "hub": force_hub("ct1", 0.6),
        "exchanged": swap_columns("ct0", "ct2"),
        "set": set_pattern(even, [(1, 7)]),
        "transplanted": transplant_pattern(uniform, [(1, 7), (2, 1)]),
        "frozen": [freeze_patterns(at="ct2"), ablate_heads([(0, 1)], "mean", "ct1", donors)],
        "reordered": reorder_thoughts(["ct0", "ct2", "ct1", "ct3", "ct4", "ct5"]),
        "steered": steer_thoughts(direction, 0.5, "ct2"),
        "noise": patch_thoughts("ct3", "noise", seed=3),
        "swapped": swap_thoughts(["ct1", "ct4"], donors),
        "mlp": patch_residual(1, ["ct0", "eot"], "resample", "mlp_out", donors),
        "attention": patch_residual(2, "bot", "zero", "attn_out"),
        "cut": [knock_out("answer", "thoughts"), knock_out("eot", "thoughts", layers=[1])],
    }
    assert_equal_to_think(tiny, arms, problems_at_once=4, rows_at_once=12)


def test_truncated_thoughts_are_shared_right(tiny_gpt2: CodiModel) -> None:
    arms = {f"first {k}": truncate_thoughts(k) for k in (1, 3, 5)}
    assert_equal_to_think(tiny_gpt2, arms)


def test_answers_that_end_at_the_limit_are_those_of_decoding(tiny_gpt2: CodiModel) -> None:
    silence = ablate_heads([(1, 7)], "zero", "all")
    table = measure(tiny_gpt2, PROBLEMS, {"silence": silence}, max_new_tokens=3, progress=False)
    questions = [problem.question for problem in PROBLEMS]
    clean = tiny_gpt2.think(questions, max_new_tokens=3)
    run = tiny_gpt2.think(questions, max_new_tokens=3, interventions=[silence])
    by_arm = dict(list(table.groupby("arm")))
    assert by_arm[CLEAN]["answer"].tolist() == clean.answers
    assert by_arm["silence"]["answer"].tolist() == run.answers
    assert by_arm["silence"]["log_prob"].isna().all()


def test_an_intervention_that_does_nothing_has_no_effect(tiny_gpt2: CodiModel) -> None:
    nothing = Intervention([("blocks.1.attn.hook_z", lambda z, hook: z)], at="all")
    row = compare_interventions(tiny_gpt2, PROBLEMS, {"nothing": nothing}, progress=False).iloc[0]
    assert abs(row["effect"]) < 1e-4
    assert row["changed"] == 0
    assert row["mcnemar_p"] == 1
    assert row["accuracy"] == row["accuracy_clean"]


def test_every_row_meets_its_own_intervention_only(tiny_gpt2: CodiModel) -> None:
    """An arm's outcomes do not depend on which other arms share its batch."""
    arms = {f"L1H{head}": ablate_heads([(1, head)], "zero") for head in range(8)}
    together = outcomes_of(tiny_gpt2, arms)
    for name in ("L1H2", "L1H7"):
        alone = outcomes_of(tiny_gpt2, {name: arms[name]})[name]
        assert alone["answer"].tolist() == together[name]["answer"].tolist()
        np.testing.assert_allclose(alone["log_prob"], together[name]["log_prob"], atol=1e-4)
        np.testing.assert_allclose(alone["change_ct5"], together[name]["change_ct5"], atol=1e-4)
    assert (together[CLEAN].filter(like="change_ct") == 0).all(axis=None)


def test_a_stopped_sweep_resumes_without_computing_anything_twice(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {f"L{layer}H7": ablate_heads([(layer, 7)], "zero") for layer in range(3)}
    settings: dict[str, Any] = {"problems_at_once": 3, "rows_at_once": 6, "progress": False}
    whole = measure(tiny_gpt2, PROBLEMS, arms, **settings)
    compute, done = measuring._run, []

    def stopping(*arguments: Any) -> pd.DataFrame:
        if len(done) == 4:
            raise KeyboardInterrupt
        done.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(measuring, "_run", stopping)
    with pytest.raises(KeyboardInterrupt):
        measure(tiny_gpt2, PROBLEMS, arms, tmp_path / "out", **settings)
    assert len(list((tmp_path / "out" / "parts").glob("*.parquet"))) == 4

    def counting(*arguments: Any) -> pd.DataFrame:
        done.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(measuring, "_run", counting)
    resumed = measure(tiny_gpt2, PROBLEMS, arms, tmp_path / "out", **settings)
    pd.testing.assert_frame_equal(resumed, whole)
    n_parts = 3 + 3 + 2  # clean, two arms, one arm; the last problem has room for all arms at once
    assert len(done) == n_parts
    again = measure(tiny_gpt2, PROBLEMS, arms, tmp_path / "out", **settings)
    assert len(done) == n_parts
    pd.testing.assert_frame_equal(again, whole)
    stored = pd.read_parquet(tmp_path / "out" / "outcomes.parquet")
    assert len(stored) == len(whole) == 4 * len(PROBLEMS)


def test_results_of_other_work_are_not_mixed_in(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    arms = {"a": ablate_heads([(0, 0)], "zero")}
    measure(tiny_gpt2, PROBLEMS[:2], arms, tmp_path / "out", progress=False)
    with pytest.raises(OutputError, match="other results \\(their problems differ\\)"):
        measure(tiny_gpt2, PROBLEMS[:3], arms, tmp_path / "out", progress=False)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="exists and holds no results"):
        measure(tiny_gpt2, PROBLEMS[:2], arms, tmp_path, progress=False)


def test_a_corrected_gold_answer_judges_anew_and_runs_nothing(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms, out = {"a": ablate_heads([(1, 7)], "zero")}, tmp_path / "out"
    before = measure(tiny_gpt2, PROBLEMS, arms, out, progress=False)
    assert before["correct"].tolist() == (before["correct"] == 1).tolist()
    monkeypatch.setattr(measuring, "_run", None)
    changed = [Problem(PROBLEMS[0].question, 10**6, PROBLEMS[0].id)]
    changed += [Problem(PROBLEMS[1].question, None, PROBLEMS[1].id), *PROBLEMS[2:]]
    after = measure(tiny_gpt2, changed, arms, out, progress=False)
    judged = ["correct", "n_right", "n_wrong"]
    pd.testing.assert_frame_equal(after.drop(columns=judged), before.drop(columns=judged))
    clean = after[after["arm"] == CLEAN]["correct"]
    assert clean.iloc[0] == 0
    assert np.isnan(clean.iloc[1])
    assert clean[2:].tolist() == before["correct"][2 : len(PROBLEMS)].tolist()
    stored = pd.read_parquet(out / "outcomes.parquet").set_index(["arm", "problem"])["correct"]
    pd.testing.assert_series_equal(
        stored[after.set_index(["arm", "problem"]).index],
        after.set_index(["arm", "problem"])["correct"],
    )
    again = measure(tiny_gpt2, PROBLEMS, arms, out, progress=False)
    pd.testing.assert_frame_equal(again, before)


def test_problems_come_as_anything_that_gives_them(tiny_gpt2: CodiModel) -> None:
    few = PROBLEMS[:3]
    arms = {"a": ablate_heads([(1, 7)], "zero")}
    calls: dict[str, Callable[[Any], Any]] = {
        "measure": lambda given: measure(tiny_gpt2, given, arms, progress=False),
        "compare": lambda given: compare_interventions(tiny_gpt2, given, arms, progress=False),
        "heads": lambda given: sweep_heads(tiny_gpt2, given, [(1, 7)], progress=False),
        "edges": lambda given: sweep_edges(tiny_gpt2, given, "ct1", "ct0", progress=False),
        "layers": lambda given: sweep_layers(tiny_gpt2, given, "ct1", progress=False),
        "thoughts": lambda given: sweep_thoughts(tiny_gpt2, given, ["mean"], progress=False),
        "attributed": lambda given: attribute_heads(tiny_gpt2, given, progress=False),
        "thoughts attributed": lambda given: attribute_thoughts(
            tiny_gpt2, given, ["mean"], progress=False
        ),
    }
    for call in calls.values():
        pd.testing.assert_frame_equal(call(each for each in few), call(few))
    assert Donors(tiny_gpt2, iter(few)).ids == tuple(each.id for each in few)
    assert [len(half) for half in halves(iter(few))] == [1, 2]
    nothing: list[Any] = ["How many?", few[0], ["How many?"], 3, {"question": "How many?"}]
    for wrong in nothing:
        for call in (
            *calls.values(),
            partial(Donors, tiny_gpt2),
            halves,
            partial(verify, tiny_gpt2),
        ):
            with pytest.raises(ProblemError, match="problem"):
                call(wrong)
    for call in (restore, operand_swaps):
        for wrong in (*nothing[3:4], "pairs", few):
            with pytest.raises(ProblemError, match="operand_pairs does"):
                call(tiny_gpt2, wrong)  # type: ignore[arg-type]
    table = restore(tiny_gpt2, iter(operand_pairs(2)), "ct1", [0], progress=False)
    assert table["n"].tolist() == [2, 2]


def test_negative_seeds_are_refused_before_anything_runs(
    tiny_gpt2: CodiModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "_run", None)
    few: Any = PROBLEMS[:2]
    arms = {"a": ablate_heads([(1, 7)], "zero")}
    ranking = [(layer, head) for layer in range(3) for head in range(8)]
    seeded: list[Callable[[], Any]] = [
        lambda: compare_interventions(tiny_gpt2, few, arms, seed=-1),
        lambda: sweep_heads(tiny_gpt2, few, seed=-1),
        lambda: sweep_edges(tiny_gpt2, few, seed=-1),
        lambda: sweep_thoughts(tiny_gpt2, few, seed=-1),
        lambda: sweep_layers(tiny_gpt2, few, seed=-1),
        lambda: attribute_heads(tiny_gpt2, few, seed=-1),
        lambda: dose_response(tiny_gpt2, few, ranking, seed=-1),
        lambda: head_controls(tiny_gpt2, few, [(0, 0)], seed=-1),
        lambda: restore(tiny_gpt2, operand_pairs(2), seed=-1),
        lambda: operand_swaps(tiny_gpt2, operand_pairs(2), seed=-1),
        lambda: Donors(tiny_gpt2, few, seed=-1),
        lambda: halves(few, seed=-1),
    ]
    for call in seeded:
        with pytest.raises(CodiLensError, match="seed must be at least 0"):
            call()


def test_a_sweep_is_its_single_ablations(tiny_gpt2: CodiModel) -> None:
    heads = [(1, 7), (0, 3), (2, 1)]
    table = sweep_heads(tiny_gpt2, PROBLEMS, heads, mode="mean", progress=False)
    donors = Donors(tiny_gpt2, PROBLEMS)
    for row, head in zip(table.to_dict("records"), heads, strict=True):
        assert (row["layer"], row["head"]) == head
        arm = {"alone": ablate_heads([head], "mean", donors=donors)}
        alone = compare_interventions(tiny_gpt2, PROBLEMS, arm, progress=False).iloc[0]
        assert row["effect"] == pytest.approx(alone["effect"], abs=1e-4)
        assert row["changed"] == alone["changed"]
    named: Any
    for named in (["L1H7", "L0H3", "L2H1"], "L1H7,L0H3,L2H1"):
        again = sweep_heads(tiny_gpt2, PROBLEMS, named, mode="mean", progress=False)
        pd.testing.assert_frame_equal(again, table)


def test_replacing_a_thought_is_patching_what_enters_the_first_layer() -> None:
    # Not GPT-2, whose residual stream also holds positions, in which donors differ.
    llama = CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-llama")
    donors = Donors(llama, PROBLEMS, seed=1)
    thoughts = sweep_thoughts(llama, PROBLEMS, ["resample"], donors=donors, progress=False)
    layers = sweep_layers(llama, PROBLEMS, "thoughts", donors=donors, progress=False)
    first = layers[layers["layer"] == 0]
    assert first["position"].tolist() == thoughts["thought"].tolist()
    np.testing.assert_allclose(first["effect"], thoughts["effect"], atol=1e-4)
    assert thoughts["effect"].min() < -1
    last = sweep_layers(
        llama, PROBLEMS, "ct1", component="resid_post", donors=donors, progress=False
    )
    alone = patch_residual(2, "ct1", "resample", "resid_post", donors)
    expected = compare_interventions(llama, PROBLEMS, {"x": alone}, progress=False)
    assert last["effect"].tolist()[-1] == pytest.approx(expected["effect"][0], abs=1e-5)


def test_a_sweep_of_edges_is_its_single_cuts(tiny_gpt2: CodiModel) -> None:
    heads = [(1, 7), (2, 1)]
    queries = ["bot", "ct1", "eot"]
    table = sweep_edges(tiny_gpt2, PROBLEMS, queries, heads=heads, progress=False)
    pairs = list(zip(table["query"], table["key"], strict=True))
    assert pairs[:3] == [("bot", "question"), ("ct1", "question"), ("ct1", "bot")]
    assert len(pairs) == 1 + 3 + 8
    alone = compare_interventions(
        tiny_gpt2, PROBLEMS, {"x": knock_out("ct1", "question", heads)}, progress=False
    )
    assert table["effect"][1] == pytest.approx(alone["effect"][0], abs=1e-5)
    assert table["effect"][1] < -0.1
    every = sweep_edges(tiny_gpt2, PROBLEMS, "ct1", "question", progress=False)
    assert every["effect"][0] < table["effect"][1]


@pytest.mark.filterwarnings("ignore:The tokenizer has no token")  # for names inside a text
def test_a_question_that_fills_the_context_keeps_its_answer(tiny_gpt2: CodiModel) -> None:
    """Its answer is cut at the end of the context, hidden or not, as decoding cuts it."""
    context = tiny_gpt2.lens.cfg.n_ctx
    words = PROBLEMS[0].question
    filled = words
    around = tiny_gpt2.config.n_thoughts + len(tiny_gpt2.config.opening)
    around += len(tiny_gpt2.config.closing)
    while len(tiny_gpt2.tokenizer(f"{words} {filled}")["input_ids"]) + around <= context - 2:
        filled = f"{words} {filled}"
    problem = Problem(filled, 1, "full")
    arm = ablate_heads([(1, 7)], "zero")
    found = measure(tiny_gpt2, [problem], {"arm": arm}, progress=False).set_index("arm")
    for name, interventions in ((CLEAN, []), ("arm", [arm])):
        run = tiny_gpt2.think([filled], ids=["full"], interventions=interventions)
        assert found.loc[name, "answer"] == run.answers[0]


def test_summaries_are_what_the_outcomes_say(tiny_gpt2: CodiModel) -> None:
    outcomes = measure(tiny_gpt2, PROBLEMS, {"x": ablate_heads([(1, 7)], "zero")}, progress=False)
    row = summarise(outcomes).iloc[0]
    clean, other = (outcomes[outcomes["arm"] == arm].reset_index() for arm in (CLEAN, "x"))
    assert row["effect"] == pytest.approx((other["log_prob"] - clean["log_prob"]).mean())
    assert row["accuracy"] == other["correct"].mean()
    assert row["changed"] == (other["number"] != clean["number"]).mean()
    assert row["effect_low"] <= row["effect"] <= row["effect_high"]


def test_the_logit_difference_is_positive_where_the_clean_number_is_chosen(
    tiny: CodiModel,
) -> None:
    clean = measure(tiny, PROBLEMS, {"x": ablate_heads([(0, 0)], "zero")}, progress=False)
    clean = clean[clean["arm"] == CLEAN]
    assert (clean["logit_difference"] > 0).all()
    assert (clean["log_prob"] < 0).all()


def test_the_margin_is_over_what_the_run_itself_prefers(tiny: CodiModel) -> None:
    arm = ablate_heads([(1, 7)], "zero", "all")
    outcomes = measure(tiny, PROBLEMS, {"x": arm}, progress=False)
    clean, other = (outcomes[outcomes["arm"] == name].reset_index() for name in (CLEAN, "x"))
    pd.testing.assert_series_equal(
        clean["logit_margin"], clean["logit_difference"], check_names=False
    )
    assert (other["logit_margin"] <= other["logit_difference"] + 1e-6).all()
    answers = tiny.think([each.question for each in PROBLEMS]).answers
    run = tiny.think(
        [each.question for each in PROBLEMS],
        ids=[each.id for each in PROBLEMS],
        interventions=arm,
        answers=answers,
    )
    for row, anchor in enumerate(run.layout.anchors):
        assert anchor is not None
        # The number's first token is what comes here exactly where the margin is above 0.
        likeliest = float(run.answer_log_probs[row][anchor]) > np.log(0.5)  # type: ignore[index]
        assert not likeliest or other["logit_margin"][row] > 0
    changed = other["changed"].to_numpy(dtype=bool)
    assert changed.any() and (other["logit_margin"][changed] < 0).any()
    table = summarise(outcomes)
    assert table["margin_effect"][0] <= table["logit_effect"][0]


def test_only_keeps_the_problems_whose_clean_answer_was_right_or_wrong(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    wrong = {PROBLEMS[i].id for i in (1, 4)}
    unknown = {PROBLEMS[5].id}
    problems = [
        Problem(each.question, None if each.id in unknown else 10**6, each.id)
        if each.id in wrong | unknown
        else each
        for each in PROBLEMS
    ]
    arms, out = {"x": ablate_heads([(1, 7)], "zero")}, tmp_path / "out"
    every = measure(tiny_gpt2, problems, arms, out, progress=False)
    strata: tuple[Only, ...] = ("right", "wrong")
    kept: dict[Only, pd.DataFrame] = {
        only: measure(tiny_gpt2, problems, arms, out, only=only, progress=False) for only in strata
    }
    assert set(kept["wrong"]["problem"]) == wrong
    assert set(kept["right"]["problem"]) == {each.id for each in PROBLEMS} - wrong - unknown
    for table in (every, *kept.values()):
        assert table[["n_right", "n_wrong"]].drop_duplicates().values.tolist() == [[4, 2]]
    row = summarise(every).iloc[0]
    assert (row["n"], row["n_right"], row["n_wrong"]) == (7, 4, 2)
    for only, table in kept.items():
        alone = compare_interventions(tiny_gpt2, problems, arms, only=only, progress=False).iloc[0]
        assert alone["n"] == len(table) / 2 and alone["n_wrong"] == 2
        assert row[f"effect_{only}"] == pytest.approx(alone["effect"])
        assert row[f"effect_{only}_low"] == pytest.approx(alone["effect_low"])
    with pytest.raises(InterventionError, match="No clean answer is wrong: of 7, 7 are right, 0"):
        measure(tiny_gpt2, PROBLEMS, arms, only="wrong", progress=False)


def test_median_and_share_and_what_matters_are_what_the_changes_say() -> None:
    rng = np.random.default_rng(4)
    n = 60
    losses = {
        "common": -rng.exponential(2, n),
        "small": -rng.exponential(0.02, n),
        "gain": rng.exponential(2, n),
    }
    tables = [
        pd.DataFrame({"problem": range(n), "arm": name, "log_prob": values - 0.1})
        for name, values in ({CLEAN: np.zeros(n)} | losses).items()
    ]
    outcomes = pd.concat(tables).assign(
        logit_difference=0.0, logit_margin=0.0, changed=False, correct=1.0, change_ct0=0.0
    )
    table = summarise(outcomes).set_index("arm")
    for name, values in losses.items():
        assert number(table, name, "effect_median") == pytest.approx(np.median(values))
        assert number(table, name, "affected") == (abs(values) >= 0.1).mean()
    assert (table["q"] < 0.001).all()  # none is 0, but one is too small to matter
    assert table["matters"].to_dict() == {"common": True, "small": False, "gain": True}
    assert needed(table).index.tolist() == ["common"]
    smaller = summarise(outcomes, min_effect=0.001)
    assert smaller["matters"].all() and (smaller["min_effect"] == 0.001).all()
    with pytest.raises(CodiLensError, match="min_effect is at least 0, not -1"):
        check_min_effect(-1)


def test_several_scopes_in_one_sweep_are_as_each_by_itself(tiny_gpt2: CodiModel) -> None:
    heads, donors = [(1, 7), (2, 1), (0, 2)], Donors(tiny_gpt2, word_problems(9, seed=8))
    scopes: dict[str, Any] = {"thinking": "thinking", "late": ["ct4", "eot"], "bot": "bot"}
    settings: dict[str, Any] = {"donors": donors, "progress": False}
    swept = sweep_heads(tiny_gpt2, PROBLEMS, heads, at=scopes, **settings)
    assert swept["scope"].tolist() == [name for name in scopes for _ in heads]
    assert swept["name"].tolist() == ["L1H7", "L2H1", "L0H2"] * 3
    columns = ["effect", "effect_low", "q", "beyond_q", "mcnemar_q", "margin_effect"]
    for name, scope in scopes.items():
        alone = sweep_heads(tiny_gpt2, PROBLEMS, heads, at=scope, **settings)
        some = swept[swept["scope"] == name]
        np.testing.assert_allclose(some[columns], alone[columns], atol=2e-3)
        assert some["matters"].tolist() == alone["matters"].tolist()
    assert alone["scope"].unique().tolist() == ["bot"]
    every = each_position(tiny_gpt2.config.n_thoughts)
    assert list(every) == list(key_names(6))
    with pytest.raises(CodiLensError, match="There is no scope"):
        sweep_heads(tiny_gpt2, PROBLEMS, heads, at={}, **settings)
    with pytest.raises(CodiLensError, match="no position 'ct9'"):
        sweep_heads(tiny_gpt2, PROBLEMS, heads, at={"x": "ct9"}, **settings)


def test_dose_response_prefers_a_ranking_by_effect_over_its_reverse(
    tiny_gpt2: CodiModel,
) -> None:
    heads = [(layer, head) for layer in range(3) for head in range(8)]
    first, second = halves(word_problems(16, seed=5))
    effects = sweep_heads(tiny_gpt2, first, mode="mean", progress=False)
    ranking = [heads[i] for i in np.argsort(effects["effect"].to_numpy())]
    settings: dict[str, Any] = {"ks": [1, 3], "n_random": 4, "mode": "mean", "progress": False}
    best = dose_response(tiny_gpt2, second, ranking, **settings)
    worst = dose_response(tiny_gpt2, second, ranking[::-1], **settings)
    assert best.area > 0 > worst.area
    assert best.low > 0
    assert best.p == pytest.approx(1 / 5)
    assert worst.p > best.p


def test_controls_are_matched_by_layer_and_placed_where_nothing_is_generated(
    tiny_gpt2: CodiModel,
) -> None:
    heads = [(0, 1), (1, 7), (1, 0)]
    for seed in range(20):
        matched = matched_heads(heads, 8, seed=seed)
        assert [layer for layer, _ in matched] == [0, 1, 1]
        assert not set(matched) & set(heads)
    arms = head_controls(tiny_gpt2, PROBLEMS, heads, n_random=2)
    table = compare_interventions(tiny_gpt2, PROBLEMS, arms, progress=False).set_index("arm")
    assert list(table.index) == [
        "heads, resample",
        "heads, mean",
        "heads, zero",
        "random 1, resample",
        "random 2, resample",
        "heads at ct5, resample",
    ]
    assert number(table, "heads at ct5, resample", "thought_change") < 1e-6
    assert abs(number(table, "heads at ct5, resample", "effect")) < 0.01
    assert number(table, "heads, resample", "thought_change") > 0.1
    assert "heads at ct5, resample" not in head_controls(tiny_gpt2, PROBLEMS, heads, at="thoughts")


def test_halves_share_no_problem_and_lose_none() -> None:
    first, second = halves(PROBLEMS, seed=1)
    ids = {problem.id for problem in first} | {problem.id for problem in second}
    assert ids == {problem.id for problem in PROBLEMS}
    assert len(first) + len(second) == len(PROBLEMS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L0H3,H5", "'H5' names no head; write heads like L0H3,L5H3"),
        ("L3H0", "no head L3H0; the model has L0H0 to L2H7"),
        ("L1H1,L1H1", "L1H1 is given twice"),
    ],
)
def test_names_of_heads_are_checked(text: str, message: str) -> None:
    with pytest.raises(CodiLensError, match=message):
        parse_heads(text, 3, 8)


def test_mistakes_are_named(tiny_gpt2: CodiModel) -> None:
    arm = ablate_heads([(0, 0)], "zero")
    with pytest.raises(ProblemError, match="occurs twice"):
        measure(tiny_gpt2, [PROBLEMS[0], PROBLEMS[0]], {"a": arm}, progress=False)
    with pytest.raises(InterventionError, match="no intervention to measure"):
        measure(tiny_gpt2, PROBLEMS, {}, progress=False)
    with pytest.raises(InterventionError, match="'clean' is the name of the runs without"):
        measure(tiny_gpt2, PROBLEMS, {CLEAN: arm}, progress=False)
    with pytest.raises(InterventionError, match="holds 1 of the model's 24 heads"):
        dose_response(tiny_gpt2, PROBLEMS, [(0, 0)], progress=False)
    with (
        tiny_gpt2.lens.hooks(fwd_hooks=[("hook_embed", lambda x, hook: x)]),  # type: ignore[list-item]
        pytest.raises(InterventionError, match="carries hooks of its own"),
    ):
        measure(tiny_gpt2, PROBLEMS, {"a": arm}, progress=False)


def test_a_measurement_leaves_no_hook_and_no_gradient(tiny_gpt2: CodiModel) -> None:
    measure(tiny_gpt2, PROBLEMS[:2], {"a": ablate_heads([(0, 0)], "zero")}, progress=False)
    assert all(not point.fwd_hooks for point in tiny_gpt2.lens.hook_dict.values())
    assert torch.is_grad_enabled()


def test_the_command_writes_tables_figures_and_findings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["ablate", str(ROOT / "checkpoints" / "tiny-gpt2"), "--n", "8", "--threads", "1"]
    arguments += ["--max-new-tokens", str(SHORT)]
    main([*arguments, "--all", "--mode", "mean", "--out", str(out)])
    effects = pd.read_csv(out / "heads.csv")
    assert len(effects) == 24
    assert effects["effect"].is_monotonic_increasing
    assert (out / "figures" / "causal_map.html").is_file()
    places = pd.read_csv(out / "heads_by_position.csv")
    assert places["scope"].unique().tolist() == ["thinking", *key_names(6)]
    pooled = places[places["scope"] == "thinking"].sort_values("effect", ignore_index=True)
    pd.testing.assert_frame_equal(pooled, effects)
    assert "Which heads does the answer need?" in (out / "index.html").read_text()
    scores = pd.read_csv(out / "score_vs_effect.csv")
    assert scores["view"].unique().tolist() == [
        "baseline",
        "position view",
        "position view, value-weighted",
        "generation view",
        "reading",
        "reading, value-weighted",
    ]
    assert len(pd.read_csv(out / "output_changes.csv")) == 24
    assert pd.read_csv(out / "effect_reliability.csv")["n_problems"].tolist() == [4, 4]
    assert "Of 24 heads" in capsys.readouterr().out
    pooled_only = ["--no-by-position", "--min-effect", "9", "--out", str(tmp_path / "pooled")]
    main([*arguments, "--all", "--mode", "mean", *pooled_only])
    assert not (tmp_path / "pooled" / "heads_by_position.csv").exists()
    found = capsys.readouterr().out
    assert (
        "0 are needed at thinking (mean; more than 9 nats lost, q < 0.05; 4 problems"
        in " ".join(found.split())
    )
    with pytest.raises(SystemExit):
        main([*arguments, "--all", "--heads", "L0H1", "--out", str(out)])
    assert "exactly one of --heads, --top and --all" in capsys.readouterr().err
