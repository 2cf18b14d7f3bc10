"""Answers of every kind: the same tokens under other names give the same results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.worded import WORDS, in_words, worded

from codi_lens import (
    CodiModel,
    OutputError,
    PositionError,
    ProblemError,
    ablate_heads,
    extract,
    open_attention,
)
from codi_lens.causal.measure import measure
from codi_lens.causal.running_totals import total_swaps
from codi_lens.interventions import Donors
from codi_lens.problems import Problem, word_problems
from codi_lens.problems.kinds import Form
from codi_lens.readout import decode_thoughts, logit_lens
from codi_lens.readout.known import with_controls
from codi_lens.readout.targets import chosen_targets
from codi_lens.readout.trajectories import stopped_answers

NUMBERS = word_problems(8, seed=4)
PLAIN = [Problem(each.question, each.answer, each.id) for each in NUMBERS]
TRUTHS = {"21": "True", "8": "False"}
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 16}
ARMS = {"L1H7": ablate_heads([(1, 7)], "zero")}
LABELS = {word: f"choice {word}" for word in WORDS.values()}


def renamed(kind: Any, choices: Any = None) -> list[Problem]:
    return [
        Problem(in_words(p.question, WORDS), WORDS[str(p.answer)], p.id, kind=kind, choices=choices)
        for p in NUMBERS
    ]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> CodiModel:
    return CodiModel.from_pretrained(worded(tmp_path_factory.mktemp("w") / "words", WORDS))


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> CodiModel:
    return CodiModel.from_pretrained(worded(tmp_path_factory.mktemp("t") / "truths", TRUTHS))


@pytest.fixture(scope="module")
def numbers(tiny_gpt2: CodiModel) -> pd.DataFrame:
    return measure(tiny_gpt2, PLAIN, ARMS, **QUIET)


@pytest.mark.parametrize("kind", ["choice", "text"])
def test_outcomes_are_those_of_the_same_tokens(
    words: CodiModel, numbers: pd.DataFrame, kind: str
) -> None:
    choices = LABELS if kind == "choice" else None
    table = measure(words, renamed(kind, choices), ARMS, **QUIET)
    same = ["problem", "arm", "log_prob", "logit_margin", "changed", "correct", "change_ct0"]
    pd.testing.assert_frame_equal(table[same], numbers[same])
    assert numbers["changed"].any() and not numbers["changed"].all()
    assert table["number"].isna().all()
    assert table["given"].tolist() == [WORDS[f"{n:g}"] for n in numbers["number"]]
    if kind == "text":
        pd.testing.assert_series_equal(table["logit_difference"], numbers["logit_difference"])


def test_a_choice_is_compared_with_the_likeliest_other_choice(words: CodiModel) -> None:
    problem = renamed("choice", LABELS)[0]
    own = str(problem.answer)
    rivals = [word for word in WORDS.values() if word != own][:3]
    scored = log_probs(words, problem.question, [own, *rivals])
    for others in (rivals, rivals[1:2]):
        choices = {own: "right", **dict.fromkeys(others, "wrong")}
        asked = Problem(problem.question, own, "a", kind="choice", choices=choices)
        found = measure(words, [asked], ARMS, **QUIET).query("arm == 'clean'")["logit_difference"]
        expected = scored[own] - max(scored[each] for each in others)
        assert found.item() == pytest.approx(expected, abs=1e-4)
    alone = Problem(problem.question, own, "a", kind="choice", choices={own: "the only one"})
    assert measure(words, [alone], ARMS, **QUIET)["logit_difference"].isna().all()


def test_a_boolean_is_compared_with_its_opposite(truths: CodiModel) -> None:
    numbers = [p for p in word_problems(300, seed=3) if str(p.answer) in TRUTHS][:6]
    chosen = [
        Problem(in_words(p.question, TRUTHS), p.answer == 21, p.id, kind="boolean") for p in numbers
    ]
    assert {problem.answer for problem in chosen} == {"yes", "no"}
    table = measure(truths, chosen, ARMS, **QUIET).query("arm == 'clean'")
    assert table["correct"].mean() > 0.5
    for row, problem in zip(table.to_dict("records"), chosen, strict=True):
        word = row["answer"].split()[-1]
        if word not in TRUTHS.values():
            continue
        other = "False" if word == "True" else "True"
        scored = log_probs(truths, problem.question, [word, other])
        assert row["given"] == ("yes" if word == "True" else "no")
        assert row["logit_difference"] == pytest.approx(scored[word] - scored[other], abs=1e-4)


def log_probs(model: CodiModel, question: str, words: Sequence[str]) -> dict[str, float]:
    """Of the last token before EOS of "The answer is: WORD", by forcing every answer."""
    run = model.think([question] * len(words), answers=[f"The answer is: {w}" for w in words])
    assert run.answer_log_probs is not None
    return {w: float(p[-2]) for w, p in zip(words, run.answer_log_probs, strict=True)}


def test_the_anchor_is_where_an_answer_of_its_kind_begins(
    words: CodiModel, tiny_gpt2: CodiModel
) -> None:
    known = tiny_gpt2.think([p.question for p in NUMBERS])
    questions = [in_words(p.question, WORDS) for p in NUMBERS]
    for kind in ("text", Form("choice", tuple(LABELS))):
        run = words.think(questions, kind=kind)
        assert run.layout.anchors == known.layout.anchors
        np.testing.assert_array_equal(run.attention.values, known.attention.values)
    mixed = words.think(questions[:2], kind=["number", "text"])
    assert mixed.layout.anchors == (None, known.layout.anchors[1])
    with pytest.raises(
        PositionError, match=r"problems \[0\] hold no number, or no answer of their"
    ):
        mixed.index("anchor")
    for wrong, message in ((["text"], "given 1 kinds for 2 questions"), ("letter", "'letter'")):
        with pytest.raises(ProblemError, match=message):
            words.think(questions[:2], kind=wrong)  # type: ignore[arg-type]
    written = words.explain(questions[:1], kind="text")
    assert written.layout.steps == ((),)


def test_attention_knows_right_answers_of_every_kind(
    words: CodiModel, tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    known = extract(tiny_gpt2, PLAIN, **QUIET)
    chosen = renamed("choice", LABELS)
    found = extract(words, chosen, tmp_path / "a.zarr", **QUIET)
    np.testing.assert_array_equal(found.values, known.values)
    np.testing.assert_array_equal(found["correct"].values, known["correct"].values)
    assert "right_answer" not in known.coords
    assert found["right_answer"].values.tolist() == [p.answer for p in chosen]
    assert np.isnan(found["expected"].values).all() and np.isnan(found["predicted"].values).all()
    again = open_attention(tmp_path / "a.zarr")
    assert again["right_answer"].values.tolist() == [p.answer for p in chosen]
    with pytest.raises(OutputError, match="questions"):
        extract(words, renamed("text"), tmp_path / "a.zarr", **QUIET)


def test_kinds_can_be_mixed_and_resumed(words: CodiModel, tmp_path: Path) -> None:
    mixed = [*renamed("text")[:2], Problem(in_words(NUMBERS[2].question, WORDS), None, "n")]
    table = measure(words, mixed, ARMS, tmp_path / "out", problems_at_once=1, **QUIET)
    assert table.query("problem == 'n'")["given"].isna().all()
    assert (table.query("problem != 'n'")["given"].str.len() == 2).all()
    again = measure(words, mixed, ARMS, tmp_path / "out", problems_at_once=1, **QUIET)
    pd.testing.assert_frame_equal(table, again)
    with pytest.raises(OutputError, match="problems"):
        others = [*renamed("choice", LABELS)[:2], mixed[2]]
        measure(words, others, ARMS, tmp_path / "out", problems_at_once=1, **QUIET)


def test_tables_of_numbers_have_no_column_more(numbers: pd.DataFrame) -> None:
    assert "given" not in numbers


def test_donors_answer_by_their_kind(words: CodiModel, tiny_gpt2: CodiModel) -> None:
    answers = Donors(words, renamed("choice", LABELS)).answers
    assert answers == [WORDS[str(n)] for n in Donors(tiny_gpt2, PLAIN).answers]


def test_the_lens_looks_for_answers_of_every_kind(words: CodiModel, truths: CodiModel) -> None:
    chosen = renamed("choice", LABELS)
    table = logit_lens(words, chosen, targets="answer", at="anchor", layers=[2], progress=False)
    right = decode_thoughts(words, chosen, progress=False).groupby("problem", sort=False)["correct"]
    first = table["target_rank"].sel(position="anchor", layer=2, target="answer").values == 1
    assert first.tolist() == right.first().tolist()
    stopped = stopped_answers(words, chosen, targets=None, progress=False).query("kept == 6")
    assert stopped["answered"].item() == pytest.approx(np.mean(first))
    asked = [
        Problem(in_words(NUMBERS[0].question, TRUTHS), value, value, kind="boolean")
        for value in ("yes", "no")
    ]
    targets = chosen_targets(asked, "answer")
    yes = targets["answer"][0]
    assert isinstance(yes, tuple) and "True" in yes
    table = logit_lens(truths, asked, targets=with_controls(targets), at="bot", progress=False)
    own, other = (table["log_prob"].sel(target=t) for t in ("answer", "another problem's answer"))
    np.testing.assert_allclose(own[0].values, other[1].values, atol=1e-5)


def test_what_needs_numbers_says_so(words: CodiModel) -> None:
    chosen = renamed("choice", LABELS)
    for ask in (
        lambda: total_swaps(words, chosen, progress=False),
        lambda: logit_lens(words, chosen, targets="totals", progress=False),
    ):
        with pytest.raises(ProblemError, match=r"Running totals need .* numbers; .*'choice'"):
            ask()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["choice", "text", "boolean"])
def test_verify_judges_settings_by_answers_of_every_kind(
    words: CodiModel, truths: CodiModel, kind: str
) -> None:
    if kind == "boolean":
        numbers = [p for p in word_problems(400, seed=3) if str(p.answer) in TRUTHS][:20]
        model, chosen = (
            truths,
            [
                Problem(in_words(p.question, TRUTHS), p.answer == 21, p.id, kind="boolean")
                for p in numbers
            ],
        )
    else:
        numbers = word_problems(20, seed=4)
        model, chosen = (
            words,
            [
                Problem(
                    in_words(p.question, WORDS),
                    WORDS[str(p.answer)],
                    p.id,
                    kind=kind,  # type: ignore[arg-type]
                    choices=LABELS if kind == "choice" else None,
                )
                for p in numbers
            ],
        )
    found = model.verify(chosen)
    assert found.exit_code == 0
    assert found.accuracy is not None and found.accuracy.correct >= 18
    unshown = found.settings.query("verdict == 'not shown'")
    assert np.isfinite(unshown["difference"]).all() and len(unshown)
