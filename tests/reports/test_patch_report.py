"""The patch report says what was asked, of what, and no more than its numbers show."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from support.constructed import block, from_blocks
from support.oracle import ROOT

from codi_lens import CodiModel
from codi_lens.causal.effects import check_known
from codi_lens.causal.hub_moves import hub_moves, hub_of
from codi_lens.causal.restoration import restore
from codi_lens.errors import AttentionError, InterventionError, PositionError, ProblemError
from codi_lens.problems import Problem, word_problems
from codi_lens.problems.operations import split_of
from codi_lens.problems.pairs import Pair, counterparts, operand_pairs, random_pairs
from codi_lens.reports.patch import patch_positions
from codi_lens.reports.questions.pairs import restoration_section, running_totals_section
from codi_lens.reports.questions.positions import about_edges, about_groups, about_hub

# The tiny models' answers have fewer tokens; what an intervention broke would talk on to 64.
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}
SHORT: dict[str, Any] = QUIET | {"max_new_tokens": 2}


@pytest.fixture(scope="module")
def short_models() -> dict[int, CodiModel]:
    folder = ROOT / "checkpoints" / "tiny-gpt2"
    return {n: CodiModel.from_pretrained(folder, n_thoughts=n) for n in (1, 2)}


def unanswered(n: int, seed: int = 1) -> list[Problem]:
    return [Problem(each.question, None, each.id) for each in word_problems(n, seed=seed)]


def hub_attention(strength: float) -> xr.DataArray:
    """Attention to ct1 with this share in every later row, a little of it differing by problem."""
    problems = []
    for extra in (0.0, 0.01, 0.02):
        cells = block("uniform").copy()
        cells[2:, 1] = strength + extra
        problems.append([[cells]])
    return from_blocks(np.array(problems))


def test_a_hub_comes_with_its_interval_and_its_test() -> None:
    hub = hub_of(hub_attention(0.6))
    assert (hub.thought, hub.significant) == ("ct1", True)
    assert 1 < hub.low <= hub.ratio <= hub.high
    assert hub.p < 0.05
    assert "no thought is a hub" not in about_hub(hub)
    for column in (hub.low, hub.ratio, hub.high):
        assert f"{column:.2f}" in about_hub(hub)
    flat = np.stack([[[block("uniform")]]] * 3)
    none = hub_of(from_blocks(flat))
    assert not none.significant
    assert "no thought is a hub" in about_hub(none)
    late = dataclasses.replace(hub, p=0.28, p_smallest=0.28)
    assert not late.significant
    assert "no pattern could give it a p below 0.280" in about_hub(late)
    unsure = dataclasses.replace(hub, low=0.9)
    assert "no thought is a hub" in about_hub(unsure)
    assert "no pattern could" not in about_hub(unsure)
    with pytest.raises(AttentionError, match="none can be a hub"):
        hub_of(from_blocks(0 * flat))


def group(arm: str, **values: Any) -> dict[str, Any]:
    row = {"arm": arm, "n": 40, "n_known": 40, "p": 0.5, "effect": 0.01, "min_effect": 0.1}
    row |= {"effect_low": -0.02, "effect_high": 0.03}
    return row | {"changed": 0.4, "changed_low": 0.3, "changed_high": 0.5} | values


def test_sentences_on_edges_say_only_what_their_numbers_show() -> None:
    [held, words] = about_groups(pd.DataFrame([group("between thoughts")]))
    assert "the very vector" in held and "0.010 [−0.020, 0.030] nats" in held
    assert "40% [30%, 50%] of 40 problems" in words and "is unchanged" in words
    costly = pd.DataFrame([group("between thoughts", effect=-0.08, effect_low=-0.3)])
    [only] = about_groups(costly)
    assert "very vector" not in only and "−0.080 [−0.300, 0.030]" in only
    for values in (
        {"effect_low": -0.2},
        {"effect_high": 0.2},
        {"n_known": 19},
        {"changed": 0.12, "changed_low": 0.03},
    ):
        assert about_groups(pd.DataFrame([group("eot → thoughts", **values)])) == []
    edges = pd.DataFrame(
        [("bot", "question", -2.0, True), ("ct1", "ct0", -0.2, False), ("ct2", "ct0", 1.0, True)],
        columns=["query", "key", "effect", "matters"],
    ).assign(min_effect=0.1)
    assert about_edges(edges) == (
        "Of 3 single edges, 1 is needed (more than 0.1 nats lost, q < 0.05): bot → question −2.00."
    )
    assert about_edges(edges[1:2]).startswith("Of 1 single edge, 0 are needed")


def test_pairs_for_totals_are_of_the_family_that_the_model_learnt(tmp_path: Path) -> None:
    """Pairs of another family would hold words that its tokenizer lacks, which warns."""
    model = CodiModel.from_pretrained("tiny-recall")
    given = word_problems(4, family="mixed")
    patch_positions(model, given, tmp_path / "out", questions=["totals"], n_pairs=5, **QUIET)
    swaps = pd.read_csv(tmp_path / "out" / "total_swaps.csv")
    assert set(swaps["n_operations"]) == {3, 4, 5}


def test_counterparts_are_those_of_the_given_problems() -> None:
    given = word_problems(60, seed=3)
    pairs = counterparts(given, seed=1)
    assert pairs == counterparts(given, seed=1) != counterparts(given, seed=2)
    kept = {problem.id for problem in given}
    assert 0 < len(pairs) < len(given)
    assert all(pair.clean in given for pair in pairs)
    for pair in pairs:
        clean: Any = pair.clean
        other: Any = pair.corrupted
        assert clean.id in kept and clean.answer != other.answer
        words = zip(clean.question.split(), other.question.split(), strict=True)
        assert sum(a != b for a, b in words) == 1
        assert split_of(clean.start, clean.operations) == split_of(other.start, other.operations)
    training = counterparts(word_problems(20, seed=3, split="train"))
    assert len(training) == 20
    assert all(split_of(p.corrupted.start, p.corrupted.operations) == "train" for p in training)  # type: ignore[attr-defined]


def test_problems_without_answers_are_paired_by_position() -> None:
    pairs = random_pairs(unanswered(7), seed=1)
    assert len({p.id for pair in pairs for p in (pair.clean, pair.corrupted)}) == 6
    same = [Problem(f"{i}?", 3, f"{i}") for i in range(4)]
    with pytest.raises(ProblemError, match="different answers"):
        random_pairs(same)


def test_questions_of_other_length_are_not_patched_token_by_token(tiny_gpt2: CodiModel) -> None:
    long = Problem(
        "Zoe has 14 coins. Then she finds 7 more. How many coins does she have?", 21, "a"
    )
    short = Problem("Zoe has 9 coins. How many coins does she have?", 9, "b")
    pair = [Pair(long, short)]
    with pytest.raises(PositionError, match=r"questions of 'a' and 'b' have \d+ and \d+ tokens"):
        restore(tiny_gpt2, pair, {"together": ["question", "ct0"]}, [0], **QUIET)
    assert restore(tiny_gpt2, pair, "ct0", [0], **QUIET)["n"].tolist() == [1, 1]


def test_an_extreme_is_called_one(tiny_gpt2: CodiModel) -> None:
    pairs = counterparts(word_problems(6, seed=2))
    section = restoration_section(
        tiny_gpt2, pairs, at=["bot", "ct0"], components=["mlp_out"], note="As noted.", **QUIET
    )
    assert "none of 6 points is shown to move" in section.findings[0], "of four pairs"
    assert "the largest, chosen on the same pairs, is " in section.findings[0]
    assert section.lead.endswith(" As noted.")


def test_where_nothing_moves_nothing_is_brought_over(tiny_gpt2: CodiModel) -> None:
    """At once, the answer reads the question itself."""
    pairs = counterparts(word_problems(6, seed=2))
    model = tiny_gpt2.in_way("skip")
    section = restoration_section(model, pairs, at=["bot", "eot"], components=["mlp_out"], **QUIET)
    assert "none of 6 points is shown to move 0.01 of a logit difference" in section.findings[0]
    assert "brings over" not in " ".join(section.findings)


def test_effects_of_which_none_is_known_are_refused() -> None:
    check_known(pd.DataFrame({"n_known": [1, 1]}))
    with pytest.raises(InterventionError, match="No clean answer holds a number"):
        check_known(pd.DataFrame({"n_known": [0, 0]}))


@pytest.mark.parametrize("question", ["thoughts", "totals", "restoration", "edges", "hub"])
def test_answers_too_short_for_a_number_are_one_clear_error(
    tiny_gpt2: CodiModel, tmp_path: Path, question: str
) -> None:
    with pytest.raises(InterventionError, match=r"No clean answer holds a number|No pair has a"):
        patch_positions(
            tiny_gpt2,
            word_problems(4, seed=1),
            tmp_path / "out",
            questions=[question],
            n_pairs=4,
            **SHORT,
        )


def test_totals_that_are_never_right_say_so(tiny_gpt2: CodiModel) -> None:
    claimed = [
        dataclasses.replace(pair, clean=dataclasses.replace(pair.clean, answer=100 + i))
        for i, pair in enumerate(operand_pairs(8))
    ]
    section = running_totals_section(tiny_gpt2, claimed, note="As noted.", **QUIET)
    assert "answers none of the 8 pairs right" in section.findings[0]
    assert not section.figures
    assert section.lead.endswith(" As noted.")


def test_totals_are_of_pairs_drawn_for_them(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"questions": ["totals"], "n_pairs": 4}
    report = patch_positions(tiny_gpt2, word_problems(2), tmp_path, **settings, **QUIET)
    assert "12 pairs were drawn for this question" in report.sections[0].lead
    assert "12 drawn for totals" in (tmp_path / "index.html").read_text()


def test_restoration_is_of_the_given_problems(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    given = word_problems(6, seed=3)
    pairs = counterparts(given)
    report = patch_positions(
        tiny_gpt2, given, tmp_path, questions=["restoration"], components=["mlp_out"], **QUIET
    )
    expected = restore(
        tiny_gpt2, pairs, ["question", "bot", "thoughts", "eot"], component="mlp_out", **QUIET
    )
    pd.testing.assert_frame_equal(report.tables["restoration_mlp_out"], expected)
    assert f"{6 - len(pairs)} of 6 problems have none" in report.sections[0].lead
    assert f"{len(pairs)} of 6 problems with a counterpart" in (tmp_path / "index.html").read_text()


def test_problems_without_answers_get_a_whole_report(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    lengths = {len(problem.question.split()) for problem in unanswered(5)}
    assert len(lengths) > 1
    report = patch_positions(
        tiny_gpt2, unanswered(5), tmp_path, components=["mlp_out"], rows_at_once=256, **QUIET
    )
    names = [section.name for section in report.sections]
    assert names == ["thoughts", "restoration", "edges", "hub"]
    table = report.tables["restoration_mlp_out"]
    assert "question" not in set(table["position"]) and "ct0" in set(table["position"])
    assert "'question' is left out: in" in report.sections[1].lead
    assert not any("the very vector" in s and "nan" in s for s in report.findings)


def test_what_cannot_be_asked_is_left_out_or_refused(
    short_models: dict[int, CodiModel], tmp_path: Path
) -> None:
    for n, model in short_models.items():
        report = patch_positions(
            model, unanswered(4), tmp_path / f"{n}", components=["mlp_out"], at="bot", **QUIET
        )
        assert [section.name for section in report.sections][-1] == "hub"
        assert f"at least three thoughts; this model has {n}" in report.findings[-1]
        between = report.tables["edge_groups"]["arm"] == "between thoughts"
        assert between.any() == (n > 1)
        with pytest.raises(InterventionError, match="at least three thoughts"):
            patch_positions(model, unanswered(4), tmp_path / "no", questions=["hub"], **QUIET)
        with pytest.raises(InterventionError, match="at least three thoughts"):
            hub_moves(model, unanswered(4), "ct0", 0.1, **QUIET)
    assert not (tmp_path / "no").exists()


def test_mistakes_are_named_before_anything_runs(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    same = [Problem(each.question, 7, each.id) for each in unanswered(4)]
    bad: list[tuple[type[Exception], str, list[Problem], dict[str, Any]]] = [
        (InterventionError, "no component 'mlp'", unanswered(4), {"components": ["mlp"]}),
        (InterventionError, "components once each", unanswered(4), {"components": []}),
        (PositionError, "no position 'ct9'", unanswered(4), {"at": "ct9"}),
        (PositionError, "no tokens that correspond", unanswered(4), {"at": "answer"}),
        (PositionError, "do not correspond", unanswered(4), {"at": "question"}),
        (ProblemError, "at least 1, not 0", unanswered(4), {"n_pairs": 0}),
        (ProblemError, "different answers", same, {"questions": ["thoughts", "restoration"]}),
        (ProblemError, "at least 2 problems", unanswered(1), {"questions": ["edges", "hub"]}),
    ]
    for error, message, problems, settings in bad:
        with pytest.raises(error, match=message):
            inspect.unwrap(patch_positions)(
                tiny_gpt2, problems, tmp_path / "no", **settings, **QUIET
            )
        assert not (tmp_path / "no").exists()
