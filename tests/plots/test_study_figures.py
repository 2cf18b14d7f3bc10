"""The study's figures and page show what its numbers say, and the command writes all of it."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import xarray as xr
from support.browser import Pages
from support.constructed import random_attention
from support.oracle import ROOT
from support.pages import Tags, data_of
from support.reading import layout_of, traces_of

from codi_lens import open_attention, rank_heads
from codi_lens.attention.evidence import Evidence, gather_evidence
from codi_lens.attention.quantities import corrected_quantities
from codi_lens.cli.main import main
from codi_lens.errors import AttentionError
from codi_lens.plots.drawing import style
from codi_lens.plots.study.comparison import model_comparison
from codi_lens.plots.study.figures import (
    attention_by_layer,
    critical_heads,
    hub_flow_skip,
    metric_distributions,
    strongest_heads,
    study_figures,
)
from codi_lens.plots.study.published import (
    corrected_triptych,
    published_hub_bars,
    published_patterns,
)
from codi_lens.reports.pages.study import report_figures, study_page
from codi_lens.reports.study import write_png
from codi_lens.study.measured import Measured
from codi_lens.study.run import Study, run_study

STUDY = run_study(random_attention(n_layers=6, n_heads=5), "some model")
OTHER = run_study(random_attention(n_layers=2, n_heads=4, n=4, seed=1), "another model")
CORRECTED = corrected_quantities(random_attention(), n_resamples=20)


def evidence_of(study: Study, attention: xr.DataArray) -> Evidence:
    types = study.heads.set_index("name")["functional_type"]
    heads = rank_heads(attention, n_resamples=20)
    return gather_evidence(attention, heads, types, n_resamples=20)


@cache
def evidence() -> dict[str, Evidence]:
    return {
        "some model": evidence_of(STUDY, random_attention(n_layers=6, n_heads=5)),
        "another model": evidence_of(OTHER, random_attention(n_layers=2, n_heads=4, n=4, seed=1)),
    }


@cache
def drawn() -> dict[str, go.Figure]:
    corrected = {"some model": CORRECTED, "another model": CORRECTED}
    return report_figures([STUDY, OTHER], corrected, evidence())


@cache
def with_published() -> dict[str, go.Figure]:
    published = {"heads": published_patterns(), "hubs": published_hub_bars()}
    return {**drawn(), **{f"published {name}": each for name, each in published.items()}}


QUICK = ("--threads", "1", "--n-probe", "60")
STRICT = ("--threads", "1", "--n-probe", "0", "--thresholds.consistent-std", "0.0001")
TINY, LLAMA = (str(ROOT / "checkpoints" / name) for name in ("tiny-gpt2", "tiny-llama"))


def traces(figure: go.Figure, kind: str) -> list[Any]:
    return [trace for trace in traces_of(figure) if trace.type == kind]


def heatmaps(figure: go.Figure, name: str) -> list[np.ndarray]:
    return [
        np.array(trace.z, dtype=float) for trace in traces(figure, "heatmap") if trace.name == name
    ]


def test_the_six_figures_have_the_studys_names() -> None:
    assert list(study_figures(STUDY)) == [
        "1_top_heads_attention",
        "2_attention_by_layer",
        "3_hub_analysis",
        "4_critical_heads_attention",
        "5_top3_critical_heads",
        "6_metric_distributions",
    ]


def test_attention_is_drawn_over_0_to_1_with_impossible_cells_marked() -> None:
    for name, figure in with_published().items():
        axis: Any = figure.layout
        cells, gaps = heatmaps(figure, "attention"), heatmaps(figure, "impossible")
        assert len(cells) == len(gaps), name
        if cells:
            found = (axis.coloraxis.cmin, axis.coloraxis.cmax)
            assert found == style.ATTENTION_RANGE, name
        # Clusters are in the position view, where the diagonal is self-attention and possible.
        last = 0 if name.endswith("evidence/clusters") else -1
        for attention, impossible in zip(cells, gaps, strict=True):
            below = np.tril(np.ones_like(attention, dtype=bool), last)
            np.testing.assert_array_equal(np.isnan(attention), ~below, name)
            np.testing.assert_array_equal(np.isnan(impossible), below, name)


def test_every_figure_has_a_title_a_size_and_readable_text() -> None:
    for name, figure in with_published().items():
        layout: Any = figure.layout
        assert layout.title.text and layout.title.subtitle.text, name
        least = 600 if "/evidence/" in name else 700  # those stand two abreast
        assert layout.width is None, name  # it takes that of its page or notebook cell
        assert style.width_of(figure) >= least and layout.height >= 300, name
        sizes = re.findall(r'"size":\s*(\d+)', str(figure.to_json()))
        texts = [note.font.size for note in layout.annotations] + [layout.font.size]
        assert sizes and min(texts) >= 12, name


def test_strongest_heads_are_those_of_the_stats_with_their_matrices() -> None:
    figure = strongest_heads(STUDY)
    drawn = heatmaps(figure, "attention")
    assert len(drawn) == 20
    for cells, head in zip(drawn, STUDY.stats["top_20_heads"], strict=True):
        assert np.nanmax(cells) == head["max_attention"]
    titles = [note.text for note in layout_of(figure).annotations]
    best = STUDY.stats["top_20_heads"][0]
    start = f"1. L{best['layer']}H{best['head']}<br>max {best['max_attention']:.2f}"
    assert titles[0] == f"{start} [{best['max_position']}]"


def test_critical_heads_are_the_first_of_the_ranking() -> None:
    for n in (10, 3):
        figure = critical_heads(STUDY, n)
        titles = [note.text for note in layout_of(figure).annotations][:n]
        for title, row in zip(titles, STUDY.heads.head(n).to_dict("records"), strict=True):
            assert title.startswith(f"{row['rank']}. {row['name']} · ")
            assert f"<br>{row['functional_type']}<br>" in title
            assert f"hub {row['hub_score']:.3f}" in title
    with pytest.raises(AttentionError, match="at least 1, not 0"):
        critical_heads(STUDY, 0)


@pytest.mark.parametrize(
    ("n_layers", "shown"),
    [(16, [0, 4, 8, 12, 15]), (12, [0, 3, 6, 9, 11]), (3, [0, 1, 2]), (1, [0])],
)
def test_layers_drawn_are_the_studys(n_layers: int, shown: list[int]) -> None:
    study = run_study(random_attention(2, n_layers=n_layers, n_heads=2))
    figure = attention_by_layer(study)
    titles = [note.text for note in layout_of(figure).annotations if note.text.startswith("layer")]
    assert titles == [f"layer {layer}" for layer in shown]
    mean = study.mean.isel(layer=shown[-1]).mean("head").values
    below = np.tril(np.ones_like(mean, dtype=bool), -1)
    np.testing.assert_allclose(heatmaps(figure, "attention")[-1][below], mean[below])


def test_self_attention_is_outlined_in_every_panel() -> None:
    shapes: Any = layout_of(critical_heads(STUDY, 3)).shapes
    cells = [((shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2) for shape in shapes]
    assert len(cells) == 3 * 5
    for column, row in cells:
        assert row == pytest.approx(column + 1), "entry [i, i-1]"


def test_triptych_shows_the_summary_with_its_thresholds() -> None:
    figure = hub_flow_skip(STUDY)
    incoming, steps, skips = (np.array(bar.y) for bar in traces(figure, "bar"))
    summary = STUDY.summary
    np.testing.assert_allclose(incoming, summary["hub_analysis"]["all_hub_scores"])
    np.testing.assert_allclose(steps, summary["sequential_flow"]["sequential_scores"])
    np.testing.assert_allclose(skips, summary["skip_connections"]["skip_scores"])
    lines = [shape.y0 for shape in layout_of(figure).shapes]
    assert lines == [1 / 6, 0.3, 0.1]
    crosses = [note for note in layout_of(figure).annotations if note.text == "×"]
    assert [note.x for note in crosses] == [5], "no step sees ct5"


def test_distributions_count_the_top_heads_once() -> None:
    hub, skip, bands, types = traces(metric_distributions(STUDY), "bar")
    np.testing.assert_array_equal(hub.x, STUDY.heads["hub_score"].head(20))
    np.testing.assert_array_equal(skip.x, STUDY.heads["skip_score"].head(20))
    assert list(hub.y) == STUDY.heads["name"].head(20).tolist()
    assert sum(bands.y) == sum(types.y) == 20


def test_comparison_has_seven_panels_and_no_bar_for_a_thought_that_a_model_lacks() -> None:
    figure = model_comparison(STUDY, OTHER)
    axes = {axis for axis in figure.layout.to_plotly_json() if axis.startswith("xaxis")}
    assert len(axes) == 7
    bars = {bar.name: bar for bar in traces(figure, "bar") if bar.showlegend}
    assert list(bars["some model"].x) == [f"ct{j}" for j in range(6)]
    assert list(bars["another model"].x) == [f"ct{j}" for j in range(4)]
    lines = {line.name: line.y[0] for line in traces(figure, "scatter") if "uniform" in line.name}
    assert lines == {"uniform 1/6 (some model)": 1 / 6, "uniform 1/4 (another model)": 1 / 4}
    same = model_comparison(STUDY, run_study(random_attention(), "same thoughts"))
    names = [line.name for line in traces(same, "scatter")]
    assert names.count("uniform 1/6") == 1


def test_corrected_triptych_shows_value_interval_and_null() -> None:
    figure = corrected_triptych("m", CORRECTED)
    for bar, null, quantity in zip(
        traces(figure, "bar"),
        traces(figure, "scatter"),
        ("hub ratio", "sequential", "by distance"),
        strict=True,
    ):
        rows = CORRECTED[(CORRECTED["quantity"] == quantity) & (CORRECTED["at"] != "mean")]
        np.testing.assert_allclose(bar.y, np.nan_to_num(rows["value"]))
        np.testing.assert_allclose(null.y, rows["null"])
        known = rows["high"].notna().to_numpy()
        high = np.array(bar.y) + np.array(bar.error_y.array)
        np.testing.assert_allclose(high[known], rows["high"][known])


def make_page(text: str = "No.", explorers: dict[str, str] | None = None) -> str:
    return study_page(
        [STUDY, OTHER],
        drawn(),
        {"some model": CORRECTED, "another model": CORRECTED},
        {name: [Measured("Q?", text, "M", "C")] for name in ("some model", "another model")},
        evidence(),
        {name: {"Model": name} for name in ("some model", "another model")},
        explorers,
    )


def test_heads_of_each_model_open_in_its_own_explorer_and_published_ones_in_none() -> None:
    page = make_page("L0H1 leads.", {"some model": "some.html"})
    of = re.compile(r'href="([^"#]+)#head=(L\d+H\d+)"')
    parts = dict(zip(*[iter(re.split(r'<h2 id="([^"]*)"', page)[1:])] * 2, strict=True))
    own = set(of.findall(parts["the-study-on-some-model"]))
    assert own == {("some.html", name) for name in STUDY.heads["name"].head(20)}
    for section in ("the-study-on-another-model", "in-the-study-s-own-numbers"):
        assert of.findall(parts[section]) == []
    beside = of.findall(parts["published-beside-corrected"])
    assert beside == [("some.html", "L0H1")], "in the row of the one model"
    boxes = [found for _, found in Tags(page).tags if "data-explorer" in found]
    assert {found["data-figure"].split("/")[0] for found in boxes} == {"some model"}


def test_page_refers_to_nothing_outside_itself_and_forbids_connections() -> None:
    page = make_page()
    for tag, attributes in Tags(page).tags:
        assert tag not in ("link", "iframe", "img")
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    policies = [a["content"] for t, a in Tags(page).tags if "http-equiv" in a]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")


def test_text_of_a_page_cannot_become_markup() -> None:
    page = make_page("</script><script>alert(1)</script>{{js}}")
    assert [tag for tag, _ in Tags(page).tags].count("script") == 4
    assert "alert(1)</script>" not in page


def test_page_holds_every_figure_and_every_link_leads_somewhere() -> None:
    page = make_page()
    tags = Tags(page).tags
    boxes = [attributes["data-figure"] for _, attributes in tags if "data-figure" in attributes]
    assert sorted(boxes) == sorted(data_of(page)["figures"])
    # random attention has no built-in problems: no totals, and no answers by length
    assert len(boxes) == 2 * (2 + 5 + 8) + 2 + 1
    named = [attributes["id"] for _, attributes in tags if "id" in attributes]
    ids = set(named)
    assert len(ids) == len(named)
    assert {attributes["href"][1:] for tag, attributes in tags if tag == "a"} <= ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "out"
    main(["study", TINY, LLAMA, "--n", "10", "--out", str(out), *QUICK])
    return out


def test_study_folder_is_complete(folder: Path) -> None:
    figures = {f"{name}.html" for name in [*study_figures(STUDY), "corrected_hub_analysis"]}
    for model in ("tiny-gpt2", "tiny-llama"):
        assert {path.name for path in (folder / "results" / model).iterdir()} == {
            "attention.zarr",
            "attention_patterns_avg.npy",
            "attention_stats.json",
            "attention_summary.json",
            "corrected_heads.csv",
            "corrected_quantities.csv",
            "evidence",
            "explorer.html",
            "critical_heads_findings.txt",
            "heads_ranked_by_flow.csv",
            "heads_ranked_by_hub.csv",
            "heads_ranked_by_skip.csv",
            "probes",
            "ranked_heads.csv",
            "ranked_heads.json",
            "validation_checks.json",
            "what_the_study_measured.json",
        }
        assert {path.stem for path in (folder / "results" / model / "evidence").iterdir()} == {
            "answer_reads",
            "answer_reads_by_length",
            "cluster_test",
            "destinations",
            "head_clusters",
            "hub_ratio_by_n_problems",
            "hub_ratios",
            "probed_totals",
            "skip_profile",
            "split_halves",
        }
        drawn = {path.name for path in (folder / "figures" / model).iterdir()}
        assert drawn == figures | {"evidence"}
        behind = {path.stem for path in (folder / "figures" / model / "evidence").iterdir()}
        assert behind == {
            "answer_reads",
            "answer_reads_by_length",
            "clusters",
            "clusters_and_types",
            "decodable_totals",
            "destinations",
            "hub_ratio_by_n_problems",
            "hub_ratios",
            "rank_intervals",
            "skip_profile",
        }
    ours = {"codi_lens.json", "results", "figures", "index.html"}
    assert {path.name for path in folder.iterdir()} == ours
    assert (folder / "results" / "model_comparison.json").is_file()
    assert (folder / "results" / "corrected_comparison.csv").is_file()
    assert (folder / "figures" / "model_comparison.html").is_file()


def test_written_numbers_are_those_of_the_stored_attention(folder: Path) -> None:
    results = folder / "results" / "tiny-llama"
    study = run_study(open_attention(results / "attention.zarr"), "tiny-llama")
    heads = pd.read_csv(results / "ranked_heads.csv")
    assert heads["name"].tolist() == study.heads["name"].tolist()
    np.testing.assert_allclose(heads["composite_score"], study.heads["composite_score"])
    assert list(heads.columns[heads.columns.isin(STUDY_COLUMNS)]) == STUDY_COLUMNS
    assert json.loads((results / "attention_summary.json").read_text()) == study.summary
    assert json.loads((results / "attention_stats.json").read_text()) == study.stats
    np.testing.assert_allclose(
        np.load(results / "attention_patterns_avg.npy"), study.mean.values, atol=1e-7
    )
    rows = json.loads((results / "ranked_heads.json").read_text())
    assert [row["name"] for row in rows] == heads["name"].tolist()
    checks = json.loads((results / "validation_checks.json").read_text())
    assert [check["name"] for check in checks["checks"]] == [each.name for each in study.checks]
    assert checks["thresholds"]["sequential"] == 0.3


STUDY_COLUMNS = [
    "layer",
    "head",
    "layer_type",
    "flow_score",
    "hub_score",
    "skip_score",
    "composite_score",
    "functional_type",
    "max_attention",
]


def test_single_figures_find_plotly_beside_them(folder: Path) -> None:
    for path in (folder / "figures").rglob("*.html"):
        sources = [a["src"] for t, a in Tags(path.read_text()).tags if t == "script" and "src" in a]
        assert len(sources) == 1
        assert (path.parent / sources[0]).resolve() == folder / "figures" / "plotly.min.js"


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study") / "one"
    main(["study", TINY, "--n", "2", "--out", str(out), *STRICT])
    return out


def test_same_command_again_gives_the_same(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    shutil.copytree(one, out)
    (out / "index.html").unlink()
    main(["study", TINY, "--n", "2", "--out", str(out), *STRICT])
    for name in ("ranked_heads.csv", "corrected_quantities.csv", "attention_stats.json"):
        path = Path("results") / "tiny-gpt2" / name
        assert (out / path).read_text() == (one / path).read_text()
    printed = capsys.readouterr().out
    assert "of the study's 12 checks pass" in printed
    assert "index.html" in printed


def test_one_model_is_studied_without_a_comparison(one: Path) -> None:
    assert not (one / "results" / "model_comparison.json").exists()
    stats = json.loads((one / "results" / "tiny-gpt2" / "attention_stats.json").read_text())
    assert stats["consistency"]["consistent"] is False


@pytest.mark.filterwarnings("ignore::codi_lens.ConstantMetricWarning")
@pytest.mark.parametrize("n", [1, 2, 9])
def test_any_number_of_thoughts_is_drawn(n: int) -> None:
    attention = random_attention(3, n_layers=1, n_heads=2, n=n)
    study = run_study(attention, "m")
    figures = report_figures(
        [study],
        {"m": corrected_quantities(attention, n_resamples=5)},
        {"m": evidence_of(study, attention)},
    )
    # two heads form no clusters, and a single thought has no hub and no distance
    assert len(figures) == 7 + (3 if n == 1 else 6)
    assert "NaN" not in "".join(str(figure.to_json()) for figure in figures.values())


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "new"
    for arguments, sentence in (
        (["study", TINY, TINY, TINY, "--out", str(new)], "one model, or two to compare, not 3"),
        (["study", "nowhere", "--out", str(new)], "no folder nowhere"),
        (["study", TINY, "--out", str(ROOT / "tests")], "exists with other content"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err
    assert not new.exists(), "a failed command leaves nothing behind"


def test_missing_kaleido_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "kaleido is not installed" in str(write_png(tmp_path, {"a": go.Figure()}))
    assert not list(tmp_path.iterdir())


def test_missing_browser_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("kaleido")
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no-browser"))
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = str(write_png(tmp_path, {"figure": hub_flow_skip(STUDY)}))
    assert reason.startswith("No static images: kaleido could not draw with a browser")
    assert not list(tmp_path.iterdir())


def test_png_has_the_size_of_the_figure(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    if not shutil.which("chromium"):
        pytest.skip("kaleido needs a browser")
    assert write_png(tmp_path, {"figure": hub_flow_skip(STUDY)}) is None
    header = (tmp_path / "figure.png").read_bytes()[:24]
    width, height = (int.from_bytes(header[i : i + 4], "big") for i in (16, 20))
    figure = hub_flow_skip(STUDY)
    layout: Any = figure.layout
    assert (width, height) == (2 * style.width_of(figure), 2 * layout.height)


def test_page_draws_all_its_figures_in_a_browser(open_page: Pages, folder: Path) -> None:
    page = open_page(folder / "index.html")
    boxes = page.locator("[data-figure]")
    assert boxes.count() == 17 + 2 * 10
    for box in boxes.all():
        box.scroll_into_view_if_needed()
        box.locator(".main-svg").first.wait_for()
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "only tables and figures scroll sideways, not the page"
