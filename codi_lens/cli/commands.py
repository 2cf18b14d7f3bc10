"""The commands: each checks its options, runs a report, and prints what it found.

What costs seconds to import is imported once the options have been checked.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

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
    LoadingInWay,
    MinEffect,
    Model,
    ResumedFolder,
    Rows,
    Running,
    scope,
    split_names,
)
from codi_lens.cli.planning import carried_out, print_plan
from codi_lens.cli.printing import print_findings, print_folder, print_report, print_table
from codi_lens.errors import CodiLensError
from codi_lens.outputs import check_output


def analyze(
    model: Model,
    /,
    out: Folder,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    view: Literal["position", "generation"] = "position",
    source: From = None,
    dry_run: DryRun = False,
    running: Annotated[Batches, Flat] = Batches(),  # noqa: B008  (frozen)
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Find the attention heads that matter in a CODI model, and write a page that shows them.

    Args:
        view: Rows are the thoughts that attend (position), or the study's loop steps (generation).
    """
    loading.check(model)
    check_output(out, "analyze")
    chosen, name = corpus.choose(model)
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.reports.analyze import analyze as run_analysis

    make = partial(
        run_analysis, loaded, chosen, view=view, corpus=name, source=source, **vars(running)
    )
    if dry_run:
        print_plan(console, len(chosen), make)
        return
    analysis = make(out=out)
    rows = []
    for row in analysis.heads[view].head(10).to_dict("records"):
        composite = f"{row['composite']:.2f}"
        if len(chosen) > 1:
            composite += f" [{row['composite_low']:.2f}, {row['composite_high']:.2f}]"
        looks = f"{row['max_query']} → {row['max_key']}  {row['max_attention']:.2f}"
        rows.append((row["name"], row["band"], row["type"], composite, looks))
    columns = ("head", "band", "type", "composite [95 %]", "strongest attention")
    print_table(console, f"Top heads, {view} view", columns, rows)
    print_findings(console, analysis.findings)
    print_folder(console, analysis.folder)


def verify(
    model: Model,
    /,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    settings: bool = True,
    expect_accuracy: float | None = None,
    official_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    running: Annotated[Running, Flat] = Running(),  # noqa: B008  (frozen)
    loading: Annotated[Loading, Flat] = Loading(),  # noqa: B008  (frozen)
) -> None:
    """Check that a CODI checkpoint loads right, and that its settings answer best.

    Thoughts, attention, logits and answers of the loaded model are compared with an independent
    implementation (transformers alone, LoRA unmerged, one problem at a time). Settings that no file
    proves are compared with others by right answers, on as many problems as it takes, up to 200.

    Exit code 0: parity holds, no other setting answers better, no fewer answers are right than
    expected. 1: parity fails, or another setting is better. 3: fewer right than expected,
    unexplained. 2: the checkpoint or the command line cannot be read.

    Args:
        settings: Compare settings of CODI, of the base model's config and of the tokenizer.
        expect_accuracy: The share of right answers to expect; by default the folder's own
            evaluation.json or the table of known checkpoints says it, else half.
        official_batch: Also run the original evaluation's batched loop, with its padding leak.
    """
    loading.check(model)
    chosen, _ = corpus.choose(model, default=200)
    console = Console()
    verification = loading.load(model, console).verify(
        chosen,
        corpus.n,
        settings=settings,
        expect_accuracy=expect_accuracy,
        official_batch=official_batch,
        **vars(running),
    )
    console.print(verification)
    if verification.exit_code:
        raise SystemExit(verification.exit_code)


