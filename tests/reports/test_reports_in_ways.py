"""`--way`: what commands write of a model that answers at once or in words; what they refuse."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from support.oracle import ROOT

from codi_lens import CodiModel, PositionError, open_attention
from codi_lens.cli.main import main
from codi_lens.problems import word_problems
from codi_lens.reports.analyze import analyze
from codi_lens.reports.generalise import generalise_model
from codi_lens.reports.grade import grade_model
from codi_lens.reports.study import report_study

TINY = str(ROOT / "checkpoints" / "tiny-gpt2")
OPTIONS = ("--n", "8", "--threads", "1")
PROBLEMS = word_problems(8)


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("way", ["skip", "explain"])
def test_heads_are_ablated_in_the_way(way: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["ablate", TINY, "--heads", "L1H7,L2H1", "--at", "all", "--way", way, "--out", str(out)]
    main([*asked, *OPTIONS])
    table = pd.read_csv(out / "controls.csv")
    assert table["effect"].notna().all() and "thought_change" not in table
    assert not table["arm"].str.contains("ct").any()
    page = (out / "index.html").read_text()
    assert {"skip": "at once, without thoughts", "explain": "in words"}[way] in page
    assert "The placebo" not in page and "thoughts changed" not in page
    assert not (out / "outcomes" / "attention.zarr").exists()


@pytest.mark.parametrize("way", ["skip", "explain"])
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("ablate --all", "or ablate heads by name"),
        ("ablate --top 2", "or ablate heads by name"),
        ("ablate --heads L1H7", "'thinking'; give at least one of question"),
        ("ablate --heads L1H7 --at all --from elsewhere", "extraction is about thoughts"),
        ("patch --questions thoughts", "The question 'thoughts' is about"),
        ("extract --scores-only", "extract_scores is about thoughts"),
    ],
)
def test_what_is_about_thoughts_leaves_nothing_behind(
    command: str, sentence: str, way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command.split()
    asked = [name, TINY, *options, "--way", way, "--out", str(tmp_path / "out"), *OPTIONS]
    assert sentence in refused(asked, capsys)
    assert not (tmp_path / "out").exists()


def test_what_is_about_thoughts_alone_offers_no_way(
    tmp_path: Path, tiny_gpt2: CodiModel, capsys: pytest.CaptureFixture[str]
) -> None:
    out, model = tmp_path / "out", tiny_gpt2.in_way("skip")
    assert "--way" in refused(["analyze", TINY, "--way", "skip", "--out", str(out)], capsys)
    for write in (
        lambda: analyze(model, PROBLEMS, out, progress=False),
        lambda: report_study([tiny_gpt2, model], PROBLEMS, out, progress=False),
        lambda: grade_model(model, word_problems(4, family="hub"), out, progress=False),
        lambda: generalise_model(model, {"a": PROBLEMS, "b": PROBLEMS}, out, progress=False),
    ):
        with pytest.raises(PositionError, match="is about thoughts"):
            write()
        assert not out.exists()


def test_patch_asks_what_can_be_asked(tmp_path: Path) -> None:
    for way, at, n_edges in (("skip", {"bot", "eot"}, 6), ("explain", {"question"}, 1)):
        out = tmp_path / way
        main(["patch", TINY, "--way", way, "--out", str(out), *OPTIONS])
        assert len(pd.read_csv(out / "edges.csv")) == n_edges
        groups = pd.read_csv(out / "edge_groups.csv")["arm"]
        assert len(groups) and not groups.str.contains("thoughts").any()
        restored = pd.read_csv(out / "restoration_resid_pre.csv")
        assert restored["fraction"].notna().all() and at <= set(restored["position"])
        assert not (out / "thoughts.csv").exists()


def test_an_extraction_in_a_way_is_no_source_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    main(["extract", TINY, "--way", "skip", "--out", str(kept), *OPTIONS])
    assert open_attention(kept)["query"].values.tolist() == ["bot", "eot", "anchor"]
    asked = ["analyze", TINY, "--from", str(kept), "--out", str(tmp_path / "out"), *OPTIONS]
    assert "same model, settings, way and backend" in refused(asked, capsys)
    assert "run without thoughts" in refused(["explore", str(kept)], capsys)


def test_words_without_a_number_leave_nothing_to_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["read", TINY, "--way", "explain", "--max-new-tokens", "1", "--out", str(out), *OPTIONS]
    assert "no step and no anchor" in refused(asked, capsys)
    assert not out.exists()


@pytest.mark.parametrize(
    ("way", "places"), [("skip", {"bot", "eot", "anchor"}), ("explain", {"step0", "anchor"})]
)
def test_states_are_read_in_the_way(
    way: str, places: set[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    main(["read", TINY, "--way", way, "--out", str(out), *OPTIONS])
    written = {"figures", "findings.md", "index.html", "known.csv", "lens.csv", "problems.json"}
    assert {path.name for path in out.iterdir()} == {"codi_lens.json", *written}
    lens = pd.read_csv(out / "lens.csv", keep_default_na=False)
    assert places <= set(lens["position"]) and "ct0" not in set(lens["position"])
    assert "at the last layer in" in (out / "findings.md").read_text()
    assert "As CODI" not in (out / "index.html").read_text()
    for other in {"think", "skip", "explain"} - {way}:
        asked = ["read", TINY, "--way", other, "--out", str(out), *OPTIONS]
        assert f"holds the report of `read --way {way}`" in refused(asked, capsys)
