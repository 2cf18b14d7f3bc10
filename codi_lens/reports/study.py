"""The study's folder: its tables, JSON, figures and texts for one or two models, and one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import plotly.io
import xarray as xr

from codi_lens.attention.evidence import Evidence, gather_evidence
from codi_lens.attention.extract import extract
from codi_lens.attention.opening import ATTENTION
from codi_lens.attention.probes import probe_thoughts, supervised_thoughts
from codi_lens.attention.quantities import corrected_quantities
from codi_lens.attention.ranking import ranked_heads
from codi_lens.attention.streaming import Source, source_of
from codi_lens.causal.results import Results
from codi_lens.explorer.folder import save_beside
from codi_lens.model import CodiModel
from codi_lens.outputs import in_place_of, model_names, open_report, to_json, write_text
from codi_lens.plots.drawing.style import width_of
from codi_lens.plots.images import drawn_or_why
from codi_lens.problems.problem import Problem
from codi_lens.problems.words import WordProblem
from codi_lens.reports.pages.facts import attention_facts
from codi_lens.reports.pages.page import write_figures
from codi_lens.reports.pages.study import report_figures, study_page
from codi_lens.study.comparison import compare_corrected, compare_studies
from codi_lens.study.heads import rank_by
from codi_lens.study.measured import Measured, what_the_study_measured
from codi_lens.study.run import Study, run_study
from codi_lens.study.settings import StudyThresholds, check_models
from codi_lens.thinking.ways import check_thoughts
from codi_lens.wording import Stages
from codi_lens.workers.spread import Workers


@dataclass(frozen=True, eq=False)
class StudyReport:
    """What `report_study` found and wrote.

    Attributes:
        studies: one or two.
        corrected: `corrected_quantities` of each model, by its name.
        measured: each published quantity beside the corrected one, by model.
        evidence: what stands behind the findings, by model.
        comparison: the study's comparison; None for a single model.
        folder: where everything was written.
        without_png: why no static images were written; None if they were, or were not asked for.
    """

    studies: list[Study]
    corrected: dict[str, pd.DataFrame]
    measured: dict[str, list[Measured]]
    evidence: dict[str, Evidence]
    comparison: dict[str, Any] | None
    folder: Path
    without_png: str | None


def report_study(
    models: Sequence[CodiModel],
    problems: Sequence[Problem],
    out: str | Path,
    *,
    thresholds: StudyThresholds | None = None,
    corpus: str = "problems",
    sources: Sequence[Source] = (),
    batch_size: int = 32,
    max_new_tokens: int = 64,
    n_probe: int = 600,
    png: bool = False,
    progress: bool = True,
    workers: Workers | None = None,
    ray_address: str | None = None,
) -> StudyReport:
    """Run the published study on one or two models, and write all that its reports contain.

    The folder follows the study's: `results/<model>/` with `ranked_heads.csv` (and `.json`),
    `heads_ranked_by_flow.csv`, `…_hub.csv`, `…_skip.csv`, `attention_patterns_avg.npy`,
    `attention_stats.json`, `attention_summary.json`, `critical_heads_findings.txt`, and beside
    them `validation_checks.json`, `corrected_heads.csv`, `corrected_quantities.csv`,
    `what_the_study_measured.json`, `evidence/` (the tables behind the findings) and
    `attention.zarr` (every problem's attention), `probes` (what a rerun takes them from) and an
    `explorer.html`; `results/model_comparison.json` and `corrected_comparison.csv`;
    `figures/<model>/` and `figures/model_comparison.html`; and `index.html`. A stopped run resumes
    in the same folder.

    Args:
        models: one or two; both think about the same problems.
        problems: what they think about.
        out: the folder; new, empty, or that of an earlier run of the same study.
        thresholds: the study's own if None.
        corpus: what to call the problems.
        sources: folders of extractions, one of each model: see `source` of `extract`.
        batch_size: see `extract`.
        max_new_tokens: see `CodiModel.think`.
        n_probe: on how many further built-in problems thoughts are probed for running totals,
            where all `problems` are built-in ones; 0 for none.
        png: also write static images, where kaleido and a browser are there.
        progress: show a progress bar and, in a terminal, what is computed.
        workers, ray_address: who thinks; see `codi_lens.workers.spread`.

    Raises:
        OutputError: the folder holds other content or another study, or there are not one or two
            models.
        ProblemError: see `extract`.
    """
    check_models(models)
    for model in models:
        check_thoughts(model, "study")
    names = model_names([model.config.source for model in models])
    running: dict[str, Any] = {"batch_size": batch_size, "max_new_tokens": max_new_tokens}
    running |= {"progress": progress, "workers": workers, "ray_address": ray_address}
    taken = [source_of(sources, model) for model in models]
    probed = n_probe if all(isinstance(problem, WordProblem) for problem in problems) else 0
    with open_report(out, "study") as folder:
        found: list[_Studied] = []
        for name, model, source in zip(names, models, taken, strict=True):
            results = folder / "results" / name
            results.mkdir(parents=True, exist_ok=True)
            attention = extract(model, problems, results / ATTENTION, source=source, **running)
            begin = Stages(name, 5, shown=progress)
            studied = _study_one(
                model, problems, attention, name, thresholds, probed, results, begin
            )
            _write_study(results, studied.study)
            _write_corrected(results, studied)
            found.append(studied)
        studies = [each.study for each in found]
        corrected = {each.study.model: each.corrected for each in found}
        measured = {each.study.model: each.measured for each in found}
        evidence = {each.study.model: each.evidence for each in found}
        facts = {
            each.study.model: attention_facts(each.study.model, each.attention, corpus)
            for each in found
        }
        comparison = _compare(studies, corrected, folder / "results")
        begin = Stages("report", 2 + png, shown=progress)
        begin("figures")
        figures = report_figures(studies, corrected, evidence)
        write_figures(folder / "figures", figures)
        if png:
            begin("images")
        without_png = write_png(folder / "figures", figures) if png else None
        begin("page")
        beside = {name: save_beside(folder / "results" / name) for name in names}
        explorers = {name: f"results/{name}/{file}" for name, file in beside.items()}
        page = study_page(studies, figures, corrected, measured, evidence, facts, explorers)
        write_text(folder / "index.html", page)
        begin.end()
        return StudyReport(studies, corrected, measured, evidence, comparison, folder, without_png)


def write_png(folder: Path, figures: dict[str, go.Figure]) -> str | None:
    """Static images of figures, two pixels per point; if that cannot be done, why.

    Args:
        folder: where to, with the subfolders that the names ask for.
        figures: by path in the folder, without an ending.

    Returns:
        None, or one sentence: kaleido is not installed, or it found no browser.
    """
    sizes: list[Any] = [figure.layout for figure in figures.values()]
    return drawn_or_why(
        lambda: plotly.io.write_images(
            list(figures.values()),
            [folder / f"{name}.png" for name in figures],
            width=[width_of(figure) for figure in figures.values()],
            height=[layout.height for layout in sizes],
            scale=2,
        )
    )


@dataclass(frozen=True, eq=False)
class _Studied:
    """What was found about one model."""

    attention: xr.DataArray
    study: Study
    heads: pd.DataFrame
    corrected: pd.DataFrame
    measured: list[Measured]
    evidence: Evidence


def _study_one(
    model: CodiModel,
    problems: Sequence[Problem],
    attention: xr.DataArray,
    name: str,
    thresholds: StudyThresholds | None,
    n_probe: int,
    folder: Path,
    begin: Stages,
) -> _Studied:
    begin("the study's numbers")
    study = run_study(attention, name, thresholds)
    begin("head scores and their intervals")
    heads = ranked_heads(attention)
    begin("corrected quantities")
    corrected = corrected_quantities(attention)
    measured = what_the_study_measured(study, corrected, heads)
    begin("probes of the thoughts")
    probes = _probed(model, n_probe, folder / "probes") if n_probe else None
    begin("evidence")
    evidence = gather_evidence(
        attention,
        heads,
        study.heads.set_index("name")["functional_type"],
        problems=problems,
        probes=probes,
        supervised=supervised_thoughts(model.config.source),
    )
    begin.end()
    return _Studied(attention, study, heads, corrected, measured, evidence)


def _probed(model: CodiModel, n: int, out: Path) -> pd.DataFrame:
    """`probe_thoughts`, kept in a folder, so that a rerun does not think again."""
    with Results(out, {"fingerprint": model.fingerprint(), "n_probe": n}) as results:
        if not results.finished and "probes" not in results:
            results.write("probes", probe_thoughts(model, n))
        return results.finish()


def _compare(
    studies: Sequence[Study], corrected: dict[str, pd.DataFrame], folder: Path
) -> dict[str, Any] | None:
    """Two studies side by side, written too; None for a single one."""
    if len(studies) < 2:
        return None
    comparison = compare_studies(*studies)
    write_text(folder / "model_comparison.json", to_json(comparison))
    beside = compare_corrected(corrected)
    beside.columns = [f"{name}_{column}" for name, column in beside.columns]
    write_text(folder / "corrected_comparison.csv", beside.to_csv())
    return comparison


def _write_study(folder: Path, study: Study) -> None:
    tables = {"ranked_heads": study.heads} | {
        f"heads_ranked_by_{metric}": rank_by(study.heads, metric)
        for metric in ("flow", "hub", "skip")
    }
    for name, table in tables.items():
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
    write_text(folder / "ranked_heads.json", to_json(study.heads.to_dict("records")))
    with in_place_of(folder / "attention_patterns_avg.npy") as partial, partial.open("wb") as file:
        np.save(file, study.mean.values.astype(np.float32))
    write_text(folder / "attention_stats.json", to_json(study.stats))
    write_text(folder / "attention_summary.json", to_json(study.summary))
    write_text(folder / "critical_heads_findings.txt", study.findings)
    checks = [asdict(check) for check in study.checks]
    write_text(
        folder / "validation_checks.json",
        to_json({"checks": checks, "thresholds": asdict(study.thresholds)}),
    )


def _write_corrected(folder: Path, studied: _Studied) -> None:
    write_text(folder / "corrected_heads.csv", studied.heads.to_csv(index=False))
    write_text(folder / "corrected_quantities.csv", studied.corrected.to_csv(index=False))
    rows = [asdict(row) for row in studied.measured]
    write_text(folder / "what_the_study_measured.json", to_json(rows))
    (folder / "evidence").mkdir(exist_ok=True)
    for title, table in studied.evidence.tables().items():
        write_text(folder / "evidence" / f"{title}.csv", table.to_csv(index=False))
