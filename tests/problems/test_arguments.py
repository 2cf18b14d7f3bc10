"""What functions on problems are given: taken where it is plain, else one sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from codi_lens import ProblemError
from codi_lens.errors import shown
from codi_lens.problems import Problem, gsm8k, load_problems, sample_indices, word_problems
from codi_lens.problems.pairs import both_problems, counterparts, operand_pairs, random_pairs
from codi_lens.problems.problem import check_problems, problem_list
from codi_lens.problems.words import with_one_operand_changed


def test_numbers_of_numpy_and_generators_are_taken() -> None:
    assert word_problems(np.int64(3), seed=np.uint8(2)) == word_problems(3, seed=2)
    assert word_problems(2, n_operations=np.int64(2)) == word_problems(2, n_operations=2)
    assert word_problems(2, n_operations=np.array([2, 3])) == word_problems(2, n_operations=[2, 3])
    assert sample_indices(9, np.int64(3), seed=1) == sample_indices(9, 3, seed=1)
    some = word_problems(6, seed=1)
    assert counterparts(each for each in some) == counterparts(some)
    assert random_pairs(iter(some)) == random_pairs(some)
    pairs = operand_pairs(2)
    assert both_problems(iter(pairs)) == both_problems(pairs)
    assert check_problems((each for each in some), "run") == [each.id for each in some]


@pytest.mark.parametrize("seed", [-1, 2.0, None, "1", True, 10**5000], ids=shown)
def test_absurd_seeds_are_one_sentence(seed: Any) -> None:
    for draw in (
        lambda: word_problems(1, seed=seed),
        lambda: operand_pairs(1, seed=seed),
        lambda: random_pairs(word_problems(4), seed=seed),
        lambda: counterparts(word_problems(4), seed=seed),
        lambda: sample_indices(3, 1, seed=seed),
        lambda: gsm8k(1, seed=seed),
    ):
        with pytest.raises(ProblemError, match=r"The seed must be .*, not .{1,60}\.$"):
            draw()


@pytest.mark.parametrize("n", [0, -1, 2.0, "3", True, 10**12, 10**5000], ids=shown)
def test_absurd_numbers_are_one_sentence(n: Any) -> None:
    with pytest.raises(ProblemError, match="number of problems must be"):
        word_problems(n)
    with pytest.raises(ProblemError, match=r"n must lie in 1\.\.5"):
        sample_indices(5, n, seed=0)
    with pytest.raises(ProblemError, match=r"n_operations must lie in 1\.\.5"):
        word_problems(1, n_operations=n)
    with pytest.raises(ProblemError, match="number of pairs must be"):
        operand_pairs(n)
    for few in {0, -1, 2.0, "3"} & {n}:
        with pytest.raises(ProblemError, match="batch_size must be"):
            check_problems(word_problems(1), "run", batch_size=few)  # type: ignore[arg-type]


def test_what_are_no_problems_is_one_sentence() -> None:
    built = word_problems(1)
    for given, message in {
        "How many?": "The problems to run are 'How many\\?'; give a list of Problem",
        None: "The problems to run are None",
        7: "The problems to run are 7",
        built[0]: "put the single problem in a list",
        ("How many?",): "The problem to run at 0 is 'How many\\?'; give a list of Problem",
        (built[0], None): "The problem to run at 1 is None",
    }.items():
        with pytest.raises(ProblemError, match=message):
            problem_list(given, "run")  # type: ignore[arg-type]
    record = {"question": "How many?", "answer": 21, "id": "a"}
    for dicts in ([record], record):
        with pytest.raises(ProblemError, match="give a list of Problem"):
            problem_list(dicts, "run")  # type: ignore[arg-type]
    plain = Problem("How many?", 1, "plain")
    with pytest.raises(ProblemError, match="running totals of 'plain' are not known"):
        counterparts([plain])


@pytest.mark.parametrize("operand", [-1, 99, 1.0, None])
def test_absurd_operands_are_one_sentence(operand: Any) -> None:
    problem = word_problems(1, n_operations=2)[0]
    with pytest.raises(ProblemError, match=r"has the operands 0\.\.2, not"):
        with_one_operand_changed(problem, operand)


def refused(path: object, message: str) -> None:
    with pytest.raises(ProblemError, match=message) as told:
        load_problems(path)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)


def test_what_is_no_problem_file_is_one_sentence(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; give a problem file")
    refused("no\0where.json", "holds a NUL character")
    refused("no\ud800where.json", "half of a character")
    refused("n" * 5000, "cannot be read: File name too long")
    path = tmp_path / "problems.json"
    path.write_text('[{"question": "a?"}]', encoding="utf-16")
    refused(path, "not UTF-8 text, but begins as UTF-16 does; save it as UTF-8")
    path.write_text('[{"question": "a?"}]', encoding="utf-16-le")
    refused(path, "not UTF-8 text; problems are JSON")
    path.write_text('[{"question": "a?"}]', encoding="utf-8-sig")
    assert load_problems(str(path))[0].question == "a?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"question": ' + "[" * 100_000, "line 1 is nested too deeply"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "line 1 is nested too deeply"),
        ('{"question": "\\ud800?"}', "line 1, the question, .*half of a character"),
        ('{"question": "a\\u0000?"}', "line 1, the question, .*NUL"),
        ('{"question": "a?", "id": "\\udfff"}', "line 1, the id, .*half of a character"),
        ('{"question": "a?", "id": ["a"]}', "line 1 has the id"),
        (
            '{"question": "a?", "answer": ' + "9" * 310 + "}",
            "line 1 has the answer 999.*300 digits",
        ),
        ('{"question": "a?", "answer": 1e400}', "in which there is no number"),
        ('[{"question": "a?", "answer": true},\n{"question": "b?", "answer": 1}]', "a truth value"),
        ('{"question": "a?", "answer": [1]}', "of type list"),
        ('\n{"question": "a?", "answer": "3:2"}', "line 2 has the answer '3:2', .*ratio"),
        ('[\n\n{"question": "a?", "answer": "1,23"}]', "line 3 has the answer '1,23'"),
        ('{"question": "a?", "answer": 1, "answer": 2}', "line 1 gives 'answer' twice"),
        ('[1,\n{"question": "a?", "question": "b?"}]', "line 1 is not an object"),
        ('[{"question": "a?", "question": "b?"}]', "line 1 gives 'question' twice"),
        ("oops\n1 + 1?,2\n", "line 1 is not JSON"),
        ("question,answer\n1 + 1?\n", "line 2 has 1 cells and the header 2"),
        ('question,answer\n"a\nb?",1\nc?,2,3\n', "line 4 has 3 cells"),
        ('question,answer\n"1 + 1?,2\n', "is no row of a table"),
        ("\n \nquestion,answer\na?,1\nb?,x\n", "line 5 has the answer 'x'"),
        ("question,question\na?,b?\n", "has the column 'question' twice"),
        ("prompt,reply\n1 + 1?,2\n", "line 2 has no question .*'prompt', 'reply'; name them"),
        (
            "1 + 1?|| #### 2\n1 + 2?\n",
            "line 2 has no || between question and answer".replace("|", r"\|"),
        ),
        ('{"question": {"0": "a?"}, "answer": {"1": 2}}', "'answer' has other rows"),
        ('{"a": [{"b": 1}], "c": [{"d": 1}]}', "holds the lists 'a', 'c'; give a file of one"),
        (
            '{"question": "a?", "response": 2}',
            "line 1 has no answer .*'response'; name the answer's",
        ),
        (
            '{"question": "a?", "answer": 1}\n{"question": "b?", "gold": 2}',
            "line 2 has no answer that is known: beside the question there are 'gold'",
        ),
        ('{"Question": "number1?", "Numbers": "3", "Answer": 3}', "has 1 numbers and .*number1"),
        (
            '{"question": "a?", "choices": ["x", 1], "answer": "A"}',
            "line 1 has the choices .*give texts with labels",
        ),
        (
            '{"question": "a?", "choices": {"A b": "x"}, "answer": "A"}',
            "line 1 has the choices .*give texts with labels",
        ),
        (
            '{"question": "a?", "choices": {"label": ["A", "A"], "text": ["x", "y"]}}',
            "line 1 has the choices .*give texts with labels",
        ),
        (
            '{"question": "a?", "choices": ["x", "y"], "answer": "C"}',
            "line 1 has the answer 'C', which is no choice; give one of the labels A, B",
        ),
    ],
    ids=lambda value: value[:40],
)
def test_bad_records_are_one_sentence_with_the_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "problems.json"
    path.write_text(text)
    refused(path, message)


@pytest.mark.slow
def test_lists_load_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "problems.json"
    took: list[float] = []
    for n in (2_000, 16_000):
        records = [{"question": f"{i} + 1?", "answer": f"{i + 1:,}"} for i in range(n)]
        path.write_text(json.dumps(records, indent=1))
        start = time.process_time()
        loaded = load_problems(path)
        took.append(time.process_time() - start)
        assert [problem.answer for problem in loaded] == list(range(1, n + 1))
    assert took[1] < 30 * took[0], "eight times the records; quadratic would be 64"
