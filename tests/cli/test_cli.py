"""The command line writes a whole analysis, or one sentence and exit code 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.oracle import ROOT

from codi_lens import ProblemError, open_attention, rank_heads
from codi_lens.cli.main import main
from codi_lens.cli.options import Corpus
from codi_lens.problems import word_problems

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")


@pytest.fixture(scope="module")
def analysis(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("analysis") / "out"
    main(["analyze", TINY, "--n", "12", "--out", str(out), "--threads", "1"])
    return out


def test_analysis_folder_is_complete(analysis: Path) -> None:
    assert {path.name for path in analysis.iterdir()} == {
        "codi_lens.json",
        "attention.zarr",
        "heads.csv",
        "heads_generation.csv",
        "summary.json",
        "findings.md",
        "details.npz",
        "lens.csv",
        "index.html",
    }


def test_heads_csv_is_what_rank_heads_says_of_the_stored_attention(analysis: Path) -> None:
    heads = pd.read_csv(analysis / "heads.csv")
    attention = open_attention(analysis / "attention.zarr")
    again = rank_heads(attention)
    assert heads["name"].tolist() == again["name"].tolist()
    for column in ("flow", "hub", "skip", "composite", "composite_low", "composite_high"):
        np.testing.assert_allclose(heads[column], again[column], rtol=1e-9)
    wanted = [
        "layer",
        "head",
        "name",
        "band",
        "composite",
        "rank",
        "type",
        "max_attention",
        "max_query",
        "max_key",
    ]
    assert set(wanted) <= set(heads.columns)
    assert attention["problem"].values.tolist() == [p.id for p in word_problems(12, seed=42)]


def test_findings_are_true_of_the_summary(analysis: Path) -> None:
    summary = json.loads((analysis / "summary.json").read_text())
    findings = (analysis / "findings.md").read_text()
    attention = open_attention(analysis / "attention.zarr")
    correct = int(np.nansum(attention["correct"].values))
    assert f"answers {correct} of 12 problems correctly" in findings
    shares = summary["attention_goes_to"]
    for query, kinds in shares.items():
        assert sum(kinds.values()) == pytest.approx(1, abs=1e-4), query
    to_self = np.mean([float(attention.sel(query=f"ct{i}", key=f"ct{i}").mean()) for i in range(6)])
    assert shares["thoughts"]["self"] == pytest.approx(to_self, abs=1e-5)
    assert f"{100 * to_self:.1f} % to itself" in findings
    previous = np.mean(
        [float(attention.sel(query=f"ct{i + 1}", key=f"ct{i}").mean()) for i in range(5)]
    )
    assert summary["position_view"]["sequential_mean"] == pytest.approx(previous, abs=1e-5)
    study = summary["generation_view"]
    own = np.mean([float(attention.sel(query=f"ct{i}", key=f"ct{i}").mean()) for i in range(5)])
    assert study["sequential_mean"] == pytest.approx(own, abs=1e-5)
    assert study["constant"] == ["flow"]
    assert "every head has the same flow score" in findings


def test_same_command_again_resumes_and_gives_the_same(
    analysis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    shutil.copytree(analysis, out)
    (out / "index.html").unlink()
    main(["analyze", TINY, "--n", "12", "--out", str(out), "--threads", "1"])
    assert (out / "heads.csv").read_text() == (analysis / "heads.csv").read_text()
    printed = capsys.readouterr().out
    assert "index.html" in printed
    assert "12 problems correctly" in printed


def test_summary_is_valid_json_without_any_number_in_the_answers(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--n", "2", "--max-new-tokens", "1", "--out", str(out), "--threads", "1"]
    main(["analyze", TINY, *arguments])

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    summary = json.loads((out / "summary.json").read_text(), parse_constant=refuse)
    assert summary["accuracy"]["correct"] == 0
    assert summary["attention_goes_to"]["anchor"]["question"] is None


def test_one_thought_makes_no_claims_about_flow(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["analyze", TINY, "--n", "2", "--n-thoughts", "1", "--out", str(out), "--threads", "1"])
    findings = (out / "findings.md").read_text()
    assert "[i, i-1]" not in findings
    assert "nan" not in findings


def test_generation_view_is_written_where_asked(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["analyze", TINY, "--n", "3", "--out", str(out), "--view", "generation", "--threads", "1"])
    assert pd.read_csv(out / "heads.csv")["flow_constant"].all()
    assert "self" in pd.read_csv(out / "heads_position.csv").columns


def test_fields_of_problem_files_are_named_by_options(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("story\tasked\tgold\nAda has 3 plums.\tHas she 3?\tA\n")
    corpus = Corpus(str(path), question_field="story, asked", answer_field="gold", kind="choice")
    (problem,), name = corpus.choose(TINY)
    assert (problem.question, problem.answer) == ("Ada has 3 plums. Has she 3?", "A")
    assert (problem.kind, name) == ("choice", "own.tsv")
    with pytest.raises(ProblemError, match="--answer-field is of a problem file; gsm8k has no"):
        Corpus("gsm8k", answer_field="gold").choose(TINY)


def test_own_problem_files_are_used(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    rows = [{"question": p.question, "id": f"mine-{i}"} for i, p in enumerate(word_problems(3))]
    path.write_text("\n".join(map(json.dumps, rows)))
    main(["analyze", TINY, "--problems", str(path), "--out", str(tmp_path / "o"), "--threads", "1"])
    summary = json.loads((tmp_path / "o" / "summary.json").read_text())
    assert (summary["n_problems"], summary["accuracy"]) == (3, None)
    assert "correctly" not in (tmp_path / "o" / "findings.md").read_text()


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip()
    sentence = error.splitlines()[-1]
    assert sentence.startswith("codi-lens: ")
    assert "Traceback" not in error
    return sentence


def test_mistakes_are_one_sentence_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(tmp_path / "new")
    assert "no folder nowhere" in mistake(capsys, "nowhere", "--out", new)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "not a CODI checkpoint" in mistake(capsys, str(empty), "--out", new)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    assert "exists with other content" in mistake(capsys, TINY, "--out", str(full))
    assert (full / "thesis.txt").read_text() == "mine"
    assert "is a file" in mistake(capsys, TINY, "--out", str(full / "thesis.txt"))
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text("\n")
    assert "no problems" in mistake(capsys, TINY, "--problems", str(nothing), "--out", new)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"question": "fine?"}\n{"answer": 3}\n')
    assert "line 2 has no question" in mistake(capsys, TINY, "--problems", str(bad), "--out", new)
    one = tmp_path / "one.jsonl"
    one.write_text('{"question": "fine?"}\n')
    arguments = ("--problems", str(one), "--n", "5", "--out", new)
    assert "1..1, the size of the corpus, not 5" in mistake(capsys, TINY, *arguments)
    assert "builtin, gsm8k, plain" in mistake(capsys, TINY, "--problems", "math", "--out", new)
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"question": " coins" * 500, "id": "huge"}))
    message = mistake(capsys, TINY, "--problems", str(long), "--out", new)
    assert "Question huge has 500 tokens" in message
    assert "threads must be at least 1" in mistake(capsys, TINY, "--out", new, "--threads", "-1")
    assert "device warp" in mistake(capsys, TINY, "--out", new, "--device", "warp")
    assert "max_new_tokens" in mistake(capsys, TINY, "--out", new, "--max-new-tokens", "0")
    assert not Path(new).exists(), "a failed command leaves nothing behind"


def test_another_analysis_is_not_overwritten(
    analysis: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (analysis / "heads.csv").read_text()
    assert "another extraction" in mistake(capsys, TINY, "--n", "4", "--out", str(analysis))
    assert (analysis / "heads.csv").read_text() == before


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ([], ("ablate", "analyze", "patch", "study", "verify")),
        (["analyze"], ("--problems", "--n", "--seed", "--view", "--out")),
    ],
)
def test_help_names_commands_and_options(
    asked: list[str], shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([*asked, "--help"])
    printed = capsys.readouterr().out
    assert [name for name in shown if name not in printed] == []
