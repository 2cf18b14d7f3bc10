"""Problems: known ground truth, disjoint splits, one parser for every answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.oracle import FIXTURES

from codi_lens import ProblemError, problems
from codi_lens.problems import (
    MAX_TOTAL,
    answer_span,
    is_correct,
    load_problems,
    parse_answer,
    sample_indices,
    word_problems,
)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is: 42", 42),
        ("The answer is: 1,234,567.", 1234567),
        ("The answer is: -7", -7),
        ("The answer is: −7", -7),
        ("The answer is: $1,200.50 and 3 more", 1200.5),
        ("The answer is: -$5", -5),
        ("The answer is: $-5", -5),
        ("First the answer is 3. No, the answer is 4.", 4),
        ("5 + 4 = <<5+4=9>>9\n#### 1,009", 1009),
        ("he has 3 apples and 4 pears", 4),
        ("costs .5 dollars", 0.5),
        ("10-3", 3),
        ("50%", 50),
        ("It is 12.0", 12),
        ("1,2,3", 3),
        ("", None),
        ("no idea", None),
        ("The answer is: unclear", None),
        ("...", None),
        ("The answer is: " + "9" * 5000, None),
        ("The answer is: 1" + "0" * 400 + ".5", None),
    ],
)
def test_one_parser_reads_every_answer(text: str, number: float | None) -> None:
    assert parse_answer(text) == number
    span = answer_span(text)
    assert (span is None) == (number is None)
    if span is not None:
        assert re.search(r"\d", text[slice(*span)])


@given(st.integers(-(10**9), 10**9))
def test_parser_reads_integers_with_and_without_commas(number: int) -> None:
    assert parse_answer(f"The answer is: {number}") == number
    assert parse_answer(f"The answer is: {number:,}") == number


@given(st.floats(0, 1e6).map(lambda value: round(value, 3)))
def test_parser_reads_decimals(number: float) -> None:
    assert is_correct(f"#### {number:f}", number)


def test_word_problems_know_every_running_total() -> None:
    for problem in word_problems(500, seed=3, split="train"):
        total = problem.start
        for operation, known in zip(problem.operations, problem.totals, strict=True):
            total = operation.apply(total)
            assert total == known
            assert 0 <= total <= MAX_TOTAL
        assert problem.answer == total
        assert len(re.findall("<<", problem.solution)) == len(problem.operations) - 1
        for known in problem.totals[:-1]:
            assert f"= {known} >>" in problem.solution


def test_word_problems_say_what_they_compute() -> None:
    """The text alone, read by other code than wrote it, gives the answer."""
    for problem in word_problems(500, seed=5):
        sentences = problem.question.split(". ")
        first = re.search(r"\d+", sentences[0])
        assert first is not None
        total = int(first[0])
        for sentence in sentences[1:-1]:
            numbers = [int(number) for number in re.findall(r"\d+", sentence)]
            if sentence.startswith("If"):
                over, limit = "over" in sentence, numbers[0]
                if (total > limit) if over else (total < limit):
                    if "doubles" in sentence:
                        total *= 2
                    elif "halves" in sentence:
                        total //= 2
                    else:
                        total -= numbers[1]
            else:
                gain = re.search(r"finds|buys|wins|gets", sentence)
                total += numbers[0] if gain else -numbers[0]
        assert total == problem.answer, problem.question


@pytest.mark.slow
def test_splits_are_disjoint_by_chain_and_seeded() -> None:
    def chains(split: str, seed: int) -> set[tuple]:
        found = word_problems(1500, seed=seed, split=split)  # type: ignore[arg-type]
        return {
            (p.start, tuple((o.kind, o.amount, o.threshold) for o in p.operations)) for p in found
        }

    assert not chains("train", 0) & (chains("test", 0) | chains("test", 1))
    assert word_problems(20, seed=9) == word_problems(20, seed=9)
    assert word_problems(20, seed=9) != word_problems(20, seed=10)
    assert len({problem.id for problem in word_problems(200)}) == 200


def test_conditionals_matter() -> None:
    """Most fire, and none always does: otherwise steps could be composed without the total."""
    fired: dict[str, list[bool]] = {}
    for problem in word_problems(2000, split="train"):
        for operation, before in zip(
            problem.operations, (problem.start, *problem.totals), strict=False
        ):
            if operation.threshold is not None:
                fired.setdefault(operation.kind, []).append(operation.fires(before))
    assert set(fired) == {"lose_if_over", "double_if_under", "halve_if_over"}
    for kind, cases in fired.items():
        assert 0.5 <= sum(cases) / len(cases) <= 0.8, kind


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "at least 1, not 0"),
        ({"n": 1, "n_operations": 6}, r"1\.\.5"),
        ({"n": 1, "n_operations": []}, r"1\.\.5"),
    ],
)
def test_bad_requests_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        word_problems(**arguments)


def test_files_of_both_kinds_load(tmp_path: Path) -> None:
    records = [
        {"question": "1 + 1?", "answer": "2", "id": "a"},
        {"question": "How much?", "answer": "so #### 1,000"},
        {"question": "Why?", "answer": 2.5},
        {"question": "Unknown?"},
    ]
    (tmp_path / "list.json").write_text(json.dumps(records))
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n")
    for name in ("list.json", "lines.jsonl"):
        loaded = load_problems(tmp_path / name)
        assert [problem.answer for problem in loaded] == [2, 1000, 2.5, None]
        stem = name.split(".")[0]
        assert [problem.id for problem in loaded] == ["a", f"{stem}-1", f"{stem}-2", f"{stem}-3"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no problems"),
        ("[]", "holds no problems"),
        ('{"question": "a?"}\n{"answer": 1}', "line 2 has no question"),
        ('[\n{"question": "a?"},\n\n{"question": 3}]', "line 4 has no question"),
        ('{"question": "a?"}\n{broken', "line 2 is not JSON"),
        ('[{"question": "a?"},\n oops]', "line 2 is not JSON"),
        ('{"question": "a?", "answer": "none"}', "line 1 has the answer 'none'"),
        ('{"question": "a?", "id": 1}\n{"question": "b?", "id": 1}', "the id '1' twice"),
        ('["text"]', "line 1 is not an object"),
        ('{"question": "a?", "answer": NaN}', "in which there is no number"),
        ('{"question": "a?", "answer": Infinity}', "in which there is no number"),
        ('{"question": "a?", "answer": ' + "9" * 5000 + "}", "line 1 is not JSON"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(text)
    with pytest.raises(ProblemError, match=message):
        load_problems(path)


def test_unusual_but_valid_files_load(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('\ufeff{"question": "a\u2028b?", "id": null}\n{"question": "c?", "id": null}')
    assert [problem.id for problem in load_problems(path)] == ["p-0", "p-1"]
    path.write_text('{\n  "question": "pretty?",\n  "answer": 3\n}')
    assert [problem.answer for problem in load_problems(path)] == [3]


def test_missing_and_binary_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="no problem file"):
        load_problems(tmp_path / "nowhere.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProblemError, match="not UTF-8"):
        load_problems(tmp_path / "binary.json")


def test_gsm8k_sample_is_the_studys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    study = json.loads((FIXTURES / "gsm8k_study_sample.json").read_text())
    solutions = {int(row["id"].split("_")[1]): row["full_solution"] for row in study}
    rows = [
        {"question": f"question {i}", "answer": solutions.get(i, "#### 1")} for i in range(7473)
    ]
    corpus = datasets.Dataset.from_list(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: corpus)
    sample = problems.gsm8k(100, seed=42)
    assert [problem.id for problem in sample] == [row["id"] for row in study]
    assert [problem.answer for problem in sample] == [parse_answer(row["answer"]) for row in study]
    with pytest.raises(ProblemError, match=r"1\.\.7473.*not 8000"):
        problems.gsm8k(8000)


def test_unreachable_gsm8k_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("Couldn't reach the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ProblemError, match=r"could not be loaded.*Couldn't reach the Hub"):
        problems.gsm8k(1)


def test_sample_larger_than_the_corpus_is_an_error() -> None:
    assert sample_indices(3, None, seed=0) == [0, 1, 2]
    with pytest.raises(ProblemError, match=r"1\.\.3, the size of the corpus, not 4"):
        sample_indices(3, 4, seed=0)