def ablate(
    model: Model,
    /,
    out: ResumedFolder,
    heads: Annotated[str | None, tyro.conf.arg(metavar="L0H3,L5H3")] = None,
    top: Annotated[int | None, tyro.conf.arg(metavar="K")] = None,
    transplant_from: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None,
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    mode: Literal["resample", "mean", "zero"] = "resample",
    at: Annotated[str, tyro.conf.arg(metavar="POSITIONS")] = "thinking",
    by_position: bool = True,
    min_effect: MinEffect = 0.1,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    source: From = None,
    dry_run: DryRun = False,
    running: Annotated[Rows, Flat] = Rows(),  # noqa: B008  (frozen)
    loading: Annotated[LoadingInWay, Flat] = LoadingInWay(),  # noqa: B008  (frozen)
) -> None:
    """Ablate attention heads, and say what the answers lose; give one of heads, top and all.

    Args:
        heads: These heads together, beside random heads of their layers, donors matched by answer
            and a placebo; and in pairs.
        top: The K highest by composite score, ranked on one half of the problems and ablated on
            the other: together, in growing numbers against random heads, kept alone, in pairs; and
            their attention patterns transplanted.
        transplant_from: With top, another model whose top heads give their patterns too.
        all: Every head alone, on one half of the problems, against the scores of the other half.
        mode: A head's output comes from another problem, is the mean, or zero (off-distribution).
        at: Positions by name, with commas: thinking, thoughts, question, bot, ct2, eot, answer.
        by_position: With all, ablate every head at every single position too.
    """
    if (heads is not None) + (top is not None) + all != 1:
        raise CodiLensError("ablate needs exactly one of --heads, --top and --all.")
    if transplant_from is not None and top is None:
        raise CodiLensError("--transplant-from goes with --top.")
    loading.check(model)
    check_output(out, "ablate")
    chosen, _ = corpus.choose(model)
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.head_names import parse_heads
    from codi_lens.reports.ablate import ablate_all, ablate_set, ablate_top

    asked: dict[str, Any] = {"mode": mode, "at": scope(at), "seed": corpus.seed, **vars(running)}
    asked |= {"min_effect": min_effect, "source": source}
    if all:
        make = partial(ablate_all, loaded, chosen, by_position=by_position, **asked)
    else:
        asked["candidates"] = corpus.donor_candidates(chosen, model)
    if top is not None:
        other = None
        if transplant_from is not None:
            other = loading.of_another().load(transplant_from, console, loaded)
        make = partial(ablate_top, loaded, chosen, top, other=other, **asked)
    elif heads is not None:
        cfg = loaded.lens.cfg
        names = parse_heads(heads, cfg.n_layers, cfg.n_heads)
        make = partial(ablate_set, loaded, chosen, names, **asked)
    if (report := carried_out(console, loaded, [chosen], make, out, dry_run)) is None:
        return
    main = ("heads", "name") if all else ("controls", "arm")
    print_report(console, report, *main, f"Effect of ablation at {at}")


def patch(
    model: Model,
    /,
    out: ResumedFolder,
    questions: Annotated[str | None, tyro.conf.arg(metavar="thoughts,totals,…")] = None,
    at: Annotated[str | None, tyro.conf.arg(metavar="POSITIONS")] = None,
    components: Annotated[str, tyro.conf.arg(metavar="POINTS")] = "resid_pre,mlp_out",
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    n_pairs: Count = None,
    min_effect: MinEffect = 0.1,
    source: From = None,
    dry_run: DryRun = False,
    running: Annotated[Rows, Flat] = Rows(),  # noqa: B008  (frozen)
    loading: Annotated[LoadingInWay, Flat] = LoadingInWay(),  # noqa: B008  (frozen)
) -> None:
    """Patch thoughts, attention between positions and the residual stream, and say what carries.

    Args:
        questions: Some of thoughts, totals, restoration, edges, hub; by default all (totals of
            built-in problems only).
        at: Positions that restoration patches, by name, with commas; by default all but the answer.
        components: What restoration patches, with commas: resid_pre, resid_post, mlp_out, attn_out.
        n_pairs: How many pairs of problems for totals and restoration; by default as many.
    """
    loading.check(model)
    check_output(out, "patch")
    chosen, _ = corpus.choose(model)
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.reports.patch import patch_positions

    points: Any = split_names(components)
    make = partial(
        patch_positions,
        loaded,
        chosen,
        questions=None if questions is None else split_names(questions),
        at=None if at is None else scope(at),
        components=points,
        n_pairs=n_pairs,
        min_effect=min_effect,
        source=source,
        seed=corpus.seed,
        **vars(running),
    )
    if (report := carried_out(console, loaded, [chosen], make, out, dry_run)) is not None:
        print_report(console, report)


def read(
    model: Model,
    /,
    out: Folder,
    k: int = 5,
    corpus: Annotated[Corpus, Flat] = Corpus(),  # noqa: B008  (frozen)
    dry_run: DryRun = False,
    running: Annotated[Batches, Flat] = Batches(),  # noqa: B008  (frozen)
    loading: Annotated[LoadingInWay, Flat] = LoadingInWay(),  # noqa: B008  (frozen)
) -> None:
    """Read what the thoughts say: the logit lens at every layer, and the authors' probe.

    Args:
        k: How many tokens of each place.
    """
    loading.check(model)
    check_output(out, "read")
    chosen, _ = corpus.choose(model)
    console = Console()
    loaded = loading.load(model, console)
    from codi_lens.reports.read import read_thoughts

    make = partial(read_thoughts, loaded, chosen, k=k, **vars(running))
    if dry_run:
        print_plan(console, len(chosen), make)
    else:
        print_report(console, make(out=out))
