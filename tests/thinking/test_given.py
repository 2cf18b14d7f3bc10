"""What people give to a run: accepted where it is natural, one sentence where it is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest
import torch
from jaxtyping import config
from support.against_hand import TEXTS, run, same_bits
from torch import Tensor

import codi_lens
from codi_lens import (
    CodiLensError,
    CodiModel,
    Donors,
    Intervention,
    InterventionError,
    PositionError,
    ProblemError,
    ProblemWarning,
    ThoughtRun,
    ablate_heads,
    extract,
)
from codi_lens.problems import Problem, word_problems

Z = "blocks.1.attn.hook_z"
HUGE = 10**5000
untyped = cast(Any, codi_lens)  # what takes wrong types on purpose


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run it, without beartype, which would refuse wrong types before codi_lens can."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def keep(z: Tensor, hook: object) -> Tensor:
    return z


def halve(z: Tensor, hook: object) -> Tensor:
    return z / 2


@pytest.fixture(scope="module")
def clean(tiny_gpt2: CodiModel) -> ThoughtRun:
    return tiny_gpt2.think(TEXTS, max_new_tokens=4)


ONE = Intervention([(Z, halve)], at="thinking")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "settings",
    [
        {"interventions": ONE},
        {"interventions": (each for each in [ONE])},
        {"interventions": ONE, "max_new_tokens": np.int64(8)},
    ],
)
def test_one_intervention_needs_no_list(tiny_gpt2: CodiModel, settings: dict[str, Any]) -> None:
    think = cast(Any, tiny_gpt2.think)
    assert same_bits(think(TEXTS, **{"max_new_tokens": 8} | settings), run(tiny_gpt2, ONE))


@pytest.mark.usefixtures("unchecked")
def test_thoughts_come_as_tensor_array_or_list(tiny_gpt2: CodiModel, clean: ThoughtRun) -> None:
    given = clean.thoughts
    for thoughts in (given, given.numpy(), given.double().numpy(), given.tolist()):
        forced = tiny_gpt2.think(TEXTS, thoughts=thoughts, max_new_tokens=4)
        assert same_bits(forced, clean)


@pytest.mark.usefixtures("unchecked")
def test_questions_come_from_any_iterable(tiny_gpt2: CodiModel, clean: ThoughtRun) -> None:
    ids = [tiny_gpt2.tokenizer(text)["input_ids"] for text in TEXTS]
    rows = [np.array(ids[0]), torch.tensor(ids[1]), tuple(ids[2])]
    for questions in (iter(TEXTS), np.array(TEXTS), [*rows, *ids[3:]]):
        assert same_bits(tiny_gpt2.think(questions, max_new_tokens=4), clean)  # type: ignore[arg-type]


PROBLEM = Problem("1 + 1?", 2, "a")
REFUSED: list[tuple[dict[str, Any], type[CodiLensError], str]] = [
    ({"questions": None}, ProblemError, "takes a list of questions .*, not None"),
    ({"questions": 3}, ProblemError, "takes a list of questions .*, not 3"),
    ({"questions": {"question": "x"}}, ProblemError, "takes a list of questions"),
    ({"questions": torch.tensor(3)}, ProblemError, "takes a list of questions"),
    ({"questions": [None]}, ProblemError, "Question 0 is None; give a text, or a list of token"),
    ({"questions": [PROBLEM]}, ProblemError, r"give its text \(problem\.question\)"),
    ({"questions": [5, 6, 7]}, ProblemError, "Question 0 is 5; give a text"),
    ({"questions": [[1.5]]}, ProblemError, r"token of question 0 must be a whole number, not 1\.5"),
    ({"questions": [["a"]]}, ProblemError, "token of question 0 must be a whole number, not 'a'"),
    (
        {"questions": [[HUGE]]},
        ProblemError,
        "must be at most 9223372036854775807, not a value of type int",
    ),
    ({"questions": ["a\ud800"]}, ProblemError, "Question 0 holds .*, half a character, at 1"),
    ({"answers": [21]}, ProblemError, "Answer 0 is 21; give a text"),
    ({"answers": 21}, ProblemError, "takes a list of answers"),
    ({"answers": [None]}, ProblemError, "Answer 0 is None"),
    ({"max_new_tokens": "8"}, ProblemError, "max_new_tokens must be a whole number"),
    ({"max_new_tokens": 2.5}, ProblemError, "max_new_tokens must be a whole number"),
    ({"max_new_tokens": 0}, ProblemError, "at least 1, not 0"),
    ({"max_new_tokens": True}, ProblemError, "max_new_tokens must be a whole number, not True"),
    (
        {"max_new_tokens": HUGE},
        ProblemError,
        "max_new_tokens must be at most 9223372036854775807, not a value",
    ),
    ({"names_filter": 3}, InterventionError, "takes a list of hook names, or a predicate, not 3"),
    ({"names_filter": [3]}, InterventionError, "There is no hook 3 in this model"),
    ({"names_filter": []}, InterventionError, "selects no hook"),
    ({"thoughts": "x"}, PositionError, "must be a dense tensor or array of numbers, not 'x'"),
    ({"thoughts": [[1], [1, 2]]}, PositionError, "must be a dense tensor"),
    ({"thoughts": torch.zeros(1, 6, 96).to_sparse()}, PositionError, "must be a dense tensor"),
    ({"thoughts": torch.zeros(1, 6, 96, device="meta")}, PositionError, "must be a dense tensor"),
    ({"thoughts": np.zeros((1, 5, 96))}, PositionError, r"shape \(1, 5, 96\); expected"),
    ({"ids": "a"}, ProblemError, "takes a list of ids, not 'a'"),
    ({"ids": [3]}, ProblemError, "An id is a text, not 3"),
    ({"ids": 3}, ProblemError, "takes a list of ids, not 3"),
    ({"interventions": None}, InterventionError, "takes a list of interventions, not None"),
    ({"interventions": [(Z, keep)]}, InterventionError, r"is no intervention; .* Intervention\("),
    ({"interventions": (Z, keep)}, InterventionError, "is no intervention"),
    ({"interventions": keep}, InterventionError, "takes a list of interventions"),
    ({"interventions": {"arm": ONE}}, InterventionError, "takes a list of interventions"),
    ({"interventions": [[ONE]]}, InterventionError, "is no intervention"),
]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("given", "error", "message"), REFUSED)
def test_wrong_arguments_get_one_sentence(
    tiny_gpt2: CodiModel, given: dict[str, Any], error: type[CodiLensError], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        cast(Any, tiny_gpt2.think)(**{"questions": TEXTS[:1]} | given)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 300


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: untyped.Intervention((Z, keep)), InterventionError, "is no hook; give pairs"),
        (lambda: untyped.Intervention(Z), InterventionError, "takes a list of pairs"),
        (lambda: untyped.Intervention([(Z, 3)]), InterventionError, "is no hook; give pairs"),
        (
            lambda: untyped.Intervention([(Z, lambda z: z)]),
            InterventionError,
            "cannot be called as fn",
        ),
        (
            lambda: untyped.Intervention([(Z, keep)], at=2),
            PositionError,
            "by name, as 'ct2' .* not as 2",
        ),
        (lambda: untyped.Intervention([(Z, keep)], at=["ct1", 2]), PositionError, "given by name"),
        (lambda: untyped.Intervention([(Z, keep)], at=None), PositionError, "given by name"),
        (
            lambda: untyped.Intervention([], keeps="2"),
            InterventionError,
            "keeps must be a whole number",
        ),
        (
            lambda: untyped.for_rows(ONE, 3),
            InterventionError,
            "for_rows takes a list of rows, not 3",
        ),
        (
            lambda: untyped.for_rows(ONE, ["a"]),
            InterventionError,
            "A row of for_rows must be a whole",
        ),
        (lambda: untyped.for_rows((Z, keep), [0]), InterventionError, "is no intervention"),
        (
            lambda: untyped.with_donors(ablate_heads("L0H1"), [PROBLEM]),
            InterventionError,
            "donors= takes",
        ),
    ],
)
def test_wrong_interventions_get_one_sentence(
    make: Any, error: type[CodiLensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "tiny-gpt2"}, CodiLensError, "'tiny-gpt2' is no CODI model; load one"),
        ({"problems": [{"question": "x"}]}, ProblemError, "give a list of Problem"),
        ({"problems": TEXTS}, ProblemError, "give a list of Problem"),
        ({"problems": TEXTS[0]}, ProblemError, "Donors takes a list of problems"),
        ({"problems": PROBLEM}, ProblemError, "Donors takes a list of problems"),
        ({"problems": []}, InterventionError, "at least one problem"),
        ({"seed": -1}, InterventionError, "The seed must be at least 0, not -1"),
        (
            {"seed": HUGE},
            InterventionError,
            "The seed must be at most 9223372036854775807, not a value",
        ),
        ({"seed": "x"}, InterventionError, "The seed must be a whole number, not 'x'"),
        ({"seed": None}, InterventionError, "The seed must be a whole number, not None"),
        ({"batch_size": 0}, InterventionError, "batch_size must be at least 1"),
    ],
)
def test_wrong_donors_get_one_sentence(
    tiny_gpt2: CodiModel, given: dict[str, Any], error: type[CodiLensError], message: str
) -> None:
    with pytest.raises(error, match=message):
        Donors(**{"model": tiny_gpt2, "problems": word_problems(2)} | given)


@pytest.mark.usefixtures("unchecked")
def test_donors_refuse_what_they_do_not_have(tiny_gpt2: CodiModel) -> None:
    donors = untyped.Donors(tiny_gpt2, (problem for problem in word_problems(3)))
    assert len(donors) == 3
    calls: list[Any] = [
        lambda: donors.draw("abc"),
        lambda: donors.tokens(Z, "ct1", [3]),
        lambda: donors.tokens(Z, "ct1", [-1]),
        lambda: donors.values(3, "ct1", [0]),
        lambda: donors.values(Z, 1, [0]),
        lambda: donors.paired([("a", "b")]),
        lambda: donors.matching(None, same=True),
        lambda: donors.with_seed(-1),
        lambda: donors.prepare(Z),
    ]
    for call in calls:
        with pytest.raises(CodiLensError):
            call()


def test_unknown_words_are_warned_of(tiny: CodiModel) -> None:
    asked = "Zoe has 14 bananas. Then she finds 7 more. How many bananas does Bartholomew have?"
    with pytest.warns(ProblemWarning, match=r"no token for 'bananas', 'Bartholomew'; ") as caught:
        tiny.think([asked, TEXTS[0]], max_new_tokens=1)
    assert len(caught) == 1
    assert "the model reads <|unk|> instead, so it answers another question" in str(caught[0])
    with pytest.warns(ProblemWarning, match="and 2 more; the model reads"):
        tiny.think(["abc def ghi jkl mno pqr stu"], max_new_tokens=1)
    with pytest.warns(ProblemWarning, match="no token for 'maybe'.* another answer is scored"):
        tiny.think(TEXTS[:1], answers=["maybe 13"])
    with pytest.warns(ProblemWarning, match="no token for .*'bananas'"):
        extract(tiny, [Problem(asked, 21, "a")], progress=False)


def test_known_words_and_written_unknown_tokens_are_not(tiny: CodiModel) -> None:
    tiny.think([problem.question for problem in word_problems(20, seed=8)], max_new_tokens=1)
    tiny.think([f"{TEXTS[0]} {tiny.tokenizer.unk_token}"], max_new_tokens=1)
