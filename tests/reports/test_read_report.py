"""`codi-lens read`: the folder that it writes, from the command line and from Python."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from support.oracle import ROOT

from codi_lens import CodiModel
from codi_lens.cli.main import main
from codi_lens.problems import Problem, word_problems
from codi_lens.readout.decode import decode_thoughts
from codi_lens.readout.known import CONTROL, with_controls
from codi_lens.reports.read import read_thoughts
from codi_lens.thinking.think import think

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("read") / "out"
    main(["read", TINY, "--out", str(out), "--n", "12", "--k", "3", "--threads", "1"])
    return out


def test_the_folder_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "codi_lens.json",
        "decoded_latent.txt",
        "figures",
        "findings.md",
        "index.html",
        "known.csv",
        "lens.csv",
        "problems.json",
        "tokens.csv",
    }
    tokens = pd.read_csv(folder / "tokens.csv")
    assert len(tokens) == 12 * 7
    lens = pd.read_csv(folder / "lens.csv", keep_default_na=False)
    assert set(lens["position"]) == {"bot", *(f"ct{i}" for i in range(6)), "eot", "anchor"}
    assert set(lens["rank"]) == {"1", "2", "3"} or set(lens["rank"]) == {1, 2, 3}
    text = (folder / "decoded_latent.txt").read_text()
    assert text.count("Model Prediction: ") == 12
    page = (folder / "index.html").read_text()
    assert "What do the thoughts say?" in page
    assert "Is it causal?" not in page


def test_findings_are_those_of_the_table(folder: Path) -> None:
    known = pd.read_csv(folder / "known.csv")
    rows = known[known["place"] == "thought ct0"].set_index("target")
    share, n = rows["share"]["total 1"], rows["n"]["total 1"]
    assert (share, n) == (1.0, 12), "training put it there"
    assert rows["control_share"]["total 1"] < 0.3
    text = (folder / "findings.md").read_text()
    assert "Total 1 is the likeliest token of thought ct0 as it is fed in 100 %" in text
    assert "of 12 problems" in text


def test_the_same_command_again_gives_the_same(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    main(["read", TINY, "--out", str(folder), "--n", "12", "--k", "3", "--threads", "1"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_lens_and_probe_read_the_same_runs(
    tiny_gpt2: CodiModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some, made = word_problems(6), []
    run = partial(think, tiny_gpt2)
    monkeypatch.setattr(
        "codi_lens.model.think", lambda _, *given, **asked: made.append(1) or run(*given, **asked)
    )
    report = read_thoughts(tiny_gpt2, some, tmp_path / "out", batch_size=32, progress=False)
    assert len(made) == 1
    monkeypatch.undo()
    rows = decode_thoughts(tiny_gpt2, some, progress=False)
    probed = report.tables["tokens"]
    assert probed["tokens"].tolist() == [" | ".join(each) for each in rows["tokens"]]
    assert probed["answer"].tolist() == rows["answer"].tolist()


def test_answers_that_no_token_writes_are_not_looked_for(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    some = [Problem(p.question, 1000 + i, p.id) for i, p in enumerate(word_problems(2))]
    report = read_thoughts(tiny_gpt2, some, tmp_path / "out", progress=False)
    assert [section.name for section in report.sections] == ["lens", "probe"]


def test_controls_are_values_of_other_problems() -> None:
    made = with_controls({"a": [1, 1, 2, None], "b": [None, 5, None, None]})
    assert made[f"{CONTROL}a"] == [2, 2, 1, None]
    assert made[f"{CONTROL}b"] == [None] * 4
