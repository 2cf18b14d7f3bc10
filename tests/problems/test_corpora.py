"""Files as people have them: each format is known by its fields, and every record is read."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from support.oracle import ROOT

from codi_lens import ProblemError
from codi_lens.problems import Problem, gsm8k, load_problems
from codi_lens.readout import match_steps

DATA = ROOT.parent / "shared" / "data"
CORPORA = DATA / "corpora"
real = pytest.mark.skipif(not CORPORA.is_dir(), reason="the corpora are not here")
ASKED = "A shop has 6 boxes of 3 pens. How many pens?"
PENS = "Question: Where is a pen?\nChoices:\nA: desk\nB: sea"
CHOICES = {"A": "desk", "B": "sea"}
LABELLED = [{"label": label, "text": text} for label, text in CHOICES.items()]
FORMATS: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "GSM8K": (
        {"question": ASKED, "answer": "6 * 3 = <<6*3=18>>18\n#### 18"},
        (ASKED, 18, "number", None, ("<<6*3=18>>",)),
    ),
    "GSM8K-Aug": (
        {"question": ASKED, "cot": "<<2*3=6>> <<6*3=18>>", "answer": "18"},
        (ASKED, 18, "number", None, ("<<2*3=6>>", "<<6*3=18>>")),
    ),
    "GSM8K-Aug-NL": (
        {"question": ASKED, "cot": "Six boxes.\nThree pens each.", "answer": "18"},
        (ASKED, 18, "number", None, ("Six boxes.", "Three pens each.")),
    ),
    "Coconut's GSM8K": (
        {"question": ASKED, "steps": ["<<6*3=18>>"], "answer": "18"},
        (ASKED, 18, "number", None, ("<<6*3=18>>",)),
    ),
    "SVAMP": (
        {"ID": "chal-1", "Body": "Ada has 3 plums.", "Question": "How many?", "Answer": 3.0},
        ("Ada has 3 plums. How many?", 3, "number", None, ()),
    ),
    "SVAMP, joined": (
        {"Body": "x", "Question": "y", "question_concat": ASKED, "Answer": "18.0"},
        (ASKED, 18, "number", None, ()),
    ),
    "ASDiv-A": (
        {"Question": "number0 and number1 and number0 ?", "Numbers": "7 2.5", "Answer": "16.5"}
        | {"Body": "number0 and number1 and", "Ques_Statement": "number0 ?"},
        ("7 and 2.5 and 7 ?", 16.5, "number", None, ()),
    ),
    "MultiArith": (
        {"iIndex": 7, "sQuestion": ASKED, "lSolutions": [18.0], "lEquations": ["X=6*3"]},
        (ASKED, 18, "number", None, ()),
    ),
    "MultiArith, final_ans": ({"question": ASKED, "final_ans": "18"}, (ASKED, 18, "number")),
    "GSM-Hard": ({"input": ASKED, "code": "…", "target": 18.0}, (ASKED, 18, "number")),
    "GSM-Hard, response": ({"instruction": ASKED, "response": "18"}, (ASKED, 18, "number")),
    "MATH": (
        {"problem": ASKED, "level": "5", "solution": r"So $6 \cdot 3 = \boxed{18}$."},
        (ASKED, 18, "number"),
    ),
    "MATH-500": (
        {"problem": ASKED, "solution": "…", "answer": r"\frac{3}{4}", "unique_id": "a/1.json"},
        (ASKED, 0.75, "number"),
    ),
    "CommonsenseQA": (
        {"id": "x", "question": {"stem": "Where is a pen?", "choices": LABELLED}}
        | {"answerKey": "B"},
        (PENS, "B", "choice", CHOICES),
    ),
    "CommonsenseQA, flat": (
        {"question": "Where is a pen?", "answerKey": "A"}
        | {"choices": {"label": ["A", "B"], "text": ["desk", "sea"]}},
        (PENS, "A", "choice", CHOICES),
    ),
    "choices by label": (
        {"question": "Where is a pen?", "choices": CHOICES, "answer": "sea"},
        (PENS, "B", "choice", CHOICES),
    ),
    "choices without labels": (
        {"question": "Where is a pen?", "options": ["desk", "sea"], "answer": "A"},
        (PENS, "A", "choice", CHOICES),
    ),
    "CODI's CommonsenseQA": (
        {"question": PENS, "cot": "Pens lie on desks.", "answer": "A"},
        (PENS, "A", "choice", CHOICES, ("Pens lie on desks.",)),
    ),
    "AQuA": (
        {"question": "6 x 3?", "options": ["A)18", "B)9"], "rationale": "…", "correct": "A"},
        ("Question: 6 x 3?\nChoices:\nA: 18\nB: 9", "A", "choice", {"A": "18", "B": "9"}, ("…",)),
    ),
    "StrategyQA": (
        {"qid": "q1", "question": "Can a brick float?", "answer": False, "facts": ["Heavy."]},
        ("Can a brick float?", "no", "boolean"),
    ),
    "ProntoQA": (
        {"question": "Is Max red?", "steps": ["Max is a cat.", "Cats are red."], "answer": "True"},
        ("Is Max red?", "yes", "boolean", None, ("Max is a cat.", "Cats are red.")),
    ),
    "ProsQA": (
        {"question": "Is Tom a scrompus or a yumpus?", "steps": ["Tom is a lempus."]}
        | {"answer": "Tom is a scrompus.", "target": 3},
        (
            "Is Tom a scrompus or a yumpus?",
            "Tom is a scrompus.",
            "text",
            None,
            ("Tom is a lempus.",),
        ),
    ),
}


def told(problem: Problem) -> tuple[Any, ...]:
    return (problem.question, problem.answer, problem.kind, problem.choices, problem.steps)


@pytest.mark.parametrize("corpus", FORMATS)
@pytest.mark.parametrize("written", ["list", "lines", "object", "wrapped", "parquet", "dataset"])
def test_every_format_is_known_by_its_fields(corpus: str, written: str, tmp_path: Path) -> None:
    record, known = FORMATS[corpus]
    path = tmp_path / "some.dat"
    match written:
        case "list":
            path.write_text(json.dumps([record]))
        case "lines":
            path.write_text(f"{json.dumps(record)}\n")
        case "object":
            path.write_text(json.dumps(record, indent=1))
        case "wrapped":
            path.write_text(json.dumps({"version": 1, "data": [record]}))
        case "parquet":
            pd.DataFrame([record]).to_parquet(path)
        case "dataset":
            datasets.Dataset.from_list([record]).save_to_disk(path)
    problem = load_problems(path)[0]
    assert told(problem)[: len(known)] == known
    assert problem.id == str(
        next(
            (record[name] for name in ("id", "ID", "qid", "unique_id", "iIndex") if name in record),
            "some-0",
        )
    )


@pytest.mark.parametrize("by", [",", "\t", ";"])
def test_tables_are_read_with_their_quotes(by: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = [["id", "question", "answer"], ["a", f"1{by} 2\nor 3?", "1,234"], ["b", "Why?", ""]]
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=by).writerows(rows)
    first, second = load_problems(path)
    table = pd.DataFrame({"question": ["a?"], "answer": [1]})
    table.to_csv(tmp_path / "indexed.csv", sep=by)
    assert load_problems(tmp_path / "indexed.csv")[0].answer == 1
    assert (first.question, first.answer, first.id) == (f"1{by} 2\nor 3?", 1234, "a")
    assert (second.answer, second.id) == (None, "b")


@pytest.mark.parametrize("orient", ["columns", "records", "list"])
def test_what_pandas_writes_is_read(orient: Any, tmp_path: Path) -> None:
    table = pd.DataFrame({"question": [ASKED, "Why?"], "answer": [18.0, None]})
    path = tmp_path / "table.json"
    text = json.dumps({"question": table["question"].tolist()}) if orient == "list" else None
    written: Any = table.to_json
    path.write_text(text or written(orient=orient))
    loaded = load_problems(path)
    assert [problem.question for problem in loaded] == [ASKED, "Why?"]
    assert [problem.answer for problem in loaded] == ([None, None] if text else [18, None])


def test_fields_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "named.jsonl"
    record = {"story": "Ada has 3 plums.", "asked": "How many?", "gold": "3", "other": 1}
    path.write_text(json.dumps(record))
    with pytest.raises(ProblemError, match="its fields: 'story', 'asked', 'gold', 'other'; name"):
        load_problems(path)
    problem = load_problems(path, question=["story", "asked"], answer="gold")[0]
    assert (problem.question, problem.answer) == ("Ada has 3 plums. How many?", 3)
    assert load_problems(path, question="asked", answer="")[0].answer is None
    assert load_problems(path, "asked", "gold", "text")[0].answer == "3"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"question": "asked"}, "has no answer that is known: .*'gold', 'other', 'story'"),
        ({"question": "nothing"}, "has no field 'nothing'; it has 'story'"),
        ({"question": "asked", "answer": "nothing"}, "No record of .* has a field 'nothing'"),
        ({"question": "asked", "answer": "gold", "kind": "letter"}, "no kind of answer 'letter'"),
        ({"question": 3}, "question= takes a list of fields, not 3"),
        ({"question": "asked", "answer": 3}, "answer= is the name of a field, not 3"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ProblemError, match=message):
            load_problems(path, **arguments)
    path.write_text('{"asked": "a?", "gold": 1}\n{"asked": "b?", "silver": 2}')
    with pytest.raises(ProblemError, match=r"line 2 has no answer that is known: .*'silver'"):
        load_problems(path, "asked", "gold")
    path.write_text(json.dumps({"asked": "How many?", "answer": 3, "target": 4}))
    with pytest.raises(ProblemError, match="its answer in 'target' or 'answer'; name it"):
        load_problems(path, question="asked")


@pytest.mark.parametrize(
    ("golds", "kinds"),
    [
        (["yes", "False", True, None], ["boolean"] * 4),
        ([3, "4"], ["number", "number"]),
    ],
)
def test_the_kind_is_that_of_all_answers(
    golds: list[Any], kinds: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps([{"question": f"{i}?", "answer": g} for i, g in enumerate(golds)]))
    assert [problem.kind for problem in load_problems(path)] == kinds


def test_a_no_among_numbers_is_no_boolean(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"question": "a?", "answer": 3}\n{"question": "b?", "answer": "no"}')
    with pytest.raises(ProblemError, match="line 2 has the answer 'no', in which there is no numb"):
        load_problems(path)
    path.write_text('{"question": "a?", "answer": "Paris"}')
    with pytest.raises(ProblemError, match="line 1 has the answer 'Paris'"):
        load_problems(path)
    assert load_problems(path, kind="text")[0].answer == "Paris"


def test_choices_are_given_without_answers_too(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": {"stem": "Where is a pen?", "choices": LABELLED}}))
    problem = load_problems(path)[0]
    assert told(problem) == (PENS, None, "choice", CHOICES, ())


def test_damaged_and_foreign_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ProblemError, match="is damaged parquet"):
        load_problems(path)
    rows = datasets.Dataset.from_list([{"question": "a?", "answer": 1}])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(tmp_path / "splits")
    with pytest.raises(ProblemError, match="holds the splits test, train; give the folder of one"):
        load_problems(tmp_path / "splits")
    rows.save_to_disk(tmp_path / "rows")
    for file in (tmp_path / "rows").glob("*.arrow"):
        file.write_bytes(b"?")
    with pytest.raises(ProblemError, match="cannot be read by `datasets`"):
        load_problems(tmp_path / "rows")


def last_number(text: str) -> float:
    """An independent reading: what stands behind the hashes, without commas."""
    return float(text.split("####")[1].replace(",", ""))


@real
@pytest.mark.parametrize(("name", "n"), [("gsm8k_train.jsonl", 7473), ("gsm8k_test.jsonl", 1319)])
def test_all_of_gsm8k_is_read(name: str, n: int) -> None:
    rows = [json.loads(line) for line in (CORPORA / name).read_text("utf-8").splitlines()]
    loaded = load_problems(CORPORA / name)
    assert len(loaded) == len(rows) == n
    assert [p.question for p in loaded] == [row["question"].strip() for row in rows]
    assert [p.answer for p in loaded] == [last_number(row["answer"]) for row in rows]
    assert [len(p.steps) for p in loaded] == [row["answer"].count("<<") for row in rows]
    assert len({p.id for p in loaded}) == n


@real
@pytest.mark.parametrize(
    ("name", "n"), [("gsm8k_aug_valid.txt", 500), ("gsm8k_aug_test.txt", 1319)]
)
def test_all_of_gsm8k_aug_is_read(name: str, n: int) -> None:
    lines = (CORPORA / name).read_text("utf-8").splitlines()
    loaded = load_problems(CORPORA / name)
    assert len(loaded) == len(lines) == n
    assert [p.question for p in loaded] == [line.split("||")[0].strip() for line in lines]
    assert [p.answer for p in loaded] == [last_number(line) for line in lines]
    for problem, line in zip(loaded, lines, strict=True):
        assert " ".join(problem.steps) == re.split(r"\|\||####", line)[1].strip()


@real
def test_all_of_svamp_and_asdiv_is_read() -> None:
    rows = json.loads((CORPORA / "svamp.json").read_text("utf-8"))
    loaded = load_problems(CORPORA / "svamp.json")
    assert [(p.id, p.answer) for p in loaded] == [(row["ID"], row["Answer"]) for row in rows]
    assert [p.question for p in loaded] == [
        f"{row['Body'].strip()} {row['Question'].strip()}" for row in rows
    ]
    assert len(loaded) == 1000
    with (CORPORA / "asdiv_a_fold0_dev.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    loaded = load_problems(CORPORA / "asdiv_a_fold0_dev.csv")
    assert [p.answer for p in loaded] == [float(row["Answer"]) for row in table]
    assert len(loaded) == 238
    for problem, row in zip(loaded, table, strict=True):
        filled = row["Question"].strip()
        for place, number in reversed(list(enumerate(row["Numbers"].split()))):
            filled = filled.replace(f"number{place}", number)
        assert problem.question == filled


@real
def test_the_studys_sample_comes_from_the_local_file() -> None:
    sample = gsm8k(100, seed=42, path=CORPORA / "gsm8k_train.jsonl")
    known = json.loads((DATA / "gsm8k_train_100.json").read_text("utf-8"))
    assert [p.id for p in sample] == [row["gsm8k_id"] for row in known]
    assert [p.answer for p in sample] == [float(row["answer"]) for row in known]
    assert [p.question for p in sample] == [row["question"].strip() for row in known]
    with pytest.raises(ProblemError, match="holds 7473 problems, and the test split of GSM8K 1319"):
        gsm8k(1, split="test", path=CORPORA / "gsm8k_train.jsonl")


def test_steps_are_what_match_steps_takes(tmp_path: Path) -> None:
    path = tmp_path / "aug.txt"
    path.write_text(f"{ASKED}||<<2*3=6>> <<6*3=18>> #### 18\n")
    problem = load_problems(path)[0]
    assert match_steps([[" 6", "x"], ["18", "7"]], problem.steps).tolist() == [
        [True, False],
        [False, True],
    ]


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        (["1.5", "2.5", "3.5"], {"A": "1.5", "B": "2.5", "C": "3.5"}),
        (["3:00", "4:15"], {"A": "3:00", "B": "4:15"}),
        (["A)21", "B)22"], {"A": "21", "B": "22"}),
        (["1. one", "2. two"], {"1": "one", "2": "two"}),
        (["(a) x", "(b) y"], {"a": "x", "b": "y"}),
        (["X: no", "Y: yes"], {"A": "X: no", "B": "Y: yes"}),
    ],
)
def test_texts_that_begin_like_labels_are_none(
    tmp_path: Path, choices: list[str], expected: dict[str, str]
) -> None:
    path = tmp_path / "made.json"
    record = {"question": "Which?", "choices": choices, "answer": next(iter(expected))}
    path.write_text(json.dumps([record]))
    (problem,) = load_problems(path)
    assert problem.choices == expected


def test_a_number_that_may_be_the_place_of_a_choice_is_no_answer(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    path.write_text(json.dumps([{"question": "q", "choices": ["0", "1", "2"], "answer": 1}]))
    with pytest.raises(ProblemError, match="may be the place of a choice or its text"):
        load_problems(path)
