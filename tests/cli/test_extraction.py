"""`extract` keeps what other commands start from; a wrong folder to start from is one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.oracle import ROOT

from codi_lens import CodiModel, InterventionError, open_attention, open_scores
from codi_lens.cli.main import main
from codi_lens.problems import word_problems
from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top
from codi_lens.reports.grade import grade_model
from codi_lens.reports.patch import patch_positions

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")
OPTIONS = ("--n", "12", "--max-new-tokens", "8", "--threads", "1")
SOME = word_problems(12, seed=42)
QUICK: dict[str, Any] = {"max_new_tokens": 8, "progress": False}


@pytest.fixture(scope="module")
def extraction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("extraction") / "out"
    main(["extract", TINY, "--out", str(out), "--value-weighted", *OPTIONS])
    return out


@pytest.fixture
def thoughtless(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """No run is made for attention; those of experiments are."""
    seen: list[Any] = []
    monkeypatch.setattr(
        "codi_lens.attention.streaming.Extraction._run", lambda *given: seen.append(given)
    )
    yield seen
    assert seen == []


def test_the_folder_holds_attention_and_says_so(
    extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {path.name for path in extraction.iterdir()} == {"codi_lens.json", "attention.zarr"}
    assert "value_weighted" in open_attention(extraction).coords
    main(["extract", TINY, "--out", str(tmp_path / "half"), "--half", *OPTIONS])
    printed = capsys.readouterr().out
    assert "half/attention.zarr holds 12 problems" in printed
    correct = int(open_attention(tmp_path / "half")["correct"].sum())
    assert f"answers {correct} of 12 correctly" in printed


def test_scores_alone_are_kept_where_asked(
    extraction: Path, tmp_path: Path, thoughtless: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores"
    main(["extract", TINY, "--out", str(out), "--scores-only", "--from", str(extraction), *OPTIONS])
    assert {path.name for path in out.iterdir()} == {"codi_lens.json", "scores.zarr"}
    assert open_scores(out).sizes["problem"] == 12
    assert "Top heads" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["analyze", "study"])
def test_commands_start_from_an_extraction(
    command: str, extraction: Path, tmp_path: Path, thoughtless: list[Any]
) -> None:
    out = tmp_path / "out"
    more = ["--n-probe", "0"] if command == "study" else []
    main([command, TINY, "--out", str(out), "--from", str(extraction), *more, *OPTIONS])
    kept = out / ("" if command == "analyze" else "results/tiny-gpt2")
    plain = open_attention(extraction).load()
    found = open_attention(kept / "attention.zarr").load()
    assert found.identical(
        plain.drop_vars([name for name in plain.coords if name not in found.coords])
    )


def test_experiments_take_their_ranking_from_an_extraction(
    tiny_gpt2: CodiModel, extraction: Path, tmp_path: Path, thoughtless: list[Any]
) -> None:
    options: dict[str, Any] = {"source": extraction, **QUICK}
    ablate_set(tiny_gpt2, SOME, [(1, 7)], tmp_path / "set", **options)
    ablate_top(tiny_gpt2, SOME, 1, tmp_path / "top", n_random=2, **options)
    ablate_all(tiny_gpt2, SOME, tmp_path / "all", by_position=False, **options)
    patch_positions(tiny_gpt2, SOME, tmp_path / "patch", questions=["hub"], **options)
    for name in ("set", "top", "all", "patch"):
        assert (tmp_path / name / "explorer.html").is_file()
    with pytest.raises(InterventionError, match="serves the question hub, which is not asked"):
        patch_positions(tiny_gpt2, SOME, tmp_path / "no", questions=["thoughts"], **options)


def test_a_grade_takes_its_attention_from_an_extraction(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    some = [*word_problems(8, family="mixed")]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(json.dumps({"question": p.question, "id": p.id}) for p in some))
    model = CodiModel.from_pretrained("tiny-recall")
    arguments = ["--problems", str(path), *OPTIONS[2:], "--value-weighted"]
    main(["extract", "tiny-recall", "--out", str(tmp_path / "ex"), *arguments])
    request.getfixturevalue("thoughtless")
    used = {each for problem in some for each in problem.references}
    options: dict[str, Any] = {"used": used, "source": tmp_path / "ex", **QUICK}
    report = grade_model(model, some, tmp_path / "grade", **options)
    assert len(report.tables["grades"]) > 0


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_wrong_folder_to_start_from_is_one_sentence(
    extraction: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, start = str(tmp_path / "new"), ("--from", str(extraction))
    analyze = ("analyze", TINY, "--out", new)
    assert "lacks 1 of these 13 problems" in mistake(
        capsys, *analyze, "--n", "13", *OPTIONS[2:], *start
    )
    assert "max_new_tokens 8, not 64" in mistake(capsys, *analyze, "--n", "12", *start)
    other = ("analyze", "tiny-gpt2-plain", "--out", new)
    assert "holds attention of another model" in mistake(capsys, *other, *OPTIONS, *start)
    study = ("study", "tiny-gpt2-plain", "--out", new)
    assert "holds no attention of" in mistake(capsys, *study, *OPTIONS, *start)
    nothing = ("--from", str(tmp_path / "nowhere"))
    assert "nowhere holds no extracted attention" in mistake(capsys, *analyze, *OPTIONS, *nothing)
    plain = tmp_path / "plain"
    main(["extract", TINY, "--out", str(plain), "--from", str(extraction), *OPTIONS])
    ablate = ("ablate", TINY, "--top", "1", "--out", new, "--from", str(plain))
    assert "holds no value-weighted attention" in mistake(capsys, *ablate, *OPTIONS)
    both = ("extract", TINY, "--out", new, "--scores-only", "--half")
    assert "without --value-weighted, --strips and --half" in mistake(capsys, *both)
    assert not Path(new).exists(), "a failed command leaves nothing behind"
    scores = ("extract", TINY, "--out", str(plain), "--scores-only")
    assert "holds the report of `extract`" in mistake(capsys, *scores)
