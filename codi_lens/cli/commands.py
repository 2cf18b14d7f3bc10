"""The commands: each checks its options, runs a report, and prints what it found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from codi_lens.cli.options import (
    Corpus,
    Count,
    Loading,
    LoadingOptions,
    Model,
    choose_problems,
    donor_candidates,
    scope,
    split_names,
)
from codi_lens.errors import CodiLensError
from codi_lens.study.thresholds import StudyThresholds

if TYPE_CHECKING:
    from codi_lens.reports.pages.folder import CausalReport


def analyze(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    view: Literal["position", "generation"] = "position",
    batch_size: int = 32,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Find the attention heads that matter in a CODI model, and write a page that shows them.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; open index.html in it.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws the problems.
        view: Rows are the thoughts that attend (position), or the study's loop steps (generation).
        batch_size: Problems per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.outputs import check_output
    from codi_lens.reports.analyze import analyze as run_analysis

    loading.check()
    check_output(out)
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    loaded = loading.load(model, console)
    analysis = run_analysis(
        loaded,
        chosen,
        out,
        view=view,
        corpus=corpus,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
    )
    heads = analysis.heads[view]
    table = Table(title=f"Top heads, {view} view", box=SIMPLE_HEAD, title_style="bold")
    for column in ("head", "band", "type", "composite [95 %]", "strongest attention"):
        table.add_column(column, no_wrap=True)
    for row in heads.head(10).to_dict("records"):
        composite = f"{row['composite']:.2f}"
        if len(chosen) > 1:
            composite += f" [{row['composite_low']:.2f}, {row['composite_high']:.2f}]"
        looks = f"{row['max_query']} → {row['max_key']}  {row['max_attention']:.2f}"
        table.add_row(row["name"], row["band"], row["type"], Text(composite), looks)
    console.print(table)
    for sentence in analysis.findings:
        console.print(f"• {sentence}", highlight=False, markup=False)
    console.print(
        f"\nOpen [bold]{(analysis.folder / 'index.html').resolve()}[/bold]", soft_wrap=True
    )


def verify(
    model: Model,
    /,
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    settings: bool = True,
    official_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Check that a CODI checkpoint loads right: exit code 0 if it does, 1 if not.

    Thoughts, attention, logits and answers of the loaded model are compared with an independent
    implementation (transformers alone, LoRA unmerged, one problem at a time). Settings that no file
    proves are compared with their neighbours, on problems with known answers.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 8 by default, or all that a smaller file holds.
        seed: Draws the problems.
        settings: Compare lora_alpha, remove_eos, bot and eot, and n_thoughts with other values.
        official_batch: Also run the original evaluation's batched loop, with its padding leak.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    chosen, _ = choose_problems(problems, n, seed, default=8)
    console = Console()
    verification = loading.load(model, console).verify(
        chosen, settings=settings, official_batch=official_batch, max_new_tokens=max_new_tokens
    )
    console.print(verification)
    if not verification.passed:
        raise SystemExit(1)


def study(
    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")],
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    n_probe: int = 600,
    png: bool = False,
    thresholds: StudyThresholds = StudyThresholds(),  # noqa: B008  (frozen)
    batch_size: int = 32,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Repeat the published study on one or two models, each quantity beside the corrected one.

    Args:
        models: One model, or two to compare: folders of CODI checkpoints, or hub names.
        out: Folder for the results; open index.html in it.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws the problems; 42 gives the study's own 100 problems of gsm8k.
        n_probe: Further built-in problems for probing the thoughts (builtin only); 0 for none.
        png: Also write static images, where kaleido and a browser are there.
        thresholds: The study's thresholds.
        batch_size: Problems per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the models.
    """
    from codi_lens.outputs import check_output
    from codi_lens.reports.study import check_models, report_study

    loading.check()
    check_models(models)
    check_output(out, "results")
    chosen, corpus = choose_problems(problems, n, seed)
    console = Console()
    report = report_study(
        [loading.load(model, console) for model in models],
        chosen,
        out,
        thresholds=thresholds,
        corpus=corpus,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        n_probe=n_probe,
        png=png,
    )
    for each in report.studies:
        table = Table(title=each.model, box=SIMPLE_HEAD, title_style="bold", show_lines=True)
        for column in ("question", "the study's answer", "what answers it"):
            table.add_column(column, overflow="fold")
        for row in report.measured[each.model]:
            table.add_row(Text(row.question), Text(row.study), Text(row.corrected))
        console.print(table)
        failed = [check for check in each.checks if not check.passed]
        text = f"{len(each.checks) - len(failed)} of the study's {len(each.checks)} checks pass"
        text += "".join(f"; {check.name}: {check.detail}" for check in failed)
        console.print(f"• {text}.", highlight=False, markup=False)
    if report.without_png:
        console.print(f"• {report.without_png}", highlight=False, markup=False)
    console.print(f"\nOpen [bold]{(report.folder / 'index.html').resolve()}[/bold]", soft_wrap=True)


