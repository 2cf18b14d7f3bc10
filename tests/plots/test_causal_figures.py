"""Causal figures and pages show the tables that they are given, legibly and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from support.oracle import ROOT

from codi_lens import CodiModel
from codi_lens.causal.dose import DoseResponse
from codi_lens.cli.main import main
from codi_lens.errors import InterventionError, OutputError, ProblemError
from codi_lens.plots.causal.effects import effect_points, redundancy_matrix
from codi_lens.plots.causal.maps import EFFECT_SCALE, causal_map, edge_matrix
from codi_lens.plots.causal.sweeps import dose_response_curves, score_effect_scatter
from codi_lens.plots.drawing import style
from codi_lens.problems import Problem, word_problems
from codi_lens.problems.pairs import random_pairs
from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top
from codi_lens.reports.pages.section import Section, report_page
from codi_lens.reports.patch import patch_positions

# The tiny models' answers have fewer tokens; what an intervention broke would talk on to 64.
QUIET: dict[str, Any] = {"progress": False, "max_new_tokens": 12}


def effects(**labels: list[Any]) -> pd.DataFrame:
    """A table of effects: the first matters, the second is unsure, the rest in between."""
    n = len(next(iter(labels.values())))
    values = np.linspace(-4, 0.5, n)
    spread = np.where(np.arange(n) == 1, 9.0, 0.2)
    table = pd.DataFrame(labels)
    table["effect"] = values
    table["effect_low"], table["effect_high"] = values - spread, values + spread
    table = table.assign(effect_median=values / 2, affected=0.5, min_effect=0.1)
    return table.assign(matters=np.arange(n) == 0, beyond_q=np.where(np.arange(n) == 0, 0.001, 0.5))


def numbers(figure: go.Figure) -> dict[tuple[str, str], str]:
    traces: Any = figure.data
    text = next(trace for trace in traces if trace.type == "scatter")
    return {(y, x): label for y, x, label in zip(text.y, text.x, text.text, strict=True)}


def test_the_causal_map_marks_what_is_sure_and_what_is_not() -> None:
    table = effects(layer=[0, 0, 1, 1], head=[0, 1, 0, 1], scope=["thinking"] * 4)
    figure = causal_map(table)
    title: Any = figure.layout
    assert title.title.text == "What each head is needed for at thinking"
    assert "• = matters: more than 0.1 nats (q < 0.05)" in title.title.subtitle.text
    found = numbers(figure)
    assert found["L0", "H0"] == "•<br>−4.00"
    assert found["L0", "H1"].startswith("○<br>")
    assert found["L1", "H1"] == "<br>0.50"
    heatmap: Any = figure.data[0]
    assert heatmap.zmin == -heatmap.zmax == -4
    np.testing.assert_array_equal(np.array(heatmap.z), table["effect"].to_numpy().reshape(2, 2))
    with pytest.raises(InterventionError, match="no column 'layer'"):
        causal_map(effects(query=["ct1"]))


@pytest.mark.parametrize("figure", [causal_map, edge_matrix])
def test_a_table_without_rows_is_refused(figure: Any) -> None:
    labels: dict[str, Any] = {"layer": [0], "head": [0], "scope": "ct1"}
    table = effects(query=["ct1"]).assign(key="bot", **labels)
    with pytest.raises(InterventionError, match="The table has no row; give what the sweep"):
        figure(table.iloc[:0])


def test_the_causal_map_of_several_scopes_has_a_panel_for_each_on_one_scale() -> None:
    places = ["thinking", "question", "bot", "ct0"]
    tables = [
        effects(layer=[0, 0, 1, 1], head=[0, 1, 0, 1], scope=[name] * 4).assign(
            matters=[i > 0, False, False, i == 2],
            effect=lambda table, i=i: table["effect"] / (i + 1),
        )
        for i, name in enumerate(places)
    ]
    figure = causal_map(pd.concat(tables, ignore_index=True))
    layout: Any = figure.layout
    panels = [each.text for each in layout.annotations]
    assert panels == ["thinking: 0 needed", "question: 1 needed", "bot: 1 needed", "ct0: 1 needed"]
    assert layout.coloraxis.cmin == -layout.coloraxis.cmax == -4
    traces: Any = figure.data
    drawn = [trace for trace in traces if trace.type == "heatmap"]
    assert [float(np.array(each.z)[0, 0]) for each in drawn] == [-4, -2, -4 / 3, -1]
    assert all(each.coloraxis == "coloraxis" for each in drawn)
    marks = [list(trace.text) for trace in traces if trace.type == "scatter"]
    assert marks[0] == [""] * 4 and marks[1] == ["•", "", "", ""]
    twice = pd.concat([tables[0], tables[0], tables[1]])
    with pytest.raises(InterventionError, match="twice"):
        causal_map(twice)


def test_an_edge_that_was_not_cut_is_no_zero() -> None:
    table = effects(query=["bot", "ct0", "ct0"], key=["question", "question", "bot"])
    figure = edge_matrix(table)
    assert numbers(figure)["bot", "bot"] == "×"
    heatmap: Any = figure.data[0]
    assert np.isnan(np.array(heatmap.z, dtype=float)[0, 1])
    assert list(heatmap.y) == ["bot", "ct0"]
    layout: Any = figure.layout
    assert layout.plot_bgcolor == style.IMPOSSIBLE_COLOUR


def test_text_reads_on_both_ends_and_the_middle_of_a_diverging_scale() -> None:
    colours = style.text_on(np.array([0.0, 0.5, 1.0, np.nan]), EFFECT_SCALE)
    assert colours.tolist()[:3] == [style.LIGHT_TEXT, style.DARK_TEXT, style.LIGHT_TEXT]
    switch = style.light_text_from(style.ATTENTION_SCALE)
    near = style.text_on(np.array([switch - 0.01, switch + 0.01]), style.ATTENTION_SCALE)
    assert near.tolist() == [style.DARK_TEXT, style.LIGHT_TEXT]


@pytest.mark.parametrize("keep", [False, True])
def test_dose_curves_start_where_nothing_is_ablated_or_kept(keep: bool) -> None:
    curves = pd.concat(
        [effects(k=[1, 2]).assign(order=order) for order in ("top", "random 1", "random 2")]
    )
    dose = DoseResponse(curves, 1.0, 0.5, 1.5, 0.05, 2, keep, 7.0 if keep else 0.0)
    figure = dose_response_curves(dose)
    traces: Any = figure.data
    assert len(traces) == 3
    top = traces[-1]
    assert list(top.x) == [0, 1, 2]
    assert top.y[0] == (7.0 if keep else 0.0)
    assert top.y[1] == 4
    assert sum(bool(trace.showlegend) for trace in traces) == 2
    layout: Any = figure.layout
    assert ("suffice" in layout.title.text) == keep


def test_scores_stand_against_losses() -> None:
    names = ["L0H0", "L0H1", "L1H0", "L1H1"]
    table = effects(name=names)
    heads = pd.DataFrame({"name": names, "layer": [0, 0, 1, 1], "hub": [1.0, 2.0, 3.0, 4.0]})
    row = {"metric": "hub", "rho": 0.5, "low": 0.1, "high": 0.9, "p": 0.04}
    row |= {f"within_{name}": value for name, value in row.items() if name != "metric"}
    figure = score_effect_scatter(heads, table, pd.DataFrame([row]), "hub")
    traces: Any = figure.data
    assert [trace.name for trace in traces] == ["layer 0", "layer 1"]
    assert list(traces[1].y) == (-table["effect"][2:]).tolist()
    layout: Any = figure.layout
    assert "0.50 [0.10, 0.90]" in layout.title.subtitle.text


def test_points_keep_the_order_of_their_table_and_stand_beside_each_other() -> None:
    table = effects(thought=["ct1", "ct0"] * 2, mode=["mean", "mean", "zero", "zero"])
    figure = effect_points(table, "thought", "mode", title="t")
    traces: Any = figure.data
    assert [trace.name for trace in traces] == ["mean", "zero"]
    assert traces[0].y[0] < 0 < traces[1].y[0]
    layout: Any = figure.layout
    assert list(layout.yaxis.ticktext) == ["ct1", "ct0"]
    assert traces[0].error_x.array[1] == pytest.approx(9)
    with pytest.raises(InterventionError, match="no column 'layer'"):
        effect_points(table, "layer", title="t")


def test_the_redundancy_matrix_holds_pairs_below_and_single_heads_on_the_diagonal() -> None:
    pairs = pd.DataFrame(
        {
            "a": ["A", "A", "B"],
            "b": ["B", "C", "C"],
            "logit_a": [-1.0, -1.0, -2.0],
            "logit_b": [-2.0, -3.0, -3.0],
            "logit_interaction": [-0.5, 0.25, 0.0],
            "logit_interaction_low": [-0.7, 0.2, -1.0],
            "logit_interaction_high": [-0.3, 0.3, 1.0],
            "logit_q": [0.01, 0.2, 0.9],
        }
    )
    found = numbers(redundancy_matrix(pairs))
    assert found["B", "A"] == "•<br>−0.50"
    assert found["C", "A"] == "<br>0.25"
    assert found["C", "B"] == "○<br>0.00"
    assert found["B", "B"] == "alone<br>−2.00"
    assert found["A", "C"] == ""


def test_a_page_escapes_what_it_is_given() -> None:
    section = Section("x", "<b>", "lead & all", ["<script>"], shown={"t": (["a"], [["<i>"]])})
    page = report_page("<model>", {"Model": "<m>"}, [section])
    for raw in ("<script>\n", "<i>", "<model>", "<m>"):
        assert f">{raw}<" not in page
    assert "&lt;script&gt;" in page


def test_a_set_and_the_top_are_reported_with_every_section(
    tiny_gpt2: CodiModel, tmp_path: Path
) -> None:
    problems = word_problems(10, seed=2)
    candidates = word_problems(600, seed=3)
    report = ablate_set(
        tiny_gpt2, problems, [(1, 7), (2, 1)], tmp_path / "set", candidates=candidates, **QUIET
    )
    assert [section.name for section in report.sections] == ["controls", "redundancy"]
    assert any("Donors with the same correct answer" in sentence for sentence in report.findings)
    assert any("Of 1 pair of 2 heads, ablated" in sentence for sentence in report.findings)
    settings: dict[str, Any] = {"n_random": 2, **QUIET}
    report = ablate_top(tiny_gpt2, problems, 3, tmp_path / "top", other=tiny_gpt2, **settings)
    names = [section.name for section in report.sections]
    assert names == ["controls", "dose_response", "redundancy", "transplants"]
    for name, table in report.tables.items():
        written = pd.read_csv(report.folder / f"{name}.csv")
        assert len(written) == len(table)
    page = (report.folder / "index.html").read_text()
    findings = (report.folder / "findings.md").read_text()
    for section in report.sections:
        assert f">{section.title}</h2>" in page
        for sentence in section.findings:
            assert f"- {sentence}\n" in findings
        for figure in section.figures:
            assert (report.folder / "figures" / f"{figure}.html").is_file()
            assert f'data-figure="{figure}"' in page
    ranked = set(report.tables["redundancy"][["a", "b"]].to_numpy().ravel())
    assert len(ranked) == 3
    with pytest.raises(InterventionError, match="from 1 to 23"):
        ablate_top(tiny_gpt2, problems, 24, tmp_path / "no", **QUIET)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("which", ["heads", "top", "all"])
def test_answers_without_numbers_are_one_clear_sentence(
    tiny_gpt2: CodiModel, tmp_path: Path, which: str
) -> None:
    short: dict[str, Any] = {**QUIET, "max_new_tokens": 2}
    problems = word_problems(4, seed=2)
    with pytest.raises(InterventionError, match="No clean answer holds a number"):
        if which == "heads":
            ablate_set(tiny_gpt2, problems, [(1, 7)], tmp_path / "out", **short)
        elif which == "top":
            ablate_top(tiny_gpt2, problems, 2, tmp_path / "out", n_random=1, **short)
        else:
            ablate_all(tiny_gpt2, problems, tmp_path / "out", **short)
    assert not (tmp_path / "out" / "index.html").exists()


def test_problems_without_answers_and_fewer_thoughts_are_reported(tmp_path: Path) -> None:
    two = CodiModel.from_pretrained(ROOT / "checkpoints" / "tiny-gpt2", n_thoughts=2)
    known = word_problems(6, seed=2, n_operations=[1, 2])
    unknown = [Problem(each.question, None, each.id) for each in known]
    report = ablate_all(two, unknown, tmp_path / "all", **QUIET)
    assert report.tables["heads"]["accuracy"].isna().all()
    assert "attribution_thoughts_measured" in report.tables
    # Whatever layer holds all eight heads leaves no others to draw.
    every = [(0, head) for head in range(8)]
    report = ablate_set(two, unknown, every, tmp_path / "set", candidates=unknown, **QUIET)
    assert not report.tables["controls"]["arm"].str.startswith("random").any()
    assert any("no other heads in these layers" in sentence for sentence in report.findings)
    assert any("Donors are not matched by answer" in sentence for sentence in report.findings)


def test_a_folder_keeps_the_report_of_one_command(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    problems = word_problems(4, seed=2)
    out = tmp_path / "out"
    ablate_set(tiny_gpt2, problems, [(1, 7)], out, **QUIET)
    ablate_set(tiny_gpt2, problems, [(1, 7)], out, **QUIET)
    before = (out / "findings.md").read_text()
    with pytest.raises(OutputError, match="holds the report of `ablate --heads L1H7`"):
        ablate_set(tiny_gpt2, problems, [(1, 6)], out, **QUIET)
    assert (out / "findings.md").read_text() == before
    with pytest.raises(ProblemError, match="at least 4 problems, not 3"):
        ablate_all(tiny_gpt2, problems[:3], tmp_path / "few", **QUIET)
    assert not (tmp_path / "few").exists()


def test_patching_asks_what_it_is_asked(tiny_gpt2: CodiModel, tmp_path: Path) -> None:
    problems = word_problems(6, seed=2)
    report = patch_positions(
        tiny_gpt2, problems, tmp_path / "out", questions=["hub", "thoughts"], **QUIET
    )
    assert [section.name for section in report.sections] == ["thoughts", "hub"]
    assert len(report.tables["thoughts"]) == 6 * 4
    with pytest.raises(InterventionError, match="no question 'heads'"):
        patch_positions(tiny_gpt2, problems, tmp_path / "no", questions=["heads"], **QUIET)
    plain = [Problem(each.question, each.answer, each.id) for each in problems]
    with pytest.raises(InterventionError, match="built-in word problems only"):
        patch_positions(tiny_gpt2, plain, tmp_path / "no", questions=["totals"], **QUIET)
    assert not (tmp_path / "no").exists()
    settings: dict[str, Any] = {"questions": ["restoration"], "components": ["mlp_out"], **QUIET}
    report = patch_positions(tiny_gpt2, plain, tmp_path / "plain", **settings)
    assert report.tables["restoration_mlp_out"]["n"].max() <= 3


def test_problems_are_paired_at_random_with_other_answers() -> None:
    problems = word_problems(9, seed=2)
    pairs = random_pairs(problems, seed=1)
    used = [problem.id for pair in pairs for problem in (pair.clean, pair.corrupted)]
    assert len(used) == len(set(used)) == 8
    assert all(pair.clean.answer != pair.corrupted.answer for pair in pairs)
    with pytest.raises(ProblemError, match="different answers"):
        random_pairs([problems[0]])


def test_the_patch_command_writes_a_page_or_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["patch", str(ROOT / "checkpoints" / "tiny-gpt2"), "--n", "6", "--threads", "1"]
    arguments += ["--max-new-tokens", "12"]
    out = tmp_path / "out"
    main([*arguments, "--questions", "edges", "--out", str(out)])
    assert "Which attention between positions" in capsys.readouterr().out
    table = pd.read_csv(out / "edges.csv")
    assert len(table) == 1 + sum(range(2, 8)) + 8 + 9
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--questions", "nothing", "--out", str(tmp_path / "no")])
    assert stop.value.code == 2
    assert "There is no question 'nothing'" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
