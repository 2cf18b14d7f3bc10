"""`explore` in a notebook and on what commands left in their folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.constructed import random_attention
from support.explored import block, recall
from support.pages import data_of

from codi_lens import explore, open_attention
from codi_lens.cli.main import main
from codi_lens.errors import AttentionError, CodiLensError, OutputError
from codi_lens.explorer.details import read_details
from codi_lens.explorer.folder import gather


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An analysis and an ablation of tiny-recall."""
    root = tmp_path_factory.mktemp("folders")
    few = ["--n", "8", "--threads", "1", "--max-new-tokens", "12"]
    main(["analyze", "tiny-recall", *few, "--out", str(root / "analysis")])
    main(
        [
            "ablate",
            "tiny-recall",
            "--all",
            *few,
            "--no-by-position",
            "--out",
            str(root / "ablation"),
        ]
    )
    return root


def test_the_selection_goes_both_ways() -> None:
    explorer = recall().explorer
    explorer.selected_heads = [(2, 3), "L0H4"]
    assert explorer.widget.selected_heads == [[2, 3], [0, 4]]
    explorer.widget.selected_heads = [[1, 1]]  # what the browser does
    assert explorer.selected_heads == [(1, 1)]
    explorer.selected_heads = []
    assert explorer.selected_heads == []
    id = recall().problems[1].id
    explorer.problem = id
    assert explorer.widget.problem == id
    explorer.problem = None
    assert explorer.problem is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("selected_heads", [(0, 0), (0, 1), (0, 2)], "one head, and one beside it; 3 were given"),
        ("selected_heads", [(9, 9)], "L9H9"),
        ("selected_heads", "L9H9", "L9H9"),
        ("problem", "nobody", "has no problem 'nobody'; it has 10 problems: test-mixed-3-0"),
    ],
)
def test_a_wrong_selection_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(CodiLensError, match=message):
        setattr(recall().explorer, name, value)


def test_a_notebook_gets_the_widget_with_the_page_s_own_script_and_numbers() -> None:
    explorer = recall().explorer
    (shown, _) = explorer._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/plain"] == repr(explorer)
    assert json.loads(explorer.widget.payload) == data_of(explorer.page())
    assert explorer.widget.blocks == explorer.blocks
    assert str(explorer.widget._esm).endswith("export default CodiLensExplorer;")
    assert "24 heads, 10 problems one by one" in repr(explorer)


def test_an_analysis_opens_on_its_finding_and_shows_single_problems(folders: Path) -> None:
    sent = data_of((folders / "analysis" / "index.html").read_text(encoding="utf-8"))
    attention = open_attention(folders / "analysis" / "attention.zarr")
    assert [each["id"] for each in sent["problems"]] == attention["problem"].values.tolist()
    assert all(each["tokens"] and each["totals"] for each in sent["problems"])
    assert sent["lens"]["positions"][0] == "bot" and sent["findings"]


def test_what_an_analysis_keeps_is_not_thought_again(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (folders / "analysis" / "index.html").read_bytes()
    for name in ("read_all", "logit_lens"):
        monkeypatch.delattr(f"codi_lens.reports.questions.closely.{name}")
    analysis = ["analyze", "tiny-recall", "--n", "8", "--threads", "1", "--max-new-tokens", "12"]
    main([*analysis, "--out", str(folders / "analysis")])
    assert (folders / "analysis" / "index.html").read_bytes() == page


def test_folders_of_one_model_are_gathered(folders: Path, capsys: pytest.CaptureFixture) -> None:
    main(["explore", str(folders / "analysis"), str(folders / "ablation")])
    page = folders / "analysis" / "explorer.html"
    assert str(page) in capsys.readouterr().out.replace("\n", "")
    groups = {each["group"] for each in data_of(page.read_text(encoding="utf-8"))["quantities"]}
    assert {"Effect of ablating (resample)", "Attribution patching"} <= groups
    both = gather(folders / "analysis", folders / "ablation")
    kept = read_details(folders / "analysis" / "details.npz")
    strip = next(iter(kept.values())).strip
    assert strip is not None
    np.testing.assert_array_equal(block(both, "t0", np.uint8, *strip.shape), strip)


def test_what_cannot_be_gathered_is_said(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is no folder; give that of a codi-lens command"):
        gather(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="holds no attention; give the folder of"):
        gather(tmp_path)
    other = tmp_path / "other"
    main(["analyze", "tiny-gpt2", "--n", "2", "--threads", "1", "--out", str(other)])
    with pytest.raises(OutputError, match="is of another model"):
        gather(folders / "analysis", other)
    (other / "details.npz").write_bytes(b"PK damaged")
    with pytest.raises(OutputError, match=r"details\.npz is damaged or something else"):
        gather(other)
    (other / "details.npz").unlink()
    (other / "lens.csv").write_text("a,b\n1,2\n")
    with pytest.raises(OutputError, match=r"lens\.csv is damaged or something else"):
        gather(other)
    for name in ("heads.csv", "lens.csv"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        (tmp_path / "bare" / name).write_bytes((folders / "ablation" / "heads.csv").read_bytes())
    with pytest.raises(OutputError, match="does not say which model and problems it is of"):
        gather(folders / "analysis", tmp_path / "bare")


def test_what_is_of_other_problems_is_left_out(folders: Path, tmp_path: Path) -> None:
    reading = tmp_path / "reading"
    main(["read", "tiny-recall", "--n", "3", "--threads", "1", "--out", str(reading)])
    both = gather(folders / "ablation", reading)
    (reading / "lens.csv").rename(tmp_path / "lens.csv")
    told = json.loads((reading / "problems.json").read_text())
    lens = pd.read_csv(tmp_path / "lens.csv", keep_default_na=False)
    own, theirs = both.payload["problems"][0], lens["problem"].iloc[0]
    lens.assign(problem=lens["problem"].replace({theirs: own["id"]})).to_csv(
        reading / "lens.csv", index=False
    )
    for question, kept in (("another question", False), (own["question"], True)):
        told["questions"] = {own["id"]: question}
        (reading / "problems.json").write_text(json.dumps(told))
        gathered = gather(folders / "ablation", reading)
        assert (gathered.payload["lens"] is not None) == kept


def test_two_ablations_stand_beside_each_other(folders: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(folders / "ablation", again)
    made = gather(folders / "analysis", folders / "ablation", again)
    groups = {each["group"] for each in made.payload["quantities"]}
    first = "Effect of ablating (resample)"
    assert {first, f"{first}, again"} <= groups


def test_a_mean_without_problems_is_shown_as_it_is(tmp_path: Path) -> None:
    attention = random_attention()
    made = explore(attention.mean("problem"))
    assert made.payload["problems"] == [] and made.payload["series"][0]["n"] is None
    assert made.save(tmp_path / "mean.html").stat().st_size > 50_000
    with pytest.raises(AttentionError, match="belong to problems"):
        explore(attention.mean("problem"), runs=recall().runs)
