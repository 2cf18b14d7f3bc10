"""Answers that are not numbers: found where they stand, and nowhere else."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codi_lens import ProblemError
from codi_lens.problems import Problem, answer_span, is_correct, parse_answer
from codi_lens.problems.kinds import alike, opposite, spellings

CHOICES = {"A": "bank", "B": "library", "C": "mall", "D": "kept", "E": "new york"}


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("The answer is: B", "B"),
        ("The answer is: (B)", "B"),
        ("The answer is B.", "B"),
        ("The answer is **B**", "B"),
        ("the answer is option C because A is a bank", "C"),
        ("The answer is A because a bank is safe", "A"),
        ("The answer is: A", "A"),
        ("### D", "D"),
        ("#### E", "E"),
        ("B", "B"),
        ("(A) bank", "A"),
        ("A: bank", "A"),
        ("It is A.", "A"),
        ("I first thought of B, but it is C", "C"),
        ("B. A bank has no books.", "B"),
        ("A library is where it is kEpt.", None),
        ("kEpt", None),
        ("The bank", None),
        ("b", None),
        ("F", None),
        ("E-mail, D.C., C++, A/B and B's", None),
        ("BANK", None),
        ("The answer is 'B'.", "B"),
        ("###B", "B"),
        ("The answer is not A but B", "B"),
        ("The answer is not (A), it is (C)", "C"),
        ("It is (B) and not A", "B"),
        ("The answer is: the mall", None),
        ("A or B? The answer is: the mall", None),
        ("", None),
    ],
)
def test_a_label_is_a_whole_word(text: str, label: str | None) -> None:
    assert parse_answer(text, "choice", CHOICES) == label
    span = answer_span(text, kind="choice", choices=CHOICES)
    assert label == (None if span is None else text[slice(*span)])


def test_labels_are_those_of_the_problem() -> None:
    assert parse_answer("It is 2 or B", "choice", ["1", "2"]) == "2"
    assert parse_answer("I think it is B, I do", "choice", "ABCDEFGHI".__iter__()) == "B"
    assert parse_answer("I", "choice", [*"GHI"]) == "I"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is: True", "yes"),
        ("The answer is: no", "no"),
        ("### FALSE", "no"),
        ("No, a brick sinks.", "no"),
        ("No because bricks sink.", "no"),
        ("Yes, there is no doubt.", "yes"),
        ("The answer is no longer known, but true", "no"),
        ("It is not untrue, nor a falsehood; nobody knows.", None),
        ("There is no doubt", None),
        ("That is not true", None),
        ("It is not true, so no.", "no"),
        ("First yes, then false", "no"),
        ("", None),
    ],
)
def test_booleans_are_whole_words_in_any_case(text: str, value: str | None) -> None:
    assert parse_answer(text, kind="boolean") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("### Tom is a scrompus.", "Tom is a scrompus"),
        ("The answer is: Tom is a scrompus", "Tom is a scrompus"),
        (" Paris!\n", "Paris"),
        ("The answer is: ", None),
        ("...", None),
    ],
)
def test_a_text_is_what_follows_the_marker(text: str, value: str | None) -> None:
    assert parse_answer(text, kind="text") == value
    span = answer_span(text, kind="text")
    assert value == (None if span is None else text[slice(*span)])


def test_answers_are_right_by_their_kind() -> None:
    problem = Problem("Is Tom?", "Tom is a scrompus.", "a", kind="text")
    assert is_correct("### tom  is a Scrompus", problem)
    assert not is_correct("### Tom is a yumpus.", problem)
    assert is_correct("True", "Yes", kind="boolean")
    assert is_correct("(B)", "B", "choice") and not is_correct("b", "B", "choice")
    assert is_correct("### 18", 18)
    for wrong in (Problem("?", None, "a", kind="text"), None):
        with pytest.raises(ProblemError, match="no answer to compare with"):
            is_correct("4", wrong)


@given(st.text(max_size=40), st.sampled_from(["choice", "boolean", "text", "number"]))
def test_what_is_found_is_found_again_where_it_stands(text: str, kind: Any) -> None:
    span = answer_span(text, kind)
    value = parse_answer(text, kind)
    assert (span is None) == (value is None)
    if span is not None:
        assert alike(parse_answer(f"The answer is: {text[slice(*span)]}", kind), value)


def test_very_long_texts_take_no_time() -> None:
    for text in ("." * 300_000 + "x" + "." * 300_000, "A " * 200_000, "no " * 200_000):
        for kind in ("choice", "boolean", "text"):
            parse_answer(text, kind)


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("choice", "B", "B"),
        ("choice", "(B)", "B"),
        ("choice", "B.", "B"),
        ("choice", "#### B", "B"),
        ("choice", "Library", "B"),
        ("boolean", True, "yes"),
        ("boolean", np.bool_(False), "no"),
        ("boolean", "False", "no"),
        ("boolean", "The answer is: NO.", "no"),
        ("text", " Tom is a scrompus. ", "Tom is a scrompus."),
        ("text", r"so \boxed{x + 1}", "x + 1"),
        ("choice", None, None),
        ("boolean", float("nan"), None),
        ("text", None, None),
    ],
)
def test_gold_answers_take_their_canonical_form(kind: Any, given: Any, kept: str | None) -> None:
    choices = CHOICES if kind == "choice" else None
    assert Problem("?", given, "a", kind=kind, choices=choices).answer == kept


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"answer": "F", "kind": "choice"}, "no choice; give one of the labels A, B, C, D, E"),
        ({"answer": "maybe", "kind": "boolean"}, "no boolean; give yes, no, true or false"),
        ({"answer": 10**5000, "kind": "choice"}, "the answer a value of type int, which is no"),
        ({"answer": "", "kind": "text"}, "empty answer"),
        ({"answer": 3, "kind": "text"}, "the answer is 3; give text"),
        ({"answer": 3, "kind": "letter"}, "no kind of answer 'letter'; there are number, choice"),
        ({"answer": 3, "kind": None}, "no kind of answer None"),
        ({"answer": "A", "kind": "choice", "choices": ["A"]}, "give a dict of texts by label"),
        (
            {"answer": "A", "kind": "choice", "choices": {"A b": "x"}},
            "label of a choice is one word",
        ),
        ({"answer": "A", "kind": "choice", "choices": {}}, "Choices need labels"),
        ({"answer": 3, "choices": {"A": "x"}}, "of kind 'number', has the choices"),
        ({"answer": 3, "steps": "<<1=1>>"}, "has steps=, which takes a list of texts"),
        ({"answer": 3, "steps": [3]}, "A step of the problem 'a' is 3; give text"),
    ],
)
def test_what_fits_no_kind_is_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        Problem("?", id="a", **given)


def test_problems_of_every_kind_are_values() -> None:
    problem = Problem("?", "B", "a", kind="choice", choices=CHOICES, steps=["one", "two"])
    assert problem.steps == ("one", "two")
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert len({problem, Problem("?", "B", "a", kind="choice")}) == 2
    assert Problem("?", "yes", "a", kind="boolean") != Problem("?", "yes", "a", kind="text")


def test_a_boolean_has_an_opposite_in_its_own_spelling() -> None:
    for word in (*spellings("yes", "boolean"), *spellings("no", "boolean")):
        assert opposite(opposite(word)) == word
        assert parse_answer(word, "boolean") != parse_answer(opposite(word), "boolean")
