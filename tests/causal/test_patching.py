"""Patching brings over what it should: pairs, restoration and running totals."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch

from codi_lens import CodiModel, Intervention
from codi_lens.causal.measure import CLEAN, measure
from codi_lens.causal.restoration import restore
from codi_lens.causal.running_totals import (
    ALONE,
    COUNTERPART,
    UNRELATED,
    UP_TO,
    _prediction,
    carried_totals,
    operand_swaps,
    total_swaps,
)
from codi_lens.errors import InterventionError, OutputError, PositionError, ProblemError
from codi_lens.interventions import Donors, ablate_heads, fraction_recovered, swap_thoughts
from codi_lens.plots.causal.pairs import restoration_map, thought_swap_matrix, total_swap_matrix
from codi_lens.problems import (
    Operation,
    Problem,
    WordProblem,
    parse_answer,
    word_problems,
)
from codi_lens.problems.operations import split_of, totals_of
from codi_lens.problems.pairs import Pair, both_problems, operand_pairs
from codi_lens.problems.words import with_one_operand_changed
from codi_lens.reports.pages.section import report_page
from codi_lens.reports.questions import pairs as questions
from codi_lens.reports.questions.pairs import restoration_section, running_totals_section

FREE = 2e-5
# The tiny models' answers have fewer tokens; what an intervention broke would talk on to 64.
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}
THREE = operand_pairs(8, seed=4)
PAIRS = {n: operand_pairs(k, seed=5, n_operations=n) for n, k in ((3, 48), (4, 15))}


@pytest.mark.parametrize("n_operations", [2, 3, 5])
def test_pairs_differ_in_one_number_that_lasts_to_the_answer(n_operations: int) -> None:
    pairs = operand_pairs(24, seed=2, n_operations=n_operations)
    assert pairs == operand_pairs(30, seed=2, n_operations=n_operations)[:24]
    for place, pair in enumerate(pairs):
        clean, other = pair.clean, pair.corrupted
        assert isinstance(clean, WordProblem) and isinstance(other, WordProblem)
        operand = place % (n_operations + 1)
        assert pair.operand == operand
        words = [problem.question.split() for problem in (clean, other)]
        different = [(a, b) for a, b in zip(*words, strict=True) if a != b]
        assert len(different) == 1
        assert all(word.strip(".,").isdecimal() for word in different[0])
        sentences = [problem.question.split(". ") for problem in (clean, other)]
        assert [a == b for a, b in zip(*sentences, strict=True)].index(False) == operand
        same = [a == b for a, b in zip(clean.totals, other.totals, strict=True)]
        assert same == [step < operand for step in range(1, n_operations + 1)]
        assert {split_of(p.start, p.operations) for p in (clean, other)} == {"test"}
        for problem in (clean, other):
            total = problem.start
            for operation in problem.operations:
                total = operation.apply(total)
            assert total == problem.answer == problem.totals[-1]
    assert len({problem.id for problem in both_problems(pairs)}) == 48
    assert len({(str(p.clean.question)) for p in pairs}) == 24


@pytest.mark.parametrize("n_operations", [3, 4, 5])
def test_pairs_of_a_family_refer_back_and_may_differ_in_what_to(n_operations: int) -> None:
    pairs = operand_pairs(25, seed=2, n_operations=n_operations, family="mixed")
    assert all(problem.edges for pair in pairs for problem in (pair.clean, pair.corrupted))
    assert {pair.operand for pair in pairs} == set(range(n_operations + (n_operations > 3)))
    for pair in pairs:
        clean, other = pair.clean, pair.corrupted
        assert isinstance(clean, WordProblem) and isinstance(other, WordProblem)
        differ = [a != b for a, b in zip(clean.operations, other.operations, strict=True)]
        assert [clean.start != other.start, *differ].index(True) == pair.operand
        assert sum(differ) + (clean.start != other.start) == 1
        assert totals_of(other.start, other.operations) == other.totals
        assert other.answer != clean.answer
    moved = [pair for pair in pairs if pair.clean.edges != pair.corrupted.edges]
    assert bool(moved) == (n_operations > 3)


def test_pairs_that_cannot_be_had_are_refused() -> None:
    with pytest.raises(ProblemError, match=r"only \d+ pairs of problems with 1 operations"):
        operand_pairs(900, n_operations=1)
    with pytest.raises(ProblemError, match=r"has the operands 0\.\.3, not 4"):
        assert isinstance(THREE[0].clean, WordProblem)
        with_one_operand_changed(THREE[0].clean, 4)
    with pytest.raises(ProblemError, match="occurs twice in the pairs"):
        both_problems([THREE[0], THREE[0]])


def mutual(pairs: list[Pair]) -> dict[str, str]:
    there = {pair.clean.id: pair.corrupted.id for pair in pairs}
    return there | {other: own for own, other in there.items()}


def difference(
    model: CodiModel, problem: Problem, own: Any, other: Any, patches: list[Any] | None = None
) -> float:
    """The logit difference of two numbers after "The answer is:", one problem at a time."""
    log_probs = []
    for number in (own, other):
        run = model.think(
            [problem.question],
            answers=[f"The answer is: {number}"],
            ids=[problem.id],
            interventions=patches or [],
        )
        assert run.answer_log_probs is not None
        anchor = run.layout.anchors[0]
        assert anchor is not None
        log_probs.append(float(run.answer_log_probs[0][anchor]))
    return log_probs[0] - log_probs[1]


def clean_number(model: CodiModel, problem: Problem) -> Any:
    return parse_answer(model.think([problem.question]).answers[0])


def test_a_rival_is_what_the_logit_difference_is_over(tiny: CodiModel) -> None:
    problems, rivals = both_problems(THREE[:3]), mutual(THREE[:3])
    arms = {"x": ablate_heads([(1, 7)], "zero")}
    table = measure(tiny, problems, arms, rivals=rivals, problems_at_once=5, **QUIET)
    rows = table[table["arm"] == CLEAN].set_index("problem")
    numbers = {problem.id: clean_number(tiny, problem) for problem in problems}
    for problem in problems:
        expected = difference(tiny, problem, numbers[problem.id], numbers[rivals[problem.id]])
        assert rows.loc[problem.id, "logit_difference"] == pytest.approx(expected, abs=1e-3)
    plain = measure(tiny, problems, arms, problems_at_once=5, **QUIET)
    assert (table["log_prob"] == plain["log_prob"]).all()
    assert (table["logit_difference"] >= plain["logit_difference"] - 1e-4)[: len(rows)].all()


def test_rivals_are_checked_and_kept_apart_on_disk(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    problems, rivals = both_problems(THREE[:2]), mutual(THREE[:2])
    arms = {"x": ablate_heads([(1, 7)], "zero")}
    for bad in ({}, rivals | {problems[0].id: "nobody"}, {p.id: p.id for p in problems}):
        with pytest.raises(InterventionError, match="The rival of"):
            measure(tiny_gpt2, problems, arms, rivals=bad, **QUIET)
    measure(tiny_gpt2, problems, arms, tmp_path / "out", rivals=rivals, **QUIET)
    with pytest.raises(OutputError, match="their rivals differ"):
        measure(tiny_gpt2, problems, arms, tmp_path / "out", **QUIET)


def test_swaps_with_other_donors_are_not_resumed(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    problems = [pair.clean for pair in THREE[:4] if isinstance(pair.clean, WordProblem)]
    whole = total_swaps(tiny_gpt2, problems, tmp_path / "out", **QUIET)
    pd.testing.assert_frame_equal(
        total_swaps(tiny_gpt2, problems, tmp_path / "out", **QUIET), whole
    )
    with pytest.raises(OutputError, match="their arms differ"):
        total_swaps(tiny_gpt2, problems, tmp_path / "out", seed=3, **QUIET)


def test_everything_read_of_a_run_restores_it_whole_and_what_is_the_same_nothing(
    tiny: CodiModel,
) -> None:
    places = {"all": ["question", "bot", "thoughts"], "question": "question", "bot": "bot"}
    table = restore(tiny, THREE, places | {"eot": "eot"}, [0], **QUIET)
    assert table["direction"].value_counts().tolist() == [4, 4]
    fractions = table.set_index(["position", "direction"])["fraction"]
    for whole in ("all", "question"):
        np.testing.assert_allclose(fractions[whole], 1, atol=FREE)
    for same in ("bot", "eot"):  # the token there is the same in both runs
        np.testing.assert_allclose(fractions[same], 0, atol=FREE)
    assert (table["n_known"] == len(THREE)).all()


def test_a_fraction_is_the_pooled_one_of_patches_by_hand(tiny: CodiModel) -> None:
    layer, position, component, some = 1, "ct1", "mlp_out", THREE[:3]
    hook_name = f"blocks.{layer}.hook_{component}"
    found = restore(tiny, some, position, [layer], component, **QUIET).set_index("direction")
    numbers = {problem.id: clean_number(tiny, problem) for problem in both_problems(some)}

    def ends(source: Problem, into: Problem) -> list[float]:
        run = tiny.think([source.question], names_filter=hook_name)
        value = run.cache()[hook_name][0, int(run.index(position)[0])].clone()
        patch = Intervention([(hook_name, lambda x, hook: value.expand_as(x))], at=position)
        pair = numbers[source.id], numbers[into.id]
        return [
            difference(tiny, source, *pair),
            difference(tiny, into, *pair),
            difference(tiny, into, *pair, [patch]),
        ]

    for direction, rows in {
        "clean into corrupted": [ends(pair.clean, pair.corrupted) for pair in some],
        "corrupted into clean": [ends(pair.corrupted, pair.clean) for pair in some],
    }.items():
        expected = fraction_recovered(*torch.tensor(rows).double().mean(dim=0))
        row: Any = found.loc[direction]
        assert row["fraction"] == pytest.approx(float(expected), abs=1e-4)
        assert row["whole"] == pytest.approx(np.mean([a - b for a, b, _ in rows]), abs=1e-3)
        assert row["shift"] == pytest.approx(np.mean([c - b for _, b, c in rows]), abs=1e-3)
        assert row["fraction_low"] <= row["fraction"] <= row["fraction_high"]


def test_what_generates_the_thoughts_is_patched_as_if_they_were_swapped(tiny: CodiModel) -> None:
    last = tiny.lens.cfg.n_layers - 1
    row = restore(tiny, THREE, {"thinking": "thinking"}, [last], "resid_post", **QUIET).iloc[0]
    problems, rivals = both_problems(THREE), mutual(THREE)
    swap = swap_thoughts("thoughts", Donors(tiny, problems).paired(rivals))
    outcomes = measure(tiny, problems, {"swap": swap}, rivals=rivals, **QUIET)
    wide = outcomes.pivot(index="problem", columns="arm", values="logit_difference")
    into = wide.loc[[pair.corrupted.id for pair in THREE]]
    source = wide.loc[[pair.clean.id for pair in THREE]]
    moved = (into[CLEAN] - into["swap"]).mean()
    assert row["fraction"] == pytest.approx(
        moved / (into[CLEAN].mean() + source[CLEAN].mean()), abs=1e-4
    )
    assert row["fraction"] > 0.5


def test_a_pair_without_a_logit_difference_is_left_out(tiny_gpt2: CodiModel) -> None:
    text = "Zoe has {} coins. Then she finds {} more. How many coins does she have?"
    own = [
        Pair(Problem(text.format(a, b), None, f"{a}"), Problem(text.format(c, b), None, f"not {a}"))
        for a, b, c in ((14, 7, 19), (21, 5, 11), (30, 4, 12))
    ]
    same = Pair(Problem(text.format(20, 5), 25, "x"), Problem(text.format(21, 4), 25, "y"))
    assert clean_number(tiny_gpt2, same.clean) == clean_number(tiny_gpt2, same.corrupted)
    alone = restore(tiny_gpt2, own, "ct0", [1, 2], **QUIET)
    more = restore(tiny_gpt2, [*own, same], "ct0", [1, 2], **QUIET)
    assert set(alone["n_known"]) == set(more["n_known"]) == {3}
    assert set(more["n"]) == {4}
    for column in ("fraction", "fraction_low", "fraction_high", "shift", "p"):
        np.testing.assert_allclose(more[column], alone[column], atol=FREE)
    with pytest.raises(InterventionError, match="No pair has a logit difference"):
        restore(tiny_gpt2, [same], "ct0", [1], **QUIET)


def test_mistakes_of_restoration_are_named(tiny_gpt2: CodiModel) -> None:
    bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (PositionError, "have no tokens that correspond", {"at": "all"}),
        (PositionError, r"no layer 3; the model has 0\.\.2", {"layers": [3]}),
        (PositionError, "no position 'ct7'", {"at": "ct7"}),
        (InterventionError, "no direction 'up'", {"direction": "up"}),
        (InterventionError, "each of them once", {"layers": []}),
    ]
    for error, message, settings in bad:
        with pytest.raises(error, match=message):
            inspect.unwrap(restore)(tiny_gpt2, THREE, **settings, **QUIET)
    with pytest.raises(ProblemError, match="no pairs of problems"):
        restore(tiny_gpt2, [], **QUIET)


@pytest.fixture(scope="module")
def swaps(tiny: CodiModel) -> pd.DataFrame:
    return operand_swaps(tiny, [*PAIRS[3], *PAIRS[4]], **QUIET)


def test_a_thought_brings_over_the_operands_of_its_total_and_no_others(
    swaps: pd.DataFrame,
) -> None:
    """The tiny models were trained to keep the total after operation t+1 in ct{t}, up to the last
    operation, which the answer itself states."""
    for row in carried_totals(swaps[swaps["n_operations"] == 3]).to_dict("records"):
        thought = int(row["thought"][2:])
        assert row["clear"], row
        if thought < row["n_operations"] - 1:
            assert row["reaches"] == thought + 1, row
        else:
            assert pd.isna(row["reaches"]), row
    whole = swaps[(swaps["thought"] == "ct5") & (swaps["swapped"] == UP_TO)]
    paired = whole[whole["donor"] == COUNTERPART]
    before_last = paired["operand"] < paired["n_operations"]
    assert (paired[before_last]["donor_share"] > 0.8).all()
    assert (paired[~before_last]["own_share"] > 0.8).all()
    assert sorted(paired[~before_last]["operand"]) == [3, 4]
    assert (swaps[swaps["donor"] == UNRELATED]["donor_share_high"] < 0.5).all()


def test_shares_are_those_of_thoughts_fed_by_hand(tiny: CodiModel, swaps: pd.DataFrame) -> None:
    pairs = [pair for pair in PAIRS[3] if pair.operand == 2]
    donors = tiny.think([pair.corrupted.question for pair in pairs])
    clean = tiny.think([pair.clean.question for pair in pairs])
    right = [
        i
        for i, pair in enumerate(pairs)
        if parse_answer(clean.answers[i]) == pair.clean.answer
        and parse_answer(donors.answers[i]) == pair.corrupted.answer
    ]
    for thought in ("ct0", "ct1"):
        value = donors.thoughts[:, [int(thought[2:])]]
        feed = Intervention([("hook_embed", lambda x, hook, value=value: value)], at=thought)
        run = tiny.think([pair.clean.question for pair in pairs], interventions=[feed])
        given = [parse_answer(run.answers[i]) for i in right]
        chosen = swaps.query(
            "n_operations == 3 and donor == 'counterpart' and swapped == 'alone' "
            "and thought == @thought and operand == 2"
        )
        row = chosen.iloc[0]
        assert row["n"] == len(right)
        assert row["n_wrong"] == len(pairs) - len(right)
        assert row["donor_share"] == np.mean(
            [answer == pairs[i].corrupted.answer for i, answer in zip(right, given, strict=True)]
        )
        assert row["own_share"] == np.mean(
            [answer == pairs[i].clean.answer for i, answer in zip(right, given, strict=True)]
        )
        total = row["donor_share"] + row["own_share"] + row["neither_share"]
        assert total == pytest.approx(1)


def test_only_pairs_with_right_clean_answers_count(tiny_gpt2: CodiModel) -> None:
    first, *rest = [pair for pair in PAIRS[3] if pair.operand == 0]
    assert isinstance(first.corrupted, WordProblem)
    claimed = dataclasses.replace(first.corrupted, answer=48)
    table = operand_swaps(
        tiny_gpt2, [dataclasses.replace(first, corrupted=claimed), *rest], **QUIET
    )
    paired = table[table["donor"] == COUNTERPART]
    assert set(paired["n"] + paired["n_wrong"]) == {len(rest) + 1}
    assert (paired["n_wrong"] >= 1).all()
    assert (table[table["donor"] == UNRELATED]["n"] > paired["n"].max()).all()


def test_only_the_total_that_a_thought_holds_predicts_the_answer(tiny: CodiModel) -> None:
    table = total_swaps(tiny, word_problems(70, seed=2, n_operations=4), **QUIET)
    assert (table["n"] >= 20).all()
    for row in table.to_dict("records"):
        if row["operation"] == int(row["thought"][2:]) + 1:
            assert row["predicted_share_low"] > 0.75, row
            assert row["own_share"] < 0.15, row
        else:
            assert row["predicted_share_high"] < 0.25, row
        assert row["chance"] < 0.1, row
    by_thought = {str(thought): rows for thought, rows in table.groupby("thought")}
    assert (by_thought["ct5"]["own_share"] > 0.9).all()
    assert by_thought["ct5"]["effect"].min() > 0.05 * by_thought["ct0"]["effect"].max()
    assert (by_thought["ct0"]["q"] < 0.001).all()


def test_predictions_that_cannot_be_told_apart_are_not_made() -> None:
    add = [Operation("add", amount, verb="finds") for amount in (2, 3, 4, 5)]
    halve = Operation("halve_if_over", threshold=20, verb="halves")

    def story(start: int, *operations: Operation) -> WordProblem:
        totals = totals_of(start, operations)
        return WordProblem("", totals[-1], "", start, operations, totals)

    own, donor = story(10, add[0], halve), story(30, add[3], add[1])
    assert [_prediction(own, donor, k) for k in (0, 1, 2)] == [16, 17, 38]
    same = story(30, add[0], add[1])  # the donor's first operation is the problem's own
    assert [_prediction(own, same, k) for k in (0, 1, 2)] == [None, None, 35]
    assert _prediction(story(10, add[0]), story(10, add[3]), 0) is None  # the own answer
    assert _prediction(story(10, add[0]), story(48, halve), 0) is None  # over 49


def test_a_total_that_reaches_no_clear_end_is_called_unclear() -> None:
    table = pd.DataFrame(
        [("ct0", 0, 0.8, 1.0), ("ct0", 1, 0.3, 0.7), ("ct1", 0, 0.0, 0.2), ("ct1", 1, 0.8, 1.0)],
        columns=["thought", "operand", "donor_share_low", "donor_share_high"],
    ).assign(n_operations=1, donor=COUNTERPART, swapped=ALONE)
    found = carried_totals(table)
    assert found["clear"].tolist() == [False, False]
    assert found["sentence"].str.contains("not clearly").all()
    with pytest.raises(InterventionError, match="give what operand_swaps returns"):
        carried_totals(table.drop(columns="donor"))


def test_totals_need_problems_whose_totals_are_known(tiny_gpt2: CodiModel) -> None:
    plain = [Pair(Problem("1+1?", 2, "a"), Problem("1+2?", 3, "b"), 0)]
    with pytest.raises(ProblemError, match="running totals of 'a' are not known"):
        operand_swaps(tiny_gpt2, plain, **QUIET)
    with pytest.raises(ProblemError, match="names no operand"):
        operand_swaps(tiny_gpt2, [dataclasses.replace(THREE[0], operand=None)], **QUIET)
    with pytest.raises(InterventionError, match="has no unrelated donor among 1"):
        operand_swaps(tiny_gpt2, THREE[:1], **QUIET)


def heatmaps(figure: go.Figure) -> list[Any]:
    traces: Any = figure.data
    return [trace for trace in traces if isinstance(trace, go.Heatmap)]


def test_figures_draw_every_cell_on_one_fixed_scale(tiny_gpt2: CodiModel) -> None:
    restored = restore(tiny_gpt2, THREE, ["ct0", "ct1", "bot"], **QUIET)
    figure = restoration_map(restored, "corrupted into clean")
    (cells,) = heatmaps(figure)
    rows = restored[restored["direction"] == "corrupted into clean"]
    assert list(cells.x) == ["bot", "ct0", "ct1"]
    expected = rows.pivot(index="layer", columns="position", values="fraction")
    np.testing.assert_array_equal(cells.z, expected[list(cells.x)])
    axis = figure.layout.coloraxis  # pyright: ignore[reportAttributeAccessIssue]
    assert (axis.cmin, axis.cmax) == (0, 1)
    drawn: Any = next(trace for trace in figure.data if isinstance(trace, go.Scatter))
    unsure = (rows["fraction_low"] <= 0) & (rows["fraction_high"] >= 0)
    assert sum(text.startswith("○") for text in drawn.text) == int(unsure.sum()) > 0
    with pytest.raises(InterventionError, match="no rows of the direction"):
        restoration_map(rows, "clean into corrupted")
    with pytest.raises(InterventionError, match="give what restore returns"):
        restoration_map(rows.drop(columns="layer"))
    other = restored.assign(component="mlp_out")
    with pytest.raises(InterventionError, match="resid_pre, mlp_out; draw one at a time"):
        restoration_map(pd.concat([restored, other]))


def test_swap_matrices_have_a_panel_for_each_length(swaps: pd.DataFrame) -> None:
    figure = thought_swap_matrix(swaps)
    three, four = heatmaps(figure)
    assert list(three.x) == ["start", "op. 1", "op. 2", "op. 3", "unrelated"]
    assert list(four.y) == [f"ct{i}" for i in range(6)]
    single = swaps[(swaps["swapped"] == ALONE) & (swaps["n_operations"] == 4)]
    paired = single[single["donor"] == COUNTERPART]
    expected = paired.pivot(index="thought", columns="operand", values="donor_share")
    np.testing.assert_array_equal(np.array(four.z)[:, :-1], expected)
    assert len(heatmaps(thought_swap_matrix(swaps, 3, UP_TO))) == 1
    with pytest.raises(InterventionError, match="no such swaps"):
        thought_swap_matrix(swaps, 5)
    with pytest.raises(InterventionError, match="give what total_swaps returns"):
        total_swap_matrix(swaps)


def test_sections_state_the_numbers_of_their_tables(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    first = restoration_section(
        tiny_gpt2, THREE, tmp_path / "a", at="thinking", components=["mlp_out"], **QUIET
    )
    table = first.tables["restoration_mlp_out"]
    best = table[table["direction"] == "clean into corrupted"]["fraction"].max()
    assert f"{best:.2f}" in first.findings[0]
    assert "none of 18 points is shown to move" in first.findings[0], "of eight pairs"
    moved, *_ = questions._about_restoration(table.assign(q=0.01), "mlp_out")
    assert (
        f"brings over most (the largest of 18 points, chosen on the same pairs), {best:.2f} ["
        in moved
    )
    assert (tmp_path / "a" / "mlp_out" / "outcomes.parquet").is_file()
    second = running_totals_section(tiny_gpt2, PAIRS[3][:20], tmp_path / "b", **QUIET)
    assert "ct0 after 1, ct1 after 2; alone followed for no operand: ct2" in second.findings[0]
    assert {"operands", "totals"} == {path.name for path in (tmp_path / "b").iterdir()}
    for row in second.tables["total_swaps"].nlargest(2, "predicted_share").to_dict("records"):
        assert f"{row['thought']} {100 * row['predicted_share']:.0f} %" in second.findings[1]
    page = report_page("tiny-gpt2", {}, [first, second])
    assert "Which thought carries which running total?" in page
