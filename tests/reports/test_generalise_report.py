"""`codi-lens generalise`: its folder, its sentences, and that it resumes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from codi_lens.cli.main import main

ARGUMENTS = ["--corpora", "hub,skip,sequential", "--n", "12", "--seed", "3", "--threads", "1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("generalise") / "out"
    main(["generalise", "tiny-recall", "--out", str(out), *ARGUMENTS])
    return out


def test_the_folder_is_complete(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {
        "agreement.csv",
        "codi_lens.json",
        "corpora.csv",
        "figures",
        "findings.md",
        "heads.csv",
        "index.html",
        "lens.csv",
        "outcomes",
        "thoughts.csv",
    }
    assert {path.name for path in (folder / "outcomes").iterdir()} == {"hub", "skip", "sequential"}
    assert "Does it hold on other problems?" in (folder / "index.html").read_text()


def test_sentences_say_what_the_tables_hold(folder: Path) -> None:
    text = (folder / "findings.md").read_text()
    corpora = pd.read_csv(folder / "corpora.csv").set_index("corpus")
    needed = [set(str(names).split(", ")) for names in corpora["needed"].dropna()]
    assert f"{len(set.union(*needed))} heads of 24 are needed on at least one of 3 corpora" in text
    everywhere = set.intersection(*needed) if len(needed) == 3 else set()
    assert f", {len(everywhere)} on every one" in text
    agreement = pd.read_csv(folder / "agreement.csv")
    effects = agreement[agreement["quantity"] == "effect of heads"].sort_values("corrected")
    first = effects.iloc[0]
    assert (
        f"By effect of heads, 24 heads are ranked with a ρ of {first['corrected']:.2f} "
        f"[{first['corrected_low']:.2f}, {first['corrected_high']:.2f}] ({first['a']} and "
        f"{first['b']}, n = {first['n_a']} and {first['n_b']})"
    ) in text.replace("−", "-")


def test_the_same_command_resumes_and_gives_the_same_bytes(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    main(["generalise", "tiny-recall", "--out", str(folder), *ARGUMENTS])
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before


@pytest.mark.parametrize(
    ("corpora", "sentence"),
    [
        ("plain", "at least two corpora"),
        ("plain,plain", "Two corpora are called plain"),
        ("plain,nowhere.json", "no problem file nowhere.json"),
    ],
)
def test_corpora_that_will_not_do_are_one_sentence(
    corpora: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        out = ["--out", str(tmp_path / "out")]
        main(["generalise", "tiny-recall", "--corpora", corpora, "--n", "4", *out])
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