def ablate(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    heads: Annotated[str | None, tyro.conf.arg(metavar="L0H3,L5H3")] = None,
    top: Annotated[int | None, tyro.conf.arg(metavar="K")] = None,
    transplant_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    mode: Literal["resample", "mean", "zero"] = "resample",
    at: Annotated[str, tyro.conf.arg(metavar="POSITIONS")] = "thinking",
    problems: Corpus = "builtin",
    n: Count = None,
    seed: int = 42,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Ablate attention heads, and say what the answers lose; give one of heads, top and all.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; the same command resumes.
        heads: These heads together, beside random heads of their layers, donors matched by answer
            and a placebo; and in pairs.
        top: The K highest by composite score, ranked on one half of the problems and ablated on
            the other: together, in growing numbers against random heads, kept alone, in pairs; and
            their attention patterns transplanted.
        transplant_from: With top, another model whose top heads give their patterns too.
        all: Every head alone, on one half of the problems, against the scores of the other half.
        mode: A head's output comes from another problem, is the mean, or zero (off-distribution).
        at: Positions by name, with commas: thinking, thoughts, question, bot, ct2, eot, answer.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        seed: Draws problems, halves, donors and random heads.
        rows_at_once: Runs per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.head_names import parse_heads
    from codi_lens.outputs import check_output
    from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top

    if (heads is not None) + (top is not None) + all != 1:
        raise CodiLensError("ablate needs exactly one of --heads, --top and --all.")
    if transplant_from is not None and top is None:
        raise CodiLensError("--transplant-from goes with --top.")
    loading.check()
    check_output(out, "outcomes")
    chosen, _ = choose_problems(problems, n, seed)
    console = Console()
    loaded = loading.load(model, console)
    settings: dict[str, Any] = {
        "mode": mode,
        "at": scope(at),
        "seed": seed,
        "rows_at_once": rows_at_once,
        "max_new_tokens": max_new_tokens,
    }
    if all:
        report = ablate_all(loaded, chosen, out, **settings)
        _print_report(report, console, "heads", "name")
        return
    settings["candidates"] = donor_candidates(problems, chosen, seed)
    if top is not None:
        other = None
        if transplant_from is not None:  # what its files do not say belongs to the first model
            shared = Loading(device=loading.device, dtype=loading.dtype, threads=loading.threads)
            other = shared.load(transplant_from, console)
        report = ablate_top(loaded, chosen, top, out, other=other, **settings)
    else:
        cfg = loaded.lens.cfg
        names = parse_heads(heads or "", cfg.n_layers, cfg.n_heads)
        report = ablate_set(loaded, chosen, names, out, **settings)
    _print_report(report, console, "controls", "arm")


def patch(
    model: Model,
    /,
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")],
    questions: Annotated[str | None, tyro.conf.arg(metavar="thoughts,totals,…")] = None,
    at: Annotated[str, tyro.conf.arg(metavar="POSITIONS")] = "question,bot,thoughts,eot",
    components: Annotated[str, tyro.conf.arg(metavar="POINTS")] = "resid_pre,mlp_out",
    problems: Corpus = "builtin",
    n: Count = None,
    n_pairs: Count = None,
    seed: int = 42,
    rows_at_once: int = 128,
    max_new_tokens: int = 64,
    loading: LoadingOptions = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Patch thoughts, attention between positions and the residual stream, and say what carries.

    Args:
        model: Folder of a CODI checkpoint, or a hub name such as zen-E/CODI-gpt2.
        out: Folder for the results; the same command resumes.
        questions: Some of thoughts, totals, restoration, edges, hub; by default all (totals of
            built-in problems only).
        at: Positions that restoration patches, by name, with commas.
        components: What restoration patches, with commas: resid_pre, resid_post, mlp_out, attn_out.
        problems: "builtin" (word problems), "gsm8k", or a JSON or JSON-lines file.
        n: How many problems: 100 by default, or all that a smaller file holds.
        n_pairs: How many pairs of problems for totals and restoration; by default as many.
        seed: Draws problems, pairs, halves and donors.
        rows_at_once: Runs per forward pass.
        max_new_tokens: Longest answer, in tokens.
        loading: How to load the model.
    """
    from codi_lens.outputs import check_output
    from codi_lens.reports.patch import patch_positions

    loading.check()
    check_output(out, "outcomes")
    chosen, _ = choose_problems(problems, n, seed)
    console = Console()
    asked = None if questions is None else split_names(questions)
    points: Any = split_names(components)
    report = patch_positions(
        loading.load(model, console),
        chosen,
        out,
        questions=asked,
        at=scope(at),
        components=points,
        n_pairs=n_pairs,
        seed=seed,
        rows_at_once=rows_at_once,
        max_new_tokens=max_new_tokens,
    )
    _print_report(report, console)


def _print_report(report: CausalReport, console: Console, main: str = "", label: str = "") -> None:
    """The sentences of a causal report, after the first rows of its main table."""
    from codi_lens.wording import with_interval

    if main:
        table = Table(title="Effect of ablation", box=SIMPLE_HEAD, title_style="bold")
        table.add_column("heads", overflow="fold")
        for column in ("effect, nats [95 %]", "q", "accuracy", "changed"):
            table.add_column(column, no_wrap=True)
        for row in report.tables[main].head(15).to_dict("records"):
            shares = (
                "" if row[name] != row[name] else f"{100 * row[name]:.0f} %"  # NaN
                for name in ("accuracy", "changed")
            )
            effect, q = with_interval(row, "effect"), f"{row['q']:.4f}"
            table.add_row(Text(row[label]), Text(effect), q, *shares)
        console.print(table)
    for section in report.sections:
        console.print(f"\n[bold]{section.title}[/bold]")
        for sentence in section.findings:
            console.print(f"• {sentence}", highlight=False, markup=False)
    console.print(f"\nOpen [bold]{(report.folder / 'index.html').resolve()}[/bold]", soft_wrap=True)
