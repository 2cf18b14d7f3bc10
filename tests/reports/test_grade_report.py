"""`codi-lens grade` and the head that reads back, on the models whose attention is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from codi_lens import CheckpointError, CodiModel, InterventionError, ProblemError, extract, grade
from codi_lens.causal.edge_costs import costs_by_reference, edge_costs
from codi_lens.causal.references import used_edges_of, write_used
from codi_lens.cli.main import main
from codi_lens.problems import Reference, WordProblem, word_problems
from codi_lens.reports.questions.reading_back import reading_back

ARGUMENTS = ["--control", "tiny-recall-control", "--n", "32", "--seed", "3", "--threads", "1"]
ARGUMENTS += ["--max-new-tokens", "12"]  # what an arm broke would talk on to 64


@pytest.fixture(scope="module")
def recall() -> CodiModel:
    return CodiModel.from_pretrained("tiny-recall")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("grade") / "out"
    main(["grade", "tiny-recall", "--out", str(out), *ARGUMENTS])
    return out


def test_the_folder_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "codi_lens.json",
        "edge_costs.csv",
        "explorer.html",
        "figures",
        "findings.md",
        "grades.csv",
        "index.html",
        "known.csv",
        "outcomes",
        "served.csv",
    }
    page = (folder / "index.html").read_text()
    assert "Which pictures can be believed?" in page
    grades = pd.read_csv(folder / "grades.csv")
    assert len(grades) == 15
    assert grades["n"].nunique() == 1


def test_knockout_finds_the_edges_and_the_control_has_none(folder: Path) -> None:
    grades = pd.read_csv(folder / "grades.csv").set_index("score")
    found = grades.to_dict("index")["knockout"]
    assert found["auroc"] > 0.9
    assert found["beyond_shuffled_low"] > 0
    assert found["beyond_control_low"] > 0
    # What points at the same cells in every problem finds no edge of this problem.
    for name in ("sequential", "skip"):
        row = grades.to_dict("index")[name]
        assert abs(row["auroc"] - row["shuffled_auroc"]) < 0.1


def test_findings_are_those_of_the_tables(folder: Path) -> None:
    text = (folder / "findings.md").read_text()
    known = pd.read_csv(folder / "known.csv").iloc[0]
    grades = pd.read_csv(folder / "grades.csv").sort_values("auroc", ascending=False)
    assert f"Cutting the known edges costs {known['known']:.2f} [" in text
    assert f"(n = {known['n']})" in text
    best = f"(chosen on the same problems) is {grades['score'].iloc[0]}, with an AUROC of "
    assert f"The best of 15 scores {best}" in text
    beyond = (grades["beyond_shuffled_low"] > 0) & (grades["beyond_control_low"] > 0)
    assert f"{int(beyond.sum())} of 15 scores find the edges of a problem better than" in text
    more = "more than five" if known["five_low"] > 0 else "not shown to be more than five"
    assert more in text


def test_the_heads_that_scores_rank_first_are_ablated(folder: Path) -> None:
    served = pd.read_csv(folder / "served.csv")
    assert set(served["query"]) <= {"ct1", "ct2", "answer"}
    assert "answer" in set(served["query"])
    row = served[(served["query"] == "answer") & (served["score"] == "attention")].iloc[0]
    assert row["difference"] == pytest.approx(row["cost_needing"] - row["cost_others"])
    assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    assert row["most_difference"] >= row["difference"]
    assert row["n_needing"] + row["n_others"] == int(pd.read_csv(folder / "grades.csv")["n"][0])


def test_the_same_command_resumes_and_gives_the_same_bytes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    capsys.readouterr()
    main(["grade", "tiny-recall", "--out", str(folder), *ARGUMENTS])
    printed = capsys.readouterr().out
    assert "auroc" in printed
    assert "knockout" in printed
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


def test_used_edges_are_written_and_read(recall: CodiModel, tmp_path: Path) -> None:
    some = word_problems(80, family="mixed", seed=11, n_operations=3)
    table = costs_by_reference(edge_costs(recall, some, progress=False), some)
    write_used(table, tmp_path)
    assert used_edges_of(tmp_path) == {Reference(3, 3, 1)}
    kinds = json.loads((tmp_path / "edges.json").read_text())["references"]
    row = table[table["known"]].iloc[0]
    cost = kinds[0]["costs"]["answer→ct0"]
    assert cost == pytest.approx([row["cost"], row["cost_low"], row["cost_high"]], abs=1e-4)
    assert used_edges_of("tiny-gpt2") is None
    (tmp_path / "edges.json").write_text("[]")
    with pytest.raises(CheckpointError, match="does not say which edges"):
        used_edges_of(tmp_path)


def test_what_cannot_be_graded_is_refused(recall: CodiModel) -> None:
    with pytest.raises(ProblemError, match="needs no edge"):
        grade(recall, word_problems(3), progress=False)
    with pytest.raises(ProblemError, match="no problems to grade"):
        grade(recall, [], progress=False)
    short = word_problems(4, family="mixed", n_operations=3)
    with pytest.raises(InterventionError, match="needs an edge that the model was shown to use"):
        grade(recall, short, used=[Reference(5, 5, 2)], progress=False)


def test_the_head_that_reads_back_follows_the_reference(recall: CodiModel) -> None:
    problems = word_problems(100, family="mixed", seed=42)
    attention = extract(recall, problems, progress=False)
    found = reading_back(recall, attention, problems, progress=False)
    assert found is not None
    layer, head = found.head
    here = attention.sel(layer=layer, head=head)
    first, second = found.examples
    assert isinstance(first, WordProblem)
    assert len(first.operations) == len(second.operations)
    (query, key), (same, other) = *first.edges, *second.edges
    assert query == same
    assert key != other
    row = "anchor" if query == "answer" else query
    cells = [
        float(here.sel(problem=p.id, query=row, key=k))
        for p, k in ((first, key), (first, other), (second, other), (second, key))
    ]
    assert np.mean(cells[::2]) > np.mean(cells[1::2]), "the bright cell moves"
    assert found.title == f"L{layer}H{head} reads back the total that a problem refers to"
    assert "to the thought that the problem needs" in found.sentences[0]
    assert "Cutting the edge to the needed thought costs" in found.sentences[1]


def test_a_head_that_always_looks_at_the_commoner_thought_reads_nothing_back(
    recall: CodiModel,
) -> None:
    problems = word_problems(100, family="mixed", seed=42)
    attention = extract(recall, problems, progress=False)
    stuck = attention.copy(deep=True)
    stuck.loc[{"query": "anchor"}] = 0.0
    stuck.loc[{"query": "anchor", "key": "question"}] = 0.1
    stuck.loc[{"query": "anchor", "key": "ct0"}] = 0.9
    found = reading_back(recall, stuck, problems, progress=False)
    assert found is not None
    assert found.title.startswith("No head is shown to read back what a problem refers to; L")


def test_a_model_without_known_edges_has_no_head_that_reads_back(tiny: CodiModel) -> None:
    problems = word_problems(6)
    attention = extract(tiny, problems, progress=False)
    assert reading_back(tiny, attention, problems, progress=False) is None


@pytest.mark.parametrize("name", ["tiny-recall", "tiny-recall-control"])
def test_builtin_problems_are_those_that_the_model_learnt(name: str, tmp_path: Path) -> None:
    main(["analyze", name, "--n", "4", "--out", str(tmp_path / "out"), "--threads", "1"])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["corpus"] == "built-in, mixed, test split"


def test_models_that_learnt_different_problems_are_not_studied_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["study", "tiny-gpt2", "tiny-recall", "--out", str(tmp_path / "out")])
    assert "name the family with --problems" in capsys.readouterr().err
