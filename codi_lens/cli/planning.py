"""What a command comes to: said before it starts (`--dry-run`), and followed while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from warnings import catch_warnings

from rich.console import Console

from codi_lens.cli.printing import print_findings, print_table
from codi_lens.errors import CodiLensError
from codi_lens.wording import count

if TYPE_CHECKING:
    from codi_lens.model import CodiModel
    from codi_lens.problems.problem import Problem

Report = TypeVar("Report")
LONG = 60.0
"""Seconds of thinking, times heads, from which on work on every head is planned to be followed."""


def carried_out(
    console: Console,
    model: CodiModel,
    corpora: Collection[Sequence[Problem]],
    make: Callable[..., Report],
    out: Path,
    dry_run: bool,
) -> Report | None:
    """Make a report of many runs; or, with `dry_run`, nothing, and say what it would come to.

    In a terminal, long work is planned first, from batches that run once each, so that one line
    shows the rate and the time left of all of it.

    Args:
        console: where to.
        model: the model that is run,
        corpora: on these problems.
        make: makes the report; it takes the folder `out` and `progress`.
        out: the report's folder.
        dry_run: whether nothing is made.
    """
    from codi_lens.work import follow, rehearse

    if dry_run:
        print_plan(console, sum(map(len, corpora)), make)
        return None
    finished = (out / "index.html").exists()  # before, so that most of it is there
    if finished or not sys.stderr.isatty() or not _is_long(model, corpora):
        return make(out=out)
    try:
        status = console.status("planning, by running a sample")
        # What is made up is not warned of; the work has warnings of its own.
        with status, catch_warnings(action="ignore"), rehearse(repeats=0) as plan:
            make(out=plan.folder / "out", progress=False)
    except CodiLensError:  # a sample may lack what the whole has; if not, the work says it
        return make(out=out)
    with follow(plan):
        return make(out=out)


def _is_long(model: CodiModel, corpora: Collection[Sequence[Problem]]) -> bool:
    from codi_lens.readout.batches import read_all
    from codi_lens.work import rehearse

    running: dict[str, Any] = {"batch_size": 32, "max_new_tokens": 64, "progress": False}
    with rehearse(repeats=0) as plan:
        for problems in corpora:
            read_all([], model, problems, "thinking", **running)
    cfg = model.lens.cfg
    return plan.seconds[0] * cfg.n_layers * cfg.n_heads > LONG


def print_plan(console: Console, n_problems: int, make: Callable[..., object]) -> None:
    """Say what a command would come to, by running a sample.

    Args:
        console: where to.
        n_problems: what it is about.
        make: see `carried_out`; the folder that it is given is removed afterwards.
    """
    from codi_lens.work import rehearse

    with console.status("running a sample"), rehearse() as plan:
        make(out=plan.folder / "out", progress=False)
    columns = ("stage", "interventions", "runs", "batches", "tokens, about", "time")
    rows = []
    for stage in plan.stages:
        counts = (stage.interventions, stage.runs, stage.batches, stage.tokens)
        rows.append((stage.name, *(f"{each:,}" for each in counts), stage.time))
    print_table(console, f"Plan for {count(n_problems, 'problem')}", columns, rows)
    acting = plan.interventions > 0
    sentences = [
        (f"{count(plan.interventions, 'intervention')} and the clean runs: " if acting else "")
        + plan.summary,
        f"{plan.bytes / 1e6:.1f} MB in {plan.files:,} files would be written; nothing was.",
    ]
    if peak := _peak():
        sentences.append(f"Running the sample, in batches of full size, peaked at {peak}.")
    print_findings(console, sentences)


def _peak() -> str:
    """The most memory that this process held, and on a GPU."""
    import torch

    found: list[str] = []
    if sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.append(f"{peak * (1 if sys.platform == 'darwin' else 1024) / 1e9:.2f} GB of memory")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found.append(f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB of the GPU's")
    return " and ".join(found)
