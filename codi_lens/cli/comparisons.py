"""Commands that compare: two models, scores with known edges, corpora."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from codi_lens.cli.options import (
    Batches,
    Corpus,
    Count,
    DryRun,
    Flat,
    Folder,
    From,
    Loading,
    Model,
    ResumedFolder,
    Rows,
    split_names,
)
from codi_lens.cli.planning import carried_out, print_plan
from codi_lens.cli.printing import print_findings, print_folder, print_report, print_table
from codi_lens.errors import ProblemError
from codi_lens.outputs import check_output
from codi_lens.problems.problem import Problem
from codi_lens.study.settings import StudyThresholds, check_models


def study(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    /,
    out: Folder,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    n_probe: int = 600,
    png: bool = False,
    thresholds: StudyThresholds = StudyThresholds(),  # noqa: B008  (frozen)
    sources: Annotated[tuple[Path, ...], tyro.conf.arg(name="from", metavar="DIR [DIR]")] = (),
    dry_run: DryRun = False,
    running: Annotated[Batches, Flat] = Batches(),  # noqa: B008  (frozen)
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Repeat the published study on one or two models, each quantity beside the corrected one.

    Args:
        models: One model, or two to compare: folders of CODI checkpoints, or names as elsewhere.
        n_probe: Further built-in problems for probing the thoughts (builtin only); 0 for none.
        png: Also write static images, where kaleido and a browser are there.
        thresholds: The study's thresholds.
        sources: Folders of extract, one per model: their attention is taken instead of thinking.
    """
    check_models(models)
    loading.check(*models)
    check_output(out, "study")
    chosen, name = corpus.choose(*models)
    console = Console()
    loaded = []
    for model in models:
        loaded.append(loading.load(model, console, *loaded))
    from codi_lens.reports.study import report_study

    make = partial(
        report_study,
        loaded,
        chosen,
        thresholds=thresholds,
        corpus=name,
        sources=sources,
        n_probe=n_probe,
        png=png,
        **vars(running),
    )
    if dry_run:
        print_plan(console, len(chosen), make)
        return
    report = make(out=out)
    columns = ("question", "the study's answer", "what answers it")
    for each in report.studies:
        measured = report.measured[each.model]
        rows = [(row.question, row.study, row.corrected) for row in measured]
        print_table(console, each.model, columns, rows, folded=columns)
        failed = [check for check in each.checks if not check.passed]
        text = f"{len(each.checks) - len(failed)} of the study's {len(each.checks)} checks pass"
        text += "".join(f"; {check.name}: {check.detail}" for check in failed)
        print_findings(console, [f"{text}."])
    print_findings(console, [report.without_png] if report.without_png else [])
    print_folder(console, report.folder)


def grade(
    model: Model,
    /,
    out: ResumedFolder,
    control: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    source: From = None,
    dry_run: DryRun = False,
    running: Annotated[Rows, Flat] = Rows(),  # noqa: B008  (frozen)
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Grade scores and heads by the edges that problems are known to need.

    Which of these edges the model uses is read from edges.json in its folder, or measured.

    Args:
        control: A model that learnt the same task with constant thoughts, such as
            tiny-recall-control.
    """
    loading.check(*([model] if control is None else [model, control]))
    check_output(out, "grade")
    chosen, _ = corpus.choose(model, default=200)
    console = Console()
    loaded = loading.load(model, console)
    other = None if control is None else loading.of_another().load(control, console, loaded)
    from codi_lens.causal.references import used_edges_of
    from codi_lens.reports.grade import grade_model

    make = partial(
        grade_model,
        loaded,
        chosen,
        control=other,
        used=used_edges_of(model),
        source=source,
        seed=corpus.seed,
        **vars(running),
    )
    if (report := carried_out(console, loaded, [chosen], make, out, dry_run)) is None:
        return
    (_, section, _) = report.sections
    for title, (columns, rows) in section.shown.items():
        print_table(console, title, columns[:4], [row[:4] for row in rows], folded=columns[:1])
    print_report(console, report)


def generalise(
    model: Model,
    /,
    out: ResumedFolder,
    corpora: Annotated[str, tyro.conf.arg(metavar="CORPUS,CORPUS…")],
    n: Count = None,
    seed: int = 42,
    k: int = 5,
    dry_run: DryRun = False,
    running: Annotated[Rows, Flat] = Rows(),  # noqa: B008  (frozen)
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Ask whether heads, thoughts and what is read are the same on several corpora.

    Args:
        corpora: At least two of builtin, a family of built-in problems ("plain", "hub", "skip",
            "sequential", "mixed"), gsm8k, or problem files, with commas between.
        n: How many problems of each; 50 by default, or all of a smaller file.
        seed: Draws the problems, donors and resamples.
        k: How many of the likeliest tokens count as read.
    """
    loading.check(model)
    check_output(out, "generalise")
    chosen: dict[str, list[Problem]] = {}
    for given in split_names(corpora):
        problems, _ = Corpus(given, n, seed).choose(model, default=50)
        name = Path(given).stem
        if name in chosen:
            raise ProblemError(f"Two corpora are called {name}; give each once, by its own name.")
        chosen[name] = problems
    if len(chosen) < 2:
        raise ProblemError("generalise compares at least two corpora; give --corpora A,B.")
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.reports.generalise import generalise_model

    make = partial(generalise_model, loaded, chosen, k=k, seed=seed, **vars(running))
    if (report := carried_out(console, loaded, chosen.values(), make, out, dry_run)) is None:
        return
    section = report.sections[0]
    for title, (columns, rows) in section.shown.items():
        print_table(console, title, columns, rows, folded=columns[-1:])
    print_report(console, report)
